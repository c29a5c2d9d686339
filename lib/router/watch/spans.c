/* The lock is held for the copy of a note; while the thread posts it is free. */
#include "lib/router/watch/spans.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/net/net.h"
#include "lib/router/watch/span_note.h"

#define BODY_MAX   (SPANS_BATCH * SPAN_JSON_MAX + 4096)
#define RETRY_WAIT (1 * NS_PER_S)
#define SAY_EVERY  (10 * NS_PER_S)

struct spans {
	struct spans_config cfg;
	uint64_t below; /* a draw below it is recorded */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct span_note *queue; /* SPANS_QUEUE, owned */
	size_t first, n;	 /* under the lock, as the next */
	bool stop;
	int64_t stop_at;
	_Atomic uint64_t sent, dropped, failed;
	/* the thread's own */
	pthread_t thread;
	struct span_note *batch; /* SPANS_BATCH, owned */
	CURL *easy;
	struct curl_slist *fields;
	struct buf body;
	char why[CURL_ERROR_SIZE];	  /* the last post failed; "" when it did not */
	char failed_why[CURL_ERROR_SIZE]; /* the last batch that was not taken */
	uint64_t said, said_failed; /* of those lost and of those not taken, what the log has */
	int64_t said_at;
};

int spans_url(const char *text, struct buf *out, struct pd_msg *msg)
{
	const char *rest = strstr(text, "://");
	bool scheme = rest != NULL;
	CURLU *u = curl_url();
	char *path = NULL;
	int err = u ? PD_OK : PD_ENOMEM;

	if (!err && scheme && strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0)
		err = pd_fail(
			msg, PD_EINVAL,
			"found '%.200s', expected http[s]://HOST:PORT[/PATH] (OTLP over HTTP)",
			text);
	buf_clear(out);
	err = err ? err : buf_printf(out, "%s%s", scheme ? "" : "http://", text);
	if (!err && (curl_url_set(u, CURLUPART_URL, out->data, 0) != CURLUE_OK ||
		     curl_url_get(u, CURLUPART_PATH, &path, 0) != CURLUE_OK))
		err = pd_fail(msg, PD_EINVAL, "found '%.200s', expected http[s]://HOST:PORT[/PATH]",
			      text);
	if (!err && strcmp(path, "/") == 0)
		err = buf_puts(out, out->data[out->len - 1] == '/' ? "v1/traces" : "/v1/traces");
	curl_free(path);
	curl_url_cleanup(u);
	return err;
}

/* -- requests -- */

void spans_begin(const struct spans *s, struct trace_context *t, struct rng *rng)
{
	if (!s)
		return;
	if (t->id.n > 0 && !t->text[0]) {
		if (trace_sampled(t))
			trace_join(t, rng);
		return;
	}
	if (rng_u64(rng) >= s->below) {
		trace_not_sampled(t);
		return;
	}
	if (!t->text[0])
		trace_make(t, rng);
	trace_own_span(t);
}

void spans_ended(const struct record *r)
{
	struct spans *s = r->to->spans;
	struct span_note *n;

	if (!s || !r->trace || !r->trace->recorded)
		return;
	(void)pthread_mutex_lock(&s->lock);
	if (s->n < SPANS_QUEUE) {
		n = &s->queue[(s->first + s->n++) % SPANS_QUEUE];
		span_note_fill(n, r, clock_now(), clock_wall());
		if (s->n == SPANS_BATCH)
			(void)pthread_cond_signal(&s->wake);
	} else {
		struct span_note lost;

		span_note_fill(&lost, r, clock_now(), clock_wall());
		atomic_fetch_add_explicit(&s->dropped, span_note_count(&lost),
					  memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void spans_stats(const struct spans *s, struct spans_stats *out)
{
	*out = (struct spans_stats){0};
	if (s)
		*out = (struct spans_stats){.sent = atomic_load(&s->sent),
					    .dropped = atomic_load(&s->dropped),
					    .failed = atomic_load(&s->failed)};
}

/* -- the thread -- */

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t swallow(char *p, size_t size, size_t n, void *arg)
{
	(void)p;
	(void)arg;
	return size * n;
}

static bool setup(struct spans *s)
{
	CURL *e = s->easy;

	return curl_easy_setopt(e, CURLOPT_URL, s->cfg.url) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_HTTPHEADER, s->fields) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, swallow) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->why) == CURLE_OK;
}

static int put_body(struct spans *s, size_t n)
{
	struct buf *b = &s->body;
	int err;

	buf_clear(b);
	err = buf_puts(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":["
			  "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"pdctl\"}},"
			  "{\"key\":\"service.version\",\"value\":{\"stringValue\":");
	err = err ? err : json_quote(b, s->cfg.version, strlen(s->cfg.version));
	err = err ? err
		  : buf_puts(b, "}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"pdctl\"},\"spans\":[");
	for (size_t i = 0; !err && i < n; i++) {
		err = i ? buf_putc(b, ',') : PD_OK;
		err = err ? err : span_note_put(&s->batch[i], b);
	}
	return err ? err : buf_puts(b, "]}]}]}");
}

