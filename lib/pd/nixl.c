/*
 * The fields of the two phases as a table per path, applied by the splice editor: the user's body
 * is never parsed into a tree and printed again. A field that is edited must occur once, because
 * two readers may take different ones of two.
 */
#include "lib/pd/nixl.h"

#include <math.h>
#include <stdlib.h>

/* The request fields of NixlConnector in pull mode, as vLLM's example proxy sends them. */
#define PULL_PARAMS                                                                                \
	"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
	"\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

enum when { ALWAYS, IF_PRESENT, REMOVE };

struct rule {
	const char *name;
	const char *value; /* JSON text */
	enum when when;
};

static const struct rule common_rules[] = {
	{"stream", "false", ALWAYS},
	{"stream_options", NULL, REMOVE},
	{"kv_transfer_params", PULL_PARAMS, ALWAYS},
	{0},
};

static const struct rule token_rules[] = {
	{"max_tokens", "1", ALWAYS},
	{"min_tokens", "1", ALWAYS},
	{"max_completion_tokens", "1", IF_PRESENT},
	{0},
};

static const struct rule response_rules[] = {
	{"max_output_tokens", "1", ALWAYS},
	{0},
};

static bool contains(struct span s, const char *part)
{
	return s.n > 0 && memmem(s.p, s.n, part, strlen(part)) != NULL;
}

enum pd_path pd_path_of(struct span path)
{
	if (contains(path, "inference/v1/generate"))
		return PD_PATH_GENERATE;
	if (contains(path, "/v1/responses"))
		return PD_PATH_RESPONSES;
	if (contains(path, "/v1/chat/completions"))
		return PD_PATH_CHAT;
	if (contains(path, "/v1/completions"))
		return PD_PATH_COMPLETIONS;
	return PD_PATH_OTHER;
}

static int once(const struct json_object *o, const char *name, struct pd_msg *msg)
{
	size_t n = json_object_count(o, name);

	if (n <= 1)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "field \"%s\" occurs %zu times in the request, expected once", name, n);
}

static int apply(struct json_edit *e, const struct rule *rule, struct pd_msg *msg)
{
	int err = PD_OK;

	for (; rule->name && !err; rule++) {
		err = once(e->object, rule->name, msg);
		if (err)
			return err;
		if (rule->when == REMOVE)
			err = json_edit_remove(e, rule->name);
		else if (rule->when == ALWAYS || json_object_get(e->object, rule->name))
			err = json_edit_set(e, rule->name, span_of(rule->value));
	}
	return err;
}

/* Sets max_tokens and min_tokens of the nested object to 1. */
static int limit_sampling(struct json_edit *e, const struct json_object *o, struct pd_msg *msg)
{
	static const char *const tails[] = {"}", "\"max_tokens\":1}", "\"min_tokens\":1}",
					    "\"max_tokens\":1,\"min_tokens\":1}"};
	static const char *const joined[] = {"}", ",\"max_tokens\":1}", ",\"min_tokens\":1}",
					     ",\"max_tokens\":1,\"min_tokens\":1}"};
	static const char *const names[] = {"max_tokens", "min_tokens"};
	unsigned missing = 0;
	int err;

	for (unsigned i = 0; i < 2; i++) {
		const struct json_member *m = json_object_get(o, names[i]);

		err = once(o, names[i], msg);
		if (!err && m)
			err = json_edit_replace(e, m->value, SPAN("1"));
		if (err)
			return err;
		missing |= m ? 0 : 1u << i;
	}
	if (missing == 0)
		return PD_OK;
	/* the closing brace gives way to the members that are missing and itself */
	return json_edit_replace(e, (struct span){o->text.p + o->text.n - 1, 1},
				 span_of(o->n > 0 ? joined[missing] : tails[missing]));
}

static int generate_rules(struct json_edit *e, struct pd_msg *msg)
{
	const struct json_member *m = json_object_get(e->object, "sampling_params");
	struct json_object nested;
	int err = once(e->object, "sampling_params", msg);

	if (err)
		return err;
	if (!m || m->type == JSON_NULL)
		return json_edit_set(e, "sampling_params",
				     SPAN("{\"max_tokens\":1,\"min_tokens\":1}"));
	if (m->type != JSON_OBJECT)
		return pd_fail(msg, PD_EINVAL, "field \"sampling_params\" is not an object");
	err = json_object_scan(&nested, m->value.p, m->value.n, msg);
	if (err)
		return err;
	err = limit_sampling(e, &nested, msg);
	json_object_release(&nested);
	return err;
}

