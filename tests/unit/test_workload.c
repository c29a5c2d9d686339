/* The reader: every record format, every way a line can be wrong, and the real trace when it is
 * there. */
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
#include "lib/json/scan.h"
#include "lib/workload/synth.h"
#include "lib/workload/workload.h"

static int parse(struct workload *w, const char *text, size_t n, struct pd_msg *msg)
{
	struct buf b;

	buf_init(&b, WORKLOAD_FILE_MAX);
	assert_int_equal(buf_append(&b, text, n), PD_OK);
	workload_init(w);
	return workload_parse_take(w, &b, "w.jsonl", NULL, msg);
}

static void parse_ok(struct workload *w, const char *text)
{
	struct pd_msg msg = {""};
	int err = parse(w, text, strlen(text), &msg);

	assert_string_equal(msg.text, "");
	assert_int_equal(err, PD_OK);
}

#define assert_span(s, lit)                                                                        \
	do {                                                                                       \
		assert_int_equal((s).n, strlen(lit));                                              \
		assert_memory_equal((s).p, lit, (s).n);                                            \
	} while (0)

static void custom(void **state)
{
	struct workload w;

	(void)state;
	parse_ok(&w, "{\"prompt\": \"a \\u00e9 \\n\", \"output_tokens\": 12}\n{\"prompt\":\"b\"}");
	assert_int_equal(w.n, 2);
	assert_span(w.req[0].prompt, "\"a \\u00e9 \\n\"");
	assert_int_equal(w.req[0].output_tokens, 12);
	assert_int_equal(w.req[0].input_tokens, -1);
	assert_int_equal(w.req[0].arrival_ns, -1);
	assert_int_equal(w.req[0].session_no, WORKLOAD_NO_SESSION);
	assert_int_equal(w.req[0].key.n, 0);
	assert_int_equal(w.req[1].output_tokens, -1);
	assert_int_equal(w.req[1].line, 2);
	assert_true(w.has_text);
	assert_false(w.has_arrivals);
	workload_release(&w);
}

static void conversations(void **state)
{
	struct workload w;

	(void)state;
	parse_ok(&w,
		 "{\"prompt\":\"p\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"prompt_"
		 "cache_key\":\"conv_0\","
		 "\"conversation_id\":0,\"message_index\":3}\n"
		 "{\"messages\":[],\"prompt_cache_key\":\"c\\u006fnv_1\",\"conversation_id\":1}\n"
		 "{\"messages\":[],\"prompt_cache_key\":\"conv_1\",\"conversation_id\":1}\n"
		 "{\"prompt\":[1,2],\"prompt_cache_key\":\"conv_0\"}\n");
	assert_int_equal(w.n, 4);
	assert_span(w.req[0].messages, "[{\"role\":\"user\",\"content\":\"x\"}]");
	assert_span(w.req[0].key, "conv_0");
	assert_span(w.req[0].session, "0");
	assert_int_equal(w.req[0].turn, 3);
	assert_span(w.req[1].key, "conv_1");
	assert_int_equal(w.req[1].session_no, 1);
	assert_int_equal(w.req[1].turn, 0);
	assert_int_equal(w.req[2].turn, 1);
	/* without a conversation_id the key names the session */
	assert_span(w.req[3].session, "conv_0");
	assert_int_equal(w.req[3].session_no, 2);
	assert_int_equal(w.nsessions, 3);
	workload_release(&w);
}

static void mooncake(void **state)
{
	struct workload w;

	(void)state;
	parse_ok(&w, "{\"timestamp\": 27482, \"input_length\": 1025, \"output_length\": 500, "
		     "\"hash_ids\": [0, 1,2]}\r\n"
		     "\r\n"
		     "  {\"timestamp\": 27482.25, \"input_length\": 3, \"output_length\": 1, "
		     "\"hash_ids\": [18446744073709551615], "
		     "\"session_id\": \"s\", \"delay\": 1.5}  \n"
		     "{\"timestamp\": 3e4, \"input_length\": 0, \"output_length\": 1, "
		     "\"hash_ids\": [], \"session_id\": null}\n"
		     "{\"timestamp\": 30001, \"input_length\": 9, \"output_length\": 1, "
		     "\"hash_ids\": [-1], \"x\": {\"hash_ids\": 3}}\n");
	assert_int_equal(w.n, 4);
	assert_int_equal(w.nids, 5);
	assert_int_equal(w.req[0].arrival_ns, 27482 * NS_PER_MS);
	assert_int_equal(w.req[0].nhash, 3);
	assert_int_equal(w.req[0].hash_ids[2], 2);
	assert_int_equal(w.req[0].block_tokens, 512);
	assert_int_equal(w.req[1].arrival_ns, 27482250000);
	assert_true(w.req[1].hash_ids[0] == UINT64_MAX);
	assert_int_equal(w.req[1].delay_ns, 1500000);
	assert_span(w.req[1].key, "s");
	assert_int_equal(w.req[1].line, 3);
	assert_int_equal(w.req[2].arrival_ns, 30000 * NS_PER_MS);
	assert_null(w.req[2].hash_ids);
	assert_true(w.req[3].hash_ids[0] == UINT64_MAX);
	assert_true(w.has_arrivals);
	assert_false(w.has_hash_ids);
	assert_false(w.has_text);
	workload_release(&w);
}

