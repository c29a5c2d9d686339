/*
 * KV events of one engine over ZeroMQ, as vLLM's ZmqEventPublisher sends them: a PUB socket with
 * frames [topic, sequence, batch], and a ROUTER socket where missed batches are asked for again. A
 * sequence is 8 bytes, big-endian, from 0 on. A batch is the MessagePack array [ts, events, rank];
 * an event is a map:
 *
 *	type "BlockStored": block_hashes, parent_block_hash, token_ids, block_size, lora_id,
 *		medium, lora_name
 *	type "BlockRemoved": block_hashes, medium
 *	type "AllBlocksCleared"
 *
 * A request for a replay is ["", first sequence]; answers are ["", topic, sequence, batch] and at
 * the end ["", "", -1, ""].
 *
 * The engine is never waited for: what cannot be sent is dropped, and the gap in the sequence says
 * so. A hash is the 64-bit name of a block. Bounded: KVEVENTS_WAITING batches wait to be sent,
 * `buffer_steps` batches and KVEVENTS_KEPT bytes are kept for replay. Thread-safe; the functions
 * that tell are called in order, with the engine's lock.
 */
#ifndef PD_SIM_WORKER_KVEVENTS_H
#define PD_SIM_WORKER_KVEVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KVEVENTS_BATCH	 4096 /* events of a batch */
#define KVEVENTS_BYTES	 ((size_t)4 << 20)
#define KVEVENTS_WAITING 256
#define KVEVENTS_KEPT	 ((size_t)64 << 20)

struct kvevents_config {
	/* An address with '*' or '::' is bound, as is ipc://; another one is connected to. The
	 * rank is added to both ports. Borrowed for the call. */
	const char *endpoint, *replay_endpoint; /* replay: NULL: none */
	const char *topic;
	uint32_t rank, block_size;
	size_t buffer_steps;
	int hwm;
};

struct kvevents_stats {
	uint64_t events, batches, dropped, replays;
};

struct kvevents;

/* PD_ENOENT: no libzmq; PD_EINVAL, PD_EIO, PD_ENOMEM; with a sentence. */
int kvevents_start(struct kvevents **out, const struct kvevents_config *cfg,
		   struct pd_msg *msg) PD_MUST;
/* Sends what is left. Accepts NULL. */
void kvevents_stop(struct kvevents *k);

/* Blocks [from, to) of the chain `name`, whose tokens begin at `ids`, are cached. */
void kvevents_stored(struct kvevents *k, const uint64_t *name, uint32_t from, uint32_t to,
		     const uint32_t *ids);
void kvevents_removed(struct kvevents *k, uint64_t name);
void kvevents_cleared(struct kvevents *k);

void kvevents_stats(struct kvevents *k, struct kvevents_stats *out);

#endif
