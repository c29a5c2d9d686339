/* The order of sending against a model that searches all requests each time, arrival processes, and
 * what becomes of a workload's time stamps, think times and turns. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/workload/schedule_plan.h"

#define MOST 40

/* ---- the order ---- */

struct world {
	size_t n;
	int64_t at[MOST], think[MOST], end[MOST];
	uint32_t before[MOST], session[MOST];
	bool taken[MOST], ended[MOST];
	uint32_t nsessions;
};

static void make_world(struct world *w, struct rng *rng, bool branches)
{
	uint32_t last[MOST];

	memset(w, 0, sizeof(*w));
	w->n = 1 + rng_below(rng, MOST);
	w->nsessions = 1 + (uint32_t)rng_below(rng, 6);
	for (size_t i = 0; i < MOST; i++)
		last[i] = SCHEDULE_NONE;
	for (uint32_t i = 0; i < w->n; i++) {
		uint32_t s = (uint32_t)rng_below(rng, w->nsessions + 1);

		w->at[i] = (int64_t)rng_below(rng, 4) * 5;
		w->think[i] = (int64_t)rng_below(rng, 4) - 1;
		w->session[i] = s == w->nsessions ? SCHEDULE_NONE : s;
		w->before[i] = s == w->nsessions ? SCHEDULE_NONE : last[s];
		/* a branch keeps its parent as the one to follow */
		if (s < w->nsessions &&
		    !(branches && last[s] != SCHEDULE_NONE && rng_below(rng, 2)))
			last[s] = i;
	}
}

static size_t open_sessions(const struct world *w, bool open[MOST])
{
	size_t n = 0;

	for (uint32_t s = 0; s < w->nsessions; s++) {
		bool begun = false, left = false;

		for (size_t i = 0; i < w->n; i++) {
			begun |= w->session[i] == s && w->taken[i];
			left |= w->session[i] == s && !w->ended[i];
		}
		open[s] = begun && left;
		n += open[s];
	}
	return n;
}

/* The request that must go next by the rules of the header, or -1. */
static int model_next(const struct world *w, const struct schedule_limits *l, size_t in_flight,
		      int64_t *at)
{
	bool open[MOST];
	size_t nopen = open_sessions(w, open);
	int best = -1;

	if (l->in_flight_max > 0 && in_flight >= l->in_flight_max)
		return -1;
	for (size_t i = 0; i < w->n; i++) {
		int64_t release = w->at[i];
		uint32_t b = w->before[i], s = w->session[i];

		if (w->taken[i] || (b != SCHEDULE_NONE && !w->ended[b]))
			continue;
		if (l->sessions_max > 0 && s != SCHEDULE_NONE && !open[s] &&
		    nopen >= l->sessions_max)
			continue;
		if (b != SCHEDULE_NONE) {
			int64_t think = w->think[i] > 0 ? w->think[i] : 0;

			release = w->end[b] + think > release ? w->end[b] + think : release;
		}
		if (best >= 0 && release >= *at)
			continue;
		best = (int)i;
		*at = release;
	}
	return best;
}

