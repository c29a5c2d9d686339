/* The getters are one line each, so the macros only save the signature. */
#include "sim/figures/metrics.h"

#include <math.h>
#include <string.h>

#include "lib/base/nearest.h"

#define POOL(NAME, EXPR)                                                                           \
	static double NAME(const struct arm *a, size_t pool)                                       \
	{                                                                                          \
		const struct replay_pool_result *p = &a->result.pool[pool];                        \
		const struct pool_figures *f = &a->figures.pool[pool];                             \
		(void)p, (void)f;                                                                  \
		return EXPR;                                                                       \
	}
#define WHOLE(NAME, EXPR)                                                                          \
	static double NAME(const struct arm *a, size_t pool)                                       \
	{                                                                                          \
		const struct replay_result *r = &a->result;                                        \
		const struct figures *f = &a->figures;                                             \
		(void)pool, (void)r, (void)f;                                                      \
		return EXPR;                                                                       \
	}

static double known(bool is, double value)
{
	return is ? value : (double)NAN;
}

static double rate(const struct replay_result *r, double count)
{
	return known(r->duration_s > 0, count / r->duration_s);
}

static uint32_t peak(const struct replay_pool_result *p)
{
	uint32_t most = 0;

	for (size_t i = 0; i < p->nworkers; i++)
		if (p->worker[i].peak_in_flight > most)
			most = p->worker[i].peak_in_flight;
	return most;
}

static uint64_t preempted(const struct replay_pool_result *p)
{
	uint64_t n = 0;

	for (size_t i = 0; i < p->nworkers; i++)
		n += p->worker[i].preemptions;
	return n;
}

/* Over the events: the lowest part of the hit rate before that is left, and the longest time. */
static double dip_left(const struct arm *a)
{
	double least = (double)NAN;

	for (size_t i = 0; a->figures.time.dip && i < a->cfg.nevents; i++) {
		const struct timeline_dip *d = &a->figures.time.dip[i];

		if (d->before > 0 && !(d->lowest / d->before >= least))
			least = d->lowest / d->before;
	}
	return least;
}

static double recovery(const struct arm *a)
{
	double most = (double)NAN;

	for (size_t i = 0; a->figures.time.dip && i < a->cfg.nevents; i++) {
		const struct timeline_dip *d = &a->figures.time.dip[i];

		if (!isfinite(d->before))
			continue;
		if (!isfinite(d->recovered_s))
			return (double)NAN;
		if (!(d->recovered_s <= most))
			most = d->recovered_s;
	}
	return most;
}

POOL(consistency, f->session_consistency)
POOL(stickiness, f->stickiness)
POOL(moves, (double)p->moves)
POOL(failovers, (double)p->reasons[ROUTE_REASON_FAILOVER])
POOL(ptm, f->requests.peak_to_mean)
POOL(ptm_tokens, f->tokens.peak_to_mean)
POOL(ptm_uncached, f->uncached.peak_to_mean)
POOL(ptm_sessions, known(p->keys > 0, f->sessions.peak_to_mean))
POOL(floor_sessions, known(f->floor_sessions > 0, f->floor_sessions))
POOL(floor_requests, known(f->floor_requests > 0, f->floor_requests))
POOL(floor_idle, known(f->floor_sessions > 0, f->floor_idle))
POOL(cv, f->requests.cv)
POOL(cv_tokens, f->tokens.cv)
POOL(jain, f->requests.jain)
POOL(idle, f->requests.idle)
POOL(used, (double)p->nworkers - f->requests.idle)
POOL(busiest,
     known(f->requests.max > 0, f->requests.max / (f->requests.mean * (double)p->nworkers)))
