/* The parts of the simulator against naive versions of themselves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/route/key/key_extract.h"
#include "sim/engine/params.h"
#include "sim/figures/ballsbins.h"
#include "sim/figures/figures.h"
#include "sim/replay/replay.h"
#include "sim/replay/vrouter.h"
#include "sim/trace/shape.h"
#include "sim/trace/trace.h"
#include "tests/unit/pupil.h"
#include "tests/unit/route_kit.h"

static void near(double a, double b, double eps)
{
	if (!(fabs(a - b) <= eps))
		fail_msg("found %.9g, expected %.9g +- %g", a, b, eps);
}

/* Exact expectations of max/mean, from the coefficients of (sum x^k/k!)^workers. */
static void test_floor_equals_exact_expectation(void **state)
{
	static const struct {
		size_t workers, sessions;
		double floor;
	} table[] = {{4, 16, 1.5348}, {4, 64, 1.2626},	{8, 16, 2.1007},
		     {8, 32, 1.7619}, {8, 128, 1.3693}, {16, 16, 3.0782}};
	const uint32_t heavy[] = {1000, 1, 1, 1};
	struct ballsbins b;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_int_equal(ballsbins_floor(table[i].sessions, NULL, table[i].workers, 3, &b),
				 PD_OK);
		near(b.peak_to_mean, table[i].floor, 0.025);
	}
	/* (7/8)^16 of 8 workers stay empty */
	assert_int_equal(ballsbins_floor(16, NULL, 8, 3, &b), PD_OK);
	near(b.idle, 0.9445, 0.06);
	assert_int_equal(ballsbins_floor(4, heavy, 4, 3, &b), PD_OK);
	near(b.peak_to_mean, 4, 0.02);
	assert_int_equal(ballsbins_floor(0, NULL, 8, 3, &b), PD_OK);
	near(b.peak_to_mean, 0, 0);
}

static void test_trace_numbers_keys_and_sorts(void **state)
{
	struct simtrace t;
	uint64_t blocks[] = {1, 2, 3};

	(void)state;
	simtrace_init(&t, 16);
	assert_int_equal(simtrace_add(&t, 30, SPAN("b"), 10, 1, blocks, 1), PD_OK);
	assert_int_equal(simtrace_add(&t, 10, SPAN("a"), 11, 1, blocks, 2), PD_OK);
	assert_int_equal(simtrace_add(&t, 10, SPAN("b"), 12, 1, blocks, 3), PD_OK);
	assert_int_equal(simtrace_add(&t, 10, SPAN(""), 13, 1, blocks, 0), PD_OK);
	assert_int_equal(simtrace_add(&t, 10, SPAN("c"), 0, 1, blocks, 0), PD_EINVAL);
	assert_int_equal(simtrace_add(&t, 10, SPAN("c"), 1, 0, blocks, 0), PD_EINVAL);
	assert_int_equal(simtrace_finish(&t), PD_OK);
	assert_int_equal(t.n, 4);
	assert_int_equal(t.nkeys, 2);
	assert_int_equal(t.req[0].input_tokens, 11);
	assert_int_equal(t.req[1].input_tokens, 12);
	assert_int_equal(t.req[2].key, SIM_NO_KEY);
	assert_int_equal(t.req[3].arrival_ns, 30);
	assert_int_equal(t.req[1].key, t.req[3].key);
	assert_int_equal(t.key[t.req[1].key].requests, 2);
	assert_true(span_eq(simtrace_key(&t, t.req[0].key), SPAN("a")));
	simtrace_release(&t);
}

/* Turns wait for each other in the replay too, in the order of the schedule, whatever the order of
 * arrivals. */
static void test_order_follows_the_requests(void **state)
{
	const uint32_t before[] = {SCHEDULE_NONE, 0, SCHEDULE_NONE, 2};
	const int64_t at[] = {500, 900, 0, 100};
	struct schedule_input in;
	struct simtrace t;

	(void)state;
	simtrace_init(&t, 16);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(simtrace_add(&t, at[i], SPAN("k"), (int64_t)i + 1, 1, NULL, 0),
				 PD_OK);
	t.order.before = malloc(sizeof(before));
	assert_non_null(t.order.before);
	memcpy(t.order.before, before, sizeof(before));
	assert_int_equal(simtrace_finish(&t), PD_OK);
	in = simtrace_schedule(&t);
	assert_int_equal(in.n, 4);
	assert_int_equal(t.req[0].input_tokens, 3);
	assert_int_equal(in.before[0], SCHEDULE_NONE);
	assert_int_equal(in.before[1], 0);
	assert_int_equal(in.before[2], SCHEDULE_NONE);
	assert_int_equal(in.before[3], 2);
	assert_int_equal(*(const int64_t *)((const char *)in.at_ns + 3 * in.at_stride), 900);
	simtrace_release(&t);
}

