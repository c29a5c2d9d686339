/*
 * All that a decision may know of a request. Time and dice are arguments, so that serve and
 * simulate decide alike. Everything is borrowed for the call.
 */
#ifndef PD_ROUTE_REQUEST_H
#define PD_ROUTE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/span.h"
#include "lib/route/key.h"

struct route_worker;

/*
 * What a policy of filters and scorers made of each worker, for who asks: one entry for each worker
 * of the pool, which the caller provides and the policy fills. Texts live as long as the policy.
 */
struct route_explain {
	bool filled;
	struct route_verdict {
		bool candidate;	    /* could take the request */
		const char *filter; /* what took it out then; NULL: it was scored */
		double score;
	} * worker;
};

struct route_request {
	const struct route_key *key; /* level NONE or NULL: no key */
	/* Chained hashes of the prompt's full blocks (prefix.h); made only for policies that say
	 * ROUTE_WANTS_BLOCKS. */
	const uint64_t *block;
	size_t nblocks;
	uint32_t block_tokens;	/* of a block; 0: ROUTE_BLOCK_TOKENS */
	uint32_t tokens;	/* of the prompt; 0: not known */
	uint32_t output_tokens; /* at most, as the client said; 0: not known */
	uint32_t counted;	/* when it ends: route_decision.tokens of its pick */
	struct span model, body;
	const struct field *header;
	size_t nheaders;
	const struct route_worker *partner; /* picked in the other pool already; NULL: none */
	const bool *tried;		    /* per worker: do not pick again; NULL: none */
	/* Per worker: cannot take this request, whatever its state; it is no candidate and no home.
	 * NULL: all can. */
	const bool *barred;
	int64_t now_ns;		       /* 0: not known */
	uint64_t draw;		       /* route_dice() of this decision */
	struct route_explain *explain; /* NULL: nobody asks */
	void *walk;  /* memory for a ranking, ROUTE_WALK_MAX bytes; NULL: the stack */
	bool shadow; /* the pick is not followed: nothing is counted and no permit taken, and the
			policy learns from it all the same */
	bool brief;  /* the worker is enough: nobody reads candidates and margin (ROUTE_BRIEF) */
	bool dry;    /* which worker would it be: nothing is counted or learnt, no turn is taken;
			with `walk` the ranking stays there for route_commit() */
};

#endif
