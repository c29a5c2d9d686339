#include "lib/router/way/flowgate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/route/hash.h"
#include "lib/route/score/handlers.h"

#define CYCLE_NS NS_PER_MS

struct flow_waiter {
	struct flow_waiter *next;
	struct http_conn *conn;
	struct flow_request request;
	size_t band;
	uint64_t flow; /* hash of its id */
	int64_t since, expires_slo;
	bool ended;
	enum flow_end end;
};

struct flowgate {
	const struct epp_config *epp;
	struct fleet_holder *fleet;
	_Atomic unsigned begun; /* and not picked yet */
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t wake;
	bool stop, started;
	struct flow_waiter *first, **last; /* in order of arrival */
	struct {
		int64_t n, bytes;
		uint64_t served; /* the flow whose turn it was last */
	} band[EPP_BANDS_MAX];
	int64_t n, bytes;
	bool empty;	   /* no worker is available */
	int64_t empty_at;  /* when that changed; 0: never */
	double saturation; /* at the last look */
	struct flowgate_stats stats;
};

/* -- saturation -- */

/* Stages that a worker's role counts in; PLAIN: neither. */
enum { IN_PREFILL = 1, IN_DECODE = 2 };

static unsigned stages_of(const struct route_worker *w)
{
	static const struct {
		const char *role;
		unsigned in;
	} roles[] = {{"prefill", IN_PREFILL},
		     {"encode-prefill", IN_PREFILL},
		     {"decode", IN_DECODE},
		     {"prefill-decode", IN_PREFILL | IN_DECODE},
		     {"both", IN_PREFILL | IN_DECODE},
		     {"encode-prefill-decode", IN_PREFILL | IN_DECODE}};
	struct span role = route_label(&w->labels, SPAN(ROUTE_LABEL_ROLE));

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (span_eq(role, span_of(roles[i].role)))
			return roles[i].in;
	return role.p ? 0 : IN_DECODE;
}

/* Of the available workers of one pool that count in the stage (0: of all). *n: how many. */
static double saturation_of(const struct epp_config *epp, const struct route_pool *pool,
			    unsigned stage, unsigned begun, int64_t now, size_t *n)
{
	const struct route_request rq = {.now_ns = now};
	uint32_t load[ROUTE_WORKERS_MAX];
	uint16_t list[ROUTE_WORKERS_MAX];
	const struct score_run run = {.pool = pool, .rq = &rq, .load = load};
	const struct score_call call = {.run = &run, .params = epp->detector.params};

	*n = 0;
	for (size_t i = 0; i < pool->n; i++) {
		const struct route_worker *w = &pool->worker[i];

		load[i] = route_load(w->slot);
		if (atomic_load_explicit(&w->slot->available, memory_order_relaxed) &&
		    (stage == 0 || (stages_of(w) & stage)))
			list[(*n)++] = (uint16_t)i;
	}
	for (size_t i = 0; *n > 0 && i < *n; i++)
		load[list[i]] += begun / (unsigned)*n + (i < begun % *n);
	return epp->detector.type->saturation(&call, list, *n);
}

/* The mean of a stage over the pools; it has one in prefill/decode mode and in a plain fleet. */
static double stage_saturation(const struct epp_config *epp, const struct fleet *f, unsigned stage,
			       unsigned begun, int64_t now, size_t *workers)
{
	double sum = 0;

	*workers = 0;
	for (int r = 0; r < ROLES; r++) {
		size_t n;
		double s = saturation_of(epp, f->pool[r].ring, stage, begun, now, &n);

		sum += s * (double)n;
		*workers += n;
	}
	return *workers ? sum / (double)*workers : 1;
}

double flow_saturation(const struct epp_config *epp, const struct fleet *f, unsigned begun,
		       int64_t now)
{
	size_t prefills, decodes, all;
	double prefill = stage_saturation(epp, f, IN_PREFILL, begun, now, &prefills),
	       decode = stage_saturation(epp, f, IN_DECODE, begun, now, &decodes);

	if (prefills == 0 && decodes == 0)
		return stage_saturation(epp, f, 0, begun, now, &all);
	if (prefills == 0 || (decodes > 0 && decode > prefill))
		return decode;
	return prefill;
}

