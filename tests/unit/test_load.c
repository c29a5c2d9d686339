/* The pure parts of the load engine: order of sessions and turns, plans, bodies; and the verdict
 * over sessions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/load/loadplan.h"
#include "lib/results/verify_report.h"

/* ---- plans ---- */

static void read_text(struct workload *w, const char *text)
{
	struct buf b;
	struct pd_msg msg = {""};

	buf_init(&b, 1 << 24);
	assert_int_equal(buf_puts(&b, text), PD_OK);
	workload_init(w);
	if (workload_parse_take(w, &b, "t", NULL, &msg))
		fail_msg("%s", msg.text);
}

static const char talk[] =
	"{\"prompt\":\"x\",\"conversation_id\":1,\"prompt_cache_key\":\"k1\",\"delay\":20,"
	"\"timestamp\":0}\n"
	"{\"prompt\":\"x\",\"conversation_id\":2,\"prompt_cache_key\":\"k2\",\"timestamp\":100}\n"
	"{\"prompt\":\"x\",\"conversation_id\":1,\"prompt_cache_key\":\"k1\",\"delay\":20,"
	"\"timestamp\":200}\n"
	"{\"prompt\":\"x\",\"prompt_cache_key\":\"k1\",\"timestamp\":300}\n"
	"{\"prompt\":\"x\",\"timestamp\":300}\n";

static void plans(void **state)
{
	struct load_plan_options o = {.schedule = {.request_rate = INFINITY,
						   .burstiness = 1,
						   .timestamps = true,
						   .speedup = 2}};
	struct load_plan p;
	struct workload w;
	struct pd_msg msg = {""};

	(void)state;
	read_text(&w, talk);
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_OK);
	assert_int_equal(p.n, 5);
	assert_true(p.scheduled);
	assert_int_equal(p.schedule.before[2], 0);
	assert_int_equal(p.schedule.before[1], SCHEDULE_NONE);
	/* a key alone makes no order: requests of one prefix may run side by side */
	assert_int_equal(p.schedule.before[3], SCHEDULE_NONE);
	assert_int_equal(p.schedule.session[3], SCHEDULE_NONE);
	assert_string_equal(p.item[2].session, "k1");
	assert_ptr_equal(p.item[2].session, p.item[3].session);
	assert_null(p.item[4].session);
	assert_int_equal(p.schedule.at_ns[2], 100 * NS_PER_MS);
	assert_int_equal(p.schedule.think_ns[2], 10 * NS_PER_MS);
	load_plan_release(&p);
	o.schedule.timestamps = false;
	o.schedule.requests = 2;
	o.pattern = "s{turn}-{i}";
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_OK);
	assert_int_equal(p.n, 2);
	assert_false(p.scheduled);
	assert_string_equal(p.item[1].session, "s0-1");
	load_plan_release(&p);
	workload_release(&w);
}

static void wrong_plans(void **state)
{
	struct load_plan_options o = {
		.schedule = {.request_rate = INFINITY, .burstiness = 1, .speedup = 1}};
	struct load_plan p;
	struct workload w;
	struct pd_msg msg = {""};

	(void)state;
	read_text(&w, "{\"prompt\":\"x\"}\n{\"prompt\":\"x\",\"session_id\":\"a\\u000ab\"}\n");
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_string_equal(msg.text, "line 2: the session key contains a control character");
	o.schedule.requests = 3;
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "--num-prompts"));
	o.schedule.requests = 1;
	o.schedule.timestamps = true;
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "--timestamps"));
	o.schedule.timestamps = false;
	o.pattern = "<1//i>";
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "request 0: column 3: division by zero"));
	o.pattern = "<";
	assert_int_equal(load_plan_make(&p, &w, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "--session-pattern: '<', column 2"));
	assert_null(p.item);
	workload_release(&w);
}

static void builtin_prompts(void **state)
{
	struct workload w;
	struct buf b;
	struct pd_msg msg = {""};

	(void)state;
	for (int64_t len = 1; len < 9; len++) {
		buf_init(&b, 1 << 20);
		workload_init(&w);
		assert_int_equal(load_plan_builtin(&b, &(struct load_builtin){.sessions = 3,
									      .turns = 2,
									      .input_tokens = len,
									      .seed = 5}),
				 PD_OK);
		assert_int_equal(workload_parse_take(&w, &b, "b", NULL, &msg), PD_OK);
		assert_int_equal(w.n, 6);
		assert_int_equal(w.nsessions, 3);
		assert_true(w.req[0].ordered && w.req[0].input_tokens == len);
		assert_true(w.req[0].hash_ids[0] == w.req[3].hash_ids[0]);
		assert_true(w.req[0].hash_ids[0] != w.req[1].hash_ids[0]);
		if (len > 1)
			assert_true(w.req[0].hash_ids[1] != w.req[3].hash_ids[1]);
		workload_release(&w);
	}
	buf_init(&b, 1 << 20);
	workload_init(&w);
	assert_int_equal(load_plan_builtin(&b, &(struct load_builtin){.requests = 4,
								      .turns = 20,
								      .input_tokens = 128,
								      .seed = 5}),
			 PD_OK);
	assert_int_equal(workload_parse_take(&w, &b, "b", NULL, &msg), PD_OK);
	assert_true(w.n == 4 && w.nsessions == 0);
	workload_release(&w);
}

