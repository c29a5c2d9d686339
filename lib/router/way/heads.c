/* Written without formatting: this runs several times per request. */
#include "lib/router/fleet/veil.h"
#include "lib/router/way/heads.h"

#include <stdio.h>
#include <string.h>

#include "lib/route/score/pipeline.h"
#include "lib/router/way/exchange.h"

/* Fields of a request that do not go to a worker as they are: ours, hop-by-hop ones, framing, hosts
 * that only a gateway may name, credentials that were meant for us, and broken trace contexts. */
static bool drop_from_request(const struct exchange *x, const struct field *f, bool pd)
{
	switch (f->tag) {
	case HTTP_TRACEPARENT:
		return x->trace.refused || x->trace.joined;
	case HTTP_TRACESTATE:
		/* It says more about a trace that is not there. */
		return x->trace.refused || x->trace.id.n == 0 ||
		       (x->trace.text[0] && !x->trace.joined);
	case HTTP_HOST:
	case HTTP_CONTENT_LENGTH:
	case HTTP_EXPECT:
	case HTTP_X_REQUEST_ID:
	case HTTP_RANK:
	case HTTP_ROUTING:
		return true;
	case HTTP_ACCEPT_ENCODING:
		/* The usage of a P/D answer is merged, so it must come uncompressed. */
		return pd;
	case HTTP_AUTHORIZATION:
	case HTTP_X_API_KEY:
		return x->way->drop_credentials;
	case HTTP_X_FORWARDED_FOR:
		return x->way->cfg->forwarded != FORWARDED_PASS;
	case HTTP_FORWARDED:
		return x->way->cfg->forwarded >= FORWARDED_SET;
	default:
		return http_hop_by_hop(f);
	}
}

static int put_field(struct buf *b, const struct field *f)
{
	size_t n = f->name.n + f->value.n + 4;
	char *p;
	int err = buf_reserve(b, n);

	if (err)
		return err;
	p = b->data + b->len;
	memcpy(p, f->name.p, f->name.n);
	p += f->name.n;
	*p++ = ':';
	*p++ = ' ';
	memcpy(p, f->value.p, f->value.n);
	p += f->value.n;
	*p++ = '\r';
	*p++ = '\n';
	*p = '\0';
	b->len += n;
	return PD_OK;
}

static int put_span(struct buf *b, struct span s)
{
	return buf_append(b, s.p, s.n);
}

/* "Name: value\r\n" */
static int put_line(struct buf *b, struct span name, struct span value)
{
	struct field f = {.name = name, .value = value};

	return put_field(b, &f);
}

/* Decimal digits without printf, which would be a tenth of what a request costs in here. Returns
 * where the text begins. */
static struct span decimal(size_t n, char *end)
{
	char *p = end;

	do
		*--p = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	return (struct span){p, (size_t)(end - p)};
}

static int put_length(struct buf *b, size_t length)
{
	char text[24];

	return put_line(b, SPAN("Content-Length"), decimal(length, text + sizeof(text)));
}

static int put_request_line(struct buf *b, const struct exchange *x, const struct worker *w)
{
	const struct http_head *h = &x->req->head;
	const char *end = h->target.p + h->target.n;
	/* Absolute form loses its scheme and authority here: path and query are what the worker
	 * needs. */
	struct span target =
		h->path.n > 0 ? (struct span){h->path.p, (size_t)(end - h->path.p)} : h->target;
	struct span query = {end, 0};
	int err = put_span(b, h->method);

	/* A path that lost its last slashes (proxy_trim_path). */
	if (h->path.n > 0 && h->path.n < target.n && target.p[h->path.n] == '/') {
		target.n = h->path.n;
		query.p = target.p + target.n;
		while (query.p < end && *query.p == '/')
			query.p++;
		query.n = (size_t)(end - query.p);
	}

	err = err ? err : buf_putc(b, ' ');
	err = err ? err : buf_puts(b, w->at.base);
	err = err ? err : put_span(b, target);
	if (!err && query.n > 0)
		err = put_span(b, query);
	err = err ? err : buf_puts(b, " HTTP/1.1\r\n");
	return err ? err : put_line(b, SPAN("Host"), span_of(w->at.authority));
}

