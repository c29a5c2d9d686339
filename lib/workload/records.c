/*
 * The end of a record is searched for from where the last search stopped, so a record that needs
 * many reads is looked at once. A JSON value is found by its quotes and brackets alone; whether it
 * is valid is for its reader, who can say what is wrong and where.
 */
#include "lib/workload/records.h"

#include <string.h>

#define STEP ((size_t)256 << 10)

int records_init(struct records *r, struct source *source, size_t limit, struct pd_msg *msg)
{
	struct span start;
	int err;

	*r = (struct records){.source = source, .limit = limit, .line = 1, .column = 1};
	buf_init(&r->window, limit + 2 * STEP);
	err = records_peek(r, 3, &start, msg);
	if (!err && start.n >= 3 && memcmp(start.p, "\xef\xbb\xbf", 3) == 0)
		r->at = 3;
	return err;
}

void records_release(struct records *r)
{
	buf_release(&r->window);
}

/* More text behind what is there; sets eof when there is none. */
static int more(struct records *r, struct pd_msg *msg)
{
	size_t n;
	int err;

	buf_consume(&r->window, r->at);
	r->at = 0;
	err = buf_reserve(&r->window, STEP);
	if (err)
		return pd_fail(msg, err, "%s", pd_err_text(err));
	err = source_read(r->source, r->window.data + r->window.len, STEP, &n, msg);
	if (err)
		return err;
	r->window.len += n;
	r->eof = n == 0;
	return PD_OK;
}

