/*
 * The result document against a real file of vllm bench serve 0.32: its per-request lists are
 * turned back into records, and the document made of them must have the same keys in the same order
 * and the same figures.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/results/result_opts.h"
#include "lib/stats/summary.h"

#define SAMPLE "tests/data/vllm_bench/base-1.json"

static int64_t ns(const cJSON *v)
{
	return llround(v->valuedouble * 1e9);
}

static const cJSON *at(const cJSON *doc, const char *list, int i)
{
	const cJSON *v = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(doc, list), i);

	assert_non_null(v);
	return v;
}

static void record_of(const cJSON *doc, int i, struct result_request *r)
{
	const cJSON *gaps = at(doc, "itls", i);
	struct result_gap *gap = calloc((size_t)cJSON_GetArraySize(gaps) + 1, sizeof(*gap));
	int64_t start = ns(at(doc, "start_times", i)), queue = ns(at(doc, "queue_times", i));

	*r = (struct result_request){.intended_ns = start - queue,
				     .eligible_ns = start,
				     .sent_ns = start,
				     .first_byte_ns = start,
				     .first_token_ns = start + ns(at(doc, "ttfts", i)),
				     .last_token_ns = start + ns(at(doc, "latencies", i)),
				     .input_tokens = at(doc, "input_lens", i)->valueint,
				     .output_tokens = at(doc, "output_lens", i)->valueint,
				     .cached_tokens = -1,
				     .first_tokens = -1,
				     .status = 200,
				     .gap = gap,
				     .ngaps = (size_t)cJSON_GetArraySize(gaps)};
	r->end_ns = r->last_token_ns;
	for (size_t k = 0; k < r->ngaps; k++)
		gap[k] = (struct result_gap){ns(cJSON_GetArrayItem(gaps, (int)k)), -1};
}

static cJSON *write_and_parse(const struct result_run *run)
{
	struct buf out;
	cJSON *doc;

	buf_init(&out, 1 << 24);
	assert_int_equal(result_write(run, &out), PD_OK);
	doc = cJSON_Parse(out.data);
	assert_non_null(doc);
	buf_release(&out);
	return doc;
}

static void near(const cJSON *a, const cJSON *b)
{
	double x = a->valuedouble, y = b->valuedouble;

	if (fabs(x - y) > 1e-6 * fabs(x) + 1e-9)
		fail_msg("%s: %.17g in the sample, %.17g here", a->string ? a->string : "list item",
			 x, y);
}

/*
 * The duration was measured by another clock than the per-request times. The file's
 * max_concurrent_requests is 18, the number of requests that touch its busiest second; ours is the
 * exact peak, 5. rtfx is of audio: 0 there, null here.
 */
static bool differs(const char *key)
{
	return strcmp(key, "duration") == 0 || strstr(key, "throughput") ||
	       strcmp(key, "max_concurrent_requests") == 0 || strcmp(key, "rtfx") == 0;
}

static void same_value(const cJSON *a, const cJSON *b)
{
	assert_int_equal(a->type, b->type);
	if (cJSON_IsArray(a)) {
		assert_int_equal(cJSON_GetArraySize(a), cJSON_GetArraySize(b));
		for (const cJSON *x = a->child, *y = b->child; x; x = x->next, y = y->next)
			same_value(x, y);
	} else if (cJSON_IsNumber(a)) {
		near(a, b);
	} else if (cJSON_IsString(a)) {
		assert_string_equal(a->valuestring, b->valuestring);
	}
}

static void same_document(const cJSON *sample, const cJSON *ours)
{
	const cJSON *a = sample->child, *b = ours->child;

	for (; a; a = a->next, b = b->next) {
		assert_non_null(b);
		assert_string_equal(a->string, b->string);
		if (strcmp(a->string, "tokenizer_id") != 0 && !differs(a->string))
			same_value(a, b);
	}
	assert_string_equal(b->string, "pdctl");
	assert_null(b->next);
}