static void other_spellings(void **state)
{
	struct workload w;

	(void)state;
	parse_ok(&w,
		 "{\"input_toks\":7,\"output_toks\":8,\"arrival_time_ns\":9}\n"
		 "{\"prompt\":\"p\",\"session_id\":5,\"turn\":2,\"prefix_group\":4,\"block_"
		 "tokens\":16,"
		 "\"prompt_tokens_approx\":1,\"input_length\":2,\"timestamp\":0.001}\n"
		 "{\"prompt\":\"p\",\"prompt\":\"last\",\"hash_ids\":[1,2],\"hash_ids\":[3]}\n");
	assert_int_equal(w.req[0].input_tokens, 7);
	assert_int_equal(w.req[0].output_tokens, 8);
	assert_int_equal(w.req[0].arrival_ns, 9);
	assert_span(w.req[1].session, "5");
	assert_int_equal(w.req[1].turn, 2);
	assert_int_equal(w.req[1].group, 4);
	assert_int_equal(w.req[1].block_tokens, 16);
	assert_int_equal(w.req[1].input_tokens, 2);
	assert_int_equal(w.req[1].arrival_ns, 1000);
	assert_span(w.req[2].prompt, "\"last\"");
	assert_int_equal(w.nids, 1);
	assert_int_equal(w.req[2].hash_ids[0], 3);
	workload_release(&w);
}

struct bad {
	const char *text, *place, *says;
};

static const struct bad bads[] = {
	{"", "w.jsonl:1:1:", "no records"},
	{"\n\r\n  \n", "w.jsonl:1:1:", "no records"},
	{"{\"prompt\":\"x\"}\n{\"prompt\": \"tru", "w.jsonl:2:", "found"},
	{"{\"prompt\":\"x\"}\n{\"prompt\":\"x\",}", "w.jsonl:2:15:", "'}'"},
	{"[1]", "w.jsonl:1:2:", "expected an object"},
	{"{\"prompt\":\"x\"} {\"prompt\":\"y\"}", "w.jsonl:1:16:", "expected"},
	{"{\"input_length\":\"7\"}", "w.jsonl:1:17:", "\"input_length\" is a string (\"7\")"},
	{"{\"pr\xc3\xa9\":1,\"prompt\":7}", "w.jsonl:1:19:", "expected a string or an array"},
	{"{\"input_length\":-1}", "w.jsonl:1:17:", "0 or more"},
	{"{\"input_length\":1.5}", "w.jsonl:1:17:", "whole number"},
	{"{\"input_length\":99999999999999999999}", "w.jsonl:1:17:", "whole number"},
	{"{\"input_length\":9,\"timestamp\":\"now\"}", "w.jsonl:1:31:", "milliseconds"},
	{"{\"input_length\":9,\"timestamp\":-1}", "w.jsonl:1:31:", "milliseconds"},
	{"{\"input_length\":9,\"timestamp\":1e300}", "w.jsonl:1:31:", "milliseconds"},
	{"{\"input_length\":9,\"timestamp\":9223372036854775807}", "w.jsonl:1:31:", "milliseconds"},
	{"{\"input_length\":9,\"hash_ids\":7}", "w.jsonl:1:30:", "array of whole numbers"},
	{"{\"input_length\":9,\"hash_ids\":[1.5]}", "w.jsonl:1:30:", "array of whole numbers"},
	{"{\"input_length\":9,\"hash_ids\":[[1]]}", "w.jsonl:1:30:", "array of whole numbers"},
	{"{\"input_length\":9,\"hash_ids\":[18446744073709551616]}", "w.jsonl:1:30:", "64 bits"},
	{"{\"input_length\":512,\"hash_ids\":[1,2]}", "w.jsonl:1:1:", "another block size"},
	{"{\"messages\":{}}", "w.jsonl:1:13:", "array of messages"},
	{"{\"prompt\":\"x\",\"session_id\":[1]}", "w.jsonl:1:28:", "a string or a whole number"},
	{"{\"prompt\":\"x\",\"block_tokens\":0}", "w.jsonl:1:30:", "from 1"},
	{"{\"promt\":\"x\"}",
	 "w.jsonl:1:1:", "unknown format: found an object with 'promt', expected one of: capture"},
	{"{\"prompt\":null}", "w.jsonl:1:1:", "record without a request"},
};

