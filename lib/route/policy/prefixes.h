/*
 * What the policies share that match whole prompts against what workers hold: the memory, and the
 * tokens that are missing at each worker.
 */
#ifndef PD_ROUTE_PREFIXES_H
#define PD_ROUTE_PREFIXES_H

#include "lib/route/memory/holdings.h"
#include "lib/route/policy.h"
#include "lib/route/prefix.h"

#define PREFIXES_PARAM(STRUCT, MEMBER)                                                             \
	{                                                                                          \
		.type = ROUTE_PARAM_INT, .name = "prefix-blocks", .arg = "N",                      \
		.help = "most blocks of prompts that are remembered of all workers, 40 bytes "     \
			"each",                                                                    \
		.offset = offsetof(STRUCT, MEMBER), .min = 1024, .max = HOLDINGS_MAX,              \
		.fallback = 4194304                                                                \
	}

static inline uint32_t prefixes_block_tokens(const struct route_request *rq)
{
	return rq->block_tokens ? rq->block_tokens : ROUTE_BLOCK_TOKENS;
}

static inline uint64_t prefixes_tokens(const struct route_request *rq)
{
	return rq->tokens ? rq->tokens : (uint64_t)rq->nblocks * prefixes_block_tokens(rq);
}

/* Blocks of the prompt that a worker holds, as tokens; at most all of them. */
static inline uint64_t prefixes_cached(const struct route_request *rq, uint32_t blocks)
{
	uint64_t cached = (uint64_t)blocks * prefixes_block_tokens(rq), all = prefixes_tokens(rq);

	return cached < all ? cached : all;
}

#endif
