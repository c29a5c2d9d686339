#include "sim/worker/jout.h"

#include <stdarg.h>
#include <stdio.h>

#include "lib/json/scan.h"

void jout_init(struct jout *o, size_t max)
{
	buf_init(&o->b, max);
	o->err = PD_OK;
}

void jout_release(struct jout *o)
{
	buf_release(&o->b);
}

void jout_cut(struct jout *o, size_t n)
{
	if (n < o->b.len) {
		o->b.len = n;
		o->b.data[n] = '\0';
	}
}

void jout_raw(struct jout *o, const void *p, size_t n)
{
	if (!o->err)
		o->err = buf_append(&o->b, p, n);
}

void jout_put(struct jout *o, const char *text)
{
	jout_raw(o, text, strlen(text));
}

void jout_fmt(struct jout *o, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		o->err = PD_ETOOBIG;
	else
		jout_raw(o, text, (size_t)n);
}

void jout_uint(struct jout *o, uint64_t value)
{
	char digit[20];
	size_t at = sizeof(digit);

	do
		digit[--at] = (char)('0' + value % 10);
	while (value /= 10);
	jout_raw(o, digit + at, sizeof(digit) - at);
}

void jout_quote(struct jout *o, struct span text)
{
	if (!o->err)
		o->err = json_quote(&o->b, text.p, text.n);
}
