/* The event queue and the engine of the simulator against a naive engine that takes every step. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rng.h"
#include "sim/replay/events.h"
#include "sim/engine/vengine.h"

static void near(double a, double b, double eps)
{
	if (!(fabs(a - b) <= eps))
		fail_msg("found %.9g, expected %.9g +- %g", a, b, eps);
}

static void test_events_are_ordered_and_stable(void **state)
{
	struct events q;
	struct event e, last = {.at = -1};
	struct rng rng;

	(void)state;
	events_init(&q, 1000);
	rng_seed(&rng, 7);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(events_push(&q, &(struct event){.at = (int64_t)rng_below(&rng, 50),
								 .subject = i}),
				 PD_OK);
	assert_int_equal(events_push(&q, &(struct event){.at = 1}), PD_ETOOBIG);
	for (unsigned i = 0; i < 1000; i++) {
		assert_ptr_equal(events_peek(&q), &q.heap[0]);
		assert_true(events_pop(&q, &e));
		assert_true(e.at > last.at || (e.at == last.at && e.subject > last.subject));
		last = e;
	}
	assert_false(events_pop(&q, &e));
	assert_null(events_peek(&q));
	events_release(&q);
}

/* Takes every step on its own, which the engine's jumps must equal. */
struct naive {
	struct vengine_params p;
	struct {
		uint32_t prefill, out;
		uint64_t ctx;
		bool in, done;
		double first_ms, end_ms;
	} seq[64];
	size_t n;
	bool preempted;
};

/* The order of the running requests; waiting ones are those that arrived and are neither in nor
 * done, by number. */
struct order {
	size_t i[64], n;
};

static uint64_t naive_room(const struct naive *m, const struct order *o)
{
	uint64_t room = 0;

	for (size_t k = 0; k < o->n; k++)
		room += m->seq[o->i[k]].ctx + (m->seq[o->i[k]].prefill == 0);
	return room;
}

static bool naive_preempt(struct naive *m, struct order *o)
{
	bool any = false;

	while (m->p.kv_tokens && naive_room(m, o) > m->p.kv_tokens && o->n > 1) {
		size_t last = o->i[--o->n];

		m->seq[last].in = false;
		m->seq[last].prefill = (uint32_t)m->seq[last].ctx;
		any = true;
	}
	return any;
}

static uint32_t naive_take(struct naive *m, size_t i, uint32_t *budget)
{
	uint32_t want = m->seq[i].prefill ? m->seq[i].prefill : 1;
	uint32_t chunk = want < *budget ? want : *budget;

	*budget -= chunk;
	return chunk;
}

static void naive_admit(struct naive *m, struct order *o, const double *arrive_ms, double now,
			uint32_t *budget, uint32_t *chunk)
{
	uint64_t room = naive_room(m, o);

	for (size_t i = 0; i < m->n && arrive_ms[i] <= now; i++) {
		if (m->seq[i].done || m->seq[i].in)
			continue;
		if (o->n == m->p.max_num_seqs || *budget == 0)
			return;
		if (m->p.kv_tokens && o->n > 0 && room + m->seq[i].ctx > m->p.kv_tokens)
			return;
		room += m->seq[i].ctx;
		o->i[o->n++] = i;
		m->seq[i].in = true;
		chunk[i] = naive_take(m, i, budget);
	}
}

static double naive_cost(const struct naive *m, const struct order *o, const uint32_t *chunk)
{
	double us = 0;

	for (size_t k = 0; k < o->n; k++) {
		size_t i = o->i[k];

		if (m->seq[i].prefill)
			us += m->p.prefill_us * chunk[i];
		else if (chunk[i])
			us += m->p.request_us + m->p.context_us * (double)m->seq[i].ctx;
	}
	return m->p.step_ms + us / 1e3;
}

/* One token or one chunk for everybody who got some; returns how many requests ended. */
static size_t naive_apply(struct naive *m, struct order *o, const uint32_t *chunk, double now)
{
	size_t kept = 0, ended = 0;

	for (size_t k = 0; k < o->n; k++) {
		size_t i = o->i[k];
		bool token = chunk[i] > 0;

		if (m->seq[i].prefill) {
			m->seq[i].prefill -= chunk[i];
			token = m->seq[i].prefill == 0;
		}
		if (token && m->seq[i].first_ms == 0)
			m->seq[i].first_ms = now;
		m->seq[i].ctx += token;
		m->seq[i].out -= token;
		m->seq[i].done = m->seq[i].out == 0;
		if (m->seq[i].done) {
			m->seq[i].end_ms = now;
			ended++;
		} else {
			o->i[kept++] = i;
		}
	}
	o->n = kept;
	return ended;
}

