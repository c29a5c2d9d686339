/* Every format of the table by its example: plain, packed, with a mark and CRLF, as an array, cut
 * at each byte; what is read of each; and what a reader must say or refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/workload/format.h"
#include "lib/workload/tracev2_write.h"

static int parse(struct workload *w, const void *text, size_t n, const struct workload_options *opt,
		 struct pd_msg *msg)
{
	struct buf b;

	buf_init(&b, WORKLOAD_FILE_MAX);
	assert_int_equal(buf_append(&b, text, n), PD_OK);
	workload_init(w);
	return workload_parse_take(w, &b, "w", opt, msg);
}

static void parse_ok(struct workload *w, const char *text)
{
	struct pd_msg msg = {""};

	if (parse(w, text, strlen(text), NULL, &msg))
		fail_msg("%s: %s", text, msg.text);
}

/* Everything that a command could see of a workload, as text. */
static void describe(const struct workload *w, struct buf *out)
{
	buf_clear(out);
	for (size_t i = 0; i < w->n; i++) {
		const struct workload_request *r = &w->req[i];

		assert_int_equal(
			buf_printf(out,
				   "at %lld pause %lld in %lld out %lld turn %lld group %lld key "
				   "%.*s session %.*s %u before %u block %u ordered %d prompt %.*s "
				   "messages %.*s fresh %.*s extra %.*s ids",
				   (long long)r->arrival_ns, (long long)r->delay_ns,
				   (long long)r->input_tokens, (long long)r->output_tokens,
				   (long long)r->turn, (long long)r->group, (int)r->key.n,
				   r->key.p ? r->key.p : "", (int)r->session.n,
				   r->session.p ? r->session.p : "", r->session_no, r->before,
				   r->block_tokens, r->ordered, (int)r->prompt.n,
				   r->prompt.p ? r->prompt.p : "", (int)r->messages.n,
				   r->messages.p ? r->messages.p : "", (int)r->fresh.n,
				   r->fresh.p ? r->fresh.p : "", (int)r->extra.n,
				   r->extra.p ? r->extra.p : ""),
			PD_OK);
		for (uint32_t k = 0; k < r->nhash; k++)
			assert_int_equal(
				buf_printf(out, " %llu", (unsigned long long)r->hash_ids[k]),
				PD_OK);
		assert_int_equal(buf_putc(out, '\n'), PD_OK);
	}
}

static void same(const void *text, size_t n, const struct buf *expected, const char *name)
{
	struct pd_msg msg = {""};
	struct workload w;
	struct buf got;

	buf_init(&got, 1 << 20);
	if (parse(&w, text, n, NULL, &msg))
		fail_msg("%s: %s", name, msg.text);
	describe(&w, &got);
	/* lines shift with an array's bracket on a line of its own: the names of sessions do not */
	assert_string_equal(got.data, expected->data);
	workload_release(&w);
	buf_release(&got);
}

static void packed(const char *text, const struct buf *expected, const char *name)
{
	size_t n = strlen(text), cap = n + 1000, len;
	unsigned char *out = malloc(2 * cap);
	z_stream z = {0};

	assert_non_null(out);
	/* two members: the file is cut in the middle */
	for (int part = 0, at = 0; part < 2; part++) {
		assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY),
				 Z_OK);
		z.next_in = (unsigned char *)(uintptr_t)text + (part ? n / 2 : 0);
		z.avail_in = (uInt)(part ? n - n / 2 : n / 2);
		z.next_out = out + at;
		z.avail_out = (uInt)cap;
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		at = (int)(z.next_out - out);
		(void)deflateEnd(&z);
		len = (size_t)at;
	}
	same(out, len, expected, name);
	len = ZSTD_compress(out, cap, text, n / 2, 3);
	assert_false(ZSTD_isError(len));
	len += ZSTD_compress(out + len, cap, text + n / 2, n - n / 2, 3);
	same(out, len, expected, name);
	/* cut in the middle of the last frame */
	for (size_t cut = len - 1; cut > len - 4; cut--) {
		struct pd_msg msg = {""};
		struct workload w;

		assert_int_not_equal(parse(&w, out, cut, NULL, &msg), PD_OK);
		assert_non_null(strstr(msg.text, "damaged zstd data"));
	}
	free(out);
}