static void equals_the_real_file(void **state)
{
	static const char *const metadata[] = {"run=1"};
	static struct result_request req[120];
	struct result_run run = {.date = "20261121-011026",
				 .backend = "openai-chat",
				 .model = "m",
				 .metadata = metadata,
				 .nmetadata = 1,
				 .request_rate = 12,
				 .burstiness = 1,
				 .detailed = true,
				 .tool = "bench",
				 .client_ok = true,
				 .req = req,
				 .n = 120};
	struct pd_msg msg = {""};
	struct buf text;
	cJSON *sample, *ours;

	(void)state;
	buf_init(&text, 1 << 24);
	assert_int_equal(file_read(SAMPLE, &text, &msg), PD_OK);
	sample = cJSON_Parse(text.data);
	for (int i = 0; i < 120; i++)
		record_of(sample, i, &req[i]);
	assert_int_equal(result_metrics_parse(&run, "ttft,tpot, itl,e2el", &msg), PD_OK);
	assert_int_equal(result_percentiles_parse(&run, "50,90,99", &msg), PD_OK);
	ours = write_and_parse(&run);
	same_document(sample, ours);
	assert_int_equal(cJSON_GetObjectItem(ours, "max_concurrent_requests")->valueint, 5);
	/* throughput is a sum divided by the document's own duration */
	near(cJSON_GetObjectItem(ours, "output_throughput"),
	     &(cJSON){.valuedouble = 1679 / cJSON_GetObjectItem(ours, "duration")->valuedouble});
	for (int i = 0; i < 120; i++)
		free((void *)(uintptr_t)req[i].gap);
	cJSON_Delete(ours);
	cJSON_Delete(sample);
	buf_release(&text);
}

static const struct result_gap gaps[] = {{30000000, 3}, {5000000, 0}, {5000000, 2}};

/* Two successes, one failure, one that was never sent. */
static void small_run(struct result_request *req, struct result_run *run)
{
	const int64_t m = NS_PER_MS;

	req[0] = (struct result_request){.intended_ns = 0,
					 .eligible_ns = 0,
					 .sent_ns = 1 * m,
					 .first_byte_ns = 5 * m,
					 .first_token_ns = 11 * m,
					 .last_token_ns = 51 * m,
					 .end_ns = 52 * m,
					 .input_tokens = 100,
					 .output_tokens = 6,
					 .cached_tokens = 40,
					 .gap = gaps,
					 .ngaps = 3,
					 .first_tokens = 1,
					 .status = 200,
					 .session = "a",
					 .prefill = "p1",
					 .decode = "d1"};
	req[1] = (struct result_request){.intended_ns = 10 * m,
					 .eligible_ns = 20 * m,
					 .sent_ns = 52 * m,
					 .first_byte_ns = 60 * m,
					 .first_token_ns = -1,
					 .last_token_ns = 1001 * m,
					 .end_ns = 1001 * m,
					 .input_tokens = 50,
					 .output_tokens = 1,
					 .cached_tokens = -1,
					 .status = 200,
					 .session = "b",
					 .prefill = "p1",
					 .decode = "d2"};
	req[2] = (struct result_request){.intended_ns = 20 * m,
					 .eligible_ns = 20 * m,
					 .sent_ns = 30 * m,
					 .first_byte_ns = 35 * m,
					 .first_token_ns = 36 * m,
					 .last_token_ns = 37 * m,
					 .end_ns = 40 * m,
					 .input_tokens = 7,
					 .output_tokens = 9,
					 .cached_tokens = 7,
					 .gap = gaps,
					 .ngaps = 2,
					 .status = 500,
					 .failure = "http_500",
					 .error = "no \"luck\""};
	req[3] = (struct result_request){.sent_ns = -1,
					 .first_byte_ns = -1,
					 .first_token_ns = -1,
					 .last_token_ns = -1,
					 .end_ns = -1,
					 .cached_tokens = -1,
					 .failure = "not_sent"};
	*run = (struct result_run){.date = "d",
				   .backend = "openai",
				   .model = "m",
				   .request_rate = INFINITY,
				   .burstiness = 1,
				   .max_concurrency = 2,
				   .tool = "bench",
				   .seed = UINT64_MAX,
				   .req = req,
				   .n = 4,
				   .members = "\"more\": {\"x\": 1}"};
}

static double number(const cJSON *doc, const char *path)
{
	char copy[200], *name = copy, *dot;

	assert_true(strlen(path) < sizeof(copy));
	memcpy(copy, path, strlen(path) + 1);
	for (; (dot = strchr(name, '/')) != NULL; name = dot + 1) {
		*dot = '\0';
		doc = cJSON_GetObjectItemCaseSensitive(doc, name);
	}
	doc = cJSON_GetObjectItemCaseSensitive(doc, name);
	if (doc && cJSON_IsNumber(doc))
		return doc->valuedouble;
	fail_msg("no number at %s", path);
	return 0;
}

