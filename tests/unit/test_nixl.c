/* The two phases: exact bytes for hand-made bodies, and for random ones that nothing else changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/pd/connector.h"

#define KV                                                                                         \
	"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
	"\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

extern const struct pd_connector pd_connector_nixl;

static struct pd_pair pair_of(enum pd_path path)
{
	return (struct pd_pair){.path = path, .id = SPAN("req-1"), .usage = PD_PREFILL_UNKNOWN};
}

/* The prefill copy of body; PD_OK or the error. */
static int prefill(const char *body, size_t n, enum pd_path path, struct buf *out,
		   struct pd_msg *msg)
{
	struct pd_pair p = pair_of(path);
	struct json_object o;
	struct pd_copy c;
	size_t total;
	int err;

	buf_clear(out);
	assert_int_equal(json_object_scan(&o, body, n, NULL), PD_OK);
	assert_int_equal(pd_copy_init(&c, &o, &p), PD_OK);
	err = pd_connector_nixl.prefill(&p, &c, msg);
	if (!err) {
		assert_int_equal(json_edit_finish(&c.body, &total), PD_OK);
		assert_int_equal(json_edit_copy(&c.body, out), PD_OK);
		assert_int_equal(out->len, total);
		assert_int_equal(json_validate(out->data, out->len, NULL), PD_OK);
	}
	pd_copy_release(&c);
	json_object_release(&o);
	return err;
}

struct edited {
	enum pd_path path;
	const char *body, *copy;
};

