/*
 * From a request to its records. Everything runs on the thread that serves the request, most of it
 * after the last byte of the answer: copies into the queue, no system call, no allocation, no lock.
 */
#include <string.h>
#include <xxhash.h>

#include "lib/pd/usage.h"
#include "lib/router/capture/capture_record.h"
#include "lib/router/way/exchange.h"

#define USAGE_MAX 2048	/* bytes of a usage object */
#define LOOK_BACK 65536 /* bytes at the end of a piece that are searched: usage comes last */
#define MODEL_MAX 256
#define ERROR_MAX 256

static const char *route_name(enum metrics_route r)
{
	static const char *const names[METRICS_ROUTES] = {
		[ROUTE_CHAT] = "/v1/chat/completions",
		[ROUTE_COMPLETIONS] = "/v1/completions",
		[ROUTE_EMBEDDINGS] = "/v1/embeddings",
		[ROUTE_RESPONSES] = "/v1/responses",
		[ROUTE_OTHER] = "other",
	};

	return names[r];
}

/* -- decisions -- */

void capture_decided(struct exchange *x, enum worker_role role)
{
	struct capture *c = x->rt->capture;
	const struct route_decision *d = &x->pick[role].decision;
	enum route_policy_kind policy = x->fleet->pool[role].policy.kind;
	struct capture_decision *r = capture_reserve(c, CAPTURE_DECISION, sizeof(*r));
	int64_t now = clock_now();

	x->capture_decisions++;
	if (x->decided_ns == 0)
		x->decided_ns = now;
	if (!r)
		return;
	*r = (struct capture_decision){
		.kind = CAPTURE_DECISION,
		.attempt = x->attempt,
		.request = x->capture_id,
		.at = now,
		.fleet = x->fleet->version,
		.role = (uint32_t)role,
		.reason = (uint32_t)d->reason,
		.worker = d->worker,
		.home = d->home,
		.ties = d->ties,
		.trial = d->trial,
		.score = d->score,
		.margin = d->margin,
		.has_draw = policy == ROUTE_RANDOM || policy == ROUTE_POWER_OF_TWO,
		.draw = x->lane->drawn,
	};
	r->ncandidates = d->ncandidates < CAPTURE_CANDIDATES ? d->ncandidates : CAPTURE_CANDIDATES;
	for (uint32_t i = 0; i < r->ncandidates; i++) {
		r->candidate[i].worker = d->candidate[i].worker;
		r->candidate[i].score = d->candidate[i].score;
	}
	capture_commit(c, r);
}

/* -- tokens of the answer -- */

/* From { to its }, or nothing. */
static struct span object_at(const char *p, const char *end)
{
	const char *at = p;
	int depth = 0;
	bool text = false;

	end = end - p > USAGE_MAX ? p + USAGE_MAX : end;
	for (; at < end; at++) {
		if (text) {
			if (*at == '\\')
				at++;
			else if (*at == '"')
				text = false;
		} else if (*at == '"') {
			text = true;
		} else if (*at == '{') {
			depth++;
		} else if (*at == '}' && --depth == 0) {
			return (struct span){p, (size_t)(at + 1 - p)};
		}
	}
	return (struct span){p, 0};
}

static void read_count(const struct json_object *o, const char *path, int64_t *out)
{
	enum json_type type;
	struct span value;
	int64_t n;

	if (json_object_path(o, path, &type, &value) && type == JSON_NUMBER &&
	    json_int(value, &n) == PD_OK && n >= 0)
		*out = n;
}

static void read_usage(struct capture_usage *u, struct span text)
{
	struct json_object o;

	if (json_object_scan(&o, text.p, text.n, NULL))
		return;
	read_count(&o, "prompt_tokens", &u->prompt);
	read_count(&o, "input_tokens", &u->prompt);
	read_count(&o, "completion_tokens", &u->completion);
	read_count(&o, "output_tokens", &u->completion);
	read_count(&o, "prompt_tokens_details.cached_tokens", &u->cached);
	read_count(&o, "input_tokens_details.cached_tokens", &u->cached);
	json_object_release(&o);
}

/* The last usage object of the piece: a stream may report its tokens with every event. */
static void find_usage(struct capture_usage *u, const char *p, size_t n)
{
	static const char name[] = "\"usage\"";
	const char *end = p + n, *at;

	while (p < end && (p = memmem(p, (size_t)(end - p), name, sizeof(name) - 1)) != NULL) {
		p += sizeof(name) - 1;
		for (at = p; at < end && memchr(" \t\r\n:", *at, 5); at++)
			;
		if (at < end && *at == '{')
			read_usage(u, object_at(at, end));
	}
}

void capture_answer(struct exchange *x, const struct iovec *iov, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t skip = iov[i].iov_len > LOOK_BACK ? iov[i].iov_len - LOOK_BACK : 0;
		const char *p = (const char *)iov[i].iov_base + skip;

		if (pd_usage_maybe(p, iov[i].iov_len - skip))
			find_usage(&x->usage, p, iov[i].iov_len - skip);
	}
}

/* -- the request -- */

/* What a request record is made of besides numbers. */
struct parts {
	struct span text[CAPTURE_TEXTS];
	struct span prompt; /* its JSON */
	uint32_t nblocks;
};

static struct span cut(struct span s, size_t max)
{
	return (struct span){s.p, s.n < max ? s.n : max};
}

