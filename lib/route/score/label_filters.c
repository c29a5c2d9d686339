/* Filters by labels: decided once for each set of workers, a decision only reads the verdicts. */
#include <ctype.h>

#include "lib/route/score/stage.h"

/* fact.kind: the worker is kept. */
static size_t keep(const struct score_call *c, uint16_t *list, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (c->fact[list[i]].kind)
			list[kept++] = list[i];
	return kept;
}

/* -- roles -- */

static bool is_one_of(struct span s, const char *const *words)
{
	for (; *words; words++)
		if (span_eq(s, span_of(*words)))
			return true;
	return false;
}

static struct span role_of(const struct route_worker *w)
{
	return route_label(&w->labels, SPAN(ROUTE_LABEL_ROLE));
}

static void decode_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	static const char *const roles[] = {"decode", "both", "prefill-decode",
					    "encode-prefill-decode", NULL};

	(void)params;
	out->kind = !role_of(w).p || is_one_of(role_of(w), roles);
}

static void prefill_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	static const char *const roles[] = {"prefill", "encode-prefill",	"prefill-decode",
					    "both",    "encode-prefill-decode", NULL};

	(void)params;
	out->kind = is_one_of(role_of(w), roles);
}

static void encode_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	static const char *const roles[] = {"encode", "encode-prefill", "encode-prefill-decode",
					    NULL};

	(void)params;
	out->kind = is_one_of(role_of(w), roles);
}

/* -- by-label -- */

struct texts {
	const char **text;
	size_t n;
};

struct by_params {
	const char *label;
	struct yamlnode values;
	bool unlabelled;
	struct texts valid;
};

static const struct score_param by_params[] = {
	{.type = SCORE_PARAM_TEXT, .name = "label", .offset = offsetof(struct by_params, label)},
	{.type = SCORE_PARAM_NODE,
	 .name = "validValues",
	 .offset = offsetof(struct by_params, values)},
	{.type = SCORE_PARAM_BOOL,
	 .name = "allowsNoLabel",
	 .offset = offsetof(struct by_params, unlabelled)},
	{.type = SCORE_PARAM_END},
};

static int read_texts(struct score_reader *r, const char *param, struct yamlnode list,
		      struct texts *out)
{
	char found[100];
	size_t n = 0;

	if (!list.pos)
		return PD_OK;
	if (yamlnode_kind(list) != YAMLPOS_SEQUENCE)
		return yamlnode_fail(list, r->file, r->msg,
				     "'%s': found %s, expected a list of texts", param,
				     yamlnode_found(list, found, sizeof(found)));
	for (struct yamlnode e = yamlnode_first(list); e.pos; e = yamlnode_next(e))
		n++;
	out->text = score_arena_get(r->arena, (n + 1) * sizeof(*out->text));
	if (!out->text)
		return PD_ENOMEM;
	for (struct yamlnode e = yamlnode_first(list); e.pos; e = yamlnode_next(e))
		if (yamlnode_string(e, &out->text[out->n++]))
			return yamlnode_fail(e, r->file, r->msg, "'%s': found %s, expected text",
					     param, yamlnode_found(e, found, sizeof(found)));
	return PD_OK;
}

static bool has_text(const struct texts *t, struct span s)
{
	for (size_t i = 0; i < t->n; i++)
		if (span_eq(span_of(t->text[i]), s))
			return true;
	return false;
}

static int by_check(struct score_reader *r, void *params)
{
	struct by_params *p = params;
	int err = read_texts(r, "validValues", p->values, &p->valid);

	if (err)
		return err;
	if (!p->label || !p->label[0])
		return score_wrong(r, "label", "found none, expected a label's name");
	if (p->valid.n == 0 && !p->unlabelled)
		return score_wrong(r, "validValues",
				   "found none and no allowsNoLabel, expected one of them");
	return PD_OK;
}

/* Without the label the value is the empty text. */
static void by_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	const struct by_params *p = params;
	struct span value = route_label(&w->labels, span_of(p->label));

	out->kind = (!value.p && p->unlabelled) || has_text(&p->valid, value);
}

/* -- label-selector-filter: a selector as Kubernetes has it -- */

enum operator{ OP_IN, OP_NOT_IN, OP_EXISTS, OP_NOT_EXISTS };

struct term {
	const char *key;
	enum operator op;
	struct texts values;
};

