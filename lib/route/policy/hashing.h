/* What the policies by hash share. */
#ifndef PD_ROUTE_HASHING_H
#define PD_ROUTE_HASHING_H

#include <string.h>

#include "lib/route/hash.h"
#include "lib/route/policy.h"
#include "lib/route/policy/ring.h"

#define ROUTE_HASH_SPAN 18446744073709551616.0 /* 2^64 */

/* The hash function, by the order of enum route_hash. */
#define ROUTE_RING_HASH_PARAM(STRUCT, MEMBER)                                                      \
	{                                                                                          \
		.type = ROUTE_PARAM_CHOICE, .name = "ring-hash", .arg = "xxh3|fbi",                \
		.help = "xxh3, or fbi: places sessions as vllm-router does",                       \
		.offset = offsetof(STRUCT, MEMBER), .choices = "xxh3|fbi"                          \
	}

#define ROUTE_VNODES_PARAM(STRUCT, MEMBER)                                                         \
	{                                                                                          \
		.type = ROUTE_PARAM_INT, .name = "virtual-nodes", .alias = "vnodes", .arg = "N",   \
		.help = "points per worker on the ring", .offset = offsetof(STRUCT, MEMBER),       \
		.min = 1, .max = ROUTE_VNODES_MAX, .fallback = ROUTE_VNODES                        \
	}

/* The bound of bounded loads: no worker gets more than this times its share. */
#define ROUTE_LOAD_FACTOR_PARAM(STRUCT, MEMBER)                                                    \
	{                                                                                          \
		.type = ROUTE_PARAM_REAL, .name = "load-factor", .arg = "F",                       \
		.help = "most requests in flight on a worker, as a multiple of its share",         \
		.offset = offsetof(STRUCT, MEMBER), .min = 1, .max = 100, .fallback = 1.25         \
	}

struct ring_params {
	int64_t hash, vnodes;
};

/* table_new and table_free of a policy whose parameters begin with struct ring_params. */
int route_ring_table(const struct route_pool *pool, const void *params, void **table,
		     struct pd_msg *msg) PD_MUST;
void route_ring_table_free(void *table);

/* What bounded loads need to know of the moment: consistent hashing with bounded loads, Mirrokni,
 * Thorup, Zadimoghaddam 2017. */
struct route_bound {
	double per_weight; /* requests in flight per unit of weight, with this one */
};

/* Of the workers that can take a request. */
void route_bound_of(struct route_bound *b, const struct route_view *v, double factor);
/* The most requests in flight that this worker may have; at least 1. */
static inline uint32_t route_bound_at(const struct route_bound *b, const struct route_worker *w)
{
	double most = b->per_weight * w->weight;
	uint32_t whole = most < 4e9 ? (uint32_t)most : UINT32_MAX - 1;

	return whole + (whole < most);
}

/* Ranks requests without a key. */
extern const struct route_policy_type route_policy_least_request;

#endif
