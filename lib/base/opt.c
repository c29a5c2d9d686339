/* Reading the words of a command line against an option table; see opt.h. The texts (help,
 * Markdown) are in opthelp.c. */
#include "lib/base/opt.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/nearest.h"

struct word {
	const char *name; /* without dashes and value */
	size_t n;
	const char *value; /* after '=', or NULL */
};

static bool name_is(const char *name, struct word w)
{
	return name && strlen(name) == w.n && memcmp(name, w.name, w.n) == 0;
}

const struct opt *opt_next(struct opt_walk *w)
{
	for (;;) {
		if (w->at->type == OPT_END && !w->outer)
			return NULL;
		if (w->at->type == OPT_END) {
			w->at = w->outer;
			w->outer = NULL;
		} else if (w->at->type == OPT_ROWS) {
			w->outer = w->at + 1;
			w->at = w->at->value;
		} else {
			return w->at++;
		}
	}
}

/* Each row can be found and set. */
static bool sound(const struct opt_command *c)
{
	struct opt_walk walk = {.at = c->opts};

	for (const struct opt *o; (o = opt_next(&walk));)
		if (o->type != OPT_HEADING &&
		    (!o->name || !o->value || (o->type == OPT_CHOICE && !o->choices)))
			return false;
	return true;
}

static const struct opt *find(const struct opt_command *c, struct word w)
{
	struct opt_walk walk = {.at = c->opts};

	for (const struct opt *o; (o = opt_next(&walk));)
		if (o->type != OPT_HEADING && (name_is(o->name, w) || name_is(o->alias, w)))
			return o;
	return NULL;
}

static int unknown(const struct opt_command *c, struct word w, struct pd_msg *msg)
{
	const char *names[256], *near;
	char text[64];
	struct opt_walk walk = {.at = c->opts};
	size_t n = 0;

	for (const struct opt *o; n < 255 && (o = opt_next(&walk));)
		if (o->type != OPT_HEADING)
			names[n++] = o->name;
	names[n] = NULL;
	n = w.n < sizeof(text) - 1 ? w.n : sizeof(text) - 1;
	memcpy(text, w.name, n);
	text[n] = '\0';
	near = nearest_word(text, names);
	if (near)
		return pd_fail(msg, PD_EINVAL, "unknown option '--%s', did you mean '--%s'?", text,
			       near);
	return pd_fail(msg, PD_EINVAL, "unknown option '--%s'", text);
}

static int set_int(const struct opt *o, const char *text, struct pd_msg *msg)
{
	char *end;
	long long v;

	errno = 0;
	v = strtoll(text, &end, 10);
	if (end == text || *end || errno)
		return pd_fail(msg, PD_EINVAL, "--%s: found '%s', expected a whole number", o->name,
			       text);
	if (o->min < o->max && ((double)v < o->min || (double)v > o->max))
		return pd_fail(msg, PD_EINVAL, "--%s: found %lld, expected %.0f to %.0f", o->name,
			       v, o->min, o->max);
	*(int64_t *)o->value = v;
	return PD_OK;
}

static int set_real(const struct opt *o, const char *text, struct pd_msg *msg)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || isnan(v))
		return pd_fail(msg, PD_EINVAL, "--%s: found '%s', expected a number", o->name,
			       text);
	if (o->min < o->max && (v < o->min || v > o->max))
		return pd_fail(msg, PD_EINVAL, "--%s: found %g, expected %g to %g", o->name, v,
			       o->min, o->max);
	if (isinf(v) && !isinf(o->max))
		return pd_fail(msg, PD_EINVAL, "--%s: found '%s', expected a finite number",
			       o->name, text);
	*(double *)o->value = v;
	return PD_OK;
}

static int set_choice(const struct opt *o, const char *text, struct pd_msg *msg)
{
	size_t n = strlen(text);

	for (const char *p = o->choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
		if (strncmp(p, text, n) == 0 && (p[n] == '|' || p[n] == '\0') && n > 0) {
			*(const char **)o->value = text;
			return PD_OK;
		}
	}
	return pd_fail(msg, PD_EINVAL, "--%s: found '%s', expected one of %s", o->name, text,
		       o->choices);
}

static int list_add(struct opt_list *l, const char *word, unsigned occurrence)
{
	const char **items = realloc(l->items, (l->n + 1) * sizeof(*items));
	unsigned *occ;

	if (!items)
		return PD_ENOMEM;
	l->items = items;
	occ = realloc(l->occurrence, (l->n + 1) * sizeof(*occ));
	if (!occ)
		return PD_ENOMEM;
	l->occurrence = occ;
	l->items[l->n] = word;
	l->occurrence[l->n++] = occurrence;
	return PD_OK;
}

void opt_list_release(struct opt_list *l)
{
	free(l->items);
	free(l->occurrence);
	*l = (struct opt_list){0};
}

