/*
 * A trace as the simulator replays it: arrival, session key, lengths and prefix blocks of each
 * request, without text.
 *
 * Built once, then only read, so several replays may share it (also from several threads). Keys are
 * numbered densely in order of appearance; blocks are 64-bit names that stand for the whole prefix
 * up to and including the block.
 */
#ifndef PD_SIM_TRACE_TRACE_H
#define PD_SIM_TRACE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"
#include "lib/workload/schedule.h"

#define SIM_NO_KEY	 UINT32_MAX
#define SIM_NO_PICK	 UINT32_MAX
#define SIM_PICKS	 2 /* pools of a request: one worker each */
#define SIM_REQUESTS_MAX 50000000u
#define SIM_TOKENS_MAX	 INT64_C(100000000) /* of one request */

struct sim_request {
	int64_t arrival_ns; /* since the start; not decreasing after simtrace_finish */
	uint32_t block;	    /* first of its blocks in simtrace.block */
	uint32_t nblocks;
	uint32_t key; /* number of its key, or SIM_NO_KEY */
	uint32_t input_tokens;
	uint32_t output_tokens; /* at least 1 */
	uint32_t pick;		/* of a capture: place in simtrace.pick, or SIM_NO_PICK */
};

/* Who follows whom; arrays of n, owned. */
struct sim_order {
	uint32_t *before;  /* a request, or SCHEDULE_NONE; NULL: nobody follows */
	uint32_t *session; /* or SCHEDULE_NONE */
	int64_t *think_ns; /* NULL: no think times */
	uint32_t nsessions;
	bool stamped; /* the arrivals are time stamps of the file */
};

/* What a router chose for a request: a plain pool's worker, or prefill and decode. */
struct sim_pick {
	uint32_t worker[SIM_PICKS]; /* number in simtrace.worker, or SIM_NO_PICK */
	bool has_draw[SIM_PICKS];
	bool key_hashed; /* the key is a stand-in: a hash policy would choose otherwise */
	uint64_t draw[SIM_PICKS];
};

struct sim_key {
	size_t off; /* in simtrace.text */
	size_t len;
	uint32_t requests;
};

/* Requests of a shape (shape.h) that are computed when they are asked for: six or seven times less
 * memory. Without names of blocks; what two requests share follows from their turns. */
struct sim_made {
	uint32_t *session; /* owned; of each request */
	uint8_t *turn;	   /* owned; of each request, from 0 */
	int64_t *at_ns;	   /* owned; of each request */
	uint32_t *group;   /* owned; of each session; NULL: no shared prefixes */
	uint32_t *key; /* owned; number of its key, per session or (by_group) per group; NULL: no
			  keys */
	bool by_group;
	uint32_t nsessions, ngroups;
	uint32_t prefix, fresh, output; /* tokens: of a group, of a turn, of an answer */
};

struct simtrace {
	struct sim_made *made;	 /* owned; not NULL: req and block are */
	struct sim_request *req; /* owned; see simtrace_request() */
	size_t n, cap;
	uint64_t *block; /* owned */
	size_t nblocks, block_cap;
	uint64_t named; /* blocks of all requests together; those of a chain count each time */
	bool numbered;	/* keys are simtrace_key_new's */
	struct sim_key
		*key; /* owned; while building one per request, afterwards one per distinct key */
	size_t nkeys;
	struct buf text;
	struct sim_pick *pick; /* owned; of a capture */
	size_t npicks, pick_cap;
	char **worker; /* owned; names of the workers in pick */
	size_t nworkers;
	uint32_t block_tokens; /* tokens per block; the last one of a request may be partial */
	struct sim_order order;
};

void simtrace_init(struct simtrace *t, uint32_t block_tokens);
void simtrace_release(struct simtrace *t);

/*
 * Appends a request; blocks and key are copied. An empty key means that the request has none.
 * PD_EINVAL when a length is outside 1..SIM_TOKENS_MAX, PD_ETOOBIG, PD_ENOMEM.
 */
int simtrace_add(struct simtrace *t, int64_t arrival_ns, struct span key, int64_t input_tokens,
		 int64_t output_tokens, const uint64_t *block, size_t nblocks) PD_MUST;

/*
 * The same for traces that are made, where much is known before: keys are numbered by the caller,
 * in order of appearance, and requests may begin with the same blocks, which are stored once. Not
 * to be mixed with simtrace_add.
 */
int simtrace_reserve(struct simtrace *t, size_t requests, size_t blocks) PD_MUST;
int simtrace_key_new(struct simtrace *t, struct span text, uint32_t *no) PD_MUST;
int simtrace_chain(struct simtrace *t, const uint64_t *block, size_t n, uint32_t *at) PD_MUST;
int simtrace_add_made(struct simtrace *t, const struct sim_request *r) PD_MUST;

/* What was chosen for the request that was added last; `p` is copied. */
int simtrace_pick(struct simtrace *t, const struct sim_pick *p) PD_MUST;
/* The number of a worker of sim_pick. */
int simtrace_worker(struct simtrace *t, struct span name, uint32_t *out) PD_MUST;

/* Numbers the keys and sorts by arrival, keeping the order of equal arrivals; t->order, whose
 * arrays are of the requests as they were added, is sorted with them. Call once, after the last
 * add. */
int simtrace_finish(struct simtrace *t) PD_MUST;

/* The trace as a schedule takes it; valid as long as the trace. */
struct schedule_input simtrace_schedule(const struct simtrace *t);

/* Tokens of the prompt of a turn. */
static inline uint32_t sim_made_tokens(const struct sim_made *m, uint32_t turn)
{
	return m->prefix + turn * (m->fresh + m->output) + m->fresh;
}

static inline struct sim_request simtrace_request(const struct simtrace *t, size_t i)
{
	const struct sim_made *m = t->made;
	struct sim_request r;

	if (!m)
		return t->req[i];
	r = (struct sim_request){.arrival_ns = m->at_ns[i],
				 .key = SIM_NO_KEY,
				 .input_tokens = sim_made_tokens(m, m->turn[i]),
				 .output_tokens = m->output,
				 .pick = SIM_NO_PICK};
	r.nblocks = r.input_tokens / t->block_tokens;
	if (m->key)
		r.key = m->key[m->by_group ? m->group[m->session[i]] : m->session[i]];
	return r;
}

#define SIM_MADE_KEY_MAX 24

/* The key of request i as text, without a look at the table of keys; returns its length, 0: it has
 * none. */
size_t simtrace_made_key(const struct simtrace *t, size_t i, char out[SIM_MADE_KEY_MAX]);
/* The same of a session or group. */
size_t sim_made_key(bool group, uint32_t owner, char out[SIM_MADE_KEY_MAX]);

/* Brings what simtrace_request(t, i) reads near, for a caller that will ask soon. */
static inline void simtrace_prefetch(const struct simtrace *t, size_t i)
{
	const struct sim_made *m = t->made;

	if (!m || i >= t->n)
		return;
	if (m->key && !m->by_group)
		__builtin_prefetch(&m->key[m->session[i]]);
	if (m->group)
		__builtin_prefetch(&m->group[m->session[i]]);
}

static inline struct span simtrace_key(const struct simtrace *t, uint32_t key)
{
	return (struct span){t->text.data + t->key[key].off, t->key[key].len};
}

#endif
