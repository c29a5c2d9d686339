/*
 * Borrowed text: a pointer and a length into another owner's buffer. Spans are never freed and are
 * valid only as long as the buffer they point into; each function that returns one says which.
 */
#ifndef PD_BASE_SPAN_H
#define PD_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
	const char *p;
	size_t n;
};

/* A name and a value: an HTTP header field. `tag` is a small id given by the parser
 * (lib/http/head.h). */
struct field {
	struct span name;
	struct span value;
	unsigned tag;
};

#define SPAN(lit) ((struct span){(lit), sizeof(lit) - 1})

static inline struct span span_of(const char *s)
{
	return (struct span){s, s ? strlen(s) : 0};
}

static inline bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Without regard to the case of ASCII letters. Most names differ in their first byte, of which bit
 * 5 is the case of a letter. */
static inline bool span_eq_case(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || ((a.p[0] | 0x20) == (b.p[0] | 0x20) &&
					   strncasecmp(a.p, b.p, a.n) == 0));
}

static inline bool span_starts(struct span s, struct span prefix)
{
	return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* Without leading and trailing spaces and tabs. */
static inline struct span span_trim(struct span s)
{
	while (s.n > 0 && (*s.p == ' ' || *s.p == '\t'))
		s.p++, s.n--;
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

#endif
