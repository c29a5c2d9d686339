/* Recursive descent with a depth limit; every failure goes through fail_at, which turns an offset
 * into line and column. */
#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/results/result_scan.h"

#define NUMBER_MAX 127 /* characters of one number */
#define WORD_MAX   ((size_t)64 << 20)

static int read_value(struct result_scan *s, struct detail_list *into);

void result_scan_init(struct result_scan *s, const char *name, struct span text, struct pd_msg *msg)
{
	memset(s, 0, sizeof(*s));
	s->name = name;
	s->text = text;
	s->msg = msg;
	if (msg)
		msg->text[0] = '\0';
	if (span_starts(text, SPAN("\xef\xbb\xbf")))
		s->at = 3;
	buf_init(&s->path, 1 << 16);
	buf_init(&s->word, WORD_MAX);
}

void result_scan_release(struct result_scan *s)
{
	for (int i = 0; i < DETAILS; i++)
		free(s->detail[i].v);
	free(s->inner.v);
	free(s->gaps.v);
	buf_release(&s->path);
	buf_release(&s->word);
}

static void skip_space(struct result_scan *s)
{
	while (s->at < s->text.n && s->text.p[s->at] && strchr(" \t\r\n", s->text.p[s->at]))
		s->at++;
}

bool result_scan_end(struct result_scan *s)
{
	skip_space(s);
	return s->at >= s->text.n;
}

static char peek(const struct result_scan *s)
{
	return s->at < s->text.n ? s->text.p[s->at] : '\0';
}

static int fail_at(struct result_scan *s, size_t at, const char *expected)
{
	size_t line = 1, column = 1;
	unsigned char c;

	for (size_t i = 0; i < at && i < s->text.n; i++) {
		if (s->text.p[i] == '\n')
			line++, column = 1;
		else if (((unsigned char)s->text.p[i] & 0xC0u) != 0x80u)
			column++;
	}
	if (at >= s->text.n)
		return pd_fail(s->msg, PD_EINVAL,
			       "%s:%zu:%zu: found the end of the file, expected %s", s->name, line,
			       column, expected);
	c = (unsigned char)s->text.p[at];
	if (isprint(c))
		return pd_fail(s->msg, PD_EINVAL, "%s:%zu:%zu: found '%c', expected %s", s->name,
			       line, column, c, expected);
	return pd_fail(s->msg, PD_EINVAL, "%s:%zu:%zu: found byte 0x%02x, expected %s", s->name,
		       line, column, c, expected);
}

static bool take_word(struct result_scan *s, const char *word)
{
	size_t n = strlen(word);

	if (s->text.n - s->at < n || memcmp(s->text.p + s->at, word, n) != 0)
		return false;
	s->at += n;
	return true;
}

/* Reads a string into s->word, decoded. */
static int read_string(struct result_scan *s)
{
	size_t start = s->at++;
	int err;

	while (s->at < s->text.n && s->text.p[s->at] != '"') {
		if ((unsigned char)s->text.p[s->at] < 0x20)
			return fail_at(s, s->at, "an escaped control character in a string");
		s->at += s->text.p[s->at] == '\\' ? 2 : 1;
	}
	if (s->at >= s->text.n)
		return fail_at(s, s->text.n, "the closing quote of a string");
	s->at++;
	err = json_validate(s->text.p + start, s->at - start, NULL);
	if (err)
		return fail_at(s, start, "a string with valid escapes and UTF-8");
	buf_clear(&s->word);
	err = json_string_decode((struct span){s->text.p + start, s->at - start}, &s->word);
	return err ? err : buf_puts(&s->word, "");
}

/* Adds a field under the current path. */
static int keep(struct result_scan *s, enum result_type type, struct span text, double number)
{
	char small[64], *copy = text.n < sizeof(small) ? small : malloc(text.n + 1);
	int err;

	if (!copy)
		return PD_ENOMEM;
	memcpy(copy, text.p ? text.p : "", text.n);
	copy[text.n] = '\0';
	err = s->doc && s->path.len > 0 ? result_add(s->doc, s->path.data, type, copy, number)
					: PD_OK;
	if (copy != small)
		free(copy);
	if (err == PD_ETOOBIG)
		return pd_fail(s->msg, err, "%s: more than %d values in one result", s->name,
			       RESULT_FIELDS_MAX);
	return err;
}

