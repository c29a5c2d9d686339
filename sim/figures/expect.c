/* A hand-written parser: the language is one line, and its errors name a column. */
#include "sim/figures/expect.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	const char *start, *p;
	const char *fail; /* place of the error */
	struct pd_msg *msg;
};

static int wrong(struct reader *r, const char *at, const char *expected)
{
	size_t n = strcspn(at, " \t");

	r->fail = at;
	if (*at == '\0')
		return pd_fail(r->msg, PD_EINVAL, "the expectation ends here: expected %s",
			       expected);
	return pd_fail(r->msg, PD_EINVAL, "found '%.*s': expected %s", (int)(n > 60 ? 60 : n), at,
		       expected);
}

static void skip(struct reader *r)
{
	r->p += strspn(r->p, " \t");
}

/* The next word, up to a space or one of ":<>=*"; '=' belongs to a word of a selector. */
static struct span word(struct reader *r, const char *stops)
{
	struct span w;

	skip(r);
	w.p = r->p;
	w.n = strcspn(r->p, stops);
	r->p += w.n;
	return w;
}

static int read_count(struct reader *r, struct span w, size_t prefix, int64_t *out)
{
	char *end;

	*out = strtoll(w.p + prefix, &end, 10);
	if (end != w.p + w.n || w.n == prefix || *out < 0 || !isdigit((unsigned char)w.p[prefix]))
		return wrong(r, w.p, "a whole number after '='");
	return PD_OK;
}

static int read_point(struct reader *r, struct span w, struct expect_selector *out)
{
	size_t n = strlen(out->point);

	if (n + w.n + 2 > sizeof(out->point))
		return wrong(r, w.p, "fewer or shorter fields");
	(void)snprintf(out->point + n, sizeof(out->point) - n, "%s%.*s", n ? " " : "", (int)w.n,
		       w.p);
	return PD_OK;
}

/* Words up to `end`, a pointer into the text. */
static int read_selector(struct reader *r, const char *end, struct expect_selector *out)
{
	int err = PD_OK;

	*out = (struct expect_selector){.workers = -1, .cache = -1};
	for (skip(r); !err && r->p < end; skip(r)) {
		struct span w = word(r, " \t:");

		if (span_starts(w, SPAN("workers=")))
			err = read_count(r, w, 8, &out->workers);
		else if (span_starts(w, SPAN("cache=")))
			err = read_count(r, w, 6, &out->cache);
		else if (memchr(w.p, '=', w.n))
			err = read_point(r, w, out);
		else if (w.n == 0 || w.n >= sizeof(out->policy) || out->policy[0])
			err = wrong(r, w.p, "one policy, workers=N, cache=N and swept fields");
		else
			(void)snprintf(out->policy, sizeof(out->policy), "%.*s", (int)w.n, w.p);
	}
	return err;
}

static int read_metric(struct reader *r, struct expect_side *side)
{
	struct span w = word(r, " \t<>=*:");
	char name[64];
	const char *near;

	side->pool = -1;
	if (span_starts(w, SPAN("prefill.")))
		side->pool = 0;
	else if (span_starts(w, SPAN("decode.")))
		side->pool = 1;
	if (side->pool >= 0) {
		size_t n = (size_t)((const char *)memchr(w.p, '.', w.n) - w.p) + 1;

		w.p += n;
		w.n -= n;
	}
	side->metric = simmetric_find(w.p, w.n);
	if (side->metric && (side->pool < 0 || side->metric->per_pool))
		return PD_OK;
	if (side->metric)
		return wrong(r, w.p, "a metric of a pool after 'prefill.' or 'decode.'");
	(void)snprintf(name, sizeof(name), "%.*s", (int)(w.n > 60 ? 60 : w.n), w.p);
	near = w.n > 0 ? simmetric_nearest(name) : NULL;
	if (!near)
		return wrong(r, w.p, "the name of a metric, such as session_consistency");
	r->fail = w.p;
	return pd_fail(r->msg, PD_EINVAL, "unknown metric '%s': did you mean '%s'?", name, near);
}