#define WORKERS 5

static const char *const names[WORKERS + 1] = {"w1", "w2", "w3", "w4", "w5", "w6"};

/* 400 requests of 60 sessions with chains of blocks that overlap between sessions. */
static void make_trace(struct simtrace *t)
{
	struct rng rng;
	uint64_t blocks[12];
	char key[16];

	rng_seed(&rng, 21);
	simtrace_init(t, 10);
	for (int i = 0; i < 400; i++) {
		uint64_t session = rng_below(&rng, 60), n = 1 + rng_below(&rng, 12);

		for (uint64_t b = 0; b < n; b++)
			blocks[b] = b < 2 ? session % 7 * 100 + b : session * 1000 + b;
		(void)snprintf(key, sizeof(key), "s%d", (int)session);
		assert_int_equal(simtrace_add(t, i * 1000000, span_of(key), (int64_t)n * 10 - 3, 5,
					      blocks, n),
				 PD_OK);
	}
	assert_int_equal(simtrace_finish(t), PD_OK);
}

static struct replay_config config(const char *policy)
{
	struct replay_config c = {
		.npools = 1, .seed = 9, .engine = ENGINE_DEFAULTS, .routing_only = true};

	c.pool[0] =
		(struct replay_pool){.names = names, .n = WORKERS, .policy = spec_named(policy)};
	return c;
}

static void replay(const struct simtrace *t, const struct replay_config *c, struct replay_result *r,
		   struct figures *f)
{
	assert_int_equal(replay_run(t, c, r, NULL), PD_OK);
	assert_int_equal(replay_figures(f, t, c, NULL, r, NULL), PD_OK);
}

/* One worker's cache as a list, the most recent first; searched and shifted by brute force. */
struct list_cache {
	uint64_t id[64];
	size_t n, capacity;
};

static bool list_has(const struct list_cache *c, uint64_t id, size_t *at)
{
	for (*at = 0; *at < c->n; (*at)++)
		if (c->id[*at] == id)
			return true;
	return false;
}

static size_t list_access(struct list_cache *c, const uint64_t *b, size_t n)
{
	size_t hits = 0, at;

	while (hits < n && list_has(c, b[hits], &at))
		hits++;
	for (size_t i = n; i-- > 0;) {
		if (list_has(c, b[i], &at))
			memmove(c->id + at, c->id + at + 1, (--c->n - at) * sizeof(c->id[0]));
		else if (c->n == c->capacity)
			c->n--;
		memmove(c->id + 1, c->id, c->n * sizeof(c->id[0]));
		c->id[0] = b[i];
		c->n++;
	}
	return hits;
}