static const struct edited edited[] = {
	{PD_PATH_CHAT, "{}",
	 "{\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_COMPLETIONS, "{\"prompt\":\"a\"}",
	 "{\"prompt\":\"a\",\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_transfer_"
	 "params\":" KV "}"},
	/* numbers, escapes, order, blanks and unknown twins survive */
	{PD_PATH_CHAT,
	 " {\"seed\":18446744073709551615 , \"x\" : "
	 "9007199254740993,\"t\":0.30000000000000004,\"e\":1e400,\"n\":1.0,\n"
	 "\"messages\":[{\"content\":\"b\\u0000c \\u00e9 \\ud83d\\ude00 "
	 "max_tokens\"}],\"x\":1,\"X\":-0,\"max_tokens\" :\t 64 ,"
	 "\"stream\": true,\"min_tokens\":0}\r\n",
	 " {\"seed\":18446744073709551615 , \"x\" : "
	 "9007199254740993,\"t\":0.30000000000000004,\"e\":1e400,\"n\":1,\n"
	 "\"messages\":[{\"content\":\"b\\u0000c \\u00e9 \\ud83d\\ude00 "
	 "max_tokens\"}],\"x\":1,\"X\":-0,\"max_tokens\" :\t 1 ,"
	 "\"stream\": false,\"min_tokens\":1,\"kv_transfer_params\":" KV "}\r\n"},
	{PD_PATH_CHAT,
	 "{\"max_completion_tokens\":99,\"max_tokens\":null,\"min_tokens\":5,\"stream\":false}",
	 "{\"max_completion_tokens\":1,\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_"
	 "transfer_params\":" KV "}"},
	/* escaped spelling of a name is that name */
	{PD_PATH_CHAT, "{\"max\\u005ftokens\":7,\"min_tokens\":1,\"stre\\u0061m\":true}",
	 "{\"max\\u005ftokens\":1,\"min_tokens\":1,\"stre\\u0061m\":false,\"kv_transfer_"
	 "params\":" KV "}"},
	{PD_PATH_CHAT,
	 "{\"a\":1,\"stream_options\":{\"include_usage\":true},\"max_tokens\":2,\"min_tokens\":2,"
	 "\"stream\":true}",
	 "{\"a\":1,\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_transfer_params\":" KV
	 "}"},
	{PD_PATH_CHAT,
	 "{\"max_tokens\":2,\"min_tokens\":2,\"stream\":true,\"kv_transfer_params\":{\"remote_"
	 "host\":\"evil\"}}",
	 "{\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_transfer_params\":" KV "}"},
	/* names inside strings and nested objects are nobody's business */
	{PD_PATH_CHAT,
	 "{\"a\":{\"max_tokens\":5,\"stream\":true},\"b\":\"\\\"stream\\\":true\",\"max_tokens\":1,"
	 "\"min_tokens\":1,\"stream\":0}",
	 "{\"a\":{\"max_tokens\":5,\"stream\":true},\"b\":\"\\\"stream\\\":true\",\"max_tokens\":1,"
	 "\"min_tokens\":1,\"stream\":false,"
	 "\"kv_transfer_params\":" KV "}"},
	{PD_PATH_RESPONSES,
	 "{\"input\":\"a\",\"max_output_tokens\":5,\"stream\":true,\"max_tokens\":3}",
	 "{\"input\":\"a\",\"max_output_tokens\":1,\"stream\":false,\"max_tokens\":3,\"store\":"
	 "false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_RESPONSES, "{\"input\":\"a\"}",
	 "{\"input\":\"a\",\"max_output_tokens\":1,\"store\":false,\"stream\":false,"
	 "\"kv_transfer_params\":" KV "}"},
	{PD_PATH_MESSAGES, "{\"max_tokens\":7,\"stream\":true,\"store\":true}",
	 "{\"max_tokens\":1,\"stream\":false,\"store\":true,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_MESSAGES, "{\"stream\":false}",
	 "{\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_CHAT, "{\"n\":3,\"max_tokens\":5,\"min_tokens\":1,\"stream\":false}",
	 "{\"n\":1,\"max_tokens\":1,\"min_tokens\":1,\"stream\":false,\"kv_transfer_params\":" KV
	 "}"},
	{PD_PATH_GENERATE,
	 "{\"sampling_params\":{\"n\":3,\"max_tokens\":5,\"min_tokens\":2},\"stream\":false}",
	 "{\"sampling_params\":{\"n\":1,\"max_tokens\":1,\"min_tokens\":1},\"stream\":false,"
	 "\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"token_ids\":[1,2]}",
	 "{\"token_ids\":[1,2],\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":null,\"stream\":false}",
	 "{\"sampling_params\":null,\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":[],\"stream\":false}",
	 "{\"sampling_params\":[],\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":{ },\"stream\":false}",
	 "{\"sampling_params\":{ "
	 "\"max_tokens\":1,\"min_tokens\":1},\"stream\":false,\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"top_p\":0.10},\"stream\":false}",
	 "{\"sampling_params\":{\"top_p\":0.10,\"max_tokens\":1,\"min_tokens\":1},\"stream\":false,"
	 "\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"max_tokens\":9,\"top_p\":1},\"stream\":false}",
	 "{\"sampling_params\":{\"max_tokens\":1,\"top_p\":1,\"min_tokens\":1},\"stream\":false,"
	 "\"kv_transfer_params\":" KV "}"},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"min_tokens\":9},\"stream\":false}",
	 "{\"sampling_params\":{\"min_tokens\":1,\"max_tokens\":1},\"stream\":false,\"kv_transfer_"
	 "params\":" KV "}"},
	{PD_PATH_GENERATE,
	 "{\"sampling_params\":{\"min_tokens\":9,\"max_tokens\":9},\"max_tokens\":9,\"stream\":"
	 "false}",
	 "{\"sampling_params\":{\"min_tokens\":1,\"max_tokens\":1},\"max_tokens\":9,\"stream\":"
	 "false,\"kv_transfer_params\":" KV "}"},
};

static void prefill_copies_are_exact(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1 << 16);
	for (size_t i = 0; i < sizeof(edited) / sizeof(edited[0]); i++) {
		assert_int_equal(
			prefill(edited[i].body, strlen(edited[i].body), edited[i].path, &out, NULL),
			PD_OK);
		assert_string_equal(out.data, edited[i].copy);
	}
	buf_release(&out);
}

struct refused {
	enum pd_path path;
	const char *body, *word;
};

static const struct refused refused[] = {
	{PD_PATH_CHAT, "{\"max_tokens\":1,\"max_tokens\":2}", "\"max_tokens\""},
	{PD_PATH_CHAT, "{\"max_tokens\":1,\"max\\u005Ftokens\":2}", "\"max_tokens\""},
	{PD_PATH_CHAT, "{\"min_tokens\":1,\"min_tokens\":1}", "\"min_tokens\""},
	{PD_PATH_CHAT, "{\"max_completion_tokens\":1,\"max_completion_tokens\":1}",
	 "\"max_completion_tokens\""},
	{PD_PATH_CHAT, "{\"stream\":false,\"stream\":true}", "\"stream\""},
	{PD_PATH_CHAT, "{\"stream_options\":{},\"stream_options\":{}}", "\"stream_options\""},
	{PD_PATH_CHAT, "{\"kv_transfer_params\":{},\"kv_transfer_params\":{}}",
	 "\"kv_transfer_params\""},
	{PD_PATH_RESPONSES, "{\"max_output_tokens\":1,\"max_output_tokens\":1}",
	 "\"max_output_tokens\""},
	{PD_PATH_GENERATE, "{\"sampling_params\":{},\"sampling_params\":{}}",
	 "\"sampling_params\""},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"max_tokens\":1,\"max_tokens\":2}}",
	 "\"max_tokens\""},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"min_tokens\":1,\"min_tokens\":2}}",
	 "\"min_tokens\""},
	{PD_PATH_GENERATE, "{\"sampling_params\":{\"n\":1,\"n\":2}}", "\"n\""},
	{PD_PATH_CHAT, "{\"n\":1,\"n\":2}", "\"n\""},
};

