/* Message heads: what must be accepted, what must be refused and with which status, and both again
 * with the bytes in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/http/head.h"

#define END "\r\n\r\n"

struct request_case {
	const char *text;
	const char *path;
	enum http_body body;
	uint64_t length;
	bool keep_alive;
};

/* As sent by curl 7.88, aiohttp 3.8, the openai libraries for Python (httpx) and Node, node's
 * fetch, wrk, ab and a browser. */
static const struct request_case good_requests[] = {
	{"GET / HTTP/1.1\r\nHost: a" END, "/", HTTP_BODY_NONE, 0, true},
	{"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:30000\r\nUser-Agent: "
	 "curl/7.88.1\r\nAccept: */*\r\n"
	 "Content-Type: application/json\r\nContent-Length: 1400" END,
	 "/v1/chat/completions", HTTP_BODY_LENGTH, 1400, true},
	{"POST /v1/completions HTTP/1.1\r\nHost: localhost:30000\r\nAccept: "
	 "*/*\r\nAccept-Encoding: gzip, deflate\r\n"
	 "User-Agent: Python/3.11 aiohttp/3.8.4\r\nContent-Length: 2\r\nContent-Type: "
	 "application/json" END,
	 "/v1/completions", HTTP_BODY_LENGTH, 2, true},
	{"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, "
	 "deflate\r\nConnection: keep-alive\r\n"
	 "Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python "
	 "1.55.0\r\n"
	 "X-Stainless-Lang: python\r\nX-Stainless-Async: false\r\nAuthorization: Bearer "
	 "sk-x\r\nx-stainless-retry-count: 0\r\n"
	 "Content-Length: 94" END,
	 "/v1/chat/completions", HTTP_BODY_LENGTH, 94, true},
	{"POST /v1/responses HTTP/1.1\r\nhost: [::1]:30000\r\nconnection: "
	 "keep-alive\r\nContent-Type: application/json\r\n"
	 "accept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: "
	 "node\r\naccept-encoding: gzip, deflate\r\n"
	 "transfer-encoding: chunked" END,
	 "/v1/responses", HTTP_BODY_CHUNKED, 0, true},
	{"GET /health?x=/y HTTP/1.1\r\nHost: 127.0.0.1:20001" END, "/health", HTTP_BODY_NONE, 0,
	 true},
	{"GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: h\r\nUser-Agent: "
	 "ApacheBench/2.3\r\nAccept: */*" END,
	 "/health", HTTP_BODY_NONE, 0, true},
	{"GET /health HTTP/1.0" END, "/health", HTTP_BODY_NONE, 0, false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close" END, "/", HTTP_BODY_NONE, 0, false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close" END, "/", HTTP_BODY_NONE, 0,
	 false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: h2c" END, "/",
	 HTTP_BODY_NONE, 0, true},
	{"OPTIONS * HTTP/1.1\r\nHost: a" END, "*", HTTP_BODY_NONE, 0, true},
	{"GET /a HTTP/1.1\r\nHost: [2001:db8::ffff:1.2.3.4]:65535" END, "/a", HTTP_BODY_NONE, 0,
	 true},
	{"GET /a HTTP/1.1\r\nHost: a%2fb_c:" END, "/a", HTTP_BODY_NONE, 0, true},
	{"GET /a HTTP/1.1\r\nHost: a\r\nmy_field: x\r\nx_y: z" END, "/a", HTTP_BODY_NONE, 0, true},
	{"GET http://a:80/p?q HTTP/1.1\r\nHost: a:80" END, "/p", HTTP_BODY_NONE, 0, true},
	{"GET HTTP://a/ HTTP/1.1\r\nHost: A" END, "/", HTTP_BODY_NONE, 0, true},
	{"\r\nGET /x HTTP/1.1\r\nHost: a" END, "/x", HTTP_BODY_NONE, 0, true},
	{"\r\n\r\nGET /x HTTP/1.1\r\nHost: a" END, "/x", HTTP_BODY_NONE, 0, true},
	{"DELETE /workers/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0" END, "/workers/1",
	 HTTP_BODY_LENGTH, 0, true},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED \t" END, "/", HTTP_BODY_CHUNKED,
	 0, true},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t007\t" END, "/", HTTP_BODY_LENGTH, 7,
	 true},
	{"PURGE / HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nX-Text: caf\xc3\xa9 \t\"quoted\", more" END,
	 "/", HTTP_BODY_NONE, 0, true},
};