/* All counters of a replay, counted again from its decisions in the plainest way. */
static void test_replay_equals_naive_counting(void **state)
{
	static const char *const policies[] = {"consistent_hash", "rendezvous_hash", "round_robin",
					       "random"};
	struct replay_choice choices[400];
	struct simtrace t;

	(void)state;
	make_trace(&t);
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		struct replay_config c = config(policies[p]);
		struct list_cache cache[WORKERS] = {{.n = 0}};
		struct replay_result r;
		struct figures f;
		uint64_t requests[WORKERS] = {0}, hits = 0, tokens = 0, moves = 0, follow = 0;
		uint64_t kept = 0, multi = 0, most = 0;

		c.cache_blocks = 40;
		c.choices = choices;
		replay(&t, &c, &r, &f);
		for (size_t i = 0; i < t.n; i++) {
			const struct sim_request *q = &t.req[i];
			struct list_cache *lc = &cache[choices[i].worker];
			size_t h, j;

			lc->capacity = 40;
			h = list_access(lc, t.block + q->block, q->nblocks);
			hits += h;
			tokens += h * 10 < q->input_tokens ? h * 10 : q->input_tokens;
			requests[choices[i].worker]++;
			for (j = i; j-- > 0;)
				if (t.req[j].key == q->key)
					break;
			if (j < i) {
				follow++;
				moves += choices[j].worker != choices[i].worker;
			}
		}
		for (uint32_t k = 0; k < t.nkeys; k++) {
			uint32_t first = UINT32_MAX;
			bool one = true;
			size_t n = 0;

			for (size_t i = 0; i < t.n; i++) {
				if (t.req[i].key != k)
					continue;
				n++;
				first = n == 1 ? choices[i].worker : first;
				one &= choices[i].worker == first;
			}
			multi += n > 1;
			kept += n > 1 && one;
		}
		for (size_t w = 0; w < WORKERS; w++) {
			assert_int_equal(r.pool[0].worker[w].requests, requests[w]);
			most = requests[w] > most ? requests[w] : most;
		}
		assert_int_equal(r.completed, 400);
		assert_int_equal(f.pool[0].hit_blocks, hits);
		assert_int_equal(f.pool[0].hit_tokens, tokens);
		assert_true(hits > 0);
		assert_int_equal(r.pool[0].follow_ups, follow);
		assert_int_equal(r.pool[0].moves, moves);
		assert_int_equal(r.pool[0].multi_keys, multi);
		near(f.pool[0].session_consistency, (double)kept / (double)multi, 1e-12);
		near(f.pool[0].requests.peak_to_mean, (double)most * WORKERS / 400.0, 1e-12);
		replay_result_release(&r);
		figures_release(&f);
	}
	simtrace_release(&t);
}

static void test_hash_policies_keep_and_round_robin_rotates(void **state)
{
	struct replay_config c = config("consistent_hash");
	struct replay_result r;
	struct figures f;
	struct simtrace t;

	(void)state;
	make_trace(&t);
	replay(&t, &c, &r, &f);
	near(f.pool[0].session_consistency, 1, 0);
	near(f.pool[0].stickiness, 1, 0);
	assert_int_equal(r.pool[0].reasons[ROUTE_REASON_KEY], 400);
	replay_result_release(&r);
	figures_release(&f);
	c.pool[0].policy = spec_named("round_robin");
	replay(&t, &c, &r, &f);
	near(f.pool[0].requests.cv, 0, 1e-12);
	assert_int_equal(r.pool[0].reasons[ROUTE_REASON_ROTATION], 400);
	replay_result_release(&r);
	figures_release(&f);
	simtrace_release(&t);
}

/* The same keys in the same order: the replay and the plain sequence choose alike, whatever the
 * policy. */
static void test_sequence_and_replay_choose_alike(void **state)
{
	struct replay_choice choices[400];
	struct span keys[400];
	uint32_t worker[400];
	struct simtrace t;

	(void)state;
	make_trace(&t);
	for (int p = 0; route_policies[p]; p++) {
		struct replay_config c = config(route_policies[p]->name);
		struct vrouter_config vc = {
			.names = names, .n = WORKERS, .policy = c.pool[0].policy, .seed = c.seed};
		struct replay_result r;
		struct vrouter v;

		/* A sequence has keys only. */
		if (route_policies[p]->flags & (ROUTE_WANTS_BLOCKS | ROUTE_WANTS_TOKENS))
			continue;
		c.choices = choices;
		assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
		assert_int_equal(vrouter_init(&v, &vc, NULL), PD_OK);
		for (size_t i = 0; i < t.n; i++)
			keys[i] = simtrace_key(&t, t.req[i].key);
		assert_int_equal(vrouter_sequence(&v, keys, t.n, worker), PD_OK);
		for (size_t i = 0; i < t.n; i++)
			assert_int_equal(worker[i], choices[i].worker);
		for (size_t w = 0; w < WORKERS; w++)
			assert_int_equal(v.slot[w].in_flight, 0);
		vrouter_release(&v);
		replay_result_release(&r);
	}
	simtrace_release(&t);
}

static int pick(struct vrouter *v, struct span text, struct route_decision *d)
{
	struct route_key key;

	route_key_of_text(text, &key);
	return route_decide(v->pool, &(struct route_request){.key = &key}, d);
}

