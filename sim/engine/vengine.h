/*
 * The simulated engine of one worker: continuous batching with chunked prefill, in virtual time.
 *
 * One step computes every running request: a decode gets one token, a prefill gets what is left of
 * the token budget; then waiting requests join while there are seats and budget (the order of vLLM
 * V1: running first, in list order).
 *
 *     step time = step_ms + prefill_us * (prefill tokens) + request_us * (decodes) + context_us *
 * (sum of their context)
 *
 * With a limit on KV tokens a request joins only when its whole prompt fits, and when the running
 * ones outgrow the room the last of the list goes back to the front of the queue and is computed
 * again, generated tokens included (none of its blocks are kept). A request that is alone may
 * exceed the room. Attention inside a prefill is not charged. The model predicts order and rough
 * size, not milliseconds: every figure that comes from it is marked as simulated.
 *
 * Between two changes of the batch the step times are an arithmetic series, so decode-only steps
 * are taken in one jump. Times are virtual nanoseconds. Deterministic. Not thread-safe.
 */
#ifndef PD_SIM_ENGINE_VENGINE_H
#define PD_SIM_ENGINE_VENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct vengine_params {
	double step_ms;		     /* fixed cost of a step */
	double prefill_us;	     /* per prompt token computed */
	double request_us;	     /* per decoding request in the step */
	double context_us;	     /* per token of context of the decoding requests */
	uint32_t max_num_seqs;	     /* requests in a batch */
	uint32_t max_batched_tokens; /* tokens in a step */
	uint64_t kv_tokens;	     /* room for the context of the running requests; 0: no limit */
};

/* Llama-3.1-8B, bf16, on one H100: data-sheet floors at 65-70 % of the peak. Calibrated against
 * nothing. */
#define VENGINE_DEFAULTS                                                                           \
	((struct vengine_params){.step_ms = 7.0,                                                   \
				 .prefill_us = 22.0,                                               \
				 .request_us = 0.0,                                                \
				 .context_us = 0.056,                                              \
				 .max_num_seqs = 256,                                              \
				 .max_batched_tokens = 8192})

enum vengine_mark { VENGINE_FIRST = 1, VENGINE_DONE = 2 };

/* What a step did for one request. */
struct vengine_output {
	uint32_t req;
	unsigned marks; /* enum vengine_mark, or-ed */
};

struct vengine_seq {
	uint32_t req;
	uint32_t prefill_left;
	uint32_t chunk; /* tokens in the current step */
	uint32_t out_left;
	uint64_t ctx;
	bool first; /* the first token is still to come */
};

struct vengine {
	struct vengine_params p;
	struct vengine_seq *run; /* owned, max_num_seqs at most */
	size_t nrun, run_cap;
	struct vengine_seq *wait; /* owned ring */
	size_t wait_head, nwait, wait_cap;
	struct vengine_output *out; /* owned; valid until the next vengine_step_end */
	size_t out_cap;
	bool stepping;
	int64_t start, end; /* of the current step or jump */
	uint32_t steps;	    /* steps in the jump; 1 for a plain step */
	double first_ms;    /* duration of the first step of the jump */
	double growth_ms;   /* how much longer each following one is */
	uint32_t gen;	    /* changes whenever `end` does: events of older generations are void */
	uint64_t preemptions;
	int64_t busy; /* ns spent stepping */
};

/* PD_EINVAL when a parameter is not finite, negative, or a limit is 0, or a step would take no
 * time. */
int vengine_params_check(const struct vengine_params *p, struct pd_msg *msg) PD_MUST;

void vengine_init(struct vengine *e, const struct vengine_params *p);
void vengine_release(struct vengine *e);

/*
 * A request arrives: `prefill` prompt tokens to compute (0: the prompt came from another worker),
 * `context` prompt tokens in all, `output` tokens to make (at least 1). If e->gen changed, a new
 * step end has to be scheduled.
 */
int vengine_submit(struct vengine *e, int64_t now, uint32_t req, uint32_t prefill, uint32_t context,
		   uint32_t output) PD_MUST;

/* The step ends at e->end: returns how many entries of e->out were filled, and begins the next step
 * when there is work. */
int vengine_step_end(struct vengine *e, size_t *nout) PD_MUST;

/* Drops everything; e->out lists the requests that were lost (no marks). */
int vengine_abort(struct vengine *e, size_t *nout) PD_MUST;

#endif
