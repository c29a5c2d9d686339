/*
 * Every policy, one line each; the first is the default. --help, --list-policies, `--policy all`,
 * the tables in docs/, the identity test and the fuzz target walk this table.
 */
#define POLICIES                                                                                   \
	POLICY(affinity)                                                                           \
	POLICY(consistent_hash)                                                                    \
	POLICY(bounded_hash)                                                                       \
	POLICY(rendezvous_hash)                                                                    \
	POLICY(maglev)                                                                             \
	POLICY(modulo)                                                                             \
	POLICY(round_robin)                                                                        \
	POLICY(random)                                                                             \
	POLICY(power_of_two)                                                                       \
	POLICY(least_request)                                                                      \
	POLICY(sticky)                                                                             \
	POLICY(sticky_least_loaded)                                                                \
	POLICY(least_tokens)                                                                       \
	POLICY(prefix_hash)                                                                        \
	POLICY(cache_aware)                                                                        \
	POLICY(kv_aware)                                                                           \
	POLICY(scores)

#include "lib/route/policy/policies.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/nearest.h"

#define POLICY(name) extern const struct route_policy_type route_policy_##name;
POLICIES
#undef POLICY
#define POLICY(name) &route_policy_##name,
const struct route_policy_type *const route_policies[] = {POLICIES NULL};
#undef POLICY
#define POLICY(name) #name,
const char *const route_policy_names[] = {POLICIES NULL};

const struct route_policy_type *route_policy_find(struct span name)
{
	for (size_t i = 0; route_policies[i]; i++)
		if (span_eq(span_of(route_policies[i]->name), name))
			return route_policies[i];
	return NULL;
}

size_t route_param_list(struct route_param out[ROUTE_SETTINGS_MAX + 1])
{
	size_t n = 0, k;

	for (size_t i = 0; route_policies[i]; i++) {
		const struct route_param *p = route_policies[i]->params;

		for (; p && p->type; p++) {
			for (k = 0; k < n && strcmp(out[k].name, p->name) != 0;)
				k++;
			if (k == n && n < ROUTE_SETTINGS_MAX)
				out[n++] = *p;
		}
	}
	out[n] = (struct route_param){.type = ROUTE_PARAM_END};
	return n;
}

void route_param_keys(struct route_param_keys *out)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];

	out->n = route_param_list(list);
	for (size_t i = 0; i < out->n; i++) {
		(void)snprintf(out->text[i], sizeof(out->text[i]), "%s", list[i].name);
		for (char *c = out->text[i]; *c; c++)
			*c = *c == '-' ? '_' : *c;
		out->key[i] = out->text[i];
	}
}

static const char **setting_of(struct route_settings *s, const char *name)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	size_t n = route_param_list(list);

	for (size_t i = 0; i < n; i++)
		if (route_param_named(list[i].name, span_of(name)) ||
		    route_param_named(list[i].alias, span_of(name)))
			return &s->value[i];
	return NULL;
}

const char *route_setting(const struct route_settings *s, const char *name)
{
	struct route_settings copy = *s;
	const char **value = setting_of(&copy, name);

	return value ? *value : NULL;
}

int route_settings_put(struct route_settings *s, const char *name, const char *value)
{
	const char **to = setting_of(s, name);

	if (!to)
		return PD_ENOENT;
	*to = value;
	return PD_OK;
}

const struct route_param *route_param_find(const struct route_policy_type *t, struct span name)
{
	const struct route_param *p = t->params;

	while (p && p->type && !route_param_named(p->name, name) &&
	       !route_param_named(p->alias, name))
		p++;
	return p && p->type ? p : NULL;
}

static int unknown_policy(struct span name, struct pd_msg *msg)
{
	const char *near;
	char text[61], list[400];
	size_t n = 0, len = 0;

	for (; route_policies[n]; n++) {
		const char *joint = n == 0 ? "" : route_policies[n + 1] ? ", " : " or ";
		int more = snprintf(list + len, sizeof(list) - len, "%s%s", joint,
				    route_policies[n]->name);

		len += (size_t)more < sizeof(list) - len ? (size_t)more : 0;
	}
	(void)snprintf(text, sizeof(text), "%.*s", name.n > 60 ? 60 : (int)name.n, name.p);
	near = nearest_word(text, route_policy_names);
	return pd_fail(msg, PD_EINVAL, "unknown policy '%s'%s%s%s expected %s", text,
		       near ? ", did you mean '" : "", near ? near : "", near ? "'?" : ",", list);
}

static int unknown_param(const struct route_policy_type *t, struct span name, struct pd_msg *msg)
{
	char list[300] = "";
	size_t len = 0;

	for (const struct route_param *p = t->params; p && p->type; p++) {
		int more =
			snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", p->name);

		len += (size_t)more < sizeof(list) - len ? (size_t)more : 0;
	}
	return pd_fail(msg, PD_EINVAL, "policy %s has no parameter '%.*s', expected %s", t->name,
		       name.n > 60 ? 60 : (int)name.n, name.p, len ? list : "none: it has none");
}

