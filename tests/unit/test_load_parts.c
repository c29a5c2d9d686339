/* What bench judges and searches with, without a network: the client's pulse, the sweep,
 * assertions, figures and histograms, salts and carried answers, shards. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/load/asserts.h"
#include "lib/load/body.h"
#include "lib/load/figures.h"
#include "lib/load/hists.h"
#include "lib/load/load_pulse.h"
#include "lib/load/loadplan.h"
#include "lib/load/sweep.h"
#include "lib/load/talks.h"
#include "lib/load/timeline.h"

#define MS NS_PER_MS

/* ---- the client's pulse ---- */

static void judged(const struct pulse *p, double ttft, bool ok, const char *bad)
{
	struct pulse_verdict v;
	struct buf text;

	buf_init(&text, 4096);
	pulse_judge(p, ttft, &v);
	assert_int_equal(v.ok, ok);
	assert_int_equal(pulse_bad_seconds(p, &v, &text), PD_OK);
	assert_string_equal(text.data ? text.data : "", bad);
	buf_clear(&text);
	assert_int_equal(pulse_json(p, &v, &text), PD_OK);
	assert_int_equal(json_validate(text.data, text.len, NULL), PD_OK);
	buf_release(&text);
}

/* Lag: means per second, against 0.2 ms or 2 % of the median TTFT, at any length of the run. */
static void late_seconds_are_named(void **state)
{
	const int64_t origin = 1000 * NS_PER_S;
	struct pulse p;

	(void)state;
	pulse_init(&p, origin);
	judged(&p, 1, true, "");
	pulse_sent(&p, origin, origin + MS / 10); /* a run of one request */
	judged(&p, 1, true, "");
	pulse_sent(&p, origin + 5 * MS, origin + 6 * MS);
	judged(&p, 1, false, "0");
	judged(&p, 100, true, ""); /* 2 ms are allowed beside 100 ms */
	judged(&p, NAN, false, "0");
	for (int s = 2; s < 5; s++)
		pulse_sent(&p, origin + s * NS_PER_S, origin + s * NS_PER_S + MS);
	judged(&p, 1, false, "0, 2-4");
	pulse_release(&p);
}

/* An event that was found without sleeping may have waited since the round before began. */
static void handling_counts_from_when_it_could_be_seen(void **state)
{
	int64_t t = 50 * NS_PER_S;
	struct pulse_verdict v;
	struct pulse p;

	(void)state;
	pulse_init(&p, t);
	p.woke = p.woke_before = t;
	/* rounds with sleep before: only the time in the round counts */
	for (int i = 1; i <= 10; i++)
		pulse_event(&p, t + i * MS, t + i * MS + MS / 100);
	pulse_judge(&p, 1, &v);
	assert_true(v.ok && fabs(v.handling_ms - 0.01) < 1e-9);
	/* one round of 3 ms, and the next begins at once: its events are late by half of that and
	 * more */
	pulse_event(&p, t + 20 * MS, t + 23 * MS);
	pulse_event(&p, t + 23 * MS + 1000, t + 23 * MS + 2000);
	pulse_judge(&p, 1, &v);
	assert_true(!v.ok && fabs(v.handling_ms * 12 - (0.1 + 3 + 1.5015)) < 1e-3);
	pulse_release(&p);
}

/* ---- the sweep ---- */

static void the_search_ends_at_the_capacity(void **state)
{
	(void)state;
	for (double capacity = 0.3; capacity < 50000; capacity *= 1.7)
		for (double first = capacity / 300; first < capacity * 50; first *= 7) {
			struct sweep s;
			bool saturated;

			sweep_begin(&s, first);
			do
				saturated = s.rate > capacity;
			while (sweep_next(&s, saturated));
			if (!(s.good <= capacity && s.bad > capacity && s.bad / s.good <= 1.16))
				fail_msg("capacity %g from %g: %g to %g in %u steps", capacity,
					 first, s.good, s.bad, s.steps);
			assert_true(s.steps < SWEEP_STEPS_MAX);
		}
}

