/*
 * Whether to disaggregate at all: for each request, after the decode worker was picked, prefill it
 * remotely, or let the decode worker compute the prompt itself. A pair of pools has one decider; it
 * remembers which prompts a decode worker got (approximately, in blocks), so that it knows how much
 * of a prompt that worker would have to compute. Pure but for that memory, thread-safe.
 */
#ifndef PD_ROUTE_DECIDER_H
#define PD_ROUTE_DECIDER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/route/decide.h"

/* X(name, what it does): the kinds, also labels of a metric and the words of --pd-decider. */
#define ROUTE_DECIDERS(X)                                                                          \
	X(always, "every request is prefilled remotely")                                           \
	X(never, "no request is: decode workers do all of it")                                     \
	X(prefix, "llm-d's prefix-based-pd-decider: by the tokens that the decode worker misses")  \
	X(cost, "Dynamo's conditional disaggregation: the same, with limits for busy pools")

enum route_decider_kind {
#define X(name, help) ROUTE_DECIDER_##name,
	ROUTE_DECIDERS(X)
#undef X
		ROUTE_DECIDER_KINDS
};

/* A plain value. */
struct route_decider_spec {
	enum route_decider_kind kind;
	/* prefix: remote if the prompt has at least prompt_tokens, and at least non_cached_tokens
	 * of it are not cached on the decode worker; non_cached_tokens 0: never remote. llm-d's
	 * parameters promptTokens and nonCachedTokens. */
	int64_t non_cached_tokens, prompt_tokens;
	/* What counts as cached are whole pieces of so many tokens (0: blocks of the request), of
	 * which the last `unsure` do not count: llm-d's block size, and its pd-profile-handler. */
	int64_t piece_tokens, unsure;
	/* cost: remote if more than max_local_prefill tokens are not cached; local all the same
	 * while the prefill workers have more than prefill_busy requests in flight each (0: no
	 * limit); remote all the same while the decode worker has more than decode_busy (0: no
	 * limit), which goes first. */
	int64_t max_local_prefill;
	double prefill_busy, decode_busy;
};

#define ROUTE_DECIDER_DEFAULTS                                                                     \
	((struct route_decider_spec){                                                              \
		.non_cached_tokens = 512, .max_local_prefill = 1000, .prefill_busy = 2})

struct route_decider;

/* PD_ENOMEM. */
int route_decider_new(struct route_decider **out, const struct route_decider_spec *spec) PD_MUST;
void route_decider_free(struct route_decider *d);
const struct route_decider_spec *route_decider_spec_of(const struct route_decider *d);

const char *route_decider_name(enum route_decider_kind k);
/* PD_EINVAL: no such kind. */
int route_decider_find(enum route_decider_kind *out, const char *name) PD_MUST;
/* Does it look at the prompt's blocks and tokens? */
bool route_decider_wants_blocks(const struct route_decider *d);

/*
 * route_pair.ask with the decider as its context: the decode worker is picked, is the prompt to be
 * computed remotely? Fills p->missing, and remembers that the worker gets this prompt.
 */
bool route_decider_ask(void *decider, struct route_pair *p);

#endif
