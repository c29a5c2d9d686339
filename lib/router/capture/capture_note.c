/*
 * From a request to its records. Everything runs on the thread that serves the request, most of it
 * after the last byte of the answer: copies into the queue, no system call, no allocation, no lock.
 */
#include "lib/router/capture/capture_note.h"

#include <string.h>

#include "lib/route/prefix.h"
#include "lib/router/capture/capture_record.h"

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

static void note_decision(const struct record *r, unsigned role)
{
	struct capture *c = r->to->capture;
	const struct route_decision *d = r->pick[role].decision;
	const struct record_pick *p = &r->pick[role];
	size_t n = r->fleet->pool[role].n, bits = (n + 63) / 64 * 3 * sizeof(uint64_t);
	bool overlapped = p->tick != p->began + 1, has = p->seen.n == bits + n * sizeof(uint32_t);
	size_t seen = !has ? 0 : overlapped ? p->seen.n : bits;
	struct capture_decision *to = capture_reserve(c, CAPTURE_DECISION, sizeof(*to) + seen);

	if (!to)
		return;
	*to = (struct capture_decision){
		.kind = CAPTURE_DECISION,
		.attempt = r->attempt,
		.request = r->number,
		.at = r->time.picked,
		.fleet = r->fleet->version,
		.role = role,
		.reason = (uint32_t)d->reason,
		.worker = d->worker,
		.home = d->home,
		.ties = d->ties,
		.trial = d->trial,
		.score = d->score,
		.margin = d->margin,
		.has_draw = r->fleet->pool[role].ring->state->spec.type->flags & ROUTE_DRAWS,
		.draw = d->draw,
		.began = p->began,
		.tick = p->tick,
		.turn = p->turn,
		.turns = p->turns,
		.nworkers = has ? (uint32_t)n : 0,
		.overlapped = overlapped,
	};
	if (seen > 0)
		memcpy(to + 1, p->seen.p, seen);
	to->ncandidates = d->ncandidates < CAPTURE_CANDIDATES ? d->ncandidates : CAPTURE_CANDIDATES;
	for (uint32_t i = 0; i < to->ncandidates; i++) {
		to->candidate[i].worker = d->candidate[i].worker;
		to->candidate[i].score = d->candidate[i].score;
	}
	capture_commit(c, to);
}

void capture_decided(const struct record *r)
{
	/* Decode was picked first (lib/router/way/pdflow.c). */
	for (int role = ROLES - 1; r->number && role >= 0; role--)
		if (r->pick[role].worker)
			note_decision(r, (enum worker_role)role);
}

void capture_released(const struct record *r, unsigned role, uint32_t worker, bool computed,
		      int64_t at, uint64_t began)
{
	struct capture *c = r->to->capture;
	uint64_t tick = capture_tick(c, 1);
	struct capture_release *to = capture_reserve(c, CAPTURE_RELEASE, sizeof(*to));

	if (!to)
		return;
	*to = (struct capture_release){.kind = CAPTURE_RELEASE,
				       .role = role,
				       .worker = worker,
				       .computed = computed,
				       .request = r->number,
				       .fleet = r->fleet->version,
				       .at = at,
				       .began = began,
				       .tick = tick};
	capture_commit(c, to);
}

/* -- the request -- */

/* What a request record is made of besides numbers. */
struct parts {
	struct span text[CAPTURE_TEXTS];
	struct span prompt; /* its JSON */
	uint32_t nblocks;
	const uint64_t *seen;
};

static struct span cut(struct span s, size_t max)
{
	return (struct span){s.p, s.n < max ? s.n : max};
}

static void find_prompt(const struct record *x, struct parts *p, struct capture_request *r)
{
	static const char *const limits[] = {"max_completion_tokens", "max_tokens",
					     "max_output_tokens"};
	const struct json_member *m = json_object_get(x->json, "model");

	if (m && m->type == JSON_STRING)
		p->text[TEXT_MODEL] = cut((struct span){m->value.p + 1, m->value.n - 2}, MODEL_MAX);
	p->prompt = route_prompt(x->json);
	for (size_t i = 0; i < 3 && r->max_tokens < 0; i++) {
		m = json_object_get(x->json, limits[i]);
		if (!m || m->type != JSON_NUMBER || json_int(m->value, &r->max_tokens))
			r->max_tokens = -1;
	}
	r->prompt_bytes = p->prompt.p ? (int64_t)p->prompt.n : -1;
}

