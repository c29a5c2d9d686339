/*
 * The scheduler of one engine: what vLLM's V1 scheduler decides in schedule() and when the result
 * of a step is processed. Requests wait, are admitted, get tokens within a budget, are preempted
 * when blocks are short, and finish. No clock: struct stepper says when.
 *
 * Running requests come first, in order of admission; then waiting ones, head of line, unless
 * somebody was preempted in this pass. A request is admitted when its whole sequence fits, and gets
 * blocks for its chunk. The last of the running list is preempted: it keeps its output and the
 * names of its blocks, and goes to the front of the queue.
 *
 * P/D: a request with SEQ_FETCH gets all its blocks at once and loads the part of its prompt that
 * is not cached here from another engine; it needs no seat meanwhile. A request with SEQ_HOLD keeps
 * its blocks after its end until sched_release(). The rules are those of vLLM's NixlConnector.
 *
 * struct seq belongs to the caller and stays where it is from sched_add() until it is done or
 * aborted (SEQ_HOLD: released). Not thread-safe: one owner.
 */
#ifndef PD_SIM_ENGINE_SCHED_H
#define PD_SIM_ENGINE_SCHED_H

#include "sim/engine/kvpool.h"

#define SCHED_SEATS_MAX	 65536u
#define SCHED_BUDGET_MAX (1u << 24)
#define SCHED_STEPS	 2 /* steps under way at most */

enum sched_role {
	SCHED_ALONE,	/* no connector */
	SCHED_BOTH,	/* kv_both */
	SCHED_CONSUMER, /* decode */
	SCHED_PRODUCER	/* prefill */
};

struct sched_config {
	uint32_t block_size;   /* tokens, >= 1 */
	uint32_t num_blocks;   /* with the null block, >= 2; 0: unlimited */
	uint32_t max_num_seqs; /* seats */
	uint32_t max_num_batched_tokens;
	uint32_t long_prefill_token_threshold; /* 0: off */
	uint32_t max_model_len;		       /* 0: no limit */
	double watermark;		       /* part of num_blocks */
	bool prefix_caching;
	bool async_scheduling;
	bool no_chunked_prefill;
	bool no_full_sequence_test; /* scheduler_reserve_full_isl off */
	enum sched_role role;
};

#define SCHED_DEFAULTS                                                                             \
	((struct sched_config){.block_size = 16,                                                   \
			       .max_num_seqs = 256,                                                \
			       .max_num_batched_tokens = 8192,                                     \
			       .prefix_caching = true,                                             \
			       .async_scheduling = true})

enum seq_kv {
	SEQ_LOCAL, /* the prompt is computed here */
	SEQ_FETCH, /* the prompt was computed elsewhere (do_remote_prefill) */
	SEQ_HOLD   /* the blocks are kept for another engine (do_remote_decode); one token */
};

enum seq_state {
	SEQ_NEW,
	SEQ_WAITING,
	SEQ_LOADING,
	SEQ_LOADED,
	SEQ_RUNNING,
	SEQ_HELD, /* finished, blocks kept */
	SEQ_DONE
};

struct seq {
	/* set by the caller */
	uint64_t id;	      /* distinct; breaks ties and names blocks that have no given name */
	const uint64_t *name; /* of the full blocks of prompt and output; borrowed; may be short */
	size_t nnames;
	uint32_t prompt, output; /* tokens, >= 1 each */
	enum seq_kv kv;
	void *owner;
	/* to be read */
	enum seq_state state;
	uint32_t made;	  /* tokens made so far */
	uint32_t cached;  /* prompt tokens found in the cache when first admitted */
	uint32_t fetched; /* SEQ_FETCH: blocks that are fetched */
	uint32_t held;	  /* SEQ_HOLD: blocks kept */
	uint32_t preemptions;
	/* the scheduler's own */
	struct seq *prev, *next; /* of its queue */
	uint32_t *block;	 /* owned */
	uint32_t nblocks, block_cap, named;
	uint32_t computed, holders, under_way, stale;
	bool admitted, prefilling;
};

enum sched_part { SCHED_RUNNING, SCHED_ADMITTED, SCHED_RESUMED };

struct sched_entry {
	struct seq *seq; /* NULL: aborted since */
	uint32_t start;	 /* computed tokens before the step */
	uint32_t tokens;
	enum sched_part part;
};

/* What one pass decided. Arrays are reused by the next pass with the same object. */
struct sched_step {
	struct sched_entry *entry; /* owned */
	size_t n, cap;
	struct seq **preempted; /* owned; in the order of events; sequences may be gone later */
	size_t npreempted, preempted_cap;
	struct seq **fetch; /* owned; loads that begin now */
	size_t nfetch, fetch_cap;
	size_t running, waiting, remote; /* lengths of the lists after the pass */
	size_t free_blocks;
};

enum { SCHED_FIRST = 1, SCHED_DONE = 2 };

struct sched_output {
	struct seq *seq;
	uint32_t tokens;
	unsigned marks; /* of the enum above, or-ed */
};

struct seq_queue {
	struct seq *head, *tail;
	size_t n;
};

struct sched {
	struct sched_config cfg;
	struct kvpool *kv;
	struct seq **run; /* owned */
	size_t nrun, run_cap;
	struct seq_queue wait;	  /* holds no blocks */
	struct seq_queue remote;  /* loading or loaded */
	struct sched_output *out; /* owned; of the last sched_process() */
	size_t nout, out_cap;
	struct sched_step *under_way[SCHED_STEPS]; /* steps that an abort must look through */
	bool stuck; /* the last pass ended at a head of line for which there was no room */
	uint64_t preemptions;
	/* Told when full blocks [from, to) of a sequence have got their names; NULL: nobody. Set by
	 * the owner; it changes nothing here. */
	void (*named)(void *ctx, const struct seq *q, uint32_t from, uint32_t to);
	void *ctx;
};

int sched_config_check(const struct sched_config *cfg, struct pd_msg *msg) PD_MUST;

int sched_init(struct sched *s, const struct sched_config *cfg) PD_MUST;
void sched_release_all(struct sched *s);

/* False: the request could never run here, because its prompt and output exceed the memory or the
 * model's length. Such a request must not be added. */
bool sched_fits(const struct sched *s, uint32_t prompt, uint32_t output);

void sched_add(struct sched *s, struct seq *q);

/* One pass; the step has no entries when there is nothing to run. PD_ENOMEM leaves the scheduler
 * unusable but for releasing. */
int sched_schedule(struct sched *s, struct sched_step *step) PD_MUST;
void sched_step_release(struct sched_step *step);

/* The step's result: s->out tells whose tokens exist now. */
int sched_process(struct sched *s, struct sched_step *step) PD_MUST;

/* The blocks of a loading request have arrived. */
void sched_loaded(struct sched *s, struct seq *q);
/* Frees what a finished request with SEQ_HOLD kept. */
void sched_unhold(struct sched *s, struct seq *q);
/* Ends a request in any state; its blocks are free at once. */
void sched_abort(struct sched *s, struct seq *q);

/*
 * How many rounds (a result, then a pass) can be taken at once: all running requests decode, get
 * one token in each, need no block, name none and do not end, and nobody can join. `step`: those
 * under way. sched_jump() then does what so many rounds would do.
 */
uint32_t sched_quiet(const struct sched *s, struct sched_step *const *step, size_t under_way);
void sched_jump(struct sched *s, struct sched_step *const *step, size_t under_way, uint32_t rounds);

/* Requests that wait, load or run. */
static inline size_t sched_unfinished(const struct sched *s)
{
	return s->nrun + s->wait.n + s->remote.n;
}

#endif