static const struct {
	const char *path;
	double value;
} expected[] = {
	{"num_prompts", 4},
	{"max_concurrency", 2},
	{"duration", 1},
	{"completed", 2},
	{"failed", 2},
	{"total_input_tokens", 150},
	{"total_output_tokens", 7},
	{"request_throughput", 2},
	{"output_throughput", 7},
	{"total_token_throughput", 157},
	{"max_output_tokens_per_s", 6},
	{"max_concurrent_requests", 2},
	/* the answer that was not streamed has no TTFT */
	{"mean_ttft_ms", 10},
	{"mean_tpot_ms", 8},
	/* tokens: 10, 10, 10 from a piece of three; 5, 5 from two pieces that together brought two
	 */
	{"mean_itl_ms", 8},
	{"median_itl_ms", 10},
	{"p99_itl_ms", 10},
	{"pdctl/chunk_gap/count", 3},
	{"pdctl/chunk_gap/max_ms", 30},
	{"pdctl/chunk_gap/median_ms", 5},
	{"pdctl/schedule_lag/count", 3},
	{"pdctl/schedule_lag/max_ms", 32},
	{"pdctl/cached_tokens/requests", 1},
	{"pdctl/cached_tokens/total", 40},
	{"pdctl/cached_tokens/share", 0.4},
	{"pdctl/failures/http_500", 1},
	{"pdctl/failures/not_sent", 1},
	{"pdctl/codes/200", 2},
	{"pdctl/codes/500", 1},
	{"pdctl/codes/none", 1},
	{"pdctl/workers/prefill/p1", 2},
	{"pdctl/workers/decode/d2", 1},
	{"pdctl/more/x", 1},
};

static void small_figures(void **state)
{
	struct result_request req[4];
	struct result_run run;
	cJSON *doc;

	(void)state;
	small_run(req, &run);
	doc = write_and_parse(&run);
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (fabs(number(doc, expected[i].path) - expected[i].value) > 1e-9)
			fail_msg("%s is %.17g, expected %.17g", expected[i].path,
				 number(doc, expected[i].path), expected[i].value);
	assert_string_equal(cJSON_GetObjectItem(doc, "request_rate")->valuestring, "inf");
	assert_true(cJSON_IsNull(cJSON_GetObjectItem(doc, "request_goodput")));
	assert_null(cJSON_GetObjectItem(doc, "ttfts"));
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(doc, "latencies")), 4);
	cJSON_Delete(doc);
}

static void goals_and_details(void **state)
{
	struct result_request req[4];
	struct result_run run;
	struct pd_msg msg = {""};
	cJSON *doc, *list;

	(void)state;
	small_run(req, &run);
	run.detailed = true;
	assert_int_equal(result_goal_parse(&run, "e2el:60", &msg), PD_OK);
	assert_int_equal(result_goal_parse(&run, "ttft:10.5", &msg), PD_OK);
	doc = write_and_parse(&run);
	assert_true(number(doc, "request_goodput") == 1);
	list = cJSON_GetObjectItem(doc, "itls");
	assert_int_equal(cJSON_GetArraySize(list), 4);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetArrayItem(list, 0)), 5);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetArrayItem(list, 2)), 0);
	assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(doc, "errors"), 2)->valuestring,
			    "no \"luck\"");
	cJSON_Delete(doc);
	run.goal[0].limit_ms = 40;
	doc = write_and_parse(&run);
	assert_true(number(doc, "request_goodput") == 0);
	cJSON_Delete(doc);
	/* Whatever the limit, an answer that was not streamed has no TTFT that meets it. */
	run.goal[0] = (struct result_goal){RESULT_TTFT, 1e9};
	run.ngoals = 1;
	doc = write_and_parse(&run);
	assert_true(fabs(number(doc, "request_goodput") * number(doc, "duration") - 1) < 1e-9);
	list = cJSON_GetObjectItem(doc, "ttfts");
	assert_true(cJSON_IsNumber(cJSON_GetArrayItem(list, 0)));
	assert_true(cJSON_IsNull(cJSON_GetArrayItem(list, 1)));
	cJSON_Delete(doc);
}