struct bad_case {
	const char *text;
	int refuse;
};

#define BAD_POST(lines) "POST / HTTP/1.1\r\nHost: a\r\n" lines END

static const struct bad_case bad_requests[] = {
	/* request smuggling */
	{BAD_POST("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400},
	{BAD_POST("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400},
	{BAD_POST("Content-Length: 5\r\nContent-Length: 6"), 400},
	{BAD_POST("Content-Length: 5\r\nContent-Length: 5"), 400},
	{BAD_POST("Content-Length : 5"), 400},
	{"GET / HTTP/1.1\nHost: a\n\n", 400},
	{"GET / HTTP/1.1\r\nHost: a\nX: y" END, 400},
	{"GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
	{BAD_POST("X: a\r\n folded"), 400},
	{"GET / HTTP/1.1\r\n Host: a" END, 400},
	{BAD_POST("Transfer-Encoding: xchunked"), 400},
	{BAD_POST("Transfer-Encoding: chunked, chunked"), 400},
	{BAD_POST("Transfer-Encoding: gzip, chunked"), 400},
	{BAD_POST("Transfer-Encoding: chunked, identity"), 400},
	{BAD_POST("Transfer-Encoding: chunked;q=1"), 400},
	{BAD_POST("Transfer-Encoding:"), 400},
	{BAD_POST("Transfer-Encoding: \"chunked\""), 400},
	{BAD_POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400},
	{BAD_POST("Transfer-Encoding\t: chunked"), 400},
	{BAD_POST("Transfer-Encoding: \x0b"
		  "chunked"),
	 400},
	{"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked" END, 400},
	{BAD_POST("Content-Length: +5"), 400},
	{BAD_POST("Content-Length: -5"), 400},
	{BAD_POST("Content-Length: 5, 5"), 400},
	{BAD_POST("Content-Length: 5 5"), 400},
	{BAD_POST("Content-Length: 0x5"), 400},
	{BAD_POST("Content-Length: 5.0"), 400},
	{BAD_POST("Content-Length:"), 400},
	{BAD_POST("Content-Length: 9223372036854775808"), 400},
	{BAD_POST("Content-Length: 18446744073709551621"), 400},
	{BAD_POST("X: a\rb"), 400},
	{BAD_POST("X: a\x01"
		  "b"),
	 400},
	{BAD_POST("X: a\x7f"), 400},
	{BAD_POST("X"), 400},
	{BAD_POST(": x"), 400},
	{BAD_POST("X(y): z"), 400},
	{BAD_POST("X\xc3\xa9: z"), 400},
	/* Host */
	{"GET / HTTP/1.1" END, 400},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: a" END, 400},
	{"GET / HTTP/1.0\r\nHost: a\r\nHost: b" END, 400},
	{"GET / HTTP/1.1\r\nHost:" END, 400},
	{"GET / HTTP/1.1\r\nHost: a, b" END, 400},
	{"GET / HTTP/1.1\r\nHost: a b" END, 400},
	{"GET / HTTP/1.1\r\nHost: user@a" END, 400},
	{"GET / HTTP/1.1\r\nHost: a/b" END, 400},
	{"GET / HTTP/1.1\r\nHost: a:80x" END, 400},
	{"GET / HTTP/1.1\r\nHost: :80" END, 400},
	{"GET / HTTP/1.1\r\nHost: [::1" END, 400},
	{"GET / HTTP/1.1\r\nHost: []" END, 400},
	{"GET / HTTP/1.1\r\nHost: [evil]" END, 400},
	{"GET / HTTP/1.1\r\nHost: [a:b]" END, 400},
	{"GET / HTTP/1.1\r\nHost: [1:2:3:4:5:6:7:8:9]" END, 400},
	{"GET / HTTP/1.1\r\nHost: a:65536" END, 400},
	{"GET / HTTP/1.1\r\nHost: a:0000080" END, 400},
	{"GET / HTTP/1.1\r\nHost: a%" END, 400},
	{"GET / HTTP/1.1\r\nHost: a%2" END, 400},
	{"GET / HTTP/1.1\r\nHost: a%2g" END, 400},
	/* fields that two readers take differently */
	{BAD_POST("Authorization: a\r\nauthorization: a"), 400},
	{BAD_POST("Content-Type: a\r\nContent-Type: a"), 400},
	{BAD_POST("Content_Length: 5"), 400},
	{BAD_POST("transfer_encoding: chunked"), 400},
	{BAD_POST("x-request_id: a"), 400},
	/* the first line */
	{"GET / HTTP/1.9\r\nHost: a" END, 505},
	{"GET / HTTP/2.0\r\nHost: a" END, 505},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	{"GET / HTTP/0.9\r\nHost: a" END, 505},
	{"GET / HTTP/1.10\r\nHost: a" END, 400},
	{"GET / HTTP/11\r\nHost: a" END, 400},
	{"GET / http/1.1\r\nHost: a" END, 400},
	{"GET / XTTP/1.1\r\nHost: a" END, 400},
	{"GET /" END, 400},
	{"GET / HTTP/1.1 \r\nHost: a" END, 400},
	{"GET  / HTTP/1.1\r\nHost: a" END, 400},
	{"GET /  HTTP/1.1\r\nHost: a" END, 400},
	{"GET\t/ HTTP/1.1\r\nHost: a" END, 400},
	{" GET / HTTP/1.1\r\nHost: a" END, 400},
	{"G(T / HTTP/1.1\r\nHost: a" END, 400},
	{"GET /a#b HTTP/1.1\r\nHost: a" END, 400},
	{"GET /\xc3\xa9 HTTP/1.1\r\nHost: a" END, 400},
	{"GET a HTTP/1.1\r\nHost: a" END, 400},
	{"GET * HTTP/1.1\r\nHost: a" END, 400},
	{"GET a:80 HTTP/1.1\r\nHost: a:80" END, 400},
	{"GET http:///p HTTP/1.1\r\nHost: a" END, 400},
	{"GET http://b/p HTTP/1.1\r\nHost: a" END, 400},
	{"GET http://a@b/p HTTP/1.0" END, 400},
	{"GET http://a:x/p HTTP/1.0" END, 400},
	{"GET http://a HTTP/1.1\r\nHost: a" END, 400},
	{"GET http://a?q HTTP/1.1\r\nHost: a" END, 400},
	{"GET ftp://a/p HTTP/1.1\r\nHost: a" END, 400},
	{"CONNECT a:80 HTTP/1.1\r\nHost: a:80" END, 501},
	{"TRACE / HTTP/1.1\r\nHost: a" END, 501},
	{"\n\nGET / HTTP/1.1\r\nHost: a" END, 400},
	{"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a" END, 400},
	{"\rGET / HTTP/1.1\r\nHost: a" END, 400},
	{"\x16\x03\x01\x02\x00\x01" END, 400},
	{BAD_POST("Expect: 200-ok\r\nContent-Length: 1"), 417},
	{BAD_POST("Expect: 100-continue\r\nExpect: x\r\nContent-Length: 1"), 417},
};

static int parse_whole(struct http_head *h, const char *text, size_t n)
{
	size_t scanned = 0;

	return http_request_parse(h, text, n, &scanned);
}

/* Feeds ever longer prefixes, `step` bytes more each time, as a reader does; returns the first
 * verdict. */
static int parse_steps(struct http_head *h, const char *text, size_t n, size_t first, size_t step,
		       size_t *scanned)
{
	int err = PD_EAGAIN;

	*scanned = 0;
	for (size_t have = first; err == PD_EAGAIN; have = have + step > n ? n : have + step) {
		err = http_request_parse(h, text, have, scanned);
		if (have == n)
			break;
	}
	return err;
}

static void check_request(const struct http_head *h, const struct request_case *c)
{
	assert_int_equal(h->len, strlen(c->text));
	assert_true(span_eq(h->path, span_of(c->path)));
	assert_true(h->path.p >= h->target.p && h->path.p + h->path.n <= h->target.p + h->target.n);
	assert_int_equal(h->body, c->body);
	assert_int_equal(h->length, c->length);
	assert_int_equal(h->keep_alive, c->keep_alive);
}

static void valid_requests_are_accepted(void **state)
{
	struct http_head h = {0};
	size_t scanned;

	(void)state;
	for (size_t i = 0; i < sizeof(good_requests) / sizeof(good_requests[0]); i++) {
		const struct request_case *c = &good_requests[i];
		size_t n = strlen(c->text);

		if (parse_whole(&h, c->text, n) != PD_OK)
			fail_msg("request %zu refused: %s", i, h.why ? h.why : "incomplete");
		check_request(&h, c);
		for (size_t cut = 1; cut < n; cut++) {
			assert_int_equal(parse_whole(&h, c->text, cut), PD_EAGAIN);
			assert_int_equal(parse_steps(&h, c->text, n, cut, n - cut, &scanned),
					 PD_OK);
			check_request(&h, c);
		}
		assert_int_equal(parse_steps(&h, c->text, n, 1, 1, &scanned), PD_OK);
		check_request(&h, c);
	}
	http_head_release(&h);
}

static void invalid_requests_are_refused(void **state)
{
	struct http_head h = {0};
	size_t scanned;

	(void)state;
	for (size_t i = 0; i < sizeof(bad_requests) / sizeof(bad_requests[0]); i++) {
		const struct bad_case *c = &bad_requests[i];
		size_t n = strlen(c->text);

		if (parse_whole(&h, c->text, n) != PD_EPROTO || h.refuse != c->refuse)
			fail_msg("request %zu: refuse %d, not %d", i, h.refuse, c->refuse);
		assert_non_null(h.why);
		for (size_t cut = 1; cut < n; cut++) {
			if (parse_steps(&h, c->text, n, cut, n - cut, &scanned) != PD_EPROTO)
				fail_msg("request %zu accepted when cut at %zu", i, cut);
		}
		assert_int_equal(parse_steps(&h, c->text, n, 1, 1, &scanned), PD_EPROTO);
	}
	http_head_release(&h);
}

static void a_nul_byte_is_refused_everywhere(void **state)
{
	static const char text[] =
		"POST /path HTTP/1.1\r\nHost: a\r\nX-Name: value\r\nContent-Length: 3" END;
	char copy[sizeof(text)];
	struct http_head h = {0};

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		memcpy(copy, text, sizeof(text));
		copy[i] = '\0';
		assert_int_equal(parse_whole(&h, copy, sizeof(text) - 1), PD_EPROTO);
	}
	http_head_release(&h);
}

static void names_get_their_tags(void **state)
{
	static const char text[] = "POST / HTTP/1.1\r\nhOST: a\r\nConnection: X-Hop, close, "
				   "content-length, host, authorization\r\n"
				   "Keep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authenticate: "
				   "x\r\nProxy-Authorization: x\r\n"
				   "TE: trailers\r\nTrailer: x\r\nUpgrade: x\r\nContent-Length: "
				   "3\r\nContent-Type: a/b\r\n"
				   "Content-Encoding: x\r\nExpect: 100-Continue\r\nRetry-After: "
				   "1\r\nX-Request-ID: r\r\n"
				   "Authorization: Bearer x\r\nDate: x\r\nServer: x\r\nAccept: "
				   "x\r\nx-hop: 1\r\nX-Other: 2" END;
	static const unsigned tags[] = {HTTP_HOST,
					HTTP_CONNECTION,
					HTTP_KEEP_ALIVE,
					HTTP_PROXY_CONNECTION,
					HTTP_PROXY_AUTHENTICATE,
					HTTP_PROXY_AUTHORIZATION,
					HTTP_TE,
					HTTP_TRAILER,
					HTTP_UPGRADE,
					HTTP_CONTENT_LENGTH,
					HTTP_CONTENT_TYPE,
					HTTP_CONTENT_ENCODING,
					HTTP_EXPECT,
					HTTP_RETRY_AFTER,
					HTTP_X_REQUEST_ID,
					HTTP_AUTHORIZATION, /* meant for every reader */
					HTTP_DATE,
					HTTP_SERVER,
					HTTP_ACCEPT,
					HTTP_NAMED_BY_CONNECTION,
					HTTP_OTHER};
	static const bool hop[] = {0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0};
	struct http_head h = {0};

	(void)state;
	assert_int_equal(parse_whole(&h, text, sizeof(text) - 1), PD_OK);
	assert_int_equal(h.nfields, sizeof(tags) / sizeof(tags[0]));
	for (size_t i = 0; i < h.nfields; i++) {
		assert_int_equal(h.field[i].tag, tags[i]);
		assert_int_equal(http_hop_by_hop(&h.field[i]), hop[i]);
	}
	assert_true(h.expect_continue);
	assert_int_equal(h.length, 3);
	assert_false(h.keep_alive);
	assert_true(span_eq(http_field_tag(&h, HTTP_X_REQUEST_ID)->value, SPAN("r")));
	assert_true(span_eq(http_field(&h, "X-OTHER")->value, SPAN("2")));
	assert_null(http_field(&h, "X-Othe"));
	assert_null(http_field_tag(&h, HTTP_TRANSFER_ENCODING));
	http_head_release(&h);
}

static void connection_cannot_remove_framing(void **state)
{
	static const char text[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
				   "Connection: transfer-encoding, host, connection" END;
	struct http_head h = {0};

	(void)state;
	assert_int_equal(parse_whole(&h, text, sizeof(text) - 1), PD_OK);
	assert_int_equal(h.body, HTTP_BODY_CHUNKED);
	assert_non_null(http_field_tag(&h, HTTP_HOST));
	assert_non_null(http_field_tag(&h, HTTP_TRANSFER_ENCODING));
	assert_non_null(http_field_tag(&h, HTTP_CONNECTION));
	http_head_release(&h);
}

static void expect_continue_needs_a_body(void **state)
{
	static const char *const none[] = {
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue" END,
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0" END,
		"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4" END,
		"POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 4" END,
	};
	struct http_head h = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		assert_int_equal(parse_whole(&h, none[i], strlen(none[i])), PD_OK);
		assert_false(h.expect_continue);
	}
	http_head_release(&h);
}

/* "GET /" + fill + " HTTP/1.1\r\nHost: a\r\n" + count fields + filler field of `pad` bytes + the
 * end. */
static void build(struct buf *b, size_t path, size_t count, size_t pad)
{
	buf_clear(b);
	assert_int_equal(buf_puts(b, "GET /"), PD_OK);
	for (size_t i = 0; i < path; i++)
		assert_int_equal(buf_putc(b, 'p'), PD_OK);
	assert_int_equal(buf_puts(b, " HTTP/1.1\r\nHost: a\r\n"), PD_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(buf_printf(b, "X-%zu: y\r\n", i), PD_OK);
	if (pad > 0)
		assert_int_equal(buf_puts(b, "P: "), PD_OK);
	for (size_t i = 0; i < pad; i++)
		assert_int_equal(buf_putc(b, 'v'), PD_OK);
	assert_int_equal(buf_puts(b, pad > 0 ? END : "\r\n"), PD_OK);
}

static void limits_hold_exactly(void **state)
{
	const size_t fixed = strlen("GET / HTTP/1.1\r\nHost: a\r\nP: " END);
	struct http_head h = {0};
	struct buf b;
	size_t scanned;

	(void)state;
	buf_init(&b, 1 << 20);
	build(&b, 0, HTTP_FIELDS_MAX - 1, 0);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_OK);
	build(&b, 0, HTTP_FIELDS_MAX, 0);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_ETOOBIG);
	assert_int_equal(h.refuse, 431);
	build(&b, 0, 0, HTTP_HEAD_MAX - fixed);
	assert_int_equal(b.len, HTTP_HEAD_MAX);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_OK);
	assert_int_equal(parse_steps(&h, b.data, b.len, 1000, 1000, &scanned), PD_OK);
	build(&b, 0, 0, HTTP_HEAD_MAX - fixed + 1);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_ETOOBIG);
	assert_int_equal(h.refuse, 431);
	/* refused as soon as the limit is reached, the end need not be there */
	assert_int_equal(parse_steps(&h, b.data, HTTP_HEAD_MAX - 1, 1000, 1000, &scanned),
			 PD_EAGAIN);
	assert_int_equal(http_request_parse(&h, b.data, HTTP_HEAD_MAX, &scanned), PD_ETOOBIG);
	build(&b, HTTP_HEAD_MAX, 0, 0);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_ETOOBIG);
	assert_int_equal(h.refuse, 414);
	buf_release(&b);
	http_head_release(&h);
}

