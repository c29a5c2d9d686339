/* The engine model with an invented clock: order, seats, blocks, the prefill unit, aborts. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "sim/engine/engine.h"

#define MS NS_PER_MS

/* 1000 prompt tokens per second, 10 ms per output token. */
static struct engine_config config(size_t blocks, size_t seqs)
{
	return (struct engine_config){.block_size = 4,
				      .num_blocks = blocks,
				      .max_num_seqs = seqs,
				      .prefill_tokens_per_s = 1000,
				      .decode_ms_per_token = 10,
				      .speedup = 1};
}

struct sequence {
	struct engine_job job;
	uint64_t hash[64];
	int woken;
};

static void count_wake(struct engine_job *job)
{
	((struct sequence *)job->ctx)->woken++;
}

static void prepare(struct sequence *s, uint64_t prompt, size_t prompt_tokens, size_t output_tokens)
{
	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < 64; i++)
		s->hash[i] = prompt * 1000 + i;
	s->job = (struct engine_job){.hash = s->hash,
				     .nhash = (prompt_tokens + output_tokens - 1) / 4,
				     .prompt_tokens = prompt_tokens,
				     .output_tokens = output_tokens,
				     .copies = 1,
				     .wake = count_wake,
				     .ctx = s};
}

static void submit(struct engine *e, struct sequence *s, int64_t now)
{
	assert_int_equal(engine_submit(e, &s->job, now), PD_OK);
}

static void test_one_request(void **state)
{
	struct engine_config cfg = config(0, 8);
	struct sequence s;
	struct engine e;

	(void)state;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s, 1, 20, 5);
	submit(&e, &s, 100 * MS);
	assert_int_equal(s.job.state, ENGINE_RUNNING);
	assert_int_equal(s.woken, 0);
	assert_int_equal(s.job.prefill_end, 120 * MS);
	assert_int_equal(engine_token_at(&e, &s.job, 0), 120 * MS);
	assert_int_equal(engine_token_at(&e, &s.job, 4), 160 * MS);
	engine_prefilled(&e, &s.job, 120 * MS);
	s.job.generated = 5;
	engine_finish(&e, &s.job, 160 * MS, NULL);
	engine_finish(&e, &s.job, 161 * MS, NULL);
	assert_int_equal(e.running, 0);
	assert_int_equal(e.seats, 0);
	/* The same again: 4 of 5 prompt blocks count, one token is always computed. */
	prepare(&s, 1, 20, 5);
	submit(&e, &s, 200 * MS);
	assert_int_equal(s.job.cached_tokens, 16);
	assert_int_equal(s.job.prefill_end, 204 * MS);
	engine_finish(&e, &s.job, 201 * MS, NULL);
	engine_release(&e);
}

static void test_prompts_are_computed_one_after_the_other(void **state)
{
	struct engine_config cfg = config(0, 8);
	struct sequence s[3];
	struct engine e;

	(void)state;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	for (size_t i = 0; i < 3; i++) {
		prepare(&s[i], i, 10, 1);
		submit(&e, &s[i], (int64_t)i * MS);
	}
	assert_int_equal(e.running, 1);
	assert_int_equal(e.waiting, 2);
	/* The owner wakes 3 ms late: the unit loses no time over it. */
	engine_prefilled(&e, &s[0].job, 13 * MS);
	assert_int_equal(s[1].woken, 1);
	assert_int_equal(s[1].job.prefill_end, 20 * MS);
	assert_int_equal(s[2].job.state, ENGINE_WAITING);
	/* Given up half way: the next one starts now, not when the unit would have become free. */
	engine_finish(&e, &s[1].job, 15 * MS, NULL);
	assert_int_equal(s[2].job.prefill_end, 25 * MS);
	engine_finish(&e, &s[2].job, 15 * MS, NULL);
	engine_finish(&e, &s[0].job, 15 * MS, NULL);
	engine_release(&e);
}

