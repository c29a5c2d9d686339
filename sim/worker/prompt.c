/*
 * Prompts to tokens. Chat: for each message a control token for the role, the tokens of the
 * content, an end token; at the end the header of the assistant's answer. Tool definitions count as
 * text in front. Parts that are not text (images) become one token that depends on all their bytes.
 * Completions and embeddings: a string, strings, token ids, or lists of token ids.
 */
#include "sim/worker/prompt.h"

#include <stdlib.h>

static int add_string(struct gen_request *g, struct span value)
{
	struct buf text;
	int err;

	buf_init(&text, value.n);
	err = json_string_decode(value, &text);
	if (!err)
		err = tokens_add_text(&g->tokens, text.data, text.len);
	buf_release(&text);
	return err;
}

static int add_part(struct gen_request *g, struct span part)
{
	struct json_object o;
	const struct json_member *m;
	int err = json_object_scan(&o, part.p, part.n, NULL);

	if (err)
		return err;
	m = json_object_get(&o, "text");
	err = m && m->type == JSON_STRING ? add_string(g, m->value)
					  : tokens_add_special(&g->tokens, part.p, part.n);
	json_object_release(&o);
	return err;
}

static int add_content(struct gen_request *g, const struct json_member *m)
{
	enum json_type type;
	struct span part;
	size_t at = 0;
	int err = PD_OK;

	if (!m || m->type == JSON_NULL)
		return PD_OK;
	if (m->type == JSON_STRING)
		return add_string(g, m->value);
	if (m->type != JSON_ARRAY)
		return PD_EINVAL;
	while (!err && json_array_next(m->value, &at, &part, &type)) {
		if (type == JSON_STRING)
			err = add_string(g, part);
		else
			err = type == JSON_OBJECT ? add_part(g, part) : PD_EINVAL;
	}
	return err;
}

static int add_message(struct gen_request *g, struct span message)
{
	const struct json_member *role, *calls;
	struct json_object o;
	int err = json_object_scan(&o, message.p, message.n, NULL);

	if (err)
		return err;
	role = json_object_get(&o, "role");
	calls = json_object_get(&o, "tool_calls");
	err = role && role->type == JSON_STRING
		      ? tokens_add_special(&g->tokens, role->value.p, role->value.n)
		      : PD_EINVAL;
	if (!err)
		err = add_content(g, json_object_get(&o, "content"));
	if (!err && calls && calls->type == JSON_ARRAY)
		err = tokens_add_text(&g->tokens, calls->value.p, calls->value.n);
	if (!err)
		err = tokens_add_special(&g->tokens, "<|end|>", 7);
	json_object_release(&o);
	return err;
}

/* Tokenising stopped at the maximum: no need to know by how much the prompt is too long. */
static int too_long(const struct gen_request *g, struct api_error *e)
{
	return api_fail(e, 400, g->kind == GEN_CHAT ? "messages" : "prompt",
			"the request has more than %zu prompt tokens, the most this worker takes",
			g->tokens.max);
}

static int chat_prompt(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = json_object_get(&g->body, "messages");
	const struct json_member *tools = json_object_get(&g->body, "tools");
	enum json_type type;
	struct span message;
	size_t at = 0, n = 0;
	int err = PD_OK;

	if (!m)
		return api_fail(e, 400, "messages", "messages: Field required");
	if (m->type != JSON_ARRAY)
		return api_fail(e, 400, "messages", "messages: Input should be a valid list");
	if (tools && tools->type == JSON_ARRAY)
		err = tokens_add_text(&g->tokens, tools->value.p, tools->value.n);
	for (; !err && json_array_next(m->value, &at, &message, &type); n++)
		err = type == JSON_OBJECT ? add_message(g, message) : PD_EINVAL;
	if (err == PD_EINVAL)
		return api_fail(e, 400, "messages",
				"messages.%zu: expected an object with a string \"role\" and a "
				"\"content\" that is a string, a list of parts or null",
				n - 1);
	if (!err && n == 0)
		return api_fail(
			e, 400, "messages",
			"messages: List should have at least 1 item after validation, not 0");
	if (!err)
		err = tokens_add_special(&g->tokens, "\"assistant\"", 11);
	if (err == PD_ETOOBIG)
		return too_long(g, e);
	if (err)
		return api_fail(e, 500, NULL, "out of memory");
	g->prompt[0] = (struct gen_prompt){0, g->tokens.n};
	g->nprompts = 1;
	return PD_OK;
}

