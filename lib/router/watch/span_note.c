/* Times that were not reached are 0, and a part with such an end is left out. */
#include "lib/router/watch/span_note.h"

#include <stdio.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/route/hash.h"

enum { KIND_INTERNAL = 1, KIND_SERVER, KIND_CLIENT };

struct part {
	const char *name;
	int kind;
	int64_t from, to;
	enum worker_role role; /* ROLES: it concerns no worker */
};

/* -- from the record -- */

/* Without NUL and what follows; cut between characters of UTF-8. */
static void copy(char *to, size_t cap, struct span s)
{
	size_t n = s.n < cap ? s.n : cap - 1;

	while (n > 0 && n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	if (n > 0)
		memcpy(to, s.p, n);
	to[n] = '\0';
}

void span_note_fill(struct span_note *n, const struct record *r, int64_t now_mono, int64_t now_wall)
{
	*n = (struct span_note){.wall = now_wall - now_mono,
				.time = r->time,
				.route = r->route,
				.error = r->error,
				.status = r->status,
				.streaming = r->streaming,
				.client_left = r->client_left,
				.attempts = r->decisions ? r->attempt + 1 : 0,
				.events = r->events,
				.tokens = r->tokens};
	copy(n->trace, sizeof(n->trace), r->trace->id);
	copy(n->parent, sizeof(n->parent), span_of(r->trace->parent));
	copy(n->span, sizeof(n->span), span_of(r->trace->span));
	if (r->head) {
		copy(n->method, sizeof(n->method), r->head->method);
		copy(n->path, sizeof(n->path), r->head->path);
	}
	copy(n->model, sizeof(n->model), r->model);
	copy(n->id, sizeof(n->id), r->id);
	copy(n->why, sizeof(n->why), span_of(r->why));
	if (r->key && r->key->level != ROUTE_KEY_NONE) {
		n->keyed = true;
		n->key_hash = route_hash(ROUTE_HASH_XXH3, r->key->text, r->key->len);
	}
	for (int i = 0; i < ROLES; i++) {
		if (!r->pick[i].worker)
			continue;
		copy(n->pick[i].worker, SPAN_TEXT, span_of(r->pick[i].worker->url));
		n->pick[i].policy = route_pool_policy(r->fleet->pool[i].ring);
		n->pick[i].reason = route_reason_name(r->pick[i].decision->reason);
	}
}

/* -- the parts -- */

static enum worker_role answering(const struct span_note *n)
{
	return n->pick[ROLE_DECODE].worker[0]	 ? ROLE_DECODE
	       : n->pick[ROLE_REGULAR].worker[0] ? ROLE_REGULAR
						 : ROLE_PREFILL;
}

/* The end of the exchange that answered. */
static int64_t answer_end(const struct record_times *t)
{
	return t->last ? t->last : t->ended;
}

static unsigned parts_of(const struct span_note *n, struct part out[SPAN_PARTS])
{
	const struct record_times *t = &n->time;
	enum worker_role role = answering(n);
	const struct part all[] = {
		{"queue", KIND_INTERNAL, t->queued ? t->head : 0, t->head + t->queued, ROLES},
		{"pick", KIND_INTERNAL, t->picked ? t->body : 0, t->picked, ROLES},
		{"prefill", KIND_CLIENT, t->prefilled ? t->sent : 0, t->prefilled, ROLE_PREFILL},
		{"hand-over", KIND_INTERNAL, t->decode_sent ? t->prefilled : 0, t->decode_sent,
		 ROLES},
		{role == ROLE_DECODE ? "decode" : "worker", KIND_CLIENT,
		 t->decode_sent ? t->decode_sent
		 : t->prefilled ? 0
				: t->sent,
		 answer_end(t), role},
	};
	unsigned count = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].from > 0 && all[i].to >= all[i].from)
			out[count++] = all[i];
	return count;
}

unsigned span_note_count(const struct span_note *n)
{
	struct part part[SPAN_PARTS];

	return 1 + parts_of(n, part);
}

/* -- as JSON -- */

struct list {
	struct buf *b;
	bool more;
	int err;
};

static void key(struct list *l, const char *name, const char *type)
{
	if (!l->err)
		l->err =
			buf_printf(l->b, "%s{\"key\":\"%s\",\"value\":{\"%s\":", l->more ? "," : "",
				   name, type);
	l->more = true;
}

/* Nothing for an empty text. */
static void put_text(struct list *l, const char *name, const char *text)
{
	if (!text || !text[0])
		return;
	key(l, name, "stringValue");
	l->err = l->err ? l->err : json_quote(l->b, text, strlen(text));
	l->err = l->err ? l->err : buf_puts(l->b, "}}");
}

/* Nothing below 0. A 64-bit number is a string in OTLP's JSON. */
static void put_int(struct list *l, const char *name, int64_t v)
{
	if (v < 0)
		return;
	key(l, name, "intValue");
	l->err = l->err ? l->err : buf_printf(l->b, "\"%lld\"}}", (long long)v);
}

static void put_seconds(struct list *l, const char *name, int64_t from, int64_t to)
{
	if (from <= 0 || to < from)
		return;
	key(l, name, "doubleValue");
	l->err = l->err ? l->err : buf_printf(l->b, "%.9f}}", (double)(to - from) / 1e9);
}

static void put_bool(struct list *l, const char *name, bool v)
{
	key(l, name, "boolValue");
	l->err = l->err ? l->err : buf_printf(l->b, "%s}}", v ? "true" : "false");
}