static size_t digits(struct result_scan *s)
{
	size_t start = s->at;

	while (isdigit((unsigned char)peek(s)))
		s->at++;
	return s->at - start;
}

static int scan_number(struct result_scan *s)
{
	size_t first, n;

	if (peek(s) == '-')
		s->at++;
	first = s->at;
	n = digits(s);
	if (n == 0)
		return fail_at(s, s->at, "a digit");
	if (n > 1 && s->text.p[first] == '0')
		return fail_at(s, first + 1, "no digit after a leading zero");
	if (peek(s) == '.') {
		s->at++;
		if (digits(s) == 0)
			return fail_at(s, s->at, "a digit after the decimal point");
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		if (digits(s) == 0)
			return fail_at(s, s->at, "a digit of the exponent");
	}
	return PD_OK;
}

static int read_number(struct result_scan *s, double *out)
{
	size_t start = s->at, n;
	char copy[NUMBER_MAX + 1];
	int err;

	if (take_word(s, "NaN") || take_word(s, "Infinity") || take_word(s, "-Infinity")) {
		*out = s->text.p[start] == 'N'	 ? (double)NAN
		       : s->text.p[start] == '-' ? -(double)INFINITY
						 : (double)INFINITY;
		return PD_OK;
	}
	err = scan_number(s);
	if (err)
		return err;
	n = s->at - start;
	if (n > NUMBER_MAX)
		return fail_at(s, start, "a number of at most 127 characters");
	memcpy(copy, s->text.p + start, n);
	copy[n] = '\0';
	*out = strtod(copy, NULL);
	return PD_OK;
}

static const char *space_end(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/*
 * A number without exponent and with at most 19 significant digits, 27 of them behind the point:
 * then its digits fit in 64 bits, and a power of ten up to 10^27 is exact in an extended double, so
 * the quotient is rounded correctly but for one case in thousands, by one unit. Returns its end, or
 * NULL for anything else.
 */
static const char *plain_number(const char *p, const char *end, double *out)
{
	static const long double tens[] = {1e0L,  1e1L,	 1e2L,	1e3L,  1e4L,  1e5L,  1e6L,
					   1e7L,  1e8L,	 1e9L,	1e10L, 1e11L, 1e12L, 1e13L,
					   1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
					   1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};
	bool minus = *p == '-';
	const char *first, *point = NULL;
	uint64_t digits = 0;
	ptrdiff_t n, after = 0, zeros = 0;

	p += minus;
	first = p;
	for (; p < end; p++) {
		if (*p >= '0' && *p <= '9') {
			digits = digits * 10 + (uint64_t)(*p - '0');
			zeros += digits == 0;
		} else if (*p == '.' && !point && p > first) {
			point = p;
		} else {
			break;
		}
	}
	n = p - first - (point ? 1 : 0);
	if (point)
		after = p - point - 1;
	if (n == 0 || n - zeros > 19 || after > 27 || p == end || *p == 'e' || *p == 'E' ||
	    (point && after == 0) || (first[0] == '0' && (point ? point - first : n) > 1))
		return NULL;
	*out = (double)((long double)digits / tens[after]);
	*out = minus ? -*out : *out;
	return p;
}

/* A string's end, behind its closing quote, or NULL. Escapes are stepped over, not checked. */
static const char *plain_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p == '\\' && ++p == end)
			return NULL;
	}
	return p < end ? p + 1 : NULL;
}

/* Reads elements while they are plain numbers, strings and nulls: lists of a million requests are
 * nothing else. Stops in front of whatever needs a closer look, or of the bracket that ends the
 * list.
 */