struct selector_params {
	struct yamlnode labels, expressions;
	struct term *term;
	size_t n;
};

static const struct score_param selector_params[] = {
	{.type = SCORE_PARAM_NODE,
	 .name = "matchLabels",
	 .offset = offsetof(struct selector_params, labels)},
	{.type = SCORE_PARAM_NODE,
	 .name = "matchExpressions",
	 .offset = offsetof(struct selector_params, expressions)},
	{.type = SCORE_PARAM_END},
};

/* Letters and digits at both ends, -_. between them, at most 63 of them. */
static bool is_name(struct span s)
{
	if (s.n == 0 || s.n > 63 || !isalnum((unsigned char)s.p[0]) ||
	    !isalnum((unsigned char)s.p[s.n - 1]))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && !strchr("-_.", s.p[i]))
			return false;
	return true;
}

/* A DNS subdomain: lower case, at most 253 characters. */
static bool is_prefix(struct span s)
{
	size_t part = 0;

	if (s.n == 0 || s.n > 253)
		return false;
	for (size_t i = 0; i <= s.n; i++) {
		bool end = i == s.n || s.p[i] == '.';

		if (end && (part == 0 || s.p[i - 1] == '-'))
			return false;
		if (!end && !islower((unsigned char)s.p[i]) && !isdigit((unsigned char)s.p[i]) &&
		    !(s.p[i] == '-' && part > 0))
			return false;
		part = end ? 0 : part + 1;
	}
	return true;
}

static bool is_key(const char *key)
{
	const char *slash = strchr(key, '/');

	return slash ? is_prefix((struct span){key, (size_t)(slash - key)}) &&
			       is_name(span_of(slash + 1))
		     : is_name(span_of(key));
}

static int check_value(struct score_reader *r, struct yamlnode at, const char *value)
{
	if (!value[0] || is_name(span_of(value)))
		return PD_OK;
	return yamlnode_fail(at, r->file, r->msg,
			     "found '%.80s', expected a label's value: at most 63 letters, digits, "
			     "- _ and .",
			     value);
}

static int check_key(struct score_reader *r, struct yamlnode at, const char *key)
{
	if (is_key(key))
		return PD_OK;
	return yamlnode_fail(at, r->file, r->msg,
			     "found '%.80s', expected a label's name: [domain/]name of at most 63 "
			     "letters, digits, - _ and .",
			     key);
}

static int read_operator(struct score_reader *r, struct yamlnode e, enum operator* out)
{
	static const char *const names[] = {"In", "NotIn", "Exists", "DoesNotExist"};
	struct yamlnode op = yamlnode_get(e, "operator");
	const char *text;

	if (op.pos && yamlnode_string(op, &text) == PD_OK)
		for (int i = 0; i < 4; i++)
			if (strcmp(text, names[i]) == 0) {
				*out = (enum operator)i;
				return PD_OK;
			}
	return yamlnode_fail(op.pos ? op : e, r->file, r->msg,
			     "'operator': found %.60s, expected In, NotIn, Exists or DoesNotExist",
			     op.pos && yamlnode_text(op) ? yamlnode_text(op) : "none");
}

static int read_expression(struct score_reader *r, struct yamlnode e, struct term *out)
{
	struct yamlnode values = yamlnode_get(e, "values");
	const char *key = "";
	int err;

	if (yamlnode_kind(e) != YAMLPOS_MAPPING)
		return yamlnode_fail(e, r->file, r->msg,
				     "'matchExpressions': expected key, operator and values");
	for (struct yamlnode n = yamlnode_first(e); n.pos; n = yamlnode_next(n))
		if (strcmp(yamlnode_key(n), "key") != 0 && strcmp(yamlnode_key(n), "values") != 0 &&
		    strcmp(yamlnode_key(n), "operator") != 0)
			return yamlnode_fail_key(
				n, r->file, r->msg,
				"unknown key '%.60s', expected key, operator or values",
				yamlnode_key(n));
	if (yamlnode_get(e, "key").pos && yamlnode_string(yamlnode_get(e, "key"), &key))
		key = "";
	err = check_key(r, yamlnode_get(e, "key").pos ? yamlnode_get(e, "key") : e, key);
	err = err ? err : read_operator(r, e, &out->op);
	err = err ? err : read_texts(r, "values", values, &out->values);
	if (err)
		return err;
	out->key = key;
	if ((out->op <= OP_NOT_IN) != (out->values.n > 0))
		return yamlnode_fail(values.pos ? values : e, r->file, r->msg,
				     "'values': found %zu, expected %s", out->values.n,
				     out->op <= OP_NOT_IN ? "at least one with this operator"
							  : "none with this operator");
	for (size_t i = 0; !err && i < out->values.n; i++)
		err = check_value(r, values, out->values.text[i]);
	return err;
}