int records_peek(struct records *r, size_t want, struct span *out, struct pd_msg *msg)
{
	int err = PD_OK;

	while (!err && !r->eof && r->window.len - r->at < want)
		err = more(r, msg);
	*out = (struct span){r->window.data + r->at, r->window.len - r->at};
	return err;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void advance(uint32_t *line, uint32_t *column, const char *p, const char *end)
{
	for (; p < end; p++) {
		if (*p == '\n') {
			(*line)++;
			*column = 1;
		} else {
			*column += ((unsigned char)*p & 0xc0) != 0x80;
		}
	}
}

/* Takes n bytes. */
static void take(struct records *r, size_t n)
{
	const char *p = r->window.data + r->at;

	advance(&r->line, &r->column, p, p + n);
	r->at += n;
}

void records_place(const struct record_text *record, const char *p, uint32_t *line,
		   uint32_t *column)
{
	*line = record->line;
	*column = record->column;
	advance(line, column, record->p, p);
}

/* The next byte that is not white space; '\0' at the end of the text. */
static int next_byte(struct records *r, char *out, struct pd_msg *msg)
{
	for (;;) {
		const char *p = r->window.data + r->at, *end = r->window.data + r->window.len;
		const char *q = p;

		while (q < end && is_space(*q))
			q++;
		if (q > p)
			take(r, (size_t)(q - p));
		if (r->at < r->window.len) {
			*out = r->window.data[r->at];
			return PD_OK;
		}
		*out = '\0';
		if (r->eof)
			return PD_OK;
		if (more(r, msg))
			return PD_EIO;
	}
}

void records_set_shape(struct records *r, enum records_shape shape)
{
	char c;

	r->shape = shape;
	if (shape == RECORDS_ARRAY && next_byte(r, &c, NULL) == PD_OK && c == '[')
		take(r, 1);
}

/* ---- where a record ends ---- */

struct scan {
	size_t at; /* bytes looked at */
	size_t depth;
	bool quoted, escaped, scalar;
};

/* Looks at text[s->at .. n); true when the record ends at s->at. */
static bool scan_line(struct scan *s, const char *text, size_t n)
{
	const char *nl = memchr(text + s->at, '\n', n - s->at);

	s->at = nl ? (size_t)(nl - text) : n;
	return nl != NULL;
}

static bool scan_row(struct scan *s, const char *text, size_t n)
{
	for (; s->at < n; s->at++) {
		if (text[s->at] == '"')
			s->quoted = !s->quoted;
		else if (text[s->at] == '\n' && !s->quoted)
			return true;
	}
	return false;
}

static bool scan_value(struct scan *s, const char *text, size_t n)
{
	for (; s->at < n; s->at++) {
		char c = text[s->at];

		if (s->quoted) {
			if (s->escaped)
				s->escaped = false;
			else if (c == '\\')
				s->escaped = true;
			else if (c == '"')
				s->quoted = false;
			if (s->quoted || s->depth > 0)
				continue;
			s->at++;
			return true;
		}
		if (s->scalar && (is_space(c) || c == ',' || c == ']' || c == '}'))
			return true;
		if (c == '"') {
			s->quoted = true;
		} else if (c == '{' || c == '[') {
			s->depth++;
		} else if (c == '}' || c == ']') {
			s->depth -= s->depth > 0;
			if (s->depth > 0)
				continue;
			s->at++;
			return true;
		} else if (s->depth == 0) {
			s->scalar = true;
		}
	}
	return false;
}

static int too_long(struct records *r, struct record_text *place, struct pd_msg *msg)
{
	*place = (struct record_text){.line = r->line, .column = r->column};
	return pd_fail(msg, PD_ETOOBIG,
		       r->shape == RECORDS_LINES
			       ? "line of more than %zu bytes, expected at most that"
			       : "record of more than %zu bytes, expected at most that",
		       r->limit);
}

static int find_end(struct records *r, size_t *n, bool *closed, struct record_text *place,
		    struct pd_msg *msg)
{
	struct scan s = {0};

	for (;;) {
		const char *p = r->window.data + r->at;
		size_t have = r->window.len - r->at;

		if (have > 0)
			*closed = r->shape == RECORDS_LINES  ? scan_line(&s, p, have)
				  : r->shape == RECORDS_ROWS ? scan_row(&s, p, have)
							     : scan_value(&s, p, have);
		*n = s.at;
		if (s.at > r->limit)
			return too_long(r, place, msg);
		if (*closed || r->eof)
			return PD_OK;
		if (more(r, msg)) {
			*place = (struct record_text){0};
			return PD_EIO;
		}
	}
}

/* In an array: the comma before an element, or its end. */
static int separator(struct records *r, char *c, struct record_text *place, struct pd_msg *msg)
{
	bool comma = false;

	if (r->ended) {
		if (*c == '\0')
			return PD_ENOENT;
	} else if (*c == ']') {
		take(r, 1);
		r->ended = true;
		if (next_byte(r, c, msg))
			return PD_EIO;
		if (*c == '\0')
			return PD_ENOENT;
	} else if (*c == '\0') {
		*place = (struct record_text){.line = r->line, .column = r->column};
		return pd_fail(msg, PD_EINVAL, "found the end of the file, expected ']'");
	} else {
		comma = *c == ',';
		if (comma == r->begun) {
			if (comma) {
				take(r, 1);
				if (next_byte(r, c, msg))
					return PD_EIO;
			}
			r->begun = true;
			if (*c != ']' && *c != ',' && *c != '\0')
				return PD_OK;
		}
	}
	*place = (struct record_text){.line = r->line, .column = r->column};
	return pd_fail(msg, PD_EINVAL, "found '%c', expected %s", *c ? *c : ' ',
		       r->ended ? "nothing after the array"
		       : comma	? "an element"
				: "',' or ']'");
}

int records_next(struct records *r, struct record_text *out, struct record_text *place,
		 struct pd_msg *msg)
{
	bool closed = false;
	size_t n = 0;
	char c;
	int err;

	for (;;) {
		*place = (struct record_text){0};
		/* In CSV a row may begin with white space that belongs to a cell. */
		err = r->shape == RECORDS_ROWS && r->at < r->window.len && r->begun
			      ? PD_OK
			      : next_byte(r, &c, msg);
		if (err)
			return err;
		if (r->at == r->window.len)
			c = '\0';
		else
			c = r->window.data[r->at];
		if (r->shape == RECORDS_ARRAY)
			err = separator(r, &c, place, msg);
		else if (c == '\0' && r->at == r->window.len && r->eof)
			err = PD_ENOENT;
		if (!err)
			err = find_end(r, &n, &closed, place, msg);
		if (err)
			return err;
		r->begun = true;
		*out = (struct record_text){
			.p = r->window.data + r->at, .n = n, .line = r->line, .column = r->column};
		advance(&r->line, &r->column, out->p, out->p + n);
		r->at += n;
		while (out->n > 0 && is_space(out->p[out->n - 1]))
			out->n--;
		if (out->n > 0)
			return PD_OK;
		/* an empty row: over its line break */
		if (r->at < r->window.len)
			take(r, 1);
		else if (r->eof)
			return PD_ENOENT;
	}
}

/* ---- CSV ---- */

int records_cells(const struct record_text *row, struct span *cell, size_t *n, const char **wrong)
{
	char *p = row->p, *end = row->p + row->n, *to;

	for (*n = 0;; (*n)++) {
		char *start = p;

		*wrong = p;
		if (*n == RECORDS_CELLS_MAX)
			return PD_EINVAL;
		if (p < end && *p == '"') {
			for (to = start, p++; p < end; p++) {
				if (*p == '"' && p + 1 < end && p[1] == '"')
					p++;
				else if (*p == '"')
					break;
				*to++ = *p;
			}
			if (p == end)
				return PD_EINVAL;
			p++;
			if (p < end && *p != ',') {
				*wrong = p;
				return PD_EINVAL;
			}
		} else {
			while (p < end && *p != ',')
				p++;
			to = p;
		}
		cell[*n] = (struct span){start, (size_t)(to - start)};
		if (p == end) {
			(*n)++;
			return PD_OK;
		}
		p++;
	}
}