static void wrong_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct workload w;
		struct pd_msg msg = {""};
		int err = parse(&w, bads[i].text, strlen(bads[i].text), &msg);

		if (!err || strncmp(msg.text, bads[i].place, strlen(bads[i].place)) != 0 ||
		    !strstr(msg.text, bads[i].says))
			fail_msg("case %zu: error %d, message \"%s\", expected \"%s\" and \"%s\"",
				 i, err, msg.text, bads[i].place, bads[i].says);
		assert_int_equal(w.n, 0);
		assert_null(w.req);
	}
}

/* A prefix of a valid file is either refused or loses only whole records. */
static void truncated_anywhere(void **state)
{
	const char *text =
		"{\"timestamp\":1,\"input_length\":513,\"hash_ids\":[7,8],\"session_id\":"
		"\"a\\u0041\"}\n"
		"{\"prompt\":\"\\ud83d\\ude00\",\"messages\":[{\"content\":[null,true,1e5]}]}";

	(void)state;
	for (size_t n = 0; n < strlen(text); n++) {
		struct workload w;
		struct pd_msg msg = {""};
		int err = parse(&w, text, n, &msg);

		if (err)
			assert_string_not_equal(msg.text, "");
		else
			assert_int_equal(w.n, 1);
		workload_release(&w);
	}
}

static void huge_line(void **state)
{
	size_t body = (size_t)20 << 20;
	struct workload w;
	struct buf b;
	struct pd_msg msg = {""};

	(void)state;
	buf_init(&b, WORKLOAD_FILE_MAX);
	assert_int_equal(buf_puts(&b, "{\"input_length\":1000000,\"hash_ids\":[0"), PD_OK);
	for (size_t i = 1; i < 60000; i++)
		assert_int_equal(buf_printf(&b, ",%zu", i), PD_OK);
	assert_int_equal(buf_puts(&b, "],\"block_tokens\":16,\"prompt\":\""), PD_OK);
	assert_int_equal(buf_reserve(&b, body + 10), PD_OK);
	memset(b.data + b.len, 'x', body);
	b.len += body;
	assert_int_equal(buf_puts(&b, "\"}\n"), PD_OK);
	workload_init(&w);
	assert_int_equal(workload_parse_take(&w, &b, "big", NULL, &msg), PD_OK);
	assert_null(b.data);
	assert_int_equal(w.req[0].nhash, 60000);
	assert_int_equal(w.req[0].hash_ids[59999], 59999);
	assert_int_equal(w.req[0].prompt.n, body + 2);
	workload_release(&w);
}

static void limits_and_missing_file(void **state)
{
	struct workload_options opt = {.max_requests = 2, .block_tokens = 16};
	struct workload w;
	struct buf b;
	struct pd_msg msg = {""};

	(void)state;
	buf_init(&b, 4096);
	assert_int_equal(
		buf_puts(&b,
			 "{\"input_length\":32,\"hash_ids\":[1,2]}\n{\"prompt\":\"\"}\n{\"broken"),
		PD_OK);
	workload_init(&w);
	assert_int_equal(workload_parse_take(&w, &b, "x", &opt, &msg), PD_OK);
	assert_int_equal(w.n, 2);
	assert_int_equal(w.req[0].block_tokens, 16);
	assert_int_not_equal(workload_read(&w, "/nonexistent/w.jsonl", NULL, &msg), PD_OK);
	assert_non_null(strstr(msg.text, "/nonexistent/w.jsonl"));
	assert_int_equal(w.n, 0);
	workload_release(&w);
}

