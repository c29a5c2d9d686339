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
POOL(agreement, known(p->compared > 0, (double)p->agreed / (double)p->compared))
WHOLE(sessions, (double)r->pool[0].keys)
WHOLE(requests, (double)r->requests)
WHOLE(completed, (double)r->completed)
WHOLE(refused, (double)r->refused)
WHOLE(lost, (double)r->lost)
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
	{"agreement", true, HIGHER, "share",
	 "decisions of a captured router that came out the same (captures only)", agreement},
	{"sessions", false, NONE, "sessions", "distinct keys", sessions},
	{"requests", false, NONE, "requests", "requests of the workload", requests},
	{"completed", false, HIGHER, "requests", "requests that completed", completed},
	{"refused", false, LOWER, "requests", "requests without an available worker", refused},
	{"lost", false, LOWER, "requests", "requests lost on a worker that failed", lost},
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
