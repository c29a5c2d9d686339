/*
 * What the files of the simulated worker share; nobody else includes it. One struct per worker;
 * `lock` guards engine and leases and is never held across I/O or sleep. Counters are atomic.
 */
#ifndef PD_SIM_WORKER_IMPL_H
#define PD_SIM_WORKER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "lib/json/scan.h"
#include "sim/worker/jout.h"
#include "sim/engine/tokens.h"
#include "sim/worker/worker.h"
#include "sim/worker/journal.h"
#include "sim/worker/leases.h"
#include "sim/worker/stats.h"

#define WORKER_BODY_MAX	     ((size_t)512 << 20)
#define WORKER_OUT_MAX	     ((size_t)64 << 20)
#define WORKER_TOKENS_MAX    ((size_t)64 << 20) /* of all prompts of a request */
#define WORKER_PROMPTS_MAX   1024
#define WORKER_N_MAX	     128
#define WORKER_STOP_MAX	     16
#define WORKER_KV_BLOCKS_MAX (1u << 20)
#define WORKER_ID_MAX	     256

struct kv_pool; /* idle connections to prefill workers, kvclient.c */

struct worker {
	struct worker_config cfg;
	struct http_server *server;
	char engine_id[40];
	int64_t started_wall_s;
	pthread_mutex_t lock;
	struct engine engine;
	struct lease_table leases;
	pthread_cond_t lease_added;
	pthread_t sweeper;
	bool sweeping, stopping;
	struct worker_stats stats;
	pthread_mutex_t fault_lock;
	struct worker_faults faults;
	uint64_t fault_seen, fault_rng; /* requests since the faults were set; random state */
	struct journal journal;
	struct kv_pool *kv_pool;
	atomic_ullong next_id;
};

/* The server this worker runs on, as soon as it has started. Takes w->lock. */
struct http_server *worker_http(struct worker *w);

/* An answer in the shape of vLLM's API server. status 0: no error. */
struct api_error {
	int status;
	const char *type;
	const char *param; /* NULL: null */
	char text[400];
};

int api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
	PD_PRINTF(4, 5);
void api_reply_error(struct http_conn *c, const struct api_error *e, const char *extra);

/* -- request.c: what the client asks for -- */

enum gen_kind { GEN_CHAT, GEN_COMPLETION, GEN_EMBEDDING };

/* kv_transfer_params of the request. Spans point into the body. */
struct kv_params {
	bool present, do_remote_decode, do_remote_prefill, complete;
	struct span engine_id, request_id, host; /* JSON strings, quotes included */
	struct span block_ids;
	int64_t port;
};

struct gen_prompt {
	size_t from, n; /* tokens */
};

struct gen_request {
	enum gen_kind kind;
	struct json_object body;
	struct span model; /* the served name; belongs to the configuration */
	struct tokens tokens;
	struct gen_prompt *prompt; /* owned */
	size_t nprompts;
	size_t max_tokens; /* 0: not given */
	bool has_max_completion;
	unsigned n;
	bool stream, include_usage, continuous_usage;
	struct buf stop_text; /* decoded stop strings, one after the other */
	size_t stop_len[WORKER_STOP_MAX], nstops;
	uint64_t salt; /* from cache_salt */
	struct kv_params kv;
	struct span xid;	     /* X-Request-Id; n == 0 when absent */
	char id[WORKER_ID_MAX + 32]; /* of the answer: "chatcmpl-..." */
	/* embeddings */
	size_t dimensions;
	bool base64;
};

/* Fills g from the body; release in every case. PD_EINVAL with *e set. */
int gen_request_parse(struct worker *w, const struct http_request *r, enum gen_kind kind,
		      struct gen_request *g, struct api_error *e) PD_MUST;
void gen_request_release(struct gen_request *g);
/* Refuses anything but application/json, as vLLM does. */
int api_check_json(const struct http_request *r, struct api_error *e) PD_MUST;
/* Model by name: PD_ENOENT with a 404. Absent or null: the first. */
int api_find_model(const struct worker *w, const struct json_object *body, struct span *model,
		   struct api_error *e) PD_MUST;

/* -- prompt.c: prompts to tokens -- */
int prompt_parse(struct worker *w, struct gen_request *g, struct api_error *e) PD_MUST;

/* -- generate.c -- */
void worker_generate(struct worker *w, struct http_conn *c, struct http_request *r,
		     enum gen_kind kind);

