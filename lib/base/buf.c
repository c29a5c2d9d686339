/* Doubling growth up to the maximum given at birth; see buf.h for the contract. */
#include "lib/base/buf.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"

/* The invariants of buf.h. */
static bool sound(const struct buf *b)
{
	return b->data ? b->len < b->cap && b->cap - 1 <= b->max : b->len == 0 && b->cap == 0;
}

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){.max = max};
}

void buf_release(struct buf *b)
{
	PD_CHECK(sound(b));
	free(b->data);
	buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

char *buf_detach(struct buf *b)
{
	char *text = b->data ? b->data : calloc(1, 1);

	buf_init(b, b->max);
	return text;
}

int buf_grow(struct buf *b, size_t n)
{
	size_t need, cap = b->cap ? b->cap : 64;
	char *data;

	PD_CHECK(sound(b));
	if (n > b->max || b->len > b->max - n)
		return PD_ETOOBIG;
	need = b->len + n + 1;
	if (need <= b->cap)
		return PD_OK;
	while (cap < need)
		cap = cap > b->max / 2 ? b->max + 1 : cap * 2;
	if (cap - 1 > b->max)
		cap = b->max + 1;
	data = realloc(b->data, cap);
	if (!data)
		return PD_ENOMEM;
	b->data = data;
	b->cap = cap;
	b->data[b->len] = '\0';
	return PD_OK;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
	int err;

	PD_CHECK(sound(b) && (p || n == 0));
	err = buf_reserve(b, n);
	if (err)
		return err;
	if (n > 0)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
	return PD_OK;
}

int buf_putc(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, err;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return PD_EINVAL;
	err = buf_reserve(b, (size_t)n);
	if (err)
		return err;
	va_start(ap, fmt);
	(void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return PD_OK;
}

void buf_consume(struct buf *b, size_t n)
{
	PD_CHECK(sound(b) && n <= b->len);
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
	b->data[b->len] = '\0';
}