/* ---- bodies ---- */

static const struct {
	enum body_endpoint endpoint;
	const char *record, *extra, *key, *body;
	unsigned paths;
	bool stream;
} built[] = {
	{BODY_CHAT, "{\"prompt\":\"a \\u00e9 \\/\",\"output_tokens\":5}", NULL, "",
	 "{\"model\": \"m\\\"\", \"max_tokens\": 5, \"temperature\": 0.0, \"stream\": true, "
	 "\"stream_options\": {\"include_usage\": true}, "
	 "\"messages\": [{\"role\": \"user\", \"content\": \"a \\u00e9 \\/\"}]}",
	 0, true},
	{BODY_CHAT, "{\"messages\":[ {\"x\":1.0e0} ],\"prompt\":[1]}", NULL, "k\"",
	 "{\"model\": \"m\\\"\", \"session_params\": {\"session_id\": \"k\\\"\"}, \"session_id\": "
	 "\"k\\\"\", \"user\": \"k\\\"\", "
	 "\"prompt_cache_key\": \"k\\\"\", \"max_tokens\": 9, \"temperature\": 0.0, \"stream\": "
	 "false, \"messages\": [ {\"x\":1.0e0} ]}",
	 4, false},
	{BODY_COMPLETIONS, "{\"prompt\":[1, 2]}", "{\"max_tokens\":1,\"seed\": 7}", "",
	 "{\"model\": \"m\\\"\", \"temperature\": 0.0, \"stream\": false, \"prompt\": [1, 2], "
	 "\"max_tokens\":1,\"seed\": 7}",
	 0, false},
	{BODY_EMBEDDINGS, "{\"prompt\":\"e\"}", "{}", "u",
	 "{\"model\": \"m\\\"\", \"session_params\": {\"session_id\": \"u\"}, \"input\": \"e\"}", 1,
	 true},
	{BODY_COMPLETIONS, "{\"prompt\":\"p\"}", "{\"model\":\"other\"}", "",
	 "{\"max_tokens\": 9, \"temperature\": 0.0, \"stream\": false, \"prompt\": \"p\", "
	 "\"model\":\"other\"}",
	 0, false},
};

static const char *const paths[] = {"session_params.session_id", "session_id", "user",
				    "prompt_cache_key"};

static void bodies(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(built) / sizeof(built[0]); i++) {
		struct body_options o = {.endpoint = built[i].endpoint,
					 .model = "m\"",
					 .stream = built[i].stream,
					 .key_path = paths,
					 .nkey_paths = built[i].paths,
					 .default_output = 9,
					 .scale = 1};
		struct workload w;
		struct buf out;
		struct pd_msg msg = {""};

		read_text(&w, built[i].record);
		if (built[i].extra)
			assert_int_equal(json_object_scan(&o.extra, built[i].extra,
							  strlen(built[i].extra), &msg),
					 PD_OK);
		buf_init(&out, 1 << 20);
		assert_int_equal(body_check(&o, &w.req[0], &msg), PD_OK);
		assert_int_equal(body_build(&o, &w.req[0],
					    &(struct body_turn){.key = span_of(built[i].key)},
					    &out),
				 PD_OK);
		assert_string_equal(out.data, built[i].body);
		assert_int_equal(json_validate(out.data, out.len, &msg), PD_OK);
		buf_release(&out);
		json_object_release(&o.extra);
		workload_release(&w);
	}
}

static void trace_bodies_share_text_and_shrink(void **state)
{
	struct body_options o = {
		.endpoint = BODY_COMPLETIONS, .model = "m", .default_output = 9, .scale = 0.25};
	struct workload w;
	struct buf out;
	struct pd_msg msg = {""};

	(void)state;
	read_text(&w, "{\"input_length\":1000,\"output_length\":100,\"hash_ids\":[1,2],"
		      "\"timestamp\":1}\n{\"messages\":[]}\n{\"prompt\":[1]}");
	buf_init(&out, 1 << 20);
	assert_int_equal(body_build(&o, &w.req[0], &(struct body_turn){0}, &out), PD_OK);
	assert_non_null(strstr(out.data, "\"max_tokens\": 25"));
	assert_int_equal(strlen(strstr(out.data, "\"prompt\": \"") + 11), 4 * (128 + 122) + 2);
	assert_int_equal(json_validate(out.data, out.len, &msg), PD_OK);
	o.output_tokens = 3;
	assert_int_equal(body_output_tokens(&o, &w.req[0]), 3);
	assert_int_equal(body_check(&o, &w.req[1], &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "line 2"));
	o.endpoint = BODY_CHAT;
	assert_int_equal(body_check(&o, &w.req[1], &msg), PD_OK);
	assert_int_equal(body_check(&o, &w.req[2], &msg), PD_EINVAL);
	buf_release(&out);
	workload_release(&w);
}

