/*
 * A growable byte buffer that receives its maximum when it is born.
 *
 * Invariants: len < cap <= max + 1 once data is not NULL. Every function here leaves data[len] 0,
 * so text may be read as a C string; who receives into reserved room and adds to len need not. An
 * append that would cross the maximum changes nothing and returns PD_ETOOBIG. Not thread-safe: the
 * owner thread only.
 */
#ifndef PD_BASE_BUF_H
#define PD_BASE_BUF_H

#include "lib/base/err.h"
#include "lib/base/span.h"

struct buf {
	char *data; /* owned; NULL until the first append */
	size_t len;
	size_t cap;
	size_t max;
};

void buf_init(struct buf *b, size_t max);
/* Frees the memory; the maximum stays and the buffer may be used again. */
void buf_release(struct buf *b);
/* Forgets the content, keeps the memory. */
void buf_clear(struct buf *b);
/* Hands the text to the caller, who frees it; the buffer is empty afterwards. Never NULL unless out
 * of memory. */
char *buf_detach(struct buf *b);

int buf_grow(struct buf *b, size_t n) PD_MUST; /* buf_reserve, where there is no room yet */
/* Makes room for n more bytes after len. PD_ETOOBIG or PD_ENOMEM. */
static inline PD_MUST int buf_reserve(struct buf *b, size_t n)
{
	return n < b->cap - b->len ? PD_OK : buf_grow(b, n);
}
int buf_append(struct buf *b, const void *p, size_t n) PD_MUST;
static inline PD_MUST int buf_puts(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}
int buf_putc(struct buf *b, char c) PD_MUST;
int buf_printf(struct buf *b, const char *fmt, ...) PD_MUST PD_PRINTF(2, 3);
/* Removes the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

static inline struct span buf_span(const struct buf *b)
{
	return (struct span){b->data, b->len};
}

#endif
