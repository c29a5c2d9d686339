/*
 * Sides, notes and rows. The statistics of one row are in compare_change.c.
 *
 * A metric is usable only when every run of every side has it: a median over the runs that happen
 * to have a key could pass silently.
 */
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"
#include "lib/results/compare_change.h"
#include "lib/stats/rank.h"

#define NAMES_MAX 1024

struct compare_rules compare_rules_default(void)
{
	return (struct compare_rules){
		.alpha = 0.05, .level = 0.10, .run_spread = 0.025, .detect = NAN, .min_runs = 4};
}

void compare_init(struct compare *c, const struct compare_rules *rules)
{
	memset(c, 0, sizeof(*c));
	c->rules = *rules;
}

void compare_release(struct compare *c)
{
	for (size_t i = 0; i < c->nsides; i++)
		result_set_release(&c->side[i].runs);
	for (size_t i = 0; i < c->nrows; i++) {
		free(c->row[i].name);
		for (size_t k = 0; k < COMPARE_SIDES_MAX; k++) {
			free(c->row[i].cell[k].v);
			bootstrap_release(&c->row[i].draws[k]);
		}
	}
	for (size_t i = 0; i < c->nnotes; i++)
		free(c->note[i]);
	for (size_t i = 0; i < c->nreasons; i++)
		free(c->reason[i]);
	free(c->row);
	memset(c, 0, sizeof(*c));
}

int compare_side_named(struct compare *c, struct span label, struct compare_side **out,
		       struct pd_msg *msg)
{
	if (label.n >= sizeof(c->side[0].label))
		return pd_fail(msg, PD_ETOOBIG, "label '%.*s' is longer than %zu characters",
			       (int)label.n, label.p, sizeof(c->side[0].label) - 1);
	for (size_t i = 0; i < c->nsides; i++) {
		if (!span_eq(span_of(c->side[i].label), label))
			continue;
		*out = &c->side[i];
		return PD_OK;
	}
	if (c->nsides == COMPARE_SIDES_MAX)
		return pd_fail(msg, PD_ETOOBIG, "more than %d sides to compare", COMPARE_SIDES_MAX);
	*out = &c->side[c->nsides++];
	memcpy((*out)->label, label.p, label.n);
	(*out)->label[label.n] = '\0';
	result_set_init(&(*out)->runs);
	return PD_OK;
}

/* Adds a sentence that is not there yet. */
static void remember(char **list, size_t *n, size_t max, const char *text)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(list[i], text) == 0)
			return;
	if (*n == max)
		return;
	list[*n] = strdup(text);
	*n += list[*n] != NULL;
}

void compare_note(struct compare *c, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	remember(c->note, &c->nnotes, COMPARE_NOTES_MAX, text);
}

void compare_refuse(struct compare *c, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	remember(c->reason, &c->nreasons, COMPARE_REASONS_MAX, text);
}

bool compare_enough(const struct compare *c, size_t na, size_t nb)
{
	return na >= c->rules.min_runs && nb >= c->rules.min_runs &&
	       rank_min_p(na, nb) < c->rules.alpha;
}

bool compare_is_ours(const struct result_doc *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (strncmp(d->field[i].name, "pdctl.", 6) == 0)
			return true;
	return false;
}

/* The gap between tokens in files of pdctl, the gap between chunks in those of vllm bench: same
 * key, different quantity. */
static bool mixes_itl(const struct compare *c)
{
	size_t ours = 0, theirs = 0;

	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++)
			*(compare_is_ours(&c->side[i].runs.doc[r]) ? &ours : &theirs) += 1;
	return ours > 0 && theirs > 0;
}

static bool is_metric(const struct result_doc *d, const char *name)
{
	const struct result_field *f = result_get(d, name);

	return f && f->type == RESULT_NUMBER && isfinite(f->number);
}

bool compare_usable(const struct compare *c, const char *name)
{
	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++)
			if (!is_metric(&c->side[i].runs.doc[r], name))
				return false;
	return !metric_is_itl(name) || !mixes_itl(c);
}

bool compare_known(const struct compare *c, const char *name)
{
	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++)
			if (result_get(&c->side[i].runs.doc[r], name))
				return true;
	return false;
}

const char *compare_nearest(const struct compare *c, const char *name)
{
	const char *names[NAMES_MAX + 1];
	size_t n = 0;

	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n && r < 1; r++)
			for (size_t f = 0; f < c->side[i].runs.doc[r].n && n < NAMES_MAX; f++)
				if (c->side[i].runs.doc[r].field[f].type == RESULT_NUMBER)
					names[n++] = c->side[i].runs.doc[r].field[f].name;
	names[n] = NULL;
	return nearest_word(name, names);
}

static struct compare_row *find_row(struct compare *c, const char *name)
{
	for (size_t i = 0; i < c->nrows; i++)
		if (strcmp(c->row[i].name, name) == 0)
			return &c->row[i];
	return NULL;
}

