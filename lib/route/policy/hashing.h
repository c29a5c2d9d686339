/* What the policies by hash share. */
#ifndef PD_ROUTE_HASHING_H
#define PD_ROUTE_HASHING_H

#include <string.h>

#include "lib/route/hash.h"
#include "lib/route/policy.h"

#define ROUTE_HASH_SPAN 18446744073709551616.0 /* 2^64 */

/* The hash function, by the order of enum route_hash. */
#define ROUTE_RING_HASH_PARAM(STRUCT, MEMBER)                                                      \
	{                                                                                          \
		.type = ROUTE_PARAM_CHOICE, .name = "ring-hash", .arg = "xxh3|fbi",                \
		.help = "xxh3, or fbi: places sessions as vllm-router does",                       \
		.offset = offsetof(STRUCT, MEMBER), .choices = "xxh3|fbi"                          \
	}

/* Ranks requests without a key. */
extern const struct route_policy_type route_policy_least_request;

#endif
