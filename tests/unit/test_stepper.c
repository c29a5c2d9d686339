/* Jumps against single steps: random engines, requests, loads, aborts; every time, count and block
 * must be the same to the last bit. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "sim/engine/stepper.h"

#define REQUESTS 60
#define NAMES	 64

struct request {
	struct seq seq;
	uint64_t name[NAMES];
	int64_t at, abort_at, load_ns, load_end, hold_end;
	int64_t first, last;
};

struct world {
	struct stepper e;
	struct request r[REQUESTS];
	uint64_t finishes; /* calls of stepper_finish */
};

static void fetch(void *ctx, struct stepper *e, struct seq *q, int64_t now)
{
	struct request *r = q->owner;

	(void)ctx, (void)e;
	r->load_end = now + r->load_ns;
}

static struct stepper_config engine_of(struct rng *g)
{
	struct stepper_config c = {.sched = SCHED_DEFAULTS,
				   .cost = {.a = 5000 + rng_unit(g) * 20000,
					    .b = rng_unit(g) * 60,
					    .c = rng_below(g, 2) ? rng_unit(g) * 90 : 0,
					    .d = rng_unit(g) * 0.3,
					    .e = rng_unit(g) * 1e-4}};
	static const uint32_t sizes[] = {1, 3, 16, 64, 128, 512, 512};

	c.sched.block_size = sizes[rng_below(g, 7)];
	c.sched.max_num_seqs = 1 + (uint32_t)rng_below(g, 12);
	c.sched.max_num_batched_tokens = 4 + (uint32_t)rng_below(g, 500);
	c.sched.async_scheduling = rng_below(g, 2);
	c.sched.prefix_caching = rng_below(g, 4) > 0;
	c.sched.long_prefill_token_threshold = rng_below(g, 4) ? 0 : 20;
	c.sched.max_model_len = rng_below(g, 4) ? 0 : 900;
	c.sched.num_blocks = rng_below(g, 4) == 0 ? 0 : 2 + 1400 / c.sched.block_size;
	c.sched.role = (enum sched_role)rng_below(g, 4);
	c.poll_begin = rng_below(g, 2);
	return c;
}

static void requests_of(struct rng *g, const struct stepper_config *c, struct request *r)
{
	int64_t at = 0;
	double gap = (double)(1 + rng_below(g, 400)) * 1e6;

	for (size_t i = 0; i < REQUESTS; i++) {
		uint64_t group = rng_below(g, 5);

		memset(&r[i], 0, sizeof(r[i]));
		at += (int64_t)(rng_unit(g) * gap);
		for (uint64_t k = 0; k < NAMES; k++)
			r[i].name[k] = group * 1000 + k;
		r[i].at = at;
		r[i].abort_at =
			rng_below(g, 10) ? CLOCK_NEVER : at + (int64_t)rng_below(g, 1u << 30);
		r[i].load_ns = (int64_t)rng_below(g, 80000000);
		r[i].load_end = r[i].hold_end = CLOCK_NEVER;
		r[i].seq = (struct seq){.id = i,
					.name = r[i].name,
					.nnames = rng_below(g, NAMES),
					.prompt = 1 + (uint32_t)rng_below(g, 300),
					.output = 1 + (uint32_t)rng_below(g, 400),
					.owner = &r[i]};
		if (c->sched.role == SCHED_PRODUCER)
			r[i].seq.kv = SEQ_HOLD, r[i].seq.output = 1 + (uint32_t)rng_below(g, 2);
		if (c->sched.role >= SCHED_BOTH && rng_below(g, 2))
			r[i].seq.kv = SEQ_FETCH;
	}
}

static void note(struct world *w, int64_t now)
{
	const struct sched *s = &w->e.sched;

	for (size_t i = 0; i < s->nout; i++) {
		struct request *r = s->out[i].seq->owner;

		if (s->out[i].marks & SCHED_FIRST)
			r->first = now;
		if (s->out[i].marks & SCHED_DONE)
			r->last = now;
		if ((s->out[i].marks & SCHED_DONE) && r->seq.state == SEQ_HELD)
			r->hold_end = now + r->load_ns;
	}
}