static struct pupil kept;

static int kept_new(const void *params, void **memory)
{
	(void)params;
	*memory = &kept;
	return PD_OK;
}

static void kept_free(void *memory)
{
	(void)memory;
}

/* A worker that is unavailable and a pool without it give the same homes, and moved keys counts
 * exactly those. */
static void test_moved_keys(void **state)
{
	static const char *const policies[] = {"consistent_hash", "rendezvous_hash"};
	struct simtrace t;
	struct movedkeys m;

	(void)state;
	make_trace(&t);
	for (size_t p = 0; p < 2; p++) {
		struct vrouter_config vc = {
			.names = names, .n = WORKERS, .policy = spec_named(policies[p])};
		struct route_decision full, less;
		struct vrouter v;
		size_t moved = 0;

		assert_int_equal(movedkeys_measure(&t, &vc, &m, NULL), PD_OK);
		assert_true(m.known);
		assert_int_equal(m.removals, WORKERS);
		near(m.leave.moved, 1.0 / WORKERS, 1e-12);
		near(m.leave.ideal, 1.0 / WORKERS, 1e-12);
		near(m.leave.unnecessary, 0, 0);
		near(m.join.unnecessary, 0, 0);
		assert_true(m.join.moved > 0.05 && m.join.moved < 0.35);
		assert_int_equal(vrouter_init(&v, &vc, NULL), PD_OK);
		for (uint32_t w = 0; w < WORKERS; w++) {
			for (uint32_t k = 0; k < t.nkeys; k++) {
				v.slot[w].available = true;
				assert_int_equal(pick(&v, simtrace_key(&t, k), &full), PD_OK);
				v.slot[w].available = false;
				assert_int_equal(pick(&v, simtrace_key(&t, k), &less), PD_OK);
				assert_int_equal(less.home, full.worker);
				moved += less.worker != full.worker;
				assert_true((less.worker != full.worker) == (full.worker == w));
			}
			v.slot[w].available = true;
		}
		near((double)moved / (double)t.nkeys / WORKERS, m.leave.moved, 1e-12);
		vrouter_release(&v);
	}
	simtrace_release(&t);
}

/* Round robin has no homes; one worker cannot lose one. */
static void test_moved_keys_unknown(void **state)
{
	struct vrouter_config vc = {
		.names = names, .n = WORKERS, .policy = spec_named("round_robin")};
	struct simtrace t;
	struct movedkeys m;

	(void)state;
	make_trace(&t);
	assert_int_equal(movedkeys_measure(&t, &vc, &m, NULL), PD_OK);
	assert_false(m.known);
	vc.policy = spec_named("rendezvous_hash");
	vc.n = 1;
	assert_int_equal(movedkeys_measure(&t, &vc, &m, NULL), PD_OK);
	assert_true(m.known);
	assert_int_equal(m.removals, 0);
	simtrace_release(&t);
}

/* The most that a policy saw of the workers' signals. */
static struct {
	int32_t waiting, running;
	double kv;
	int64_t at;
} seen;

static void watching_begin(const struct route_view *v, void *walk)
{
	for (size_t i = 0; i < v->pool->n; i++) {
		const struct route_signal *s = &v->pool->worker[i].slot->signal;

		seen.waiting = s->waiting > seen.waiting ? s->waiting : seen.waiting;
		seen.running = s->running > seen.running ? s->running : seen.running;
		seen.kv = s->kv_usage > seen.kv ? s->kv_usage : seen.kv;
		assert_true(s->at_ns <= v->rq->now_ns);
		seen.at = s->at_ns > seen.at ? s->at_ns : seen.at;
	}
	pupil_begin(v, walk);
}

static void test_signals_of_the_engines(void **state)
{
	struct route_policy_type type = pupil_type;
	struct replay_config c = config("random");
	struct replay_result r;
	struct simtrace t;

	(void)state;
	make_trace(&t);
	type.begin = watching_begin;
	c.pool[0].policy = route_spec_of(&type);
	c.routing_only = false;
	c.engine.max_num_seqs = 2;
	c.engine.kv_tokens = 200;
	assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
	assert_true(seen.at > 0 && seen.waiting > 0 && seen.running == 2);
	assert_true(seen.kv >= 0.1 && seen.kv <= 1);
	replay_result_release(&r);
	simtrace_release(&t);
}