static void many_sessions(void **state)
{
	struct workload w;
	struct buf b;
	struct pd_msg msg = {""};

	(void)state;
	buf_init(&b, 1 << 24);
	for (int i = 0; i < 20000; i++)
		assert_int_equal(
			buf_printf(&b, "{\"prompt\":\"\",\"session_id\":\"s%d\"}\n", i % 5000),
			PD_OK);
	workload_init(&w);
	assert_int_equal(workload_parse_take(&w, &b, "x", NULL, &msg), PD_OK);
	assert_int_equal(w.nsessions, 5000);
	for (size_t i = 0; i < w.n; i++) {
		assert_int_equal(w.req[i].session_no, i % 5000);
		assert_int_equal(w.req[i].turn, i / 5000);
	}
	workload_release(&w);
}

static const char *data_path(char *out, size_t cap, const char *name)
{
	const char *dir = getenv("PDCTL_DATA");

	(void)snprintf(out, cap, "%s/%s", dir ? dir : "../shared/data", name);
	return out;
}

/* Counts that were taken by other means: workloads of the public conversation trace. */
static void real_trace(void **state)
{
	char path[512];
	struct workload w;
	struct pd_msg msg = {""};
	int64_t in = 0, out = 0;
	FILE *f = fopen(data_path(path, sizeof(path), "mooncake_conversation.jsonl"), "rb");

	(void)state;
	if (!f) {
		print_message("skipped: %s is not there (set PDCTL_DATA)\n", path);
		skip();
		return;
	}
	(void)fclose(f);
	workload_init(&w);
	assert_int_equal(workload_read(&w, path, NULL, &msg), PD_OK);
	assert_int_equal(w.n, 12031);
	assert_int_equal(w.nids, 288500);
	for (size_t i = 0; i < w.n; i++) {
		in += w.req[i].input_tokens;
		out += w.req[i].output_tokens;
		assert_int_equal(w.req[i].nhash, (w.req[i].input_tokens + 511) / 512);
		assert_int_equal(w.req[i].hash_ids[0], 0);
	}
	assert_int_equal(in, 144793823);
	assert_int_equal(out, 4122048);
	assert_int_equal(w.req[w.n - 1].arrival_ns, 3536999 * NS_PER_MS);
	assert_true(w.has_arrivals && w.has_hash_ids && !w.has_text);
	workload_release(&w);
}

static void synth_shares_what_ids_share(void **state)
{
	const uint64_t a_ids[] = {0, 1, 2}, b_ids[] = {0, 1, 3};
	struct workload_request a = {
		.input_tokens = 40, .hash_ids = a_ids, .nhash = 3, .block_tokens = 16, .line = 1};
	struct workload_request b = {
		.input_tokens = 48, .hash_ids = b_ids, .nhash = 3, .block_tokens = 16, .line = 2};
	struct buf x, y;

	(void)state;
	buf_init(&x, 1 << 20);
	buf_init(&y, 1 << 20);
	assert_int_equal(synth_prompt(&x, &a, 1.0, 0), PD_OK);
	assert_int_equal(synth_prompt(&y, &b, 1.0, 99), PD_OK);
	assert_int_equal(x.len, 40 * SYNTH_TOKEN_BYTES);
	assert_int_equal(y.len, 48 * SYNTH_TOKEN_BYTES);
	assert_memory_equal(x.data, y.data, 32 * SYNTH_TOKEN_BYTES);
	assert_memory_not_equal(x.data + 32 * SYNTH_TOKEN_BYTES, y.data + 32 * SYNTH_TOKEN_BYTES,
				8 * SYNTH_TOKEN_BYTES);
	buf_clear(&y);
	/* a full last block starts with the text of the partial one */
	a.input_tokens = 48;
	assert_int_equal(synth_prompt(&y, &a, 1.0, 0), PD_OK);
	assert_memory_equal(x.data, y.data, x.len);
	/* shrunk blocks stay whole and shared */
	buf_clear(&x);
	assert_int_equal(synth_prompt(&x, &a, 0.25, 0), PD_OK);
	assert_int_equal(x.len, 12 * SYNTH_TOKEN_BYTES);
	assert_memory_equal(x.data, y.data, 4 * SYNTH_TOKEN_BYTES);
	assert_memory_equal(x.data + 16, y.data + 64, 4 * SYNTH_TOKEN_BYTES);
	buf_release(&x);
	buf_release(&y);
}

