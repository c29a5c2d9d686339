/* Whether to disaggregate: llm-d's rule for prefixes and Dynamo's with busy pools, and what a pair
 * does about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/route/hash.h"
#include "lib/route/policy/decider.h"
#include "tests/unit/route_kit.h"

struct fixture {
	struct route_slot slot[4];
	struct route_pool *pool[2];
	struct route_decider *decider;
};

static void make(struct fixture *f, const struct route_decider_spec *spec)
{
	static const char *const names[] = {"p1", "p2", "d1", "d2"};
	struct route_spec policy = spec_named("least_request");

	memset(f, 0, sizeof(*f));
	for (int p = 0; p < 2; p++) {
		struct route_slot *slots[] = {&f->slot[2 * p], &f->slot[2 * p + 1]};

		assert_int_equal(pool_of(&f->pool[p], &policy, names + 2 * p, slots, 2, NULL),
				 PD_OK);
	}
	for (int i = 0; i < 4; i++)
		atomic_store(&f->slot[i].available, true);
	assert_int_equal(route_decider_new(&f->decider, spec), PD_OK);
}

static void done(struct fixture *f)
{
	route_decider_free(f->decider);
	route_pool_free(f->pool[0]);
	route_pool_free(f->pool[1]);
}

/* A pair for `tokens` tokens of chain `id`; nothing stays counted. True: local. */
static bool ask(struct fixture *f, uint64_t id, uint32_t tokens, bool prefill_first)
{
	static uint64_t block[512];
	struct route_pair p = {.pool = {f->pool[0], f->pool[1]},
			       .ask = route_decider_ask,
			       .context = f->decider,
			       .prefill_first = prefill_first};

	for (size_t i = 0; i < tokens / 16; i++)
		block[i] = route_dice(id, 3, i, 0);
	for (int e = 0; e < 2; e++)
		p.request[e] = (struct route_request){
			.block = block, .nblocks = tokens / 16, .tokens = tokens};
	assert_int_equal(route_decide_pair(&p), PD_OK);
	assert_true(p.picked[ROUTE_DECODE]);
	assert_int_equal(p.picked[ROUTE_PREFILL], !p.local);
	for (int e = 0; e < 2; e++) {
		p.request[e].counted = p.decision[e].tokens;
		if (p.picked[e])
			route_end(p.pool[e], p.decision[e].worker, &p.request[e]);
	}
	return p.local;
}

static void nothing_left(struct fixture *f)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(route_load(&f->slot[i]) + route_tokens(&f->slot[i]), 0);
}

static void test_prefix(void **state)
{
	struct route_decider_spec s = {.kind = ROUTE_DECIDER_prefix, .non_cached_tokens = 512};
	struct fixture f;

	(void)state;
	make(&f, &s);
	atomic_store(&f.slot[3].available, false); /* one decode worker, so that it is the same */
	assert_true(ask(&f, 1, 511, false));
	assert_false(ask(&f, 2, 512, false));
	assert_false(ask(&f, 3, 4000, true));
	/* 4000 tokens are 250 blocks: what is new counts. */
	assert_true(ask(&f, 3, 4000, false));
	assert_true(ask(&f, 3, 4511, true));
	assert_false(ask(&f, 4, 4511, false));
	nothing_left(&f);
	done(&f);
	/* promptTokens: short prompts stay. 0 non-cached tokens: never. */
	s.prompt_tokens = 1000;
	make(&f, &s);
	assert_true(ask(&f, 1, 999, false));
	assert_false(ask(&f, 2, 1000, false));
	done(&f);
	s.non_cached_tokens = 0;
	make(&f, &s);
	assert_true(ask(&f, 1, 5000, false));
	done(&f);
}