static void cut_everywhere(const char *text)
{
	for (size_t n = 0; n < strlen(text); n++) {
		struct pd_msg msg = {""};
		struct workload w;

		if (parse(&w, text, n, NULL, &msg))
			assert_memory_equal(msg.text, "w:", 2);
		workload_release(&w);
	}
}

static void with_line_ends(const char *text, struct buf *out)
{
	assert_int_equal(buf_puts(out, "\xef\xbb\xbf"), PD_OK);
	for (; *text; text++)
		assert_int_equal(buf_printf(out, "%s%c", *text == '\n' ? "\r" : "", *text), PD_OK);
}

static void as_array(const char *text, struct buf *out)
{
	assert_int_equal(buf_puts(out, "[ "), PD_OK);
	for (const char *p = text; *p; p++)
		if (*p == '\n' && p[1])
			assert_int_equal(buf_puts(out, " ,\n"), PD_OK);
		else
			assert_int_equal(buf_putc(out, *p), PD_OK);
	assert_int_equal(buf_puts(out, " ]\n"), PD_OK);
}

static void each_example(void **state)
{
	size_t examples = 0;

	(void)state;
	for (size_t i = 0; workload_formats[i]; i++) {
		const struct workload_format *f = workload_formats[i];
		struct buf first, other;
		struct workload w;

		assert_ptr_equal(workload_format_find(f->name), f);
		assert_true(f->title && f->marks && f->origin);
		if (!f->example)
			continue;
		examples++;
		buf_init(&first, 1 << 20);
		buf_init(&other, 1 << 20);
		parse_ok(&w, f->example);
		assert_string_equal(w.format, f->name);
		for (size_t k = 0; k < w.nnotes; k++)
			if (strstr(w.note[k], "not used") && !strstr(w.note[k], "answer") &&
			    !strstr(w.note[k], "model") && !strstr(w.note[k], "Model"))
				fail_msg("%s: %s", f->name, w.note[k]);
		describe(&w, &first);
		workload_release(&w);
		packed(f->example, &first, f->name);
		cut_everywhere(f->example);
		with_line_ends(f->example, &other);
		same(other.data, other.len, &first, f->name);
		buf_clear(&other);
		if (f->shape == FORMAT_JSON && f->example[0] == '{') {
			as_array(f->example, &other);
			same(other.data, other.len, &first, f->name);
		}
		buf_release(&first);
		buf_release(&other);
	}
	assert_true(examples >= 20);
}

/* docs/workloads.md has the table as it is. */
static void the_page_has_the_table(void **state)
{
	FILE *f = fopen("docs/workloads.md", "rb");
	struct buf page, table;
	char piece[4096];
	size_t n;

	(void)state;
	assert_non_null(f);
	buf_init(&page, 1 << 20);
	buf_init(&table, 1 << 20);
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		assert_int_equal(buf_append(&page, piece, n), PD_OK);
	(void)fclose(f);
	assert_int_equal(buf_puts(&table, "<!-- formats -->\n"), PD_OK);
	assert_int_equal(workload_format_markdown(&table), PD_OK);
	assert_int_equal(buf_puts(&table, "<!-- end of formats -->\n"), PD_OK);
	if (!strstr(page.data, table.data))
		fail_msg("docs/workloads.md lacks this table:\n%s", table.data);
	buf_release(&page);
	buf_release(&table);
}

/* ---- what is read ---- */

struct fact {
	const char *text;
	const char *format;
	const char *describes; /* parts that the description has, separated by '|' */
	const char *notes;     /* likewise, of the notes */
};

