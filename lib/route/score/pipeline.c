/*
 * A decision: the workers that can take the request, what the filters leave of them, the weighted
 * sum of the scorers, and then one after the other what the picker ranks highest. Labels were read
 * when the pool was made, so a decision compares no texts but those of the request.
 */
#include "lib/route/score/pipeline.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/route/hash.h"
#include "lib/route/memory/holders.h"
#include "lib/route/prefix.h"
#include "lib/route/score/session_affinity.h"

struct params {
	const struct score_profile *profile; /* NULL: the default */
};

/* Their parameters are the defaults of the types. */
static const struct {
	double weight;
	int64_t scale;
	const char *producer;
	struct score_prefix_producer own;
	int64_t block_bytes;
} prefix_defaults = {.scale = 8192};
static const int64_t one = 1;

const struct score_profile score_profile_default = {
	.name = "default",
	.stage = {{&score_queue, NULL, NULL, 2},
		  {&score_kv, NULL, NULL, 2},
		  {&score_prefix, NULL, &prefix_defaults, 3},
		  {&score_max_picker, NULL, &one, 1}},
	.nscorers = 3,
	.prefix = {.block_tokens = 64, .max_tokens = 131072, .max_blocks = 2048, .capacity = 31250},
	.wants = SCORE_WANTS_PREFIX | SCORE_DRAWS | SCORE_WANTS_SIGNALS,
};

static size_t nstages(const struct score_profile *p)
{
	return p->nfilters + p->nscorers + 1;
}

void score_profile_close(struct score_profile *p)
{
	if (p->prefix.block_tokens == 0)
		p->prefix = score_profile_default.prefix;
	for (size_t i = 0; i < nstages(p); i++)
		p->wants |= p->stage[i].type->wants;
}

static const struct score_profile *profile_of(const void *params)
{
	const struct score_profile *p = ((const struct params *)params)->profile;

	return p ? p : &score_profile_default;
}

struct route_spec score_spec(const struct score_profile *p)
{
	struct route_spec s =
		route_spec_of(p->wants & SCORE_WANTS_PREFIX ? &route_policy_scores
							    : &route_policy_scores_by_load);

	memcpy(s.params, &(struct params){p}, sizeof(struct params));
	return s;
}

const struct score_profile *score_spec_profile(const struct route_spec *s)
{
	return s->type == &route_policy_scores || s->type == &route_policy_scores_by_load
		       ? profile_of(s->params)
		       : NULL;
}

/* -- memory: of the stages, and who holds which prefix -- */

struct memory {
	const struct score_profile *profile;
	struct holders *holders; /* NULL: no stage looks at prefixes */
	void *stage[SCORE_STAGES_MAX];
};

static void memory_free(void *memory)
{
	struct memory *m = memory;

	if (!m)
		return;
	for (size_t i = 0; i < nstages(m->profile); i++)
		if (m->stage[i])
			m->profile->stage[i].type->memory_free(m->stage[i]);
	holders_free(m->holders);
	free(m);
}

static int memory_new(const void *params, void **memory)
{
	const struct score_profile *p = profile_of(params);
	struct memory *m = calloc(1, sizeof(*m));
	int err = PD_OK;

	*memory = NULL;
	if (!m)
		return PD_ENOMEM;
	m->profile = p;
	if (p->wants & SCORE_WANTS_PREFIX)
		err = holders_new(&m->holders, (size_t)p->prefix.capacity);
	for (size_t i = 0; !err && i < nstages(p); i++)
		if (p->stage[i].type->memory_new)
			err = p->stage[i].type->memory_new(p->stage[i].params, &m->stage[i]);
	if (err) {
		memory_free(m);
		return err;
	}
	*memory = m;
	return PD_OK;
}

/* -- table: what labels say, and the workers' cells -- */

struct table {
	struct memory *memory;
	size_t n;
	uint16_t *cell;			/* by place in the pool */
	const struct score_fact **fact; /* of each stage; NULL: it has none */
};