static void test_cost(void **state)
{
	struct route_decider_spec s = {.kind = ROUTE_DECIDER_cost,
				       .max_local_prefill = 1000,
				       .prefill_busy = 2,
				       .decode_busy = 10};
	struct fixture f;

	(void)state;
	make(&f, &s);
	assert_true(ask(&f, 1, 1000, false));
	assert_false(ask(&f, 2, 1001, false));
	/* Prefill is busy: 5 in flight on two workers. */
	atomic_store(&f.slot[0].in_flight, 3);
	atomic_store(&f.slot[1].in_flight, 2);
	assert_true(ask(&f, 3, 5000, false));
	/* Decode is busier. */
	atomic_store(&f.slot[2].in_flight, 11);
	atomic_store(&f.slot[3].in_flight, 11);
	assert_false(ask(&f, 4, 10, false));
	done(&f);
}

static void test_always_and_never(void **state)
{
	struct route_decider_spec s = {.kind = ROUTE_DECIDER_always};
	struct fixture f;

	(void)state;
	make(&f, &s);
	assert_false(ask(&f, 1, 1, false));
	done(&f);
	s.kind = ROUTE_DECIDER_never;
	make(&f, &s);
	/* Not even without a prefill worker is there a failure. */
	atomic_store(&f.slot[0].available, false);
	atomic_store(&f.slot[1].available, false);
	assert_true(ask(&f, 1, 5000, false));
	nothing_left(&f);
	done(&f);
}

/* A label that both have: the pair shares its value, as long as one such worker can take it. */
static void test_pair_label(void **state)
{
	static const char *const names[] = {"p1", "p2", "p3", "d1", "d2", "d3"};
	static const char *const racks[] = {"a", "b", "c", "c", "a", NULL};
	static struct route_slot slot[6];
	struct route_spec spec = spec_named("least_request");
	struct route_pool *pool[2];

	(void)state;
	for (int p = 0; p < 2; p++) {
		struct route_member member[3] = {0};
		struct route_state *s;

		assert_int_equal(route_state_new(&s, &spec), PD_OK);
		for (int i = 0; i < 3; i++) {
			int k = 3 * p + i;

			atomic_store(&slot[k].available, true);
			member[i].name = names[k];
			member[i].slot = &slot[k];
			if (racks[k])
				assert_int_equal(route_labels_set(&member[i].labels, SPAN("rack"),
								  span_of(racks[k])),
						 PD_OK);
		}
		assert_int_equal(route_pool_new(&pool[p], member, 3, s, NULL), PD_OK);
		route_state_unref(s);
		for (int i = 0; i < 3; i++)
			route_labels_release(&member[i].labels);
	}
	for (int i = 0; i < 30; i++) {
		struct route_pair p = {.pool = {pool[0], pool[1]}, .label = SPAN("rack")};
		uint32_t d;

		if (i == 15) { /* the one of rack a is full: another one is better than none */
			atomic_store(&slot[0].cap, 1);
			atomic_store(&slot[0].in_flight, 1);
		}
		assert_int_equal(route_decide_pair(&p), PD_OK);
		d = p.decision[ROUTE_DECODE].worker;
		if (d == 0)
			assert_int_equal(p.decision[ROUTE_PREFILL].worker, 2);
		else if (d == 1 && i < 15)
			assert_int_equal(p.decision[ROUTE_PREFILL].worker, 0);
		else if (d == 1)
			assert_int_not_equal(p.decision[ROUTE_PREFILL].worker, 0);
		for (int e = 0; e < 2; e++)
			route_end(pool[e], p.decision[e].worker, NULL);
	}
	route_pool_free(pool[0]);
	route_pool_free(pool[1]);
}

static void test_names(void **state)
{
	enum route_decider_kind k;

	(void)state;
	for (int i = 0; i < ROUTE_DECIDER_KINDS; i++) {
		assert_int_equal(
			route_decider_find(&k, route_decider_name((enum route_decider_kind)i)),
			PD_OK);
		assert_int_equal(k, i);
	}
	assert_int_equal(route_decider_find(&k, "sometimes"), PD_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_cost),
		cmocka_unit_test(test_always_and_never),
		cmocka_unit_test(test_pair_label),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("decider", tests, NULL, NULL);
}
