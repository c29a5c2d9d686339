/*
 * Prompts to tokens. Chat: for each message a control token for the role, the tokens of the
 * content, an end token; at the end the header of the assistant's answer. Tool definitions count as
 * text in front. Parts that are not text (images) become one token that depends on all their bytes.
 * Completions and embeddings: a string, strings, token ids, or lists of token ids.
 */
#include "sim/worker/prompt.h"

#include <stdlib.h>
#include <string.h>

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

/* The member that the prompt is read from. */
static const char *const prompt_name[GEN_KINDS] = {
	[GEN_CHAT] = "messages",     [GEN_COMPLETION] = "prompt", [GEN_EMBEDDING] = "input",
	[GEN_MESSAGES] = "messages", [GEN_RESPONSES] = "input",	  [GEN_TOKENS] = "token_ids",
};

/* Tokenising stopped at the maximum: no need to know by how much the prompt is too long. */
static int too_long(const struct gen_request *g, struct api_error *e)
{
	return api_fail(e, 400, prompt_name[g->kind],
			"the request has more than %zu prompt tokens, the most this worker takes",
			g->tokens.max);
}

/* A message with this content, which other forms of a chat keep in a member of its own. */
static int add_turn(struct gen_request *g, const char *role, const char *name)
{
	const struct json_member *m = json_object_get(&g->body, name);
	int err;

	if (!m || m->type == JSON_NULL)
		return PD_OK;
	err = tokens_add_special(&g->tokens, role, strlen(role));
	if (!err)
		err = add_content(g, m);
	return err ? err : tokens_add_special(&g->tokens, "<|end|>", 7);
}

/* An item of "input" that is no message (a tool's result, say) is one token. */
static int add_item(struct gen_request *g, struct span item)
{
	struct json_object o;
	bool message;

	if (g->kind != GEN_RESPONSES)
		return add_message(g, item);
	if (json_object_scan(&o, item.p, item.n, NULL))
		return PD_EINVAL;
	message = json_object_get(&o, "role") != NULL;
	json_object_release(&o);
	return message ? add_message(g, item) : tokens_add_special(&g->tokens, item.p, item.n);
}

static int add_conversation(struct gen_request *g, const char *name, const struct json_member *m,
			    struct api_error *e)
{
	enum json_type type;
	struct span message;
	size_t at = 0, n = 0;
	int err = PD_OK;

	if (m->type != JSON_ARRAY)
		return api_fail(e, 400, name, "%s: Input should be a valid list", name);
	for (; !err && json_array_next(m->value, &at, &message, &type); n++)
		err = type == JSON_OBJECT ? add_item(g, message) : PD_EINVAL;
	if (err == PD_EINVAL)
		return api_fail(e, 400, name,
				"%s.%zu: expected an object with a string \"role\" and a "
				"\"content\" that is a string, a list of parts or null",
				name, n - 1);
	if (!err && n == 0)
		return api_fail(e, 400, name,
				"%s: List should have at least 1 item after validation, not 0",
				name);
	return err;
}

static int chat_prompt(struct gen_request *g, struct api_error *e)
{
	const char *name = prompt_name[g->kind];
	const struct json_member *m = json_object_get(&g->body, name);
	const struct json_member *tools = json_object_get(&g->body, "tools");
	int err = PD_OK;

	if (!m)
		return api_fail(e, 400, name, "%s: Field required", name);
	if (tools && tools->type == JSON_ARRAY)
		err = tokens_add_text(&g->tokens, tools->value.p, tools->value.n);
	if (!err && g->kind == GEN_MESSAGES)
		err = add_turn(g, "\"system\"", "system");
	if (!err && g->kind == GEN_RESPONSES)
		err = add_turn(g, "\"system\"", "instructions");
	if (err == PD_EINVAL)
		return api_fail(e, 400, name, "expected text, or a list of parts, before the %s",
				name);
	if (!err)
		err = g->kind == GEN_RESPONSES && m->type == JSON_STRING
			      ? add_turn(g, "\"user\"", name)
			      : add_conversation(g, name, m, e);
	if (!err)
		err = tokens_add_special(&g->tokens, "\"assistant\"", 11);
	if (err == PD_ETOOBIG)
		return too_long(g, e);
	if (err)
		return e->status ? err : api_fail(e, 500, NULL, "out of memory");
	g->prompt[0] = (struct gen_prompt){.n = g->tokens.n};
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
		g->prompt[g->nprompts++] = (struct gen_prompt){
			from, g->tokens.n - from,
			type == JSON_STRING ? (struct span){value.p + 1, value.n - 2}
					    : (struct span){0}};
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

/* A list that begins with a number: one prompt. */
static bool is_ids(const struct json_member *m)
{
	enum json_type type;
	struct span first;
	size_t at = 0;

	return m->type == JSON_ARRAY && json_array_next(m->value, &at, &first, &type) &&
	       type == JSON_NUMBER;
}

static int text_prompt(struct gen_request *g, const char *name, struct api_error *e)
{
	const struct json_member *m = json_object_get(&g->body, name);
	int err;

	if (!m || m->type == JSON_NULL)
		return api_fail(e, 400, name, "%s: Field required", name);
	if (g->kind == GEN_TOKENS && !is_ids(m))
		return api_fail(e, 400, name, "%s: Input should be a list of integers", name);
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
	const char *what = g->kind == GEN_EMBEDDING ? "prompt" : prompt_name[g->kind];

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
	bool chat = gen_is_chat(g->kind);
	/* One chat prompt, or several others, each of which is checked on its own. */
	bool one = chat || max_model_len > REQUEST_TOKENS_MAX;
	int err;

	tokens_init(&g->tokens, one ? max_model_len : REQUEST_TOKENS_MAX);
	g->prompt = calloc(chat ? 1 : REQUEST_PROMPTS_MAX, sizeof(*g->prompt));
	if (!g->prompt)
		return api_fail(e, 500, NULL, "out of memory");
	err = chat ? chat_prompt(g, e) : text_prompt(g, prompt_name[g->kind], e);
	for (size_t i = 0; !err && i < g->nprompts; i++)
		err = check_length(max_model_len, g, g->prompt[i].n, e);
	return err;
}
