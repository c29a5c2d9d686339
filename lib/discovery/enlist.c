#include "lib/discovery/enlist.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/discovery/source_thread.h"

#define ENTRIES	       2
#define TIMEOUT_MS     5000L
#define NAME_MAX_BYTES 120
#define KEY_MAX_BYTES  100

struct entry {
	char name[192];
	char *body; /* owned: what is registered */
	bool listed;
};

struct enlist {
	struct log *log;
	char url[600]; /* ".../services" */
	struct entry entry[ENTRIES];
	int64_t heartbeat; /* ns */
	CURL *easy;
	bool silent;
	struct source_thread thread;
};

/* -- what is registered -- */

static bool add_metadata(cJSON *o, const struct enlist_config *cfg)
{
	for (size_t i = 0; i < cfg->nmetadata; i++) {
		const char *eq = strchr(cfg->metadata[i], '=');
		char key[128];

		(void)snprintf(key, sizeof(key), "%.*s", (int)(eq - cfg->metadata[i]),
			       cfg->metadata[i]);
		cJSON_DeleteItemFromObjectCaseSensitive(o, key);
		if (!cJSON_AddStringToObject(o, key, eq + 1))
			return false;
	}
	return true;
}

static bool add_models(cJSON *metadata, const struct enlist_config *cfg)
{
	cJSON *names = cJSON_AddArrayToObject(metadata, "models");
	cJSON *list = cJSON_Parse(cfg->models_list);

	for (size_t i = 0; names && i < cfg->nmodels; i++)
		if (!cJSON_AddItemToArray(names, cJSON_CreateString(cfg->models[i])))
			return false;
	return names && list && cJSON_AddItemToObject(metadata, "models_list", list);
}

/* The text of entry i; NULL: out of memory. */
static char *body_of(const struct enlist_config *cfg, const char *name, bool server)
{
	const char *scheme = cfg->tls ? "https" : "http";
	bool v6 = strchr(cfg->host, ':') != NULL;
	uint16_t port = server ? cfg->port : cfg->health_port;
	cJSON *o = cJSON_CreateObject(), *metadata;
	char url[400], hostname[256] = "";
	char *text = NULL;

	(void)gethostname(hostname, sizeof(hostname) - 1);
	(void)snprintf(url, sizeof(url), "%s://%s%s%s:%u", server ? scheme : "http", v6 ? "[" : "",
		       cfg->host, v6 ? "]" : "", port);
	metadata = o ? cJSON_AddObjectToObject(o, "metadata") : NULL;
	if (metadata && cJSON_AddStringToObject(o, "name", name) &&
	    cJSON_AddStringToObject(o, "host", cfg->host) &&
	    cJSON_AddNumberToObject(o, "port", port) &&
	    cJSON_AddStringToObject(o, "hostname", hostname) &&
	    cJSON_AddStringToObject(o, "url", url) &&
	    cJSON_AddStringToObject(o, "status", "running") && add_metadata(metadata, cfg) &&
	    (!server || (cJSON_AddStringToObject(metadata, "parent_service", cfg->name) &&
			 add_models(metadata, cfg))) &&
	    cJSON_AddStringToObject(metadata, "type", server ? "openai-api" : cfg->type) &&
	    cJSON_AddStringToObject(metadata, "babysitter", "enhanced") &&
	    (!cfg->role || cJSON_AddStringToObject(metadata, "role", cfg->role)))
		text = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return text;
}

/* -- a question to the registry -- */

static size_t swallow(char *p, size_t size, size_t n, void *arg)
{
	(void)p, (void)arg;
	return size * n;
}

/* The status; 0 with a sentence: there was none. */
static long ask(struct enlist *e, const char *method, const char *tail, const char *body,
		long timeout_ms, struct pd_msg *why)
{
	struct curl_slist *head = curl_slist_append(NULL, "Content-Type: application/json");
	char url[900];
	CURLcode result;
	long status = 0;

	(void)snprintf(url, sizeof(url), "%s%s", e->url, tail);
	curl_easy_reset(e->easy);
	if (!head || curl_easy_setopt(e->easy, CURLOPT_URL, url) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_PROXY, "") != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_TIMEOUT_MS, timeout_ms) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_HTTPHEADER, head) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_POSTFIELDS, body) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_CUSTOMREQUEST, method) != CURLE_OK ||
	    curl_easy_setopt(e->easy, CURLOPT_WRITEFUNCTION, swallow) != CURLE_OK) {
		(void)pd_fail(why, PD_ENOMEM, "out of memory");
	} else {
		result = curl_easy_perform(e->easy);
		if (result != CURLE_OK)
			(void)pd_fail(why, PD_EIO, "%s", curl_easy_strerror(result));
		else
			(void)curl_easy_getinfo(e->easy, CURLINFO_RESPONSE_CODE, &status);
	}
	curl_slist_free_all(head);
	return status;
}

