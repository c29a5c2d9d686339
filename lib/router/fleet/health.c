/*
 * Health probes, all in parallel on one thread (libcurl's multi interface), and the other periodic
 * duties: breaker clocks, idle connections, names, silence. A refused probe is as clear as a
 * refused request: the worker is ejected at once.
 *
 * SILENCE. A request may rightly take long, so a silent worker is only asked whether it lives:
 *
 *	a call has waited SILENT, or much longer than its pool needed lately, and another worker
 *	of the pool is available --> suspect: a probe at once and each second
 *	two bad probes --> out; when they got no answer at all, its calls that have waited SILENT
 *	are cut: requests move to another worker, streams end with their error
 *	probes are good, but for STALLED no call had a byte, while others are not like that
 *	--> stalled: no new requests, but for one when it has none
 *
 * Calls say when they heard something by one store of their own (lib/http/upstream.h); the look at
 * them is this thread's.
 */
#include "lib/router/fleet/health.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/curl.h"
#include "lib/router/fleet/known.h"

#define TICK_NS	     (50 * NS_PER_MS) /* while something is wrong */
#define CALM_TICK_NS (500 * NS_PER_MS)
#define SILENT	     (2 * NS_PER_S)
#define OVERDUE_MIN  (500 * NS_PER_MS) /* with others that answer faster than SILENT */
#define STALLED	     (10 * NS_PER_S)
#define INQUIRY_NS   (5 * NS_PER_S)
#define OVERDUE	     4 /* times what the pool needed lately at most */

struct probe {
	struct probe *next;
	struct fleet *fleet; /* keeps the worker alive */
	struct worker *worker;
	CURL *easy;
	struct workercurl way;
	bool inquiry;	   /* asks for what the connector must know */
	struct buf answer; /* then */
};

struct health {
	struct fleet_holder *fleet;
	const struct router_config *cfg;
	pthread_t thread;
	CURLM *multi;
	struct curl_slist *fields; /* our key for workers; NULL: none */
	struct resolver *names;
	struct http_watch *calls; /* of a pool's workers, at the last look */
	size_t ncalls;
	_Atomic bool stop;
	struct probe *running;
};

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t swallow(char *p, size_t size, size_t n, void *arg)
{
	(void)p;
	(void)arg;
	return size * n;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t keep(char *p, size_t size, size_t n, void *arg)
{
	struct probe *of = arg;

	return buf_append(&of->answer, p, size * n) ? 0 : size * n;
}

static bool set_options(CURL *easy, struct health *h, struct probe *p, int64_t limit)
{
	const struct router_config *c = h->cfg;
	int port = p->worker->bootstrap ? p->worker->bootstrap : c->inquiry_port;

	return workercurl_setup(easy, &p->way, c, p->worker, p->inquiry ? port : 0,
				p->inquiry ? c->inquiry : c->health_endpoint,
				p->inquiry ? NULL : h->fields, limit) &&
	       curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, p->inquiry ? keep : swallow) ==
		       CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_WRITEDATA, p) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PRIVATE, p) == CURLE_OK;
}

static void probe_free(struct probe *p)
{
	if (p->easy)
		curl_easy_cleanup(p->easy);
	workercurl_release(&p->way);
	buf_release(&p->answer);
	fleet_put(p->fleet);
	free(p);
}

/* The fleet that the worker was found in: a reload may have dropped it from the next one. */
static void start_probe(struct health *h, struct fleet *f, struct worker *w, bool inquiry,
			int64_t limit)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (!p)
		return;
	p->fleet = fleet_ref(f);
	p->worker = w;
	p->inquiry = inquiry;
	buf_init(&p->answer, KNOWN_MAX);
	p->easy = curl_easy_init();
	if (!p->easy || !set_options(p->easy, h, p, limit) ||
	    curl_multi_add_handle(h->multi, p->easy) != CURLM_OK) {
		probe_free(p);
		return;
	}
	p->next = h->running;
	h->running = p;
}

static void end_probe(struct health *h, struct probe *p)
{
	struct probe **at = &h->running;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	(void)curl_multi_remove_handle(h->multi, p->easy);
	probe_free(p);
}

/* The probe failed here (no descriptor, no memory, no port), which says nothing about the worker.
 */
static bool failed_here(CURL *easy, CURLcode result)
{
	long error = 0;

	if (result == CURLE_OUT_OF_MEMORY || result == CURLE_FAILED_INIT)
		return true;
	(void)curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &error);
	return result == CURLE_COULDNT_CONNECT &&
	       (error == 0 || error == EMFILE || error == ENFILE || error == ENOBUFS ||
		error == ENOMEM || error == EADDRNOTAVAIL);
}