/* A calibrated scale gives no whole words: the mean is right, and what was shared stays shared. */
static void synth_scaled(void **state)
{
	const double scales[] = {0.77, 1.3, 0.05};

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		uint64_t ids[2000];
		struct workload_request r = {
			.input_tokens = 32000, .hash_ids = ids, .nhash = 2000, .block_tokens = 16};
		double words = 32000 * (scales[k] < 1.0 / 16 ? 1.0 / 16 : scales[k]);
		struct buf x, y;

		buf_init(&x, 1 << 20);
		buf_init(&y, 1 << 20);
		for (size_t i = 0; i < 2000; i++)
			ids[i] = i;
		assert_int_equal(synth_prompt(&x, &r, scales[k], 0), PD_OK);
		assert_true(fabs((double)x.len / SYNTH_TOKEN_BYTES / words - 1) < 0.01);
		/* every part of it is its beginning */
		for (int64_t n = 1; n < 64; n++) {
			r.input_tokens = n;
			r.nhash = (uint32_t)((n + 15) / 16);
			buf_clear(&y);
			assert_int_equal(synth_prompt(&y, &r, scales[k], 0), PD_OK);
			assert_memory_equal(x.data, y.data, y.len);
		}
		buf_release(&x);
		buf_release(&y);
	}
}

/* Token ids: as many as tokens, valid JSON, shared as the text is. */
static void synth_token_ids(void **state)
{
	const uint64_t a_ids[] = {0, 1, 2}, b_ids[] = {0, 1, 3};
	struct workload_request a = {
		.input_tokens = 40, .hash_ids = a_ids, .nhash = 3, .block_tokens = 16, .line = 1};
	struct workload_request b = {
		.input_tokens = 48, .hash_ids = b_ids, .nhash = 3, .block_tokens = 16, .line = 2};
	struct span value, other;
	enum json_type type;
	size_t at = 0, to = 0, n = 0, same = 0;
	struct buf x, y;
	int64_t v;

	(void)state;
	buf_init(&x, 1 << 20);
	buf_init(&y, 1 << 20);
	assert_int_equal(synth_ids(&x, &a, 1, 0), PD_OK);
	assert_int_equal(synth_ids(&y, &b, 1, 9), PD_OK);
	assert_int_equal(json_validate(x.data, x.len, NULL), PD_OK);
	while (json_array_next(buf_span(&x), &at, &value, &type)) {
		assert_int_equal(json_int(value, &v), PD_OK);
		assert_true(v >= SYNTH_FIRST_ID && v < SYNTH_FIRST_ID + SYNTH_IDS);
		assert_true(json_array_next(buf_span(&y), &to, &other, &type));
		same += span_eq(value, other) && n < 32;
		n++;
	}
	assert_int_equal(n, 40);
	assert_int_equal(same, 32);
	a.input_tokens = 0;
	a.nhash = 0;
	buf_clear(&x);
	assert_int_equal(synth_ids(&x, &a, 1, 0), PD_OK);
	assert_string_equal(x.data, "[]");
	buf_release(&x);
	buf_release(&y);
}

static void synth_without_ids(void **state)
{
	struct workload_request r = {.input_tokens = 10, .line = 7};
	struct buf x, y;

	(void)state;
	buf_init(&x, 100);
	buf_init(&y, 100);
	assert_int_equal(synth_prompt(&x, &r, 1.0, 1), PD_OK);
	assert_int_equal(x.len, 40);
	assert_int_equal(synth_prompt(&y, &r, 1.0, 2), PD_OK);
	assert_memory_not_equal(x.data, y.data, 40);
	for (size_t i = 0; i < x.len; i++)
		assert_true(i % 4 == 3 ? x.data[i] == ' ' : x.data[i] >= 'a' && x.data[i] <= 'z');
	r.input_tokens = 1000;
	assert_int_equal(synth_prompt(&x, &r, 1.0, 1), PD_ETOOBIG);
	assert_int_equal(x.len, 40);
	assert_int_equal(synth_tokens_of_chars(0), 0);
	assert_int_equal(synth_tokens_of_chars(5), 2);
	buf_release(&x);
	buf_release(&y);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(custom),
		cmocka_unit_test(conversations),
		cmocka_unit_test(mooncake),
		cmocka_unit_test(other_spellings),
		cmocka_unit_test(wrong_lines),
		cmocka_unit_test(truncated_anywhere),
		cmocka_unit_test(huge_line),
		cmocka_unit_test(limits_and_missing_file),
		cmocka_unit_test(many_sessions),
		cmocka_unit_test(real_trace),
		cmocka_unit_test(synth_shares_what_ids_share),
		cmocka_unit_test(synth_scaled),
		cmocka_unit_test(synth_token_ids),
		cmocka_unit_test(synth_without_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
