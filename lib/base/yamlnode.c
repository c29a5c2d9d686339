#include "lib/base/yamlnode.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"

static const struct yamlpos_entry *entry(struct yamlnode n)
{
	return n.pos && n.at < n.pos->n ? &n.pos->entry[n.at] : NULL;
}

static unsigned depth(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	return e ? e->depth : 0;
}

enum yamlpos_kind yamlnode_kind(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	if (e)
		return e->kind;
	if (!n.pos || n.pos->n == 0)
		return YAMLPOS_SCALAR;
	return n.pos->entry[0].path[0] == '[' ? YAMLPOS_SEQUENCE : YAMLPOS_MAPPING;
}

struct yamlnode yamlnode_first(struct yamlnode parent)
{
	struct yamlnode child = {parent.pos, parent.at == SIZE_MAX ? 0 : parent.at + 1};

	if (!entry(child) || depth(child) != depth(parent) + 1)
		child.pos = NULL;
	return child;
}

struct yamlnode yamlnode_next(struct yamlnode n)
{
	unsigned own = depth(n);

	do {
		n.at++;
	} while (entry(n) && depth(n) > own);
	if (!entry(n) || depth(n) < own)
		n.pos = NULL;
	return n;
}

const char *yamlnode_key(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	return e ? e->path + e->name_at : "";
}

const char *yamlnode_text(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	return e ? e->scalar : NULL;
}

bool yamlnode_null(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	return !e ||
	       (e->kind == YAMLPOS_SCALAR && !e->quoted &&
		(!e->scalar[0] || strcmp(e->scalar, "null") == 0 || strcmp(e->scalar, "~") == 0));
}

struct yamlnode yamlnode_get(struct yamlnode parent, const char *key)
{
	struct yamlnode n = {0};

	if (parent.pos && yamlnode_kind(parent) == YAMLPOS_MAPPING)
		n = yamlnode_first(parent);
	while (n.pos && strcmp(yamlnode_key(n), key) != 0)
		n = yamlnode_next(n);
	return n.pos && yamlnode_null(n) ? (struct yamlnode){0} : n;
}

static int fail(size_t line, size_t column, const char *name, struct pd_msg *msg, const char *fmt,
		va_list args)
{
	char text[PD_MSG_MAX];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the callers' formats are checked */
	(void)vsnprintf(text, sizeof(text), fmt, args);
#pragma GCC diagnostic pop
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %.400s", name, line, column, text);
}

int yamlnode_fail(struct yamlnode n, const char *name, struct pd_msg *msg, const char *fmt, ...)
{
	const struct yamlpos_entry *e = entry(n);
	va_list args;
	int err;

	va_start(args, fmt);
	err = fail(e ? e->value_line : 1, e ? e->value_column : 1, name, msg, fmt, args);
	va_end(args);
	return err;
}

int yamlnode_fail_key(struct yamlnode n, const char *name, struct pd_msg *msg, const char *fmt, ...)
{
	const struct yamlpos_entry *e = entry(n);
	va_list args;
	int err;

	va_start(args, fmt);
	err = fail(e ? e->line : 1, e ? e->column : 1, name, msg, fmt, args);
	va_end(args);
	return err;
}

int yamlnode_keys(struct yamlnode map, const char *name, const char *const *known,
		  struct pd_msg *msg)
{
	char list[900] = "";
	size_t len = 0;

	for (struct yamlnode n = yamlnode_first(map); n.pos; n = yamlnode_next(n)) {
		const char *key = yamlnode_key(n), *near;
		size_t i = 0;

		while (known[i] && strcmp(known[i], key) != 0)
			i++;
		if (known[i])
			continue;
		near = nearest_word(key, known);
		for (i = 0; known[i]; i++) {
			int more = snprintf(list + len, sizeof(list) - len, "%s %s", i ? "," : "",
					    known[i]);

			len += (size_t)more < sizeof(list) - len ? (size_t)more : 0;
		}
		return yamlnode_fail_key(
			n, name, msg, "unknown key '%.60s'%s%s%s expected one of%.300s", key,
			near ? ", did you mean '" : "", near ? near : "", near ? "'?" : ",", list);
	}
	return PD_OK;
}