static void twins_of_edited_fields_are_refused(void **state)
{
	struct pd_msg msg;
	struct buf out;

	(void)state;
	buf_init(&out, 1 << 16);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		msg.text[0] = '\0';
		assert_int_equal(prefill(refused[i].body, strlen(refused[i].body), refused[i].path,
					 &out, &msg),
				 PD_EINVAL);
		if (!strstr(msg.text, refused[i].word))
			fail_msg("case %zu: %s", i, msg.text);
	}
	buf_release(&out);
}

/* -- random bodies -- */

struct part {
	const char *key; /* as spelled */
	const char *value;
	const char *becomes; /* in the prefill copy; NULL: the member is gone */
};

static const struct part edited_parts[] = {
	{"max_tokens", "12", "1"},
	{"min\\u005ftokens", "0", "1"},
	{"max_completion_tokens", "3", "1"},
	{"stream", "true", "false"},
	{"stream_options", "{\"include_usage\" : true}", NULL},
	{"kv_transfer_params", "{}", KV},
};

static const struct part other_parts[] = {
	{"model", "\"m\"", "\"m\""},
	{"", "[]", "[]"},
	{"seed", "18446744073709551615", "18446744073709551615"},
	{"a", "\"\\u0000\\\\\\\"\"", "\"\\u0000\\\\\\\"\""},
	{"a", "{\"stream\":[true, {\"max_tokens\" :2}]}",
	 "{\"stream\":[true, {\"max_tokens\" :2}]}"},
	{"Max_tokens", "-0.0e+10", "-0.0e+10"},
	{"k\\\"ey", "null", "null"},
	{"\xc3\xa9", "\"\xf0\x9f\x98\x80\"", "\"\xf0\x9f\x98\x80\""},
};

static const char *const blanks[] = {"", " ", "\n", "\t ", "\r\n  "};

static void add(struct buf *b, const char *s)
{
	assert_int_equal(buf_puts(b, s), PD_OK);
}

static const char *blank(struct rng *r)
{
	return blanks[rng_below(r, sizeof(blanks) / sizeof(blanks[0]))];
}

/* A body of random members, each edited field at most once; order[] says which. Returns how many.
 */
static size_t random_body(struct rng *r, struct buf *body, const struct part **order)
{
	bool used[6] = {false};
	size_t n = (size_t)rng_below(r, 12), k;

	buf_clear(body);
	add(body, blank(r));
	add(body, "{");
	for (size_t i = 0; i < n; i++) {
		k = (size_t)rng_below(r, 6);
		if (rng_below(r, 2) || used[k]) {
			order[i] = &other_parts[rng_below(r, 8)];
		} else {
			used[k] = true;
			order[i] = &edited_parts[k];
		}
		assert_int_equal(buf_printf(body, "%s%s\"%s\"%s:%s%s%s", i ? "," : "", blank(r),
					    order[i]->key, blank(r), blank(r), order[i]->value,
					    blank(r)),
				 PD_OK);
	}
	add(body, "}");
	add(body, blank(r));
	return n;
}

/* Members in `o` from *at on must be the parts that stay, spelled as they were. */
static void check_members(const struct json_object *o, size_t *at, const struct part *const *order,
			  size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!order[i]->becomes)
			continue;
		assert_true(*at < o->n);
		assert_true(span_eq(o->member[*at].key, span_of(order[i]->key)));
		assert_true(span_eq(o->member[*at].value, span_of(order[i]->becomes)));
		(*at)++;
	}
}

