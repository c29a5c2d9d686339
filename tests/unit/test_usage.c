/* Usage of both legs: exact bytes, in whole responses and in events; what is right already is not
 * touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/pd/usage.h"

struct merge_case {
	const char *
		prefill; /* the usage of the prefill response, or NULL for a response without one */
	const char *decode, *merged; /* merged NULL: unchanged */
};

static const struct merge_case cases[] = {
	/* chat, whole response: numbers, details and total; every other byte stays */
	{"{\"prompt_tokens\":40,\"completion_tokens\":1,\"total_tokens\":41,\"prompt_tokens_"
	 "details\":{\"cached_tokens\":32}}",
	 "{\"id\":\"x\",\"n\":1.0, \"usage\" : {\"prompt_tokens\": 41,\"completion_tokens\":7, "
	 "\"total_tokens\":48,"
	 "\"prompt_tokens_details\":{\"cached_tokens\":40}} ,\"z\":\"\\u0000\"}\n",
	 "{\"id\":\"x\",\"n\":1.0, \"usage\" : {\"prompt_tokens\": 40,\"completion_tokens\":7, "
	 "\"total_tokens\":47,"
	 "\"prompt_tokens_details\":{\"cached_tokens\":32}} ,\"z\":\"\\u0000\"}\n"},
	/* details come whole */
	{"{\"prompt_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":2}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":4}}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":2}}}"},
	{"{\"prompt_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":3}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":null}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":3}}}"},
	{"{\"prompt_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":3}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":3}}}"},
	/* the Anthropic form: whole, its first event, and the one that counts the output only */
	{"{\"input_tokens\":9,\"output_tokens\":1,\"cache_read_input_tokens\":31,\"cache_creation_"
	 "input_tokens\":null}",
	 "{\"type\":\"message\",\"usage\":{\"input_tokens\":0,\"output_tokens\":5,\"cache_creation_"
	 "input_tokens\":0,\"cache_read_input_tokens\":40}}",
	 "{\"type\":\"message\",\"usage\":{\"input_tokens\":9,\"output_tokens\":5,\"cache_creation_"
	 "input_tokens\":null,\"cache_read_input_tokens\":31}}"},
	{"{\"input_tokens\":9,\"output_tokens\":1,\"cache_read_input_tokens\":31}",
	 "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":"
	 "0,\"cache_read_input_tokens\":40}}}",
	 "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":"
	 "0,\"cache_read_input_tokens\":31}}}"},
	{"{\"input_tokens\":9,\"output_tokens\":1,\"cache_read_input_tokens\":31}",
	 "{\"type\":\"message_delta\",\"usage\":{\"output_tokens\":5}}", NULL},
	{"{\"input_tokens\":9,\"output_tokens\":1}",
	 "{\"usage\":{\"input_tokens\":9,\"output_tokens\":5,\"cache_read_input_tokens\":4}}",
	 NULL},
	/* nothing to change */
	{"{\"prompt_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":3}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":3}}}",
	 NULL},
	{"{\"prompt_tokens\":4}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5}}", NULL},
	{"{\"prompt_tokens\":4,\"prompt_tokens_details\":null}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":null}}",
	 NULL},
	/* prefill names no cached tokens: decode's go, the rest of the details stays */
	{"{\"prompt_tokens\":4}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{\"cached_tokens\":4}}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{}}}"},
	{NULL,
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{ \"cached_tokens\":4 , \"a\":1}}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5,\"prompt_"
	 "tokens_details\":{ \"a\":1}}}"},
	{NULL,
	 "{\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4,\"prompt_tokens_details\":{\"a\":1, "
	 "\"cached_tokens\":4, \"b\":2}}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4,\"prompt_tokens_details\":{\"a\":1, "
	 "\"b\":2}}}"},
	{NULL,
	 "{\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4,\"prompt_tokens_details\":{\"a\":1, "
	 "\"cached_tokens\":4}}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4,\"prompt_tokens_details\":{\"a\":1}}"
	 "}"},
	{NULL,
	 "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":1,\"cached\\u005ftokens\":2,"
	 "\"a\":1,\"cached_tokens\":3,\"cached_tokens\":4}}}",
	 "{\"usage\":{\"prompt_tokens_details\":{\"a\":1}}}"},
	{NULL, "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":1,\"cached_tokens\":2}}}",
	 "{\"usage\":{\"prompt_tokens_details\":{}}}"},
	/* without prefill's count decode's stays, and the total agrees with it */
	{NULL, "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2,\"total_tokens\":9}}",
	 "{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2,\"total_tokens\":6}}"},
	/* no completion tokens yet */
	{"{\"prompt_tokens\":9}", "{\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4}}",
	 "{\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}"},
	/* the responses API, as a document and as an event */
	{"{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16},\"output_tokens\":1,"
	 "\"total_tokens\":31}",
	 "{\"usage\":{\"input_tokens\":31,\"input_tokens_details\":{\"cached_tokens\":30},\"output_"
	 "tokens\":5,\"output_tokens_details\":"
	 "{\"reasoning_tokens\":2},\"total_tokens\":36}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16},\"output_"
	 "tokens\":5,\"output_tokens_details\":"
	 "{\"reasoning_tokens\":2},\"total_tokens\":35}}"},
	{"{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16}}",
	 "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":"
	 "31,\"input_tokens_details\":"
	 "{\"cached_tokens\":30},\"output_tokens\":5,\"total_tokens\":36}},\"sequence_number\":9}",
	 "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":"
	 "30,\"input_tokens_details\":"
	 "{\"cached_tokens\":16},\"output_tokens\":5,\"total_tokens\":35}},\"sequence_number\":9}"},
	/* a prefill leg in the other dialect still gives its numbers */
	{"{\"prompt_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":16}}",
	 "{\"usage\":{\"input_tokens\":31,\"input_tokens_details\":{\"cached_tokens\":30,\"a\":1},"
	 "\"output_tokens\":5,\"total_tokens\":36}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16,\"a\":1},"
	 "\"output_tokens\":5,\"total_tokens\":35}}"},
	{"{\"prompt_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":16}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":{},\"output_tokens\":5,\"total_"
	 "tokens\":35}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16},\"output_"
	 "tokens\":5,\"total_tokens\":35}}"},
	{"{\"prompt_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":16}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":null,\"output_tokens\":5,"
	 "\"total_tokens\":35}}",
	 "{\"usage\":{\"input_tokens\":30,\"input_tokens_details\":{\"cached_tokens\":16},\"output_"
	 "tokens\":5,\"total_tokens\":35}}"},
	{"{\"prompt_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":16}}",
	 "{\"usage\":{\"input_tokens\":30,\"output_tokens\":5,\"total_tokens\":35}}",
	 "{\"usage\":{\"input_tokens\":30,\"output_tokens\":5,\"total_tokens\":35,\"input_tokens_"
	 "details\":{\"cached_tokens\":16}}}"},
	/* the last event of a chat stream, and events without usage */
	{"{\"prompt_tokens\":40,\"prompt_tokens_details\":{\"cached_tokens\":32}}",
	 "{\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"total_tokens\":47,\"completion_"
	 "tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":39}}}",
	 "{\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"total_tokens\":47,\"completion_"
	 "tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":32}}}"},
	{"{\"prompt_tokens\":40}", "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}",
	 NULL},
	{"{\"prompt_tokens\":40}", "{\"choices\":[{\"usage\":{\"prompt_tokens\":1}}]}", NULL},
	{"{\"prompt_tokens\":40}", "{\"usage\":[{\"prompt_tokens\":1}]}", NULL},
	{"{\"prompt_tokens\":40}", "[DONE]", NULL},
	{"{\"prompt_tokens\":40}", "{\"usage\":{\"prompt_tokens\":1}", NULL},
	{"{\"prompt_tokens\":40}", "", NULL},
	/* numbers that cannot be added are left */
	{"{\"prompt_tokens\":40}",
	 "{\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":9223372036854775807,\"total_"
	 "tokens\":1}}",
	 NULL},
};