static void follow_the_model(uint64_t seed, bool branches)
{
	struct world w;
	struct rng rng;
	struct schedule *s;
	struct schedule_limits limits = {0};
	struct schedule_input in;
	struct pd_msg msg = {""};
	uint32_t flying[MOST];
	size_t n = 0;
	int64_t now = 0;

	rng_seed(&rng, seed);
	make_world(&w, &rng, branches);
	limits.in_flight_max = rng_below(&rng, 4);
	limits.sessions_max = rng_below(&rng, 4);
	in = (struct schedule_input){.n = w.n,
				     .at_ns = w.at,
				     .think_ns = w.think,
				     .before = w.before,
				     .session = w.session,
				     .nsessions = w.nsessions};
	assert_int_equal(schedule_new(&s, &in, &limits, &msg), PD_OK);
	while (!schedule_finished(s)) {
		int64_t due = schedule_due(s), expected = SCHEDULE_NEVER;
		int next = model_next(&w, &limits, n, &expected);

		assert_int_equal(due, expected);
		assert_int_equal(schedule_in_flight(s), n);
		if (next >= 0 && due <= now && rng_below(&rng, 3)) {
			struct schedule_entry e = schedule_take(s);

			assert_int_equal(e.item, next);
			assert_int_equal(e.released_ns, expected);
			assert_int_equal(e.intended_ns, expected);
			assert_true(e.eligible_ns >= expected && e.eligible_ns <= now);
			w.taken[next] = true;
			flying[n++] = e.item;
		} else if (n > 0 && rng_below(&rng, 2)) {
			size_t k = rng_below(&rng, n);
			uint32_t done = flying[k];

			flying[k] = flying[--n];
			w.ended[done] = true;
			w.end[done] = now;
			assert_int_equal(schedule_ended(s, done, now), PD_OK);
		} else {
			assert_true(n > 0 || next >= 0);
			now++;
		}
	}
	assert_int_equal(schedule_left(s), 0);
	assert_int_equal(schedule_due(s), SCHEDULE_NEVER);
	schedule_free(s);
}

static void as_the_model(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 2000; seed++)
		follow_the_model(seed, seed % 2);
}

static struct schedule *make(const struct schedule_input *in, uint64_t in_flight, uint64_t sessions)
{
	struct schedule *s;
	struct schedule_limits limits = {.in_flight_max = in_flight, .sessions_max = sessions};

	assert_int_equal(schedule_new(&s, in, &limits, NULL), PD_OK);
	return s;
}

static void think_time_and_own_time_both_hold(void **state)
{
	const int64_t at[] = {0, 0, 1000, 3}, think[] = {7, 7, 50, 50};
	const uint32_t before[] = {SCHEDULE_NONE, SCHEDULE_NONE, 0, 1};
	const struct schedule_input in = {.n = 4, .at_ns = at, .think_ns = think, .before = before};
	struct schedule *s = make(&in, 0, 0);

	(void)state;
	assert_int_equal(schedule_take(s).item, 0);
	assert_int_equal(schedule_take(s).item, 1);
	assert_int_equal(schedule_due(s), SCHEDULE_NEVER);
	assert_int_equal(schedule_ended(s, 1, 10), PD_OK);
	assert_int_equal(schedule_due(s), 60);
	assert_int_equal(schedule_ended(s, 0, 10), PD_OK);
	assert_int_equal(schedule_take(s).item, 3);
	assert_int_equal(schedule_due(s), 1000);
	schedule_free(s);
}

/* Waiting for a limit is no lateness of the client, and a stamped turn keeps its own time. */
static void what_lateness_is_measured_against(void **state)
{
	const int64_t at[] = {0, 5, 20};
	const uint32_t session[] = {0, 1, 1}, before[] = {SCHEDULE_NONE, SCHEDULE_NONE, 1};
	struct schedule_input in = {.n = 3,
				    .at_ns = at,
				    .before = before,
				    .session = session,
				    .nsessions = 2,
				    .stamped = true};
	struct schedule *s = make(&in, 0, 1);
	struct schedule_entry e;

	(void)state;
	assert_int_equal(schedule_take(s).item, 0);
	assert_int_equal(schedule_due(s), SCHEDULE_NEVER);
	assert_int_equal(schedule_ended(s, 0, 900), PD_OK);
	assert_int_equal(schedule_due(s), 5);
	e = schedule_take(s);
	assert_int_equal(e.intended_ns, 5);
	assert_int_equal(e.eligible_ns, 900);
	assert_int_equal(schedule_ended(s, 1, 1000), PD_OK);
	e = schedule_take(s);
	assert_int_equal(e.item, 2);
	assert_int_equal(e.intended_ns, 20);
	assert_int_equal(e.released_ns, 1000);
	schedule_free(s);
	in.session = NULL;
	in.before = NULL;
	s = make(&in, 1, 0);
	(void)schedule_take(s);
	assert_int_equal(schedule_due(s), SCHEDULE_NEVER);
	assert_int_equal(schedule_ended(s, 0, 100), PD_OK);
	e = schedule_take(s);
	assert_int_equal(e.intended_ns, 5);
	assert_int_equal(e.eligible_ns, 100);
	schedule_free(s);
}

