/* What every libcurl transfer to a worker has in common, probes and questions: URL, TLS, our key.
 */
#ifndef PD_ROUTER_CURL_H
#define PD_ROUTER_CURL_H

#include <curl/curl.h>

#include "lib/router/fleet/worker.h"

/* The header lines for workers; *out is NULL when there are none, else for curl_slist_free_all. */
int workercurl_fields(struct curl_slist **out, const char *api_key) PD_MUST;

/* What libcurl and TLS have to say about a transfer; lives as long as it. */
struct workercurl {
	struct tls_context *tls;
	struct tls_lent lent;
	struct curl_slist *at; /* its addresses, those of requests; owned */
	char why[CURL_ERROR_SIZE];
};
/* A GET of `path`, to the addresses and with TLS as requests have it; of another port of the worker
 * (not 0) without TLS and without its base path. The fields and the worker
 * live as long as the transfer; workercurl_release follows in any case, after it. */
bool workercurl_setup(CURL *easy, struct workercurl *way, const struct router_config *c,
		      struct worker *w, int port, const char *path, struct curl_slist *fields,
		      int64_t timeout_ns) PD_MUST;
void workercurl_release(struct workercurl *way);
/* The worker's certificate is not right: asking again does not help. */
bool workercurl_refused(const struct workercurl *way);
/* Why a transfer failed, for a person. */
void workercurl_why(const struct workercurl *way, CURLcode result, char *out, size_t cap);

#endif