static const struct fact facts[] = {
	{"{\"prompt\":\"one\",\"output_tokens\":4.0}", "custom", "out 4 |prompt \"one\"", ""},
	{"{\"prompt\":\"a\",\"max_tokens\":9,\"temperature\":0.7,\"tools\":[],\"x\":1}", "custom",
	 "out 9 |extra {\"temperature\":0.7,\"tools\":[]} ", "not used: x"},
	{"{\"prompt\":\"hello\",\"output_len\":7,\"extra\":{\"a\":1}}", "custom", "out 7 |extra  ",
	 "not used: extra"},
	{"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[1],\"temperature\":0."
	 "20,"
	 "\"max_tokens\":7}",
	 "openai", "out 7 |extra {\"tools\":[1],\"temperature\":0.20} ", ""},
	{"{\"model\":\"m\",\"stream\":true,\"messages\":[],\"odd\":null,\"odder\":{\"a\":[]},"
	 "\"max_completion_tokens\":3}",
	 "openai", "out 3 |messages []|extra {\"odder\":{\"a\":[]}} ", "not used: model, stream"},
	{"{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"q\"}],\"instructions\":"
	 "\"i\","
	 "\"max_output_tokens\":5}",
	 "openai", "out 5 |messages [{\"role\":\"user\",\"content\":\"q\"}]|\"instructions\":\"i\"",
	 "model"},
	{"{\"model\":\"m\",\"input\":[\"a\",\"b\"]}", "openai", "prompt [\"a\",\"b\"]", ""},
	{"{\"custom_id\":\"1\",\"method\":\"POST\",\"url\":\"/v1/"
	 "completions\",\"body\":{\"prompt\":"
	 "\"p\",\"max_tokens\":2,\"new\":1}}",
	 "openai-batch", "out 2 |prompt \"p\"|extra {\"new\":1} ", "/v1/completions"},
	{"{\"requests\":[{\"custom_id\":\"1\",\"params\":{\"messages\":[],\"max_tokens\":2,"
	 "\"system\":"
	 "\"s\"}},{\"custom_id\":\"2\",\"params\":{\"messages\":[]}}]}",
	 "anthropic-batch", "extra {\"system\":\"s\"} |out 2 |out -1 ", ""},
	{"{\"data\":[{\"session_id\":\"s\",\"payloads\":[{\"messages\":[1]},{\"messages\":[2]}]}]}",
	 "aiperf-inputs", "turn 1 |session s 0 before 0 ", ""},
	{"{\n  \"data\": [\n  {\"session_id\":\"s\",\"payloads\":[\n{\"messages\":[1]}]}]\n}\n",
	 "aiperf-inputs", "messages [1]", ""},
	{"[{\"id\":\"a\",\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\","
	 "\"value\":\"12345678\"},{\"from\":\"human\",\"value\":\"r\"}]}]",
	 "sharegpt",
	 "out 3 |fresh [{\"role\":\"user\",\"content\":\"q\"}]|messages "
	 "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"12345678\"},"
	 "{\"role\":\"user\",\"content\":\"r\"}]|fresh [{\"role\":\"assistant\",\"content\":"
	 "\"12345678\"},{\"role\":\"user\",\"content\":\"r\"}]|before 0 ",
	 "output lengths are estimated"},
	{"{\"session_id\":\"u1\",\"turns\":[{\"text\":\"hi\"},{\"text\":\"again\",\"delay\":10}]}",
	 "aiperf-multi",
	 "pause -1 |pause 10000000 |session u1 0 before 0 |content\":\"hi\"},{\"role\":\"user\"",
	 ""},
	{"{\"text\":\"hi\",\"image\":\"x.png\"}", "aiperf", "prompt \"hi\"", "not used: image"},
	{"{\"texts\":[\"a\",\"b\"]}", "aiperf",
	 "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]", ""},
	{"{\"timestamp\":1000,\"input\":\"hello\",\"output\":\"12345678\",\"session_id\":\"ab\"}",
	 "lmcache", "at 1000000 |out 3 |session ab 0 ", "estimated"},
	{"{\"timestamp\":1757000000.25,\"input_length\":600,\"output_length\":5,\"hash_ids\":[0,1]}"
	 "\n"
	 "{\"timestamp\":1757000001.5,\"input_length\":600,\"output_length\":5,\"hash_ids\":[0,2]}",
	 "mooncake", "at 0 |at 1250000000 ",
	 "read as seconds since 1970 (the first is 1757000000.25)"},
	{"{\"timestamp\":1757000000250,\"input_length\":6}\n{\"timestamp\":1757000000251,"
	 "\"input_length\":6}",
	 "mooncake", "at 0 |at 1000000 ", "milliseconds since 1970"},
	{"{\"timestamp\":0,\"input_length\":6}\n{\"timestamp\":2500.5,\"input_length\":6}",
	 "mooncake", "at 2500500000 ", "fractions are read as milliseconds"},
	{"{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":1.5,\"input_length\":40,"
	 "\"output_length\":5,\"turn\":1,\"hash_ids\":[1,2,3]}\n"
	 "{\"chat_id\":7,\"parent_chat_id\":-1,\"timestamp\":2,\"input_length\":4,\"turn\":1,"
	 "\"hash_ids\":[9]}\n"
	 "{\"chat_id\":2,\"parent_chat_id\":1,\"timestamp\":3,\"input_length\":60,\"turn\":2,"
	 "\"hash_ids\":[1,2,3,4]}\n"
	 "{\"chat_id\":3,\"parent_chat_id\":1,\"timestamp\":4,\"input_length\":60,\"turn\":2,"
	 "\"hash_ids\":[1,2,3,5]}\n",
	 "bailian",
	 "at 1500000000 |block 16 |session 1 0 before 4294967295|session 7 1 before 4294967295|at "
	 "3000000000 pause -1 in 60 out -1 turn 1 group -1 key 1 session 1 0 before 0 |at "
	 "4000000000 pause -1 in 60 out -1 turn 1 group -1 key 1 session 1 0 before 0 ",
	 ""},
	{"{\"session_id\":\"s\",\"arrival_time_ns\":5,\"sub_requests\":[{\"input_toks\":30,"
	 "\"output_toks\":4,\"tool_duration_ns\":1000000},{\"input_toks\":40,\"output_toks\":4}]}",
	 "servingsim-sessions", "at 5 pause -1 in 30 |at 5 pause 1000000 in 40 |before 0 ", ""},
	{"{\"request_id\":1,\"input_toks\":3,\"output_toks\":4,\"arrival_time\":1757000000.000001}"
	 "\n"
	 "{\"request_id\":2,\"input_toks\":3,\"output_toks\":4,\"arrival_time\":1757000000.000003}"
	 "\n",
	 "servingsim-measured", "at 0 |at 2000 ", "since 1970"},
	{"TIMESTAMP,ContextTokens,GeneratedTokens,NumImages\n2023-11-16 18:15:46.6805900,374,44,1\n"
	 "2023-11-16 18:15:50.9951690,396,109,0\n2023-11-16 18:15:50.9951690+01:00,1,1,0\n",
	 "azure", "at 3595685421000 pause -1 in 374 out 44 |at 3600000000000 |at 0 pause -1 in 1 ",
	 "not used: NumImages"},
	{"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log "
	 "Type\n5,ChatGPT,472,18,490,"
	 "Conversation log\n6,ChatGPT,472,0,472,API log\n45,GPT-4,1087,230,1317,Conversation log\n",
	 "burstgpt", "at 5000000000 pause -1 in 472 |at 45000000000 ",
	 "are left out|not used: Model"},
	{"Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log "
	 "Type\n5,s1,1.2,ChatGPT,472,18,490,Conversation log\n6,s1,1,X,500,2,502,Conversation "
	 "log\n",
	 "burstgpt", "in 472 out 18 |session s1 0 before 0 ", ""},
	{"arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,5\n", "vidur",
	 "at 500000000 pause -1 in 100 out 5 ", ""},
	{"prompt,output_tokens\n\"say \"\"a, b\"\"\nand c\",5\n", "prompts-csv",
	 "out 5 |prompt \"say \\\"a, b\\\"\\nand c\"", ""},
	{"{\"question\":\"why?\",\"context\":\"c\",\"output_tokens_count\":9}", "columns",
	 "out 9 |prompt \"why?\"", "not used: context"},
	{"[\"a\", \"b\\n\"]", "text", "prompt \"a\"|prompt \"b\\n\"", ""},
	{"{\"prompt_token_ids\":[5,6],\"output_tokens\":1}", "custom", "prompt [5,6]", ""},
	{"{\"input_length\":5,\"session_id\":\"s\",\"turn\":1}\n{\"input_length\":4,\"session_id\":"
	 "\"s\",\"turn\":0}",
	 "mooncake",
	 "turn 1 group -1 key s session s 0 before 1 |turn 0 group -1 key s session s 0 "
	 "before 4294967295 ",
	 "order of the numbers"},
	{"{\"id\":\"c\",\"block_size\":64,\"hash_id_scope\":\"local\",\"requests\":[{\"t\":0.5,"
	 "\"type\":\"n\",\"in\":64,\"out\":5,\"hash_ids\":[1]},{\"t\":1,\"type\":\"subagent\","
	 "\"requests\":[{\"t\":1.5,\"type\":\"n\",\"in\":9,\"out\":1}]},{\"t\":9,\"type\":\"n\","
	 "\"in\":65,\"out\":2,\"hash_ids\":[1],\"think_time\":1.5}]}",
	 "weka", "at 500000000 |block 64 |in 9 out 1 |pause 1500000000 in 65 out 2 turn 2 ",
	 "sub-agents"},
};

