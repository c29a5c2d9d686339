/* What goes to both workers and what to decode alone, field by field of vLLM's request classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/pd/legs.h"

#define ALONE(why) PD_ALONE_##why
#define BOTH	   PD_TWO_LEGS

static const struct {
	enum pd_path path;
	enum pd_alone why;
	const char *body;
} table[] = {
	/* what clients send every day */
	{PD_PATH_CHAT, BOTH, "{}"},
	{PD_PATH_CHAT, BOTH, "{\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
	{PD_PATH_CHAT, BOTH,
	 "{\"n\":null,\"max_tokens\":null,\"stream\":null,\"stream_options\":null,\"best_of\":null,"
	 "\"prompt_logprobs\":null,\"use_beam_search\":false,\"logprobs\":true,\"top_logprobs\":"
	 "2}"},
	{PD_PATH_CHAT, BOTH, "{\"n\":3,\"max_tokens\":5}"},
	{PD_PATH_CHAT, BOTH, "{\"n\":3,\"temperature\":0.7}"},
	{PD_PATH_CHAT, BOTH, "{\"n\":1,\"temperature\":0}"},
	{PD_PATH_CHAT, BOTH, "{\"min_tokens\":900}"},
	{PD_PATH_CHAT, BOTH, "{\"max_tokens\":5,\"max_completion_tokens\":50,\"min_tokens\":9}"},
	{PD_PATH_CHAT, BOTH, "{\"truncate_prompt_tokens\":100}"},
	{PD_PATH_CHAT, BOTH, "{\"echo\":true,\"logprobs\":true}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":\"a\",\"echo\":true}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":\"a\",\"logprobs\":5}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":\"a\",\"best_of\":1}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":[1,2,3],\"min_tokens\":16}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":[\"a\"]}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":[[1,2]]}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt\":[]}"},
	{PD_PATH_COMPLETIONS, BOTH, "{\"prompt_embeds\":\"AA==\"}"},
	{PD_PATH_RESPONSES, BOTH, "{\"input\":\"a\",\"background\":false,\"store\":true}"},
	{PD_PATH_RESPONSES, BOTH, "{\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]}"},
	{PD_PATH_RESPONSES, BOTH, "{\"tools\":[],\"truncation\":\"disabled\"}"},
	{PD_PATH_MESSAGES, BOTH, "{\"max_tokens\":9,\"stream\":true,\"messages\":[]}"},
	{PD_PATH_MESSAGES, BOTH, "{}"},
	{PD_PATH_GENERATE, BOTH, "{}"},
	{PD_PATH_GENERATE, BOTH, "{\"sampling_params\":null}"},
	{PD_PATH_GENERATE, BOTH, "{\"sampling_params\":7}"},
	{PD_PATH_GENERATE, BOTH, "{\"sampling_params\":{\"n\":2},\"prompt_logprobs\":1}"},
	/* several prompts */
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\":[\"a\",\"b\"]}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\":[[1],[2]]}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\":[\"a\",1]}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\":\"x\",\"prompt\":[\"a\",\"b\"]}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\\u0020\":1,\"pr\\u006fmpt\":[[1],[2]]}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt\":\"a\",\"prompt_embeds\":\"AA==\"}"},
	{PD_PATH_COMPLETIONS, ALONE(prompts), "{\"prompt_embeds\":[\"AA==\",\"BB==\"]}"},
	/* logprobs of the prompt */
	{PD_PATH_CHAT, ALONE(prompt_logprobs), "{\"prompt_logprobs\":0}"},
	{PD_PATH_COMPLETIONS, ALONE(prompt_logprobs), "{\"prompt\":\"a\",\"prompt_logprobs\":-1}"},
	{PD_PATH_COMPLETIONS, ALONE(prompt_logprobs), "{\"echo\":true,\"logprobs\":1}"},
	{PD_PATH_GENERATE, ALONE(prompt_logprobs), "{\"sampling_params\":{\"prompt_logprobs\":1}}"},
	/* nothing to decode */
	{PD_PATH_COMPLETIONS, ALONE(no_answer),
	 "{\"prompt\":\"a\",\"echo\":true,\"max_tokens\":0}"},
	{PD_PATH_COMPLETIONS, ALONE(invalid), "{\"prompt\":\"a\",\"max_tokens\":0}"},
	{PD_PATH_COMPLETIONS, ALONE(invalid), "{\"prompt\":\"a\",\"echo\":false,\"max_tokens\":0}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"echo\":true,\"max_tokens\":0}"},
	/* many sequences */
	{PD_PATH_CHAT, ALONE(beam_search), "{\"use_beam_search\":true,\"n\":4}"},
	{PD_PATH_COMPLETIONS, ALONE(beam_search), "{\"use_beam_search\":\"yes\"}"},
	{PD_PATH_COMPLETIONS, ALONE(beam_search), "{\"best_of\":3}"},
	/* later, elsewhere, again */
	{PD_PATH_RESPONSES, ALONE(side_effects), "{\"background\":true}"},
	{PD_PATH_RESPONSES, ALONE(side_effects), "{\"previous_response_id\":\"resp_1\"}"},
	{PD_PATH_RESPONSES, ALONE(side_effects), "{\"conversation\":\"c\"}"},
	{PD_PATH_RESPONSES, ALONE(side_effects), "{\"tools\":[{\"type\":\"web_search_preview\"}]}"},
	{PD_PATH_RESPONSES, ALONE(side_effects),
	 "{\"tools\":[{\"type\":\"function\"},{\"type\":\"mcp\",\"server_url\":\"u\"}]}"},
	{PD_PATH_RESPONSES, ALONE(side_effects), "{\"tools\":[{}]}"},
	/* the prompt depends on the answer's length */
	{PD_PATH_CHAT, ALONE(prompt_length), "{\"truncate_prompt_tokens\":-1}"},
	{PD_PATH_RESPONSES, ALONE(prompt_length), "{\"truncation\":\"auto\"}"},
	/* what the prefill copy would hide */
	{PD_PATH_CHAT, ALONE(invalid), "{\"stream_options\":{\"include_usage\":true}}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"stream\":false,\"stream_options\":{}}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"stream\":true,\"stream_options\":[]}"},
	{PD_PATH_CHAT, ALONE(invalid),
	 "{\"stream\":true,\"stream_options\":{\"include_usage\":7}}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"stream\":\"maybe\"}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_tokens\":\"many\"}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_tokens\":0}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_tokens\":-1}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_tokens\":1.5}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_tokens\":99999999999999999999}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"max_completion_tokens\":[]}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"min_tokens\":-1}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"min_tokens\":6,\"max_tokens\":5}"},
	{PD_PATH_COMPLETIONS, ALONE(invalid), "{\"min_tokens\":17}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":0}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":\"3\"}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":100000}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":2,\"temperature\":0}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":2,\"temperature\":0.000}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":2,\"temperature\":0.000001}"},
	{PD_PATH_CHAT, ALONE(invalid), "{\"n\":2,\"temperature\":1e-9}"},
	{PD_PATH_RESPONSES, ALONE(invalid), "{\"max_output_tokens\":0}"},
	{PD_PATH_RESPONSES, ALONE(invalid), "{\"store\":\"x\"}"},
	{PD_PATH_MESSAGES, ALONE(invalid), "{\"max_tokens\":0}"},
	{PD_PATH_MESSAGES, ALONE(invalid), "{\"max_tokens\":5,\"stream\":1}"},
	{PD_PATH_GENERATE, ALONE(invalid), "{\"sampling_params\":{\"max_tokens\":0}}"},
	{PD_PATH_GENERATE, ALONE(invalid), "{\"sampling_params\":{\"min_tokens\":17}}"},
	{PD_PATH_GENERATE, ALONE(invalid), "{\"sampling_params\":{\"n\":2,\"temperature\":0}}"},
	{PD_PATH_GENERATE, ALONE(invalid), "{\"sampling_params\":{},\"stream\":\"x\"}"},
};

static void each_field_decides(void **state)
{
	bool seen[PD_ALONE_COUNT] = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		enum pd_alone why;
		struct json_object o;

		assert_int_equal(json_object_scan(&o, table[i].body, strlen(table[i].body), NULL),
				 PD_OK);
		why = pd_alone_of(table[i].path, &o);
		if (why != table[i].why)
			print_error("%s\n", table[i].body);
		assert_int_equal(why, table[i].why);
		seen[why] = true;
		json_object_release(&o);
	}
	for (int i = 0; i < PD_ALONE_COUNT; i++) {
		/* Which ids are known is not the body's to say. */
		assert_true(seen[i] || i == PD_ALONE_known_id || i == PD_ALONE_decider);
		assert_int_equal(pd_alone_name((enum pd_alone)i) != NULL, i != PD_TWO_LEGS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_field_decides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