static void naive_run(struct naive *m, const double *arrive_ms)
{
	struct order o = {.n = 0};
	size_t left = m->n;
	double now = 0;

	while (left > 0) {
		uint32_t budget = m->p.max_batched_tokens, chunk[64] = {0};
		bool preempted = naive_preempt(m, &o);
		double soonest = 1e300;

		for (size_t k = 0; k < o.n; k++)
			chunk[o.i[k]] = naive_take(m, o.i[k], &budget);
		if (!preempted)
			naive_admit(m, &o, arrive_ms, now, &budget, chunk);
		m->preempted |= preempted;
		for (size_t i = 0; i < m->n; i++)
			if (arrive_ms[i] > now && arrive_ms[i] < soonest)
				soonest = arrive_ms[i];
		if (o.n == 0) {
			now = soonest;
			continue;
		}
		now += naive_cost(m, &o, chunk);
		left -= naive_apply(m, &o, chunk, now);
	}
}

/* Drives the engine as the replay does; fills first and end in ms. */
static void engine_run(const struct vengine_params *p, size_t n, const double *arrive_ms,
		       const uint32_t *prefill, const uint32_t *out, double *first, double *end)
{
	struct vengine e;
	size_t next = 0, done = 0, nout;

	vengine_init(&e, p);
	while (done < n) {
		int64_t at = next < n ? llround(arrive_ms[next] * 1e6) : INT64_MAX;

		if (e.stepping && e.end <= at) {
			int64_t now = e.end;

			assert_int_equal(vengine_step_end(&e, &nout), PD_OK);
			for (size_t i = 0; i < nout; i++) {
				if (e.out[i].marks & VENGINE_FIRST)
					first[e.out[i].req] = (double)now / 1e6;
				if (e.out[i].marks & VENGINE_DONE)
					end[e.out[i].req] = (double)now / 1e6;
				done += (e.out[i].marks & VENGINE_DONE) != 0;
			}
			continue;
		}
		assert_int_equal(vengine_submit(&e, at, (uint32_t)next, prefill[next],
						prefill[next], out[next]),
				 PD_OK);
		next++;
	}
	vengine_release(&e);
}

static void test_engine_jumps_equal_single_steps(void **state)
{
	struct rng rng;
	bool preempted = false;

	(void)state;
	rng_seed(&rng, 11);
	for (int round = 0; round < 120; round++) {
		struct naive m = {.p = {.step_ms = 5,
					.prefill_us = 20,
					.request_us = 100,
					.context_us = 0.5,
					.max_num_seqs = 1 + (uint32_t)rng_below(&rng, 8),
					.max_batched_tokens = 16 + (uint32_t)rng_below(&rng, 600)}};
		double at[64], first[64] = {0}, end[64] = {0}, t = 0;
		uint32_t prefill[64], out[64];

		m.n = 40;
		if (round % 2)
			m.p.kv_tokens = 700 + rng_below(&rng, 1500);
		for (size_t i = 0; i < m.n; i++) {
			t += rng_exp(&rng, 40);
			at[i] = floor(t * 1000) / 1000;
			m.seq[i].prefill = prefill[i] = 1 + (uint32_t)rng_below(&rng, 900);
			m.seq[i].ctx = prefill[i];
			m.seq[i].out = out[i] = 1 + (uint32_t)rng_below(&rng, 60);
		}
		naive_run(&m, at);
		preempted |= m.preempted;
		engine_run(&m.p, m.n, at, prefill, out, first, end);
		for (size_t i = 0; i < m.n; i++) {
			/* each step of the engine is rounded to a nanosecond */
			near(first[i], m.seq[i].first_ms, 0.01);
			near(end[i], m.seq[i].end_ms, 0.01);
		}
	}
	assert_true(preempted);
}

static void test_engine_abort_lists_everything(void **state)
{
	struct vengine_params p = VENGINE_DEFAULTS;
	struct vengine e;
	size_t n;

	(void)state;
	p.max_num_seqs = 2;
	vengine_init(&e, &p);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(vengine_submit(&e, 0, i, 100, 100, 10), PD_OK);
	assert_int_equal(vengine_abort(&e, &n), PD_OK);
	assert_int_equal(n, 5);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(e.out[i].req, i);
	assert_false(e.stepping);
	vengine_release(&e);
}

static void test_engine_refuses_senseless_costs(void **state)
{
	struct vengine_params p = VENGINE_DEFAULTS;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(vengine_params_check(&p, &msg), PD_OK);
	p.prefill_us = -1;
	assert_int_equal(vengine_params_check(&p, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "prefill_us"));
	p = VENGINE_DEFAULTS;
	p.context_us = (double)NAN;
	assert_int_equal(vengine_params_check(&p, &msg), PD_EINVAL);
	p = VENGINE_DEFAULTS;
	p.step_ms = 0;
	assert_int_equal(vengine_params_check(&p, &msg), PD_EINVAL);
	p = VENGINE_DEFAULTS;
	p.max_num_seqs = 0;
	assert_int_equal(vengine_params_check(&p, &msg), PD_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_are_ordered_and_stable),
		cmocka_unit_test(test_engine_jumps_equal_single_steps),
		cmocka_unit_test(test_engine_abort_lists_everything),
		cmocka_unit_test(test_engine_refuses_senseless_costs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