static int read_op(struct reader *r, enum expect_op *op)
{
	static const struct {
		const char *text;
		enum expect_op op;
	} ops[] = {{">=", EXPECT_GE},
		   {"<=", EXPECT_LE},
		   {"==", EXPECT_EQ},
		   {">", EXPECT_GT},
		   {"<", EXPECT_LT}};

	skip(r);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		size_t n = strlen(ops[i].text);

		if (strncmp(r->p, ops[i].text, n) != 0)
			continue;
		*op = ops[i].op;
		r->p += n;
		return PD_OK;
	}
	return wrong(r, r->p, ">=, <=, >, < or ==");
}

static bool starts_number(const char *p)
{
	return isdigit((unsigned char)p[0]) ||
	       ((p[0] == '.' || p[0] == '-' || p[0] == '+') && isdigit((unsigned char)p[1]));
}

static int read_right(struct reader *r, struct expect_side *side)
{
	const char *at;
	char *end;
	int err;

	*side = (struct expect_side){
		.pool = -1, .factor = 1, .select = {.workers = -1, .cache = -1}};
	skip(r);
	at = r->p;
	if (starts_number(at)) {
		side->factor = strtod(at, &end);
		if (!isfinite(side->factor) || (*end && !strchr(" \t*", *end)))
			return wrong(r, at, "a number");
		r->p = end;
		skip(r);
		if (*r->p != '*')
			return PD_OK;
		r->p++;
	}
	err = read_metric(r, side);
	skip(r);
	if (err || strncmp(r->p, "of ", 3) != 0)
		return err;
	r->p += 3;
	return read_selector(r, r->p + strlen(r->p), &side->select);
}

int expect_parse(struct expect *e, const char *text, size_t *column, struct pd_msg *msg)
{
	struct reader r = {.start = text, .p = text, .fail = text, .msg = msg};
	const char *colon;
	int err;

	memset(e, 0, sizeof(*e));
	*column = 1;
	if (strlen(text) > EXPECT_TEXT_MAX)
		return pd_fail(msg, PD_EINVAL, "expectation of %zu characters: expected at most %d",
			       strlen(text), EXPECT_TEXT_MAX);
	memcpy(e->text, text, strlen(text) + 1);
	colon = strchr(text, ':');
	err = read_selector(&r, colon ? colon : text, &e->left.select);
	if (colon && !err)
		r.p = colon + 1;
	if (!err)
		err = read_metric(&r, &e->left);
	if (!err)
		err = read_op(&r, &e->op);
	if (!err)
		err = read_right(&r, &e->right);
	skip(&r);
	if (!err && *r.p)
		err = wrong(&r, r.p, "the end of the expectation");
	*column = (size_t)(r.fail - text) + 1;
	return err;
}

static struct span next_word(const char **text)
{
	struct span w = {*text, strcspn(*text, " ")};

	*text += w.n + ((*text)[w.n] == ' ');
	return w;
}

static bool has_word(const char *point, struct span word)
{
	while (*point)
		if (span_eq(next_word(&point), word))
			return true;
	return false;
}

static bool point_fits(const char *wanted, const char *point)
{
	while (*wanted)
		if (!has_word(point, next_word(&wanted)))
			return false;
	return true;
}

/* What the right side does not say of the swept fields is that of the left side. */
static void complete_point(char wanted[ARM_POINT_MAX], const char *left)
{
	while (*left) {
		struct span w = next_word(&left);
		size_t path = (size_t)((const char *)memchr(w.p, '=', w.n) - w.p) + 1;
		size_t n = strlen(wanted);
		const char *at = wanted;
		bool said = false;

		while (*at && !said) {
			struct span x = next_word(&at);

			said = x.n >= path && memcmp(x.p, w.p, path) == 0;
		}
		if (!said && n + w.n + 2 <= ARM_POINT_MAX)
			(void)snprintf(wanted + n, ARM_POINT_MAX - n, "%s%.*s", n ? " " : "",
				       (int)w.n, w.p);
	}
}

