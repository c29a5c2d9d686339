/*
 * One prompt's way through the engine, on the fiber of its connection: run_prepare, run_prefill,
 * run_token for each token, run_end.
 */
#ifndef PD_SIM_WORKER_RUN_H
#define PD_SIM_WORKER_RUN_H

#include "sim/worker/kvread.h"

/* What the engine is to do, and what is known of it. */
struct run_job {
	size_t prompt_tokens, output_tokens;
	size_t copies;	      /* n: answers of one prompt */
	size_t generated;     /* tokens that were seen so far */
	size_t cached_tokens; /* of the prompt */
	int64_t prefill_end;
	bool remote; /* the KV of the prompt is fetched from another worker */
	bool offer;  /* its blocks are to be kept for another worker */
	bool shared; /* `remote`, from the directory */
};

struct gen_run {
	/* set by the caller, borrowed */
	const struct worker_config *cfg;
	struct core *core;
	struct nixl *nixl;
	struct worker_stats *stats;
	struct http_conn *c;
	const struct gen_request *g;
	/* the run's own */
	char key[KV_KEY_MAX]; /* of the prompt's blocks at another worker */
	struct run_job job;
	struct core_job *core_job; /* while the engine has it; then the lease's */
	uint32_t *ids;		   /* prompt and output tokens; owned */
	uint64_t *hash;		   /* owned */
	size_t nhash;
	uint64_t seed;
	size_t cut;	    /* stop string found: bytes of the answer to keep; else SIZE_MAX */
	const char *finish; /* "length" or "stop" */
	bool kv_fetched;    /* the prompt's KV came from the prefill worker */
	bool kv_settled;    /* the prefill worker was told, or there is nothing to tell */
	bool prepared;
};

/* Prepares tokens, hashes and the answer's length for prompt i. */
int run_prepare(struct gen_run *run, size_t i, struct api_error *e) PD_MUST;
/* Waits for a seat and for the prompt to be computed or fetched. PD_ECANCELED: the client left;
 * PD_EINVAL: *e is set. */
int run_prefill(struct gen_run *run, struct api_error *e) PD_MUST;
/* Waits until token k exists in all answers. PD_ECANCELED when the client left. */
int run_token(struct gen_run *run, size_t k) PD_MUST;
/* Ends the job in whatever state it is, or hands it over in *keep, which may be NULL. Frees what
 * run_prepare took. */
void run_end(struct gen_run *run, struct core_job **keep);
/* Tokens that exist now. */
size_t run_made(const struct gen_run *run);
/* In a real P/D pair the whole prompt counts as cached on the decode side. */
size_t run_cached_tokens(const struct gen_run *run);

#endif