static void wrong_input(void **state)
{
	uint32_t before[] = {1, 0, SCHEDULE_NONE}, session[] = {0, 9, SCHEDULE_NONE};
	struct schedule_input in = {.n = 3, .before = before};
	struct schedule_limits none = {0};
	struct pd_msg msg = {""};
	struct schedule *s;

	(void)state;
	assert_int_equal(schedule_new(&s, &in, &none, &msg), PD_EINVAL);
	assert_string_equal(msg.text, "2 requests follow each other in a circle");
	assert_null(s);
	before[0] = 3;
	assert_int_equal(schedule_new(&s, &in, &none, &msg), PD_EINVAL);
	before[0] = SCHEDULE_NONE;
	in.session = session;
	in.nsessions = 1;
	assert_int_equal(schedule_new(&s, &in, &none, &msg), PD_EINVAL);
	assert_string_equal(msg.text, "request 1 is of session 9: expected a number below 1");
	in.n = 0;
	assert_int_equal(schedule_new(&s, &in, &none, &msg), PD_OK);
	assert_true(schedule_finished(s));
	schedule_free(s);
}

/* ---- arrivals ---- */

static void phases(void **state)
{
	const struct arrivals_phase flat = {10, 50, 50}, zero[] = {{2, 0, 0}, {1, 10, 10}},
				    ramp = {10, 0, 100}, wrong[] = {{1, 5, 0}};
	int64_t a[1000], b[1000];

	(void)state;
	assert_int_equal(arrivals_fill(a, 1000, 50, 0.7, 3), PD_OK);
	assert_int_equal(arrivals_phases_fill(b, 1000, &flat, 1, 0.7, 3), PD_OK);
	for (size_t i = 0; i < 1000; i++)
		assert_true(llabs(a[i] - b[i]) < 10);
	/* without chance: work k comes at the moment where the integral is k */
	assert_int_equal(arrivals_phases_fill(b, 501, &ramp, 1, INFINITY, 0), PD_OK);
	for (size_t i = 0; i < 501; i++)
		assert_true(fabs((double)b[i] / 1e9 - sqrt((double)i / 5)) < 1e-6);
	assert_int_equal(arrivals_phases_fill(b, 30, zero, 2, INFINITY, 0), PD_OK);
	for (size_t i = 0; i < 30; i++)
		assert_int_equal(b[i], 2000000000 + (int64_t)i * 100000000);
	assert_int_equal(arrivals_phases_fill(b, 30, wrong, 1, 1, 0), PD_EINVAL);
	assert_int_equal(arrivals_phases_fill(b, 30, &ramp, 0, 1, 0), PD_EINVAL);
}

/* ---- workloads ---- */

static void read_text(struct workload *w, const char *text)
{
	struct buf b;
	struct pd_msg msg = {""};

	buf_init(&b, 1 << 24);
	assert_int_equal(buf_puts(&b, text), PD_OK);
	workload_init(w);
	if (workload_parse_take(w, &b, "w", NULL, &msg) != PD_OK)
		fail_msg("%s", msg.text);
}

static const char turns[] =
	"{\"timestamp\":0,\"input_length\":5,\"session_id\":\"a\"}\n"
	"{\"timestamp\":0,\"input_length\":5,\"session_id\":\"b\"}\n"
	"{\"timestamp\":3000,\"input_length\":5,\"session_id\":\"a\",\"delay\":500}\n"
	"{\"timestamp\":3000,\"input_length\":5}\n"
	"{\"timestamp\":6000,\"input_length\":5,\"session_id\":\"b\"}\n";