static bool selects(const struct expect_selector *s, const struct arm *a)
{
	return (!s->policy[0] || strcmp(s->policy, a->policy) == 0) &&
	       (s->workers < 0 || s->workers == a->workers) &&
	       (s->cache < 0 || (uint64_t)s->cache == a->cache) && point_fits(s->point, a->point);
}

/* The arm of the right side; what its selector leaves out is taken from the left arm. */
static const struct arm *right_arm(const struct expect *e, const struct arms *arms,
				   const struct arm *left)
{
	struct expect_selector s = e->right.select;
	const struct arm *found = NULL;

	if (!s.policy[0])
		(void)snprintf(s.policy, sizeof(s.policy), "%s", left->policy);
	if (s.workers < 0)
		s.workers = left->workers;
	if (s.cache < 0)
		s.cache = (int64_t)left->cache;
	complete_point(s.point, left->point);
	for (size_t i = 0; i < arms->n; i++) {
		if (!selects(&s, &arms->arm[i]))
			continue;
		if (found)
			return NULL;
		found = &arms->arm[i];
	}
	return found;
}

static bool holds(enum expect_op op, double value, double bound)
{
	switch (op) {
	case EXPECT_GE:
		return value >= bound;
	case EXPECT_LE:
		return value <= bound;
	case EXPECT_GT:
		return value > bound;
	case EXPECT_LT:
		return value < bound;
	case EXPECT_EQ:
		return value >= bound && value <= bound;
	}
	return false;
}

static int push(struct expect_results *out, const struct expect_result *r)
{
	size_t cap = out->cap ? out->cap * 2 : 16;
	struct expect_result *item;

	if (out->n == out->cap) {
		item = reallocarray(out->item, cap, sizeof(*item));
		if (!item)
			return PD_ENOMEM;
		out->item = item;
		out->cap = cap;
	}
	out->item[out->n++] = *r;
	out->missed += !r->ok;
	return PD_OK;
}

/* One expectation on one arm: once, or once per pool. */
static int check_arm(const struct expect *e, const struct arms *arms, size_t at,
		     struct expect_results *out, struct pd_msg *msg)
{
	const struct arm *a = &arms->arm[at], *other = e->right.metric ? right_arm(e, arms, a) : a;
	bool pools = e->left.metric->per_pool && e->left.pool < 0;
	size_t first = e->left.pool > 0 ? 1 : 0, last = pools ? a->cfg.npools - 1 : first;
	int err = PD_OK;

	if (last >= a->cfg.npools || e->right.pool >= (int)a->cfg.npools)
		return pd_fail(msg, PD_EINVAL,
			       "'%s' names a pool: expected prefill and decode pools", e->text);
	if (!other)
		return pd_fail(msg, PD_EINVAL,
			       "'%s': the right side fits no arm, or several: expected one",
			       e->text);
	for (size_t p = first; !err && p <= last; p++) {
		size_t q = e->right.pool >= 0 ? (size_t)e->right.pool : p;
		struct expect_result r = {.expect = e, .arm = at, .pool = p};

		r.value = simmetric_value(e->left.metric, a, p);
		r.bound = e->right.factor;
		if (e->right.metric)
			r.bound *= simmetric_value(e->right.metric, other, q);
		r.ok = holds(e->op, r.value, r.bound);
		err = push(out, &r);
	}
	return err;
}

int expect_evaluate(struct expect *e, size_t n, const struct arms *arms, struct expect_results *out,
		    struct pd_msg *msg)
{
	int err = PD_OK;

	*out = (struct expect_results){0};
	for (size_t i = 0; !err && i < n; i++) {
		for (size_t a = 0; !err && a < arms->n; a++) {
			if (!selects(&e[i].left.select, &arms->arm[a]))
				continue;
			e[i].used++;
			err = check_arm(&e[i], arms, a, out, msg);
		}
		if (!err && e[i].used == 0)
			err = pd_fail(msg, PD_EINVAL,
				      "%s%s'%s' fits no combination of policy, workers and cache",
				      e[i].place ? e[i].place : "", e[i].place ? ": " : "",
				      e[i].text);
	}
	return err;
}

void expect_results_release(struct expect_results *r)
{
	free(r->item);
	*r = (struct expect_results){0};
}
