/*
 * Why not cJSON and not lib/json: results come from Python, whose json.dump writes NaN and
 * Infinity, and from appending writers, so a file is a sequence of values. Files with details have
 * hundreds of thousands of numbers that are not needed; this reader walks over them without
 * building a tree. The grammar is in result_scan.c; this file owns the documents.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/results/document.h"
#include "lib/results/foreign.h"
#include "lib/results/metric_name.h"
#include "lib/results/result_scan.h"

void result_set_init(struct result_set *s)
{
	memset(s, 0, sizeof(*s));
}

static void doc_release(struct result_doc *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->field[i].name);
		free(d->field[i].text);
	}
	for (int k = 0; k < RESULT_SERIES; k++)
		free(d->series[k].v);
	free(d->field);
	free(d->source);
}

static void set_cut(struct result_set *s, size_t n)
{
	while (s->n > n)
		doc_release(&s->doc[--s->n]);
}

void result_set_release(struct result_set *s)
{
	set_cut(s, 0);
	free(s->doc);
	result_set_init(s);
}

static int set_add(struct result_set *s, struct result_doc **out)
{
	if (s->n == RESULT_DOCS_MAX)
		return PD_ETOOBIG;
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 8;
		struct result_doc *doc = realloc(s->doc, cap * sizeof(*doc));

		if (!doc)
			return PD_ENOMEM;
		s->doc = doc;
		s->cap = cap;
	}
	*out = &s->doc[s->n];
	memset(*out, 0, sizeof(**out));
	s->n++;
	return PD_OK;
}

/* "a.json", "a.json#2", ... */
static int name_source(struct result_doc *d, const char *name, size_t number)
{
	if (number == 1)
		d->source = strdup(name);
	else if (asprintf(&d->source, "%s#%zu", name, number) < 0)
		d->source = NULL;
	return d->source ? PD_OK : PD_ENOMEM;
}

static int finish(struct result_doc *d, const char *name, size_t number)
{
	int err = result_foreign(d);

	return err ? err : name_source(d, name, number);
}

/* The results of a list take the place of the object around them, which is the last document. */
static int unroll(struct result_set *s, struct result_scan *scan, const char *name, size_t before)
{
	struct result_doc outer = s->doc[s->n - 1], *d;
	size_t behind = scan->at, at = scan->list;
	bool more = true;
	int err = PD_OK;

	s->n--;
	result_scan_list(scan, at);
	while (!err && more) {
		err = set_add(s, &d);
		if (!err)
			err = result_scan_element(scan, &outer, d, &more);
		if (!err && more)
			err = finish(d, name, s->n - before);
		if (!err && !more)
			set_cut(s, s->n - 1);
	}
	doc_release(&outer);
	scan->at = behind;
	return err;
}

int result_parse(struct result_set *s, const char *name, struct span text, struct pd_msg *msg)
{
	size_t before = s->n;
	struct result_scan scan;
	struct result_doc *d;
	int err = PD_OK;

	result_scan_init(&scan, name, text, msg);
	do {
		err = set_add(s, &d);
		if (!err)
			err = result_scan_next(&scan, d);
		if (!err)
			err = scan.list ? unroll(s, &scan, name, before)
					: finish(d, name, s->n - before);
	} while (!err && !result_scan_end(&scan));
	result_scan_release(&scan);
	if (err)
		set_cut(s, before);
	if (err == PD_ETOOBIG && msg && !msg->text[0])
		return pd_fail(msg, err, "'%s': more than %d results in one set", name,
			       RESULT_DOCS_MAX);
	return err;
}

int result_read(struct result_set *s, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	if (msg)
		msg->text[0] = '\0';
	buf_init(&text, RESULT_FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = result_parse(s, path, buf_span(&text), msg);
	buf_release(&text);
	if (err && msg && !msg->text[0])
		return pd_fail(msg, err, "cannot read '%s': %s", path, pd_err_text(err));
	return err;
}

int result_take(struct result_set *s, struct result_doc *d)
{
	struct result_doc *to;
	int err = set_add(s, &to);

	if (err)
		return err;
	*to = *d;
	memset(d, 0, sizeof(*d));
	return PD_OK;
}

int result_add(struct result_doc *d, const char *name, enum result_type type, const char *text,
	       double number)
{
	struct result_field *f;

	if (d->n == RESULT_FIELDS_MAX)
		return PD_ETOOBIG;
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 64;

		f = realloc(d->field, cap * sizeof(*f));
		if (!f)
			return PD_ENOMEM;
		d->field = f;
		d->cap = cap;
	}
	f = &d->field[d->n++];
	*f = (struct result_field){strdup(name), strdup(text), number, type};
	return f->name && f->text ? PD_OK : PD_ENOMEM;
}

const struct result_field *result_get(const struct result_doc *d, const char *name)
{
	for (size_t i = d->n; i-- > 0;)
		if (strcmp(d->field[i].name, name) == 0)
			return &d->field[i];
	return NULL;
}

double result_number(const struct result_doc *d, const char *name)
{
	const struct result_field *f = result_get(d, name);

	if (f && f->type == RESULT_NUMBER)
		return f->number;
	if (f && f->type == RESULT_TEXT && strcmp(f->text, "inf") == 0)
		return INFINITY;
	return NAN;
}

const char *result_text(const struct result_doc *d, const char *name)
{
	const struct result_field *f = result_get(d, name);

	return f && f->type == RESULT_TEXT ? f->text : NULL;
}

bool result_has_metric(const struct result_doc *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->field[i].type != RESULT_TEXT && metric_default(d->field[i].name))
			return true;
	return false;
}
