/*
 * Two kinds of trouble: what the first worker would have to do for the second (several sequences,
 * logprobs of the prompt, effects), and what the prefill copy hides, because it overwrites the
 * field that the decode worker will refuse. The blocks of such a request would stay pinned until
 * their lease ends. Values that a lenient reader converts ("5", 5.0) go alone as well.
 */
#include "lib/pd/legs.h"

#include <string.h>

#define N_MAX		 128 /* more is for the engine to judge */
#define HIDING_DEPTH	 2   /* sampling_params.extra_args.NAME */
#define MAX_TOKENS_UNSET 16  /* vLLM's default for completions and sampling_params */

const char *pd_alone_name(enum pd_alone why)
{
	static const char *const names[] = {NULL,
#define X(name, why) #name,
					    PD_ALONE(X)
#undef X
	};

	return names[why];
}

/* -- members -- */

/* A member that is present and not null. */
static const struct json_member *given(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type != JSON_NULL ? m : NULL;
}

static bool is_bool(const struct json_member *m)
{
	return !m || m->type == JSON_TRUE || m->type == JSON_FALSE;
}

/* Neither absent, null nor false: also what a lenient reader may take for true. */
static bool is_on(const struct json_object *o, const char *name)
{
	const struct json_member *m = given(o, name);

	return m && m->type != JSON_FALSE;
}

/* An integer of at least `min` into *out, which stays when the member is not given. */
static bool count(const struct json_object *o, const char *name, int64_t min, int64_t *out)
{
	const struct json_member *m = given(o, name);

	return !m || (m->type == JSON_NUMBER && json_int(m->value, out) == PD_OK && *out >= min);
}

/* -- what the copy overwrites -- */

static bool valid_stream(const struct json_object *o)
{
	const struct json_member *stream = given(o, "stream"),
				 *options = given(o, "stream_options");
	struct json_member m;
	size_t at = 0;

	if (!is_bool(stream))
		return false;
	if (!options)
		return true;
	if (options->type != JSON_OBJECT || !stream || stream->type != JSON_TRUE)
		return false;
	while (json_object_next(options->value, &at, &m))
		if (m.type != JSON_TRUE && m.type != JSON_FALSE && m.type != JSON_NULL)
			return false;
	return true;
}

/* vLLM samples greedily below 1e-5, and then n must be 1. */
static bool is_greedy(const struct json_member *temperature)
{
	struct span t = temperature ? temperature->value : (struct span){0};

	if (t.n == 0)
		return false;
	if (temperature->type != JSON_NUMBER || memchr(t.p, 'e', t.n) || memchr(t.p, 'E', t.n))
		return true;
	return t.p[0] == '0' && (t.n <= 2 || strspn(t.p + 2, "0") >= (t.n < 7 ? t.n - 2 : 5));
}

/* The numbers of tokens and sequences; `unset`: what holds without max_tokens, 0 for no limit. */
static bool valid_limits(const struct json_object *o, int64_t unset)
{
	const struct json_member *m = json_object_get(o, "max_tokens");
	int64_t max = m ? 0 : unset, completion = 0, min = 0, n = 1;

	if (!count(o, "max_tokens", 1, &max) || !count(o, "min_tokens", 0, &min) ||
	    !count(o, "max_completion_tokens", 1, &completion) || !count(o, "n", 1, &n))
		return false;
	max = completion > 0 ? completion : max;
	if (max > 0 && min > max)
		return false;
	return n == 1 || (n <= N_MAX && !is_greedy(given(o, "temperature")));
}

/* -- what one sequence cannot stand for -- */

static bool is_beam(const struct json_object *o)
{
	int64_t best = 1;

	return is_on(o, "use_beam_search") || !count(o, "best_of", 1, &best) || best != 1;
}

static bool is_zero(const struct json_member *m)
{
	return m && m->type == JSON_NUMBER && span_eq(m->value, SPAN("0"));
}

/* `prompt` as the completions API has it: a text, token ids, or a list of either. */
static bool is_one_prompt(const struct json_object *o)
{
	const struct json_member *prompt = given(o, "prompt"), *embeds = given(o, "prompt_embeds");
	enum json_type type = JSON_NONE, next;
	struct span value;
	size_t at = 0;

	if (embeds && (prompt || embeds->type != JSON_STRING))
		return false;
	if (!prompt || prompt->type != JSON_ARRAY)
		return true;
	if (!json_array_next(prompt->value, &at, &value, &type) || type == JSON_NUMBER)
		return true;
	return !json_array_next(prompt->value, &at, &value, &next);
}

static enum pd_alone sampling(const struct json_object *o, int64_t unset)
{
	const struct json_member *truncate = given(o, "truncate_prompt_tokens");

