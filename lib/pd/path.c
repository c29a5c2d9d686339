/*
 * The fields as a table per path, applied by the splice editor: the user's body is never parsed
 * into a tree and printed again.
 */
#include "lib/pd/path.h"

enum when { ALWAYS, IF_PRESENT, REMOVE };

struct rule {
	const char *name;
	const char *value; /* JSON text */
	enum when when;
};

static const struct rule common_rules[] = {
	{"stream", "false", ALWAYS},
	{"stream_options", NULL, REMOVE},
	{0},
};

static const struct rule token_rules[] = {
	{"max_tokens", "1", ALWAYS},
	{"min_tokens", "1", ALWAYS},
	{"max_completion_tokens", "1", IF_PRESENT},
	{"n", "1", IF_PRESENT},
	{0},
};

static const struct rule response_rules[] = {
	{"max_output_tokens", "1", ALWAYS},
	{"store", "false", ALWAYS}, /* nobody asks for an answer of one token again */
	{0},
};

static const struct rule message_rules[] = {
	{"max_tokens", "1", IF_PRESENT},
	{0},
};

enum pd_path pd_path_of(struct span path)
{
	if (span_eq(path, SPAN("/v1/chat/completions")))
		return PD_PATH_CHAT;
	if (span_eq(path, SPAN("/v1/completions")))
		return PD_PATH_COMPLETIONS;
	if (span_eq(path, SPAN("/v1/responses")))
		return PD_PATH_RESPONSES;
	if (span_eq(path, SPAN("/v1/messages")))
		return PD_PATH_MESSAGES;
	if (span_eq(path, SPAN("/inference/v1/generate")))
		return PD_PATH_GENERATE;
	return PD_PATH_OTHER;
}

int pd_once(const struct json_object *o, const char *name, struct pd_msg *msg)
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
		err = pd_once(e->object, rule->name, msg);
		if (err)
			return err;
		if (rule->when == REMOVE)
			err = json_edit_remove(e, rule->name);
		else if (rule->when == ALWAYS || json_object_get(e->object, rule->name))
			err = json_edit_set(e, rule->name, span_of(rule->value));
	}
	return err;
}

/* Sets max_tokens and min_tokens of the nested object to 1, and n when it is there. */
static int limit_sampling(struct json_edit *e, const struct json_object *o, struct pd_msg *msg)
{
	static const char *const tails[] = {"}", "\"max_tokens\":1}", "\"min_tokens\":1}",
					    "\"max_tokens\":1,\"min_tokens\":1}"};
	static const char *const joined[] = {"}", ",\"max_tokens\":1}", ",\"min_tokens\":1}",
					     ",\"max_tokens\":1,\"min_tokens\":1}"};
	static const char *const names[] = {"max_tokens", "min_tokens"};
	const struct json_member *several = json_object_get(o, "n");
	unsigned missing = 0;
	int err = pd_once(o, "n", msg);

	if (!err && several)
		err = json_edit_replace(e, several->value, SPAN("1"));
	if (err)
		return err;
	for (unsigned i = 0; i < 2; i++) {
		const struct json_member *m = json_object_get(o, names[i]);

		err = pd_once(o, names[i], msg);
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
	int err = pd_once(e->object, "sampling_params", msg);

	if (err)
		return err;
	if (!m || m->type != JSON_OBJECT)
		return PD_OK; /* the engine requires it: its own error names what is missing */
	err = json_object_scan(&nested, m->value.p, m->value.n, msg);
	if (err)
		return err;
	err = limit_sampling(e, &nested, msg);
	json_object_release(&nested);
	return err;
}

int pd_path_limit(struct json_edit *e, enum pd_path path, struct pd_msg *msg)
{
	int err;

	if (path == PD_PATH_GENERATE)
		err = generate_rules(e, msg);
	else
		err = apply(e,
			    path == PD_PATH_RESPONSES  ? response_rules
			    : path == PD_PATH_MESSAGES ? message_rules
						       : token_rules,
			    msg);
	return err ? err : apply(e, common_rules, msg);
}
