/* One pass over libyaml's events with a stack of the open mappings and sequences; the path is kept
 * in one buffer. */
#include "lib/base/yamlpos.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "lib/base/buf.h"

#define PATH_MAX_BYTES 4096

struct frame {
	bool mapping, want_key;
	size_t path_len; /* of the container itself */
	size_t index;	 /* next entry of a sequence */
};

struct scan {
	struct yamlpos *p;
	const char *name;
	struct pd_msg *msg;
	struct frame frame[YAMLPOS_DEPTH_MAX];
	size_t depth;
	struct buf path;
	size_t documents;
	bool filled;
};

static int fail_at(const struct scan *s, yaml_mark_t mark, const char *what)
{
	return pd_fail(s->msg, PD_EINVAL, "%s:%zu:%zu: %s", s->name, mark.line + 1, mark.column + 1,
		       what);
}

static int add_entry(struct scan *s, yaml_mark_t mark, size_t name_at)
{
	size_t cap = s->p->cap ? s->p->cap * 2 : 64;
	struct yamlpos_entry *e;

	if (s->p->n >= YAMLPOS_ENTRIES_MAX)
		return fail_at(s, mark, "too many entries, expected at most 4096");
	if (s->p->n == s->p->cap) {
		e = reallocarray(s->p->entry, cap, sizeof(*e));
		if (!e)
			return pd_fail(s->msg, PD_ENOMEM, "out of memory");
		s->p->entry = e;
		s->p->cap = cap;
	}
	e = &s->p->entry[s->p->n];
	*e = (struct yamlpos_entry){.line = mark.line + 1,
				    .column = mark.column + 1,
				    .depth = (unsigned)s->depth,
				    .name_at = name_at};
	e->path = strdup(s->path.data ? s->path.data : "");
	if (!e->path)
		return pd_fail(s->msg, PD_ENOMEM, "out of memory");
	s->p->n++;
	return PD_OK;
}

static struct frame *top(struct scan *s)
{
	return s->depth ? &s->frame[s->depth - 1] : NULL;
}

static void cut_path(struct scan *s, size_t len)
{
	s->path.len = len;
	if (s->path.data)
		s->path.data[len] = '\0';
}

static int on_key(struct scan *s, const yaml_event_t *ev)
{
	struct frame *f = top(s);
	const char *key = (const char *)ev->data.scalar.value;
	char what[200];
	int err;

	cut_path(s, f->path_len);
	err = buf_printf(&s->path, "%s%s", f->path_len ? "." : "", key);
	if (err || strlen(key) != ev->data.scalar.length)
		return fail_at(s, ev->start_mark, "key too long or with a NUL byte");
	if (yamlpos_find(s->p, s->path.data)) {
		(void)snprintf(what, sizeof(what), "duplicate key '%.100s'", key);
		return fail_at(s, ev->start_mark, what);
	}
	f->want_key = false;
	return add_entry(s, ev->start_mark, f->path_len + (f->path_len > 0));
}

/* A value begins: sequences name it by its index. */
static int begin_value(struct scan *s, const yaml_event_t *ev, bool quoted)
{
	struct frame *f = top(s);
	struct yamlpos_entry *e;
	int err = PD_OK;

	s->filled = true;
	if (!f)
		return PD_OK;
	if (f->mapping) {
		f->want_key = true;
	} else {
		cut_path(s, f->path_len);
		err = buf_printf(&s->path, "[%zu]", f->index++);
		if (!err)
			err = add_entry(s, ev->start_mark, f->path_len);
	}
	if (err)
		return err;
	e = &s->p->entry[s->p->n - 1];
	e->value_line = ev->start_mark.line + 1;
	e->value_column = ev->start_mark.column + 1;
	e->text_column = e->value_column + quoted;
	e->kind = ev->type == YAML_SCALAR_EVENT		 ? YAMLPOS_SCALAR
		  : ev->type == YAML_MAPPING_START_EVENT ? YAMLPOS_MAPPING
							 : YAMLPOS_SEQUENCE;
	if (ev->type != YAML_SCALAR_EVENT)
		return PD_OK;
	e->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	e->scalar = strdup((const char *)ev->data.scalar.value);
	return e->scalar ? PD_OK : pd_fail(s->msg, PD_ENOMEM, "out of memory");
}

