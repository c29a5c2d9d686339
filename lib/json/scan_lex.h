/*
 * The tokens of JSON: private to lib/json. Each function starts at a token and returns the first
 * byte after it, or NULL after it noted in `struct json_lex` where the text went wrong and what was
 * expected there. None of them reads at or behind `end`. Thread-safe.
 */
#ifndef PD_JSON_SCAN_LEX_H
#define PD_JSON_SCAN_LEX_H

#include "lib/json/scan.h"

struct json_lex {
	const char *end;
	const char *bad;    /* where the text went wrong */
	const char *expect; /* what was expected there */
};

/* Notes the place and the expectation; returns NULL. */
const char *json_lex_bad(struct json_lex *x, const char *at, const char *expect);

/* p is behind the opening quote; returns behind the closing one. Checks escapes, control characters
 * and UTF-8. */
const char *json_lex_string(struct json_lex *x, const char *p);
const char *json_lex_number(struct json_lex *x, const char *p);
/* true, false or null. */
const char *json_lex_literal(struct json_lex *x, const char *p);

/*
 * A short cut for long arrays of non-negative integers: p is at the first digit of an element;
 * returns the first byte of a later element (or p) such that everything between is valid "digits,"
 * or "digits, " text.
 */
const char *json_lex_integers(const char *p, const char *end);

/* The first byte in [p, end) that is a quote or a backslash; end when there is none. */
const char *json_lex_find_quote(const char *p, const char *end);

/* Bytes of the UTF-8 sequence at p (first byte >= 0x80), 0 when it is not valid. */
unsigned json_lex_utf8(const char *p, const char *end);

/* The four hexadecimal digits at p, or -1. The caller knows that four bytes are there. */
int json_lex_hex4(const char *p);

static inline const char *json_lex_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/* Which type a value has whose first byte is c. JSON_NONE when no value starts like this. */
static inline enum json_type json_lex_type(char c)
{
	switch (c) {
	case '{':
		return JSON_OBJECT;
	case '[':
		return JSON_ARRAY;
	case '"':
		return JSON_STRING;
	case 't':
		return JSON_TRUE;
	case 'f':
		return JSON_FALSE;
	case 'n':
		return JSON_NULL;
	default:
		return c == '-' || (c >= '0' && c <= '9') ? JSON_NUMBER : JSON_NONE;
	}
}

#endif