/* A policy hears of each pick, each end, and who joins and leaves, at the virtual time. */
static void test_policies_are_told(void **state)
{
	const struct replay_event events[] = {
		{.by_request = true, .request = 100, .action = REPLAY_LEAVE, .worker = 1},
		{.by_request = true, .request = 200, .action = REPLAY_FAIL, .worker = 2},
		{.by_request = true, .request = 300, .action = REPLAY_JOIN, .worker = 2}};
	struct route_policy_type type = pupil_type;
	struct replay_config c = config("random");
	struct replay_result r;
	struct simtrace t;

	(void)state;
	make_trace(&t);
	type.memory_new = kept_new; /* it is read after the replay */
	type.memory_free = kept_free;
	c.pool[0].policy = route_spec_of(&type);
	c.events = events;
	c.nevents = 3;
	for (int engines = 0; engines < 2; engines++) {
		memset(&kept, 0, sizeof(kept));
		c.routing_only = !engines;
		assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
		assert_int_equal(kept.told[ROUTE_PICKED], 400);
		assert_int_equal(kept.told[ROUTE_ENDED], 400);
		assert_int_equal(kept.told[ROUTE_JOINED], WORKERS + 1);
		assert_int_equal(kept.told[ROUTE_LEFT], 2);
		assert_true(kept.keyed && kept.at >= 399000000);
		replay_result_release(&r);
	}
	simtrace_release(&t);
}

/* Every request is accounted for, in flight counts end at zero, failures lose what ran and the
 * cache. */
static void test_failure_is_accounted(void **state)
{
	const struct replay_event events[] = {
		{.by_request = true, .request = 200, .action = REPLAY_FAIL, .worker = 2},
		{.at_ns = 300500000, .action = REPLAY_JOIN, .worker = 2}};
	struct replay_config c = config("consistent_hash");
	struct replay_choice choices[400];
	struct replay_result r;
	struct simtrace t;
	uint64_t failovers = 0;

	(void)state;
	make_trace(&t);
	c.routing_only = false;
	c.events = events;
	c.nevents = 2;
	c.choices = choices;
	assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
	assert_int_equal(r.completed + r.lost + r.refused, 400);
	assert_int_equal(r.refused, 0);
	assert_true(r.lost > 0);
	for (size_t i = 200; i < 300; i++)
		assert_int_not_equal(choices[i].worker, 2);
	for (size_t i = 0; i < 400; i++)
		failovers += choices[i].reason == ROUTE_REASON_FAILOVER;
	assert_int_equal(r.pool[0].reasons[ROUTE_REASON_FAILOVER], failovers);
	assert_true(failovers > 0);
	replay_result_release(&r);
	simtrace_release(&t);
}

static void test_no_worker_left_is_refused(void **state)
{
	const bool absent[WORKERS] = {true, true, true, true, true};
	struct replay_config c = config("round_robin");
	struct replay_result r;
	struct simtrace t;

	(void)state;
	make_trace(&t);
	c.pool[0].absent = absent;
	c.routing_only = false;
	assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
	assert_int_equal(r.refused, 400);
	assert_int_equal(r.completed, 0);
	replay_result_release(&r);
	simtrace_release(&t);
}

/* P/D of a lone request: prefill step, hand-over, decode steps, nothing else. */
static void test_pd_latency_of_one_request(void **state)
{
	struct replay_config c = {
		.npools = 2, .engine = ENGINE_DEFAULTS, .transfer_ms = 3, .transfer_us_token = 10};
	struct replay_result r;
	struct figures f;
	struct simtrace t;
	double prefill = 7 + 22e-3 * 1000, hand = 3 + 10e-3 * 1000, first, step;

	(void)state;
	simtrace_init(&t, 16);
	assert_int_equal(simtrace_add(&t, 0, SPAN("s"), 1000, 3, NULL, 0), PD_OK);
	assert_int_equal(simtrace_finish(&t), PD_OK);
	c.pool[0] = (struct replay_pool){
		.names = names, .n = 2, .policy = spec_named("consistent_hash")};
	c.pool[1] = (struct replay_pool){
		.names = names + 2, .n = 2, .policy = spec_named("consistent_hash")};
	replay(&t, &c, &r, &f);
	first = prefill + hand + 7 + 22e-3; /* the last token of the prompt is computed again */
	step = 7 + 0.056e-3 * 1001;
	assert_int_equal(r.completed, 1);
	near(f.ttft.mean, first, 1e-4);
	near(f.e2el.mean, first + step + step + 0.056e-3, 1e-4);
	replay_result_release(&r);
	figures_release(&f);
	simtrace_release(&t);
}