/* One post. *again: the same may succeed later. */
static bool post(struct spans *s, int64_t limit, bool *again)
{
	long status = 0, ms = (long)(limit / NS_PER_MS);
	CURLcode rc;

	s->why[0] = '\0';
	if (curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, ms > 0 ? ms : 1L) != CURLE_OK ||
	    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body.data) != CURLE_OK ||
	    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len) !=
		    CURLE_OK)
		return false;
	rc = curl_easy_perform(s->easy);
	if (rc != CURLE_OK) {
		*again = true;
		if (!s->why[0])
			(void)snprintf(s->why, sizeof(s->why), "%s", curl_easy_strerror(rc));
		return false;
	}
	(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	*again = status == 429 || status == 502 || status == 503 || status == 504;
	if (status >= 200 && status < 300)
		return true;
	(void)snprintf(s->why, sizeof(s->why), "the collector answered %ld", status);
	return false;
}

/* True when the thread is to end: what is left of its time is in *left. */
static bool pause_for(struct spans *s, int64_t ns, int64_t *left)
{
	int64_t until = clock_now() + ns;
	struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	bool stop;

	(void)pthread_mutex_lock(&s->lock);
	if (!s->stop && ns > 0)
		(void)pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	stop = s->stop;
	*left = stop ? s->stop_at - clock_now() : SPANS_TIMEOUT;
	(void)pthread_mutex_unlock(&s->lock);
	return stop;
}

static void say_lost(struct spans *s, bool last)
{
	uint64_t failed = atomic_load(&s->failed),
		 lost = atomic_load(&s->dropped) + failed - s->said;
	const char *why = failed > s->said_failed ? s->failed_why : "the queue is full";
	int64_t now = clock_now();

	if (lost == 0 || (!last && s->said_at > 0 && now - s->said_at < SAY_EVERY))
		return;
	log_event(s->cfg.log, LOG_WARN, "spans_lost",
		  LOG_FIELDS(LOG_NUMBER("spans", lost), LOG_TEXT("reason", why)),
		  "traces: %llu spans lost: %s", (unsigned long long)lost, why);
	s->said += lost;
	s->said_failed = failed;
	s->said_at = now;
}

static void send_batch(struct spans *s, size_t n)
{
	bool ok = false, again = true;
	uint64_t spans = 0;
	int64_t left;

	for (size_t i = 0; i < n; i++)
		spans += span_note_count(&s->batch[i]);
	if (put_body(s, n)) {
		(void)snprintf(s->why, sizeof(s->why), "out of memory");
		again = false;
	}
	for (int i = 0; again && !ok && i < SPANS_TRIES; i++) {
		bool stop = pause_for(s, i ? i * RETRY_WAIT : 0, &left);

		if (left <= 0)
			break;
		ok = post(s, left < SPANS_TIMEOUT ? left : SPANS_TIMEOUT, &again);
		if (stop)
			break;
	}
	atomic_fetch_add(ok ? &s->sent : &s->failed, spans);
	if (!ok)
		(void)snprintf(s->failed_why, sizeof(s->failed_why), "%s",
			       s->why[0] ? s->why : "the router ended");
	say_lost(s, false);
}

/* Waits for a batch that is full, or a second old, or the end; returns its size. */
static size_t take(struct spans *s, bool *stop)
{
	int64_t until = clock_now() + SPANS_PERIOD;
	struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	size_t n;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->stop && s->n < SPANS_BATCH && clock_now() < until)
		(void)pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	n = s->n < SPANS_BATCH ? s->n : SPANS_BATCH;
	for (size_t i = 0; i < n; i++)
		s->batch[i] = s->queue[(s->first + i) % SPANS_QUEUE];
	s->first = (s->first + n) % SPANS_QUEUE;
	s->n -= n;
	*stop = s->stop;
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

static void *run(void *arg)
{
	struct spans *s = arg;
	bool stop = false;

	(void)pthread_setname_np(pthread_self(), "pdctl-spans");
	for (;;) {
		size_t n = take(s, &stop);

		if (n > 0)
			send_batch(s, n);
		else if (stop)
			break;
	}
	say_lost(s, true);
	return NULL;
}

/* -- life -- */

static void release(struct spans *s)
{
	curl_slist_free_all(s->fields);
	curl_easy_cleanup(s->easy);
	buf_release(&s->body);
	free(s->queue);
	free(s->batch);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->wake);
	free(s);
}

int spans_start(struct spans **out, const struct spans_config *c, struct pd_msg *msg)
{
	struct spans *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	*out = NULL;
	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = *c;
	s->below = c->ratio >= 1 ? UINT64_MAX : (uint64_t)(c->ratio * 18446744073709549568.0);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	buf_init(&s->body, BODY_MAX);
	s->queue = calloc(SPANS_QUEUE, sizeof(*s->queue));
	s->batch = calloc(SPANS_BATCH, sizeof(*s->batch));
	s->easy = curl_easy_init();
	s->fields = curl_slist_append(NULL, "Content-Type: application/json");
	if (!s->queue || !s->batch || !s->easy || !s->fields || !setup(s) ||
	    pthread_create(&s->thread, NULL, run, s) != 0) {
		release(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread of spans");
	}
	*out = s;
	return PD_OK;
}

void spans_stop(struct spans *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	s->stop_at = clock_now() + SPANS_FLUSH;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	(void)pthread_join(s->thread, NULL);
	release(s);
}