static void table_free(void *table)
{
	struct table *t = table;

	if (!t)
		return;
	for (size_t i = 0; t->cell && t->memory->holders && i < t->n; i++)
		holders_drop(t->memory->holders, t->cell[i]);
	for (size_t i = 0; t->fact && i < nstages(t->memory->profile); i++)
		free((void *)(uintptr_t)t->fact[i]);
	free(t->fact);
	free(t->cell);
	free(t);
}

static const struct score_fact *facts(const struct score_stage *s, const struct route_pool *pool)
{
	struct score_fact *f = calloc(pool->n + 1, sizeof(*f));

	for (size_t i = 0; f && i < pool->n; i++)
		s->type->fact(s->params, &pool->worker[i], &f[i]);
	return f;
}

static int table_new(const struct route_pool *pool, const void *params, void **table,
		     struct pd_msg *msg)
{
	const struct score_profile *p = profile_of(params);
	struct table *t = calloc(1, sizeof(*t));
	bool ok = t != NULL;

	*table = NULL;
	if (ok) {
		t->memory = pool->state->memory;
		t->cell = calloc(pool->n + 1, sizeof(*t->cell));
		t->fact = calloc(nstages(p), sizeof(struct score_fact *));
		ok = t->cell && t->fact;
	}
	for (; ok && t->memory->holders && t->n < pool->n; t->n++)
		t->cell[t->n] = (uint16_t)holders_cell(t->memory->holders, pool->worker[t->n].id);
	for (size_t i = 0; ok && i < nstages(p); i++)
		if (p->stage[i].type->fact) {
			t->fact[i] = facts(&p->stage[i], pool);
			ok = t->fact[i] != NULL;
		}
	if (!ok) {
		table_free(t);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	*table = t;
	return PD_OK;
}

/* -- the steps -- */

static struct score_call call_of(const struct score_run *run, const struct score_profile *p,
				 size_t i)
{
	const struct table *t = run->pool->table;

	return (struct score_call){.run = run,
				   .params = p->stage[i].params,
				   .fact = t->fact[i],
				   .memory = t->memory->stage[i],
				   .nth = (unsigned)i};
}

static const struct score_profile *profile_in(const struct route_pool *pool)
{
	return profile_of(pool->state->spec.params);
}

size_t score_filter(const struct score_run *run, uint16_t *list, size_t n,
		    struct route_verdict *out)
{
	const struct score_profile *p = profile_in(run->pool);