/* One line, also when the client sent several: some readers take only one of them. */
static int put_forwarded_for(struct buf *b, const struct exchange *x)
{
	const struct http_head *h = &x->req->head;
	bool append = x->way->cfg->forwarded == FORWARDED_APPEND;
	char peer[NET_ADDR_TEXT];
	int err;

	http_conn_peer(x->conn, peer);
	if (!peer[0] && !append)
		return PD_OK;
	err = buf_puts(b, "X-Forwarded-For: ");
	for (size_t i = 0; append && !err && i < h->nfields; i++) {
		if (h->field[i].tag != HTTP_X_FORWARDED_FOR || h->field[i].value.n == 0)
			continue;
		err = put_span(b, h->field[i].value);
		err = err ? err : buf_puts(b, ", ");
	}
	err = err ? err : buf_puts(b, peer[0] ? peer : "unknown");
	return err ? err : buf_puts(b, "\r\n");
}

static bool is_added(const struct field *f, const struct field *add, size_t nadd)
{
	for (size_t i = 0; i < nadd; i++)
		if (span_eq_case(f->name, add[i].name))
			return true;
	return false;
}

int head_for_worker(struct buf *b, const struct exchange *x, const struct worker *w, size_t length,
		    bool pd, struct span id, const struct field *add, size_t nadd)
{
	const struct http_head *h = &x->req->head;
	char rank[24];
	int err;

	buf_clear(b);
	err = put_request_line(b, x, w);
	for (size_t i = 0; !err && i < h->nfields; i++)
		if (!drop_from_request(x, &h->field[i], pd) && !is_added(&h->field[i], add, nadd))
			err = put_field(b, &h->field[i]);
	err = err ? err : put_line(b, SPAN("X-Request-Id"), id);
	for (size_t i = 0; !err && i < nadd; i++)
		err = put_field(b, &add[i]);
	err = err ? err : put_span(b, x->way->own_lines);
	if (!err &&
	    (x->way->cfg->forwarded == FORWARDED_APPEND || x->way->cfg->forwarded == FORWARDED_SET))
		err = put_forwarded_for(b, x);
	if (!err && x->trace.text[0])
		err = put_line(b, SPAN("traceparent"),
			       (struct span){x->trace.text, TRACEPARENT_LEN});
	if (!err && w->at.rank >= 0) {
		err = put_line(b, SPAN("X-data-parallel-rank"),
			       decimal((size_t)w->at.rank, rank + sizeof(rank)));
	}
	if (!err && length != SIZE_MAX)
		err = put_length(b, length);
	return err ? err : buf_puts(b, "\r\n");
}

int head_names(struct buf *b, const struct exchange *x)
{
	static const struct span names[ROLES] = {
		{"X-Worker", 8}, {"X-Prefill-Worker", 16}, {"X-Decode-Worker", 15}};
	int err = put_line(b, SPAN("X-Request-Id"), x->rec.id);

	for (int r = 0; !err && x->way->cfg->worker_headers && r < ROLES; r++)
		if (x->pick[r].worker)
			err = put_line(b, names[r], span_of(x->pick[r].worker->url));
	for (int r = 0; !err && r < ROLES; r++)
		if (x->pick[r].worker)
			err = score_pins(&x->fleet->pool[r].ring->state->spec, r != ROLE_PREFILL,
					 x->pick[r].worker->name, b);
	if (!err && x->rec.decider && x->way->cfg->worker_headers)
		err = put_line(b, SPAN("X-PD-Decision"),
			       x->rec.local ? SPAN("local") : SPAN("remote"));
	return err;
}

static int put_status_line(struct buf *b, const struct http_head *h)
{
	char code[24];
	int err = buf_puts(b, "HTTP/1.1 ");

	err = err ? err : put_span(b, decimal((size_t)h->status, code + sizeof(code)));
	err = err ? err : buf_putc(b, ' ');
	err = err	    ? err
	      : h->reason.n ? put_span(b, h->reason)
			    : buf_puts(b, http_reason(h->status));
	return err ? err : buf_puts(b, "\r\n");
}

/* What a worker says about origins: the router speaks for it. */
static bool is_cors(const struct field *f)
{
	return f->name.n > 15 &&
	       span_eq_case((struct span){f->name.p, 15}, SPAN("access-control-"));
}