POOL(block_hits, f->block_hit_rate)
POOL(token_hits, f->token_hit_rate)
POOL(hit_blocks, (double)f->hit_blocks)
POOL(uncached_max, f->uncached.max)
POOL(uncached_mean, f->uncached.mean)
POOL(leave_moved, known(f->moved.known && f->moved.removals > 0, f->moved.leave.moved))
POOL(leave_ideal, known(f->moved.known && f->moved.removals > 0, f->moved.leave.ideal))
POOL(leave_extra, known(f->moved.known && f->moved.removals > 0, f->moved.leave.unnecessary))
POOL(join_moved, known(f->moved.known, f->moved.join.moved))
POOL(join_ideal, known(f->moved.known, f->moved.join.ideal))
POOL(join_extra, known(f->moved.known, f->moved.join.unnecessary))
POOL(pool_peak, (double)peak(p))
POOL(moves_gone, (double)p->moved_gone)
POOL(moves_load, (double)p->moved[ROUTE_REASON_LOAD])
POOL(ptm_flight, known(a->figures.time.n > 0, a->figures.time.in_flight[pool].peak_to_mean))
POOL(cv_flight, known(a->figures.time.n > 0, a->figures.time.in_flight[pool].cv))
POOL(jain_tokens, f->tokens.jain)
POOL(preemptions, (double)preempted(p))
POOL(agreement, known(p->compared > 0, (double)p->agreed / (double)p->compared))
WHOLE(sessions, (double)r->pool[0].keys)
WHOLE(requests, (double)r->requests)
WHOLE(completed, (double)r->completed)
WHOLE(refused, (double)r->refused)
WHOLE(lost, (double)r->lost)
WHOLE(retried, (double)r->retried)
WHOLE(left_over, (double)f->left_over)
WHOLE(workers, (double)a->workers)
WHOLE(good_rate, known(f->goals, rate(r, (double)f->good)))
WHOLE(good_share, known(f->goals && r->requests > 0, (double)f->good / (double)r->requests))
WHOLE(mean_queue, known(f->queue.n > 0, f->queue.mean))
WHOLE(p99_queue, known(f->queue.n > 0, f->queue.p99))
WHOLE(mean_itl, f->itl_ms)
WHOLE(saturated, known(f->time.n > 0, f->time.saturated))
WHOLE(queue_growth, known(f->time.n > 0, f->time.queue_last - f->time.queue_third))
WHOLE(hits_left, dip_left(a))
WHOLE(recovered, recovery(a))
WHOLE(req_rate, rate(r, (double)r->completed))
WHOLE(out_rate, rate(r, (double)r->output_tokens))
WHOLE(mean_ttft, known(f->ttft.n > 0, f->ttft.mean))
WHOLE(median_ttft, known(f->ttft.n > 0, f->ttft.median))
WHOLE(p99_ttft, known(f->ttft.n > 0, f->ttft.p99))
WHOLE(mean_tpot, known(f->tpot.n > 0, f->tpot.mean))
WHOLE(median_tpot, known(f->tpot.n > 0, f->tpot.median))
WHOLE(p99_tpot, known(f->tpot.n > 0, f->tpot.p99))
WHOLE(mean_e2el, known(f->e2el.n > 0, f->e2el.mean))
WHOLE(median_e2el, known(f->e2el.n > 0, f->e2el.median))
WHOLE(p99_e2el, known(f->e2el.n > 0, f->e2el.p99))

#define LOWER  SIMMETRIC_LOWER
#define HIGHER SIMMETRIC_HIGHER
#define NONE   SIMMETRIC_NEITHER