static int plain_elements(struct result_scan *s, struct detail_list *into, bool *ended)
{
	const char *p = s->text.p + s->at, *end = s->text.p + s->text.n, *next = p;
	int err = PD_OK;

	while (!err) {
		double v = NAN;

		p = next;
		if (p == end)
			break;
		if (*p == '"') {
			next = plain_string(p, end);
			v = next ? (double)(next - p - 2) : 0;
		} else if (*p == 'n') {
			next = end - p > 4 && memcmp(p, "null", 4) == 0 ? p + 4 : NULL;
		} else {
			next = plain_number(p, end, &v);
		}
		next = next ? space_end(next, end) : NULL;
		if (!next || next == end || (*next != ',' && *next != ']'))
			break;
		if (into)
			err = result_detail_push(into, v);
		if (*next == ']') {
			p = next;
			*ended = true;
			break;
		}
		next = space_end(next + 1, end);
	}
	s->at = (size_t)(p - s->text.p);
	return err;
}

/* [ a, b, ... ]: the elements go to `into` when it is given; nothing inside is kept as a field. */
static int read_array(struct result_scan *s, struct detail_list *into)
{
	struct result_doc *doc = s->doc;
	bool ended = false;
	int err = PD_OK;

	s->doc = NULL;
	s->at++;
	skip_space(s);
	if (peek(s) == ']') {
		s->at++;
		goto out;
	}
	for (;;) {
		err = plain_elements(s, into, &ended);
		if (!err && !ended)
			err = read_value(s, into);
		if (err)
			goto out;
		skip_space(s);
		if (peek(s) == ']')
			break;
		if (peek(s) != ',') {
			err = fail_at(s, s->at, "',' or ']'");
			goto out;
		}
		s->at++;
		skip_space(s);
	}
	s->at++;
out:
	s->doc = doc;
	return err;
}

static double sum_of(const struct detail_list *l)
{
	double sum = 0;

	for (size_t i = 0; i < l->n; i++)
		sum += l->v[i];
	return sum;
}

/* The gaps of one request: their sum counts as the element, they themselves go to the series. */
static int read_nested_array(struct result_scan *s, struct detail_list *into)
{
	int err;

	if (into != &s->detail[DETAIL_ITLS]) {
		err = read_array(s, NULL);
		return err || !into ? err : result_detail_push(into, NAN);
	}
	s->inner.n = 0;
	err = read_array(s, &s->inner);
	for (size_t i = 0; !err && i < s->inner.n && s->gaps.n <= RESULT_ITLS_MAX; i++)
		err = result_detail_push(&s->gaps, s->inner.v[i]);
	return err ? err : result_detail_push(into, sum_of(&s->inner));
}

/* The list of results in an object of several: remembered, and skipped like any other. */
static bool is_result_list(const struct result_scan *s)
{
	size_t at = s->at + 1;

	while (at < s->text.n && strchr(" \t\r\n", s->text.p[at]) && s->text.p[at])
		at++;
	return at < s->text.n && s->text.p[at] == '{' &&
	       (strcmp(s->path.data, "benchmarks") == 0 || strcmp(s->path.data, "pdctl.arms") == 0);
}

/* One "key": value, with the path extended while the value is read. */
static int read_member(struct result_scan *s)
{
	size_t outer = s->path.len;
	enum detail detail = DETAILS;
	int err;

	if (peek(s) != '"')
		return fail_at(s, s->at, "a key in double quotes");
	err = read_string(s);
	if (!err && s->doc && outer > 0)
		err = buf_putc(&s->path, '.');
	if (!err && s->doc)
		err = buf_puts(&s->path, s->word.data);
	if (err)
		return err;
	if (s->doc && outer == 0)
		detail = result_detail_of(s->word.data);
	skip_space(s);
	if (peek(s) != ':')
		return fail_at(s, s->at, "':' after the key");
	s->at++;
	skip_space(s);
	if (detail != DETAILS && peek(s) == '[') {
		s->detail[detail].n = 0;
		if (detail == DETAIL_ITLS)
			s->gaps.n = 0;
		err = read_array(s, &s->detail[detail]);
	} else {
		if (s->doc && peek(s) == '[' && is_result_list(s))
			s->list = s->at;
		err = read_value(s, NULL);
	}
	s->path.len = outer;
	if (s->path.data)
		s->path.data[outer] = '\0';
	return err;
}