static void random_bodies_keep_everything_else(void **state)
{
	static const char *const always[] = {"max_tokens", "min_tokens", "stream",
					     "kv_transfer_params"};
	const struct part *order[12];
	struct json_object before, after;
	struct buf body, out;
	struct rng r;

	(void)state;
	rng_seed(&r, 1);
	buf_init(&body, 1 << 16);
	buf_init(&out, 1 << 16);
	for (int round = 0; round < 3000; round++) {
		size_t n = random_body(&r, &body, order), at = 0;

		assert_int_equal(prefill(body.data, body.len, PD_PATH_CHAT, &out, NULL), PD_OK);
		assert_int_equal(json_object_scan(&before, body.data, body.len, NULL), PD_OK);
		assert_int_equal(json_object_scan(&after, out.data, out.len, NULL), PD_OK);
		check_members(&after, &at, order, n);
		for (size_t i = 0; i < 4; i++) {
			assert_int_equal(json_object_count(&after, always[i]), 1);
			at += json_object_count(&before, always[i]) == 0;
		}
		assert_int_equal(at, after.n);
		assert_int_equal(json_object_count(&after, "stream_options"), 0);
		json_object_release(&before);
		json_object_release(&after);
	}
	buf_release(&body);
	buf_release(&out);
}

/* -- decode -- */

static void decode_copy(const char *body, const char *params, struct buf *out)
{
	struct pd_pair p = pair_of(PD_PATH_CHAT);
	struct json_object o;
	struct pd_copy c;
	size_t total;

	buf_clear(out);
	assert_int_equal(json_object_scan(&o, body, strlen(body), NULL), PD_OK);
	p.params = span_of(params);
	p.blocks = p.params.n > 0;
	assert_int_equal(pd_copy_init(&c, &o, &p), PD_OK);
	assert_true(span_eq(c.id, p.id) && c.nadd == 0);
	assert_int_equal(pd_connector_nixl.decode(&p, &c, NULL), PD_OK);
	assert_int_equal(json_edit_finish(&c.body, &total), PD_OK);
	assert_int_equal(json_edit_copy(&c.body, out), PD_OK);
	pd_copy_release(&c);
	json_object_release(&o);
}

static void decode_gets_the_object_verbatim(void **state)
{
	const char *params =
		"{ \"remote_block_ids\":[[1,2]],\"x\":12345678901234567890, \"x\":\"\\u0000\"}";
	struct buf out;

	(void)state;
	buf_init(&out, 1 << 16);
	decode_copy("{\"stream\":true,\"max_tokens\":18446744073709551616 }\n", params, &out);
	assert_string_equal(
		out.data,
		"{\"stream\":true,\"max_tokens\":18446744073709551616 ,\"kv_transfer_params\":"
		"{ \"remote_block_ids\":[[1,2]],\"x\":12345678901234567890, \"x\":\"\\u0000\"}}\n");
	decode_copy("{\"kv_transfer_params\":{\"remote_host\":\"evil\"},\"a\":1}", "{\"r\":1}",
		    &out);
	assert_string_equal(out.data, "{\"kv_transfer_params\":{\"r\":1},\"a\":1}");
	decode_copy(" {\"a\" :1}", "", &out);
	assert_string_equal(out.data, " {\"a\" :1}");
	buf_release(&out);
}

/* -- what prefill answers -- */

