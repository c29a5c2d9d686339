/* The live worker's engine with a test clock: the same rows as the simulator, to the microsecond,
 * and the life of a job. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/oracle/enginerun.h"
#include "sim/worker/config.h"
#include "sim/worker/core.h"

#define CASES "tests/data/vllm_scheduler/"

/* Requests are submitted at their times, each once; every other look at the clock comes late. */
static void replay(const struct enginecase *c, struct buf *rows)
{
	struct core *k = calloc(1, sizeof(*k));
	struct core_job **job = calloc(c->n, sizeof(struct core_job *));
	int64_t end = 0;

	assert_int_equal(core_init(k, &c->engine, NULL), PD_OK);
	enginerun_watch(&k->engine, rows);
	(void)pthread_mutex_lock(&k->lock);
	for (size_t i = 0; i < c->n; i++) {
		const struct enginecase_request *r = &c->req[i];

		job[i] = core_job_new(1);
		assert_non_null(job[i]);
		atomic_store(&k->next, (unsigned long long)r->id);
		job[i]->hash = c->name + r->name;
		job[i]->nhash = r->nnames;
		job[i]->prompt_tokens = r->prompt;
		job[i]->output_tokens = r->output;
		assert_int_equal(core_submit(k, job[i], r->arrival_ns), PD_OK);
	}
	/* A thread that sleeps long. */
	while (stepper_next(&k->engine) != CLOCK_NEVER) {
		end = stepper_next(&k->engine) + 77 * NS_PER_MS;
		core_advance(k, end);
	}
	for (size_t i = 0; i < c->n; i++) {
		assert_int_equal(atomic_load(&job[i]->made), c->req[i].output);
		core_end(k, job[i], end);
	}
	assert_null(k->jobs);
	(void)pthread_mutex_unlock(&k->lock);
	core_release(k);
	free(k);
	free(job);
}

static void test_rows_equal_the_simulator(void **state)
{
	static const char *const names[] = {"evict", "preempt-prefix-async", "small-budget-async"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char config[256], workload[256];
		struct enginerun_out out;
		struct enginecase c;
		struct buf rows;

		(void)snprintf(config, sizeof(config), CASES "%s.config.json", names[i]);
		(void)snprintf(workload, sizeof(workload), CASES "%s.workload.jsonl", names[i]);
		assert_int_equal(enginecase_load(&c, config, workload, NULL), PD_OK);
		enginerun_out_init(&out);
		assert_int_equal(enginerun(&c, &out, NULL), PD_OK);
		buf_init(&rows, ENGINERUN_OUT_MAX);
		replay(&c, &rows);
		assert_int_equal(rows.len, out.steps[0].len);
		assert_memory_equal(rows.data, out.steps[0].data, rows.len);
		buf_release(&rows);
		enginerun_out_release(&out);
		enginecase_release(&c);
	}
}

static struct core *worker(uint32_t blocks)
{
	struct core *k = calloc(1, sizeof(*k));
	struct worker_config cfg;
	struct stepper_config engine;

	worker_config_default(&cfg);
	cfg.num_blocks = blocks;
	engine = worker_engine(&cfg);
	assert_int_equal(core_init(k, &engine, NULL), PD_OK);
	return k;
}

static unsigned woken;

static void wake(void *ctx)
{
	(void)ctx;
	woken++;
}

static struct core_job *submit(struct core *k, uint32_t copies, uint32_t prompt, uint32_t output,
			       enum seq_kv kv, int64_t now)
{
	struct core_job *job = core_job_new(copies);

	job->prompt_tokens = prompt;
	job->output_tokens = output;
	job->kv = kv;
	job->wake = wake;
	assert_int_equal(core_submit(k, job, now), PD_OK);
	return job;
}

/* Woken once for what is waited for, not for each token. */
static void test_wakes_when_it_is_time(void **state)
{
	struct core *k = worker(0);
	struct core_job *job;

	(void)state;
	woken = 0;
	job = submit(k, 3, 100, 50, SEQ_LOCAL, 0);
	job->want = 50;
	core_advance(k, 300 * NS_PER_MS);
	assert_in_range(atomic_load(&job->made), 30, 45);
	assert_int_equal(woken, 0);
	core_advance(k, NS_PER_S);
	assert_int_equal(atomic_load(&job->made), 50);
	assert_int_equal(woken, 1);
	assert_true(job->begun == 0 && job->prefill_end > 7 * NS_PER_MS);
	core_end(k, job, NS_PER_S);
	core_release(k);
	free(k);
}

static void test_leases_hold_blocks_until_they_are_read(void **state)
{
	struct core *k = worker(10);
	const uint32_t *block;
	struct core_job *held, *other;
	size_t n = 0;

	(void)state;
	held = submit(k, 1, 100, 1, SEQ_HOLD, 0);
	core_advance(k, NS_PER_S);
	assert_true(core_lease(k, held, &block, &n));
	assert_int_equal(n, 7);
	other = submit(k, 1, 60, 1, SEQ_LOCAL, NS_PER_S); /* 4 blocks, 3 are free */
	core_advance(k, 2 * NS_PER_S);
	assert_int_equal(atomic_load(&other->made), 0);
	assert_false(core_lease(k, other, &block, &n));
	core_unhold(k, held, 3 * NS_PER_S);
	core_advance(k, 4 * NS_PER_S);
	assert_int_equal(atomic_load(&other->made), 1);
	assert_int_equal(other->begun, 3 * NS_PER_S);
	core_end(k, other, 4 * NS_PER_S);
	assert_null(k->jobs);
	core_release(k);
	free(k);
}

static void test_loads_wait_for_their_blocks(void **state)
{
	struct core *k = worker(10);
	struct core_job *job;

	(void)state;
	woken = 0;
	job = submit(k, 1, 100, 2, SEQ_FETCH, 0);
	assert_true(atomic_load(&job->loading));
	assert_int_equal(woken, 1);
	assert_int_equal(job->fetched_blocks, 7);
	core_advance(k, NS_PER_S);
	assert_int_equal(atomic_load(&job->made), 0);
	core_loaded(k, job, 2 * NS_PER_S);
	core_advance(k, 3 * NS_PER_S);
	assert_int_equal(atomic_load(&job->made), 2);
	assert_int_equal(job->begun, 2 * NS_PER_S);
	core_end(k, job, 3 * NS_PER_S);
	/* A load that is given up leaves nothing. */
	job = submit(k, 1, 100, 2, SEQ_FETCH, 4 * NS_PER_S);
	core_end(k, job, 5 * NS_PER_S);
	assert_int_equal(kvpool_available(k->engine.sched.kv), 10);
	job = core_job_new(1);
	job->prompt_tokens = 161;
	job->output_tokens = 1;
	assert_int_equal(core_submit(k, job, 6 * NS_PER_S), PD_ETOOBIG);
	core_end(k, job, 6 * NS_PER_S);
	core_release(k);
	free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_equal_the_simulator),
		cmocka_unit_test(test_wakes_when_it_is_time),
		cmocka_unit_test(test_leases_hold_blocks_until_they_are_read),
		cmocka_unit_test(test_loads_wait_for_their_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