	for (size_t i = 0; i < p->nfilters && n > 0; i++) {
		const struct score_call c = call_of(run, p, i);
		uint16_t before[ROUTE_WORKERS_MAX];
		size_t was = n, k = 0;

		if (out)
			memcpy(before, list, n * sizeof(*list));
		n = p->stage[i].type->filter(&c, list, n);
		for (size_t j = 0; out && j < was; j++) {
			if (k < n && list[k] == before[j])
				k++;
			else
				out[before[j]].filter = SCORE_STAGE_NAME(&p->stage[i]);
		}
	}
	return n;
}

void score_sum(const struct score_run *run, const uint16_t *list, size_t n, double *sum,
	       double *raw)
{
	const struct score_profile *p = profile_in(run->pool);
	double mine[ROUTE_WORKERS_MAX];

	for (size_t k = 0; k < n; k++)
		sum[k] = 0;
	for (size_t i = 0; i < p->nscorers; i++) {
		const struct score_stage *s = &p->stage[p->nfilters + i];
		const struct score_call c = call_of(run, p, p->nfilters + i);
		double *of = raw ? raw + i * n : mine;

		s->type->score(&c, list, n, of);
		for (size_t k = 0; k < n; k++) {
			double clamped = of[k] < 0 ? 0 : of[k] > 1 ? 1 : of[k];

			sum[k] += clamped * s->weight;
		}
	}
}

/* Of equal ranks the one that is drawn highest; the order of the list has no part in it. */
size_t score_best(const struct score_run *run, const uint16_t *list, size_t n, const double *sum,
		  uint32_t *ties)
{
	const struct score_profile *p = profile_in(run->pool);
	size_t at = p->nfilters + p->nscorers, best = SIZE_MAX;
	const struct score_call c = call_of(run, p, at);
	double top = 0, luck = -1;

	*ties = 0;
	for (size_t k = 0; k < n; k++) {
		double rank;

		if (isnan(sum[k]))
			continue;
		rank = p->stage[at].type->rank ? p->stage[at].type->rank(&c, list[k], sum[k])
					       : sum[k];
		if (best == SIZE_MAX || rank > top) {
			best = k;
			top = rank;
			luck = -1;
			*ties = 0;
		} else if (rank == top) {
			double mine;

			if (luck < 0)
				luck = score_unit(&c, ~run->pool->worker[list[best]].id);
			mine = score_unit(&c, ~run->pool->worker[list[k]].id);
			++*ties;
			if (mine > luck) {
				luck = mine;
				best = k;
			}
		}
	}
	return best;
}

int score_pins(const struct route_spec *s, bool primary, const char *worker, struct buf *out)
{
	const struct score_profile *p = score_spec_profile(s);
	const char *said = NULL;
	int err = PD_OK;

	for (size_t i = 0; p && !err && i < p->nfilters + p->nscorers; i++) {
		const struct score_stage *g = &p->stage[i];
		const char *header, *profile;

		if (g->type != &score_session && g->type != &score_session_filter)
			continue;
		header = score_session_header(g->params);
		profile = score_session_profile(g->params);
		if (!header || (said && strcmp(said, header) == 0) ||
		    (profile ? strcmp(profile, p->name) != 0 : !primary))
			continue;
		err = buf_printf(out, "%s: ", header);
		err = err ? err : score_session_token(worker, out);
		err = err ? err : buf_puts(out, "\r\n");
		said = header;
	}
	return err;
}

void score_picked(const struct score_run *run, uint32_t worker, bool cold)
{
	const struct score_profile *p = profile_in(run->pool);

	for (size_t i = 0; i < nstages(p); i++) {
		const struct score_call c = call_of(run, p, i);

		if (p->stage[i].type->picked)
			p->stage[i].type->picked(&c, run->pool->worker[worker].id, cold);
	}
}

/* -- the policy -- */

#define SHOWN 5 /* the chosen one and those that explain it */

/* `sum` is NAN where a worker is no candidate, or was yielded. */
struct walk {
	double sum[ROUTE_WORKERS_MAX];
	uint32_t load[ROUTE_WORKERS_MAX];
	uint16_t match[ROUTE_WORKERS_MAX];
	uint32_t blocks, block_tokens; /* of the prompt that were looked up */
	uint32_t ties;
	uint16_t best[SHOWN]; /* the highest ranks, sorted */
	uint16_t nbest, at;
	bool barred; /* there were candidates, and the filters left none */
};

/* The blocks of the prompt as the table has them. n 0: none. */
static struct holders_blocks blocks_of(const struct score_profile *p,
				       const struct route_request *rq)
{
	size_t own = rq->block_tokens ? rq->block_tokens : ROUTE_BLOCK_TOKENS;
	struct holders_blocks b = {.block = rq->block, .n = rq->nblocks, .stride = 1};
	int64_t max = p->prefix.max_tokens ? p->prefix.max_tokens / p->prefix.block_tokens
					   : p->prefix.max_blocks;

	if ((size_t)p->prefix.block_tokens > own)
		b.stride = (size_t)p->prefix.block_tokens / own;
	if (max > 0 && b.n > (size_t)max * b.stride)
		b.n = (size_t)max * b.stride;
	if (b.n > (size_t)UINT16_MAX * b.stride)
		b.n = (size_t)UINT16_MAX * b.stride;
	if (rq->model.n > 0)
		b.salt = route_hash(ROUTE_HASH_XXH3, rq->model.p, rq->model.n);
	return b;
}

static void look_up(const struct route_view *v, struct score_run *run, uint16_t *match)
{
	const struct score_profile *p = profile_of(v->params);
	const struct table *t = v->pool->table;
	struct holders_blocks b = blocks_of(p, v->rq);

	if (!t->memory->holders || b.n == 0)
		return;
	holders_match(t->memory->holders, &b, t->cell, v->pool->n, match);
	run->match = match;
	run->blocks = (uint32_t)holders_count(&b);
	run->block_tokens = (uint32_t)(b.stride * (v->rq->block_tokens ? v->rq->block_tokens
								       : ROUTE_BLOCK_TOKENS));
}

static __attribute__((noinline)) void rank(const struct route_view *v, struct walk *w,
					   uint16_t *list, size_t n)
{
	struct route_explain *x = v->rq->explain;
	struct score_run run = {.pool = v->pool,
				.rq = v->rq,
				.load = w->load,
				.flight = &profile_of(v->params)->flight};
	double sum[ROUTE_WORKERS_MAX];
	size_t kept;

	look_up(v, &run, w->match);
	w->blocks = run.blocks;
	w->block_tokens = run.block_tokens;
	kept = score_filter(&run, list, n, x ? x->worker : NULL);
	w->barred = n > 0 && kept == 0;
	score_sum(&run, list, kept, sum, NULL);
	for (size_t k = 0; k < kept; k++) {
		w->sum[list[k]] = sum[k];
		if (x)
			x->worker[list[k]].score = sum[k];
	}
}

static void begin(const struct route_view *v, void *walk)
{
	struct walk *w = walk;
	uint16_t list[ROUTE_WORKERS_MAX];
	size_t n = 0;

	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;
		bool may;

		w->load[i] = route_load(slot);
		w->sum[i] = NAN;
		may = route_may_pick(v, i) && route_has_room(slot, w->load[i]);
		if (may)
			list[n++] = (uint16_t)i;
		if (v->rq->explain)
			v->rq->explain->worker[i] = (struct route_verdict){.candidate = may};
	}
	w->nbest = w->at = 0;
	if (v->rq->explain)
		v->rq->explain->filled = true;
	rank(v, w, list, n);
}