static int add_ids(struct gen_request *g, struct span array)
{
	enum json_type type;
	struct span value;
	size_t at = 0;
	int64_t id = 0;
	int err = PD_OK;

	while (!err && json_array_next(array, &at, &value, &type)) {
		err = type == JSON_NUMBER ? json_int(value, &id) : PD_EINVAL;
		if (!err && (id < 0 || id > TOKEN_ID_MAX))
			err = PD_EINVAL;
		if (!err)
			err = tokens_add(&g->tokens, (uint32_t)id);
	}
	return err;
}

static int add_prompt(struct gen_request *g, struct span value, enum json_type type)
{
	size_t from = g->tokens.n;
	int err;

	if (g->nprompts == REQUEST_PROMPTS_MAX)
		return PD_ETOOBIG;
	err = type == JSON_STRING  ? add_string(g, value)
	      : type == JSON_ARRAY ? add_ids(g, value)
				   : PD_EINVAL;
	if (!err)
		g->prompt[g->nprompts++] = (struct gen_prompt){from, g->tokens.n - from};
	return err;
}

/* One array of numbers is one prompt; an array of strings or arrays is several. */
static int list_prompt(struct gen_request *g, struct span array)
{
	enum json_type type;
	struct span value;
	size_t at = 0;
	int err = PD_OK;

	if (json_array_next(array, &at, &value, &type) && type == JSON_NUMBER)
		return add_prompt(g, array, JSON_ARRAY);
	for (at = 0; !err && json_array_next(array, &at, &value, &type);)
		err = add_prompt(g, value, type);
	return err;
}

static int text_prompt(struct gen_request *g, const char *name, struct api_error *e)
{
	const struct json_member *m = json_object_get(&g->body, name);
	int err;

	if (!m || m->type == JSON_NULL)
		return api_fail(e, 400, name, "%s: Field required", name);
	err = m->type == JSON_ARRAY ? list_prompt(g, m->value) : add_prompt(g, m->value, m->type);
	if (err == PD_ETOOBIG && g->nprompts < REQUEST_PROMPTS_MAX)
		return too_long(g, e);
	if (err == PD_ETOOBIG)
		return api_fail(e, 400, name, "%s: at most %d prompts in one request", name,
				REQUEST_PROMPTS_MAX);
	if (err == PD_EINVAL)
		return api_fail(e, 400, name,
				"%s: expected a string, strings, token ids or lists of token ids",
				name);
	if (err)
		return api_fail(e, 500, NULL, "out of memory");
	if (g->nprompts == 0)
		return api_fail(e, 400, name, "%s: at least one prompt is needed", name);
	return PD_OK;
}

/* The length rules of vLLM: the prompt must leave room for one token, and for max_tokens when it
 * was given. */
static int check_length(size_t limit, const struct gen_request *g, size_t n, struct api_error *e)
{
	size_t out = g->kind == GEN_EMBEDDING ? 0 : g->max_tokens;
	const char *what = g->kind == GEN_CHAT ? "messages" : "prompt";

	if (n == 0)
		return api_fail(e, 400, what, "The decoder prompt cannot be empty");
	if (n + out <= limit && (g->kind == GEN_EMBEDDING || n < limit))
		return PD_OK;
	return api_fail(
		e, 400, out ? "max_tokens" : what,
		"This model's maximum context length is %zu tokens. However, you requested %zu "
		"tokens (%zu in the %s, %zu in the completion). Please reduce the length of the "
		"%s or completion.",
		limit, n + out, n, what, out, what);
}

int prompt_parse(struct gen_request *g, size_t max_model_len, struct api_error *e)
{
	static const char *const name[] = {"messages", "prompt", "input"};
	/* One chat prompt, or several others, each of which is checked on its own. */
	bool one = g->kind == GEN_CHAT || max_model_len > REQUEST_TOKENS_MAX;
	int err;

	tokens_init(&g->tokens, one ? max_model_len : REQUEST_TOKENS_MAX);
	g->prompt = calloc(g->kind == GEN_CHAT ? 1 : REQUEST_PROMPTS_MAX, sizeof(*g->prompt));
	if (!g->prompt)
		return api_fail(e, 500, NULL, "out of memory");
	err = g->kind == GEN_CHAT ? chat_prompt(g, e) : text_prompt(g, name[g->kind], e);
	for (size_t i = 0; !err && i < g->nprompts; i++)
		err = check_length(max_model_len, g, g->prompt[i].n, e);
	return err;
}