static void usages_merge_exactly(void **state)
{
	struct pd_prefill_usage r;
	struct json_object o;
	struct buf body, out;
	bool changed;

	(void)state;
	buf_init(&body, 1 << 16);
	buf_init(&out, 1 << 16);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct merge_case *c = &cases[i];

		buf_clear(&body);
		buf_clear(&out);
		assert_int_equal(
			buf_printf(&body, c->prefill ? "{\"usage\":%s}" : "{}", c->prefill), PD_OK);
		assert_int_equal(json_object_scan(&o, body.data, body.len, NULL), PD_OK);
		pd_usage_of_prefill(&r, &o);
		json_object_release(&o);
		assert_int_equal(pd_usage_merge(c->decode, strlen(c->decode), &r, &out, &changed),
				 PD_OK);
		if (changed != (c->merged != NULL))
			fail_msg("case %zu: changed %d", i, changed);
		if (changed)
			assert_string_equal(out.data, c->merged);
		else
			assert_int_equal(out.len, 0);
	}
	buf_release(&body);
	buf_release(&out);
}

/* The caller may have kept the numbers and not the text of the prefill response. */
static void numbers_alone_suffice(void **state)
{
	const struct pd_prefill_usage r = {.prompt_tokens = 10,
					   .cached_tokens = 9223372036854775807};
	static const char doc[] = "{\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":1,"
				  "\"prompt_tokens_details\":{\"cached_tokens\":10}}}";
	struct buf out;
	bool changed;

	(void)state;
	buf_init(&out, 1 << 16);
	assert_int_equal(buf_puts(&out, "data: "), PD_OK);
	assert_int_equal(pd_usage_merge(doc, sizeof(doc) - 1, &r, &out, &changed), PD_OK);
	assert_true(changed);
	assert_string_equal(out.data, "data: "
				      "{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1,"
				      "\"prompt_tokens_details\":"
				      "{\"cached_tokens\":9223372036854775807}}}");
	buf_release(&out);
	buf_init(&out, 10);
	assert_int_equal(pd_usage_merge(doc, sizeof(doc) - 1, &r, &out, &changed), PD_ETOOBIG);
	assert_false(changed);
	buf_release(&out);
}