static void each_part(const char *parts, const char *text, size_t i, const char *what)
{
	char part[1024];

	for (size_t n; *parts; parts += n + (parts[n] == '|')) {
		n = strcspn(parts, "|");
		(void)snprintf(part, sizeof(part), "%.*s", (int)n, parts);
		if (!strstr(text, part))
			fail_msg("fact %zu: no '%s' in the %s:\n%s", i, part, what, text);
	}
}

static void what_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		struct buf text;
		struct workload w;

		buf_init(&text, 1 << 20);
		parse_ok(&w, facts[i].text);
		if (strcmp(w.format, facts[i].format) != 0)
			fail_msg("fact %zu: format %s, expected %s", i, w.format, facts[i].format);
		describe(&w, &text);
		each_part(facts[i].describes, text.data, i, "requests");
		buf_clear(&text);
		assert_int_equal(buf_puts(&text, "\n"), PD_OK);
		for (size_t k = 0; k < w.nnotes; k++)
			assert_int_equal(buf_printf(&text, "%s\n", w.note[k]), PD_OK);
		each_part(facts[i].notes, text.data, i, "notes");
		if (!facts[i].notes[0] && w.nnotes > 0 && !strstr(text.data, "not used: model") &&
		    !strstr(text.data, "not used: Model"))
			fail_msg("fact %zu: a note too many: %s", i, text.data);
		workload_release(&w);
		buf_release(&text);
	}
}