int route_spec_set(struct route_spec *out, struct span item, struct pd_msg *msg)
{
	const char *eq = item.n ? memchr(item.p, '=', item.n) : NULL;
	struct span name = {item.p, eq ? (size_t)(eq - item.p) : item.n};
	const struct route_param *p;
	struct pd_msg inner = {.text = ""};

	if (!eq)
		return pd_fail(msg, PD_EINVAL,
			       "policy %s: found '%.*s', expected PARAMETER=VALUE behind the colon",
			       out->type->name, item.n > 60 ? 60 : (int)item.n, item.p);
	p = route_param_find(out->type, name);
	if (!p)
		return unknown_param(out->type, name, msg);
	if (route_param_set(p, out->params, (struct span){eq + 1, item.n - name.n - 1}, &inner))
		return pd_fail(msg, PD_EINVAL, "policy %s: %s: %.300s", out->type->name, p->name,
			       inner.text);
	return PD_OK;
}

int route_spec_apply(struct route_spec *spec, const struct route_settings *s, struct pd_msg *msg)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	size_t n = route_param_list(list);
	struct pd_msg inner = {.text = ""};

	for (size_t i = 0; i < n; i++) {
		const struct route_param *p = route_param_find(spec->type, span_of(list[i].name));

		if (p && s->value[i] &&
		    route_param_set(p, spec->params, span_of(s->value[i]), &inner))
			return pd_fail(msg, PD_EINVAL, "%s: %.300s", p->name, inner.text);
	}
	return PD_OK;
}

int route_spec_parse(struct route_spec *out, const char *text, const struct route_settings *s,
		     struct pd_msg *msg)
{
	struct span name = {text, strcspn(text, ":")};
	const struct route_policy_type *type = route_policy_find(name);
	struct route_spec spec;

	if (!type)
		return unknown_policy(name, msg);
	if (strlen(text) >= ROUTE_SPEC_MAX)
		return pd_fail(msg, PD_EINVAL, "policy '%.40s...' has %zu characters, expected %d",
			       text, strlen(text), ROUTE_SPEC_MAX - 1);
	spec = route_spec_of(type);
	if (s && route_spec_apply(&spec, s, msg))
		return PD_EINVAL;
	for (text += name.n; *text == ':'; text += name.n) {
		name = (struct span){text + 1, strcspn(text + 1, ":")};
		if (route_spec_set(&spec, name, msg))
			return PD_EINVAL;
		name.n++;
	}
	*out = spec;
	return PD_OK;
}

int route_spec_print(const struct route_spec *s, const struct route_settings *known,
		     struct buf *out)
{
	struct route_spec base = route_spec_of(s->type);
	int err = buf_puts(out, s->type->name);

	if (known && route_spec_apply(&base, known, NULL))
		base = route_spec_of(s->type);
	for (const struct route_param *p = s->type->params; !err && p && p->type; p++) {
		if (memcmp(s->params + p->offset, base.params + p->offset, sizeof(int64_t)) == 0)
			continue;
		err = buf_printf(out, ":%s=", p->name);
		err = err ? err : route_param_print(p, s->params, out);
	}
	return err;
}

int route_settings_check(const struct route_settings *s, size_t *wrong, struct pd_msg *msg)
{
	_Alignas(int64_t) unsigned char params[ROUTE_PARAMS_SIZE];
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	size_t n = route_param_list(list);

	for (size_t i = 0; i < n; i++) {
		*wrong = i;
		list[i].offset = 0;
		if (s->value[i] && route_param_set(&list[i], params, span_of(s->value[i]), msg))
			return PD_EINVAL;
	}
	return PD_OK;
}

int route_policies_print(struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && route_policies[i]; i++)
		err = buf_printf(out, "%s\n", route_policies[i]->name);
	return err;
}

int route_policies_markdown(struct buf *out)
{
	int err = buf_puts(out, "| policy | what it does | parameters |\n|---|---|---|\n");

	for (size_t i = 0; !err && route_policies[i]; i++) {
		const struct route_policy_type *t = route_policies[i];
		struct route_spec spec = route_spec_of(t);

		err = buf_printf(out, "| `%s` | %s | ", t->name, t->help);
		for (const struct route_param *p = t->params; !err && p && p->type; p++) {
			err = buf_printf(out, "%s`%s` (", p == t->params ? "" : ", ", p->name);
			err = err ? err : route_param_print(p, spec.params, out);
			err = err ? err : buf_putc(out, ')');
		}
		err = err ? err : buf_puts(out, " |\n");
	}
	return err;
}
