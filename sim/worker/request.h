/*
 * A generation request as the client wrote it: checked as vLLM checks it, prompts already tokens.
 * Spans point into the body, which must outlive the struct. Owner thread only.
 */
#ifndef PD_SIM_WORKER_REQUEST_H
#define PD_SIM_WORKER_REQUEST_H

#include "lib/json/scan.h"
#include "sim/engine/tokens.h"
#include "sim/worker/api.h"
#include "sim/worker/config.h"
#include "sim/worker/core.h"
#include "sim/worker/stats.h"

#define REQUEST_ID_MAX	    256 /* bytes of X-Request-Id that are kept */
#define REQUEST_N_MAX	    128
#define REQUEST_STOP_MAX    16
#define REQUEST_PROMPTS_MAX 1024
#define REQUEST_TOKENS_MAX  ((size_t)64 << 20) /* of all prompts of a request */

/* MESSAGES: Anthropic's form of a chat. RESPONSES: OpenAI's newer one. TOKENS: ids in, ids out. */
enum gen_kind {
	GEN_CHAT,
	GEN_COMPLETION,
	GEN_EMBEDDING,
	GEN_MESSAGES,
	GEN_RESPONSES,
	GEN_TOKENS,
	GEN_KINDS
};

#define KV_KEY_MAX (REQUEST_ID_MAX + 64)

/* Where another engine keeps the blocks, and under which name. */
struct kv_source {
	char host[256];
	uint16_t port;
	char key[KV_KEY_MAX];
	char engine[64];       /* its id; "": the connector names none */
	struct span block_ids; /* JSON array; n == 0: the connector names none */
	bool wait;	       /* it may not have computed them yet */
};

/* What the request is to do with KV of another engine: as its parameters say, then as the
 * connector of this worker understands them (played.h). */
struct kv_params {
	struct span object;			  /* kv_transfer_params; n == 0: none */
	bool present;				  /* and it is not empty */
	bool do_remote_decode, do_remote_prefill; /* gives its blocks away; takes another's */
	enum worker_leg leg;
	bool shared;	      /* both by a store that both engines reach */
	bool one_token;	      /* whatever the request asks for */
	char key[KV_KEY_MAX]; /* given away under this name; "": under one that is made up */
	struct span rooms;    /* SGLang: a JSON array with one for each prompt; n == 0: `key` */
	struct kv_source from;
};

struct gen_prompt {
	size_t from, n;	  /* tokens */
	struct span text; /* JSON text inside the quotes; n 0: it came as ids */
};

struct gen_request {
	enum gen_kind kind;
	struct json_object body;
	struct span model; /* the served name; belongs to the configuration */
	struct tokens tokens;
	struct gen_prompt *prompt; /* owned */
	size_t nprompts;
	size_t max_tokens; /* 0: not given */
	unsigned n;
	bool stream, include_usage, continuous_usage;
	bool prompt_logprobs, beam_search;
	bool logprobs; /* of a completion's tokens */
	bool echo;     /* a completion begins with its prompt; max_tokens 0 then: nothing else */
	bool only_echo;
	struct buf stop_text; /* decoded stop strings, one after the other */
	size_t stop_len[REQUEST_STOP_MAX], nstops;
	uint64_t salt; /* from cache_salt */
	struct kv_params kv;
	struct span xid;	      /* X-Request-Id; n == 0 when absent */
	char id[REQUEST_ID_MAX + 32]; /* of the answer: "chatcmpl-..." */
	/* embeddings */
	size_t dimensions;
	bool base64;
};

/* Fills g from the body; release in every case. PD_EINVAL with *e set. */
int gen_request_parse(struct gen_request *g, const struct worker_config *cfg, struct core *ids,
		      const struct http_request *r, enum gen_kind kind,
		      struct api_error *e) PD_MUST;
void gen_request_release(struct gen_request *g);
/* Do its answers come as the events of an API of their own, with names? */
bool gen_has_events(enum gen_kind kind);
/* Is its prompt a conversation, whose answer ends by itself? */
bool gen_is_chat(enum gen_kind kind);
/* Sets g->model from the body: PD_ENOENT with a 404. Absent or null: the first served one. */
int gen_request_model(struct gen_request *g, const struct worker_config *cfg,
		      struct api_error *e) PD_MUST;

#endif
