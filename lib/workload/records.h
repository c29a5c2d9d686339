/*
 * The records of a text, one after the other: lines, JSON values one after the other, the elements
 * of a JSON array, or the rows of a CSV file. Only the record at hand is in memory.
 *
 * Lines, columns and places are counted as an editor shows them: from 1, a column per character.
 * Not thread-safe: one owner.
 */
#ifndef PD_WORKLOAD_RECORDS_H
#define PD_WORKLOAD_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/workload/source.h"

#define RECORDS_CELLS_MAX 256 /* columns of a CSV file */

enum records_shape {
	RECORDS_LINES,	/* a line each; empty ones are passed over */
	RECORDS_VALUES, /* JSON values with white space between them */
	RECORDS_ARRAY,	/* the elements of one JSON array */
	RECORDS_ROWS	/* CSV (RFC 4180): a quoted cell may hold line breaks */
};

struct records {
	struct source *source; /* borrowed */
	struct buf window;     /* what was read; [at, window.len) not handed out yet */
	size_t at, limit;      /* limit: bytes of a record */
	bool eof, begun,
		ended; /* of the source; the first element was read; the array was closed */
	enum records_shape shape;
	uint32_t line, column; /* place of window.data[at] */
};

struct record_text {
	char *p; /* writable, valid until the next call */
	size_t n;
	uint32_t line, column; /* of p[0] */
};

/* PD_ETOOBIG, PD_ENOMEM and the errors of source_read, with a message. Passes over a byte order
 * mark. `limit`: bytes that a record may have. */
int records_init(struct records *r, struct source *source, size_t limit,
		 struct pd_msg *msg) PD_MUST;
void records_release(struct records *r);

/* The text that comes next, at least `want` bytes unless it ends before; nothing is taken. */
int records_peek(struct records *r, size_t want, struct span *out, struct pd_msg *msg) PD_MUST;
/* The shape of what comes; before the first records_next. For RECORDS_ARRAY the bracket is taken.
 */
void records_set_shape(struct records *r, enum records_shape shape);

/*
 * The next record without white space around it; PD_ENOENT at the end. PD_EINVAL when the text is
 * not of this shape, PD_ETOOBIG when a record is longer than the limit; *place says where (see
 * record_text), msg what was found and expected, without a place.
 */
int records_next(struct records *r, struct record_text *out, struct record_text *place,
		 struct pd_msg *msg) PD_MUST;

/* Line and column of a byte of a record. */
void records_place(const struct record_text *record, const char *p, uint32_t *line,
		   uint32_t *column);

/* Splits a row into cells and undoes their quotes in place. PD_EINVAL: a quote is misplaced
 * (*wrong) or there are more than RECORDS_CELLS_MAX. */
int records_cells(const struct record_text *row, struct span *cell, size_t *n,
		  const char **wrong) PD_MUST;

#endif