static void prefill_results(void **state)
{
	static const char full[] = "{\"id\":\"x\",\"usage\":{\"prompt_tokens\":40,\"total_tokens\":"
				   "41,\"prompt_tokens_details\":"
				   "{\"cached_tokens\":32}},\"kv_transfer_params\":{\"remote_"
				   "blocks_expiry_time\":1763.25,\"do_remote_prefill\":true}}";
	static const char responses[] = "{\"usage\":{\"input_tokens\":7,\"input_tokens_"
					"details\":{\"cached_tokens\":0}}}";
	static const char *const without[] = {"{}",
					      "{\"kv_transfer_params\":null,\"usage\":null}",
					      "{\"kv_transfer_params\":{ },\"usage\":{}}",
					      "{\"kv_transfer_params\":{\"do_remote_prefill\":1},"
					      "\"usage\":[]}",
					      "{\"kv_transfer_params\":{\"do_remote_prefill\":true,"
					      "\"do_remote_prefill\":false}}",
					      "{\"kv_transfer_params\":{\"do_remote_decode\":true,"
					      "\"remote_block_ids\":[[1]]}}",
					      "{\"kv_transfer_params\":\"x\",\"usage\":[]}",
					      "{\"choices\":[{\"kv_transfer_params\":{\"a\":1}}]}"};
	static const char *const broken[] = {"", "[]", "{\"a\":1", "upstream failed", "{}x"};
	struct pd_pair r = pair_of(PD_PATH_CHAT);
	struct pd_msg msg;

	(void)state;
	assert_int_equal(
		pd_connector_nixl.answered(&r, (struct span){full, sizeof(full) - 1}, NULL), PD_OK);
	assert_true(span_eq(r.params, SPAN("{\"remote_blocks_expiry_time\":1763.25,"
					   "\"do_remote_prefill\":true}")));
	assert_true(r.usage.usage.n > 0 && r.usage.usage.p[0] == '{');
	assert_int_equal(r.usage.prompt_tokens, 40);
	assert_int_equal(r.usage.cached_tokens, 32);
	assert_int_equal(pd_connector_nixl.answered(
				 &r, (struct span){responses, sizeof(responses) - 1}, NULL),
			 PD_OK);
	assert_int_equal(r.usage.prompt_tokens, 7);
	assert_int_equal(r.usage.cached_tokens, 0);
	for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
		assert_int_equal(pd_connector_nixl.answered(
					 &r, (struct span){without[i], strlen(without[i])}, NULL),
				 PD_OK);
		assert_int_equal(r.params.n, 0);
		assert_int_equal(r.usage.usage.n, 0);
		assert_int_equal(r.usage.prompt_tokens, -1);
		assert_int_equal(r.usage.cached_tokens, -1);
	}
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		msg.text[0] = '\0';
		assert_int_not_equal(pd_connector_nixl.answered(
					     &r, (struct span){broken[i], strlen(broken[i])}, &msg),
				     PD_OK);
		assert_true(msg.text[0] != '\0');
	}
}

static void strange_numbers_are_unknown(void **state)
{
	static const char *const text[] = {"{\"usage\":{\"prompt_tokens\":-1}}",
					   "{\"usage\":{\"prompt_tokens\":1.5}}",
					   "{\"usage\":{\"prompt_tokens\":99999999999999999999}}",
					   "{\"usage\":{\"prompt_tokens\":\"7\"}}"};
	struct pd_pair r = pair_of(PD_PATH_CHAT);

	(void)state;
	for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
		assert_int_equal(pd_connector_nixl.answered(
					 &r, (struct span){text[i], strlen(text[i])}, NULL),
				 PD_OK);
		assert_int_equal(r.usage.prompt_tokens, -1);
	}
}

static void hidden_params_are_found(void **state)
{
	static const struct {
		const char *body;
		bool hidden;
	} table[] = {
		{"{\"vllm_xargs\":{\"kv_transfer_params\":{}}}", true},
		{"{\"extra_args\":{\"a\":1,\"kv_transfer_params\":null}}", true},
		{"{\"sampling_params\":{\"extra_args\":{\"kv_transfer_params\":{}}}}", true},
		{"{\"sampling_params\":{\"kv_transfer_params\":{}}}", true},
		{"{\"vllm_xargs\":{\"kv\\u005ftransfer_params\":{}}}", true},
		{"{\"vllm\\u005fxargs\":{\"kv_transfer_params\":{}}}", true},
		{"{\"vllm_xargs\":{\"kv_transfer_params\":{}},\"vllm_xargs\":{}}", true},
		{"{\"vllm_xargs\":{},\"vllm_xargs\":{\"kv_transfer_params\":{}}}", true},
		{"{\"sampling_params\":{\"extra_args\":{},\"extra_args\":{\"kv_transfer_params\":1}"
		 "}}",
		 true},
		{"{\"kv_transfer_params\":{}}", false},
		{"{\"vllm_xargs\":\"kv_transfer_params\"}", false},
		{"{\"vllm_xargs\":{\"a\":\"kv_transfer_params\"}}", false},
		{"{\"messages\":[{\"kv_transfer_params\":{}}],\"vllm_xargs\":{}}", false},
		{"{}", false},
	};

	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct json_object o;

		assert_int_equal(json_object_scan(&o, table[i].body, strlen(table[i].body), NULL),
				 PD_OK);
		msg.text[0] = '\0';
		assert_int_equal(pd_connector_nixl.check(&o, &msg),
				 table[i].hidden ? PD_EINVAL : PD_OK);
		assert_int_equal(msg.text[0] != '\0', table[i].hidden);
		json_object_release(&o);
	}
}

