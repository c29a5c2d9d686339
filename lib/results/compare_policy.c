/* Every scalar of the file belongs to a key at the top, alone or in a list; a table says what each
 * key is. */
#include "lib/results/compare_policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/nearest.h"
#include "lib/base/yamlpos.h"

enum kind { FLAG, NUMBER, PERCENT, COUNT, LIST, GATE };

struct key {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct compare_rules, or in struct compare_policy for lists */
	double min, max;
	enum gate_kind gate;
};

#define RULE(member)   offsetof(struct compare_rules, member)
#define MEMBER(member) offsetof(struct compare_policy, member)

static const struct key keys[] = {
	{"fail-on", GATE, 0, 0, 0, GATE_FAIL_ON},
	{"warn-on", GATE, 0, 0, 0, GATE_WARN_ON},
	{"require", GATE, 0, 0, 0, GATE_REQUIRE},
	{"alpha", NUMBER, RULE(alpha), 0.0001, 0.5, 0},
	{"gate-level", NUMBER, RULE(level), 0.0001, 0.5, 0},
	{"run-spread", PERCENT, RULE(run_spread), 0, 1, 0},
	{"detect", PERCENT, RULE(detect), 0.0001, 10, 0},
	{"min-runs", COUNT, RULE(min_runs), 2, RESULT_DOCS_MAX, 0},
	{"pairs", FLAG, RULE(pairs), 0, 0, 0},
	{"single", FLAG, RULE(single), 0, 0, 0},
	{"strict", FLAG, RULE(strict), 0, 0, 0},
	{"bootstrap", FLAG, RULE(bootstrap), 0, 0, 0},
	{"allow-different", LIST, MEMBER(allow), 0, 0, 0},
	{"metrics", LIST, MEMBER(metrics), 0, 0, 0},
	{"preset", LIST, MEMBER(preset), 0, 0, 0},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

static const struct key *key_of(const char *path)
{
	size_t n = strcspn(path, "[");

	for (size_t i = 0; i < KEYS; i++)
		if (strlen(keys[i].name) == n && memcmp(keys[i].name, path, n) == 0)
			return &keys[i];
	return NULL;
}

static int unknown(const char *file, const struct yamlpos_entry *e, struct pd_msg *msg)
{
	const char *names[KEYS + 1] = {NULL}, *near;

	for (size_t i = 0; i < KEYS; i++)
		names[i] = keys[i].name;
	near = nearest_word(e->path, names);
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: unknown key '%s'%s%s%s", file, e->line,
		       e->column, e->path, near ? ", did you mean '" : "", near ? near : "",
		       near ? "'?" : "");
}

static int wrong(const char *file, const struct yamlpos_entry *e, const char *expected,
		 struct pd_msg *msg)
{
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %s: found '%s', expected %s", file,
		       e->value_line, e->value_column, e->path,
		       e->scalar ? e->scalar : "a list or mapping", expected);
}

static int take_flag(struct compare_rules *rules, const struct key *k, const char *file,
		     const struct yamlpos_entry *e, struct pd_msg *msg)
{
	bool on = strcmp(e->scalar, "true") == 0;

	if (!on && strcmp(e->scalar, "false") != 0)
		return wrong(file, e, "true or false", msg);
	memcpy((char *)rules + k->offset, &on, sizeof(on));
	return PD_OK;
}