static const char *plain(struct yamlnode n)
{
	const struct yamlpos_entry *e = entry(n);

	return e && e->kind == YAMLPOS_SCALAR && !e->quoted ? e->scalar : NULL;
}

int yamlnode_int(struct yamlnode n, int64_t *out)
{
	const char *text = plain(n);
	long long v;
	char *end;

	if (!text || !text[0] || text[strspn(text, "-0123456789")])
		return PD_EINVAL;
	errno = 0;
	v = strtoll(text, &end, 10);
	if (*end || end == text || errno)
		return PD_EINVAL;
	*out = v;
	return PD_OK;
}

int yamlnode_real(struct yamlnode n, double *out)
{
	const char *text = plain(n);
	char *end;
	double v;

	if (!text || !text[0] || text[strspn(text, "+-.0123456789eE")])
		return PD_EINVAL;
	v = strtod(text, &end);
	if (*end || end == text || !isfinite(v))
		return PD_EINVAL;
	*out = v;
	return PD_OK;
}

int yamlnode_bool(struct yamlnode n, bool *out)
{
	const char *text = plain(n);

	if (!text || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
		return PD_EINVAL;
	*out = text[0] == 't';
	return PD_OK;
}

int yamlnode_string(struct yamlnode n, const char **out)
{
	const struct yamlpos_entry *e = entry(n);
	int64_t whole;
	double real;
	bool truth;

	if (!e || e->kind != YAMLPOS_SCALAR ||
	    (!e->quoted && (yamlnode_null(n) || yamlnode_int(n, &whole) == PD_OK ||
			    yamlnode_real(n, &real) == PD_OK || yamlnode_bool(n, &truth) == PD_OK)))
		return PD_EINVAL;
	*out = e->scalar;
	return PD_OK;
}

int yamlnode_duration(struct yamlnode n, int64_t *out)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"ns", 1},	 {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"ms", 1e6},
		     {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
	const char *text;
	double sum = 0;
	bool minus;

	if (yamlnode_string(n, &text)) {
		if (!plain(n) || strcmp(plain(n), "0") != 0)
			return PD_EINVAL;
		*out = 0;
		return PD_OK;
	}
	minus = *text == '-';
	text += *text == '-' || *text == '+';
	if (strcmp(text, "0") == 0) {
		*out = 0;
		return PD_OK;
	}
	if (!*text)
		return PD_EINVAL;
	while (*text) {
		size_t digits = strspn(text, "0123456789."), best = SIZE_MAX;
		char *end;
		double v;

		if (digits == 0 || digits > 30 || (digits == 1 && *text == '.'))
			return PD_EINVAL;
		v = strtod(text, &end);
		if (end != text + digits)
			return PD_EINVAL;
		text = end;
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (strncmp(text, units[i].name, strlen(units[i].name)) == 0 &&
			    (best == SIZE_MAX || strlen(units[i].name) > strlen(units[best].name)))
				best = i;
		if (best == SIZE_MAX)
			return PD_EINVAL;
		text += strlen(units[best].name);
		sum += v * units[best].ns;
	}
	if (sum > 9.2e18)
		return PD_EINVAL;
	*out = minus ? -(int64_t)sum : (int64_t)sum;
	return PD_OK;
}

const char *yamlnode_found(struct yamlnode n, char *out, size_t cap)
{
	const struct yamlpos_entry *e = entry(n);

	if (yamlnode_kind(n) == YAMLPOS_MAPPING)
		return "a mapping of keys";
	if (yamlnode_kind(n) == YAMLPOS_SEQUENCE)
		return "a list";
	if (!e)
		return "nothing";
	(void)snprintf(out, cap, "%s'%.60s'", e->quoted ? "the text " : "", e->scalar);
	return out;
}
