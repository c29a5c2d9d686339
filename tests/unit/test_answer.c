/*
 * What counts as a token and how a stream may end. Each stream is fed whole, byte by byte and cut
 * in two at every place: the figures must not depend on how the bytes arrived (all pieces of one
 * feed carry its time, so only counts are compared then).
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/load/answer.h"

#define ROLE                                                                                       \
	"data: "                                                                                   \
	"{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define A    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n"
#define STOP "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define USAGE                                                                                      \
	"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,"            \
	"\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"

struct stream {
	const char *text;
	const char *failure; /* NULL: success */
	int64_t pieces, prompt, completion, cached;
};

static const struct stream streams[] = {
	{ROLE A A STOP USAGE DONE, NULL, 2, 7, 3, 4},
	{ROLE A A STOP, NULL, 2, -1, -1, -1},
	{ROLE A A STOP DONE, NULL, 2, -1, -1, -1},
	{": comment\r\n\r\n" ROLE "event: x\nid: 1\n" A STOP DONE, NULL, 1, -1, -1, -1},
	/* a server that stops in the middle says [DONE] too */
	{ROLE A A DONE, "no_finish", 2, -1, -1, -1},
	{ROLE A A, "truncated", 2, -1, -1, -1},
	{ROLE, "truncated", 0, -1, -1, -1},
	{"", "truncated", 0, -1, -1, -1},
	{A STOP "data: {\"cho", "truncated", 1, -1, -1, -1},
	/* nothing was generated */
	{DONE, "no_token", 0, -1, -1, -1},
	{ROLE STOP DONE, "no_token", 0, -1, -1, -1},
	{ROLE STOP USAGE DONE, "no_token", 0, 7, 3, 4},
	{"data: "
	 "{\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[]}}],\"error\":null}\n\n" STOP
		 DONE,
	 "no_token", 0, -1, -1, -1},
	/* one of two choices never finishes */
	{"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n" A STOP DONE,
	 "no_finish", 2, -1, -1, -1},
	{"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":"
	 "\"stop\"}]}\n\n" A STOP DONE,
	 NULL, 2, -1, -1, -1},
	{A "data: {\"error\":{\"message\":\"KV gone\",\"code\":500}}\n\n" STOP DONE, "stream_error",
	 1, -1, -1, -1},
	{A "event: error\ndata: {\"why\":1}\n\n" STOP DONE, "stream_error", 1, -1, -1, -1},
	/* errors that nothing wraps */
	{A "data: {\"object\":\"error\",\"message\":\"KV gone\",\"code\":500}\n\n" STOP DONE,
	 "stream_error", 1, -1, -1, -1},
	{A "data: {\"message\":\"KV gone\",\"type\":\"InternalServerError\",\"code\":500}\n\n" STOP
		 DONE,
	 "stream_error", 1, -1, -1, -1},
	{A "data: {\"detail\":\"gone\"}\n\n" STOP DONE, "stream_error", 1, -1, -1, -1},
	{A "data: {\"type\":\"error\"}\n\n" STOP DONE, "stream_error", 1, -1, -1, -1},
	{A "data: {broken\n\n" A STOP DONE, "bad_event", 2, -1, -1, -1},
	{A "data: [1]\n\n" A STOP DONE, "bad_event", 2, -1, -1, -1},
	{"data: {\"choices\":[{\"text\":\"x\"}]}\n\ndata: "
	 "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n" DONE,
	 NULL, 1, -1, -1, -1},
	{"data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n" STOP DONE, NULL, 1,
	 -1, -1, -1},
	{"data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n" STOP DONE, NULL, 1, -1, -1,
	 -1},
	{"data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[{}]}}]}\n\n" STOP DONE,
	 NULL, 1, -1, -1, -1},
	{A "data: {\"choices\":[],\"unknown\":{\"message\":\"x\"}}\n\n" STOP DONE, NULL, 1, -1, -1,
	 -1},
};

static void begin(struct answer *a)
{
	answer_clear(a);
	a->status = 200;
	a->streamed = true;
}

static void check(const struct answer *a, const struct stream *s, size_t i, size_t cut)
{
	if ((a->failure == NULL) != (s->failure == NULL) ||
	    (s->failure && strcmp(a->failure, s->failure) != 0) || a->pieces != s->pieces ||
	    a->prompt_tokens != s->prompt || a->completion_tokens != s->completion ||
	    a->cached_tokens != s->cached)
		fail_msg("stream %zu cut at %zu: failure %s, %lld pieces", i, cut,
			 a->failure ? a->failure : "none", (long long)a->pieces);
	if (s->failure)
		assert_true(a->error[0] != '\0');
	assert_int_equal(a->ngaps, a->pieces > 0 ? a->pieces - 1 : 0);
}

