/*
 * libpdroute: which worker a request for an LLM goes to, and what a prefill and a decode worker get
 * to see of it. It is the code that `pdctl serve` and `pdctl simulate` decide with, so the same
 * requests in the same order give the same workers here. No I/O, no clock, no thread, no global
 * state: time, dice and load are arguments. For C11 and C++17; a complete program stands in
 * docs/libpdroute.md.
 *
 *   cc $(pkg-config --cflags pdroute) prog.c $(pkg-config --libs pdroute)
 *
 * The objects. A *worker* has a name and what changes while requests run: may it be picked, how
 * many requests are in flight, how many may be. A *policy* is a name with parameters and what it
 * has learned. A *pool* is an immutable list of workers with the tables that the policy builds over
 * them; a change of the list is a new pool over the same workers and the same policy. A *request*
 * says what is known of one request, above all its session key. A *decision* is one pick: while it
 * is held the request counts as in flight. A *transfer* is the text side of one attempt to serve a
 * request by a prefill and a decode worker.
 *
 * Ownership. What _new hands out is freed with the _free of its type, exactly once; _free(NULL)
 * does nothing. Objects may be freed in any order: a pool holds its workers and its policy, a held
 * decision holds its pool, and what is held lives on. Text that goes in is copied, except where
 * "borrowed" says until when it must stay. `const char *` that comes out is lent until its object
 * is freed or changed. Pointers to handles must not be NULL except where said; functions that
 * return an error answer PDROUTE_EINVAL to a NULL handle.
 *
 * Threads. Workers, policies, pools, keys and bodies may be used by any number of threads at once
 * (a free is the holder's last use). A request, a decision and a transfer belong to one thread at a
 * time.
 *
 * Errors. Functions that can fail return 0 or a negative enum pdroute_error, and leave their
 * outputs alone when they fail. A struct pdroute_message, which may be NULL, receives a sentence
 * for a person.
 *
 * Names. Every function begins with pdroute_, every macro with PDROUTE_; the library exports
 * nothing else, so it can stand in one program with any JSON or hash library.
 */
#ifndef PDROUTE_H
#define PDROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header; the same as pdctl's. */
#define PDROUTE_VERSION_MAJOR 0
#define PDROUTE_VERSION_MINOR 1
#define PDROUTE_VERSION_PATCH 0
#define PDROUTE_VERSION	      "0.1.0"
/* For #if: 0.1.0 is 1000, 1.2.3 is 1002003. */
#define PDROUTE_VERSION_NUMBER                                                                     \
	(PDROUTE_VERSION_MAJOR * 1000000 + PDROUTE_VERSION_MINOR * 1000 + PDROUTE_VERSION_PATCH)

#if defined(__GNUC__)
#define PDROUTE_API  __attribute__((visibility("default")))
#define PDROUTE_MUST __attribute__((warn_unused_result))
#else
#define PDROUTE_API
#define PDROUTE_MUST
#endif

/* Bounds. */
#define PDROUTE_WORKERS_MAX 1024 /* in a pool */
#define PDROUTE_NAME_MAX    1024 /* bytes of a worker's name */
#define PDROUTE_KEY_MAX	    512 /* bytes of a key; a longer text is replaced by a hash of all of it */
#define PDROUTE_MESSAGE_MAX 512