/* Remembers why a check failed, and says it once when nothing else will. */
static void take_note(struct health *h, struct probe *p, CURLcode result, long status, bool ok)
{
	struct log *log = h->cfg->log;
	char why[CURL_ERROR_SIZE + 40];
	bool fresh = worker_is_fresh(p->worker);

	if (result != CURLE_OK)
		workercurl_why(&p->way, result, why, sizeof(why));
	else
		(void)snprintf(why, sizeof(why), "health check answered %ld", status);
	if (!worker_note(p->worker, ok ? "" : why) || ok)
		return;
	if (fresh)
		log_event(log, LOG_WARN, "worker_not_healthy",
			  LOG_FIELDS(LOG_TEXT("worker", p->worker->url), LOG_TEXT("error", why)),
			  "worker %s: not healthy yet: %s", p->worker->url, why);
	else if (workercurl_refused(&p->way) && !atomic_load(&p->worker->slot.available))
		log_event(log, LOG_WARN, "worker_not_healthy",
			  LOG_FIELDS(LOG_TEXT("worker", p->worker->url), LOG_TEXT("error", why)),
			  "worker %s: %s", p->worker->url, why);
}

/* An answer that does not come is said once; requests say what is missing (--pd-fallback). */
static void take_answer(struct health *h, struct probe *p, CURLcode result, long status)
{
	bool good = result == CURLE_OK && status == 200 && p->answer.len > 0;
	const char *why = result != CURLE_OK ? curl_easy_strerror(result) : "another status";
	bool first =
		known_learn(p->worker, good ? buf_span(&p->answer) : (struct span){0}, clock_now());

	if (first && !good)
		log_event(h->cfg->log, LOG_WARN, "bootstrap_silent",
			  LOG_FIELDS(LOG_TEXT("worker", p->worker->url),
				     LOG_TEXT("path", h->cfg->inquiry), LOG_TEXT("error", why)),
			  "worker %s: GET %s at its bootstrap port: %s, expected 200: no transfer "
			  "from it until it answers",
			  p->worker->url, h->cfg->inquiry, why);
}

static void judge(struct health *h, CURL *easy, CURLcode result)
{
	struct probe *p = NULL;
	long status = 0;
	bool ok;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p) != CURLE_OK || !p)
		return;
	if (failed_here(easy, result) && !p->inquiry) {
		worker_probe_later(p->worker, h->cfg, clock_now());
		end_probe(h, p);
		return;
	}
	(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (p->inquiry) {
		take_answer(h, p, result, status);
		end_probe(h, p);
		return;
	}
	ok = result == CURLE_OK && status >= 200 && status < 300;
	take_note(h, p, result, status, ok);
	if (result == CURLE_COULDNT_CONNECT || workercurl_refused(&p->way))
		worker_eject(p->worker, clock_now());
	worker_probed(p->worker, h->cfg, ok, result != CURLE_OPERATION_TIMEDOUT, clock_now());
	end_probe(h, p);
}

static bool is_probed(const struct health *h, const struct worker *w)
{
	for (const struct probe *p = h->running; p; p = p->next)
		if (p->worker == w)
			return true;
	return false;
}

/* -- names -- */

/* Asks the worker's name when it is time, and takes what was answered. True: it is being asked. */
static bool attend_name(struct health *h, struct worker *w, int64_t now)
{
	struct net_addrs found;
	struct pd_msg why = {0};
	int err;

	if (!w->named)
		return false;
	if (!w->asking && worker_ask_due(w, now) &&
	    resolver_begin(h->names, w->at.host, w->at.port, &w->asking, &why))
		return false;
	if (!w->asking)
		return false;
	err = resolver_look(w->asking, &found, &why);
	if (err == PD_EAGAIN)
		return true;
	resolver_drop(w->asking);
	w->asking = NULL;
	if (!err)
		worker_resolved(w, &found, now);
	else if (worker_unresolved(w, why.text))
		log_event(h->cfg->log, LOG_WARN, "worker_not_ready",
			  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("error", why.text)),
			  "worker %s: not ready: %s", w->url, why.text);
	return false;
}

/* -- silence -- */

/* How long the one of its calls that has waited longest has heard nothing. */
static int64_t silence_of(const struct http_watch *c, int64_t now)
{
	return c->waiting > 0 ? now - c->silent : 0;
}

/* For how long no call of the worker had a byte, while at least one waited. */
static int64_t stillness_of(const struct http_watch *c, int64_t now)
{
	int64_t from = c->begun > c->heard ? c->begun : c->heard;

	return c->waiting > 0 && c->waiting == c->calls ? now - from : 0;
}

static int64_t longer(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Whether it is stalled now. One that was stays so until it says something. */
static bool is_stalled(struct worker *w, const struct http_watch *c, int64_t limit, int64_t now)
{
	int64_t at = worker_stalled_at(w);

	return at ? c->heard <= at : stillness_of(c, now) > limit;
}

static void say_silence(struct health *h, struct worker *w, const struct http_watch *c, int64_t now,
			bool on)
{
	if (on)
		log_event(
			h->cfg->log, LOG_WARN, "worker_stalled",
			LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_NUMBER("on", 1),
				   LOG_NUMBER("in_flight", c->calls),
				   LOG_REAL("silent_s", (double)stillness_of(c, now) / 1e9)),
			"worker %s is stalled: %u requests in flight, no byte of them for %.1f s, "
			"while its health checks are good: no new requests",
			w->url, c->calls, (double)stillness_of(c, now) / 1e9);
	else
		log_event(h->cfg->log, LOG_WARN, "worker_stalled",
			  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_NUMBER("on", 0)),
			  "worker %s is not stalled any more", w->url);
}