/* ---- verdicts ---- */

struct verdict_case {
	size_t moved;	 /* sessions of 100 that use a second worker */
	size_t failed;	 /* first requests that fail */
	size_t nameless; /* answers without a header */
	enum verify_verdict verdict;
};

static const struct verdict_case verdicts[] = {
	{0, 0, 0, VERIFY_PASS},	    {5, 0, 0, VERIFY_PASS},  {6, 0, 0, VERIFY_PARTIAL},
	{20, 0, 0, VERIFY_PARTIAL}, {21, 0, 0, VERIFY_FAIL}, {0, 15, 0, VERIFY_PASS},
	{0, 16, 0, VERIFY_PARTIAL}, {0, 61, 0, VERIFY_FAIL}, {0, 0, 15, VERIFY_PASS},
	{0, 0, 16, VERIFY_PARTIAL}, {0, 0, 61, VERIFY_FAIL}, {0, 0, 300, VERIFY_FAIL},
	{0, 300, 0, VERIFY_FAIL},
};

static void verdict_thresholds(void **state)
{
	static struct result_request req[300];
	static char name[100][16];

	(void)state;
	for (size_t c = 0; c < sizeof(verdicts) / sizeof(verdicts[0]); c++) {
		struct verify v;
		struct buf text;

		for (size_t i = 0; i < 300; i++) {
			size_t s = i % 100;

			(void)snprintf(name[s], sizeof(name[s]), "s%zu", s);
			req[i] = (struct result_request){
				.session = name[s],
				.failure = i < verdicts[c].failed ? "http_500" : NULL,
				.decode = s < 50 ? "d0" : "d1",
				.prefill = i >= 200 && s < verdicts[c].moved ? "p1" : "p0"};
			if (i < verdicts[c].nameless)
				req[i].decode = req[i].prefill = NULL;
		}
		assert_int_equal(verify_run(&v, req, 300), PD_OK);
		if (v.verdict != verdicts[c].verdict)
			fail_msg("case %zu: %s with score %g", c, verify_verdict_name(v.verdict),
				 v.score);
		buf_init(&text, 1 << 20);
		assert_int_equal(verify_text(&v, &text), PD_OK);
		assert_non_null(strstr(text.data, verify_verdict_name(v.verdict)));
		buf_clear(&text);
		assert_int_equal(verify_json(&v, &text), PD_OK);
		assert_int_equal(json_validate(text.data, text.len, NULL), PD_OK);
		buf_release(&text);
		verify_release(&v);
	}
}

static void verdict_details(void **state)
{
	struct result_request req[] = {
		{.session = "b", .worker = "w2"},
		{.session = "a", .worker = "w1"},
		{.session = "b", .worker = "w1"},
		{.session = "b", .worker = "w2"},
		{.session = "a", .worker = "w9", .failure = "timeout"},
		{.worker = "w7"},
	};
	struct verify v;

	(void)state;
	assert_int_equal(verify_run(&v, req, 6), PD_OK);
	assert_int_equal(v.requests, 5);
	assert_int_equal(v.completed, 4);
	assert_int_equal(v.nsessions, 2);
	assert_false(v.role[VERIFY_PREFILL].judged);
	assert_int_equal(v.role[VERIFY_WORKER].consistent, 1);
	assert_int_equal(v.role[VERIFY_WORKER].nworkers, 2);
	assert_int_equal(v.role[VERIFY_WORKER].worker[0].sessions, 2);
	assert_string_equal(v.session[1].worker[VERIFY_WORKER], "w2");
	assert_int_equal(v.session[1].on_worker[VERIFY_WORKER], 2);
	assert_true(v.score == 0.5 && v.verdict == VERIFY_FAIL);
	verify_release(&v);
	assert_int_equal(verify_run(&v, &req[5], 1), PD_OK);
	assert_true(v.verdict == VERIFY_FAIL && v.why && v.nsessions == 0);
	verify_release(&v);
	assert_int_equal(verify_run(&v, req, 0), PD_OK);
	assert_true(v.verdict == VERIFY_FAIL);
	verify_release(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plans),
		cmocka_unit_test(wrong_plans),
		cmocka_unit_test(builtin_prompts),
		cmocka_unit_test(bodies),
		cmocka_unit_test(trace_bodies_share_text_and_shrink),
		cmocka_unit_test(verdict_thresholds),
		cmocka_unit_test(verdict_details),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
