/*
 * The engine with its lock, its clock and its identity: what requests, leases and pages share. The
 * engine is the simulator's (sim/engine/stepper.h); a thread waits for the end of the step under
 * way and tells those whose tokens exist then. The lock is never held across I/O or sleep; the
 * identity is constant, the counter atomic.
 *
 * Time is an argument: whoever comes at `now` first lets happen what was due before, at the time it
 * was due, so a late thread changes nothing. Functions are called with the lock held unless they
 * say otherwise.
 */
#ifndef PD_SIM_WORKER_CORE_H
#define PD_SIM_WORKER_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "sim/engine/stepper.h"
#include "sim/worker/kvevents.h"

/* One prompt and its n answers, each a sequence of the engine. */
struct core_job {
	/* set by the caller before core_submit */
	const uint64_t *hash; /* chained hashes of the full blocks of prompt and answer; borrowed
				 until the job has ended, of a lease until it is read */
	size_t nhash;
	const uint32_t *ids; /* of prompt and answer, borrowed as `hash` is; for KV events */
	uint32_t prompt_tokens, output_tokens;
	uint32_t copies;
	enum seq_kv kv;		 /* of the first copy; the others compute or hit the prompt */
	void (*wake)(void *ctx); /* called when `want` tokens exist, and when the load begins */
	void *ctx;
	/* to be read */
	_Atomic uint32_t made; /* tokens that all answers have */
	_Atomic bool loading;  /* SEQ_FETCH: room was taken, the blocks may be fetched */
	uint32_t want;	       /* under the lock */
	uint32_t cached_tokens, fetched_blocks;
	int64_t submitted, begun, prefill_end; /* begin of its first step, end of its prompt's */
	/* the core's own */
	struct seq *seq; /* owned; copies of them */
	uint64_t *names; /* owned copy of `hash` */
	struct core_job *prev, *next;
	bool leased; /* the caller has gone; freed when its blocks are */
};

struct core {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool running, stopping;
	struct stepper engine;
	struct core_job *jobs;
	int64_t slept_until; /* what the thread waits for */
	uint64_t queried_tokens, hit_tokens;
	struct kvevents *events; /* NULL: none; owned */
	char id[40];		 /* a UUID, new in every process: remote_engine_id */
	atomic_ullong next;	 /* makes ids of requests and leases unique */
};

/* core_release in every case. */
int core_init(struct core *k, const struct stepper_config *cfg, struct pd_msg *msg) PD_MUST;
/* Starts and ends the thread that drives the engine with the clock; without the lock. */
int core_start(struct core *k) PD_MUST;
void core_stop(struct core *k);
/* Without the lock. All jobs must have ended but those that are leased. */
void core_release(struct core *k);

/* From now on what the cache gets and loses is published. Before the first job. */
void core_publish(struct core *k, struct kvevents *events);
/* Forgets what is cached and not in use. */
void core_forget(struct core *k);

/* A job with room for `copies` sequences; NULL when out of memory. Without the lock. */
struct core_job *core_job_new(uint32_t copies);

/* Everything that was due until `now` happens. */
void core_advance(struct core *k, int64_t now);

/* Blocks that one sequence needs at most; it can never run when they exceed the memory. */
size_t core_blocks(const struct core *k, size_t prompt_tokens, size_t output_tokens);

/* PD_ETOOBIG: it can never fit. PD_ENOMEM. In both cases nothing was queued. */
int core_submit(struct core *k, struct core_job *job, int64_t now) PD_MUST;
/* The blocks of a loading job are here. */
void core_loaded(struct core *k, struct core_job *job, int64_t now);
/* The caller has gone; aborts what is not done, and frees the job. */
void core_end(struct core *k, struct core_job *job, int64_t now);
/* The same for a finished job with SEQ_HOLD, whose blocks stay until core_unhold(). False: there
 * are no such blocks, and the job is still the caller's. */
bool core_lease(struct core *k, struct core_job *job, const uint32_t **block, size_t *n);
void core_unhold(struct core *k, struct core_job *job, int64_t now);

#endif
