/*
 * What counts as a token and how a stream may end. Each stream is fed whole, byte by byte and cut
 * in two at every place: the figures must not depend on how the bytes arrived (all pieces of one
 * feed carry its time, so only counts are compared then).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <stdlib.h>

#include <cmocka.h>

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
	{ROLE A A DONE, NULL, 2, -1, -1, -1},
	{": comment\r\n\r\n" ROLE "event: x\nid: 1\n" A DONE, NULL, 1, -1, -1, -1},
	{ROLE A A, "truncated", 2, -1, -1, -1},
	{ROLE, "truncated", 0, -1, -1, -1},
	{"", "truncated", 0, -1, -1, -1},
	{A STOP "data: {\"cho", "truncated", 1, -1, -1, -1},
	{A "data: {\"error\":{\"message\":\"KV gone\",\"code\":500}}\n\n" DONE, "stream_error", 1,
	 -1, -1, -1},
	{A "event: error\ndata: {\"why\":1}\n\n" DONE, "stream_error", 1, -1, -1, -1},
	{A "data: {broken\n\n" A DONE, "bad_event", 2, -1, -1, -1},
	{"data: {\"choices\":[{\"text\":\"x\"}]}\n\ndata: {\"choices\":[{\"text\":\"\"}]}\n\n" DONE,
	 NULL, 1, -1, -1, -1},
	{"data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n" DONE, NULL, 1, -1,
	 -1, -1},
	{"data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[{}]}}]}\n\n" DONE, NULL,
	 1, -1, -1, -1},
	{"data: "
	 "{\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[]}}],\"error\":null}\n\n" DONE,
	 NULL, 0, -1, -1, -1},
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
	answer_init(&a, false);
	for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
		const char *text = streams[i].text;
		size_t n = strlen(text);

		for (size_t cut = 0; cut <= n; cut++) {
			begin(&a);
			answer_feed(&a, text, cut, 10);
			answer_feed(&a, text + cut, n - cut, 20);
			answer_end(&a, 30, true, false);
			check(&a, &streams[i], i, cut);
		}
		begin(&a);
		for (size_t k = 0; k < n; k++)
			answer_feed(&a, text + k, 1, (int64_t)k);
		answer_end(&a, 1000000, true, false);
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
	answer_init(&a, true);
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
	answer_end(&a, 400, true, false);
	assert_null(a.failure);
	assert_int_equal(a.first_token_ns, 200);
	assert_int_equal(a.last_token_ns, 310);
	assert_int_equal(a.first_tokens, 2);
	assert_string_equal(a.text.data, "a \xc3\xa9"
					 "bca");
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
	answer_init(&a, false);
	begin(&a);
	answer_feed(&a, A A, strlen(A A), 5);
	answer_end(&a, 6, false, false);
	assert_string_equal(a.failure, "truncated");
	/* the next stream in the same slot starts clean */
	begin(&a);
	feed(&a, "data: {\"ch", 5);
	answer_end(&a, 6, false, false);
	begin(&a);
	answer_feed(&a, A DONE, strlen(A DONE), 7);
	answer_end(&a, 8, true, false);
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
	answer_init(&a, false);
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		answer_clear(&a);
		a.status = bodies[i].status;
		answer_feed(&a, bodies[i].body, strlen(bodies[i].body), 50);
		answer_end(&a, 60, true, bodies[i].embeddings);
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

static void huge_error_page_is_bounded(void **state)
{
	static char page[100000];
	struct answer a;

	(void)state;
	memset(page, 'x', sizeof(page));
	answer_init(&a, false);
	a.status = 500;
	for (int i = 0; i < 100; i++)
		answer_feed(&a, page, 1000, 1);
	answer_end(&a, 2, true, false);
	assert_string_equal(a.failure, "http");
	assert_true(a.body.len <= 65536);
	assert_int_equal(strlen(a.error), 250);
	answer_release(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut),
		cmocka_unit_test(times_and_tokens),
		cmocka_unit_test(connection_lost_in_the_middle),
		cmocka_unit_test(whole_bodies),
		cmocka_unit_test(huge_error_page_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
