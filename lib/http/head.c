/*
 * One pass over the bytes with one class table; field names that the program acts on are recognised
 * while they are read, so that no name is compared later. The whole head is parsed at once: a head
 * that arrives in pieces is only searched for its end (new bytes only) until it is complete,
 * because resumable per-byte states cost more than they save when nearly every head arrives in one
 * read. The rules are in head.h; framing is decided in frame_*() and nowhere else.
 */
#include "lib/http/head.h"

#include <stdlib.h>
#include <string.h>

#define EMPTY_LINES_MAX	    2  /* before a request line */
#define CONNECTION_LIST_MAX 32 /* names in Connection besides close and keep-alive */

/* Classes of bytes (RFC 9110 5.6.2, RFC 9112 3.2, RFC 3986). */
enum { TOKEN = 1, TARGET = 2, VALUE = 4, HOST = 8 };
#define WORD (TOKEN | TARGET | VALUE | HOST)

static const unsigned char class_of[256] = {
	['\t'] = VALUE,
	[' '] = VALUE,
	['!'] = WORD,
	['"'] = TARGET | VALUE,
	['#'] = TOKEN | VALUE,
	['$' ... '\''] = WORD,
	['(' ... ')'] = TARGET | VALUE | HOST,
	['*' ... '+'] = WORD,
	[','] = TARGET | VALUE,
	['-' ... '.'] = WORD,
	['/'] = TARGET | VALUE,
	['0' ... '9'] = WORD,
	[':'] = TARGET | VALUE,
	[';'] = TARGET | VALUE | HOST,
	['<'] = TARGET | VALUE,
	['='] = TARGET | VALUE | HOST,
	['>' ... '@'] = TARGET | VALUE,
	['A' ... 'Z'] = WORD,
	['[' ... ']'] = TARGET | VALUE,
	['^'] = TOKEN | TARGET | VALUE,
	['_'] = WORD,
	['`'] = TOKEN | TARGET | VALUE,
	['a' ... 'z'] = WORD,
	['{'] = TARGET | VALUE,
	['|'] = TOKEN | TARGET | VALUE,
	['}'] = TARGET | VALUE,
	['~'] = WORD,
	[0x80 ... 0xff] = VALUE,
};

static const struct known {
	const char *name;
	enum http_name tag;
} known[31][4] = {
	[2] = {{"te", HTTP_TE}},
	[3] = {{"via", HTTP_VIA}},
	[4] = {{"host", HTTP_HOST}, {"date", HTTP_DATE}},
	[6] = {{"accept", HTTP_ACCEPT},
	       {"server", HTTP_SERVER},
	       {"expect", HTTP_EXPECT},
	       {"origin", HTTP_ORIGIN}},
	[7] = {{"upgrade", HTTP_UPGRADE}, {"trailer", HTTP_TRAILER}},
	[9] = {{"x-api-key", HTTP_X_API_KEY},
	       {"forwarded", HTTP_FORWARDED},
	       {"x-real-ip", HTTP_FORWARDED}},
	[10] = {{"connection", HTTP_CONNECTION},
		{"keep-alive", HTTP_KEEP_ALIVE},
		{"tracestate", HTTP_TRACESTATE}},
	[11] = {{"retry-after", HTTP_RETRY_AFTER}, {"traceparent", HTTP_TRACEPARENT}},
	[12] = {{"content-type", HTTP_CONTENT_TYPE}, {"x-request-id", HTTP_X_REQUEST_ID}},
	[13] = {{"authorization", HTTP_AUTHORIZATION}},
	[14] = {{"content-length", HTTP_CONTENT_LENGTH}, {"http2-settings", HTTP_UPGRADE}},
	[15] = {{"accept-encoding", HTTP_ACCEPT_ENCODING},
		{"x-forwarded-for", HTTP_X_FORWARDED_FOR}},
	[16] = {{"content-encoding", HTTP_CONTENT_ENCODING},
		{"proxy-connection", HTTP_PROXY_CONNECTION},
		{"x-forwarded-host", HTTP_FORWARDED},
		{"x-forwarded-port", HTTP_FORWARDED}},
	[17] = {{"transfer-encoding", HTTP_TRANSFER_ENCODING},
		{"x-forwarded-proto", HTTP_FORWARDED}},
	[18] = {{"proxy-authenticate", HTTP_PROXY_AUTHENTICATE}},
	[19] = {{"proxy-authorization", HTTP_PROXY_AUTHORIZATION},
		{"x-prefill-host-port", HTTP_ROUTING}},
	[20] = {{"x-data-parallel-rank", HTTP_RANK}},
	[21] = {{"x-prefiller-host-port", HTTP_ROUTING}, {"x-encoder-hosts-ports", HTTP_ROUTING}},
	[25] = {{"x-data-parallel-host-port", HTTP_ROUTING}},
	[27] = {{"x-kv-cache-source-host-port", HTTP_ROUTING}},
	[30] = {{"x-gateway-destination-endpoint", HTTP_ROUTING}},
};