static void only_growth_is_saturation(void **state)
{
	struct sweep_watch w;
	uint64_t x = 1;
	bool ever = false;

	(void)state;
	/* full, but steady: with noise of a quarter */
	sweep_watch_begin(&w);
	for (int i = 0; i < 300; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		ever = ever || sweep_watch_add(&w, i * 200 * MS, 300 + (x >> 33) % 150, 100);
	}
	assert_false(ever);
	/* 30 requests a second more than leave */
	sweep_watch_begin(&w);
	for (int i = 0; i < 100 && !ever; i++)
		ever = sweep_watch_add(&w, i * 200 * MS, 10 + (size_t)i * 6, 100);
	assert_true(ever);
	/* a start that fills up is no growth */
	sweep_watch_begin(&w);
	for (int i = 0; i < 100; i++)
		assert_false(sweep_watch_add(&w, i * 200 * MS, i < 5 ? (size_t)i * 60 : 300, 100));
}

/* ---- figures and histograms ---- */

static struct result_request req(int64_t intended, int64_t sent, int64_t first, int64_t last)
{
	return (struct result_request){.intended_ns = intended * MS,
				       .eligible_ns = sent * MS,
				       .sent_ns = sent * MS,
				       .first_byte_ns = first * MS,
				       .first_token_ns = first < 0 ? -1 : first * MS,
				       .last_token_ns = last * MS,
				       .end_ns = last * MS,
				       .input_tokens = 100,
				       .output_tokens = 11,
				       .cached_tokens = -1,
				       .prefill_ns = -1,
				       .decode_ns = -1,
				       .status = 200};
}

static void figures_from_both_times(void **state)
{
	struct result_request r[] = {req(0, 0, 10, 110), req(10, 60, 70, 170), req(20, 20, -1, 90),
				     req(30, 30, 35, 36)};
	struct result_run run = {.req = r, .n = 4, .scheduled = true};
	struct figures f;
	struct buf text;

	(void)state;
	r[0].cached_tokens = 50;
	r[1].cached_tokens = 49;
	r[3].failure = "http_500";
	r[3].cached_tokens = 100;
	r[0].prefill_ns = 7 * MS;
	assert_int_equal(figures_make(&f, &run), PD_OK);
	assert_true(f.ttft.n == 2 && f.ttft.mean == 10 && f.ttft_intended.mean == 35);
	assert_true(f.e2el.n == 3 && fabs(f.e2el.mean - 290 / 3.0) < 1e-9 &&
		    fabs(f.e2el_intended.mean - 340 / 3.0) < 1e-9);
	assert_true(f.late && f.hits == 1 && f.misses == 1 && f.ttft_hit.n == 1);
	assert_true(fabs(f.cached_share - 0.495) < 1e-12 && f.prefill.mean == 7 && f.decode.n == 0);
	buf_init(&text, 1 << 20);
	assert_int_equal(buf_puts(&text, "{"), PD_OK);
	assert_int_equal(figures_json(&f, &text), PD_OK);
	assert_int_equal(buf_puts(&text, ", "), PD_OK);
	assert_int_equal(hists_json(&run, &text), PD_OK);
	assert_int_equal(buf_puts(&text, "}"), PD_OK);
	assert_int_equal(json_validate(text.data, text.len, NULL), PD_OK);
	assert_non_null(
		strstr(text.data, "\"ttft\": {\"count\": 2, \"min\": 10000000, \"max\": 10000000"));
	assert_non_null(strstr(text.data, "\"median_ttft_from_intended_ms\": 35.0"));
	buf_clear(&text);
	/* nothing to say is null, never 0 */
	run.scheduled = false;
	run.n = 0;
	assert_int_equal(figures_make(&f, &run), PD_OK);
	assert_false(f.late);
	assert_int_equal(figures_json(&f, &text), PD_OK);
	assert_non_null(strstr(text.data, "\"mean_ttft_from_intended_ms\": null"));
	assert_non_null(strstr(text.data, "\"mean_ttft_hit_ms\": null"));
	buf_release(&text);
}

/* The report's curve is of the tokens that the document's histogram counts, whatever pieces they
 * came in: three here, two of them after an empty piece. */