static void every_cut(void **state)
{
	struct answer a;

	(void)state;
	answer_init(&a, ANSWER_CHOICES, false);
	for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
		const char *text = streams[i].text;
		size_t n = strlen(text);

		for (size_t cut = 0; cut <= n; cut++) {
			begin(&a);
			answer_feed(&a, text, cut, 10);
			answer_feed(&a, text + cut, n - cut, 20);
			answer_end(&a, 30, true);
			check(&a, &streams[i], i, cut);
		}
		begin(&a);
		for (size_t k = 0; k < n; k++)
			answer_feed(&a, text + k, 1, (int64_t)k);
		answer_end(&a, 1000000, true);
		check(&a, &streams[i], i, n + 1);
	}
	answer_release(&a);
}

static void feed(struct answer *a, const char *text, int64_t now)
{
	answer_feed(a, text, strlen(text), now);
}

static void times_and_tokens(void **state)
{
	struct answer a;
	size_t n;
	struct result_gap *gap;

	(void)state;
	answer_init(&a, ANSWER_CHOICES, true);
	begin(&a);
	answer_feed(&a, ROLE, strlen(ROLE), 100);
	assert_int_equal(a.first_token_ns, -1);
	feed(&a,
	     "data: {\"choices\":[{\"delta\":{\"content\":\"a "
	     "\\u00e9\"}}],\"usage\":{\"completion_tokens\":2}}\n\n",
	     200);
	feed(&a,
	     "data: "
	     "{\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":{\"completion_tokens\":5}}"
	     "\n\n",
	     250);
	feed(&a,
	     "data: "
	     "{\"choices\":[{\"delta\":{\"content\":\"\"}}],\"usage\":{\"completion_tokens\":6}}"
	     "\n\n",
	     270);
	feed(&a,
	     "data: "
	     "{\"choices\":[{\"delta\":{\"content\":\"c\"}}],\"usage\":{\"completion_tokens\":7}}"
	     "\n\n",
	     300);
	answer_feed(&a, A STOP DONE, strlen(A STOP DONE), 310);
	answer_end(&a, 400, true);
	assert_null(a.failure);
	assert_int_equal(a.first_token_ns, 200);
	assert_int_equal(a.last_token_ns, 310);
	assert_int_equal(a.first_tokens, 2);
	/* as it was escaped: the inside of a JSON string */
	assert_string_equal(a.text.data, "a \\u00e9bca");
	assert_int_equal(answer_basis(&a), RESULT_BASIS_USAGE);
	gap = answer_take_gaps(&a, &n);
	assert_int_equal(n, 3);
	assert_int_equal(gap[0].ns, 50);
	assert_int_equal(gap[0].tokens, 3);
	assert_int_equal(gap[1].ns, 50);
	assert_int_equal(gap[1].tokens, 2);
	assert_int_equal(gap[2].tokens, -1);
	free(gap);
	answer_release(&a);
}

static void connection_lost_in_the_middle(void **state)
{
	struct answer a;

	(void)state;
	answer_init(&a, ANSWER_CHOICES, false);
	begin(&a);
	answer_feed(&a, A A, strlen(A A), 5);
	answer_end(&a, 6, false);
	assert_string_equal(a.failure, "truncated");
	/* the next stream in the same slot starts clean */
	begin(&a);
	feed(&a, "data: {\"ch", 5);
	answer_end(&a, 6, false);
	begin(&a);
	answer_feed(&a, A STOP DONE, strlen(A STOP DONE), 7);
	answer_end(&a, 8, true);
	assert_null(a.failure);
	assert_int_equal(a.pieces, 1);
	answer_release(&a);
}

static const struct {
	int status;
	bool embeddings;
	const char *body, *failure, *error;
} bodies[] = {
	{200, false,
	 "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{"
	 "\"prompt_tokens\":1}}",
	 NULL, ""},
	{200, false, "{\"choices\":[{\"text\":\"hi\"}]}", NULL, ""},
	{200, false, "{\"choices\":[{\"text\":\"\"}]}", "no_token", "no text"},
	{200, false, "{\"choices\":[{\"text\":\"\"}],\"usage\":{\"completion_tokens\":1}}", NULL,
	 ""},
	{200, false, "{\"error\":{\"message\":\"no luck\"}}", "error_answer", "no luck"},
	{200, false, "{\"object\":\"error\",\"message\":\"no luck\"}", "error_answer", "no luck"},
	{200, false, "<html>down</html>", "bad_answer", "found '<'"},
	{200, false, "{\"choices\":[]}", "bad_answer", "without \"choices\""},
	{200, false, "{\"data\":[1]}", "bad_answer", "without \"choices\""},
	{200, true, "{\"data\":[{\"embedding\":[1]}]}", NULL, ""},
	{200, true, "{\"choices\":[{}]}", "bad_answer", "without \"data\""},
	{200, false, "{\"choices\":[{", "bad_answer", "found"},
	{200, false, "", "bad_answer", "found"},
	{500, false, "{\"error\":{\"message\":\"no luck\"}}", "http", "\"no luck\""},
	{422, false, "{\"detail\":\"wrong\"}", "http", "\"wrong\""},
	{503, false, "busy", "http", "busy"},
	{503, false, "", "http", ""},
	{204, false, "", "http", ""},
};

static void whole_bodies(void **state)
{
	struct answer a;

	(void)state;
	answer_init(&a, ANSWER_CHOICES, false);
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		answer_clear(&a);
		a.api = bodies[i].embeddings ? ANSWER_EMBEDDINGS : ANSWER_CHOICES;
		a.status = bodies[i].status;
		answer_feed(&a, bodies[i].body, strlen(bodies[i].body), 50);
		answer_end(&a, 60, true);
		if ((a.failure == NULL) != (bodies[i].failure == NULL) ||
		    (a.failure && strcmp(a.failure, bodies[i].failure) != 0) ||
		    !strstr(a.error, bodies[i].error))
			fail_msg("body %zu: failure %s, error %s", i,
				 a.failure ? a.failure : "none", a.error);
		assert_int_equal(a.first_token_ns, -1);
		assert_int_equal(a.last_token_ns,
				 a.status == 200 && strncmp(bodies[i].body, "{\"", 2) == 0 &&
						 bodies[i].body[strlen(bodies[i].body) - 1] == '}'
					 ? 60
					 : -1);
	}
	answer_release(&a);
}

