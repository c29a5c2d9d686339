/*
 * The access log: one line per request when it has ended, for people (text) or programs (JSON).
 *
 * The stages follow one another without gaps, so that they add up to the total: each ends where the
 * next begins, and a stage that did not happen is not there. A retry shows as the time from the
 * first pick to the last one; what follows is the last attempt. Nothing a client sent can break a
 * line: paths lose their query (keys stand there), other texts are quoted.
 */
#include "lib/router/watch/access.h"

#include <string.h>

#include "lib/base/clock.h"
#include "lib/route/hash.h"

#define LINE_USUAL	2048
#define PATH_SHOWN	1024
#define FORWARDED_SHOWN 256

struct line {
	struct buf *b;
	bool json;
	int err;
};

/* -- values -- */

/* Some fifty times per line: without a call as long as there is room. */
static inline void put(struct line *l, const char *p, size_t n)
{
	if (l->b->len + n < l->b->cap) {
		memcpy(l->b->data + l->b->len, p, n);
		l->b->len += n;
	} else if (!l->err) {
		l->err = buf_append(l->b, p, n);
	}
}

static void put_key(struct line *l, const char *key)
{
	if (l->json)
		put(l, ",\"", 2);
	else
		put(l, " ", 1);
	put(l, key, strlen(key));
	put(l, l->json ? "\":" : "=", l->json ? 2 : 1);
}

static bool is_bare(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] > '~' || s.p[i] == '"' || s.p[i] == '\\')
			return false;
	return s.n > 0;
}

/* In quotes; what is not printable ASCII as \xNN. */
static void put_quoted(struct line *l, struct span s)
{
	static const char hex[] = "0123456789abcdef";

	put(l, "\"", 1);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		char escape[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};

		if (c < ' ' || c > '~')
			put(l, escape, 4);
		else if (c == '"' || c == '\\')
			put(l, (char[]){'\\', (char)c}, 2);
		else
			put(l, s.p + i, 1);
	}
	put(l, "\"", 1);
}

static void put_value(struct line *l, struct span s)
{
	bool bare = is_bare(s);

	if (!l->json && !bare) {
		put_quoted(l, s);
	} else if (l->json && !bare) {
		if (!l->err)
			l->err = json_quote(l->b, s.p, s.n);
	} else {
		put(l, "\"", l->json ? 1 : 0);
		put(l, s.p, s.n);
		put(l, "\"", l->json ? 1 : 0);
	}
}

static void put_text(struct line *l, const char *key, struct span s)
{
	if (s.n == 0)
		return;
	put_key(l, key);
	put_value(l, s);
}

static void put_digits(struct line *l, uint64_t n, unsigned at_least)
{
	char text[24], *p = text + sizeof(text);

	do
		*--p = (char)('0' + n % 10);
	while ((n /= 10) > 0 || (size_t)(text + sizeof(text) - p) < at_least);
	put(l, p, (size_t)(text + sizeof(text) - p));
}

static void put_number(struct line *l, const char *key, uint64_t n)
{
	put_key(l, key);
	put_digits(l, n, 1);
}

static void put_hash(struct line *l, const char *key, uint64_t n)
{
	static const char hex[] = "0123456789abcdef";
	char text[16];

	for (int i = 15; i >= 0; i--, n >>= 4)
		text[i] = hex[n & 15];
	put_text(l, key, (struct span){text, sizeof(text)});
}

/* Milliseconds with three decimals, without printf, which would cost more than the rest. */
static void put_ms(struct line *l, const char *key, int64_t ns)
{
	uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;

	put_key(l, key);
	put_digits(l, us / 1000, 1);
	put(l, ".", 1);
	put_digits(l, us % 1000, 3);
}

/* -- parts of a line -- */

/* Date and time are formatted once per millisecond at most. */
static void put_time(struct line *l, struct record_scratch *scratch)
{
	int64_t now = clock_wall() / NS_PER_MS;

	if (now != scratch->stamp_ms) {
		clock_rfc3339(now * NS_PER_MS, scratch->stamp, sizeof(scratch->stamp));
		scratch->stamp_ms = now;
	}
	put(l, scratch->stamp, strlen(scratch->stamp));
}

static struct span shown_path(struct span path)
{
	return (struct span){path.p, path.n < PATH_SHOWN ? path.n : PATH_SHOWN};
}

/* When, who, what, with which result: four bare words in text, so that awk finds them. */
static void put_head(struct line *l, const struct record *x)
{
	const struct http_head *h = x->head;
	struct span path = h && h->path.n > 0 ? shown_path(h->path) : SPAN("-"),
		    method = h ? h->method : SPAN("-"),
		    client = x->peer.n > 0 ? x->peer : SPAN("-"); /* a UNIX socket */

	if (l->json) {
		put(l, "{\"ts\":\"", 7);
		put_time(l, x->scratch);
		put(l, "\"", 1);
		put_text(l, "client", client);
		put_text(l, "method", method);
		put_text(l, "path", path);
		put_number(l, "status", (uint64_t)x->status);
		return;
	}
	put_time(l, x->scratch);
	put(l, " ", 1);
	put(l, client.p, client.n);
	put(l, " ", 1);
	put_value(l, method);
	put(l, " ", 1);
	put_value(l, path);
	put(l, " ", 1);
	put_digits(l, (uint64_t)x->status, 1);
}

