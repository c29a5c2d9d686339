#include "lib/router/fleet/scrape.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/epp/engine_metrics.h"
#include "lib/route/score/pipeline.h"
#include "lib/router/fleet/curl.h"

#define PAGE_MAX   (4u << 20)
#define IDLE_NS	   (500 * NS_PER_MS) /* while no policy asks */
#define TIMEOUT_NS (2 * NS_PER_S)

struct asking {
	struct asking *next;
	struct fleet *fleet; /* keeps the worker alive */
	struct worker *worker;
	CURL *easy;
	struct workercurl way;
	struct buf page;
};

struct scrape {
	struct fleet_holder *fleet;
	const struct router_config *cfg;
	pthread_t thread;
	CURLM *multi;
	struct curl_slist *fields; /* our key for workers; NULL: none */
	struct asking *running;
	_Atomic bool stop;
};

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t keep(char *p, size_t size, size_t n, void *arg)
{
	struct asking *a = arg;

	return buf_append(&a->page, p, size * n) ? 0 : size * n;
}

static void asking_free(struct asking *a)
{
	if (a->easy)
		curl_easy_cleanup(a->easy);
	workercurl_release(&a->way);
	buf_release(&a->page);
	fleet_put(a->fleet);
	free(a);
}

static void ask(struct scrape *s, struct fleet *f, struct worker *w, int64_t now)
{
	struct asking *a = calloc(1, sizeof(*a));

	w->scrape.next = now + s->cfg->scrape_interval;
	if (!a)
		return;
	a->fleet = fleet_ref(f);
	a->worker = w;
	buf_init(&a->page, PAGE_MAX);
	a->easy = curl_easy_init();
	if (!a->easy ||
	    !workercurl_setup(a->easy, &a->way, s->cfg, w, 0, "/metrics", s->fields, TIMEOUT_NS) ||
	    curl_easy_setopt(a->easy, CURLOPT_WRITEFUNCTION, keep) != CURLE_OK ||
	    curl_easy_setopt(a->easy, CURLOPT_WRITEDATA, a) != CURLE_OK ||
	    curl_easy_setopt(a->easy, CURLOPT_PRIVATE, a) != CURLE_OK ||
	    curl_multi_add_handle(s->multi, a->easy) != CURLM_OK) {
		asking_free(a);
		return;
	}
	w->scrape.busy = true;
	a->next = s->running;
	s->running = a;
}

/* Figures that are too old, once. */
static void attend_age(struct scrape *s, struct worker *w, int64_t now)
{
	struct engine_metrics none = {.running = (int32_t)atomic_load(&w->slot.in_flight)};

	if (now - w->scrape.good_at <= s->cfg->scrape_stale)
		return;
	engine_metrics_publish(&none, &w->slot, w->scrape.good_at);
	if (!w->scrape.silent && w->scrape.why[0])
		log_event(s->cfg->log, LOG_WARN, "metrics_stale",
			  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("error", w->scrape.why)),
			  "worker %s: its metrics cannot be read: %s; what is in flight stands for "
			  "its load",
			  w->url, w->scrape.why);
	w->scrape.silent = w->scrape.why[0] != '\0';
}

static void take(struct asking *a, CURLcode result)
{
	struct worker *w = a->worker;
	long status = 0;
	bool complete;
	int err;

	(void)curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
	w->scrape.busy = false;
	w->scrape.why[0] = '\0';
	if (result != CURLE_OK) {
		workercurl_why(&a->way, result, w->scrape.why, sizeof(w->scrape.why));
		return;
	}
	err = status == 200
		      ? engine_metrics_read(&w->scrape.figures, a->page.data ? a->page.data : "",
					    a->page.len, &complete)
		      : PD_EPROTO;
	if (err) {
		(void)snprintf(w->scrape.why, sizeof(w->scrape.why),
			       status == 200 ? "no Prometheus text" : "/metrics answered %ld",
			       status);
		return;
	}
	w->scrape.good_at = clock_now();
	w->scrape.silent = false;
	engine_metrics_publish(&w->scrape.figures, &w->slot, w->scrape.good_at);
}

static void end(struct scrape *s, CURL *easy, CURLcode result)
{
	struct asking *a = NULL, **at = &s->running;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&a) != CURLE_OK || !a)
		return;
	take(a, result);
	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	(void)curl_multi_remove_handle(s->multi, a->easy);
	asking_free(a);
}

static bool wants_signals(const struct fleet_pool *p)
{
	const struct score_profile *by = score_spec_profile(&p->ring->state->spec),
				   *beside = p->shadow ? score_spec_profile(&p->shadow->state->spec)
						       : NULL;

	return ((by ? by->wants : 0) | (beside ? beside->wants : 0)) & SCORE_WANTS_SIGNALS;
}

/* How long until the next page is due. */
static int64_t attend(struct scrape *s, struct fleet *f, int64_t now)
{
	int64_t wait = IDLE_NS;

	for (int r = 0; r < ROLES; r++) {
		if (!wants_signals(&f->pool[r]) && !s->cfg->scrape_always)
			continue;
		for (size_t i = 0; i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			if (!w->scrape.busy && now >= w->scrape.next)
				ask(s, f, w, now);
			attend_age(s, w, now);
			if (w->scrape.next > now && w->scrape.next - now < wait)
				wait = w->scrape.next - now;
		}
	}
	return wait;
}

static void *run(void *arg)
{
	struct scrape *s = arg;
	CURLMsg *m;
	int n;

	(void)pthread_setname_np(pthread_self(), "pdctl-scrape");
	while (!atomic_load(&s->stop)) {
		struct fleet *f = fleet_get(s->fleet);
		int64_t wait = attend(s, f, clock_now());

		fleet_put(f);
		(void)curl_multi_perform(s->multi, &n);
		while ((m = curl_multi_info_read(s->multi, &n)))
			if (m->msg == CURLMSG_DONE)
				end(s, m->easy_handle, m->data.result);
		(void)curl_multi_poll(s->multi, NULL, 0, (int)(wait / NS_PER_MS) + 1, NULL);
	}
	return NULL;
}

/* May the router ever have a policy that asks? */
static bool may_need(const struct router_config *c)
{
	bool scored = c->epp != NULL || c->scrape_always;

	for (int r = 0; r < ROLES; r++)
		scored |= score_spec_profile(&c->fleet.policy[r]) ||
			  (c->has_shadow && score_spec_profile(&c->shadow[r]));
	return scored;
}

int scrape_start(struct scrape **out, struct fleet_holder *fleet, const struct router_config *c,
		 struct pd_msg *msg)
{
	struct scrape *s;

	*out = NULL;
	if (!may_need(c))
		return PD_OK;
	s = calloc(1, sizeof(*s));
	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->fleet = fleet;
	s->cfg = c;
	s->multi = curl_multi_init();
	if (!s->multi || workercurl_fields(&s->fields, c->api_key) ||
	    pthread_create(&s->thread, NULL, run, s) != 0) {
		if (s->multi)
			(void)curl_multi_cleanup(s->multi);
		curl_slist_free_all(s->fields);
		free(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the metrics thread");
	}
	*out = s;
	return PD_OK;
}

void scrape_stop(struct scrape *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	(void)curl_multi_wakeup(s->multi);
	(void)pthread_join(s->thread, NULL);
	while (s->running) {
		struct asking *a = s->running;

		s->running = a->next;
		(void)curl_multi_remove_handle(s->multi, a->easy);
		asking_free(a);
	}
	(void)curl_multi_cleanup(s->multi);
	curl_slist_free_all(s->fields);
	free(s);
}