static int read_label(struct score_reader *r, struct yamlnode n, struct term *out)
{
	const char **value = score_arena_get(r->arena, sizeof(*value));
	char found[100];
	int err = value ? check_key(r, n, yamlnode_key(n)) : PD_ENOMEM;

	if (err)
		return err;
	if (yamlnode_string(n, value))
		return yamlnode_fail(n, r->file, r->msg, "'%.60s': found %s, expected text",
				     yamlnode_key(n), yamlnode_found(n, found, sizeof(found)));
	*out = (struct term){yamlnode_key(n), OP_IN, {value, 1}};
	return check_value(r, n, *value);
}

static int selector_check(struct score_reader *r, void *params)
{
	struct selector_params *p = params;
	size_t max = 1;
	int err = PD_OK;

	if (p->labels.pos && yamlnode_kind(p->labels) != YAMLPOS_MAPPING)
		return score_wrong(r, "matchLabels", "expected a mapping of labels to values");
	if (p->expressions.pos && yamlnode_kind(p->expressions) != YAMLPOS_SEQUENCE)
		return score_wrong(r, "matchExpressions", "expected a list");
	for (struct yamlnode n = yamlnode_first(p->labels); n.pos; n = yamlnode_next(n))
		max++;
	for (struct yamlnode n = yamlnode_first(p->expressions); n.pos; n = yamlnode_next(n))
		max++;
	p->term = score_arena_get(r->arena, max * sizeof(*p->term));
	if (!p->term)
		return PD_ENOMEM;
	for (struct yamlnode n = yamlnode_first(p->labels); !err && n.pos; n = yamlnode_next(n))
		err = read_label(r, n, &p->term[p->n++]);
	for (struct yamlnode n = yamlnode_first(p->expressions); !err && n.pos;
	     n = yamlnode_next(n))
		err = read_expression(r, n, &p->term[p->n++]);
	return err;
}

static bool meets(const struct term *t, const struct route_worker *w)
{
	struct span value = route_label(&w->labels, span_of(t->key));

	switch (t->op) {
	case OP_IN:
		return value.p && has_text(&t->values, value);
	case OP_NOT_IN:
		return !value.p || !has_text(&t->values, value);
	case OP_EXISTS:
		return value.p != NULL;
	default:
		return value.p == NULL;
	}
}

static void selector_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	const struct selector_params *p = params;

	out->kind = true;
	for (size_t i = 0; i < p->n; i++)
		out->kind = out->kind && meets(&p->term[i], w);
}

#define BY_ROLE(what, text)                                                                        \
	{                                                                                          \
		.name = #what "-filter", .kinds = SCORE_FILTER, .help = text, .unread = true,      \
		.fact = what##_fact, .filter = keep                                                \
	}
const struct score_type score_decode_filter =
	BY_ROLE(decode, "roles that decode, and workers without `llm-d.ai/role`");
const struct score_type score_prefill_filter = BY_ROLE(prefill, "roles that prefill");
const struct score_type score_encode_filter = BY_ROLE(encode, "roles that encode");

const struct score_type score_by_label = {
	.name = "by-label",
	.kinds = SCORE_FILTER,
	.help = "workers with one of these values of a label",
	.params = by_params,
	.params_size = sizeof(struct by_params),
	.check = by_check,
	.fact = by_fact,
	.filter = keep,
};

#define SELECTOR(as, text)                                                                         \
	{                                                                                          \
		.name = as, .kinds = SCORE_FILTER, .help = text, .params = selector_params,        \
		.params_size = sizeof(struct selector_params), .check = selector_check,            \
		.fact = selector_fact, .filter = keep                                              \
	}
const struct score_type score_label_selector =
	SELECTOR("label-selector-filter", "workers that a Kubernetes selector means");
const struct score_type score_by_label_selector =
	SELECTOR("by-label-selector", "the older name of label-selector-filter");
