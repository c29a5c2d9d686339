/*
 * One batch of an engine's KV events as vLLM publishes them in MessagePack, in any of its forms: a
 * batch is [ts, events, rank] or a map with these members, an event a map with "type" or an array
 * that begins with it. Members that are not known are passed over. Pure, thread-safe. Source:
 * vLLM's kv_events.py.
 */
#ifndef PD_ROUTER_KVBATCH_H
#define PD_ROUTER_KVBATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define KVBATCH_MAX	   (16u << 20) /* bytes */
#define KVBATCH_EVENTS	   65536
#define KVBATCH_BLOCK_SIZE 65536 /* tokens */

enum kvevent_kind { KVEVENT_STORED, KVEVENT_REMOVED, KVEVENT_CLEARED };

/* Borrowed for the call. */
struct kvevent {
	enum kvevent_kind kind;
	const uint64_t *hash; /* of the engine; of a longer one its XXH3 */
	size_t n;
	bool has_parent;
	uint64_t parent;
	const uint32_t *token; /* STORED: n * block_size */
	uint32_t block_size;
	unsigned tier; /* 0 device, 1 host, 2 external, 3 disk */
	bool plain;    /* of the text alone: no adapter, no salt, no media; full attention */
};

/* Calls `take` for each event in their order. *rank: the data-parallel one, -1 when none is said.
 * PD_EINVAL with a sentence: it is no such batch; events before the wrong one were taken.
 * PD_ENOMEM.
 */
int kvbatch_read(struct span text, void (*take)(void *ctx, const struct kvevent *e), void *ctx,
		 int *rank, struct pd_msg *msg) PD_MUST;

#endif