static void find_parts(const struct record *x, struct parts *p, struct capture_request *r)
{
	const struct capture_config *cfg = &x->to->capture->cfg;
	size_t block = (size_t)cfg->block_tokens * CAPTURE_CHARS_PER_TOKEN;

	if (x->head)
		p->text[TEXT_METHOD] = cut(x->head->method, 32);
	if (x->stage != RECORD_SERVED)
		return;
	if (x->json)
		find_prompt(x, p, r);
	p->text[TEXT_ID] = x->id;
	if (x->key && x->key->level != ROUTE_KEY_NONE) {
		p->text[TEXT_KEY] = (struct span){x->key->text, x->key->len};
		p->text[TEXT_SOURCE] = span_of(x->key->source);
		/* The fallback of another router's order is the beginning of the body itself. */
		r->secret = span_starts(p->text[TEXT_SOURCE], SPAN("request"));
	}
	if (r->outcome != OUTCOME_OK || x->attempt > 0)
		p->text[TEXT_ERROR] = cut(span_of(x->why), ERROR_MAX);
	if (cfg->prompts)
		p->text[TEXT_BODY] = cut(x->body, cfg->body_max);
	r->tokens = x->tokens_seen;
	r->output = x->output_seen;
	/* What policies saw of the prompt is not seeded, no more than session keys are. */
	if (cfg->keys == CAPTURE_KEYS_PLAIN) {
		r->nseen = (uint32_t)x->nblocks;
		p->seen = x->block;
	}
	if (block > 0 && p->prompt.n >= block)
		p->nblocks = p->prompt.n / block < CAPTURE_BLOCKS_MAX
				     ? (uint32_t)(p->prompt.n / block)
				     : CAPTURE_BLOCKS_MAX;
}

static void push(struct capture *c, struct capture_request *r, const struct parts *p)
{
	size_t n = sizeof(*r) + (p->nblocks + (size_t)r->nseen) * sizeof(uint64_t);
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
	(void)route_blocks(c->block_seed, p->prompt.p, p->prompt.n,
			   (size_t)c->cfg.block_tokens * CAPTURE_CHARS_PER_TOKEN, blocks,
			   p->nblocks);
	if (r->nseen > 0)
		memcpy(blocks + p->nblocks, p->seen, r->nseen * sizeof(*blocks));
	at = (char *)(blocks + p->nblocks + r->nseen);
	for (int i = 0; i < CAPTURE_TEXTS; i++) {
		if (p->text[i].n > 0)
			memcpy(at, p->text[i].p, p->text[i].n);
		at += p->text[i].n;
	}
	capture_commit(c, to);
}

static enum capture_outcome outcome_of(const struct record *x)
{
	if (x->stage != RECORD_SERVED)
		return x->status ? OUTCOME_REFUSED : OUTCOME_LEFT;
	if (x->client_left)
		return OUTCOME_LEFT;
	if (x->error == ERROR_STREAM_CUT)
		return OUTCOME_CUT;
	return x->status >= 200 && x->status < 400 ? OUTCOME_OK : OUTCOME_ERROR;
}

static void note_request(const struct record *x)
{
	const struct record_times *t = &x->time;
	struct parts p = {0};
	struct capture_request r = {
		.outcome = outcome_of(x),
		.id = x->number,
		.route = route_name(x->route),
		.accepted = t->accepted,
		.head = t->head,
		.body = t->body,
		.decided = t->decided,
		.dispatched = t->dispatched,
		.prefill = t->prefilled,
		.first = t->first,
		.last = t->last,
		.ended = t->ended,
		.max_tokens = -1,
		.prompt_bytes = -1,
		.body_bytes = x->body.n,
		.events = x->events,
		.bytes = x->bytes,
		.usage = x->tokens,
		.status = x->status,
		.attempts = x->decisions ? x->attempt + 1 : 0,
		.decisions = x->decisions,
		.streaming = x->streaming,
	};

	if (x->key)
		r.level = (uint32_t)x->key->level;
	find_parts(x, &p, &r);
	push(x->to->capture, &r, &p);
}

void capture_ended(const struct record *x)
{
	if (x->number)
		note_request(x);
}