int pd_nixl_prefill(struct json_edit *e, enum pd_path path, struct pd_msg *msg)
{
	int err;

	if (path == PD_PATH_GENERATE)
		err = generate_rules(e, msg);
	else
		err = apply(e, path == PD_PATH_RESPONSES ? response_rules : token_rules, msg);
	return err ? err : apply(e, common_rules, msg);
}

int pd_nixl_decode(struct json_edit *e, struct span params)
{
	return params.n > 0 ? json_edit_set(e, "kv_transfer_params", params) : PD_OK;
}

/* -- what a client must not send -- */

#define HIDING_DEPTH 2 /* sampling_params.extra_args.kv_transfer_params */

static bool hides_params(struct span object, int depth)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(object, &at, &m)) {
		if (json_member_is(&m, "kv_transfer_params"))
			return true;
		if (depth < HIDING_DEPTH && m.type == JSON_OBJECT &&
		    (json_member_is(&m, "extra_args") || json_member_is(&m, "vllm_xargs")) &&
		    hides_params(m.value, depth + 1))
			return true;
	}
	return false;
}

bool pd_nixl_hidden_params(const struct json_object *body)
{
	static const char *const places[] = {"sampling_params", "extra_args", "vllm_xargs"};

	for (size_t i = 0; i < body->n; i++) {
		const struct json_member *m = &body->member[i];

		for (size_t k = 0; m->type == JSON_OBJECT && k < 3; k++)
			if (json_member_is(m, places[k]) && hides_params(m->value, 1))
				return true;
	}
	return false;
}

/* -- what prefill answered -- */

/* An integer below the object; -1 when it is missing, negative or no integer. */
static int64_t integer_at(const struct json_object *o, const char *path)
{
	enum json_type type;
	struct span value;
	int64_t n;

	if (!json_object_path(o, path, &type, &value) || type != JSON_NUMBER ||
	    json_int(value, &n) || n < 0)
		return -1;
	return n;
}

static double real_at(const struct json_object *o, const char *path)
{
	enum json_type type;
	struct span value;
	char text[64];
	double x;

	if (!json_object_path(o, path, &type, &value) || type != JSON_NUMBER ||
	    value.n >= sizeof(text))
		return 0;
	memcpy(text, value.p, value.n);
	text[value.n] = '\0';
	x = strtod(text, NULL);
	return isfinite(x) ? x : 0;
}

/* The value of a top-level member that is an object with members; an empty span otherwise. */
static struct span object_at(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);
	struct json_member inner;
	size_t at = 0;

	if (!m || m->type != JSON_OBJECT || !json_object_next(m->value, &at, &inner))
		return (struct span){NULL, 0};
	return m->value;
}

int pd_nixl_prefill_result(struct pd_prefill_result *r, const char *body, size_t n,
			   struct pd_msg *msg)
{
	struct json_object o;
	int err;

	*r = (struct pd_prefill_result){.prompt_tokens = -1, .cached_tokens = -1};
	err = json_object_scan(&o, body, n, msg);
	if (err)
		return err;
	r->params = object_at(&o, "kv_transfer_params");
	if (r->params.n > 0)
		r->expiry_s = real_at(&o, "kv_transfer_params.remote_blocks_expiry_time");
	r->usage = object_at(&o, "usage");
	r->prompt_tokens = integer_at(&o, "usage.prompt_tokens");
	if (r->prompt_tokens < 0)
		r->prompt_tokens = integer_at(&o, "usage.input_tokens");
	r->cached_tokens = integer_at(&o, "usage.prompt_tokens_details.cached_tokens");
	if (r->cached_tokens < 0)
		r->cached_tokens = integer_at(&o, "usage.input_tokens_details.cached_tokens");
	json_object_release(&o);
	return PD_OK;
}