static void test_remote_kv_takes_no_prefill_time(void **state)
{
	struct engine_config cfg = config(0, 8);
	struct sequence s[2];
	struct engine e;

	(void)state;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s[0], 1, 50, 1);
	prepare(&s[1], 2, 50, 3);
	s[1].job.remote = true;
	submit(&e, &s[0], 0);
	submit(&e, &s[1], 0);
	assert_int_equal(s[1].job.state, ENGINE_RUNNING);
	engine_fetched(&e, &s[1].job, 7 * MS);
	assert_int_equal(engine_token_at(&e, &s[1].job, 0), 17 * MS);
	assert_ptr_equal(e.prefilling, &s[0].job);
	engine_finish(&e, &s[0].job, 8 * MS, NULL);
	engine_finish(&e, &s[1].job, 8 * MS, NULL);
	engine_release(&e);
}

static void test_seats_and_copies(void **state)
{
	struct engine_config cfg = config(0, 3);
	struct sequence s[3];
	struct engine e;

	(void)state;
	cfg.prefill_tokens_per_s = 0;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	for (size_t i = 0; i < 3; i++)
		prepare(&s[i], i, 8, 4);
	s[1].job.copies = 2;
	s[2].job.copies = 100; /* more than there are seats: takes all of them */
	for (size_t i = 0; i < 3; i++)
		submit(&e, &s[i], 0);
	assert_int_equal(e.running, 2);
	engine_finish(&e, &s[0].job, 0, NULL);
	assert_int_equal(s[2].job.state, ENGINE_WAITING);
	engine_finish(&e, &s[1].job, 0, NULL);
	assert_int_equal(s[2].job.state, ENGINE_RUNNING);
	assert_int_equal(e.seats, 3);
	engine_finish(&e, &s[2].job, 0, NULL);
	engine_release(&e);
}

static void test_blocks_make_the_queue_wait_in_order(void **state)
{
	struct engine_config cfg = config(8, 8);
	struct kvcache_pin kept = {0};
	struct sequence s[4];
	struct engine e;

	(void)state;
	cfg.prefill_tokens_per_s = 0;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s[0], 1, 16, 1);
	prepare(&s[1], 2, 20, 1); /* does not fit beside the first */
	prepare(&s[2], 3, 4, 1);  /* would fit, but is behind */
	prepare(&s[3], 4, 33, 1); /* never fits */
	submit(&e, &s[0], 0);
	submit(&e, &s[1], 0);
	submit(&e, &s[2], 0);
	assert_int_equal(engine_submit(&e, &s[3].job, 0), PD_ETOOBIG);
	assert_int_equal(e.running, 1);
	assert_int_equal(e.waiting, 2);
	/* The blocks of a finished job may be kept: then nobody gets in. */
	engine_prefilled(&e, &s[0].job, 0);
	s[0].job.generated = 1;
	engine_finish(&e, &s[0].job, 0, &kept);
	assert_int_equal(kept.n, 4);
	assert_int_equal(e.running, 0);
	assert_int_equal(e.waiting, 2);
	engine_unpin(&e, &kept, 0);
	assert_int_equal(e.running, 2);
	assert_int_equal(s[1].woken, 1);
	assert_int_equal(s[2].woken, 1);
	engine_finish(&e, &s[1].job, 0, NULL);
	engine_finish(&e, &s[2].job, 0, NULL);
	engine_release(&e);
}

static void test_leaving_the_queue_lets_others_in(void **state)
{
	struct engine_config cfg = config(8, 8);
	struct sequence s[3];
	struct engine e;

	(void)state;
	cfg.prefill_tokens_per_s = 0;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s[0], 1, 16, 1);
	prepare(&s[1], 2, 20, 1);
	prepare(&s[2], 3, 4, 1);
	for (size_t i = 0; i < 3; i++)
		submit(&e, &s[i], 0);
	engine_finish(&e, &s[1].job, 0, NULL);
	assert_int_equal(s[2].job.state, ENGINE_RUNNING);
	engine_finish(&e, &s[0].job, 0, NULL);
	engine_finish(&e, &s[2].job, 0, NULL);
	engine_release(&e);
}