static void same_bytes_and_empty_run(void **state)
{
	struct result_request req[4];
	struct result_run run, none = {.date = "",
				       .backend = "b",
				       .model = "m",
				       .request_rate = 1,
				       .burstiness = INFINITY,
				       .tool = "x"};
	static const char *const unknown[] = {"mean_ttft_ms",	    "median_tpot_ms",
					      "std_itl_ms",	    "p99_ttft_ms",
					      "request_throughput", "request_goodput"};
	struct buf a, b;
	cJSON *doc;

	(void)state;
	small_run(req, &run);
	buf_init(&a, 1 << 20);
	buf_init(&b, 1 << 20);
	assert_int_equal(result_write(&run, &a), PD_OK);
	assert_int_equal(result_write(&run, &b), PD_OK);
	assert_string_equal(a.data, b.data);
	buf_release(&b);
	buf_init(&b, a.len / 2);
	assert_int_equal(result_write(&run, &b), PD_ETOOBIG);
	buf_release(&a);
	buf_release(&b);
	doc = write_and_parse(&none);
	assert_true(number(doc, "duration") == 0);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		assert_true(cJSON_IsNull(cJSON_GetObjectItem(doc, unknown[i])));
	cJSON_Delete(doc);
	none.pooling = true;
	doc = write_and_parse(&none);
	assert_non_null(cJSON_GetObjectItem(doc, "mean_e2el_ms"));
	assert_null(cJSON_GetObjectItem(doc, "mean_ttft_ms"));
	cJSON_Delete(doc);
}

static void numbers(void **state)
{
	static const struct {
		double v;
		const char *text;
	} cases[] = {{12, "12.0"},
		     {0.1, "0.1"},
		     {1.0 / 3, "0.3333333333333333"},
		     {33.06322701666886, "33.06322701666886"},
		     {1e300, "1e+300"},
		     {-0.5, "-0.5"},
		     {0, "0.0"},
		     {0.035441919999811944, "0.035441919999811944"},
		     {INFINITY, "null"}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf b;

		buf_init(&b, 100);
		assert_int_equal(result_put_number(&b, cases[i].v), PD_OK);
		assert_string_equal(b.data, cases[i].text);
		buf_release(&b);
	}
}

static void summaries(void **state)
{
	double v[] = {4, 1, 3, 2}, big[] = {1e16, 1, -1e16, 1};

	(void)state;
	summary_sort(v, 4);
	assert_true(summary_percentile(v, 4, 50) == 2.5);
	assert_true(fabs(summary_percentile(v, 4, 99) - 3.97) < 1e-12);
	assert_true(summary_percentile(v, 4, 0) == 1 && summary_percentile(v, 4, 100) == 4);
	assert_true(summary_percentile(v, 1, 99) == 1 && isnan(summary_percentile(v, 0, 99)));
	assert_true(fabs(summary_of(v, 4).std - sqrt(1.25)) < 1e-12);
	assert_true(summary_of(big, 4).mean == 0.5);
	assert_true(isnan(summary_of(v, 0).mean));
}

static void wrong_lists(void **state)
{
	struct result_run run = {0};
	struct pd_msg msg = {""};

	(void)state;
	assert_int_equal(result_metrics_parse(&run, "ttft,latency", &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "'latency'"));
	assert_int_equal(result_metrics_parse(&run, "ttft,ttft", &msg), PD_EINVAL);
	assert_int_equal(result_metrics_parse(&run, "", &msg), PD_EINVAL);
	assert_int_equal(result_percentiles_parse(&run, "50,,99", &msg), PD_EINVAL);
	assert_int_equal(result_percentiles_parse(&run, "101", &msg), PD_EINVAL);
	assert_int_equal(result_percentiles_parse(&run, "nan", &msg), PD_EINVAL);
	assert_int_equal(
		result_percentiles_parse(&run, "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", &msg),
		PD_ETOOBIG);
	assert_int_equal(result_goal_parse(&run, "ttft", &msg), PD_EINVAL);
	assert_int_equal(result_goal_parse(&run, "itl:5", &msg), PD_EINVAL);
	assert_int_equal(result_goal_parse(&run, "ttft:-5", &msg), PD_EINVAL);
	assert_int_equal(result_goal_parse(&run, "ttft:5", &msg), PD_OK);
	assert_int_equal(result_goal_parse(&run, "ttft:6", &msg), PD_EINVAL);
	assert_int_equal(result_percentiles_parse(&run, "99.9, 50", &msg), PD_OK);
	assert_true(run.npercentiles == 2 && run.percentile[0] == 99.9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_the_real_file),
		cmocka_unit_test(small_figures),
		cmocka_unit_test(goals_and_details),
		cmocka_unit_test(same_bytes_and_empty_run),
		cmocka_unit_test(numbers),
		cmocka_unit_test(summaries),
		cmocka_unit_test(wrong_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
