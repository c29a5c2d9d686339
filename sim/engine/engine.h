/*
 * The engine model of the simulated worker: which request runs when, on which blocks. A state
 * machine with time as an argument, so the worker drives it with the real clock and tests with a
 * virtual one.
 *
 * Rules. Requests are admitted in order of arrival (a request that does not fit keeps the ones
 * behind it waiting). To be admitted a request needs a seat (max_num_seqs), all the blocks of its
 * prompt and output (so nothing is ever preempted), and the prefill unit, which computes one prompt
 * at a time at prefill_tokens_per_s; prompt tokens found in the prefix cache, and prompts whose KV
 * comes from another worker, cost nothing. Token k (from 0) of a request exists at prefill_end + k
 * * decode_ms, whatever the batch size is. All durations are divided by speedup.
 *
 * waiting --(pump)--> running --engine_prefilled--> running --engine_finish--> done; engine_finish
 * ends a job in any state. Not thread-safe: the caller locks. Times are nanoseconds of one clock.
 */
#ifndef PD_SIM_ENGINE_ENGINE_H
#define PD_SIM_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/kvcache.h"

struct engine_config {
	size_t block_size;	     /* tokens */
	size_t num_blocks;	     /* 0: unlimited */
	size_t max_num_seqs;	     /* >= 1 */
	double prefill_tokens_per_s; /* 0: prefill takes no time */
	double decode_ms_per_token;
	double speedup; /* > 0 */
};

enum engine_state { ENGINE_NEW, ENGINE_WAITING, ENGINE_RUNNING, ENGINE_DONE, ENGINE_FAILED };

/* One sequence (or n sequences of one prompt). Memory and `hash` belong to the caller until the job
 * is done. */
struct engine_job {
	/* set by the caller */
	const uint64_t *hash; /* chained hashes of the full blocks of prompt and output, as many as
				 may be committed */
	size_t nhash;
	size_t prompt_tokens; /* >= 1 */
	size_t output_tokens; /* >= 1 */
	size_t copies;	      /* n: sequences that share the prompt; >= 1 */
	bool remote; /* the KV of the prompt is fetched from another worker: no prefill time */
	void (*wake)(struct engine_job *job); /* called when a waiting job was admitted or failed;
						 may be NULL */
	void *ctx;
	size_t generated; /* output tokens so far, kept current before engine_finish */
	/* set by the engine */
	enum engine_state state;
	int64_t submitted, admitted, prefill_end;
	size_t cached_tokens; /* found in the prefix cache at admission, at most prompt_tokens - 1
			       */
	struct kvcache_pin pin;
	/* the engine's own */
	struct engine_job *prev, *next;
	size_t seats;
	bool blocked_on_prefill;
	bool prefilled;
};

struct engine {
	struct engine_config cfg;
	struct kvcache *cache;
	struct engine_job *head, *tail; /* waiting, in order of arrival */
	struct engine_job *prefilling;
	int64_t prefill_free;		/* when the prefill unit became idle */
	size_t waiting, running, seats; /* jobs, jobs, seats in use */
	uint64_t queried_tokens, hit_tokens;
};

int engine_init(struct engine *e, const struct engine_config *cfg) PD_MUST;
/* All jobs must be done. */
void engine_release(struct engine *e);

/* Blocks a job needs; it can never run when this exceeds num_blocks. */
size_t engine_blocks(const struct engine *e, size_t prompt_tokens, size_t output_tokens,
		     size_t copies);

/* Queues the job; it may be running when the call returns (wake is not called then). PD_ETOOBIG
 * when it can never fit. */
int engine_submit(struct engine *e, struct engine_job *job, int64_t now) PD_MUST;

/* The KV of a remote job has arrived: its first token exists one decode step from now. Call
 * engine_prefilled at job->prefill_end. */
void engine_fetched(const struct engine *e, struct engine_job *job, int64_t now);

/* The prompt of a running job is computed (or fetched): its blocks can be hit from now on and the
 * next prompt may start. */
void engine_prefilled(struct engine *e, struct engine_job *job, int64_t now);

/* The job is finished or aborted, in any state. Blocks computed so far stay in the cache. keep:
 * receives the pinned blocks instead of freeing them (release with engine_unpin); may be NULL.
 * Idempotent. */
void engine_finish(struct engine *e, struct engine_job *job, int64_t now, struct kvcache_pin *keep);

/* Frees blocks that engine_finish handed out, which may let waiting jobs run. */
void engine_unpin(struct engine *e, struct kvcache_pin *pin, int64_t now);

/* When token k (from 0) exists. The job must be running. */
int64_t engine_token_at(const struct engine *e, const struct engine_job *job, size_t k);

#endif