static void look(struct flowgate *g, int64_t now)
{
	struct fleet *f = fleet_get(g->fleet);
	size_t available = 0;
	bool empty;

	for (int r = 0; r < ROLES; r++)
		available += fleet_available(&f->pool[r]);
	empty = available == 0;
	if (empty != g->empty)
		g->empty_at = now;
	g->empty = empty;
	g->saturation = empty ? 1 : flow_saturation(g->epp, f, atomic_load(&g->begun), now);
	fleet_put(f);
}

/* -- who begins -- */

/* Does a come before b within a flow? Both are in order of arrival. */
static bool before(const struct epp_band *band, const struct flow_waiter *a,
		   const struct flow_waiter *b)
{
	return band->ordering == &score_slo_ordering && a->expires_slo < b->expires_slo;
}

static uint64_t distance(uint64_t last, uint64_t flow)
{
	return flow - last - 1;
}

/* The head of the band: of all flows, or of the flow whose turn it is. */
static struct flow_waiter *head_of(struct flowgate *g, size_t band)
{
	const struct epp_band *b = &g->epp->flow.band[band];
	bool turns = b->fairness == &score_turns_fairness;
	uint64_t last = g->band[band].served;
	struct flow_waiter *best = NULL;

	for (struct flow_waiter *w = g->first; w; w = w->next) {
		if (w->band != band)
			continue;
		if (!best || (turns && distance(last, w->flow) < distance(last, best->flow)) ||
		    ((!turns || w->flow == best->flow) && before(b, w, best)))
			best = w;
	}
	return best;
}

static void take_out(struct flowgate *g, struct flow_waiter *w)
{
	struct flow_waiter **at = &g->first;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	if (g->last == &w->next)
		g->last = at;
	g->n--;
	g->bytes -= w->request.bytes;
	g->band[w->band].n--;
	g->band[w->band].bytes -= w->request.bytes;
}

static void end(struct flowgate *g, struct flow_waiter *w, enum flow_end how)
{
	take_out(g, w);
	w->end = how;
	w->ended = true;
	http_conn_wake(w->conn);
}

/* One cycle: the best of the highest band that has one, unless the pool is saturated. */
static void cycle(struct flowgate *g)
{
	const struct epp_flow *f = &g->epp->flow;

	for (size_t b = 0; b < f->nbands && g->saturation < f->ceiling; b++) {
		struct flow_waiter *w = head_of(g, b);

		if (!w)
			continue;
		g->band[b].served = w->flow;
		atomic_fetch_add(&g->begun, 1);
		end(g, w, FLOW_BEGINS);
		return;
	}
}

/* -- time to live -- */

static bool is_over(const struct flowgate *g, const struct flow_waiter *w, int64_t now)
{
	int64_t budget = g->empty ? g->epp->flow.empty_ttl_ns : g->epp->flow.ttl_ns;
	int64_t from = w->since > g->empty_at ? w->since : g->empty_at;

	return now >= w->request.give_up || (budget > 0 && now >= from + budget);
}

static void sweep(struct flowgate *g, int64_t now)
{
	struct flow_waiter *next;

	for (struct flow_waiter *w = g->first; w; w = next) {
		next = w->next;
		if (!is_over(g, w, now))
			continue;
		g->stats.expired++;
		end(g, w, g->empty ? FLOW_NO_WORKERS : FLOW_EXPIRED);
	}
}

/* -- the thread: cycles while requests wait -- */

static void *run(void *arg)
{
	struct flowgate *g = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-flow");
	(void)pthread_mutex_lock(&g->lock);
	while (!g->stop) {
		int64_t now = clock_now(), until = now + CYCLE_NS;
		struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};

		if (g->n == 0) {
			(void)pthread_cond_wait(&g->wake, &g->lock);
			continue;
		}
		look(g, now);
		sweep(g, now);
		cycle(g);
		(void)pthread_cond_timedwait(&g->wake, &g->lock, &ts);
	}
	(void)pthread_mutex_unlock(&g->lock);
	return NULL;
}

/* -- requests -- */

/* A priority that the file does not name is that of 0, which is always there. */
static size_t band_of(const struct epp_flow *f, int64_t priority)
{
	size_t zero = 0;

	for (size_t b = 0; b < f->nbands; b++) {
		if (f->band[b].priority == priority)
			return b;
		if (f->band[b].priority == 0)
			zero = b;
	}
	return zero;
}