static void a_report_counts_tokens_as_the_document_does(void **state)
{
	struct result_gap gap[] = {{10 * MS, 1}, {20 * MS, 0}, {40 * MS, 2}};
	struct result_request r[] = {req(0, 0, 10, 80), req(0, 0, -1, 90)};
	struct result_run run = {.req = r, .n = 2};
	struct buf text;

	(void)state;
	r[0].gap = gap;
	r[0].ngaps = 3;
	buf_init(&text, 1 << 20);
	assert_int_equal(hists_json(&run, &text), PD_OK);
	assert_non_null(strstr(text.data, "\"itl\": {\"count\": 3, \"min\": 10000000, "
					  "\"max\": 30000000"));
	buf_clear(&text);
	assert_int_equal(timeline_distributions(&run, &text), PD_OK);
	assert_non_null(strstr(text.data, "\"itl\": {\"count\": 3, \"cdf\": [[10, 0]"));
	assert_non_null(strstr(text.data, "[30, 100]"));
	assert_non_null(strstr(text.data, "\"e2el\": {\"count\": 2,"));
	buf_release(&text);
}

/* ---- assertions ---- */

static size_t failed(const char *words, struct result_request *r, size_t n)
{
	struct result_run run = {.req = r, .n = n};
	struct asserts a;
	struct figures f;
	struct verify v;
	struct buf text;
	size_t count;

	assert_int_equal(asserts_parse(&a, words, NULL), PD_OK);
	assert_int_equal(verify_run(&v, r, n), PD_OK);
	assert_int_equal(figures_make(&f, &run), PD_OK);
	buf_init(&text, 1 << 16);
	assert_int_equal(asserts_judge(&a, &run, &v, &f, &text, &count), PD_OK);
	buf_release(&text);
	verify_release(&v);
	return count;
}

static void each_assertion_can_fail(void **state)
{
	static const char *const names[] = {"a", "b", "c", "d"}, *const workers[] = {"w0", "w1",
										     "w2"};
	struct result_request r[40];
	struct asserts a;
	struct pd_msg msg = {""};

	(void)state;
	for (size_t i = 0; i < 40; i++) {
		r[i] = req(0, 0, i % 2 ? 5 : 50, 60);
		r[i].session = names[i % 4];
		r[i].worker = workers[i % 4 < 2]; /* by session */
		r[i].cached_tokens = i % 2 ? 90 : 0;
	}
	assert_int_equal(failed("split,split=2,sticky,hits-faster", r, 40), 0);
	assert_int_equal(failed("not-sticky,split=3,split=1", r, 40), 3);
	r[4].worker =
		"w2"; /* one of four sessions left its worker; w2 has far less than its share */
	assert_int_equal(failed("sticky", r, 40), 1);
	assert_int_equal(failed("split=3", r, 40), 1);
	assert_int_equal(failed("not-sticky", r, 40), 1);
	for (size_t i = 0; i < 40; i++)
		r[i].worker = workers[i % 3];
	assert_int_equal(failed("split=3,not-sticky", r, 40), 0);
	assert_int_equal(failed("sticky", r, 40), 1);
	for (size_t i = 0; i < 40; i++) {
		r[i].cached_tokens = i % 2 ? 0 : 90; /* hits are slower */
		r[i].worker = NULL;
	}
	assert_int_equal(failed("hits-faster", r, 40), 1);
	assert_int_equal(failed("split,sticky,not-sticky", r, 40), 3);
	assert_int_equal(asserts_parse(&a, "split=0", &msg), PD_EINVAL);
	assert_int_equal(asserts_parse(&a, "sticky=2", &msg), PD_EINVAL);
	assert_int_equal(asserts_parse(&a, "sticky,,split", &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "--assert"));
}

/* ---- bodies ---- */

static void read_text(struct workload *w, const char *text)
{
	struct pd_msg msg = {""};
	struct buf b;

	buf_init(&b, 1 << 24);
	assert_int_equal(buf_puts(&b, text), PD_OK);
	workload_init(w);
	if (workload_parse_take(w, &b, "t", NULL, &msg))
		fail_msg("%s", msg.text);
}