static int fill_cell(struct compare_cell *cell, const struct result_set *runs, const char *name)
{
	cell->v = calloc(runs->n ? runs->n : 1, sizeof(*cell->v));
	if (!cell->v)
		return PD_ENOMEM;
	cell->n = runs->n;
	for (size_t r = 0; r < runs->n; r++)
		cell->v[r] = result_number(&runs->doc[r], name);
	return PD_OK;
}

int compare_row_with_gaps(struct compare *c, const char *name, struct compare_row **out)
{
	struct compare_row *row = find_row(c, name);
	int err = PD_OK;

	if (row) {
		*out = row;
		return PD_OK;
	}
	if (c->nrows == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 32;

		row = realloc(c->row, cap * sizeof(*row));
		if (!row)
			return PD_ENOMEM;
		c->row = row;
		c->cap = cap;
	}
	row = &c->row[c->nrows++];
	memset(row, 0, sizeof(*row));
	row->direction = metric_direction(name);
	row->name = strdup(name);
	if (!row->name)
		return PD_ENOMEM;
	for (size_t k = 0; !err && k < c->nsides; k++)
		err = fill_cell(&row->cell[k], &c->side[k].runs, name);
	if (!err)
		err = compare_change_row(c, row);
	*out = row;
	return err;
}

int compare_row(struct compare *c, const char *name, struct compare_row **out)
{
	return compare_usable(c, name) ? compare_row_with_gaps(c, name, out) : PD_EINVAL;
}

/* Every run has the key, and at least one a number for it: a row in which null is "-". */
static bool worth_a_row(const struct compare *c, const char *name)
{
	bool any = false;

	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++) {
			if (!result_get(&c->side[i].runs.doc[r], name))
				return false;
			any = any || is_metric(&c->side[i].runs.doc[r], name);
		}
	return any && (!metric_is_itl(name) || !mixes_itl(c));
}

/* A figure of the base that has no row is said, not dropped; null means "not measured" in files of
 * vllm bench. */
static void note_left_out(struct compare *c, const char *name)
{
	const struct result_field *f = result_get(&c->side[0].runs.doc[0], name);

	if (!metric_default(name) || (f && f->type == RESULT_NULL))
		return;
	if (metric_is_itl(name) && mixes_itl(c))
		compare_note(c, "itl is left out: per chunk in files of vllm bench, per token in "
				"files of pdctl");
	else
		compare_note(c, "%s is left out: not every run has a number for it", name);
}

/* Rows for all keys of the base that fit the pattern; NULL: the default ones. */
static int rows_matching(struct compare *c, const char *pattern, size_t *matched)
{
	const struct result_doc *d = &c->side[0].runs.doc[0];
	struct compare_row *row;
	int err = PD_OK;

	for (size_t i = 0; !err && i < d->n; i++) {
		const char *name = d->field[i].name;

		if (pattern ? fnmatch(pattern, name, 0) != 0 : !metric_default(name))
			continue;
		if (!worth_a_row(c, name)) {
			note_left_out(c, name);
			continue;
		}
		++*matched;
		err = compare_row_with_gaps(c, name, &row);
	}
	return err;
}

static int row_listed(struct compare *c, const char *name, struct pd_msg *msg)
{
	struct compare_row *row;
	const char *near;
	size_t matched = 0;
	int err;

	if (strcmp(name, "all") == 0)
		return rows_matching(c, "*", &matched);
	if (strpbrk(name, "*?[")) {
		err = rows_matching(c, name, &matched);
		return err || matched
			       ? err
			       : pd_fail(msg, PD_EINVAL,
					 "--metrics: no metric common to all runs matches '%s'",
					 name);
	}
	if (!compare_known(c, name)) {
		near = compare_nearest(c, name);
		return pd_fail(msg, PD_EINVAL, "--metrics: unknown metric '%s'%s%s%s", name,
			       near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
	}
	if (!compare_usable(c, name))
		return compare_why_unusable(c, "--metrics", name, msg);
	return compare_row(c, name, &row);
}

int compare_rows(struct compare *c, const char *names, struct pd_msg *msg)
{
	size_t matched = 0;
	char *copy, *at, *name;
	int err = PD_OK;

	if (!names)
		return rows_matching(c, NULL, &matched);
	copy = strdup(names);
	if (!copy)
		return PD_ENOMEM;
	at = copy;
	while (!err && (name = strsep(&at, ",")) != NULL) {
		struct span trimmed = span_trim(span_of(name));

		name[trimmed.p - name + (ptrdiff_t)trimmed.n] = '\0';
		err = trimmed.n ? row_listed(c, trimmed.p, msg)
				: pd_fail(msg, PD_EINVAL, "--metrics: found an empty name in '%s'",
					  names);
	}
	free(copy);
	return err;
}

int compare_rows_preset(struct compare *c, const char *const *names)
{
	struct compare_row *row;
	int err = PD_OK;

	for (; !err && *names; names++) {
		if (worth_a_row(c, *names))
			err = compare_row_with_gaps(c, *names, &row);
		else
			compare_note(c, "%s is left out: not every run has a number for it",
				     *names);
	}
	return err;
}
