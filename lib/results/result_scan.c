/* Recursive descent with a depth limit; every failure goes through fail_at, which turns an offset
 * into line and column. */
#include <ctype.h>
#include <math.h>
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
	struct result_doc *d = s->doc;
	struct result_field *f;

	if (!d || s->path.len == 0)
		return PD_OK;
	if (d->n == RESULT_FIELDS_MAX)
		return pd_fail(s->msg, PD_ETOOBIG, "%s: more than %d values in one result", s->name,
			       RESULT_FIELDS_MAX);
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 64;

		f = realloc(d->field, cap * sizeof(*f));
		if (!f)
			return PD_ENOMEM;
		d->field = f;
		d->cap = cap;
	}
	f = &d->field[d->n];
	f->type = type;
	f->number = number;
	f->name = strdup(s->path.data);
	f->text = strndup(text.p ? text.p : "", text.n);
	d->n++;
	return f->name && f->text ? PD_OK : PD_ENOMEM;
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

/* [ a, b, ... ]: the elements go to `into` when it is given; nothing inside is kept as a field. */
static int read_array(struct result_scan *s, struct detail_list *into)
{
	struct result_doc *doc = s->doc;
	int err = PD_OK;

	s->doc = NULL;
	s->at++;
	skip_space(s);
	if (peek(s) == ']') {
		s->at++;
		goto out;
	}
	for (;;) {
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

static int read_nested_array(struct result_scan *s, struct detail_list *into)
{
	struct detail_list inner = {NULL, 0, 0};
	int err;

	if (!into)
		return read_array(s, NULL);
	err = read_array(s, &inner);
	if (!err)
		err = result_detail_push(into, sum_of(&inner));
	free(inner.v);
	return err;
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
		err = read_array(s, &s->detail[detail]);
	} else {
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

int result_scan_next(struct result_scan *s, struct result_doc *d)
{
	int err;

	skip_space(s);
	if (peek(s) != '{')
		return fail_at(s, s->at, "a JSON object");
	for (int i = 0; i < DETAILS; i++)
		s->detail[i].n = 0;
	buf_clear(&s->path);
	s->doc = d;
	err = read_object(s);
	s->doc = NULL;
	return err ? err : result_detail_series(s->detail, d);
}