/* Registered, or told that it is alive; a registry that has forgotten it (404) hears of it anew. */
static bool keep(struct enlist *e, struct entry *x, struct pd_msg *why)
{
	long status = 404;
	char tail[256];

	if (x->listed) {
		(void)snprintf(tail, sizeof(tail), "/%s/heartbeat", x->name);
		status = ask(e, "POST", tail, "{\"status\":\"running\"}", TIMEOUT_MS, why);
	}
	if (status == 404) {
		x->listed = false;
		status = ask(e, "POST", "", x->body, TIMEOUT_MS, why);
		x->listed = status >= 200 && status < 300;
		if (x->listed)
			log_event(e->log, LOG_INFO, "enlisted",
				  LOG_FIELDS(LOG_TEXT("name", x->name), LOG_TEXT("url", e->url)),
				  "registered as %s at %s", x->name, e->url);
	}
	if (status != 0 && (status < 200 || status >= 300))
		(void)pd_fail(why, PD_EIO, "found status %ld, expected 200 or 201", status);
	return status >= 200 && status < 300;
}

/* -- the thread -- */

static bool keep_all(struct enlist *e)
{
	struct pd_msg why = {0};
	bool good = true;

	for (size_t i = 0; i < ENTRIES; i++)
		good &= keep(e, &e->entry[i], &why);
	if (!good && !e->silent)
		log_event(e->log, LOG_WARN, "registry_silent",
			  LOG_FIELDS(LOG_TEXT("url", e->url), LOG_TEXT("error", why.text)),
			  "%s: %s: trying until it takes the registration", e->url, why.text);
	e->silent = !good;
	return good;
}

static void run(void *arg)
{
	struct enlist *e = arg;
	int64_t wait;

	do {
		wait = keep_all(e) ? e->heartbeat : ENLIST_RETRY_S * NS_PER_S;
	} while (source_thread_rest(&e->thread, clock_now() + wait));
}

static void release(struct enlist *e)
{
	for (size_t i = 0; i < ENTRIES; i++)
		cJSON_free(e->entry[i].body);
	curl_easy_cleanup(e->easy);
	free(e);
}

int enlist_check_name(const char *name, struct pd_msg *msg)
{
	size_t n = strlen(name);

	if (n > 0 && n <= NAME_MAX_BYTES &&
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "found '%.100s', expected a name of at most %d letters, digits, '.', '_' "
		       "and '-'",
		       name, NAME_MAX_BYTES);
}

int enlist_check_metadata(const char *text, struct pd_msg *msg)
{
	const char *eq = strchr(text, '=');

	if (eq && eq > text && eq - text < KEY_MAX_BYTES)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL, "found '%.200s', expected KEY=VALUE", text);
}

static int check(const struct enlist_config *cfg, struct pd_msg *msg)
{
	int err = enlist_check_name(cfg->name, msg);

	for (size_t i = 0; !err && i < cfg->nmetadata; i++)
		err = enlist_check_metadata(cfg->metadata[i], msg);
	return err;
}

int enlist_start(struct enlist **out, const struct enlist_config *cfg, struct pd_msg *msg)
{
	size_t n = strlen(cfg->registry);
	struct enlist *e;
	int err = check(cfg, msg);

	if (err)
		return err;
	e = calloc(1, sizeof(*e));
	if (!e)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	e->log = cfg->log;
	e->heartbeat = (int64_t)(cfg->heartbeat_s * (double)NS_PER_S);
	(void)snprintf(e->url, sizeof(e->url), "%.*s/services",
		       (int)(n > 0 && cfg->registry[n - 1] == '/' ? n - 1 : n), cfg->registry);
	(void)snprintf(e->entry[0].name, sizeof(e->entry[0].name), "%s", cfg->name);
	(void)snprintf(e->entry[1].name, sizeof(e->entry[1].name), "%s-server", cfg->name);
	for (size_t i = 0; i < ENTRIES; i++)
		e->entry[i].body = body_of(cfg, e->entry[i].name, i == 1);
	e->easy = curl_easy_init();
	if (!e->easy || !e->entry[0].body || !e->entry[1].body ||
	    source_thread_start(&e->thread, "pdctl-enlist", run, e)) {
		release(e);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that registers");
	}
	*out = e;
	return PD_OK;
}

void enlist_stop(struct enlist *e)
{
	struct pd_msg why = {0};

	if (!e)
		return;
	source_thread_stop(&e->thread, NULL, NULL);
	/* The API first: no router sends anything more. */
	for (size_t i = ENTRIES; i-- > 0;) {
		char tail[256];

		(void)snprintf(tail, sizeof(tail), "/%s", e->entry[i].name);
		if (e->entry[i].listed)
			(void)ask(e, "DELETE", tail, "", ENLIST_END_S * 1000L, &why);
	}
	release(e);
}