/* ---- what is refused ---- */

static const struct {
	const char *text, *place, *says;
} bads[] = {
	{"{\"a\":1,\"b\":2}", "w:1:1:",
	 "unknown format: found an object with 'a', 'b', expected one "
	 "of: capture, gen"},
	{"a,b\n1,2\n", "w:1:1:", "unknown format: found 'a,b'"},
	{"hello\n", "w:1:1:", "unknown format: found 'hello'"},
	{"PAR1abc", "w:1:1:", "Parquet"},
	{"[{\"prompt\":\"a\"},\n {\"prompt\":3}]", "w:2:12:", "a string or an array"},
	{"[{\"prompt\":\"a\"} {\"prompt\":\"b\"}]", "w:1:17:", "expected ',' or ']'"},
	{"[{\"prompt\":\"a\"},]", "w:1:17:", "expected an element"},
	{"[{\"prompt\":\"a\"}", "w:1:16:", "expected ']'"},
	{"[{\"prompt\":\"a\"}] x", "w:1:18:", "nothing after the array"},
	{"{\n \"prompt\": \"a\",\n \"output_tokens\": \"x\"\n}\n", "w:3:19:", "whole number"},
	{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374\n",
	 "w:2:1:", "row of 2 cells, expected 3"},
	{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:15:46,374,1\n",
	 "w:2:1:", "a date and time"},
	{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-4,1\n",
	 "w:2:21:", "column \"ContextTokens\": found '-4'"},
	{"arrived_at,num_prefill_tokens,num_decode_tokens\nx,1,2\n", "w:2:1:", "expected a time"},
	{"prompt\n\"a\n", "w:2:1:", "quoted cell"},
	{"{\"timestamp\":0.5,\"input_length\":6}\n{\"timestamp\":1.9,\"input_length\":6}",
	 "w:", "expected --timestamp-unit s or --timestamp-unit ms"},
	{"{\"session_id\":\"s\",\"sub_requests\":[]}", "w:1:34:", "is empty"},
	{"{\"turns\":[]}", "w:1:10:", "is empty"},
	{"{\"turns\":[{\"image\":\"x\"}]}", "w:1:11:", "turn without a text"},
	{"{\"conversations\":[{\"from\":\"martian\",\"value\":\"x\"}]}",
	 "w:1:19:", "expected from or role"},
	{"{\"custom_id\":\"1\",\"url\":\"/a\",\"body\":{\"prompt\":\"p\"}}\n"
	 "{\"custom_id\":\"1\",\"url\":\"/b\",\"body\":{\"prompt\":\"p\"}}",
	 "w:2:24:", "one endpoint in a file"},
	{"{\"chat_id\":\"x\",\"parent_chat_id\":-1,\"input_length\":1}", "w:1:12:", "whole number"},
	{"\x1f\x8b\x08 broken", "cannot read 'w':", "damaged gzip data"},
};