/* What the fields said about framing; judged when all of them were read. */
struct framing {
	unsigned hosts, lengths, codings, authorizations, types;
	bool underscored; /* a known name, but for underscores in place of hyphens */
	unsigned listed;  /* names in Connection besides close and keep-alive */
	bool close, keep;
	struct span host;
	const char *frames; /* the last Content-Length or Transfer-Encoding */
	const char *list;   /* the last Connection */
};

/* Refusals return NULL with h->why set; NULL without it means that bytes are missing. `at`: the
 * byte that breaks the rule, or the value that does. */
static const char *refuse(struct http_head *h, int status, const char *at, const char *rule,
			  const char *why)
{
	h->refuse = status;
	h->why = why;
	h->rule = rule;
	h->at = (size_t)(at - h->start);
	return NULL;
}

static bool is(char c, unsigned classes)
{
	return (class_of[(unsigned char)c] & classes) != 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* `lower` has n bytes, letters in lower case; s holds token characters only, so setting bit 5 folds
 * exactly the letters. */
static bool same_name(const char *s, const char *lower, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((s[i] | 0x20) != lower[i])
			return false;
	return true;
}

/* The same with underscores for hyphens. */
static bool looks_alike(const char *s, const char *lower, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((s[i] | 0x20) != lower[i] && (s[i] != '_' || lower[i] != '-'))
			return false;
	return true;
}

static uint64_t folded(const char *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return w | UINT64_C(0x2020202020202020);
}

/* Names of eight bytes or more by words, the last of which may overlap the one before. */
static bool same_long_name(const char *s, const char *lower, size_t n)
{
	for (size_t i = 0; i + 8 < n; i += 8)
		if (folded(s + i) != folded(lower + i))
			return false;
	return folded(s + n - 8) == folded(lower + n - 8);
}

static enum http_name name_tag(const char *s, size_t n, bool *underscored)
{
	if (n >= sizeof(known) / sizeof(known[0]))
		return HTTP_OTHER;
	for (size_t i = 0; i < 4 && known[n][i].name; i++) {
		const char *name = known[n][i].name;

		if (n >= 8 ? same_long_name(s, name, n) : same_name(s, name, n))
			return known[n][i].tag;
		*underscored |= looks_alike(s, name, n);
	}
	return HTTP_OTHER;
}

/* Eight bytes at once: true when one of them is a control byte (tab included) or DEL. */
static bool has_control(const char *p)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
	uint64_t w, del;

	memcpy(&w, p, sizeof(w));
	del = w ^ ones * 0x7f;
	return (((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & high;
}

static const char *skip_value(const char *p, const char *end)
{
	for (;;) {
		while (end - p >= 8 && !has_control(p))
			p += 8;
		while (p < end && is(*p, VALUE) && *p != '\t')
			p++;
		if (p == end || *p != '\t')
			return p;
		p++;
	}
}

/* There is no CRLF at p. */
static const char *no_line_end(struct http_head *h, const char *p, const char *end)
{
	if (p == end)
		return NULL;
	if (*p == '\n')
		return refuse(h, 400, p, "RFC 9112 2.2", "a line ends with a bare line feed");
	if (*p != '\r')
		return refuse(h, 400, p, "RFC 9110 5.5", "a control byte in the message head");
	if (p + 1 == end)
		return NULL;
	return refuse(h, 400, p, "RFC 9112 2.2", "a carriage return without a line feed");
}

/* Expects CRLF at p. */
static inline const char *line_end(struct http_head *h, const char *p, const char *end)
{
	return end - p >= 2 && p[0] == '\r' && p[1] == '\n' ? p + 2 : no_line_end(h, p, end);
}

/* "HTTP/1.x" at p. The bytes that are there must fit even when some are missing. */
static const char *version(struct http_head *h, const char *p, const char *end)
{
	static const char prefix[] = "HTTP/";
	size_t have = (size_t)(end - p) < 5 ? (size_t)(end - p) : 5;

	if (memcmp(p, prefix, have) != 0)
		return refuse(h, 400, p, "RFC 9112 2.3",
			      "the first line does not name an HTTP version");
	if (end - p < 8)
		return NULL;
	if (!is_digit(p[5]) || p[6] != '.' || !is_digit(p[7]))
		return refuse(h, 400, p, "RFC 9112 2.3",
			      "the first line does not name an HTTP version");
	if (p[5] != '1' || p[7] > '1')
		return refuse(h, 505, p + 5, "RFC 9110 2.5",
			      "only HTTP/1.0 and HTTP/1.1 are supported");
	h->minor = p[7] - '0';
	return p + 8;
}

/* -- the request line -- */

static const char *method(struct http_head *h, const char *p, const char *end)
{
	const char *start = p;

	while (p < end && is(*p, TOKEN))
		p++;
	if (p == end)
		return NULL;
	if (*p != ' ' || p == start)
		return refuse(h, 400, p, "RFC 9112 3.1",
			      "the request line does not start with a method");
	h->method = (struct span){start, (size_t)(p - start)};
	return p + 1;
}

static void path_until_query(struct http_head *h, struct span rest)
{
	const char *query = memchr(rest.p, '?', rest.n);

	h->path = (struct span){rest.p, query ? (size_t)(query - rest.p) : rest.n};
}

static bool is_hex(char c)
{
	return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* Bytes of a registered name or IPv4 address at the front; a percent sign begins %XX. */
static size_t name_length(struct span v)
{
	size_t i = 0;

	while (i < v.n && is(v.p[i], HOST)) {
		if (v.p[i] == '%' && (v.n - i < 3 || !is_hex(v.p[i + 1]) || !is_hex(v.p[i + 2])))
			return 0;
		i += v.p[i] == '%' ? 3 : 1;
	}
	return i;
}

/* Bytes of "[" IPv6address "]" at the front; later address formats and zones occur in no Host. */
static size_t literal_length(struct span v)
{
	size_t i = 1, colons = 0;

	for (; i < v.n && (is_hex(v.p[i]) || v.p[i] == ':' || v.p[i] == '.'); i++)
		colons += v.p[i] == ':';
	return i < v.n && v.p[i] == ']' && colons >= 2 && colons <= 7 ? i + 1 : 0;
}

/* Host = uri-host [ ":" port ] (RFC 9110 7.2). A comma would look like two of them to a careless
 * reader. */
static bool host_ok(struct span v)
{
	size_t i = v.n > 0 && v.p[0] == '[' ? literal_length(v) : name_length(v), digits = 0;
	unsigned port = 0;

	if (i == 0)
		return false;
	if (i == v.n)
		return true;
	if (v.p[i++] != ':')
		return false;
	for (; i < v.n && is_digit(v.p[i]) && digits < 6; i++, digits++)
		port = port * 10 + (unsigned)(v.p[i] - '0');
	return i == v.n && digits <= 5 && port <= 65535;
}

/* http://authority/path[?query]; the authority must be what Host says, or two readers disagree
 * about it. The path may not be left out: h->path always lies inside h->target, callers rely on it.
 */
static bool absolute_form(struct http_head *h, const struct framing *f)
{
	struct span t = h->target, auth;
	size_t scheme;

	if (t.n > 7 && same_name(t.p, "http", 4) && memcmp(t.p + 4, "://", 3) == 0)
		scheme = 7;
	else if (t.n > 8 && same_name(t.p, "https", 5) && memcmp(t.p + 5, "://", 3) == 0)
		scheme = 8;
	else
		return false;
	auth = (struct span){t.p + scheme, 0};
	while (scheme + auth.n < t.n && !strchr("/?", auth.p[auth.n]))
		auth.n++;
	if (!host_ok(auth) || (f->hosts > 0 && !span_eq_case(auth, f->host)))
		return false;
	t.p = auth.p + auth.n;
	t.n -= scheme + auth.n;
	path_until_query(h, t);
	return h->path.n > 0;
}

static bool target_form(struct http_head *h, const struct framing *f)
{
	if (h->target.p[0] == '/') {
		path_until_query(h, h->target);
		return true;
	}
	if (h->target.n == 1 && h->target.p[0] == '*') {
		h->path = h->target;
		return span_eq(h->method, SPAN("OPTIONS"));
	}
	return absolute_form(h, f);
}

static const char *request_line(struct http_head *h, const char *p, const char *end)
{
	const char *start;

	p = method(h, p, end);
	if (!p)
		return NULL;
	start = p;
	while (p < end && is(*p, TARGET))
		p++;
	if (p == end)
		return NULL;
	if (*p != ' ' || p == start)
		return refuse(h, 400, p, "RFC 9112 3.2", "the request target is malformed");
	h->target = (struct span){start, (size_t)(p - start)};
	p = version(h, p + 1, end);
	return p ? line_end(h, p, end) : NULL;
}

/* -- the status line -- */

static const char *status_line(struct http_head *h, const char *p, const char *end)
{
	const char *start;

	p = version(h, p, end);
	if (!p || end - p < 5)
		return NULL;
	if (p[0] != ' ' || p[1] < '1' || p[1] > '5' || !is_digit(p[2]) || !is_digit(p[3]))
		return refuse(h, 502, p, "RFC 9112 4", "the status code is malformed");
	h->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
	p += 4;
	if (*p == ' ')
		p++;
	else if (*p != '\r' && *p != '\n')
		return refuse(h, 502, p, "RFC 9112 4", "the status code is malformed");
	start = p;
	p = skip_value(p, end);
	h->reason = (struct span){start, (size_t)(p - start)};
	return line_end(h, p, end);
}

/* -- fields -- */

static bool parse_length(struct http_head *h, struct span v)
{
	uint64_t n = 0;

	for (size_t i = 0; i < v.n; i++) {
		if (!is_digit(v.p[i]) || __builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(v.p[i] - '0'), &n))
			return false;
	}
	h->length = n;
	return v.n > 0 && n <= INT64_MAX;
}

/* Next element of a comma-separated list; false at the end. Empty elements are skipped. */
static bool list_next(struct span *rest, struct span *item)
{
	while (rest->n > 0) {
		const char *comma = memchr(rest->p, ',', rest->n);
		size_t n = comma ? (size_t)(comma - rest->p) : rest->n;

		*item = span_trim((struct span){rest->p, n});
		n += comma != NULL;
		rest->p += n;
		rest->n -= n;
		if (item->n > 0)
			return true;
	}
	return false;
}

static void connection_field(struct framing *f, struct span value)
{
	struct span item;

	while (list_next(&value, &item)) {
		if (span_eq_case(item, SPAN("close")))
			f->close = true;
		else if (span_eq_case(item, SPAN("keep-alive")))
			f->keep = true;
		else
			f->listed++;
	}
}

/* Connection takes fields away that the next hop does not know of. Framing, and fields that are
 * meant for the reader of the content, are not for it to take (RFC 9110 7.6.1): a client could
 * otherwise hide from a worker what a proxy in front has added. */
static bool may_be_named(unsigned tag)
{
	return tag == HTTP_OTHER;
}

static void mark_named(struct http_head *h)
{
	struct span list, item;

	for (size_t i = 0; i < h->nfields; i++) {
		if (h->field[i].tag != HTTP_CONNECTION)
			continue;
		list = h->field[i].value;
		while (list_next(&list, &item))
			for (size_t k = 0; k < h->nfields; k++)
				if (may_be_named(h->field[k].tag) &&
				    !http_hop_by_hop(&h->field[k]) &&
				    span_eq_case(item, h->field[k].name))
					h->field[k].tag = HTTP_NAMED_BY_CONNECTION;
	}
}

/* Acts on a field with a tag. False: refused. */
static bool note_field(struct http_head *h, struct framing *f, const struct field *x)
{
	switch (x->tag) {
	case HTTP_HOST:
		f->hosts++;
		f->host = x->value;
		break;
	case HTTP_AUTHORIZATION:
		f->authorizations++;
		break;
	case HTTP_CONTENT_TYPE:
		f->types++;
		break;
	case HTTP_CONTENT_LENGTH:
		f->frames = x->value.p;
		if (f->lengths++ > 0 || !parse_length(h, x->value)) {
			refuse(h, 400, x->value.p, "RFC 9110 8.6",
			       "Content-Length is repeated or not a number");
			return false;
		}
		break;
	case HTTP_TRANSFER_ENCODING:
		f->frames = x->value.p;
		if (f->codings++ > 0 || !span_eq_case(x->value, SPAN("chunked"))) {
			refuse(h, 400, x->value.p, "RFC 9112 6.1",
			       "Transfer-Encoding is repeated or not \"chunked\"");
			return false;
		}
		break;
	case HTTP_CONNECTION:
		f->list = x->value.p;
		connection_field(f, x->value);
		break;
	case HTTP_EXPECT:
		if (span_eq_case(x->value, SPAN("100-continue"))) {
			h->expect_continue = true;
		} else if (h->method.n > 0 && x->value.n > 0) {
			refuse(h, 417, x->value.p, "RFC 9110 10.1.1",
			       "unknown expectation, expected 100-continue");
			return false;
		}
		break;
	default:
		break;
	}
	return true;
}

/* One field line at p, CRLF included. */
static const char *field_line(struct http_head *h, struct framing *f, struct field *x,
			      const char *p, const char *end)
{
	const char *start = p;

	while (p < end && is(*p, TOKEN))
		p++;
	if (p == end)
		return NULL;
	if (*p != ':' || p == start) {
		if (p == start && (*p == ' ' || *p == '\t'))
			return refuse(h, 400, p, "RFC 9112 5.2",
				      "a field with obsolete line folding");
		return refuse(h, 400, p, "RFC 9112 5.1",
			      *p == ' ' ? "a space in a field name or before its colon"
					: "a field name is malformed");
	}
	x->name = (struct span){start, (size_t)(p - start)};
	x->tag = name_tag(start, x->name.n, &f->underscored);
	for (p++; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	start = p;
	p = skip_value(p, end);
	x->value = span_trim((struct span){start, (size_t)(p - start)});
	return line_end(h, p, end);
}

/* Most heads have few fields; the others get room for all that are allowed, once. */
struct field *http_head_room(struct http_head *h)
{
	if (h->nfields < HTTP_FIELDS_FEW || (h->field == h->many && h->nfields < HTTP_FIELDS_MAX))
		return &h->field[h->nfields];
	if (h->nfields >= HTTP_FIELDS_MAX)
		return NULL;
	if (!h->many)
		h->many = malloc(HTTP_FIELDS_MAX * sizeof(*h->many));
	if (!h->many)
		return NULL;
	memcpy(h->many, h->few, sizeof(h->few));
	h->field = h->many;
	return &h->field[h->nfields];
}

void http_head_release(struct http_head *h)
{
	free(h->many);
	h->many = NULL;
	h->field = h->few;
	h->nfields = 0;
}

/* All fields and the empty line after them. */
static const char *fields(struct http_head *h, struct framing *f, const char *p, const char *end)
{
	struct field *x;

	for (;;) {
		if (p == end)
			return NULL;
		if (*p == '\r' || *p == '\n')
			return line_end(h, p, end);
		x = http_head_room(h);
		if (!x)
			return refuse(h, 431, p, "RFC 6585 5", "too many header fields");
		p = field_line(h, f, x, p, end);
		if (!p || !note_field(h, f, x))
			return NULL;
		h->nfields++;
	}
}

/* -- framing -- */

/* What holds for both directions. False: refused. */
static bool frame_common(struct http_head *h, const struct framing *f)
{
	if (f->codings > 0 && f->lengths > 0)
		refuse(h, 400, f->frames, "RFC 9112 6.2",
		       "Content-Length and Transfer-Encoding exclude each other");
	else if (f->codings > 0 && h->minor == 0)
		refuse(h, 400, f->frames, "RFC 9112 6.1", "HTTP/1.0 has no Transfer-Encoding");
	else if (f->listed > CONNECTION_LIST_MAX)
		refuse(h, 400, f->list, "RFC 9110 7.6.1", "Connection names too many fields");
	if (h->why)
		return false;
	if (f->codings > 0)
		h->body = HTTP_BODY_CHUNKED;
	else if (f->lengths > 0)
		h->body = HTTP_BODY_LENGTH;
	h->keep_alive = !f->close && (h->minor == 1 || f->keep);
	if (f->listed > 0)
		mark_named(h);
	return true;
}

static bool frame_request(struct http_head *h, const struct framing *f)
{
	if (!frame_common(h, f))
		return false;
	if (f->hosts > 1)
		refuse(h, 400, f->host.p, "RFC 9112 3.2", "Host is repeated");
	else if (f->hosts == 0 && h->minor == 1)
		refuse(h, 400, h->start, "RFC 9112 3.2", "Host is missing");
	else if (f->hosts == 1 && !host_ok(f->host))
		refuse(h, 400, f->host.p, "RFC 9112 3.2", "Host is malformed");
	else if (f->authorizations > 1)
		refuse(h, 400, h->start, "RFC 9110 5.3", "Authorization is repeated");
	else if (f->types > 1)
		refuse(h, 400, h->start, "RFC 9110 5.3", "Content-Type is repeated");
	else if (f->underscored)
		refuse(h, 400, h->start, "RFC 3875 4.1.18",
		       "a known field name with underscores for hyphens");
	else if (span_eq(h->method, SPAN("CONNECT")))
		refuse(h, 501, h->method.p, "RFC 9110 9.3.6", "CONNECT is not supported");
	else if (span_eq(h->method, SPAN("TRACE")))
		refuse(h, 501, h->method.p, "RFC 9110 9.3.8",
		       "TRACE is not supported: it would show the fields added for workers");
	else if (!target_form(h, f))
		refuse(h, 400, h->target.p, "RFC 9112 3.2", "the request target is malformed");
	h->expect_continue = h->expect_continue && h->minor == 1 &&
			     (h->body == HTTP_BODY_CHUNKED || h->length > 0);
	return h->why == NULL;
}

static bool frame_response(struct http_head *h, const struct framing *f, bool head_request)
{
	bool bare = h->status < 200 || h->status == 204;

	if (!frame_common(h, f))
		return false;
	h->expect_continue = false;
	if (h->status == 101) {
		refuse(h, 502, h->start, "RFC 9110 15.2.2",
		       "found 101 Switching Protocols, but no Upgrade was sent");
		return false;
	}
	if (bare && (f->codings > 0 || h->length > 0)) {
		refuse(h, 502, f->frames, "RFC 9110 8.6",
		       "a status that allows no content announces some");
		return false;
	}
	if (head_request || bare || h->status == 304) {
		h->body = HTTP_BODY_NONE;
		h->length = 0;
	} else if (h->body == HTTP_BODY_NONE) {
		h->body = HTTP_BODY_CLOSE;
		h->keep_alive = false;
	}
	return true;
}

/* -- heads that arrive in pieces -- */

/* Everything but the field arrays, which need not be cleared. */
static void head_clear(struct http_head *h)
{
	h->method = h->target = h->path = h->reason = (struct span){NULL, 0};
	h->status = h->minor = h->refuse = 0;
	h->nfields = h->len = 0;
	h->field = h->few;
	h->body = HTTP_BODY_NONE;
	h->length = 0;
	h->keep_alive = h->expect_continue = false;
	h->why = h->rule = NULL;
	h->at = 0;
}

/*
 * Looks at bytes [*scanned, n) for the end of the head that starts at `from`. True when it is
 * there, or when the parser will find a fault in what is there (h->why then says so at once for a
 * bare line feed).
 */
static bool find_end(struct http_head *h, const char *buf, size_t from, size_t n, size_t *scanned)
{
	size_t i = *scanned > from ? *scanned : from;
	const char *lf;

	while (i < n && (lf = memchr(buf + i, '\n', n - i)) != NULL) {
		i = (size_t)(lf - buf);
		if (i == from || buf[i - 1] != '\r') {
			refuse(h, 400, lf, "RFC 9112 2.2", "a line ends with a bare line feed");
			return false;
		}
		if (i >= from + 3 && buf[i - 2] == '\n' && buf[i - 3] == '\r')
			return true;
		i++;
	}
	*scanned = n;
	return false;
}

static int too_big(struct http_head *h)
{
	if (h->method.n > 0 && h->target.n == 0)
		refuse(h, 414, h->start + HTTP_HEAD_MAX, "RFC 9110 15.5.15",
		       "the request target is too long");
	else
		refuse(h, 431, h->start + HTTP_HEAD_MAX, "RFC 6585 5",
		       "the message head is too large");
	return PD_ETOOBIG;
}

static int verdict(struct http_head *h, const char *p, const char *buf, size_t window,
		   size_t *scanned)
{
	if (p) {
		h->len = (size_t)(p - buf);
		*scanned = h->len;
		return PD_OK;
	}
	if (h->why)
		return h->refuse == 431 ? PD_ETOOBIG : PD_EPROTO;
	*scanned = window;
	return window == HTTP_HEAD_MAX ? too_big(h) : PD_EAGAIN;
}

int http_request_parse(struct http_head *h, const char *buf, size_t n, size_t *scanned)
{
	size_t window = n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX, lead = 0;
	const char *end = buf + window, *p;
	struct framing f = {0};

	head_clear(h);
	h->start = buf;
	for (unsigned i = 0; i < EMPTY_LINES_MAX && window - lead >= 2; i++)
		if (buf[lead] == '\r' && buf[lead + 1] == '\n')
			lead += 2;
	if (lead == window || (window - lead == 1 && buf[lead] == '\r'))
		return PD_EAGAIN;
	if (*scanned > lead && window < HTTP_HEAD_MAX && !find_end(h, buf, lead, window, scanned))
		return h->why ? PD_EPROTO : PD_EAGAIN;
	p = request_line(h, buf + lead, end);
	p = p ? fields(h, &f, p, end) : NULL;
	if (p && !frame_request(h, &f))
		p = NULL;
	return verdict(h, p, buf, window, scanned);
}

int http_response_parse(struct http_head *h, const char *buf, size_t n, size_t *scanned,
			bool head_request)
{
	size_t window = n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX;
	const char *end = buf + window, *p;
	struct framing f = {0};
	int err;

	head_clear(h);
	h->start = buf;
	if (n == 0)
		return PD_EAGAIN;
	if (*scanned > 0 && window < HTTP_HEAD_MAX && !find_end(h, buf, 0, window, scanned)) {
		err = h->why ? PD_EPROTO : PD_EAGAIN;
	} else {
		p = status_line(h, buf, end);
		p = p ? fields(h, &f, p, end) : NULL;
		if (p && !frame_response(h, &f, head_request))
			p = NULL;
		err = verdict(h, p, buf, window, scanned);
	}
	if (h->why)
		h->refuse = 502;
	return err;
}
