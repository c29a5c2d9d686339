#include "lib/discovery/registry_source.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/discovery/source_thread.h"

#define TIMEOUT_MS 5000L

struct registry_source {
	struct discovery_sink sink;
	char url[600];
	bool pd;
	int64_t interval;
	struct source_thread thread;
	CURL *easy;
	struct buf answer;
	struct discovery_list now;
	bool silent; /* it did not answer, which was said */
};

/* -- an answer -- */

static const char *text_of(const cJSON *o, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));
}

static int labels(struct discovery_worker *w, const cJSON *metadata)
{
	const cJSON *m;
	int err = PD_OK;

	cJSON_ArrayForEach(m, metadata)
	{
		char number[32];

		if (err || !m->string || !*m->string)
			continue;
		if (cJSON_IsString(m) && *m->valuestring) {
			err = route_labels_set(&w->labels, span_of(m->string),
					       span_of(m->valuestring));
		} else if (cJSON_IsNumber(m)) {
			(void)snprintf(number, sizeof(number), "%.15g", m->valuedouble);
			err = route_labels_set(&w->labels, span_of(m->string), span_of(number));
		}
		/* What is too long for a label is none. */
		err = err == PD_ETOOBIG ? PD_OK : err;
	}
	return err;
}

/* The ids of metadata.models, as the label of them. What is too long for it is left out. */
static int models(struct discovery_worker *w, const cJSON *list)
{
	char ids[ROUTE_LABEL_TEXT_MAX + 1] = "";
	const cJSON *m;
	size_t len = 0;
	int err;

	cJSON_ArrayForEach(m, list)
	{
		size_t n = cJSON_IsString(m) ? strlen(m->valuestring) : 0;

		if (n == 0 || strchr(m->valuestring, ',') || len + n + 1 > ROUTE_LABEL_TEXT_MAX)
			continue;
		len += (size_t)snprintf(ids + len, sizeof(ids) - len, "%s%s", len ? "," : "",
					m->valuestring);
	}
	err = len > 0 ? route_labels_set(&w->labels, SPAN("model_id"), (struct span){ids, len})
		      : PD_OK;
	return err == PD_ETOOBIG ? PD_OK : err;
}

/* One service; PD_ENOENT: it is no worker of ours. */
static int read_one(struct discovery_list *l, const cJSON *s, bool pd)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(s, "metadata");
	const char *name = text_of(s, "name"), *url = text_of(s, "url");
	const char *type = text_of(metadata, "type"), *role = text_of(metadata, "role");
	bool prefill = role && strcmp(role, "prefill") == 0;
	struct discovery_worker *w;

	if (!name || !url || !type || strcmp(type, "openai-api") != 0 ||
	    strlen(url) >= DISCOVERY_URL_MAX || strlen(name) >= sizeof(w->name) ||
	    strchr(name, '=') || (pd && !prefill && !(role && strcmp(role, "decode") == 0)))
		return PD_ENOENT;
	w = discovery_add(l);
	if (!w)
		return PD_ENOMEM;
	w->role = !pd ? DISCOVERY_REGULAR : prefill ? DISCOVERY_PREFILL : DISCOVERY_DECODE;
	(void)snprintf(w->url, sizeof(w->url), "%s", url);
	(void)snprintf(w->name, sizeof(w->name), "%s", name);
	if (models(w, cJSON_GetObjectItemCaseSensitive(metadata, "models")))
		return PD_ENOMEM;
	return labels(w, metadata);
}

static int by_name(const void *a, const void *b)
{
	const struct discovery_worker *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int registry_list_read(struct discovery_list *out, struct span answer, bool pd, struct pd_msg *msg)
{
	cJSON *o = cJSON_ParseWithLength(answer.p, answer.n);
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "services"), *s;
	int err = PD_OK;

	if (!cJSON_IsArray(list))
		err = pd_fail(msg, PD_EINVAL,
			      "found no list \"services\" in the answer, expected "
			      "that of a service registry");
	if (!err)
		cJSON_ArrayForEach(s, list)
		{
			err = read_one(out, s, pd);
			err = err == PD_ENOENT ? PD_OK : err;
			if (err) {
				(void)pd_fail(msg, err, "too many services, or out of memory");
				break;
			}
		}
	cJSON_Delete(o);
	if (!err && out->n > 1)
		qsort(out->worker, out->n, sizeof(*out->worker), by_name);
	return err;
}