/* 077, -0123: octal in YAML 1.1, decimal to most people. */
static bool octal_looking(const yaml_event_t *ev)
{
	const char *v = (const char *)ev->data.scalar.value;

	if (ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	v += *v == '-' || *v == '+';
	if (v[0] != '0' || v[1] == '\0')
		return false;
	while (isdigit((unsigned char)*v))
		v++;
	return *v == '\0';
}

static int on_scalar(struct scan *s, const yaml_event_t *ev)
{
	bool quoted = ev->data.scalar.style == YAML_SINGLE_QUOTED_SCALAR_STYLE ||
		      ev->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;

	if (ev->data.scalar.anchor)
		return fail_at(s, ev->start_mark, "found an anchor, expected a plain value");
	if (top(s) && top(s)->mapping && top(s)->want_key)
		return on_key(s, ev);
	if (octal_looking(ev))
		return fail_at(
			s, ev->start_mark,
			"found a number with a leading zero, expected none, or quotes around it");
	return begin_value(s, ev, quoted);
}

static int on_open(struct scan *s, const yaml_event_t *ev, bool mapping)
{
	int err;

	if (mapping ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor)
		return fail_at(s, ev->start_mark, "found an anchor, expected a plain value");
	if (top(s) && top(s)->mapping && top(s)->want_key)
		return fail_at(s, ev->start_mark,
			       "found a key that is not plain text, expected a word");
	if (s->depth == YAMLPOS_DEPTH_MAX)
		return fail_at(s, ev->start_mark, "nested too deep, expected at most 16 levels");
	err = begin_value(s, ev, false);
	if (err)
		return err;
	s->frame[s->depth++] =
		(struct frame){.mapping = mapping, .want_key = mapping, .path_len = s->path.len};
	return PD_OK;
}

static int on_event(struct scan *s, const yaml_event_t *ev)
{
	switch (ev->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (s->documents++)
			return fail_at(s, ev->start_mark, "found a second document, expected one");
		return PD_OK;
	case YAML_ALIAS_EVENT:
		return fail_at(s, ev->start_mark, "found an alias, expected a plain value");
	case YAML_SCALAR_EVENT:
		return on_scalar(s, ev);
	case YAML_MAPPING_START_EVENT:
	case YAML_SEQUENCE_START_EVENT:
		return on_open(s, ev, ev->type == YAML_MAPPING_START_EVENT);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		cut_path(s, s->frame[--s->depth].path_len);
		return PD_OK;
	default:
		return PD_OK;
	}
}

static int syntax_error(const struct scan *s, const yaml_parser_t *y)
{
	yaml_mark_t at = y->problem_mark;
	char what[300];

	(void)snprintf(what, sizeof(what), "%s%s%s", y->problem ? y->problem : "not YAML",
		       y->context ? " " : "", y->context ? y->context : "");
	if (y->error == YAML_MEMORY_ERROR)
		return pd_fail(s->msg, PD_ENOMEM, "out of memory");
	return fail_at(s, at, what);
}

int yamlpos_scan(struct yamlpos *p, const char *text, size_t n, const char *name,
		 struct pd_msg *msg)
{
	struct scan s = {.p = p, .name = name, .msg = msg};
	yaml_parser_t y;
	yaml_event_t ev;
	bool end = false;
	int err = PD_OK;

	*p = (struct yamlpos){0};
	if (!yaml_parser_initialize(&y))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	buf_init(&s.path, PATH_MAX_BYTES);
	yaml_parser_set_input_string(&y, (const unsigned char *)text, n);
	while (!err && !end) {
		if (!yaml_parser_parse(&y, &ev)) {
			err = syntax_error(&s, &y);
			break;
		}
		end = ev.type == YAML_STREAM_END_EVENT;
		err = on_event(&s, &ev);
		yaml_event_delete(&ev);
	}
	if (!err && !s.filled)
		err = pd_fail(msg, PD_EINVAL,
			      "%s:1:1: found an empty file, expected keys and values", name);
	buf_release(&s.path);
	yaml_parser_delete(&y);
	return err;
}

void yamlpos_release(struct yamlpos *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->entry[i].path);
		free(p->entry[i].scalar);
	}
	free(p->entry);
	*p = (struct yamlpos){0};
}

const struct yamlpos_entry *yamlpos_find(const struct yamlpos *p, const char *path)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->entry[i].path, path) == 0)
			return &p->entry[i];
	return NULL;
}