/* A release is the decode of one token with the blocks. */
static void release_is_a_short_decode(void **state)
{
	struct pd_pair p = pair_of(PD_PATH_CHAT);
	struct json_object o;
	struct pd_copy c;
	struct buf out;
	size_t total;

	(void)state;
	p.params = SPAN("{\"r\":1}");
	p.blocks = true;
	buf_init(&out, 1 << 16);
	assert_int_equal(json_object_scan(&o, "{\"stream\":true}", 15, NULL), PD_OK);
	assert_int_equal(pd_copy_init(&c, &o, &p), PD_OK);
	assert_int_equal(pd_connector_nixl.release(&p, &c, NULL), PD_OK);
	assert_int_equal(json_edit_finish(&c.body, &total), PD_OK);
	assert_int_equal(json_edit_copy(&c.body, &out), PD_OK);
	assert_string_equal(out.data, "{\"stream\":false,\"max_tokens\":1,\"min_tokens\":1,"
				      "\"kv_transfer_params\":{\"r\":1}}");
	pd_copy_release(&c);
	json_object_release(&o);
	buf_release(&out);
}

static void each_connector_is_found_by_its_name(void **state)
{
	const struct pd_connector *found;
	struct pd_msg msg = {0};
	struct buf names;

	(void)state;
	buf_init(&names, 1 << 16);
	assert_int_equal(pd_connectors_print(&names), PD_OK);
	for (size_t i = 0; pd_connectors[i]; i++) {
		const struct pd_connector *c = pd_connectors[i];

		assert_string_equal(pd_connector_names[i], c->name);
		assert_int_equal(pd_connector_find(&found, c->name, NULL), PD_OK);
		assert_ptr_equal(found, c);
		assert_non_null(strstr(names.data, c->name));
		assert_true(c->help && c->prefill && c->answered && c->decode);
	}
	assert_int_equal(pd_connector_find(&found, "nixll", &msg), PD_EINVAL);
	assert_non_null(
		strstr(msg.text, "unknown connector 'nixll', did you mean 'nixl'? expected nixl"));
	assert_int_equal(pd_connector_find(&found, "", &msg), PD_EINVAL);
	buf_release(&names);
}

static void paths(void **state)
{
	static const struct {
		const char *path;
		enum pd_path is;
	} table[] = {
		{"/v1/chat/completions", PD_PATH_CHAT},
		{"/v1/completions", PD_PATH_COMPLETIONS},
		{"/v1/responses", PD_PATH_RESPONSES},
		{"/v1/messages", PD_PATH_MESSAGES},
		{"/inference/v1/generate", PD_PATH_GENERATE},
		/* whole paths, no parts of them */
		{"/v1/chat/completions/batch", PD_PATH_OTHER},
		{"/v1/chat/completions/render", PD_PATH_OTHER},
		{"/v1/completions/render", PD_PATH_OTHER},
		{"/v1/responses/resp_1", PD_PATH_OTHER},
		{"/v1/responses/resp_1/cancel", PD_PATH_OTHER},
		{"/v1/messages/count_tokens", PD_PATH_OTHER},
		{"/x/v1/completions", PD_PATH_OTHER},
		{"/inference/v1/generate/x", PD_PATH_OTHER},
		{"/v1/embeddings", PD_PATH_OTHER},
		{"/", PD_PATH_OTHER},
		{"", PD_PATH_OTHER},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(pd_path_of(span_of(table[i].path)), table[i].is);
	assert_int_equal(pd_path_of((struct span){NULL, 0}), PD_PATH_OTHER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefill_copies_are_exact),
		cmocka_unit_test(twins_of_edited_fields_are_refused),
		cmocka_unit_test(random_bodies_keep_everything_else),
		cmocka_unit_test(decode_gets_the_object_verbatim),
		cmocka_unit_test(prefill_results),
		cmocka_unit_test(strange_numbers_are_unknown),
		cmocka_unit_test(hidden_params_are_found),
		cmocka_unit_test(release_is_a_short_decode),
		cmocka_unit_test(each_connector_is_found_by_its_name),
		cmocka_unit_test(paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