static void the_quick_test_misses_nothing(void **state)
{
	static const char *const none[] = {"",
					   "{\"a\":1}",
					   "{\"usage\":null}",
					   "{\"usage\" : null}",
					   "\"usage\"",
					   "{\"content\":\"\\\"usage\\\":{\"}"};

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(pd_usage_maybe(none[i], strlen(none[i])));
	assert_true(pd_usage_maybe("{\"usage\":null,\"response\":{\"usage\"\n: {}}}", 40));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (cases[i].merged)
			assert_true(pd_usage_maybe(cases[i].decode, strlen(cases[i].decode)));
}

static void tokens_are_read_from_the_end(void **state)
{
	static const struct {
		const char *piece;
		struct pd_tokens want;
	} pieces[] = {
		{"{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12,"
		 "\"prompt_tokens_details\":{\"cached_tokens\":4}},\"x\":{}}",
		 {9, 3, 4}},
		{"{\"usage\" :\t{ \"output_tokens\" : 3 , \"input_tokens\" : 9,\r\n\"input_tokens_"
		 "details\":{\"cached_tokens\":0}}}",
		 {9, 3, 0}},
		/* of several the last, and what only an earlier one says */
		{"data: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\ndata: "
		 "{\"usage\":"
		 "{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
		 {9, 2, -1}},
		{"data: "
		 "{\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":0}}}\n\ndata: "
		 "{\"usage\":{\"output_tokens\":5}}\n\n",
		 {9, 5, -1}},
		{"{\"usage\":{\"prompt_tokens\":1,\"prompt_tokens\":9,\"completion_tokens\":3}}",
		 {9, 3, -1}},
		/* cut: not what may go on */
		{"{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12", {9, -1, -1}},
		{"{\"usage\":{\"prompt_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4",
		 {9, -1, -1}},
		{"{\"usage\":{", {-1, -1, -1}},
		/* no counts */
		{"{\"usage\":null}", {-1, -1, -1}},
		{"{\"usage\":{\"prompt_tokens\":-9,\"completion_tokens\":1.5,\"prompt_tokens_"
		 "details\":"
		 "[{\"cached_tokens\":4}]}}",
		 {-1, -1, -1}},
		{"{\"my_usage\":{\"prompt_tokens\":9}}", {-1, -1, -1}},
		{"{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}", {-1, -1, -1}},
		{":{\"prompt_tokens\":9}", {-1, -1, -1}},
		{"", {-1, -1, -1}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct pd_tokens t = PD_TOKENS_UNKNOWN, before = {70, 71, 72};
		const struct pd_tokens *want = &pieces[i].want;
		size_t n = strlen(pieces[i].piece);
		char *exact = malloc(n ? n : 1); /* a sanitizer sees a look beyond it */

		assert_non_null(exact);
		memcpy(exact, pieces[i].piece, n);
		pd_usage_tokens(&t, exact, n);
		assert_int_equal(t.prompt, want->prompt);
		assert_int_equal(t.completion, want->completion);
		assert_int_equal(t.cached, want->cached);
		/* What a piece does not say stays. */
		pd_usage_tokens(&before, exact, n);
		assert_int_equal(before.prompt, want->prompt < 0 ? 70 : want->prompt);
		assert_int_equal(before.completion, want->completion < 0 ? 71 : want->completion);
		assert_int_equal(before.cached, want->cached < 0 ? 72 : want->cached);
		free(exact);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usages_merge_exactly),
		cmocka_unit_test(numbers_alone_suffice),
		cmocka_unit_test(the_quick_test_misses_nothing),
		cmocka_unit_test(tokens_are_read_from_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