/* The tokens that the worker has to compute, for its count in flight; at least 1 where the prompt
 * is known. */
static uint32_t cost_of(const struct route_view *v, const struct walk *w, uint32_t worker)
{
	const struct score_run run = {.pool = v->pool,
				      .rq = v->rq,
				      .match = w->blocks ? w->match : NULL,
				      .blocks = w->blocks,
				      .block_tokens = w->block_tokens,
				      .flight = &profile_of(v->params)->flight};
	int64_t n = v->rq->tokens > 0 ? score_uncached(&run, worker) : 0;

	return n < 1 ? v->rq->tokens > 0 : n > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)n;
}

/* One worker, and what it is ordered by: the picker's rank, then a draw. */
struct rank {
	double rank, luck;
};

static bool is_above(const struct rank *a, const struct rank *b)
{
	return a->rank != b->rank ? a->rank > b->rank : a->luck > b->luck;
}

/* The highest of those that were not yielded, sorted. */
static void find_best(const struct route_view *v, struct walk *w)
{
	const struct score_profile *p = profile_of(v->params);
	const struct score_run run = {.pool = v->pool, .rq = v->rq, .load = w->load};
	const struct score_call picker = call_of(&run, p, p->nfilters + p->nscorers);
	double (*rank_of)(const struct score_call *c, uint32_t worker, double score) =
		p->stage[p->nfilters + p->nscorers].type->rank;
	struct rank best[SHOWN] = {{0, 0}};

	w->nbest = w->at = 0;
	w->ties = 0;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		struct rank r;
		uint16_t at;

		if (isnan(w->sum[i]))
			continue;
		r.rank = rank_of ? rank_of(&picker, i, w->sum[i]) : w->sum[i];
		if (w->nbest == SHOWN && r.rank < best[SHOWN - 1].rank)
			continue;
		r.luck = score_unit(&picker, ~v->pool->worker[i].id);
		if (w->nbest == 0 || r.rank > best[0].rank)
			w->ties = 0;
		else if (r.rank == best[0].rank)
			w->ties++;
		if (w->nbest == SHOWN && !is_above(&r, &best[SHOWN - 1]))
			continue;
		at = w->nbest < SHOWN ? w->nbest++ : SHOWN - 1;
		for (; at > 0 && is_above(&r, &best[at - 1]); at--) {
			best[at] = best[at - 1];
			w->best[at] = w->best[at - 1];
		}
		best[at] = r;
		w->best[at] = (uint16_t)i;
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;
	uint32_t ties = 0;
	uint16_t best;

	if (w->at == w->nbest) {
		find_best(v, w);
		ties = w->ties;
	}
	if (w->at == w->nbest)
		return false;
	best = w->best[w->at++];
	*c = (struct route_choice){.worker = best,
				   .seen = w->load[best],
				   .ties = ties,
				   .tokens = cost_of(v, w, best),
				   .tokens_stay = profile_of(v->params)->flight.output,
				   .score = w->sum[best],
				   .reason = ROUTE_REASON_SCORE};
	w->sum[best] = NAN;
	return true;
}