static void test_concurrency_limit_holds(void **state)
{
	struct replay_config c = config("least_request");
	struct replay_result r;
	struct simtrace t;

	(void)state;
	make_trace(&t);
	c.routing_only = false;
	assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
	assert_true(r.peak_in_flight > 3);
	replay_result_release(&r);
	c.max_concurrency = 3;
	assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
	assert_int_equal(r.completed, 400);
	assert_int_equal(r.peak_in_flight, 3);
	replay_result_release(&r);
	simtrace_release(&t);
}

/* The only session of the only worker: after the failure its prefix has to be computed again. */
static void test_failure_empties_the_cache(void **state)
{
	const struct replay_event events[] = {
		{.by_request = true, .request = 2, .action = REPLAY_FAIL},
		{.by_request = true, .request = 2, .action = REPLAY_JOIN}};
	const uint64_t blocks[] = {1, 2, 3};
	struct replay_config c = config("round_robin");
	struct replay_result r;
	struct figures f;
	struct simtrace t;

	(void)state;
	simtrace_init(&t, 10);
	for (int i = 0; i < 4; i++)
		assert_int_equal(
			simtrace_add(&t, i * INT64_C(1000000000), SPAN("s"), 30, 2, blocks, 3),
			PD_OK);
	assert_int_equal(simtrace_finish(&t), PD_OK);
	c.pool[0].n = 1;
	c.routing_only = false;
	replay(&t, &c, &r, &f);
	/* Of a prompt that is cached whole the last block is computed again. */
	assert_int_equal(f.pool[0].hit_blocks, 6);
	replay_result_release(&r);
	figures_release(&f);
	c.events = events;
	c.nevents = 2;
	replay(&t, &c, &r, &f);
	assert_int_equal(f.pool[0].hit_blocks, 4);
	assert_int_equal(r.lost, 0);
	assert_int_equal(r.completed, 4);
	replay_result_release(&r);
	figures_release(&f);
	simtrace_release(&t);
}

/* P/D: the decode worker dies while the prompt is computed, or while it decodes: lost once, never
 * twice. */
static void test_decode_failure_loses_the_request_once(void **state)
{
	struct replay_config c = {.npools = 2, .engine = ENGINE_DEFAULTS};
	struct simtrace t;

	(void)state;
	simtrace_init(&t, 16);
	assert_int_equal(simtrace_add(&t, 0, SPAN("s"), 4000, 50, NULL, 0), PD_OK);
	assert_int_equal(simtrace_add(&t, 900000000, SPAN("s"), 100, 1, NULL, 0), PD_OK);
	assert_int_equal(simtrace_finish(&t), PD_OK);
	c.pool[0] =
		(struct replay_pool){.names = names, .n = 1, .policy = spec_named("round_robin")};
	c.pool[1] = (struct replay_pool){
		.names = names + 1, .n = 1, .policy = spec_named("round_robin")};
	for (int64_t ms = 50; ms <= 250; ms += 200) {
		struct replay_event events[] = {
			{.at_ns = ms * 1000000, .action = REPLAY_FAIL, .pool = 1},
			{.at_ns = 800000000, .action = REPLAY_JOIN, .pool = 1}};
		struct replay_result r;

		c.events = events;
		c.nevents = 2;
		assert_int_equal(replay_run(&t, &c, &r, NULL), PD_OK);
		assert_int_equal(r.lost, 1);
		assert_int_equal(r.completed, 1);
		assert_int_equal(r.peak_in_flight, 1);
		replay_result_release(&r);
	}
	simtrace_release(&t);
}