/* The server states its count at the end only: the pieces share it, and the mean gap is per token.
 */
static void a_late_count_is_shared(void **state)
{
	struct answer a;
	struct result_gap *gap;
	int64_t tokens = 0;
	size_t n;

	(void)state;
	answer_init(&a, ANSWER_CHOICES, false);
	begin(&a);
	feed(&a, A, 100);
	feed(&a, A, 200);
	feed(&a, A, 300);
	feed(&a, STOP "data: {\"choices\":[],\"usage\":{\"completion_tokens\":10}}\n\n" DONE, 310);
	answer_end(&a, 400, true);
	assert_null(a.failure);
	assert_int_equal(answer_basis(&a), RESULT_BASIS_USAGE_LAST);
	tokens = a.first_tokens;
	gap = answer_take_gaps(&a, &n);
	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++) {
		assert_in_range(gap[i].tokens, 3, 4);
		tokens += gap[i].tokens;
	}
	assert_int_equal(tokens, 10);
	free(gap);
	begin(&a);
	feed(&a, A A STOP DONE, 100);
	answer_end(&a, 100, true);
	assert_int_equal(answer_basis(&a), RESULT_BASIS_CHUNKS);
	answer_release(&a);
}

static const struct {
	enum answer_api api;
	const char *text, *failure, *said;
	int64_t pieces, prompt, completion, cached;
} others[] = {
	{ANSWER_RESPONSES,
	 "event: response.created\ndata: "
	 "{\"type\":\"response.created\",\"response\":{\"error\":null}}"
	 "\n\nevent: response.output_text.delta\ndata: "
	 "{\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\ndata: "
	 "{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,"
	 "\"output_tokens\":2,\"input_tokens_details\":{\"cached_tokens\":4}}}}\n\n",
	 NULL, "hi", 1, 5, 2, 4},
	{ANSWER_RESPONSES, "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n",
	 "truncated", "hi", 1, -1, -1, -1},
	{ANSWER_RESPONSES,
	 "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\ndata: "
	 "{\"type\":\"response.failed\",\"response\":{\"error\":{\"message\":\"no\"}}}\n\n",
	 "stream_error", "hi", 1, -1, -1, -1},
	{ANSWER_MESSAGES,
	 "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,"
	 "\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\ndata: "
	 "{\"type\":\"ping\"}\n\ndata: "
	 "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"yo\"}}"
	 "\n\ndata: "
	 "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{"
	 "\"output_tokens\":7}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
	 NULL, "yo", 1, 9, 7, 3},
	{ANSWER_MESSAGES,
	 "event: error\ndata: "
	 "{\"type\":\"error\",\"error\":{\"message\":\"overloaded\"}}\n\n",
	 "stream_error", NULL, 0, -1, -1, -1},
};