static const char *operation(enum metrics_route r)
{
	static const char *const names[METRICS_ROUTES] = {[ROUTE_CHAT] = "chat",
							  [ROUTE_COMPLETIONS] = "text_completion",
							  [ROUTE_EMBEDDINGS] = "embeddings",
							  [ROUTE_RESPONSES] = "chat"};

	return names[r];
}

/* Up to the list of attributes. */
static int open_span(const struct span_note *n, const char *id, const char *parent, int kind,
		     int64_t from, int64_t to, struct buf *b)
{
	const long long start = from + n->wall, end = to + n->wall;
	int err = buf_printf(b, "{\"traceId\":\"%s\",\"spanId\":\"%s\"", n->trace, id);

	if (!err && parent[0])
		err = buf_printf(b, ",\"parentSpanId\":\"%s\"", parent);
	return err ? err
		   : buf_printf(b,
				",\"kind\":%d,\"startTimeUnixNano\":\"%lld\","
				"\"endTimeUnixNano\":\"%lld\",\"attributes\":[",
				kind, start, end);
}

static int put_name(const char *operation_name, const char *more, struct buf *b)
{
	char name[SPAN_TEXT + 40];
	int err;

	(void)snprintf(name, sizeof(name), "%s%s%s", operation_name, more[0] ? " " : "", more);
	err = buf_puts(b, ",\"name\":");
	return err ? err : json_quote(b, name, strlen(name));
}

static const char *error_type(const struct span_note *n)
{
	return n->error != ERROR_NONE ? metrics_error_name(n->error)
	       : n->client_left	      ? "client_left"
				      : "";
}

static void put_picks(struct list *l, const struct span_note *n)
{
	static const char *const names[ROLES][3] = {
		{"pdctl.worker", "pdctl.policy", "pdctl.reason"},
		{"pdctl.prefill.worker", "pdctl.prefill.policy", "pdctl.prefill.reason"},
		{"pdctl.decode.worker", "pdctl.decode.policy", "pdctl.decode.reason"}};

	for (int i = 0; i < ROLES; i++) {
		if (!n->pick[i].worker[0])
			continue;
		put_text(l, names[i][0], n->pick[i].worker);
		put_text(l, names[i][1], n->pick[i].policy);
		put_text(l, names[i][2], n->pick[i].reason);
	}
}

static int put_request(const struct span_note *n, struct buf *b)
{
	const struct record_times *t = &n->time;
	const char *op = operation(n->route), *failed = error_type(n);
	struct list l = {.b = b};
	char hash[20];
	int err = open_span(n, n->span, n->parent, KIND_SERVER, t->accepted,
			    t->ended > t->accepted ? t->ended : t->accepted, b);

	l.err = err;
	put_text(&l, "http.request.method", n->method);
	put_text(&l, "url.path", n->path);
	put_int(&l, "http.response.status_code", n->status > 0 ? n->status : -1);
	put_text(&l, "error.type", failed);
	if (op) {
		put_text(&l, "gen_ai.operation.name", op);
		put_text(&l, "gen_ai.provider.name", "vllm");
		put_text(&l, "gen_ai.request.model", n->model);
		put_int(&l, "gen_ai.usage.input_tokens", n->tokens.prompt);
		put_int(&l, "gen_ai.usage.output_tokens", n->tokens.completion);
		put_int(&l, "gen_ai.usage.cache_read.input_tokens", n->tokens.cached);
		put_bool(&l, "gen_ai.request.stream", n->streaming);
		if (n->streaming)
			put_seconds(&l, "gen_ai.response.time_to_first_chunk", t->accepted,
				    t->first);
	}
	put_picks(&l, n);
	put_int(&l, "pdctl.attempts", n->attempts);
	put_text(&l, "pdctl.request_id", n->id);
	(void)snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)n->key_hash);
	put_text(&l, "pdctl.session.key_hash", n->keyed ? hash : "");
	put_text(&l, "pdctl.last_failure", n->why);
	err = l.err ? l.err : buf_putc(b, ']');
	err = err ? err : put_name(op ? op : n->method, op ? n->model : "", b);
	if (!err && failed[0])
		err = buf_puts(b, ",\"status\":{\"code\":2}");
	return err ? err : buf_putc(b, '}');
}

/* Ids of children follow from the request's: they differ, and need no dice. */
static void child_id(const struct span_note *n, unsigned i, char out[17])
{
	char text[24];
	int len = snprintf(text, sizeof(text), "%s.%u", n->span, i);

	(void)snprintf(out, 17, "%016llx",
		       (unsigned long long)route_hash(ROUTE_HASH_XXH3, text, (size_t)len) | 1);
}

static int put_part(const struct span_note *n, const struct part *p, unsigned i, struct buf *b)
{
	struct list l = {.b = b};
	char id[17];
	int err;

	child_id(n, i, id);
	err = open_span(n, id, n->span, p->kind, p->from, p->to, b);
	l.err = err;
	if (p->role < ROLES)
		put_text(&l, "server.address", n->pick[p->role].worker);
	else if (strcmp(p->name, "pick") == 0)
		put_picks(&l, n);
	err = l.err ? l.err : buf_putc(b, ']');
	err = err ? err : put_name(p->name, "", b);
	return err ? err : buf_putc(b, '}');
}

int span_note_put(const struct span_note *n, struct buf *out)
{
	struct part part[SPAN_PARTS];
	unsigned count = parts_of(n, part);
	int err = put_request(n, out);

	for (unsigned i = 0; !err && i < count; i++) {
		err = buf_putc(out, ',');
		err = err ? err : put_part(n, &part[i], i, out);
	}
	return err;
}