static void what_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct pd_msg msg = {""};
		struct workload w;
		int err = parse(&w, bads[i].text, strlen(bads[i].text), NULL, &msg);

		if (!err || strncmp(msg.text, bads[i].place, strlen(bads[i].place)) != 0 ||
		    !strstr(msg.text, bads[i].says))
			fail_msg("case %zu: error %d, message \"%s\", expected \"%s\" and \"%s\"",
				 i, err, msg.text, bads[i].place, bads[i].says);
		assert_int_equal(w.n, 0);
		assert_null(w.note);
	}
}

static void options(void **state)
{
	static const char text[] = "{\"timestamp\":0.5,\"input_length\":40,\"hash_ids\":[1,2,3]}\n"
				   "{\"timestamp\":1.9,\"input_length\":6}";
	struct workload_options o = {.unit = WORKLOAD_UNIT_S, .block_tokens = 16};
	struct pd_msg msg = {""};
	struct workload w;

	(void)state;
	assert_int_equal(parse(&w, text, strlen(text), &o, &msg), PD_OK);
	assert_int_equal(w.req[1].arrival_ns, 1900 * NS_PER_MS);
	assert_int_equal(w.req[0].block_tokens, 16);
	assert_int_equal(w.nnotes, 0);
	workload_release(&w);
	o.format = "text";
	assert_int_equal(parse(&w, "{x\n\ty \xc3\xa9\n", 9, &o, &msg), PD_OK);
	assert_int_equal(w.n, 2);
	assert_memory_equal(w.req[0].prompt.p, "\"{x\"", 4);
	workload_release(&w);
	o.format = "azure";
	assert_int_equal(parse(&w, "a,b\n1,2\n", 8, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "lacks a column of the format azure"));
	assert_int_equal(parse(&w, "{\"prompt\":\"a\"}", 14, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "w:1:1: expected a record of the format azure: columns"));
	o.format = "text";
	assert_int_equal(parse(&w, "[\"a\",{\"prompt\":\"a\"}]", 20, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "w:1:6: expected a record of the format text"));
	o.format = "nonsense";
	assert_int_equal(parse(&w, "a,b\n1,2\n", 8, &o, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "unknown format 'nonsense', expected one of: capture"));
	assert_int_equal(workload_unit_parse("us", &o.unit), PD_OK);
	assert_int_equal(o.unit, WORKLOAD_UNIT_US);
	assert_int_equal(workload_unit_parse("h", &o.unit), PD_EINVAL);
}

/* ---- generated, and TraceV2 there and back ---- */

static void generated(void **state)
{
	struct pd_msg msg = {""};
	struct workload w;

	(void)state;
	workload_init(&w);
	if (workload_read(&w, "gen:multi-prefix,num-prompts=9,num-prefixes=2,prefix-len=64,seed=7",
			  NULL, &msg))
		fail_msg("%s", msg.text);
	assert_int_equal(w.n, 9);
	assert_string_equal(w.format, "gen");
	assert_true(w.req[0].group >= 0 && w.has_text);
	assert_int_equal(workload_read(&w, "gen:multi-prefix,num-promts=9", NULL, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "did you mean 'num-prompts'"));
	assert_int_equal(workload_read(&w, "gen:nothing", NULL, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "expected gen:shared-prefix"));
	assert_int_equal(workload_read(&w, "gen:shared-prefix,num-prompts=x", NULL, &msg),
			 PD_EINVAL);
	assert_int_equal(w.n, 0);
	workload_release(&w);
}

static void write_file(const char *path, const struct buf *b)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
	assert_int_equal(fclose(f), 0);
}