static void body_has(const char *record, const struct body_turn *t, enum body_endpoint endpoint,
		     const char *part)
{
	struct body_options o = {
		.endpoint = endpoint, .model = "m", .default_output = 1, .scale = 1};
	struct workload w;
	struct buf out;

	read_text(&w, record);
	buf_init(&out, 1 << 20);
	assert_int_equal(body_build(&o, &w.req[0], t, &out), PD_OK);
	assert_int_equal(json_validate(out.data, out.len, NULL), PD_OK);
	if (!strstr(out.data, part))
		fail_msg("found %s, expected %s", out.data, part);
	buf_release(&out);
	workload_release(&w);
}

static void salts_and_answers(void **state)
{
	static const char *const answers[] = {"real \\u0000\\ud83d\\ude00", "second"};
	const struct body_turn salt = {.salt = SPAN("s\"1")},
			       carried = {.answer = answers, .nanswers = 2},
			       both = {.salt = SPAN("S"), .answer = answers, .nanswers = 1};
	const char *talk =
		"{\"conversation_id\":1,\"messages\":[{\"role\":\"system\",\"content\":\"be\"},"
		"{\"role\":\"user\",\"content\":\"q\"},{\"content\":\"x\",\"role\":"
		"\"assistant\"},{\"role\":\"user\",\"content\":\"r\"}]}";

	(void)state;
	body_has("{\"prompt\":\"p \\u00e9\"}", &salt, BODY_CHAT,
		 "\"content\": \"s\\\"1 p \\u00e9\"");
	body_has("{\"prompt\":\"p\"}", &salt, BODY_COMPLETIONS, "\"prompt\": \"s\\\"1 p\"");
	body_has(talk, &salt, BODY_CHAT,
		 "[{\"role\":\"system\",\"content\":\"s\\\"1 be\"}, "
		 "{\"role\":\"user\",\"content\":\"q\"}");
	body_has(talk, &carried, BODY_CHAT,
		 "{\"role\": \"assistant\", \"content\": \"real \\u0000\\ud83d\\ude00\"}, "
		 "{\"role\":\"user\",\"content\":\"r\"}]");
	body_has(talk, &both, BODY_MESSAGES, "\"content\":\"S be\"");
	body_has(talk, &both, BODY_RESPONSES, "\"input\": [");
	body_has("{\"conversation_id\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
		 "\"image_url\"},"
		 "{\"type\":\"text\",\"text\":\"t\"}]}]}",
		 &salt, BODY_CHAT, "{\"type\":\"text\",\"text\":\"s\\\"1 t\"}");
}

static void talks_remember(void **state)
{
	struct talks t = {0};
	struct talk *k;

	(void)state;
	assert_null(talks_find(&t, 5));
	k = talks_get(&t, 100);
	assert_non_null(k);
	assert_int_equal(talk_set_header(k, 3, SPAN("one")), PD_OK);
	assert_int_equal(talk_set_header(k, 3, SPAN("two")), PD_OK);
	for (int i = 0; i < 20; i++)
		assert_int_equal(talk_add_answer(k, i % 2 ? SPAN("text") : (struct span){0}),
				 PD_OK);
	assert_ptr_equal(talks_find(&t, 100), k);
	assert_null(talks_find(&t, 99));
	assert_string_equal(k->header[3], "two");
	assert_true(k->nanswers == 20 && strcmp(k->answer[0], "") == 0 &&
		    strcmp(k->answer[19], "text") == 0);
	k->bytes = TALK_BYTES_MAX - 3;
	assert_int_equal(talk_add_answer(k, SPAN("text")), PD_ETOOBIG);
	talks_release(&t);
}

/* ---- plans ---- */