/* -- the thread -- */

static size_t take(char *p, size_t size, size_t n, void *arg)
{
	struct registry_source *s = arg;

	return buf_append(&s->answer, p, size * n) ? 0 : size * n;
}

/* The answer's text in s->answer. */
static int fetch(struct registry_source *s, struct pd_msg *msg)
{
	CURLcode result;
	long status = 0;

	buf_clear(&s->answer);
	result = curl_easy_perform(s->easy);
	if (result != CURLE_OK)
		return pd_fail(msg, PD_EIO, "%s", curl_easy_strerror(result));
	(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	return status == 200 ? PD_OK
			     : pd_fail(msg, PD_EIO, "found status %ld, expected 200", status);
}

static void look(struct registry_source *s)
{
	struct discovery_list fresh = {0};
	struct pd_msg why = {0};
	int err = fetch(s, &why);

	err = err ? err : registry_list_read(&fresh, buf_span(&s->answer), s->pd, &why);
	if (err && !s->silent)
		log_event(s->sink.log, LOG_WARN, "registry_silent",
			  LOG_FIELDS(LOG_TEXT("url", s->url), LOG_TEXT("error", why.text)),
			  "GET %s: %s: the last list of workers stays", s->url, why.text);
	else if (!err && s->silent)
		log_event(s->sink.log, LOG_INFO, "registry_answers",
			  LOG_FIELDS(LOG_TEXT("url", s->url)), "%s answers again", s->url);
	s->silent = err != PD_OK;
	discovery_note(&s->sink, !err);
	if (err)
		discovery_release(&fresh);
	else
		discovery_publish(&s->sink, &s->now, &fresh);
}

static void run(void *arg)
{
	struct registry_source *s = arg;
	int64_t next;

	do {
		next = clock_now() + s->interval;
		look(s);
	} while (source_thread_rest(&s->thread, next));
}

/* The transfer ends with the source, also while it waits. */
static int progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	struct registry_source *s = arg;

	(void)a, (void)b, (void)c, (void)d;
	return source_thread_stopped(&s->thread);
}

static bool set_up(struct registry_source *s)
{
	s->easy = curl_easy_init();
	return s->easy && curl_easy_setopt(s->easy, CURLOPT_URL, s->url) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, TIMEOUT_MS) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, take) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_XFERINFOFUNCTION, progress) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_XFERINFODATA, s) == CURLE_OK &&
	       curl_easy_setopt(s->easy, CURLOPT_NOPROGRESS, 0L) == CURLE_OK;
}

static void release(struct registry_source *s)
{
	curl_easy_cleanup(s->easy);
	buf_release(&s->answer);
	discovery_release(&s->now);
	free(s);
}

int registry_source_start(struct registry_source **out, const char *url, bool pd, double interval_s,
			  const struct discovery_sink *sink, struct pd_msg *msg)
{
	struct registry_source *s = calloc(1, sizeof(*s));
	size_t n = strlen(url);

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->sink = *sink;
	s->pd = pd;
	s->interval = (int64_t)(interval_s * (double)NS_PER_S);
	(void)snprintf(s->url, sizeof(s->url), "%.*s/services?healthy=true",
		       (int)(n > 0 && url[n - 1] == '/' ? n - 1 : n), url);
	buf_init(&s->answer, REGISTRY_LIST_MAX);
	if (!set_up(s) || source_thread_start(&s->thread, "pdctl-services", run, s)) {
		release(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that asks the registry");
	}
	*out = s;
	return PD_OK;
}

void registry_source_stop(struct registry_source *s)
{
	if (!s)
		return;
	source_thread_stop(&s->thread, NULL, NULL);
	release(s);
}