static int read_object(struct result_scan *s)
{
	s->at++;
	skip_space(s);
	if (peek(s) == '}') {
		s->at++;
		return PD_OK;
	}
	for (;;) {
		int err = read_member(s);

		if (err)
			return err;
		skip_space(s);
		if (peek(s) == '}')
			break;
		if (peek(s) != ',')
			return fail_at(s, s->at, "',' or '}'");
		s->at++;
		skip_space(s);
	}
	s->at++;
	return PD_OK;
}

static int read_word(struct result_scan *s, struct detail_list *into)
{
	size_t start = s->at;
	double number = NAN;
	int err;

	if (take_word(s, "null"))
		return into ? result_detail_push(into, number)
			    : keep(s, RESULT_NULL, SPAN("null"), number);
	if (take_word(s, "true") || take_word(s, "false")) {
		number = s->text.p[start] == 't';
		return into ? result_detail_push(into, number)
			    : keep(s, RESULT_BOOL, number > 0 ? SPAN("true") : SPAN("false"),
				   number);
	}
	if (!memchr("-0123456789NI", peek(s), 13) || s->at >= s->text.n)
		return fail_at(s, s->at, "a JSON value");
	err = read_number(s, &number);
	if (err)
		return err;
	return into ? result_detail_push(into, number)
		    : keep(s, RESULT_NUMBER, (struct span){s->text.p + start, s->at - start},
			   number);
}

static int read_value(struct result_scan *s, struct detail_list *into)
{
	int err;

	skip_space(s);
	if (s->depth >= RESULT_DEPTH_MAX)
		return fail_at(s, s->at, "at most 64 levels of nesting");
	s->depth++;
	if (peek(s) == '{') {
		err = read_object(s);
		if (!err && into)
			err = result_detail_push(into, NAN);
	} else if (peek(s) == '[') {
		err = read_nested_array(s, into);
	} else if (peek(s) == '"') {
		err = read_string(s);
		if (!err)
			err = into ? result_detail_push(into, (double)s->word.len)
				   : keep(s, RESULT_TEXT, buf_span(&s->word), NAN);
	} else {
		err = read_word(s, into);
	}
	s->depth--;
	return err;
}

static int read_document(struct result_scan *s, struct result_doc *d)
{
	int err;

	for (int i = 0; i < DETAILS; i++)
		s->detail[i].n = 0;
	s->gaps.n = 0;
	s->list = 0;
	buf_clear(&s->path);
	s->doc = d;
	d->at = s->at;
	err = read_object(s);
	d->len = s->at - d->at;
	s->doc = NULL;
	return err ? err : result_detail_series(s->detail, &s->gaps, d);
}

int result_scan_next(struct result_scan *s, struct result_doc *d)
{
	skip_space(s);
	if (peek(s) != '{')
		return fail_at(s, s->at, "a JSON object");
	return read_document(s, d);
}

void result_scan_list(struct result_scan *s, size_t at)
{
	s->at = at + 1;
}

static int lend_fields(const struct result_doc *outer, struct result_scan *s, struct result_doc *d)
{
	int err = PD_OK;

	s->doc = d;
	for (size_t i = 0; !err && i < outer->n; i++) {
		const struct result_field *f = &outer->field[i];

		buf_clear(&s->path);
		err = buf_puts(&s->path, f->name);
		if (!err)
			err = keep(s, f->type, span_of(f->text), f->number);
	}
	s->doc = NULL;
	return err;
}

int result_scan_element(struct result_scan *s, const struct result_doc *outer, struct result_doc *d,
			bool *more)
{
	int err = PD_OK;

	skip_space(s);
	*more = peek(s) != ']';
	if (!*more)
		return PD_OK;
	if (peek(s) != '{')
		return fail_at(s, s->at, "a JSON object");
	if (outer)
		err = lend_fields(outer, s, d);
	if (!err)
		err = read_document(s, d);
	skip_space(s);
	if (!err && peek(s) == ',')
		s->at++;
	return err;
}