static void shards_are_the_whole(void **state)
{
	const struct load_plan_options o = {
		.schedule = {.request_rate = 50, .burstiness = 1, .speedup = 1}};
	struct workload w;
	struct load_plan all, part;
	struct pd_msg msg = {""};
	struct buf text;
	size_t n = 0;
	bool seen[60] = {false};

	(void)state;
	buf_init(&text, 1 << 20);
	for (int i = 0; i < 60; i++)
		assert_int_equal(
			i % 3 ? buf_printf(&text,
					   "{\"prompt\":\"p\",\"conversation_id\":%d,\"prompt_"
					   "cache_key\":\"k%d\"}\n",
					   i % 7, i % 7)
			      : buf_puts(&text, "{\"prompt\":\"p\",\"conversation_id\":9}\n"),
			PD_OK);
	read_text(&w, text.data);
	assert_int_equal(load_plan_make(&all, &w, &o, &msg), PD_OK);
	for (int64_t k = 1; k <= 4; k++) {
		assert_int_equal(load_plan_make(&part, &w, &o, &msg), PD_OK);
		assert_int_equal(load_plan_shard(&part, k, 4), PD_OK);
		for (size_t i = 0; i < part.n; i++) {
			size_t of = (size_t)(part.item[i].request - w.req);
			uint32_t before = part.schedule.before[i];

			assert_false(seen[of]);
			seen[of] = true;
			assert_int_equal(part.schedule.at_ns[i], all.schedule.at_ns[of]);
			/* the turn before is in the same shard, and still the same turn */
			if (all.schedule.before[of] == SCHEDULE_NONE)
				assert_int_equal(before, SCHEDULE_NONE);
			else
				assert_ptr_equal(part.item[before].request,
						 &w.req[all.schedule.before[of]]);
		}
		n += part.n;
		load_plan_release(&part);
	}
	assert_int_equal(n, 60);
	load_plan_release(&all);
	workload_release(&w);
	buf_release(&text);
}

static void prefixes_of_built_in_prompts(void **state)
{
	const struct load_builtin b = {.requests = 12,
				       .turns = 20,
				       .input_tokens = 300,
				       .output_tokens = 50,
				       .prefixes = 3,
				       .prefix_tokens = 100,
				       .range = 0.5,
				       .seed = 4};
	struct load_plan_options o = {
		.schedule = {.request_rate = INFINITY, .burstiness = 1, .speedup = 1},
		.pattern = "k<i%2>"};
	struct load_plan p;
	struct workload w;
	struct pd_msg msg = {""};
	struct buf text;
	size_t groups, split;

	(void)state;
	buf_init(&text, 1 << 20);
	assert_int_equal(load_plan_builtin(&text, &b), PD_OK);
	read_text(&w, text.data);
	assert_int_equal(w.n, 12);
	for (size_t i = 0; i < w.n; i++) {
		const struct workload_request *r = &w.req[i];

		assert_int_equal(r->group, i % 3);
		assert_in_range(r->input_tokens, 112 + 100, 112 + 300);
		assert_in_range(r->output_tokens, 25, 75);
		for (size_t k = 0; k < 7; k++)
			assert_true(r->hash_ids[k] == w.req[i % 3].hash_ids[k]);
		assert_true(i < 3 || r->hash_ids[7] != w.req[i % 3].hash_ids[7]);
	}
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_OK);
	assert_true(load_plan_splits_groups(&p, &groups, &split));
	assert_true(groups == 3 && split == 3);
	load_plan_release(&p);
	o.pattern = "k<prefix>";
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_OK);
	assert_false(load_plan_splits_groups(&p, &groups, &split));
	load_plan_release(&p);
	o.affinity = LOAD_AFFINITY_NONE;
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_OK);
	assert_true(p.keyed == 0 && p.nnames == 3);
	load_plan_release(&p);
	workload_release(&w);
	buf_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_seconds_are_named),
		cmocka_unit_test(handling_counts_from_when_it_could_be_seen),
		cmocka_unit_test(the_search_ends_at_the_capacity),
		cmocka_unit_test(only_growth_is_saturation),
		cmocka_unit_test(figures_from_both_times),
		cmocka_unit_test(a_report_counts_tokens_as_the_document_does),
		cmocka_unit_test(each_assertion_can_fail),
		cmocka_unit_test(salts_and_answers),
		cmocka_unit_test(talks_remember),
		cmocka_unit_test(shards_are_the_whole),
		cmocka_unit_test(prefixes_of_built_in_prompts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
