/* A latency is kept only until its percentiles are known: with many arms the memory would add up.
 */
#include "sim/figures/figures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/figures/ballsbins.h"

/* Balance of one member of struct replay_worker over the pool. */
static void balance_member(const struct replay_pool_result *p, size_t offset, struct balance *out)
{
	uint64_t load[ROUTE_WORKERS_MAX];

	for (size_t i = 0; i < p->nworkers; i++)
		memcpy(&load[i], (const char *)&p->worker[i] + offset, sizeof(load[i]));
	balance_of(load, p->nworkers, out);
}

static double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : (double)NAN;
}

static void measure_pool(const struct replay_pool_result *p, struct pool_figures *out)
{
	for (size_t i = 0; i < p->nworkers; i++) {
		out->blocks += p->worker[i].blocks;
		out->hit_blocks += p->worker[i].hit_blocks;
		out->hit_tokens += p->worker[i].hit_tokens;
		out->input_tokens += p->worker[i].input_tokens;
	}
	out->session_consistency = share(p->kept_keys, p->multi_keys);
	out->stickiness = p->follow_ups ? 1.0 - share(p->moves, p->follow_ups) : (double)NAN;
	out->block_hit_rate = share(out->hit_blocks, out->blocks);
	out->token_hit_rate = out->blocks ? share(out->hit_tokens, out->input_tokens) : (double)NAN;
	balance_member(p, offsetof(struct replay_worker, requests), &out->requests);
	balance_member(p, offsetof(struct replay_worker, input_tokens), &out->tokens);
	balance_member(p, offsetof(struct replay_worker, uncached_tokens), &out->uncached);
	balance_member(p, offsetof(struct replay_worker, keys), &out->sessions);
}

static int measure_bounds(const struct simtrace *t, const struct replay_config *cfg, size_t pool,
			  struct pool_figures *out, struct pd_msg *msg)
{
	const struct replay_pool *p = &cfg->pool[pool];
	struct vrouter_config v = {
		.names = p->names, .n = p->n, .policy = p->policy, .seed = cfg->seed};
	struct ballsbins sessions, requests;
	uint32_t *weight = reallocarray(NULL, t->nkeys + 1, sizeof(*weight));
	int err = weight ? PD_OK : PD_ENOMEM;

	for (size_t k = 0; weight && k < t->nkeys; k++)
		weight[k] = t->key[k].requests;
	if (!err)
		err = ballsbins_floor(t->nkeys, NULL, p->n, cfg->seed, &sessions);
	if (!err)
		err = ballsbins_floor(t->nkeys, weight, p->n, cfg->seed, &requests);
	free(weight);
	if (err)
		return pd_fail(msg, err, "out of memory for %zu sessions", t->nkeys);
	out->floor_sessions = sessions.peak_to_mean;
	out->floor_requests = requests.peak_to_mean;
	out->floor_idle = sessions.idle;
	return movedkeys_measure(t, &v, &out->moved, msg);
}

/* Latencies of the completed requests, and how many requests did what. */
static int measure_requests(const struct simtrace *t, const struct replay_result *r,
			    const struct figures_goals *goals, struct figures *out)
{
	struct spread *const to[] = {&out->ttft, &out->tpot, &out->e2el, &out->queue};
	double *value[] = {NULL, NULL, NULL, NULL}, decoding = 0, tokens = 0;
	size_t n[] = {0, 0, 0, 0};
	bool ok = true;

	if (!r->request) {
		out->left_over = r->requests - r->completed - r->lost - r->refused;
		for (size_t k = 0; k < 4; k++)
			spread_take(&value[k], 0, to[k]);
		out->itl_ms = (double)NAN;
		return PD_OK;
	}
	for (size_t k = 0; k < 4; k++)
		ok &= (value[k] = reallocarray(NULL, t->n + 1, sizeof(double))) != NULL;
	for (size_t i = 0; ok && i < t->n; i++) {
		const struct replay_request *q = &r->request[i];
		uint32_t output = t->req[i].output_tokens;

		out->left_over += q->fate == REPLAY_LEFT_OVER;
		out->good += figures_goals_met(goals, q, output);
		if (q->fate != REPLAY_COMPLETED || q->first_ns < 0)
			continue;
		value[0][n[0]++] = (double)(q->first_ns - q->issued_ns) / 1e6;
		value[2][n[2]++] = (double)(q->done_ns - q->issued_ns) / 1e6;
		if (q->started_ns >= 0)
			value[3][n[3]++] = (double)(q->started_ns - q->issued_ns) / 1e6;
		if (output < 2)
			continue;
		value[1][n[1]++] = (value[2][n[2] - 1] - value[0][n[0] - 1]) / (double)(output - 1);
		decoding += value[2][n[2] - 1] - value[0][n[0] - 1];
		tokens += output - 1;
	}
	for (size_t k = 0; k < 4; k++) {
		if (ok)
			spread_take(&value[k], n[k], to[k]);
		free(value[k]);
	}
	out->itl_ms = tokens > 0 ? decoding / tokens : (double)NAN;
	return ok ? PD_OK : PD_ENOMEM;
}

int replay_figures(struct figures *out, const struct simtrace *t, const struct replay_config *cfg,
		   const struct figures_goals *goals, struct replay_result *r, struct pd_msg *msg)
{
	static const struct figures_goals none = {0, 0, 0};
	int err = PD_OK;

	*out = (struct figures){0};
	goals = goals ? goals : &none;
	out->goals = goals->ttft_ms > 0 || goals->tpot_ms > 0 || goals->e2el_ms > 0;
	for (size_t p = 0; !err && p < cfg->npools; p++) {
		measure_pool(&r->pool[p], &out->pool[p]);
		err = measure_bounds(t, cfg, p, &out->pool[p], msg);
	}
	if (!err &&
	    (measure_requests(t, r, goals, out) || timeline_make(&out->time, t, cfg, goals, r)))
		err = pd_fail(msg, PD_ENOMEM, "out of memory for %zu requests", t->n);
	if (cfg->detailed && !err)
		return PD_OK;
	free(r->request);
	r->request = NULL;
	return err;
}

void figures_release(struct figures *f)
{
	timeline_release(&f->time);
}