/* True: one of its workers is suspect. */
static bool attend_silence(struct health *h, const struct fleet_pool *p, int64_t now)
{
	size_t available = fleet_available(p), moving = 0;
	bool suspects = false;
	int64_t gap = 0, overdue, limit;

	if (h->ncalls < p->n) {
		struct http_watch *more = realloc(h->calls, p->n * sizeof(*more));

		if (!more)
			return false;
		h->calls = more;
		h->ncalls = p->n;
	}
	for (size_t i = 0; i < p->n; i++) {
		http_pool_watch(&p->worker[i]->pool, now, &h->calls[i]);
		gap = longer(gap, h->calls[i].gap);
	}
	overdue = gap > 0 ? longer(OVERDUE * gap, OVERDUE_MIN) : SILENT;
	overdue = overdue < SILENT ? overdue : SILENT;
	limit = longer(OVERDUE * gap, STALLED);
	for (size_t i = 0; i < p->n; i++)
		moving += atomic_load(&p->worker[i]->slot.available) &&
			  stillness_of(&h->calls[i], now) <= limit;
	for (size_t i = 0; i < p->n; i++) {
		struct worker *w = p->worker[i];
		const struct http_watch *c = &h->calls[i];
		bool in = atomic_load(&w->slot.available), stalled,
		     suspect = silence_of(c, now) > overdue && available > in;

		worker_suspect(w, suspect, now);
		suspects |= suspect;
		if (worker_is_silent(w))
			(void)http_pool_cut(&w->pool, now - SILENT);
		stalled = is_stalled(w, c, limit, now) &&
			  moving > (in && stillness_of(c, now) <= limit);
		if (worker_stall(w, stalled, now))
			say_silence(h, w, c, now, stalled);
	}
	return suspects;
}

/* True when every worker is available and none is suspect or its name being asked: then there is no
 * hurry. */
static bool attend(struct health *h, struct fleet *f, int64_t now)
{
	bool calm = true;
	int64_t limit;

	for (int r = 0; r < ROLES; r++) {
		calm &= !attend_silence(h, &f->pool[r], now);
		for (size_t i = 0; i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			worker_tick(w, h->cfg, now);
			http_pool_trim(&w->pool, now);
			calm &= !attend_name(h, w, now);
			if (!is_probed(h, w) && worker_probe_due(w, h->cfg, now, &limit))
				start_probe(h, f, w, false, limit);
			else if (!is_probed(h, w) && known_due(w, h->cfg, now))
				start_probe(h, f, w, true, INQUIRY_NS);
			calm &= atomic_load(&w->slot.available);
		}
	}
	return calm;
}

static void *run(void *arg)
{
	struct health *h = arg;
	CURLMsg *m;
	int n;

	(void)pthread_setname_np(pthread_self(), "pdctl-health");
	while (!atomic_load(&h->stop)) {
		struct fleet *f = fleet_get(h->fleet);
		bool calm = attend(h, f, clock_now());

		fleet_put(f);
		(void)curl_multi_perform(h->multi, &n);
		while ((m = curl_multi_info_read(h->multi, &n)))
			if (m->msg == CURLMSG_DONE)
				judge(h, m->easy_handle, m->data.result);
		(void)curl_multi_poll(h->multi, NULL, 0,
				      (int)((calm ? CALM_TICK_NS : TICK_NS) / NS_PER_MS), NULL);
	}
	return NULL;
}

int health_start(struct health **out, struct fleet_holder *fleet, const struct router_config *c,
		 struct pd_msg *msg)
{
	struct health *h = calloc(1, sizeof(*h));

	if (!h)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	h->fleet = fleet;
	h->cfg = c;
	h->multi = curl_multi_init();
	if (!h->multi || workercurl_fields(&h->fields, c->api_key) || resolver_new(&h->names) ||
	    pthread_create(&h->thread, NULL, run, h) != 0) {
		resolver_free(h->names);
		if (h->multi)
			(void)curl_multi_cleanup(h->multi);
		curl_slist_free_all(h->fields);
		free(h);
		return pd_fail(msg, PD_ENOMEM, "cannot start the health thread");
	}
	*out = h;
	return PD_OK;
}

void health_nudge(struct health *h)
{
	(void)curl_multi_wakeup(h->multi);
}

void health_stop(struct health *h)
{
	if (!h)
		return;
	atomic_store(&h->stop, true);
	(void)curl_multi_wakeup(h->multi);
	(void)pthread_join(h->thread, NULL);
	while (h->running)
		end_probe(h, h->running);
	(void)curl_multi_cleanup(h->multi);
	curl_slist_free_all(h->fields);
	resolver_free(h->names);
	free(h->calls);
	free(h);
}