const struct simmetric simmetrics[] = {
	{"session_consistency", true, HIGHER, "share",
	 "sessions of two or more requests that stayed on one worker", consistency},
	{"stickiness", true, HIGHER, "share",
	 "follow-up requests on the worker of the request before", stickiness},
	{"moves", true, LOWER, "requests", "follow-up requests that changed their worker", moves},
	{"failovers", true, LOWER, "requests", "requests whose home was not available", failovers},
	{"peak_to_mean", true, LOWER, "ratio", "requests of the busiest worker over the mean", ptm},
	{"peak_to_mean_tokens", true, LOWER, "ratio", "the same for prompt tokens", ptm_tokens},
	{"peak_to_mean_uncached", true, LOWER, "ratio",
	 "the same for prompt tokens that were not cached", ptm_uncached},
	{"peak_to_mean_sessions", true, LOWER, "ratio",
	 "the same for sessions (by their first request)", ptm_sessions},
	{"floor_peak_to_mean", true, NONE, "ratio",
	 "peak_to_mean that a perfect hash would give these sessions (balls in bins)",
	 floor_requests},
	{"floor_peak_to_mean_sessions", true, NONE, "ratio",
	 "peak_to_mean_sessions that a perfect hash would give", floor_sessions},
	{"floor_idle_workers", true, NONE, "workers",
	 "workers that a perfect hash would leave idle, on average", floor_idle},
	{"cv", true, LOWER, "ratio", "standard deviation over mean of requests per worker", cv},
	{"cv_tokens", true, LOWER, "ratio", "the same for prompt tokens", cv_tokens},
	{"jain", true, HIGHER, "index", "fairness of requests per worker; 1 is perfect", jain},
	{"idle_workers", true, LOWER, "workers", "workers without a request", idle},
	{"workers_used", true, HIGHER, "workers", "workers with at least one request", used},
	{"busiest_share", true, LOWER, "share", "requests on the busiest worker", busiest},
	{"block_hit_rate", true, HIGHER, "share", "prefix blocks found in the worker's cache",
	 block_hits},
	{"token_hit_rate", true, HIGHER, "share", "prompt tokens found in the worker's cache",
	 token_hits},
	{"hit_blocks", true, HIGHER, "blocks", "prefix blocks found", hit_blocks},
	{"uncached_tokens_max", true, LOWER, "tokens",
	 "prompt tokens that the most loaded worker computes", uncached_max},
	{"uncached_tokens_mean", true, LOWER, "tokens", "the mean over the workers", uncached_mean},
	{"keys_moved_leave", true, LOWER, "share",
	 "keys that change worker when one worker leaves (mean over the workers)", leave_moved},
	{"keys_moved_leave_ideal", true, NONE, "share", "keys that must: those of that worker",
	 leave_ideal},
	{"keys_moved_leave_unnecessary", true, LOWER, "share", "keys that moved unnecessarily",
	 leave_extra},
	{"keys_moved_join", true, LOWER, "share", "keys that change worker when one joins",
	 join_moved},
	{"keys_moved_join_ideal", true, NONE, "share", "1 / (workers + 1)", join_ideal},
	{"keys_moved_join_unnecessary", true, LOWER, "share",
	 "keys that moved between two workers that stayed", join_extra},
	{"peak_in_flight", true, LOWER, "requests",
	 "most requests in flight on one worker (simulated time)", pool_peak},
	{"moves_worker_gone", true, LOWER, "requests",
	 "moves away from a worker that was not available any more", moves_gone},
	{"moves_load", true, LOWER, "requests", "moves that load decided", moves_load},
	{"peak_to_mean_in_flight", true, LOWER, "ratio",
	 "requests in flight of the busiest worker over the mean, averaged over time", ptm_flight},
	{"cv_in_flight", true, LOWER, "ratio", "standard deviation over mean of the same",
	 cv_flight},
	{"jain_tokens", true, HIGHER, "index", "fairness of prompt tokens per worker", jain_tokens},
	{"preemptions", true, LOWER, "requests",
	 "requests that lost their KV blocks and began anew", preemptions},
	{"agreement", true, HIGHER, "share",
	 "decisions of a captured router that came out the same (captures only)", agreement},
	{"sessions", false, NONE, "sessions", "distinct keys", sessions},
	{"requests", false, NONE, "requests", "requests of the workload", requests},
	{"completed", false, HIGHER, "requests", "requests that completed", completed},
	{"refused", false, LOWER, "requests", "requests without an available worker", refused},
	{"lost", false, LOWER, "requests", "requests lost on a worker that failed", lost},
	{"retried", false, LOWER, "requests", "further attempts after a worker failed", retried},
	{"left_over", false, LOWER, "requests", "requests that were not over at the end",
	 left_over},
	{"workers", false, LOWER, "workers", "workers of all pools", workers},
	{"request_goodput", false, HIGHER, "req/s", "requests within all goals over duration",
	 good_rate},
	{"goodput_share", false, HIGHER, "share", "requests within all goals", good_share},
	{"mean_queue_ms", false, LOWER, "ms",
	 "until the first step that computes the prompt, simulated", mean_queue},
	{"p99_queue_ms", false, LOWER, "ms", "the same, 99th percentile", p99_queue},
	{"mean_itl_ms", false, LOWER, "ms", "time between two tokens, simulated", mean_itl},
	{"saturated", false, LOWER, "0 or 1",
	 "the queue grows in the last quarter of the arrivals: no steady state", saturated},
	{"queue_growth", false, LOWER, "requests",
	 "waiting requests in the last quarter of the arrivals beside the third", queue_growth},
	{"hit_rate_left", false, HIGHER, "share",
	 "lowest token hit rate after an event over the one before it", hits_left},
	{"hit_recovery_s", false, LOWER, "s",
	 "longest time until 95 % of the hit rate before an event are back", recovered},
	{"request_throughput", false, HIGHER, "req/s", "completed over simulated duration",
	 req_rate},
	{"output_throughput", false, HIGHER, "tok/s", "output tokens over simulated duration",
	 out_rate},
	{"mean_ttft_ms", false, LOWER, "ms", "time to first token, simulated", mean_ttft},
	{"median_ttft_ms", false, LOWER, "ms", "time to first token, simulated", median_ttft},
	{"p99_ttft_ms", false, LOWER, "ms", "time to first token, simulated", p99_ttft},
	{"mean_tpot_ms", false, LOWER, "ms", "time per output token, simulated", mean_tpot},
	{"median_tpot_ms", false, LOWER, "ms", "time per output token, simulated", median_tpot},
	{"p99_tpot_ms", false, LOWER, "ms", "time per output token, simulated", p99_tpot},
	{"mean_e2el_ms", false, LOWER, "ms", "end-to-end latency, simulated", mean_e2el},
	{"median_e2el_ms", false, LOWER, "ms", "end-to-end latency, simulated", median_e2el},
	{"p99_e2el_ms", false, LOWER, "ms", "end-to-end latency, simulated", p99_e2el},
	{NULL, false, NONE, NULL, NULL, NULL},
};

