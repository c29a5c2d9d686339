/*
 * Tables for people: columns that line up (UTF-8 counted by code point), as text or as Markdown.
 * Numbers are right-aligned when the column says so. No colour here; cmd/ decides about colour.
 */
#ifndef PD_BASE_TABLE_H
#define PD_BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define TABLE_COLS_MAX 32

struct table {
	size_t ncols, nrows, cap;
	char *heads[TABLE_COLS_MAX];
	bool right[TABLE_COLS_MAX];
	char **cells; /* nrows * ncols, owned; NULL cell prints empty */
	bool failed;  /* out of memory happened; table_text then returns PD_ENOMEM */
};

void table_init(struct table *t);
void table_release(struct table *t);
/* Adds a column before the first row is added. A head that starts with '>' is right-aligned. */
void table_column(struct table *t, const char *head);
/* Starts a row; then table_cell is called once per column. */
void table_row(struct table *t);
void table_cell(struct table *t, const char *fmt, ...) PD_PRINTF(2, 3);
/* Characters of a line as table_text prints it. */
size_t table_width(const struct table *t);
size_t table_column_width(const struct table *t, size_t col);
/* The cells of a column, for deciding whether it tells anything; "" for an empty one. */
const char *table_at(const struct table *t, size_t row, size_t col);
void table_drop_column(struct table *t, size_t col);
/* Cells longer than `width` characters lose their middle, which becomes "...". */
void table_cut(struct table *t, size_t col, size_t width);
int table_text(const struct table *t, struct buf *out) PD_MUST;
int table_markdown(const struct table *t, struct buf *out) PD_MUST;

#endif