static void tracev2_there_and_back(void **state)
{
	static const char text[] =
		"{\"timestamp\":1000,\"input_length\":33,\"output_length\":5,\"hash_ids\":[7,8,9],"
		"\"block_tokens\":16,\"session_id\":\"a,\\\"b\"}\n"
		"{\"timestamp\":2000.5,\"input_length\":60,\"output_length\":6,\"session_id\":\"a,"
		"\\\"b\","
		"\"delay\":250}\n"
		"{\"timestamp\":3000,\"input_length\":9,\"output_length\":7}\n";
	char yaml[64], csv[64];
	struct buf header, rows;
	struct pd_msg msg = {""};
	struct workload w, back;

	(void)state;
	buf_init(&header, 1 << 16);
	buf_init(&rows, 1 << 16);
	(void)snprintf(yaml, sizeof(yaml), "/tmp/test-formats-%d.yaml", (int)getpid());
	(void)snprintf(csv, sizeof(csv), "/tmp/test-formats-%d.csv", (int)getpid());
	parse_ok(&w, text);
	assert_int_equal(tracev2_write(&w, 1, &header, &rows), PD_OK);
	write_file(yaml, &header);
	write_file(csv, &rows);
	workload_init(&back);
	if (workload_read(&back, yaml, NULL, &msg))
		fail_msg("%s", msg.text);
	assert_string_equal(back.format, "tracev2");
	assert_int_equal(back.n, w.n);
	for (size_t i = 0; i < w.n; i++) {
		const struct workload_request *x = &w.req[i], *y = &back.req[i];

		assert_int_equal(x->arrival_ns, y->arrival_ns);
		assert_int_equal(x->delay_ns, y->delay_ns);
		assert_int_equal(x->input_tokens, y->input_tokens);
		assert_int_equal(x->output_tokens, y->output_tokens);
		assert_int_equal(x->before, y->before);
		assert_true(span_eq(x->session, y->session));
		assert_int_equal(x->nhash, y->nhash);
		if (x->nhash > 0) {
			assert_memory_equal(x->hash_ids, y->hash_ids, x->nhash * sizeof(uint64_t));
			assert_int_equal(x->block_tokens, y->block_tokens);
		}
	}
	workload_release(&back);
	/* a header of something else, and rows that are not there */
	buf_clear(&header);
	assert_int_equal(buf_puts(&header, "trace_version: 9\n"), PD_OK);
	write_file(yaml, &header);
	assert_int_equal(workload_read(&back, yaml, NULL, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, ".yaml:1:16: 'trace_version' is '9', expected 2 or 3"));
	buf_clear(&header);
	assert_int_equal(buf_puts(&header, "trace_version: 3\n"), PD_OK);
	write_file(yaml, &header);
	assert_int_equal(unlink(csv), 0);
	assert_int_not_equal(workload_read(&back, yaml, NULL, &msg), PD_OK);
	assert_non_null(strstr(msg.text, csv));
	assert_int_equal(unlink(yaml), 0);
	workload_release(&w);
	buf_release(&header);
	buf_release(&rows);
}

/* Rows of a prefix group share the blocks of the prefix, rounds of a growing session all of theirs.
 */
static void tracev2_blocks(void **state)
{
	const struct workload_format *f = workload_format_find("tracev2-rows");
	struct workload_options o = {.tracev2_grows = true};
	struct pd_msg msg = {""};
	struct workload w;

	(void)state;
	parse_ok(&w, f->example);
	assert_int_equal(w.req[0].input_tokens, 48);
	assert_int_equal(w.req[0].arrival_ns, 1200000);
	assert_int_equal(w.req[1].arrival_ns, 2000000);
	assert_int_equal(w.req[1].delay_ns, 500000);
	assert_int_equal(w.req[0].nhash, 3);
	assert_int_equal(w.req[1].nhash, 4);
	assert_memory_equal(w.req[0].hash_ids, w.req[1].hash_ids, 2 * sizeof(uint64_t));
	assert_true(w.req[0].hash_ids[2] != w.req[1].hash_ids[2]);
	workload_release(&w);
	assert_int_equal(parse(&w, f->example, strlen(f->example), &o, &msg), PD_OK);
	assert_memory_equal(w.req[0].hash_ids, w.req[1].hash_ids, 3 * sizeof(uint64_t));
	workload_release(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_example),
		cmocka_unit_test(the_page_has_the_table),
		cmocka_unit_test(what_is_read),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(options),
		cmocka_unit_test(generated),
		cmocka_unit_test(tracev2_there_and_back),
		cmocka_unit_test(tracev2_blocks),
	};

	return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