static int take_number(struct compare_rules *rules, const struct key *k, const char *file,
		       const struct yamlpos_entry *e, struct pd_msg *msg)
{
	char expected[96], *end;
	double v = NAN;
	size_t count;

	(void)snprintf(expected, sizeof(expected), "%s from %g%s to %g%s",
		       k->kind == COUNT ? "a whole number" : "a number",
		       k->kind == PERCENT ? k->min * 100 : k->min, k->kind == PERCENT ? "%" : "",
		       k->kind == PERCENT ? k->max * 100 : k->max, k->kind == PERCENT ? "%" : "");
	if (k->kind == PERCENT) {
		if (!gate_percent(e->scalar, &v))
			return wrong(file, e, expected, msg);
	} else {
		v = strtod(e->scalar, &end);
		if (end == e->scalar || *end)
			return wrong(file, e, expected, msg);
	}
	if (!(v >= k->min && v <= k->max) || (k->kind == COUNT && v != floor(v)))
		return wrong(file, e, expected, msg);
	if (k->kind != COUNT) {
		memcpy((char *)rules + k->offset, &v, sizeof(v));
		return PD_OK;
	}
	count = (size_t)v;
	memcpy((char *)rules + k->offset, &count, sizeof(count));
	return PD_OK;
}

static int take_gate(struct compare_policy *p, const struct key *k, const char *file,
		     const struct yamlpos_entry *e, struct pd_msg *msg)
{
	struct pd_msg why = {""};
	char *text;

	if (p->ngates == GATES_MAX)
		return pd_fail(msg, PD_ETOOBIG, "%s:%zu:%zu: more than %d gates", file, e->line,
			       e->column, GATES_MAX);
	text = strdup(e->scalar);
	if (!text)
		return PD_ENOMEM;
	p->text[p->ngates] = text;
	if (gate_parse(&p->gate[p->ngates++], k->gate, text, &why))
		return pd_fail(msg, PD_EINVAL, "%.200s:%zu:%zu: %.280s", file, e->value_line,
			       e->value_column, why.text);
	return PD_OK;
}

/* Appends to the comma-separated list. */
static int take_list(struct compare_policy *p, const struct key *k, const struct yamlpos_entry *e)
{
	char *old, *list = NULL;

	memcpy(&old, (char *)p + k->offset, sizeof(old));
	if (asprintf(&list, "%s%s%s", old ? old : "", old ? "," : "", e->scalar) < 0)
		return PD_ENOMEM;
	free(old);
	memcpy((char *)p + k->offset, &list, sizeof(list));
	return PD_OK;
}

static int take(struct compare_policy *p, const char *file, const struct yamlpos_entry *e,
		struct pd_msg *msg)
{
	const struct key *k = key_of(e->path);
	bool entry = strchr(e->path, '[') != NULL;

	if (!k || strchr(e->path, '.'))
		return unknown(file, e, msg);
	if (!e->scalar)
		/* a list: its entries follow */
		return (k->kind == LIST || k->kind == GATE) && !entry
			       ? PD_OK
			       : wrong(file, e, "a single value", msg);
	if (entry && k->kind != LIST && k->kind != GATE)
		return wrong(file, e, "a single value", msg);
	switch (k->kind) {
	case FLAG:
		return take_flag(&p->rules, k, file, e, msg);
	case GATE:
		return take_gate(p, k, file, e, msg);
	case LIST:
		return take_list(p, k, e);
	default:
		return take_number(&p->rules, k, file, e, msg);
	}
}

int compare_policy_parse(struct compare_policy *p, const char *name, struct span text,
			 struct pd_msg *msg)
{
	struct yamlpos pos = {NULL, 0, 0};
	int err = yamlpos_scan(&pos, text.p ? text.p : "", text.n, name, msg);

	for (size_t i = 0; !err && i < pos.n; i++)
		err = take(p, name, &pos.entry[i], msg);
	if (!err && p->preset && strcmp(p->preset, "infinilm") != 0)
		err = pd_fail(msg, PD_EINVAL, "%s: preset: found '%s', expected infinilm", name,
			      p->preset);
	yamlpos_release(&pos);
	return err;
}

int compare_policy_read(struct compare_policy *p, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	buf_init(&text, POLICY_FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = compare_policy_parse(p, path, buf_span(&text), msg);
	buf_release(&text);
	return err;
}

void compare_policy_release(struct compare_policy *p)
{
	for (size_t i = 0; i < p->ngates; i++)
		free(p->text[i]);
	free(p->allow);
	free(p->metrics);
	free(p->preset);
	memset(p, 0, sizeof(*p));
}