/* -- run.c: one prompt through the engine -- */
struct gen_run {
	struct worker *w;
	struct http_conn *c;
	const struct gen_request *g;
	struct worker_faults faults; /* as they were when the request came */
	struct journal_entry *log;
	struct engine_job job;
	uint32_t *ids;	/* prompt and output tokens; owned */
	uint64_t *hash; /* owned */
	uint64_t seed, prompt_hash;
	size_t cut;	    /* stop string found: bytes of the answer to keep; else SIZE_MAX */
	const char *finish; /* "length" or "stop" */
	bool kv_fetched;    /* the prompt's KV came from the prefill worker */
	bool kv_settled;    /* the prefill worker was told, or there is nobody to tell */
	bool prepared;
	char remote_id[WORKER_ID_MAX + 64]; /* of the lease that nixl_offer made; "" when none */
};
/* Prepares tokens, hashes and the answer's length for prompt i. */
int run_prepare(struct gen_run *run, size_t i, struct api_error *e) PD_MUST;
/* Waits for a seat and for the prompt to be computed. PD_ECANCELED: the client left; PD_EINVAL: a
 * mistake under --strict, *e set. */
int run_prefill(struct gen_run *run, struct api_error *e) PD_MUST;
/* Waits until token k exists. PD_ECANCELED when the client left. */
int run_token(struct gen_run *run, size_t k) PD_MUST;
/* Ends the job in whatever state it is; keep as engine_finish. Frees what run_prepare took. */
void run_end(struct gen_run *run, struct kvcache_pin *keep);
size_t run_cached_tokens(const struct gen_run *run);

/* -- answer.c: the bytes of answers and events -- */
/* "id":...,"object":...,"created":...,"model":... */
void answer_head(struct jout *o, const struct gen_request *g, bool chunk, int64_t created);
void answer_usage(struct jout *o, size_t prompt, size_t completion, size_t cached);
/* One element of "choices" of a whole answer. */
void answer_choice(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		   const char *finish);
/* The same of an event, from after "index": on. finish is NULL before the last token. */
void answer_delta(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		  const char *finish);
void answer_role(struct jout *o, size_t index);
/* One element of "data" of an embeddings answer. */
void answer_embedding(struct jout *o, const struct gen_request *g, size_t index, uint64_t seed);

/* -- nixl.c: the hand-over of KV blocks -- */
/* Mistakes that can be seen in the request alone. Returns PD_EINVAL under --strict when there was
 * one (*e set). */
int nixl_check(struct worker *w, struct gen_request *g, struct api_error *e) PD_MUST;
/* Prefill: pins the blocks under a lease and appends the kv_transfer_params object (or null). */
void nixl_offer(struct gen_run *run, struct kvcache_pin *pin, struct jout *o);
/* The answer that carried the offer could not be sent: nobody will ever read the blocks. */
void nixl_withdraw(struct gen_run *run);
/* Decode: asks the prefill worker. PD_OK: fetched; PD_EPROTO: a mistake was counted; else the
 * worker could not be asked. */
int nixl_fetch(struct gen_run *run, struct api_error *e) PD_MUST;
/* POST /pdctl/kv/read */
void nixl_serve_read(struct worker *w, struct http_conn *c, struct http_request *r);
/* Ends leases whose time is over; returns the next one's time or CLOCK_NEVER. The caller holds
 * w->lock. */
int64_t nixl_expire(struct worker *w, int64_t now);
void nixl_mistake(struct worker *w, enum worker_mistake kind, const char *id, const char *fmt, ...)
	PD_PRINTF(4, 5);

/* -- kvclient.c -- */
struct kv_pool *kv_pool_new(struct tls_context *tls);
void kv_pool_free(struct kv_pool *p);
/* One POST to another worker: status and body. PD_EIO, PD_ETIMEOUT, PD_ECLOSED, PD_EPROTO. */
int kv_pool_post(struct kv_pool *p, const char *host, uint16_t port, const char *path,
		 struct span body, int64_t deadline, int *status, struct buf *answer) PD_MUST;

/* -- faults.c -- */
enum fault_action { FAULT_NONE, FAULT_FAIL, FAULT_CRASH };
/* Counts the request and says what happens to it; *f receives the faults in force. */
enum fault_action faults_next(struct worker *w, struct worker_faults *f);
/* GET and POST /pdctl/faults */
void faults_serve(struct worker *w, struct http_conn *c, struct http_request *r);

/* -- pages.c: everything that is not generation -- */
void page_models(struct worker *w, struct http_conn *c, struct http_request *r);
void page_health(struct worker *w, struct http_conn *c, struct http_request *r);
void page_load(struct worker *w, struct http_conn *c, struct http_request *r);
void page_version(struct worker *w, struct http_conn *c, struct http_request *r);
void page_metrics(struct worker *w, struct http_conn *c, struct http_request *r);
void page_requests(struct worker *w, struct http_conn *c, struct http_request *r);
void page_tokenize(struct worker *w, struct http_conn *c, struct http_request *r);
void page_reset_cache(struct worker *w, struct http_conn *c, struct http_request *r);
/* Sends what o holds as JSON, or 500 when building it failed. */
void api_reply(struct http_conn *c, struct jout *o);

#endif