static int64_t *soonest(struct world *w, struct request **who)
{
	int64_t *at = NULL;

	for (size_t i = 0; i < REQUESTS; i++) {
		int64_t *all[] = {&w->r[i].load_end, &w->r[i].hold_end, &w->r[i].at,
				  &w->r[i].abort_at};

		for (size_t k = 0; k < 4; k++)
			if (*all[k] != CLOCK_NEVER && (!at || *all[k] < *at)) {
				at = all[k];
				*who = &w->r[i];
			}
	}
	return at;
}

static void play(struct world *w)
{
	int64_t now = 0;

	for (;;) {
		struct request *r = NULL;
		int64_t *at = soonest(w, &r), next = stepper_next(&w->e);

		if (!at && next == CLOCK_NEVER)
			break;
		if (!at || next < *at) {
			now = next;
			assert_int_equal(stepper_finish(&w->e), PD_OK);
			w->finishes++;
			note(w, now);
		} else {
			now = *at;
			if (at == &r->load_end || at == &r->hold_end) {
				/* The step that ends at this instant sees it. */
				if (r->seq.state == SEQ_LOADING || r->seq.state == SEQ_HELD)
					assert_int_equal(stepper_told(&w->e, &r->seq, now), PD_OK);
			} else if (at == &r->abort_at) {
				if (r->seq.state != SEQ_NEW && r->seq.state != SEQ_DONE &&
				    r->seq.state != SEQ_HELD)
					stepper_abort(&w->e, &r->seq, now);
			} else if (sched_fits(&w->e.sched, r->seq.prompt, r->seq.output)) {
				stepper_add(&w->e, &r->seq, now);
			}
			*at = CLOCK_NEVER;
		}
		if (stepper_wants(&w->e))
			assert_int_equal(stepper_schedule(&w->e, now), PD_OK);
	}
}

static void compare(const struct world *a, const struct world *b)
{
	struct kvpool_stats x, y;

	for (size_t i = 0; i < REQUESTS; i++) {
		const struct request *p = &a->r[i], *q = &b->r[i];

		assert_int_equal(p->first, q->first);
		assert_int_equal(p->last, q->last);
		assert_int_equal(p->seq.made, q->seq.made);
		assert_int_equal(p->seq.cached, q->seq.cached);
		assert_int_equal(p->seq.preemptions, q->seq.preemptions);
		assert_int_equal(p->seq.state, q->seq.state);
		assert_true(p->seq.state == SEQ_DONE || p->seq.state == SEQ_NEW);
	}
	kvpool_stats(a->e.sched.kv, &x);
	kvpool_stats(b->e.sched.kv, &y);
	assert_int_equal(x.evictions, y.evictions);
	assert_int_equal(x.named, y.named);
	assert_int_equal(x.held, 0);
	assert_int_equal(y.held, 0);
	assert_int_equal(a->e.steps, b->e.steps);
	assert_int_equal(a->e.busy, b->e.busy);
	assert_int_equal(a->e.free_at, b->e.free_at);
	assert_int_equal(a->e.fraction, b->e.fraction);
}

static void test_jumps_equal_single_steps(void **state)
{
	struct world *w = calloc(2, sizeof(*w));
	uint64_t jumped = 0, single = 0, preempted = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 400; seed++) {
		struct stepper_config c;
		struct rng g;

		for (int k = 0; k < 2; k++) {
			rng_seed(&g, seed);
			c = engine_of(&g);
			c.jump = k == 1;
			requests_of(&g, &c, w[k].r);
			assert_int_equal(stepper_init(&w[k].e, &c, NULL), PD_OK);
			w[k].e.fetch = fetch;
			w[k].finishes = 0;
			play(&w[k]);
		}
		compare(&w[0], &w[1]);
		single += w[0].finishes;
		jumped += w[1].finishes;
		preempted += w[0].e.sched.preemptions;
		stepper_release(&w[0].e);
		stepper_release(&w[1].e);
	}
	/* The worlds are such that much is jumped over and much is preempted. */
	assert_true(jumped < single / 2);
	assert_true(preempted > 1000);
	free(w);
}