/* Takes the words after the flag up to the next option; *i ends on the last word taken. */
static int set_list(const struct opt *o, struct word w, int argc, char **argv, int *i,
		    struct pd_msg *msg)
{
	struct opt_list *l = o->value;
	size_t most = o->max > 0 ? (size_t)o->max : OPT_LIST_MAX,
	       least = o->min > 0 ? (size_t)o->min : 0, taken = 0;
	int err = PD_OK;

	if (w.value) {
		err = list_add(l, w.value, l->occurrences);
		taken = 1;
	}
	while (!err && !w.value && taken < most && *i + 1 < argc &&
	       strncmp(argv[*i + 1], "--", 2) != 0) {
		err = list_add(l, argv[++*i], l->occurrences);
		taken++;
	}
	l->occurrences++;
	if (err || l->n > OPT_LIST_MAX)
		return pd_fail(msg, PD_EINVAL, "--%s: too many values, expected at most %d",
			       o->name, OPT_LIST_MAX);
	if (taken < least)
		return pd_fail(msg, PD_EINVAL, "--%s: expected %s", o->name,
			       o->arg ? o->arg : "a value");
	return PD_OK;
}

static int set_flag(const struct opt *o, struct word w, bool on, struct pd_msg *msg)
{
	if (w.value)
		return pd_fail(msg, PD_EINVAL, "--%s: found '%s', expected no value", o->name,
			       w.value);
	*(bool *)o->value = on;
	return PD_OK;
}

static int set_value(const struct opt *o, const char *text, struct pd_msg *msg)
{
	switch (o->type) {
	case OPT_INT:
		return set_int(o, text, msg);
	case OPT_REAL:
		return set_real(o, text, msg);
	case OPT_CHOICE:
		return set_choice(o, text, msg);
	default:
		*(const char **)o->value = text;
		return PD_OK;
	}
}

static int take(const struct opt_command *c, int argc, char **argv, int *i, struct pd_msg *msg)
{
	const char *eq = strchr(argv[*i], '=');
	struct word w = {argv[*i] + 2, eq ? (size_t)(eq - argv[*i] - 2) : strlen(argv[*i] + 2),
			 eq ? eq + 1 : NULL};
	const struct opt *o = find(c, w);

	if (!o && w.n > 3 && memcmp(w.name, "no-", 3) == 0) {
		struct word positive = {w.name + 3, w.n - 3, w.value};

		o = find(c, positive);
		if (o && o->type == OPT_FLAG)
			return set_flag(o, w, false, msg);
		o = NULL;
	}
	if (!o)
		return unknown(c, w, msg);
	if (o->type == OPT_FLAG)
		return set_flag(o, w, true, msg);
	if (o->type == OPT_LIST)
		return set_list(o, w, argc, argv, i, msg);
	if (w.value)
		return set_value(o, w.value, msg);
	if (*i + 1 >= argc || (strncmp(argv[*i + 1], "--", 2) == 0 && argv[*i + 1][2]))
		return pd_fail(msg, PD_EINVAL, "--%s: expected %s", o->name,
			       o->arg ? o->arg : "a value");
	return set_value(o, argv[++*i], msg);
}

static int take_rest(struct opt_list *rest, const char *word, struct pd_msg *msg)
{
	if (!rest)
		return pd_fail(msg, PD_EINVAL, "unexpected argument '%s'", word);
	if (rest->n >= OPT_LIST_MAX || list_add(rest, word, 0))
		return pd_fail(msg, PD_EINVAL, "too many arguments at '%s'", word);
	return PD_OK;
}

int opt_parse(const struct opt_command *c, int argc, char **argv, struct opt_list *rest,
	      struct pd_msg *msg)
{
	bool only_rest = false;
	int err = PD_OK;

	PD_CHECK(sound(c));
	for (int i = 1; !err && i < argc; i++) {
		if (only_rest || argv[i][0] != '-' || argv[i][1] == '\0')
			err = take_rest(rest, argv[i], msg);
		else if (strcmp(argv[i], "--") == 0)
			only_rest = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return OPT_HELP;
		else if (argv[i][1] != '-')
			err = pd_fail(msg, PD_EINVAL, "unknown option '%s'", argv[i]);
		else
			err = take(c, argc, argv, &i, msg);
	}
	return err;
}

bool opt_given(const struct opt_command *c, int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		const char *eq = strchr(argv[i], '=');
		struct word w = {NULL, 0, NULL};
		const struct opt *o;

		if (strncmp(argv[i], "--", 2) != 0)
			continue;
		w.name = argv[i] + 2;
		w.n = eq ? (size_t)(eq - w.name) : strlen(w.name);
		o = find(c, w);
		if (!o && w.n > 3 && memcmp(w.name, "no-", 3) == 0)
			o = find(c, (struct word){w.name + 3, w.n - 3, NULL});
		if (o && strcmp(o->name, name) == 0)
			return true;
	}
	return false;
}