/* Who a proxy before us says the client is: a claim, so it does not stand where the peer stands. */
static void put_forwarded(struct line *l, const struct http_head *h)
{
	const struct field *f = http_field_tag(h, HTTP_X_FORWARDED_FOR);

	if (f)
		put_text(l, "forwarded_for",
			 (struct span){f->value.p, f->value.n < FORWARDED_SHOWN ? f->value.n
										: FORWARDED_SHOWN});
}

static void put_workers(struct line *l, const struct record *x)
{
	static const char *const names[ROLES][2] = {
		{"worker", "reason"}, {"prefill", "prefill_reason"}, {"decode", "decode_reason"}};

	for (int r = 0; r < ROLES; r++) {
		if (!x->pick[r].worker)
			continue;
		put_text(l, names[r][0], span_of(x->pick[r].worker->url));
		put_text(l, names[r][1], span_of(route_reason_name(x->pick[r].decision->reason)));
	}
	if (x->key->level == ROUTE_KEY_NONE)
		return;
	put_text(l, "key", span_of(x->key->source));
	put_hash(l, "key_hash", route_hash(ROUTE_HASH_XXH3, x->key->text, x->key->len));
}

/* Each stage from the end of the one before; those without an end did not happen. */
static void put_stages(struct line *l, const struct record *x)
{
	const struct record_times *t = &x->time;
	int64_t at = t->accepted, queued = at + t->queued;
	const struct {
		const char *name;
		int64_t end;
	} stages[] = {
		{"queue_ms", queued > at ? queued : 0},
		{"head_ms", t->head},
		{"body_ms", t->body},
		{"decide_ms", t->decided},
		{"retry_ms", t->picked > t->decided ? t->picked : 0},
		{"connect_ms", t->sent},
		{"prefill_ms", t->prefilled},
		{"handover_ms", t->decode_sent},
		{"first_byte_ms", t->answered},
		{t->answered ? "stream_ms" : "failed_ms", t->ended},
	};

	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
		if (stages[i].end < at)
			continue;
		put_ms(l, stages[i].name, stages[i].end - at);
		at = stages[i].end;
	}
	if (t->first)
		put_ms(l, "ttft_ms", t->first - t->accepted);
	put_ms(l, "total_ms", t->ended - t->accepted);
}

/* What the answer said of its tokens. */
static void put_tokens(struct line *l, const struct pd_tokens *t)
{
	const struct {
		const char *name;
		int64_t n;
	} said[] = {{"prompt_tokens", t->prompt},
		    {"cached_tokens", t->cached},
		    {"completion_tokens", t->completion}};

	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++)
		if (said[i].n >= 0)
			put_number(l, said[i].name, (uint64_t)said[i].n);
}

/* The rest of the line of a request that came to the workers. */
static void put_served(struct line *l, const struct record *x)
{
	put_number(l, "bytes_in", x->body.n);
	put_number(l, "bytes_out", x->bytes);
	if (x->events > 0)
		put_number(l, "events", x->events);
	put_forwarded(l, x->head);
	put_workers(l, x);
	put_number(l, "attempts", x->attempt + 1);
	put_text(l, "request_id", x->id);
	put_text(l, "trace_id", x->trace->id);
	put_tokens(l, &x->tokens);
	put_stages(l, x);
	put_text(l, "why", span_of(x->why));
}

static const char *outcome_of(const struct record *x)
{
	if (x->stage == RECORD_BAD)
		return "bad_request";
	if (x->client_left || (x->stage != RECORD_SERVED && x->error == ERROR_NONE))
		return "client_left";
	return metrics_error_name(x->error);
}

/* From the outcome to the end, however far the request came. */
static void put_rest(struct line *l, const struct record *x)
{
	put_text(l, "outcome", span_of(outcome_of(x)));
	if (x->stage == RECORD_SERVED) {
		put_served(l, x);
	} else {
		put_number(l, "attempts", 0);
		if (x->head)
			put_ms(l, "total_ms", x->time.ended - x->time.accepted);
	}
	put_text(l, "api_key_name", span_of(x->who ? x->who : ""));
	put_text(l, "told", span_of(x->told));
}

int access_members(const struct record *x, struct buf *out)
{
	const struct http_head *h = x->head;
	struct line l = {.b = out, .json = true};

	buf_clear(out);
	l.err = buf_reserve(out, LINE_USUAL);
	put_text(&l, "method", h ? h->method : SPAN("-"));
	put_text(&l, "path", h && h->path.n > 0 ? shown_path(h->path) : SPAN("-"));
	put_number(&l, "status", (uint64_t)x->status);
	put_rest(&l, x);
	put(&l, "", 1);
	return l.err;
}

void access_ended(const struct record *x)
{
	const struct router_config *c = x->to->cfg;
	struct line l = {.json = c->access_json};

	if (!c->access_log || !x->scratch)
		return;
	l.b = x->scratch->text;
	buf_clear(l.b);
	l.err = buf_reserve(l.b, LINE_USUAL);
	put_head(&l, x);
	put_rest(&l, x);
	put(&l, "}", l.json ? 1 : 0);
	put(&l, "\n", 1);
	/* Its parts have limits, so it fits unless there is no memory; half a line must not be. */
	if (l.err)
		log_lost(c->access_log);
	else
		log_put(c->access_log, l.b->data, l.b->len);
}