static void find_prompt(const struct exchange *x, struct parts *p, struct capture_request *r)
{
	static const char *const names[] = {"messages", "prompt", "input"};
	static const char *const limits[] = {"max_completion_tokens", "max_tokens",
					     "max_output_tokens"};
	const struct json_member *m = json_object_get(&x->body, "model");

	if (m && m->type == JSON_STRING)
		p->text[TEXT_MODEL] = cut((struct span){m->value.p + 1, m->value.n - 2}, MODEL_MAX);
	for (size_t i = 0; i < 3 && !p->prompt.p; i++) {
		m = json_object_get(&x->body, names[i]);
		if (m && (m->type == JSON_STRING || m->type == JSON_ARRAY))
			p->prompt = m->value;
	}
	for (size_t i = 0; i < 3 && r->max_tokens < 0; i++) {
		m = json_object_get(&x->body, limits[i]);
		if (!m || m->type != JSON_NUMBER || json_int(m->value, &r->max_tokens))
			r->max_tokens = -1;
	}
	r->prompt_bytes = p->prompt.p ? (int64_t)p->prompt.n : -1;
}

static void find_parts(const struct exchange *x, struct parts *p, struct capture_request *r)
{
	const struct capture_config *cfg = &x->rt->capture->cfg;
	size_t block = (size_t)cfg->block_tokens * CAPTURE_CHARS_PER_TOKEN;

	if (x->is_json)
		find_prompt(x, p, r);
	p->text[TEXT_ID] = x->id;
	p->text[TEXT_METHOD] = cut(x->req->head.method, 32);
	if (x->key.level != ROUTE_KEY_NONE) {
		p->text[TEXT_KEY] = (struct span){x->key.text, x->key.len};
		p->text[TEXT_SOURCE] = span_of(x->key.source);
		/* The fallback of another router's order is the beginning of the body itself. */
		r->secret = span_starts(p->text[TEXT_SOURCE], SPAN("request"));
	}
	if (r->outcome != OUTCOME_OK || x->attempt > 0)
		p->text[TEXT_ERROR] = cut(span_of(x->failure.why), ERROR_MAX);
	if (cfg->prompts)
		p->text[TEXT_BODY] = cut(x->req->body, cfg->body_max);
	if (block > 0 && p->prompt.n >= block)
		p->nblocks = p->prompt.n / block < CAPTURE_BLOCKS_MAX
				     ? (uint32_t)(p->prompt.n / block)
				     : CAPTURE_BLOCKS_MAX;
}

/* Chained like the blocks of a prefix cache: equal hashes mean equal beginnings. */
static void hash_blocks(const struct capture *c, const char *text, uint64_t *out, uint32_t n)
{
	size_t block = (size_t)c->cfg.block_tokens * CAPTURE_CHARS_PER_TOKEN;
	uint64_t parent = c->block_seed;

	for (uint32_t i = 0; i < n; i++)
		out[i] = parent = XXH3_64bits_withSeed(text + i * block, block, parent);
}

static void push(struct capture *c, struct capture_request *r, const struct parts *p)
{
	size_t n = sizeof(*r) + p->nblocks * sizeof(uint64_t);
	struct capture_request *to;
	uint64_t *blocks;
	char *at;

	r->kind = CAPTURE_REQUEST;
	r->nblocks = p->nblocks;
	for (int i = 0; i < CAPTURE_TEXTS; i++) {
		r->len[i] = (uint32_t)p->text[i].n;
		n += p->text[i].n;
	}
	to = capture_reserve(c, CAPTURE_REQUEST, n);
	if (!to)
		return;
	*to = *r;
	blocks = (uint64_t *)(to + 1);
	hash_blocks(c, p->prompt.p, blocks, p->nblocks);
	at = (char *)(blocks + p->nblocks);
	for (int i = 0; i < CAPTURE_TEXTS; i++) {
		if (p->text[i].n > 0)
			memcpy(at, p->text[i].p, p->text[i].n);
		at += p->text[i].n;
	}
	capture_commit(c, to);
}

static enum capture_outcome outcome_of(const struct exchange *x, bool left)
{
	if (left)
		return OUTCOME_LEFT;
	if (x->fault == ERROR_STREAM_CUT)
		return OUTCOME_CUT;
	return x->status >= 200 && x->status < 400 ? OUTCOME_OK : OUTCOME_ERROR;
}

void capture_ended(const struct exchange *x, bool left)
{
	struct parts p = {0};
	struct capture_request r = {
		.outcome = outcome_of(x, left),
		.id = x->capture_id,
		.route = route_name(x->route),
		.accepted = x->req->accepted_ns,
		.head = x->req->head_ns,
		.body = x->req->body_ns,
		.decided = x->decided_ns,
		.dispatched = x->dispatched_ns,
		.prefill = x->prefilled_ns,
		.first = x->first_ns,
		.last = x->last_ns,
		.ended = clock_now(),
		.max_tokens = -1,
		.prompt_bytes = -1,
		.body_bytes = x->req->body.n,
		.events = x->events,
		.bytes = x->bytes,
		.usage = x->usage,
		.status = x->status,
		.attempts = x->capture_decisions ? x->attempt + 1 : 0,
		.decisions = x->capture_decisions,
		.level = (uint32_t)x->key.level,
		.streaming = x->streaming,
	};

	find_parts(x, &p, &r);
	push(x->rt->capture, &r, &p);
}

void capture_refused(struct capture *c, const struct http_request *req, enum metrics_route route,
		     int status)
{
	struct parts p = {0};
	struct capture_request r = {
		.outcome = status ? OUTCOME_REFUSED : OUTCOME_LEFT,
		.id = capture_begin(c),
		.route = route_name(route),
		.accepted = req->accepted_ns,
		.ended = clock_now(),
		.max_tokens = -1,
		.prompt_bytes = -1,
		.status = status,
		.usage = {-1, -1, -1},
	};

	p.text[TEXT_METHOD] = cut(req->head.method, 32);
	push(c, &r, &p);
}