static void test_balance(void **state)
{
	const uint64_t load[] = {1, 2, 3, 0};
	struct balance b;

	(void)state;
	balance_of(load, 4, &b);
	near(b.mean, 1.5, 1e-12);
	near(b.peak_to_mean, 2, 1e-12);
	near(b.cv, sqrt(1.25) / 1.5, 1e-12);
	near(b.jain, 36.0 / (4 * 14), 1e-12);
	assert_int_equal(b.idle, 1);
	balance_of((const uint64_t[]){0, 0}, 2, &b);
	near(b.peak_to_mean, 0, 0);
	assert_int_equal(b.idle, 2);
	balance_of(NULL, 0, &b);
	near(b.mean, 0, 0);
}

static size_t common_blocks(const struct simtrace *t, size_t a, size_t b)
{
	size_t n = 0;

	while (n < t->req[a].nblocks && n < t->req[b].nblocks &&
	       t->block[t->req[a].block + n] == t->block[t->req[b].block + n])
		n++;
	return n;
}

/* Two groups, three sessions, two turns; 40 tokens of prefix are two full blocks of 16 and a half
 * one. */
static void test_shape_shares_what_it_says(void **state)
{
	struct shape s = SHAPE_DEFAULTS;
	struct simtrace t;
	struct pd_msg msg;

	(void)state;
	s.sessions = 3;
	s.turns = 2;
	s.groups = 2;
	s.round_robin_groups = true;
	s.prefix_tokens = 40;
	s.turn_tokens = 50;
	s.output_tokens = 30;
	simtrace_init(&t, 0);
	assert_int_equal(shape_make(&s, 4, &t, &msg), PD_OK);
	assert_int_equal(t.n, 6);
	assert_int_equal(t.nkeys, 3);
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(t.req[i].key, i % 3);
		assert_int_equal(t.req[i].input_tokens, i < 3 ? 90 : 170);
		assert_int_equal(t.req[i].nblocks, i < 3 ? 5 : 10);
	}
	assert_int_equal(common_blocks(&t, 0, 1), 0); /* groups 0 and 1 */
	assert_int_equal(common_blocks(&t, 0, 2), 2); /* same group, other session */
	assert_int_equal(common_blocks(&t, 0, 3), 5); /* same session, next turn */
	simtrace_release(&t);
	s.turns = 0;
	assert_int_equal(shape_check(&s, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "turns"));
}

static void test_shape_popularity(void **state)
{
	struct shape s = SHAPE_DEFAULTS;
	struct simtrace t;

	(void)state;
	s.sessions = 20000;
	s.groups = 10;
	s.zipf = 1;
	s.key = SHAPE_KEY_GROUP;
	s.prefix_tokens = 16;
	simtrace_init(&t, 0);
	assert_int_equal(shape_make(&s, 4, &t, NULL), PD_OK);
	assert_int_equal(t.nkeys, 10);
	for (uint32_t k = 0; k < t.nkeys; k++) /* 1 / (rank * H(10)) */
		if (span_eq(simtrace_key(&t, k), SPAN("group-0")))
			near(t.key[k].requests / 20000.0, 1 / 2.9290, 0.015);
		else if (span_eq(simtrace_key(&t, k), SPAN("group-9")))
			near(t.key[k].requests / 20000.0, 1 / 29.290, 0.006);
	simtrace_release(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_floor_equals_exact_expectation),
		cmocka_unit_test(test_trace_numbers_keys_and_sorts),
		cmocka_unit_test(test_order_follows_the_requests),
		cmocka_unit_test(test_replay_equals_naive_counting),
		cmocka_unit_test(test_hash_policies_keep_and_round_robin_rotates),
		cmocka_unit_test(test_sequence_and_replay_choose_alike),
		cmocka_unit_test(test_moved_keys),
		cmocka_unit_test(test_moved_keys_unknown),
		cmocka_unit_test(test_policies_are_told),
		cmocka_unit_test(test_signals_of_the_engines),
		cmocka_unit_test(test_failure_is_accounted),
		cmocka_unit_test(test_no_worker_left_is_refused),
		cmocka_unit_test(test_pd_latency_of_one_request),
		cmocka_unit_test(test_concurrency_limit_holds),
		cmocka_unit_test(test_failure_empties_the_cache),
		cmocka_unit_test(test_decode_failure_loses_the_request_once),
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_shape_shares_what_it_says),
		cmocka_unit_test(test_shape_popularity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
