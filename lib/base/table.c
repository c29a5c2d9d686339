/*
 * Cells are collected first and printed once all are known: only then are the widths of the
 * columns. Failures are kept until the end, so that callers fill a table without a check per cell.
 */
#include "lib/base/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *t)
{
	*t = (struct table){0};
}

void table_release(struct table *t)
{
	for (size_t i = 0; i < t->nrows * t->ncols; i++)
		free(t->cells[i]);
	for (size_t i = 0; i < t->ncols; i++)
		free(t->heads[i]);
	free(t->cells);
	table_init(t);
}

void table_column(struct table *t, const char *head)
{
	if (t->ncols == TABLE_COLS_MAX || t->nrows > 0) {
		t->failed = true;
		return;
	}
	t->right[t->ncols] = head[0] == '>';
	t->heads[t->ncols] = strdup(head[0] == '>' ? head + 1 : head);
	t->failed |= !t->heads[t->ncols];
	t->ncols++;
}

static bool room_for_row(struct table *t)
{
	size_t cap = t->cap ? t->cap * 2 : 16;
	char **cells;

	if (t->nrows < t->cap)
		return true;
	cells = realloc(t->cells, cap * t->ncols * sizeof(*cells));
	if (!cells)
		return false;
	t->cells = cells;
	t->cap = cap;
	return true;
}

void table_row(struct table *t)
{
	if (t->ncols == 0 || !room_for_row(t)) {
		t->failed = true;
		return;
	}
	memset(t->cells + t->nrows * t->ncols, 0, t->ncols * sizeof(*t->cells));
	t->nrows++;
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char **cell = t->nrows ? t->cells + (t->nrows - 1) * t->ncols : NULL;
	va_list ap;

	for (size_t i = 0; cell && i < t->ncols; i++, cell++) {
		if (*cell)
			continue;
		va_start(ap, fmt);
		if (vasprintf(cell, fmt, ap) < 0) {
			*cell = NULL;
			t->failed = true;
		}
		va_end(ap);
		return;
	}
	t->failed = true;
}

/* Code points, not bytes: right for the characters that are printed here. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; s && *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

size_t table_column_width(const struct table *t, size_t col)
{
	size_t w = width(t->heads[col]), c;

	for (size_t r = 0; r < t->nrows; r++) {
		c = width(t->cells[r * t->ncols + col]);
		w = c > w ? c : w;
	}
	return w;
}

size_t table_width(const struct table *t)
{
	size_t sum = 0;

	for (size_t c = 0; c < t->ncols; c++)
		sum += table_column_width(t, c) + (c ? 2 : 0);
	return sum;
}

const char *table_at(const struct table *t, size_t row, size_t col)
{
	const char *s = t->cells[row * t->ncols + col];

	return s ? s : "";
}

void table_drop_column(struct table *t, size_t col)
{
	size_t to = 0;

	free(t->heads[col]);
	for (size_t c = col; c + 1 < t->ncols; c++) {
		t->heads[c] = t->heads[c + 1];
		t->right[c] = t->right[c + 1];
	}
	for (size_t i = 0; i < t->nrows * t->ncols; i++) {
		if (i % t->ncols == col)
			free(t->cells[i]);
		else
			t->cells[to++] = t->cells[i];
	}
	t->ncols--;
}

/* Bytes of the first n characters. */
static size_t bytes_of(const char *s, size_t n)
{
	size_t i = 0;

	while (s[i] && (n > 0 || ((unsigned char)s[i] & 0xc0) == 0x80)) {
		n -= ((unsigned char)s[i] & 0xc0) != 0x80;
		i++;
	}
	return i;
}

void table_cut(struct table *t, size_t col, size_t limit)
{
	if (limit < 8)
		limit = 8;
	for (size_t r = 0; r < t->nrows; r++) {
		char *s = t->cells[r * t->ncols + col];
		size_t w = width(s), head = (limit - 3) / 2, tail = limit - 3 - head, from, to;

		if (w <= limit)
			continue;
		to = bytes_of(s, head);
		from = bytes_of(s, w - tail);
		memcpy(s + to, "...", 3);
		memmove(s + to + 3, s + from, strlen(s + from) + 1);
	}
}

static int put_cell(struct buf *out, const char *s, size_t w, bool right, bool last)
{
	int pad = (int)(w - width(s));

	if (right)
		return buf_printf(out, "%*s%s", pad, "", s ? s : "");
	return buf_printf(out, "%s%*s", s ? s : "", last ? 0 : pad, "");
}

static int put_row(const struct table *t, char *const *cells, const size_t *w,
		   const char *const sep[3], struct buf *out)
{
	int err = buf_puts(out, sep[0]);

	for (size_t c = 0; !err && c < t->ncols; c++) {
		err = put_cell(out, cells[c], w[c], t->right[c], c + 1 == t->ncols && !*sep[2]);
		if (!err)
			err = buf_puts(out, c + 1 == t->ncols ? sep[2] : sep[1]);
	}
	return err ? err : buf_putc(out, '\n');
}

static int rule(const struct table *t, const size_t *w, bool markdown, struct buf *out)
{
	int err = buf_puts(out, markdown ? "|" : "");

	for (size_t c = 0; !err && c < t->ncols; c++) {
		size_t n = w[c] + (markdown ? 2 : 0);

		for (size_t i = 0; !err && i < n; i++)
			err = buf_putc(out, markdown && t->right[c] && i + 1 == n ? ':' : '-');
		if (!err)
			err = buf_puts(out, markdown ? "|" : c + 1 < t->ncols ? "  " : "");
	}
	return err ? err : buf_putc(out, '\n');
}

static int print(const struct table *t, bool markdown, struct buf *out)
{
	static const char *const plain[3] = {"", "  ", ""}, *const bars[3] = {"| ", " | ", " |"};
	const char *const *sep = markdown ? bars : plain;
	size_t w[TABLE_COLS_MAX];
	int err;

	if (t->failed)
		return PD_ENOMEM;
	for (size_t c = 0; c < t->ncols; c++)
		w[c] = table_column_width(t, c);
	err = put_row(t, t->heads, w, sep, out);
	if (!err)
		err = rule(t, w, markdown, out);
	for (size_t r = 0; !err && r < t->nrows; r++)
		err = put_row(t, t->cells + r * t->ncols, w, sep, out);
	return err;
}

int table_text(const struct table *t, struct buf *out)
{
	return print(t, false, out);
}

int table_markdown(const struct table *t, struct buf *out)
{
	return print(t, true, out);
}