#define COUNT (sizeof(simmetrics) / sizeof(simmetrics[0]))
_Static_assert(COUNT <= SIMMETRICS_MAX, "room for the values of an arm");

void simmetrics_take(const struct arm *a, struct arm_values *out)
{
	for (size_t i = 0; i + 1 < COUNT; i++)
		for (size_t p = 0; p < REPLAY_POOLS; p++)
			out->v[i][p] = p == 0 || (simmetrics[i].per_pool && p < a->cfg.npools)
					       ? balance_as_written(simmetrics[i].get(a, p))
					       : (double)NAN;
}

double simmetric_value(const struct simmetric *m, const struct arm *a, size_t pool)
{
	double sum = 0;

	pool = m->per_pool ? pool : 0;
	for (size_t i = 0; i < a->nreps; i++)
		sum += a->rep[i].v[m - simmetrics][pool];
	return a->nreps > 0 ? sum / (double)a->nreps : (double)NAN;
}

const struct simmetric *simmetric_find(const char *name, size_t len)
{
	for (const struct simmetric *m = simmetrics; m->name; m++)
		if (strlen(m->name) == len && memcmp(m->name, name, len) == 0)
			return m;
	return NULL;
}

const char *simmetric_nearest(const char *word)
{
	const char *names[COUNT];

	for (size_t i = 0; i < COUNT; i++)
		names[i] = simmetrics[i].name;
	return nearest_word(word, names);
}