/* Only what was computed may be hit: prompt blocks after the prefill, output blocks as far as the
 * answer got. */
static void test_commits(void **state)
{
	struct engine_config cfg = config(0, 8);
	struct kvcache_stats st;
	struct sequence s;
	struct engine e;

	(void)state;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s, 1, 10, 30);
	submit(&e, &s, 0);
	engine_finish(&e, &s.job, 0, NULL);
	kvcache_stats(e.cache, &st);
	assert_int_equal(st.cached, 0);
	submit(&e, &s, 0);
	engine_prefilled(&e, &s.job, 0);
	kvcache_stats(e.cache, &st);
	assert_int_equal(st.cached, 2);
	s.job.generated = 7; /* the KV of the seventh is not there yet: 16 tokens, 4 blocks */
	engine_finish(&e, &s.job, 0, NULL);
	kvcache_stats(e.cache, &st);
	assert_int_equal(st.cached, 4);
	assert_int_equal(st.pinned, 0);
	engine_release(&e);
}

static void test_speedup(void **state)
{
	struct engine_config cfg = config(0, 8);
	struct sequence s;
	struct engine e;

	(void)state;
	cfg.speedup = 4;
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	prepare(&s, 1, 20, 5);
	submit(&e, &s, 0);
	assert_int_equal(s.job.prefill_end, 5 * MS);
	assert_int_equal(engine_token_at(&e, &s.job, 4), 15 * MS);
	engine_finish(&e, &s.job, 0, NULL);
	engine_release(&e);
	cfg.speedup = 0;
	assert_int_equal(engine_init(&e, &cfg), PD_EINVAL);
}

/* Random arrivals, endings and aborts: limits hold at every moment, order is kept, nothing is left
 * at the end. */
static void churn(uint64_t seed)
{
	struct engine_config cfg = config(24, 4);
	static struct sequence s[40];
	size_t started = 0, limit = sizeof(s) / sizeof(s[0]);
	struct kvcache_stats st;
	struct engine e;
	struct rng r;
	int64_t now = 0;

	rng_seed(&r, seed);
	assert_int_equal(engine_init(&e, &cfg), PD_OK);
	while (started < limit || e.running + e.waiting > 0) {
		size_t i = rng_below(&r, limit);

		now += (int64_t)rng_below(&r, 5) * MS;
		if (started < limit && rng_below(&r, 2) == 0) {
			prepare(&s[started], rng_below(&r, 6), 1 + rng_below(&r, 40),
				1 + rng_below(&r, 20));
			submit(&e, &s[started++], now);
		} else if (i < started && s[i].job.state == ENGINE_RUNNING && !s[i].job.prefilled &&
			   s[i].job.prefill_end <= now) {
			engine_prefilled(&e, &s[i].job, now);
		} else if (i < started && s[i].job.state != ENGINE_DONE && rng_below(&r, 2) == 0) {
			engine_finish(&e, &s[i].job, now, NULL);
		}
		kvcache_stats(e.cache, &st);
		assert_true(e.seats <= 4 && st.pinned <= 24);
		for (size_t k = 1; k < started; k++)
			if (s[k].job.state == ENGINE_RUNNING)
				assert_true(s[k - 1].job.state != ENGINE_WAITING);
	}
	assert_int_equal(e.seats, 0);
	assert_int_equal(st.pinned, 0);
	assert_null(e.prefilling);
	engine_release(&e);
}

static void test_churn(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++)
		churn(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_request),
		cmocka_unit_test(test_prompts_are_computed_one_after_the_other),
		cmocka_unit_test(test_remote_kv_takes_no_prefill_time),
		cmocka_unit_test(test_seats_and_copies),
		cmocka_unit_test(test_blocks_make_the_queue_wait_in_order),
		cmocka_unit_test(test_leaving_the_queue_lets_others_in),
		cmocka_unit_test(test_commits),
		cmocka_unit_test(test_speedup),
		cmocka_unit_test(test_churn),
	};

	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