/* An exact fill is allowed; only requests that wait count. */
static bool has_room(const struct flowgate *g, const struct flow_waiter *w)
{
	const struct epp_flow *f = &g->epp->flow;
	const struct epp_band *b = &f->band[w->band];
	int64_t bytes = w->request.bytes;

	return (f->max_bytes == 0 || g->bytes + bytes <= f->max_bytes) &&
	       (f->max_requests == 0 || g->n + 1 <= f->max_requests) &&
	       g->band[w->band].bytes + bytes <= b->max_bytes &&
	       g->band[w->band].n + 1 <= b->max_requests;
}

static void put_in(struct flowgate *g, struct flow_waiter *w)
{
	*g->last = w;
	g->last = &w->next;
	g->n++;
	g->bytes += w->request.bytes;
	g->band[w->band].n++;
	g->band[w->band].bytes += w->request.bytes;
}

/* With the lock held. The thread ends the wait, or the client does. */
static enum flow_end wait_for_turn(struct flowgate *g, struct flow_waiter *w)
{
	bool left = false;

	g->stats.queued++;
	(void)pthread_cond_signal(&g->wake);
	while (!w->ended && !left) {
		(void)pthread_mutex_unlock(&g->lock);
		left = http_conn_sleep(w->conn, CLOCK_NEVER);
		(void)pthread_mutex_lock(&g->lock);
	}
	if (w->ended)
		return w->end;
	take_out(g, w);
	g->stats.left++;
	return FLOW_CLIENT_LEFT;
}

enum flow_end flowgate_enter(struct flowgate *g, struct http_conn *c, const struct flow_request *r)
{
	struct flow_waiter w = {.conn = c, .request = *r, .since = clock_now()};
	enum flow_end how = FLOW_BEGINS;

	w.band = band_of(&g->epp->flow, r->priority);
	w.flow = route_hash(ROUTE_HASH_XXH3, r->id.p, r->id.n);
	w.expires_slo = r->slo_ns < 0 ? INT64_MAX : r->accepted + r->slo_ns;
	(void)pthread_mutex_lock(&g->lock);
	look(g, w.since);
	if (!has_room(g, &w)) {
		g->stats.full++;
		how = g->empty ? FLOW_NO_WORKERS : FLOW_FULL;
	} else {
		/* A cycle runs after each arrival. */
		/* cppcheck-suppress autoVariables ; it is taken out again */
		put_in(g, &w);
		if (g->n == 1 && g->saturation < g->epp->flow.ceiling) {
			take_out(g, &w);
			g->band[w.band].served = w.flow;
			atomic_fetch_add(&g->begun, 1);
		} else {
			how = wait_for_turn(g, &w);
		}
	}
	(void)pthread_mutex_unlock(&g->lock);
	return how;
}

void flowgate_picked(struct flowgate *g)
{
	PD_CHECK(atomic_load(&g->begun) > 0);
	atomic_fetch_sub(&g->begun, 1);
}

void flowgate_stats(struct flowgate *g, struct flowgate_stats *out)
{
	(void)pthread_mutex_lock(&g->lock);
	*out = g->stats;
	out->waiting = (uint64_t)g->n;
	out->saturation = g->saturation;
	(void)pthread_mutex_unlock(&g->lock);
}

/* -- life -- */

int flowgate_new(struct flowgate **out, const struct epp_config *epp, struct fleet_holder *fleet)
{
	struct flowgate *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;

	*out = NULL;
	if (!g)
		return PD_ENOMEM;
	g->epp = epp;
	g->fleet = fleet;
	g->last = &g->first;
	(void)pthread_mutex_init(&g->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&g->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	g->started = pthread_create(&g->thread, NULL, run, g) == 0;
	if (!g->started) {
		flowgate_free(g);
		return PD_ENOMEM;
	}
	*out = g;
	return PD_OK;
}

void flowgate_free(struct flowgate *g)
{
	if (!g)
		return;
	PD_CHECK(!g->first);
	(void)pthread_mutex_lock(&g->lock);
	g->stop = true;
	(void)pthread_cond_signal(&g->wake);
	(void)pthread_mutex_unlock(&g->lock);
	if (g->started)
		(void)pthread_join(g->thread, NULL);
	(void)pthread_cond_destroy(&g->wake);
	(void)pthread_mutex_destroy(&g->lock);
	free(g);
}
