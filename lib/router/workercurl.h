/* What every libcurl transfer to a worker has in common, probes and questions: URL, TLS, our key.
 */
#ifndef PD_ROUTER_WORKERCURL_H
#define PD_ROUTER_WORKERCURL_H

#include <curl/curl.h>

#include "lib/router/fleet.h"

/* The header lines for workers; *out is NULL when there are none, else for curl_slist_free_all. */
int workercurl_fields(struct curl_slist **out, const char *api_key) PD_MUST;
/* A GET of `path`, with TLS as requests have it. `why` has CURL_ERROR_SIZE bytes and lives as long
 * as the transfer, and so do the fields. */
bool workercurl_setup(CURL *easy, const struct router_config *c, const struct worker *w,
		      const char *path, struct curl_slist *fields, int64_t timeout_ns,
		      char *why) PD_MUST;

#endif