static void other_interfaces(void **state)
{
	struct answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		for (size_t cut = 0; cut <= strlen(others[i].text); cut++) {
			answer_init(&a, others[i].api, true);
			begin(&a);
			answer_feed(&a, others[i].text, cut, 1);
			feed(&a, others[i].text + cut, 2);
			answer_end(&a, 3, true);
			if ((a.failure == NULL) != (others[i].failure == NULL) ||
			    (a.failure && strcmp(a.failure, others[i].failure) != 0))
				fail_msg("stream %zu: failure %s", i,
					 a.failure ? a.failure : "none");
			assert_int_equal(a.pieces, others[i].pieces);
			assert_int_equal(a.prompt_tokens, others[i].prompt);
			assert_int_equal(a.completion_tokens, others[i].completion);
			assert_int_equal(a.cached_tokens, others[i].cached);
			if (others[i].said)
				assert_string_equal(a.text.data, others[i].said);
			answer_release(&a);
		}
}

static void huge_error_page_is_bounded(void **state)
{
	static char page[100000];
	struct answer a;

	(void)state;
	memset(page, 'x', sizeof(page));
	answer_init(&a, ANSWER_CHOICES, false);
	a.status = 500;
	for (int i = 0; i < 100; i++)
		answer_feed(&a, page, 1000, 1);
	answer_end(&a, 2, true);
	assert_string_equal(a.failure, "http");
	assert_true(a.body.len <= 65536);
	assert_int_equal(strlen(a.error), 250);
	answer_release(&a);
}

static void assert_same(const struct answer *a, const struct answer *b, const char *event)
{
	if (a->pieces != b->pieces || a->failure != b->failure || a->begun != b->begun ||
	    a->finished != b->finished || a->done != b->done || a->text.len != b->text.len ||
	    memcmp(a->text.data ? a->text.data : "", b->text.data ? b->text.data : "",
		   a->text.len) != 0 ||
	    a->prompt_tokens != b->prompt_tokens || a->completion_tokens != b->completion_tokens)
		fail_msg("differs after %s", event);
}

/* An event that looks like the one before is not read again: with up to three bytes changed it must
 * mean what it means to a reader that has seen none. */
static void looks_like_the_one_before(void **state)
{
	static const char *const events[] = {
		"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"abc\"},"
		"\"finish_reason\":null}],\"usage\":null}\n\n",
		"data: "
		"{\"choices\":[{\"index\":1,\"text\":\"\\u00e9\"}],\"usage\":{\"prompt_tokens\":3}}"
		"\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":\"x\",\"reasoning\":\"y\"}}]}\n\n",
		"data: {\"choices\":[{\"text\":\"z\",\"finish_reason\":\"stop\"}]}\n\n",
		"data: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"completion_tokens\":12}}\n\n",
	};
	static const char bytes[] = "\"\\{}[]:,abu0 n\x80\xc3\xa9\x01";
	struct answer reader, fresh;
	size_t same = 0;
	struct rng rng;
	char text[256];
	unsigned before;

	(void)state;
	rng_seed(&rng, 7);
	answer_init(&reader, ANSWER_CHOICES, true);
	answer_init(&fresh, ANSWER_CHOICES, true);
	for (int round = 0; round < 40000; round++) {
		answer_clear(&reader);
		answer_clear(&fresh);
		reader.status = fresh.status = 200;
		reader.streamed = fresh.streamed = true;
		for (int i = 0; i < 6; i++) {
			const char *event = events[rng_below(&rng, i < 4 ? 2 : 5)];
			size_t n = strlen(event);

			memcpy(text, event, n + 1);
			for (uint64_t k = i ? rng_below(&rng, 4) : 0; k > 0; k--)
				text[6 + rng_below(&rng, n - 8)] =
					bytes[rng_below(&rng, sizeof(bytes) - 1)];
			before = reader.mould.len > 0 ? reader.texts : UINT_MAX;
			answer_feed(&reader, text, n, i);
			same += before != UINT_MAX && reader.texts > before;
			buf_clear(&fresh.mould);
			answer_feed(&fresh, text, n, i);
			assert_same(&reader, &fresh, text);
		}
	}
	assert_true(same > 1000);
	answer_release(&reader);
	answer_release(&fresh);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut),
		cmocka_unit_test(times_and_tokens),
		cmocka_unit_test(connection_lost_in_the_middle),
		cmocka_unit_test(whole_bodies),
		cmocka_unit_test(a_late_count_is_shared),
		cmocka_unit_test(other_interfaces),
		cmocka_unit_test(huge_error_page_is_bounded),
		cmocka_unit_test(looks_like_the_one_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
