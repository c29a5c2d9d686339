/*
 * Any bytes as a request. First byte: bits 0 to 2 say which worker it goes to and how, the rest
 * is the size of the first piece; the message follows.
 *
 * Besides the properties in message.h: the head that the router makes of an accepted request for a
 * worker is one that we and llhttp accept, with the method and the path of the request and the
 * length that was asked for; what ends at this hop is gone; all other fields are there, in order
 * and byte for byte.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"
#include "tests/fuzz/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_request: %s\n", what);
		abort();
	}
}

struct passage {
	const struct worker *w;
	bool pd, body,
		credentials; /* the client's credentials end at the router, which has its own */
	const struct trace_context *trace;
};

/* What the router does not pass on as it is: written down here once more, on purpose. */
static bool stays(const struct field *f, const struct passage *y)
{
	static const char *const never[] = {"host",
					    "content-length",
					    "expect",
					    "x-request-id",
					    "x-data-parallel-rank",
					    "x-prefill-host-port",
					    "x-prefiller-host-port",
					    "x-encoder-hosts-ports",
					    "x-data-parallel-host-port",
					    "x-kv-cache-source-host-port",
					    "x-gateway-destination-endpoint"};

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (span_eq_case(f->name, span_of(never[i])))
			return false;
	if (http_hop_by_hop(f) || (y->pd && span_eq_case(f->name, SPAN("accept-encoding"))))
		return false;
	if (span_eq_case(f->name, SPAN("authorization")) ||
	    span_eq_case(f->name, SPAN("x-api-key")))
		return !y->credentials;
	if (span_eq_case(f->name, SPAN("traceparent")))
		return !y->trace->refused;
	if (span_eq_case(f->name, SPAN("tracestate")))
		return !y->trace->refused && y->trace->id.n > 0;
	return true;
}

/* `sent` is what goes out for `h`. */
static void check_fields(const struct http_head *h, const struct http_head *sent,
			 const struct passage *y)
{
	size_t at = 1;

	expect(sent->nfields > 0 && span_eq_case(sent->field[0].name, SPAN("host")) &&
		       span_eq(sent->field[0].value, span_of(y->w->at.authority)),
	       "Host is not the worker's");
	for (size_t i = 0; i < h->nfields; i++) {
		if (!stays(&h->field[i], y))
			continue;
		expect(at < sent->nfields && span_eq(sent->field[at].name, h->field[i].name) &&
			       span_eq(sent->field[at].value, h->field[i].value),
		       "a field is lost or changed");
		at++;
	}
	expect(at < sent->nfields && span_eq(sent->field[at].value, SPAN("id-1")), "no id");
	expect(sent->nfields == at + 1 + 2u * y->credentials + (y->w->at.rank >= 0) + y->body,
	       "a field too many");
}

static void check_sent(const struct http_head *h, const struct http_head *sent,
		       const struct passage *y)
{
	size_t base = strlen(y->w->at.base);
	struct span rest = {h->path.p, (size_t)(h->target.p + h->target.n - h->path.p)};

	expect(span_eq(h->method, sent->method), "another method");
	expect(sent->target.n == base + rest.n &&
		       memcmp(sent->target.p + base, rest.p, rest.n) == 0,
	       "another path");
	expect(y->body ? sent->body == HTTP_BODY_LENGTH && sent->length == 17
		       : sent->body == HTTP_BODY_NONE,
	       "another framing");
	expect(sent->keep_alive && sent->minor == 1 && !sent->expect_continue,
	       "another connection");
	check_fields(h, sent, y);
}

static void pass_on(struct http_request *req, unsigned choice)
{
	const struct http_head *h = &req->head;
	static const char *const urls[] = {"http://w1:8000", "http://[::1]:9/base@3"};
	static struct worker worker[2];
	static struct http_head sent;
	static struct router_config cfg;
	static struct way way;
	static struct buf text;
	struct exchange x = {.req = req, .way = &way};
	struct message_mode m = {.first = 7};
	struct passage y = {.w = &worker[choice & 1],
			    .pd = choice >> 1 & 1,
			    .credentials = choice >> 2 & 1,
			    .body = h->body != HTTP_BODY_NONE,
			    .trace = &x.trace};

	if (text.max == 0) {
		buf_init(&text, 2 * HTTP_HEAD_MAX);
		for (int i = 0; i < 2; i++)
			expect(net_url_parse(&worker[i].at, urls[i], NULL) == PD_OK, "a URL");
	}
	way.cfg = &cfg;
	way.drop_credentials = y.credentials;
	way.own_lines =
		y.credentials ? SPAN("Via: 1.1 r\r\nAuthorization: Bearer k\r\n") : SPAN("");
	(void)trace_read(&x.trace, h);
	expect(head_for_worker(&text, &x, y.w, y.body ? 17 : SIZE_MAX, y.pd, SPAN("id-1"), NULL,
			       0) == PD_OK,
	       "no head for the worker");
	/* a head at its limit may grow past ours, which is the worker's business; and so is an
	 * asterisk behind a base path */
	if (text.len > HTTP_HEAD_MAX || h->nfields + 6 > HTTP_FIELDS_MAX ||
	    (y.w->at.base[0] && h->path.p[0] == '*'))
		return;
	if (message_check(&sent, &m, text.data, text.len) != PD_OK) {
		fprintf(stderr, "%s\n", sent.why ? sent.why : "incomplete");
		expect(false, "the router sends a head that we refuse");
	}
	check_sent(h, &sent, &y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct http_request req;
	struct message_mode m = {.response = false};

	if (n < 2 || n > MESSAGE_MAX)
		return 0;
	m.first = (size_t)(data[0] >> 3) + 1;
	if (message_check(&req.head, &m, (const char *)data + 1, n - 1) == PD_OK)
		pass_on(&req, data[0] & 7);
	return 0;
}