static void too_many_names_in_connection(void **state)
{
	struct http_head h = {0};
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	assert_int_equal(buf_puts(&b, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close"), PD_OK);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_puts(&b, ",x"), PD_OK);
	assert_int_equal(buf_puts(&b, END), PD_OK);
	assert_int_equal(parse_whole(&h, b.data, b.len), PD_EPROTO);
	assert_int_equal(h.refuse, 400);
	buf_release(&b);
	http_head_release(&h);
}

static void bytes_after_the_head_are_left_alone(void **state)
{
	static const char text[] =
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4" END "\0\n\n\x01";
	struct http_head h = {0};
	size_t scanned = 0;

	(void)state;
	assert_int_equal(http_request_parse(&h, text, sizeof(text) - 1, &scanned), PD_OK);
	assert_int_equal(h.len, sizeof(text) - 1 - 4);
	assert_int_equal(scanned, h.len);
	http_head_release(&h);
}

struct response_case {
	const char *text;
	bool head;
	int status;
	enum http_body body;
	uint64_t length;
	bool keep_alive;
};

static const struct response_case good_responses[] = {
	{"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 06:00:00 GMT\r\nserver: "
	 "uvicorn\r\ncontent-length: 512\r\n"
	 "content-type: application/json" END,
	 false, 200, HTTP_BODY_LENGTH, 512, true},
	{"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: "
	 "chunked" END,
	 false, 200, HTTP_BODY_CHUNKED, 0, true},
	{"HTTP/1.1 200 OK\r\nContent-Length: 5" END, true, 200, HTTP_BODY_NONE, 0, true},
	{"HTTP/1.1 200 OK" END, false, 200, HTTP_BODY_CLOSE, 0, false},
	{"HTTP/1.0 200 OK\r\nContent-Length: 1" END, false, 200, HTTP_BODY_LENGTH, 1, false},
	{"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive" END, false, 200,
	 HTTP_BODY_LENGTH, 1, true},
	{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close" END, false, 200,
	 HTTP_BODY_LENGTH, 1, false},
	{"HTTP/1.1 100 Continue" END, false, 100, HTTP_BODY_NONE, 0, true},
	{"HTTP/1.1 204 No Content" END, false, 204, HTTP_BODY_NONE, 0, true},
	{"HTTP/1.1 204 No Content\r\nContent-Length: 0" END, false, 204, HTTP_BODY_NONE, 0, true},
	{"HTTP/1.1 304 Not Modified\r\nContent-Length: 9" END, false, 304, HTTP_BODY_NONE, 0, true},
	{"HTTP/1.1 503 \r\nRetry-After: 1\r\nContent-Length: 0" END, false, 503, HTTP_BODY_LENGTH,
	 0, true},
	{"HTTP/1.1 429\r\nContent-Length: 0" END, false, 429, HTTP_BODY_LENGTH, 0, true},
	{"HTTP/1.1 200 Tr\xc3\xa8s bien\r\nContent-Length: 0\r\nExpect: x" END, false, 200,
	 HTTP_BODY_LENGTH, 0, true},
};

static const char *const bad_responses[] = {
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked" END,
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6" END,
	"HTTP/1.1 200 OK\r\nContent-Length: 5, 5" END,
	"HTTP/1.1 200 OK\r\nContent-Length: -1" END,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip" END,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked" END,
	"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked" END,
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked" END,
	"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
	"HTTP/1.1 200 OK\r\nX: a\r\n b" END,
	"HTTP/1.1 200 OK\r\nX : a" END,
	"HTTP/1.1 200 O\x01K" END,
	"HTTP/1.1 20 OK" END,
	"HTTP/1.1 2000 OK" END,
	"HTTP/1.1  200 OK" END,
	"HTTP/1.1 099 OK" END,
	"HTTP/1.1 600 OK" END,
	"HTTP/1.1 2a0 OK" END,
	"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked" END,
	"HTTP/1.1 204 No Content\r\nContent-Length: 5" END,
	"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked" END,
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade" END,
	"HTTP/2.0 200 OK" END,
	"HTTP/1.2 200 OK" END,
	"ICY 200 OK" END,
	"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0" END,
	"{\"error\":\"no head\"}" END,
};

static void valid_responses_are_accepted(void **state)
{
	struct http_head h = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(good_responses) / sizeof(good_responses[0]); i++) {
		const struct response_case *c = &good_responses[i];
		size_t n = strlen(c->text);

		for (size_t cut = 1; cut <= n; cut++) {
			size_t scanned = 0;
			int err = http_response_parse(&h, c->text, cut, &scanned, c->head);

			assert_int_equal(err, cut == n ? PD_OK : PD_EAGAIN);
			if (err)
				err = http_response_parse(&h, c->text, n, &scanned, c->head);
			if (err)
				fail_msg("response %zu refused: %s", i,
					 h.why ? h.why : "incomplete");
			assert_int_equal(h.len, n);
			assert_int_equal(h.status, c->status);
			assert_int_equal(h.body, c->body);
			assert_int_equal(h.length, c->length);
			assert_int_equal(h.keep_alive, c->keep_alive);
			assert_false(h.expect_continue);
		}
	}
	http_head_release(&h);
}

static void invalid_responses_are_refused(void **state)
{
	struct http_head h = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad_responses) / sizeof(bad_responses[0]); i++) {
		size_t n = strlen(bad_responses[i]);

		for (size_t cut = 1; cut <= n; cut++) {
			size_t scanned = 0;
			int err = http_response_parse(&h, bad_responses[i], cut, &scanned, false);

			if (err == PD_EAGAIN)
				err = http_response_parse(&h, bad_responses[i], n, &scanned, false);
			if (err != PD_EPROTO)
				fail_msg("response %zu accepted when cut at %zu", i, cut);
			assert_int_equal(h.refuse, 502);
			assert_non_null(h.why);
		}
	}
	http_head_release(&h);
}

static void reasons_have_names(void **state)
{
	static const int sent[] = {100, 200, 400, 401, 404, 408, 413, 414, 417,
				   429, 431, 499, 500, 501, 502, 503, 504, 505};

	(void)state;
	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++)
		assert_string_not_equal(http_reason(sent[i]), "Unknown");
	assert_string_equal(http_reason(200), "OK");
	assert_string_equal(http_reason(529), "Site Overloaded");
	assert_string_equal(http_reason(299), "Unknown");
	assert_string_equal(http_reason(-1), "Unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_requests_are_accepted),
		cmocka_unit_test(invalid_requests_are_refused),
		cmocka_unit_test(a_nul_byte_is_refused_everywhere),
		cmocka_unit_test(names_get_their_tags),
		cmocka_unit_test(connection_cannot_remove_framing),
		cmocka_unit_test(expect_continue_needs_a_body),
		cmocka_unit_test(limits_hold_exactly),
		cmocka_unit_test(too_many_names_in_connection),
		cmocka_unit_test(bytes_after_the_head_are_left_alone),
		cmocka_unit_test(valid_responses_are_accepted),
		cmocka_unit_test(invalid_responses_are_refused),
		cmocka_unit_test(reasons_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