#ifdef __cplusplus
extern "C" {
#endif

struct pdroute_worker;
struct pdroute_policy;
struct pdroute_pool;
struct pdroute_keys;
struct pdroute_body;
struct pdroute_request;
struct pdroute_decision;
struct pdroute_transfer;

/* -- version, errors, text -- */

/* Of the library that is linked: PDROUTE_VERSION and PDROUTE_VERSION_NUMBER of its build. */
PDROUTE_API const char *pdroute_version(void);
PDROUTE_API unsigned pdroute_version_number(void);

enum pdroute_error {
	PDROUTE_OK = 0,
	PDROUTE_EINVAL = -2, /* an argument or the client's text is wrong */
	PDROUTE_ENOMEM = -3,
	PDROUTE_ETOOBIG = -6, /* a maximum would be crossed */
	PDROUTE_ENOENT = -9,  /* no worker may be picked, or all were tried */
	PDROUTE_EBUSY = -11   /* those that may be picked are at their caps */
};

/* "out of memory". Never NULL, for other numbers too. */
PDROUTE_API const char *pdroute_error_text(int error);

/* Why something failed: lower case, no full stop, always terminated; empty when all went well. */
struct pdroute_message {
	char text[PDROUTE_MESSAGE_MAX];
};

/* Text that the library made. data is terminated and may hold NUL bytes; NULL: there is none. */
struct pdroute_text {
	char *data;
	size_t size;
};

/* Frees the text and empties *t; an empty or NULL one is left alone. */
PDROUTE_API void pdroute_text_free(struct pdroute_text *t);

/* -- workers -- */

/*
 * A worker that may be picked, without a cap, with nothing in flight. The name is its identity:
 * hash policies place it by its name alone, so use one that a restart does not change (as pdctl
 * does: the configured name, or the URL, with "@rank" for a rank). PDROUTE_EINVAL: empty or longer
 * than PDROUTE_NAME_MAX.
 */
PDROUTE_API int pdroute_worker_new(struct pdroute_worker **out, const char *name,
				   struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_worker_free(struct pdroute_worker *w);
PDROUTE_API const char *pdroute_worker_name(const struct pdroute_worker *w);

/* May it be picked (healthy, not draining)? An unavailable worker's sessions go to the next worker
 * of their order and come back with it. */
PDROUTE_API void pdroute_worker_set_available(struct pdroute_worker *w, bool available);
PDROUTE_API bool pdroute_worker_available(const struct pdroute_worker *w);
/* Most requests in flight; 0: no cap. A worker at its cap is passed over. */
PDROUTE_API void pdroute_worker_set_cap(struct pdroute_worker *w, uint32_t cap);
PDROUTE_API uint32_t pdroute_worker_cap(const struct pdroute_worker *w);
/* Picks that are allowed although it is not available: the probes of a half-open circuit breaker.
 * Each takes one; the decision says so (pdroute_decision_trial). */
PDROUTE_API void pdroute_worker_set_trials(struct pdroute_worker *w, uint32_t trials);
PDROUTE_API uint32_t pdroute_worker_trials(const struct pdroute_worker *w);
/* What the worker said about itself, and when (monotonic time as in pdroute_request_set_time; 0:
 * nothing yet): requests in its queue and in its batch, and the share of its KV memory in use in
 * thousandths. */
PDROUTE_API void pdroute_worker_set_signal(struct pdroute_worker *w, uint32_t waiting,
					   uint32_t running, uint32_t kv_permille, int64_t at_ns);
/* Decisions held now. */
PDROUTE_API uint32_t pdroute_worker_in_flight(const struct pdroute_worker *w);
/* Decisions ever. */
PDROUTE_API uint64_t pdroute_worker_picks(const struct pdroute_worker *w);

/* -- policies -- */

/* The name of the i-th policy, from 0; NULL: there is none. */
PDROUTE_API const char *pdroute_policy_at(size_t i);
/* One line about a policy; NULL for an unknown name. */
PDROUTE_API const char *pdroute_policy_help(const char *name);

/* A parameter of a policy, as text. */
struct pdroute_parameter {
	const char *name; /* '-' and '_' are the same in it */
	const char *help; /* one line */
	char range[64];	  /* what it may be: "1..65536", "xxh3|fbi" */
	char initial[64]; /* what it is when it is not given */
};

/* The i-th parameter, from 0; false when there is none. */
PDROUTE_API bool pdroute_policy_parameter(const char *policy, size_t i,
					  struct pdroute_parameter *out);

/*
 * A policy with its parameters, each "name=value"; `name` may carry some too, as pdctl takes them:
 * "consistent_hash:virtual-nodes=40". What it learns lives as long as it does, over
 * all pools that use it; each role (regular, prefill, decode) has a policy of its own.
 * PDROUTE_EINVAL names what is unknown, occurs twice or is out of range.
 */
PDROUTE_API int pdroute_policy_new(struct pdroute_policy **out, const char *name,
				   const char *const *parameters, size_t n,
				   struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_policy_free(struct pdroute_policy *p);
PDROUTE_API const char *pdroute_policy_name(const struct pdroute_policy *p);
/* Does it look at prefix blocks (pdroute_request_find_blocks)? */
PDROUTE_API bool pdroute_policy_wants_blocks(const struct pdroute_policy *p);

/* -- pools -- */

/*
 * A list of workers, which may be empty, in an order that counts (the same list gives the same
 * decisions). PDROUTE_EINVAL: more than PDROUTE_WORKERS_MAX, or two of one name.
 */
PDROUTE_API int pdroute_pool_new(struct pdroute_pool **out, struct pdroute_policy *policy,
				 struct pdroute_worker *const *workers, size_t n,
				 struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_pool_free(struct pdroute_pool *p);
PDROUTE_API size_t pdroute_pool_size(const struct pdroute_pool *p);
/* The i-th worker, lent as long as the pool lives; NULL when there is none. */
PDROUTE_API struct pdroute_worker *pdroute_pool_worker(const struct pdroute_pool *p, size_t i);

/* From here on `now` takes the place of `before` (NULL: it is the first): a policy that both share
 * hears who joined and who left. */
PDROUTE_API void pdroute_pool_announce(const struct pdroute_pool *before,
				       const struct pdroute_pool *now, int64_t at_ns);

/* -- session keys -- */

/*
 * Where keys are looked for. `sources` is "header:NAME|body:PATH,..." as --session-key of pdctl
 * serve takes it, NULL the default list; `compat` is NULL or "vllm-router", whose keys and order
 * are reproduced then. PDROUTE_EINVAL names the wrong item.
 */
PDROUTE_API int pdroute_keys_new(struct pdroute_keys **out, const char *sources, const char *compat,
				 struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_keys_free(struct pdroute_keys *k);

/* A header field of a request; names are compared without case. */
struct pdroute_field {
	const char *name;
	size_t name_size;
	const char *value;
	size_t value_size;
};

/*
 * A request body, scanned once: valid JSON (RFC 8259, at most 128 deep) with an object at the top,
 * else PDROUTE_EINVAL with line and column; PDROUTE_ETOOBIG above 4096 members. `text` is borrowed
 * until the free, also by the requests and transfers that use the body.
 */
PDROUTE_API int pdroute_body_new(struct pdroute_body **out, const char *text, size_t size,
				 struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_body_free(struct pdroute_body *b);

/* -- requests -- */

enum pdroute_level { PDROUTE_KEY_NONE, PDROUTE_KEY_PREFIX, PDROUTE_KEY_USER, PDROUTE_KEY_SESSION };

/* A request without a key. Reuse one for many requests: pdroute_request_clear. */
PDROUTE_API int pdroute_request_new(struct pdroute_request **out) PDROUTE_MUST;
PDROUTE_API void pdroute_request_free(struct pdroute_request *r);
/* As it was when it was new. */
PDROUTE_API void pdroute_request_clear(struct pdroute_request *r);

/*
 * The key by the list of sources: the most specific one that has a value. `body` may be NULL. The
 * level is PDROUTE_KEY_NONE when there is none; then pdroute_request_key_from_prompt may help.
 */
PDROUTE_API int pdroute_request_find_key(struct pdroute_request *r, const struct pdroute_keys *keys,
					 const struct pdroute_field *fields, size_t nfields,
					 const struct pdroute_body *body) PDROUTE_MUST;
/* A key by its text, as if a header had carried it: white space around it does not count, a blank
 * one is none. */
PDROUTE_API int pdroute_request_set_key(struct pdroute_request *r, const char *text,
					size_t size) PDROUTE_MUST;
/* A key of the beginning of the prompt, so that equal beginnings meet; none without a prompt. */
PDROUTE_API int pdroute_request_key_from_prompt(struct pdroute_request *r,
						const struct pdroute_body *body) PDROUTE_MUST;

PDROUTE_API enum pdroute_level pdroute_request_key_level(const struct pdroute_request *r);
/* The text that is hashed; "" without a key. *size may be NULL. */
PDROUTE_API const char *pdroute_request_key(const struct pdroute_request *r, size_t *size);
/* "header:x-session-id", "body:session_id", "prefix", ...; "" without a key. */
PDROUTE_API const char *pdroute_request_key_source(const struct pdroute_request *r);

/*
 * The dice of policies that draw. They are a function of these numbers and the role, so that a run
 * can be repeated: `number` counts the decisions, `attempt` the tries of one request from 0.
 */
PDROUTE_API void pdroute_request_set_dice(struct pdroute_request *r, uint64_t seed, uint64_t number,
					  uint32_t attempt);
/* What else policies may look at; 0 or none: not known. Time is a monotonic clock of the caller's,
 * in nanoseconds. */
PDROUTE_API void pdroute_request_set_time(struct pdroute_request *r, int64_t now_ns);
PDROUTE_API void pdroute_request_set_tokens(struct pdroute_request *r, uint32_t prompt_tokens);
PDROUTE_API int pdroute_request_set_model(struct pdroute_request *r, const char *model,
					  size_t size) PDROUTE_MUST;
/* What the request looks like, for policies that read it; borrowed until it is set again, cleared
 * or freed. */
PDROUTE_API int pdroute_request_set_input(struct pdroute_request *r,
					  const struct pdroute_field *fields, size_t nfields,
					  const char *body, size_t size) PDROUTE_MUST;
/* The prompt's full prefix blocks, and its tokens by their bytes, as pdctl serve makes them. Only
 * for policies that want them: a pass over the whole prompt. */
PDROUTE_API int pdroute_request_find_blocks(struct pdroute_request *r,
					    const struct pdroute_body *body) PDROUTE_MUST;
/* The same as the caller knows them: hashed by pdroute_blocks, or in the engine's own way. */
PDROUTE_API int pdroute_request_set_blocks(struct pdroute_request *r, const uint64_t *block,
					   size_t n) PDROUTE_MUST;
/* Chained hashes of the full blocks of `block` bytes each behind `parent` (0: none), at most `max`;
 * returns how many. Equal hashes mean equal beginnings. */
PDROUTE_API size_t pdroute_blocks(uint64_t parent, const void *p, size_t size, size_t block,
				  uint64_t *out, size_t max);
/* This worker is not picked again for the request: it was tried. */
PDROUTE_API int pdroute_request_add_tried(struct pdroute_request *r,
					  const struct pdroute_worker *w) PDROUTE_MUST;

/* -- decisions -- */

/* An empty decision, to be used again and again. */
PDROUTE_API int pdroute_decision_new(struct pdroute_decision **out) PDROUTE_MUST;
/* Releases it first when it is held. */
PDROUTE_API void pdroute_decision_free(struct pdroute_decision *d);

/*
 * Picks a worker and counts the request in flight, in one atomic step, so that a burst of callers
 * spreads. The decision is held then. PDROUTE_ENOENT, PDROUTE_EBUSY; PDROUTE_EINVAL when *d is held
 * already.
 */
PDROUTE_API int pdroute_decide(struct pdroute_pool *pool, const struct pdroute_request *r,
			       struct pdroute_decision *d) PDROUTE_MUST;
/*
 * A prefill and a decode worker, in the order in which pdctl picks them. Fails as pdroute_decide
 * when one role has no worker; nothing is held then, and *failed, which may be NULL, is the pool
 * that had none.
 */
PDROUTE_API int pdroute_decide_pair(struct pdroute_pool *prefill, struct pdroute_pool *decode,
				    const struct pdroute_request *r,
				    struct pdroute_decision *prefill_d,
				    struct pdroute_decision *decode_d,
				    struct pdroute_pool **failed) PDROUTE_MUST;
/* The request has ended, or will not be sent: counts it out, tells the policy and empties the
 * decision. `r`, which may be NULL, is the request with the time of its end. Releasing an empty
 * decision does nothing. */
PDROUTE_API void pdroute_release(struct pdroute_decision *d, const struct pdroute_request *r);

enum pdroute_event {
	PDROUTE_STORED,	 /* the worker holds these prefix blocks now */
	PDROUTE_EVICTED, /* it does not hold them any more */
	PDROUTE_FINISHED /* the session of the request's key will send no more */
};

/* Tells the pool's policy what it cannot see. STORED and EVICTED: worker and blocks. FINISHED:
 * request. What is not asked for may be NULL. */
PDROUTE_API int pdroute_tell(struct pdroute_pool *pool, enum pdroute_event what,
			     const struct pdroute_worker *w, const struct pdroute_request *r,
			     const uint64_t *block, size_t n, int64_t at_ns) PDROUTE_MUST;

/* -- the explanation of a decision, while it is held; NULL and 0 of an empty one -- */

PDROUTE_API struct pdroute_worker *pdroute_decision_worker(const struct pdroute_decision *d);
/* The worker's place in the list of its pool. */
PDROUTE_API size_t pdroute_decision_index(const struct pdroute_decision *d);
/* The first choice of the key, available or not; without a key or an order by key the worker. */
PDROUTE_API struct pdroute_worker *pdroute_decision_home(const struct pdroute_decision *d);
/* "key", "failover", "rotation", "random", "load", "no_key". */
PDROUTE_API const char *pdroute_decision_reason(const struct pdroute_decision *d);
/* The worker's score and its distance to the runner-up, in the policy's own unit: requests in
 * flight, or a part of the hash space. */
PDROUTE_API double pdroute_decision_score(const struct pdroute_decision *d);
PDROUTE_API double pdroute_decision_margin(const struct pdroute_decision *d);
/* Other workers that were equally good. */
PDROUTE_API uint32_t pdroute_decision_ties(const struct pdroute_decision *d);
/* It took a trial of a worker that is not available. */
PDROUTE_API bool pdroute_decision_trial(const struct pdroute_decision *d);
/* What was compared, best first, a few of many. The i-th from 0; *score may be NULL; NULL when
 * there is none. */
PDROUTE_API struct pdroute_worker *pdroute_decision_candidate(const struct pdroute_decision *d,
							      size_t i, double *score);

/*
 * The workers in the order in which the request's key prefers them, available or not, as places in
 * the pool's list: order[0..pdroute_pool_size). Counts nothing. PDROUTE_EINVAL when the policy has
 * no order by key, or the request no key.
 */
PDROUTE_API int pdroute_order(struct pdroute_pool *pool, const struct pdroute_request *r,
			      size_t *order) PDROUTE_MUST;

/* -- prefill/decode connectors -- */

/* The name of the i-th connector, from 0; NULL: there is none. */
PDROUTE_API const char *pdroute_connector_at(size_t i);
/* One line about a connector; NULL for an unknown name. */
PDROUTE_API const char *pdroute_connector_help(const char *name);
/* Can its blocks be read once only? Then a decode that may have read them is not sent again without
 * a new prefill. */
PDROUTE_API bool pdroute_connector_reads_once(const char *name);
/* The path to GET at a prefill worker's bootstrap port once it is healthy, for
 * pdroute_transfer_set_known, and the port when the worker names none; NULL: nothing is asked. */
PDROUTE_API const char *pdroute_connector_inquiry(const char *name, uint16_t *port);

/*
 * One attempt to serve a request by two workers. `path` is that of the request
 * ("/v1/chat/completions"); the body is borrowed until the free. PDROUTE_EINVAL: an unknown
 * connector, a path that is not served by two workers, or a body that a client must not send (it
 * names the host that an engine would connect to).
 */
PDROUTE_API int pdroute_transfer_new(struct pdroute_transfer **out, const char *connector,
				     const char *path, const struct pdroute_body *body,
				     struct pdroute_message *msg) PDROUTE_MUST;
PDROUTE_API void pdroute_transfer_free(struct pdroute_transfer *t);
/*
 * What connectors put into bodies and ids, before the first body is made. The id is the request's,
 * for both workers; an attempt that is repeated needs one of its own. `draw` is a random number,
 * new for each attempt.
 */
PDROUTE_API int pdroute_transfer_set_id(struct pdroute_transfer *t, const char *id, size_t size,
					uint64_t draw) PDROUTE_MUST;

/* Where a worker is. */
struct pdroute_end {
	const char *host;
	uint16_t port;
	uint16_t bootstrap_port;   /* 0: none */
	int rank;		   /* of a data-parallel server; -1: none */
	const char *kv_address;	   /* "host:port" of its KV transfer; NULL: as its HTTP address */
	unsigned tp_size, dp_size; /* tensor and data parallel; 0: not known */
	bool writes; /* MoRI-IO: its blocks are written to the decode worker, not read by it */
};

PDROUTE_API int pdroute_transfer_set_ends(struct pdroute_transfer *t,
					  const struct pdroute_end *prefill,
					  const struct pdroute_end *decode) PDROUTE_MUST;
/*
 * Connectors may have to know something of a prefill worker: what `GET <inquiry>` at its bootstrap
 * port answered, or what an earlier attempt learnt of it. Before the prefill body is made; copied.
 */
PDROUTE_API int pdroute_transfer_set_known(struct pdroute_transfer *t, const char *text,
					   size_t size) PDROUTE_MUST;
/* The head's fields that go with the body that was made last and replace the client's of the same
 * name, from 0 on; false: there is none. Lent until the next body. */
PDROUTE_API bool pdroute_transfer_field(const struct pdroute_transfer *t, size_t i,
					struct pdroute_field *out);
/* The body for the prefill worker. All bytes that need no change are the client's own.
 * PDROUTE_EINVAL: a field that must be changed occurs twice. PDROUTE_ENOENT: the workers cannot be
 * paired, something about one of them is not known. */
PDROUTE_API int pdroute_transfer_prefill(struct pdroute_transfer *t, struct pdroute_text *out,
					 struct pdroute_message *msg) PDROUTE_MUST;
/* Must the decode worker be called while prefill runs? Known with the prefill body. */
PDROUTE_API bool pdroute_transfer_is_concurrent(const struct pdroute_transfer *t);
/* What the prefill worker answered (status 2xx): what decode needs of it is kept. PDROUTE_EINVAL:
 * no JSON object. */
PDROUTE_API int pdroute_transfer_answered(struct pdroute_transfer *t, const char *answer,
					  size_t size, struct pdroute_message *msg) PDROUTE_MUST;
/* What the answer taught of the prefill worker, for pdroute_transfer_set_known of later attempts
 * with it; false: nothing. Lent until the next body. */
PDROUTE_API bool pdroute_transfer_learnt(const struct pdroute_transfer *t, const char **text,
					 size_t *size);
/* Did the answer name blocks that decode can fetch? */
PDROUTE_API bool pdroute_transfer_has_blocks(const struct pdroute_transfer *t);
/* Tokens of the prompt, and those of them that came from the prefix cache; -1: not said. */
PDROUTE_API int64_t pdroute_transfer_prompt_tokens(const struct pdroute_transfer *t);
PDROUTE_API int64_t pdroute_transfer_cached_tokens(const struct pdroute_transfer *t);
/* The body for the decode worker: with the blocks' coordinates, or, without any, with none. */
PDROUTE_API int pdroute_transfer_decode(struct pdroute_transfer *t, struct pdroute_text *out,
					struct pdroute_message *msg) PDROUTE_MUST;
/* The body of a decode of one token that only makes the decode worker fetch and so free the blocks,
 * for a client that left; an empty text when there is nothing to free. */
PDROUTE_API int pdroute_transfer_drop(struct pdroute_transfer *t, struct pdroute_text *out,
				      struct pdroute_message *msg) PDROUTE_MUST;
/*
 * The usage of the whole request: prompt and cached tokens are prefill's, output tokens decode's.
 * `doc` is decode's answer, or the data of one event of its stream. An empty text: nothing has to
 * change, send what you have (also for text that is no JSON, as "[DONE]").
 */
PDROUTE_API int pdroute_transfer_usage(const struct pdroute_transfer *t, const char *doc,
				       size_t size, struct pdroute_text *out) PDROUTE_MUST;

#ifdef __cplusplus
}
#endif

#endif
