#include "lib/discovery/registry_ask.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#define AT_ONCE 64 /* connections */

void registry_probe_of(struct registry_probe *p, const struct registry_service *s)
{
	cJSON *o = cJSON_Parse(s->metadata);
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "type"));
	size_t n = strlen(s->url);

	(void)snprintf(p->name, sizeof(p->name), "%s", s->name);
	if (type && strcmp(type, "openai-api") == 0 && s->port < UINT16_MAX)
		(void)snprintf(p->url, sizeof(p->url), "http://%s:%d/health", s->host, s->port + 1);
	else
		(void)snprintf(p->url, sizeof(p->url), "%.*s/health",
			       (int)(n > 0 && s->url[n - 1] == '/' ? n - 1 : n), s->url);
	p->good = false;
	cJSON_Delete(o);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t swallow(char *p, size_t size, size_t n, void *arg)
{
	(void)p;
	(void)arg;
	return size * n;
}

static CURL *easy_of(struct registry_probe *p, double timeout_s)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		return NULL;
	if (curl_easy_setopt(easy, CURLOPT_URL, p->url) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_PRIVATE, p) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(timeout_s * 1000)) == CURLE_OK)
		return easy;
	curl_easy_cleanup(easy);
	return NULL;
}

static void take(CURLM *multi, const CURLMsg *m)
{
	struct registry_probe *p = NULL;
	CURL *easy = m->easy_handle;
	long status = 0;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p) == CURLE_OK && p &&
	    m->data.result == CURLE_OK &&
	    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK)
		p->good = status >= 200 && status < 300;
	(void)curl_multi_remove_handle(multi, easy);
	curl_easy_cleanup(easy);
}

void registry_ask(struct registry_probe *p, size_t n, double timeout_s)
{
	CURLM *multi = n > 0 ? curl_multi_init() : NULL;
	size_t next = 0;
	int running = 0;

	if (!multi)
		return;
	do {
		CURLMsg *m;
		int left;

		for (; next < n && running < AT_ONCE; next++) {
			CURL *easy = easy_of(&p[next], timeout_s);

			if (easy && curl_multi_add_handle(multi, easy) == CURLM_OK)
				running++;
			else
				curl_easy_cleanup(easy);
		}
		(void)curl_multi_perform(multi, &running);
		while ((m = curl_multi_info_read(multi, &left)))
			if (m->msg == CURLMSG_DONE)
				take(multi, m);
		if (running > 0)
			(void)curl_multi_poll(multi, NULL, 0, 100, NULL);
	} while (running > 0 || next < n);
	(void)curl_multi_cleanup(multi);
}
