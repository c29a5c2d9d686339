/*
 * Follows what engines say about their caches, for pools whose policy goes by that (kv_aware): a
 * thread subscribes to the KV events of each worker over ZeroMQ and tells the policy which blocks
 * it holds.
 *
 * Where a worker's events are: --kv-event-source or --pd-kv-events, the labels kv-events and
 * kv-events-replay, or what the worker answers to GET /kv_event_sources. Each batch has a sequence.
 * After a gap, and when it begins, it asks the engine to replay what was missed; when that is not
 * possible all that was known of the engine is forgotten, and what it stores from then on counts. A
 * sequence that begins anew is a new engine; so may be a connection that comes back, which it does
 * by itself.
 *
 * Bounded: KVBATCH_MAX bytes a batch, KVINDEX_MAX blocks a worker; a replay has
 * KVFOLLOW_REPLAY_NS.
 */
#ifndef PD_ROUTER_KVFOLLOW_H
#define PD_ROUTER_KVFOLLOW_H

#include "lib/router/fleet/fleet.h"

#define KVFOLLOW_REPLAY_NS (5 * NS_PER_S)
#define KVFOLLOW_WORKERS   ROUTE_WORKERS_MAX

struct kvfollow;

/* What is counted, in the order of the rows in watch/metrics_table.h. */
enum kvfollow_count {
	KVFOLLOW_SOURCES, /* now */
	KVFOLLOW_BLOCKS,  /* now */
	KVFOLLOW_BATCHES,
	KVFOLLOW_UNREADABLE,
	KVFOLLOW_GAPS,
	KVFOLLOW_REPLAYS,
	KVFOLLOW_RESTARTS,
	KVFOLLOW_LOSSES,
	KVFOLLOW_COUNTS
};

/* Is one of the sources "URL=tcp://HOST:PORT[,...]"? PD_EINVAL with a sentence. */
int kvfollow_check(const char *source, struct pd_msg *msg) PD_MUST;

/* Everything is borrowed until kvfollow_stop. *out is NULL when no policy can come to need it.
 * PD_ENOENT: no libzmq. */
int kvfollow_start(struct kvfollow **out, struct fleet_holder *fleet, const struct router_config *c,
		   struct pd_msg *msg) PD_MUST;
void kvfollow_stop(struct kvfollow *k); /* NULL is accepted */

/* Tokens of a block, once an engine has said so; 0: nothing is followed. Thread-safe; k may be
 * NULL. */
uint32_t kvfollow_block_tokens(const struct kvfollow *k);
/* 0 for all when k is NULL. */
void kvfollow_counts(const struct kvfollow *k, uint64_t out[KVFOLLOW_COUNTS]);

#endif
