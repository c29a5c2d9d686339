/*
 * Health probes, all in parallel on one thread (libcurl's multi interface), and the other periodic
 * duties: breaker clocks, idle connections. A refused probe is as clear as a refused
 * request: the worker is ejected at once.
 */
#include "lib/router/fleet/health.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/curl.h"

#define TICK_NS	     (50 * NS_PER_MS) /* while something is wrong */
#define CALM_TICK_NS (500 * NS_PER_MS)

struct probe {
	struct probe *next;
	struct fleet *fleet; /* keeps the worker alive */
	struct worker *worker;
	CURL *easy;
	struct workercurl way;
};

struct health {
	struct fleet_holder *fleet;
	const struct router_config *cfg;
	pthread_t thread;
	CURLM *multi;
	struct curl_slist *fields; /* our key for workers; NULL: none */
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

static bool set_options(CURL *easy, struct health *h, struct probe *p)
{
	const struct router_config *c = h->cfg;

	return workercurl_setup(easy, &p->way, c, p->worker, c->health_endpoint, h->fields,
				c->health_timeout) &&
	       curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PRIVATE, p) == CURLE_OK;
}

static void probe_free(struct probe *p)
{
	if (p->easy)
		curl_easy_cleanup(p->easy);
	fleet_put(p->fleet);
	free(p);
}

/* The fleet that the worker was found in: a reload may have dropped it from the next one. */
static void start_probe(struct health *h, struct fleet *f, struct worker *w)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (!p)
		return;
	p->fleet = fleet_ref(f);
	p->worker = w;
	p->easy = curl_easy_init();
	if (!p->easy || !set_options(p->easy, h, p) ||
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
		log_line(log, LOG_WARN, "worker %s: not healthy yet: %s", p->worker->url, why);
	else if (workercurl_refused(&p->way))
		log_line(log, LOG_WARN, "worker %s: %s", p->worker->url, why);
}

static void judge(struct health *h, CURL *easy, CURLcode result)
{
	struct probe *p = NULL;
	char why[CURL_ERROR_SIZE + 40];
	long status = 0;
	bool ok, before;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p) != CURLE_OK || !p)
		return;
	if (failed_here(easy, result)) {
		worker_probe_later(p->worker, h->cfg, clock_now());
		end_probe(h, p);
		return;
	}
	(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	ok = result == CURLE_OK && status >= 200 && status < 300;
	before = atomic_load(&p->worker->slot.available);
	if (result == CURLE_COULDNT_CONNECT || workercurl_refused(&p->way))
		worker_eject(p->worker, h->cfg, clock_now());
	take_note(h, p, result, status, ok);
	worker_probed(p->worker, h->cfg, ok, clock_now());
	if (before != atomic_load(&p->worker->slot.available)) {
		workercurl_why(&p->way, result, why, sizeof(why));
		log_line(h->cfg->log, LOG_WARN, "worker %s is %s (%s)", p->worker->url,
			 before ? "out of the rotation" : "back in the rotation",
			 result == CURLE_OK ? "health check answered" : why);
	}
	end_probe(h, p);
}

static bool is_probed(const struct health *h, const struct worker *w)
{
	for (const struct probe *p = h->running; p; p = p->next)
		if (p->worker == w)
			return true;
	return false;
}

/* True when every worker is available: then there is no hurry. */
static bool attend(struct health *h, struct fleet *f, int64_t now)
{
	bool calm = true;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			worker_tick(w, h->cfg, now);
			http_pool_trim(&w->pool, now);
			if (worker_probe_due(w, now) && !is_probed(h, w))
				start_probe(h, f, w);
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
	if (!h->multi || workercurl_fields(&h->fields, c->api_key) ||
	    pthread_create(&h->thread, NULL, run, h) != 0) {
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
	free(h);
}
