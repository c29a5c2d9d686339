#include "lib/route/policy/decider.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/memory/holdings.h"
#include "lib/route/prefix.h"

#define BLOCKS_PER_WORKER 31250 /* llm-d's lruCapacityPerServer */
#define BLOCKS_IN_ALL	  4194304

struct route_decider {
	struct route_decider_spec spec;
	struct holdings *held; /* NULL: it does not look at prompts */
};

static const char *const names[] = {
#define X(name, help) #name,
	ROUTE_DECIDERS(X)
#undef X
};

int route_decider_new(struct route_decider **out, const struct route_decider_spec *spec)
{
	struct route_decider *d = calloc(1, sizeof(*d));

	*out = NULL;
	if (!d)
		return PD_ENOMEM;
	d->spec = *spec;
	if ((spec->kind == ROUTE_DECIDER_prefix || spec->kind == ROUTE_DECIDER_cost) &&
	    holdings_new(&d->held, BLOCKS_PER_WORKER, BLOCKS_IN_ALL)) {
		free(d);
		return PD_ENOMEM;
	}
	*out = d;
	return PD_OK;
}

void route_decider_free(struct route_decider *d)
{
	if (d)
		holdings_free(d->held);
	free(d);
}

const struct route_decider_spec *route_decider_spec_of(const struct route_decider *d)
{
	return &d->spec;
}

const char *route_decider_name(enum route_decider_kind k)
{
	return k < ROUTE_DECIDER_KINDS ? names[k] : "unknown";
}

int route_decider_find(enum route_decider_kind *out, const char *name)
{
	for (int k = 0; k < ROUTE_DECIDER_KINDS; k++) {
		if (strcmp(names[k], name) != 0)
			continue;
		*out = (enum route_decider_kind)k;
		return PD_OK;
	}
	return PD_EINVAL;
}

bool route_decider_wants_blocks(const struct route_decider *d)
{
	return d->held != NULL;
}

static double mean_in_flight(const struct route_pool *p)
{
	uint64_t sum = 0, n = 0;

	for (size_t i = 0; i < p->n; i++) {
		const struct route_slot *s = p->worker[i].slot;

		if (!atomic_load_explicit(&s->available, memory_order_relaxed))
			continue;
		sum += route_load(s);
		n++;
	}
	return n ? (double)sum / (double)n : 0;
}

/* Leading blocks of the prompt that this worker got before. */
static uint32_t cached_blocks(struct route_decider *d, const struct route_worker *at,
			      const struct route_request *rq)
{
	struct route_worker alone = *at;
	uint16_t by_id[2] = {UINT16_MAX, UINT16_MAX};
	const struct route_pool one = {.n = 1, .worker = &alone, .by_id = by_id, .by_id_mask = 1};
	struct holdings_match match;

	if (!d->held)
		return 0;
	by_id[at->id & 1] = 0;
	holdings_match(d->held, &one, rq->block, rq->nblocks, &match);
	return match.device;
}

static uint64_t whole_pieces(const struct route_decider_spec *s, uint64_t cached)
{
	uint64_t piece = (uint64_t)s->piece_tokens, pieces;

	if (piece == 0)
		return cached;
	pieces = cached / piece;
	return (pieces > (uint64_t)s->unsure ? pieces - (uint64_t)s->unsure : 0) * piece;
}

bool route_decider_ask(void *decider, struct route_pair *p)
{
	struct route_decider *d = decider;
	const struct route_decider_spec *s = &d->spec;
	const struct route_request *rq = &p->request[ROUTE_DECODE];
	const struct route_worker *at =
		&p->pool[ROUTE_DECODE]->worker[p->decision[ROUTE_DECODE].worker];
	uint32_t size = rq->block_tokens ? rq->block_tokens : ROUTE_BLOCK_TOKENS;
	uint64_t tokens = rq->tokens ? rq->tokens : (uint64_t)rq->nblocks * size;
	uint64_t cached = whole_pieces(s, (uint64_t)cached_blocks(d, at, rq) * size);

	p->missing = (uint32_t)(tokens > cached ? tokens - cached : 0);
	if (d->held)
		holdings_add(d->held, at->id, TIER_DEVICE, rq->block, rq->nblocks);
	switch (s->kind) {
	case ROUTE_DECIDER_always:
		return true;
	case ROUTE_DECIDER_prefix:
		return s->non_cached_tokens > 0 && tokens >= (uint64_t)s->prompt_tokens &&
		       p->missing >= (uint64_t)s->non_cached_tokens;
	case ROUTE_DECIDER_cost:
		/* The pick has counted this request. */
		if (s->decode_busy > 0 && route_load(at->slot) > s->decode_busy + 1)
			return true;
		return p->missing > (uint64_t)s->max_local_prefill &&
		       !(s->prefill_busy > 0 &&
			 mean_in_flight(p->pool[ROUTE_PREFILL]) > s->prefill_busy);
	case ROUTE_DECIDER_never:
	case ROUTE_DECIDER_KINDS:
		break;
	}
	return false;
}
