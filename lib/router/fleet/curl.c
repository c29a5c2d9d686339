#include "lib/router/fleet/curl.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"

static CURLcode lend_tls(CURL *easy, void *ssl_ctx, void *arg)
{
	struct workercurl *way = arg;

	(void)easy;
	return tls_context_lend(way->tls, ssl_ctx, &way->lent) ? CURLE_OUT_OF_MEMORY : CURLE_OK;
}

/* Verified as requests are: with the same CAs and certificate, which are not read from their files
 * each time. */
static bool set_tls(CURL *easy, struct workercurl *way, const struct router_config *c)
{
	long verify = c->worker_tls_insecure ? 0 : 1;

	return curl_easy_setopt(easy, CURLOPT_CAINFO, NULL) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, lend_tls) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, way) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2 * verify) == CURLE_OK;
}

int workercurl_fields(struct curl_slist **out, const char *api_key)
{
	struct buf line;

	*out = NULL;
	if (!api_key)
		return PD_OK;
	buf_init(&line, strlen(api_key) + 64);
	if (buf_printf(&line, "Authorization: Bearer %s", api_key) == PD_OK)
		*out = curl_slist_append(NULL, line.data);
	buf_release(&line);
	return *out ? PD_OK : PD_ENOMEM;
}

void workercurl_release(struct workercurl *way)
{
	curl_slist_free_all(way->at);
	way->at = NULL;
}

/* "host:port:address,[address]": what requests connect to, and nothing is asked again. */
static bool set_addresses(CURL *easy, struct workercurl *way, struct worker *w, int port)
{
	struct net_addrs addrs;
	char text[NET_ADDR_TEXT];
	struct buf line;
	int err;

	if (!w->named)
		return true;
	if (worker_addresses(w, &addrs, NULL))
		return false;
	buf_init(&line, 4096);
	err = buf_printf(&line, "%s:%d:", w->at.host, port ? port : (int)w->at.port);
	for (unsigned i = 0; !err && i < addrs.n; i++) {
		net_addr_text(&addrs.a[i].sa.any, text);
		err = buf_printf(&line, strchr(text, ':') ? "%s[%s]" : "%s%s", i ? "," : "", text);
	}
	way->at = err ? NULL : curl_slist_append(NULL, line.data);
	buf_release(&line);
	return way->at && curl_easy_setopt(easy, CURLOPT_RESOLVE, way->at) == CURLE_OK;
}

bool workercurl_refused(const struct workercurl *way)
{
	return way->lent.why.text[0] != '\0';
}

void workercurl_why(const struct workercurl *way, CURLcode result, char *out, size_t cap)
{
	if (workercurl_refused(way))
		(void)snprintf(out, cap, "TLS: %s", way->lent.why.text);
	else
		(void)snprintf(out, cap, "%s", way->why[0] ? way->why : curl_easy_strerror(result));
}

bool workercurl_setup(CURL *easy, struct workercurl *way, const struct router_config *c,
		      struct worker *w, int port, const char *path, struct curl_slist *fields,
		      int64_t timeout_ns)
{
	long timeout_ms = (long)(timeout_ns / NS_PER_MS);
	char url[900];

	if (port == 0)
		(void)snprintf(url, sizeof(url), "%s://%s%s%s", w->at.tls ? "https" : "http",
			       w->at.authority, w->at.base, path);
	else
		(void)snprintf(url, sizeof(url),
			       strchr(w->at.host, ':') ? "http://[%s]:%d%s" : "http://%s:%d%s",
			       w->at.host, port, path);
	*way = (struct workercurl){.tls = c->worker_tls, .lent.host = w->at.host};
	if ((w->at.tls && !set_tls(easy, way, c)) || !set_addresses(easy, way, w, port))
		return false;
	return curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) ==
		       CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fields) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms > 0 ? timeout_ms : 1) ==
		       CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, way->why) == CURLE_OK;
}