/* A lone request: its last token is at the sum of the series, whatever the number of steps. */
static void test_a_long_answer_is_one_sum(void **state)
{
	struct stepper_config c = {
		.sched = SCHED_DEFAULTS, .cost = {.a = 7000, .b = 22, .d = 0.056}, .jump = true};
	struct seq q = {.prompt = 1000, .output = 100001};
	double want = 7000 + 22 * 1000.0;
	struct stepper e;
	int64_t last = 0;
	size_t calls = 0;

	(void)state;
	c.sched.block_size = 1u << 20;
	assert_int_equal(stepper_init(&e, &c, NULL), PD_OK);
	stepper_add(&e, &q, 0);
	assert_int_equal(stepper_schedule(&e, 0), PD_OK);
	for (; stepper_next(&e) != CLOCK_NEVER; calls++) {
		last = stepper_next(&e);
		assert_int_equal(stepper_finish(&e), PD_OK);
		assert_int_equal(stepper_schedule(&e, last), PD_OK);
	}
	want += 1e5 * 7000 + 0.056 * (1e5 * 1001 + 1e5 * (1e5 - 1) / 2);
	assert_int_equal(q.made, 100001);
	assert_true(calls < 12);
	assert_true(last > (int64_t)(want * 1e3) - 1000 && last < (int64_t)(want * 1e3) + 1000);
	stepper_release(&e);
}

/* Ranks in lockstep: a step of all lasts as long as the slowest, and a rank that gets work in the
 * middle of it waits for its end although it had nothing to do. */
static void test_ranks_in_lockstep(void **state)
{
	struct stepper_config c = {.sched = SCHED_DEFAULTS, .cost = {.a = 1000, .b = 10}};
	struct seq q[2] = {{.id = 0, .prompt = 1000, .output = 3},
			   {.id = 1, .prompt = 100, .output = 3}};
	struct stepper e[2], *group[2] = {&e[0], &e[1]};
	int64_t now = 0, first[2] = {0}, last[2] = {0};

	(void)state;
	c.sched.async_scheduling = false;
	for (int k = 0; k < 2; k++)
		assert_int_equal(stepper_init(&e[k], &c, NULL), PD_OK);
	stepper_add(&e[0], &q[0], 0);
	assert_int_equal(stepper_schedule_group(group, 2, 0), PD_OK);
	assert_int_equal(e[1].under_way, 1); /* an empty step */
	stepper_add(&e[1], &q[1], 5 * NS_PER_MS);
	while (stepper_next(&e[0]) != CLOCK_NEVER) {
		now = stepper_next(&e[0]);
		assert_int_equal(stepper_next(&e[1]), now);
		for (int k = 0; k < 2; k++) {
			assert_int_equal(stepper_finish(&e[k]), PD_OK);
			for (size_t i = 0; i < e[k].sched.nout; i++) {
				first[k] = e[k].sched.out[i].marks & SCHED_FIRST ? now : first[k];
				last[k] = e[k].sched.out[i].marks & SCHED_DONE ? now : last[k];
			}
		}
		assert_int_equal(stepper_schedule_group(group, 2, now), PD_OK);
	}
	/* 11 ms: 1000 tokens; then 2 ms: 100 tokens of rank 1, which rank 0's token waits for. */
	assert_int_equal(first[0], 11 * NS_PER_MS);
	assert_int_equal(first[1], 13 * NS_PER_MS);
	assert_int_equal(last[0], 14 * NS_PER_MS);
	assert_int_equal(last[1], 15 * NS_PER_MS);
	stepper_release(&e[0]);
	stepper_release(&e[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jumps_equal_single_steps),
		cmocka_unit_test(test_a_long_answer_is_one_sum),
		cmocka_unit_test(test_ranks_in_lockstep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