static void a_workload_as_stamped(void **state)
{
	struct schedule_options o = {.timestamps = true, .speedup = 2};
	struct schedule_plan p;
	struct workload w;

	(void)state;
	read_text(&w, turns);
	assert_int_equal(schedule_plan_make(&p, &w, &o, NULL), PD_OK);
	assert_int_equal(p.n, 5);
	assert_true(p.stamped);
	assert_int_equal(p.at_ns[2], 1500000000);
	assert_int_equal(p.think_ns[2], 250000000);
	assert_int_equal(p.think_ns[4], 0);
	assert_int_equal(p.before[2], 0);
	assert_int_equal(p.before[4], 1);
	assert_int_equal(p.before[3], SCHEDULE_NONE);
	assert_int_equal(p.session[3], SCHEDULE_NONE);
	assert_int_equal(p.nsessions, 2);
	schedule_plan_release(&p);
	o.spread = true;
	o.speedup = 1;
	assert_int_equal(schedule_plan_make(&p, &w, &o, NULL), PD_OK);
	assert_true(p.at_ns[0] <= p.at_ns[1] && p.at_ns[1] < 3000000000 && p.at_ns[1] > 0);
	assert_true(p.at_ns[2] >= 3000000000 && p.at_ns[2] <= p.at_ns[3]);
	assert_int_equal(p.at_ns[4], 6000000000);
	schedule_plan_release(&p);
	workload_release(&w);
}

static void users_with_their_own_rate(void **state)
{
	struct schedule_options o = {.speedup = 1, .session_rate = 2};
	struct schedule_plan p, q;
	struct workload w;

	(void)state;
	read_text(&w, turns);
	assert_int_equal(schedule_plan_make(&p, &w, &o, NULL), PD_OK);
	assert_true(p.at_ns[0] < 500000000 && p.at_ns[1] < 500000000 && p.at_ns[3] < 500000000);
	assert_true(p.at_ns[2] > p.at_ns[0] && p.at_ns[4] > p.at_ns[1]);
	/* the users do not change each other */
	o.requests = 3;
	assert_int_equal(schedule_plan_make(&q, &w, &o, NULL), PD_OK);
	assert_memory_equal(p.at_ns, q.at_ns, 3 * sizeof(*p.at_ns));
	schedule_plan_release(&p);
	schedule_plan_release(&q);
	workload_release(&w);
}

static void what_a_plan_refuses(void **state)
{
	struct schedule_options o = {.timestamps = true, .speedup = 1};
	struct schedule_plan p;
	struct pd_msg msg = {""};
	struct workload w;

	(void)state;
	read_text(&w, "{\"prompt\":\"a\"}\n");
	assert_int_equal(schedule_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_string_equal(msg.text,
			    "--timestamps: record 1 of the file (line 1) has no time stamp");
	o = (struct schedule_options){.speedup = 1, .requests = 2};
	assert_int_equal(schedule_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_string_equal(msg.text,
			    "--num-prompts: found 2, expected at most 1, the records of the file");
	o = (struct schedule_options){.speedup = 1, .request_rate = -1, .burstiness = 1};
	assert_int_equal(schedule_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_string_equal(msg.text,
			    "--request-rate: cannot schedule 1 requests at -1 per second");
	workload_release(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_the_model),
		cmocka_unit_test(think_time_and_own_time_both_hold),
		cmocka_unit_test(what_lateness_is_measured_against),
		cmocka_unit_test(wrong_input),
		cmocka_unit_test(phases),
		cmocka_unit_test(a_workload_as_stamped),
		cmocka_unit_test(users_with_their_own_rate),
		cmocka_unit_test(what_a_plan_refuses),
	};

	return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