/* Would the filters leave a worker, were all of them available? */
static int none(const struct route_view *v, void *walk)
{
	struct walk *w = walk;
	struct score_run run = {.pool = v->pool, .rq = v->rq, .load = w->load};
	uint16_t list[ROUTE_WORKERS_MAX];
	size_t n = v->pool->n;

	if (!w->barred)
		return PD_EAGAIN;
	for (size_t i = 0; i < n; i++)
		list[i] = (uint16_t)i;
	n = score_filter(&run, list, n, NULL);
	for (size_t i = 0; i < n; i++)
		if (route_may_pick(v, list[i]))
			return PD_EBUSY;
	return n > 0 ? PD_ENOENT : PD_EPROTO;
}

static void learn(void *memory, const struct route_event *e)
{
	struct memory *m = memory;
	struct holders_blocks b;
	bool cold = true;

	if (e->kind == ROUTE_LEFT) {
		if (m->holders)
			holders_forget(m->holders, e->worker);
		for (size_t i = 0; i < nstages(m->profile); i++)
			if (m->profile->stage[i].type->left)
				m->profile->stage[i].type->left(m->stage[i], e->worker);
	}
	if (e->kind != ROUTE_PICKED || !e->request)
		return;
	if (m->holders) {
		b = blocks_of(m->profile, e->request);
		if (b.n > 0)
			cold = !holders_add(m->holders, e->worker, &b);
	}
	for (size_t i = 0; i < nstages(m->profile); i++) {
		const struct score_run run = {.rq = e->request};
		const struct score_call c = {
			.run = &run, .params = m->profile->stage[i].params, .memory = m->stage[i]};

		if (m->profile->stage[i].type->picked)
			m->profile->stage[i].type->picked(&c, e->worker, cold);
	}
}

#define SCORES(wanted)                                                                             \
	{                                                                                          \
		.name = "scores",                                                                  \
		.help = "filters, scorers and a picker, as `--epp-config` says; without it "       \
			"llm-d's "                                                                 \
			"default",                                                                 \
		.flags = ROUTE_BY_LOAD | ROUTE_DRAWS | ROUTE_EXPLAINS | (wanted),                  \
		.params_size = sizeof(struct params), .walk_size = sizeof(struct walk),            \
		.table_new = table_new, .table_free = table_free, .memory_new = memory_new,        \
		.memory_free = memory_free, .begin = begin, .next = next, .none = none,            \
		.learn = learn                                                                     \
	}
const struct route_policy_type route_policy_scores =
	SCORES(ROUTE_WANTS_BLOCKS | ROUTE_WANTS_TOKENS);
const struct route_policy_type route_policy_scores_by_load = SCORES(0);