/* Names that only we give: a client must be able to believe them. */
static bool is_ours(const struct field *f)
{
	return f->tag == HTTP_X_REQUEST_ID ||
	       (f->name.n == 8 && span_eq_case(f->name, SPAN("x-worker"))) ||
	       (f->name.n == 13 && span_eq_case(f->name, SPAN("x-pd-decision"))) ||
	       (f->name.n == 15 && span_eq_case(f->name, SPAN("x-decode-worker"))) ||
	       (f->name.n == 16 && span_eq_case(f->name, SPAN("x-prefill-worker")));
}

static bool is_location(const struct field *f)
{
	return (f->name.n == 8 && span_eq_case(f->name, SPAN("location"))) ||
	       (f->name.n == 16 && span_eq_case(f->name, SPAN("content-location")));
}

/*
 * The address that the client used is the one that its reference is resolved against (RFC 9110
 * 10.2.2, RFC 3986 5): so a worker's scheme and authority go, and the path prefix of its URL.
 * References to others stay.
 */
static int put_location(struct buf *b, const struct exchange *x, const struct field *f)
{
	struct span to = f->value, rest;
	const struct worker *w = veil_reference(x->fleet, to, &rest);
	size_t base;

	if (!w && to.n > 0 && to.p[0] == '/') {
		w = x->leg->worker;
		rest = to;
	}
	if (!w)
		return put_field(b, f);
	base = strlen(w->at.base);
	if (base > 0 && span_starts(rest, span_of(w->at.base)) &&
	    (rest.n == base || strchr("/?#", rest.p[base])))
		rest = (struct span){rest.p + base, rest.n - base};
	while (rest.n > 1 && rest.p[0] == '/' && rest.p[1] == '/')
		rest.p++, rest.n--; /* two would begin an authority */
	if (rest.n > 0 && rest.p[0] == '/')
		return put_line(b, f->name, rest);
	return buf_printf(b, "%.*s: /%.*s\r\n", (int)f->name.n, f->name.p, (int)rest.n, rest.p);
}

int head_for_client(struct buf *b, const struct exchange *x, const struct http_head *h)
{
	bool keep_length = h->body == HTTP_BODY_NONE && span_eq(x->req->head.method, SPAN("HEAD"));
	struct span extra = http_conn_extra(x->conn);
	int err;

	buf_clear(b);
	err = put_status_line(b, h);
	err = err ? err : put_span(b, extra);
	for (size_t i = 0; !err && i < h->nfields; i++) {
		const struct field *f = &h->field[i];

		if (http_hop_by_hop(f) || is_ours(f) ||
		    (f->tag == HTTP_CONTENT_LENGTH && !keep_length) || (extra.n > 0 && is_cors(f)))
			continue;
		err = is_location(f) ? put_location(b, x, f) : put_field(b, f);
	}
	return err ? err : head_names(b, x);
}

int head_frame(struct buf *b, const struct exchange *x, size_t length)
{
	int err = PD_OK;

	if (length == HEAD_CHUNKED && x->req->head.minor >= 1)
		err = buf_puts(b, "Transfer-Encoding: chunked\r\n");
	else if (length != HEAD_CHUNKED && length != HEAD_NO_BODY)
		err = put_length(b, length);
	if (!err &&
	    (http_conn_closing(x->conn) || (length == HEAD_CHUNKED && x->req->head.minor == 0)))
		err = buf_puts(b, "Connection: close\r\n");
	else if (!err && x->req->head.minor == 0)
		err = buf_puts(b, "Connection: keep-alive\r\n"); /* it would not expect it */
	return err ? err : buf_puts(b, "\r\n");
}

void answer_error(struct exchange *x, int status, const char *type, const char *text)
{
	struct buf extra;
	char said[VEIL_MAX];

	buf_init(&extra, 16384);
	x->rec.status = status;
	x->started = true;
	if (x->rec.error == ERROR_NONE)
		x->rec.error = status < 500 ? ERROR_INVALID : ERROR_BACKEND;
	if (x->failure.wait > 0 &&
	    buf_printf(&extra, "Retry-After: %lld\r\n",
		       (long long)((x->failure.wait + 999999999) / 1000000000)))
		buf_clear(&extra);
	if (x->failure.dropped &&
	    buf_printf(&extra, "x-llm-d-request-dropped-reason: %s\r\n", x->failure.dropped))
		buf_clear(&extra);
	if (head_names(&extra, x))
		buf_clear(&extra);
	(void)http_reply_error(x->conn, status, type, extra.data ? extra.data : "", "%s",
			       veil(x->fleet, x->way->cfg->expose_workers, text, said));
	buf_release(&extra);
}