	if (given(o, "prompt_logprobs"))
		return PD_ALONE_prompt_logprobs;
	if (is_beam(o))
		return PD_ALONE_beam_search;
	/* -1: what the model can hold beside max_tokens. */
	if (truncate && (truncate->type != JSON_NUMBER || truncate->value.p[0] == '-'))
		return PD_ALONE_prompt_length;
	return valid_limits(o, unset) ? PD_TWO_LEGS : PD_ALONE_invalid;
}

static enum pd_alone completion(const struct json_object *o)
{
	if (!is_one_prompt(o))
		return PD_ALONE_prompts;
	if (is_on(o, "echo") && given(o, "logprobs"))
		return PD_ALONE_prompt_logprobs;
	if (is_on(o, "echo") && is_zero(given(o, "max_tokens")))
		return PD_ALONE_no_answer;
	return sampling(o, MAX_TOKENS_UNSET);
}

static enum pd_alone generate(const struct json_object *body)
{
	const struct json_member *m = given(body, "sampling_params");
	enum pd_alone why = PD_TWO_LEGS;
	struct json_object o;

	/* Without them prefill says what is missing. */
	if (!m || m->type != JSON_OBJECT)
		return PD_TWO_LEGS;
	if (json_object_scan(&o, m->value.p, m->value.n, NULL) != PD_OK)
		return PD_ALONE_invalid;
	why = sampling(&o, MAX_TOKENS_UNSET);
	json_object_release(&o);
	return why;
}

/* A tool that the client runs itself. */
static bool is_function(struct span tool, enum json_type type)
{
	struct json_member m;
	bool function = false;
	size_t at = 0;

	while (type == JSON_OBJECT && json_object_next(tool, &at, &m))
		if (json_member_is(&m, "type"))
			function = span_eq(m.value, SPAN("\"function\""));
	return function;
}

static enum pd_alone response(const struct json_object *o)
{
	const struct json_member *tools = given(o, "tools");
	enum json_type type;
	struct span tool;
	int64_t max = 1;
	size_t at = 0;

	if (is_on(o, "background") || given(o, "previous_response_id") || given(o, "conversation"))
		return PD_ALONE_side_effects;
	if (tools && tools->type != JSON_ARRAY)
		return PD_ALONE_side_effects;
	while (tools && json_array_next(tools->value, &at, &tool, &type))
		if (!is_function(tool, type))
			return PD_ALONE_side_effects;
	if (given(o, "truncation") && !span_eq(given(o, "truncation")->value, SPAN("\"disabled\"")))
		return PD_ALONE_prompt_length;
	return is_bool(given(o, "store")) && count(o, "max_output_tokens", 1, &max)
		       ? PD_TWO_LEGS
		       : PD_ALONE_invalid;
}

static enum pd_alone message(const struct json_object *o)
{
	int64_t max = 1;

	return count(o, "max_tokens", 1, &max) ? PD_TWO_LEGS : PD_ALONE_invalid;
}

enum pd_alone pd_alone_of(enum pd_path path, const struct json_object *body)
{
	enum pd_alone why = PD_TWO_LEGS;

	switch (path) {
	case PD_PATH_CHAT:
		why = sampling(body, 0);
		break;
	case PD_PATH_COMPLETIONS:
		why = completion(body);
		break;
	case PD_PATH_GENERATE:
		why = generate(body);
		break;
	case PD_PATH_RESPONSES:
		why = response(body);
		break;
	case PD_PATH_MESSAGES:
		why = message(body);
		break;
	case PD_PATH_OTHER:
		break;
	}
	return why != PD_TWO_LEGS || valid_stream(body) ? why : PD_ALONE_invalid;
}

/* -- hidden members -- */

static bool hides(struct span object, struct span name, int depth)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(object, &at, &m)) {
		if (json_key_is(&m, name))
			return true;
		if (depth < HIDING_DEPTH && m.type == JSON_OBJECT &&
		    (json_member_is(&m, "extra_args") || json_member_is(&m, "vllm_xargs")) &&
		    hides(m.value, name, depth + 1))
			return true;
	}
	return false;
}

static bool may_hide(const struct json_member *m)
{
	return m->type == JSON_OBJECT &&
	       (json_member_is(m, "sampling_params") || json_member_is(m, "extra_args") ||
		json_member_is(m, "vllm_xargs"));
}

bool pd_hidden(const struct json_object *body, const char *name)
{
	for (size_t i = 0; i < body->n; i++)
		if (may_hide(&body->member[i]) && hides(body->member[i].value, span_of(name), 1))
			return true;
	return false;
}

bool pd_carries(const struct json_object *body, const char *name)
{
	struct span wanted = span_of(name);

	for (size_t i = 0; i < body->n; i++) {
		const struct json_member *m = &body->member[i];

		if ((m->type != JSON_NULL && json_key_is(m, wanted)) ||
		    (may_hide(m) && hides(m->value, wanted, 1)))
			return true;
	}
	return false;
}
