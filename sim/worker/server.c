/* Life of a simulated worker: the table of routes, the HTTP server, the thread that ends leases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/rng.h"
#include "sim/worker/impl.h"

#define WORKER_STACK ((size_t)256 << 10)

static void serve_chat(struct worker *w, struct http_conn *c, struct http_request *r)
{
	worker_generate(w, c, r, GEN_CHAT);
}

static void serve_completion(struct worker *w, struct http_conn *c, struct http_request *r)
{
	worker_generate(w, c, r, GEN_COMPLETION);
}

static void serve_embedding(struct worker *w, struct http_conn *c, struct http_request *r)
{
	worker_generate(w, c, r, GEN_EMBEDDING);
}

static const struct route {
	const char *method;
	const char *path;
	void (*serve)(struct worker *w, struct http_conn *c, struct http_request *r);
} routes[] = {
	{"POST", "/v1/chat/completions", serve_chat},
	{"POST", "/v1/completions", serve_completion},
	{"POST", "/v1/embeddings", serve_embedding},
	{"GET", "/v1/models", page_models},
	{"GET", "/health", page_health},
	{"GET", "/ping", page_health},
	{"POST", "/ping", page_health},
	{"GET", "/load", page_load},
	{"GET", "/metrics", page_metrics},
	{"GET", "/version", page_version},
	{"POST", "/tokenize", page_tokenize},
	{"POST", "/reset_prefix_cache", page_reset_cache},
	{"POST", "/pdctl/kv/read", nixl_serve_read},
	{"GET", "/pdctl/faults", faults_serve},
	{"POST", "/pdctl/faults", faults_serve},
	{"GET", "/pdctl/requests", page_requests},
};
#define NROUTES (sizeof(routes) / sizeof(routes[0]))

/* vLLM asks for the key on /v1 only. */
static bool authorised(const struct worker *w, const struct http_request *r)
{
	const struct field *f = http_field_tag(&r->head, HTTP_AUTHORIZATION);
	size_t scheme = sizeof("Bearer ") - 1;
	struct span key;

	if (!w->cfg.api_key || !span_starts(r->head.path, SPAN("/v1")))
		return true;
	if (!f || f->value.n < scheme ||
	    !span_eq_case((struct span){f->value.p, scheme}, SPAN("Bearer ")))
		return false;
	key = (struct span){f->value.p + scheme, f->value.n - scheme};
	return span_eq(span_trim(key), span_of(w->cfg.api_key));
}

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct worker *w = ctx;
	bool path_known = false;

	if (!authorised(w, r)) {
		(void)http_reply(c, 401, "application/json", NULL, "{\"error\":\"Unauthorized\"}",
				 24);
		return;
	}
	for (size_t i = 0; i < NROUTES; i++) {
		if (!span_eq(r->head.path, span_of(routes[i].path)))
			continue;
		path_known = true;
		if (span_eq(r->head.method, span_of(routes[i].method))) {
			routes[i].serve(w, c, r);
			return;
		}
	}
	if (path_known)
		(void)http_reply(c, 405, "application/json", NULL,
				 "{\"detail\":\"Method Not Allowed\"}", 31);
	else
		(void)http_reply(c, 404, "application/json", NULL, "{\"detail\":\"Not Found\"}",
				 22);
}

static void *sweep(void *arg)
{
	struct worker *w = arg;

	(void)pthread_mutex_lock(&w->lock);
	while (!w->stopping) {
		int64_t next = nixl_expire(w, clock_now());
		struct timespec ts = {.tv_sec = next / NS_PER_S, .tv_nsec = next % NS_PER_S};

		if (next >= CLOCK_NEVER)
			(void)pthread_cond_wait(&w->lease_added, &w->lock);
		else
			(void)pthread_cond_timedwait(&w->lease_added, &w->lock, &ts);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

void worker_config_default(struct worker_config *cfg)
{
	*cfg = (struct worker_config){
		.host = "127.0.0.1",
		.engine = {.block_size = 16,
			   .num_blocks = 16384,
			   .max_num_seqs = 256,
			   .prefill_tokens_per_s = 50000,
			   .decode_ms_per_token = 10,
			   .speedup = 1},
		.max_model_len = 131072,
		.kv_lease_s = 30,
		.seed = 1,
		.faults = {.fail_status = 500,
			   .fail_retry_after_s = -1,
			   .crash_after = -1,
			   .stall_after = -1,
			   .close_after = -1},
	};
}

static void make_engine_id(struct worker *w)
{
	unsigned char b[16];

	rng_system_bytes(b, sizeof(b));
	(void)snprintf(w->engine_id, sizeof(w->engine_id),
		       "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], (b[8] & 0x3f) | 0x80,
		       b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int init(struct worker *w, const struct worker_config *cfg)
{
	pthread_condattr_t attr;

	w->cfg = *cfg;
	if (!w->cfg.kv_host)
		w->cfg.kv_host = strcmp(cfg->host, "0.0.0.0") == 0 || strcmp(cfg->host, "::") == 0
					 ? "127.0.0.1"
					 : cfg->host;
	make_engine_id(w);
	w->started_wall_s = clock_wall() / NS_PER_S;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_mutex_init(&w->fault_lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->lease_added, &attr);
	(void)pthread_condattr_destroy(&attr);
	w->faults = cfg->faults;
	w->fault_rng = cfg->seed;
	stats_init(&w->stats);
	leases_init(&w->leases);
	journal_init(&w->journal);
	w->kv_pool = kv_pool_new(w->cfg.kv_tls);
	if (!w->kv_pool)
		return PD_ENOMEM;
	return engine_init(&w->engine, &cfg->engine);
}

static int start_server(struct worker *w, struct pd_msg *msg)
{
	struct http_server_config s;
	int err;

	http_server_config_default(&s);
	s.host = w->cfg.host;
	s.port = w->cfg.port;
	s.max_connections = w->cfg.max_connections;
	s.max_body = WORKER_BODY_MAX;
	s.stack_bytes = WORKER_STACK;
	s.accept_delay_ns = w->cfg.slow_accept_ns;
	s.tls = w->cfg.tls;
	s.log = w->cfg.log;
	s.ctx = w;
	s.on_request = on_request;
	/* Requests may come before the call returns; those that need w->server wait for the lock.
	 */
	(void)pthread_mutex_lock(&w->lock);
	err = http_server_start(&w->server, &s, msg);
	(void)pthread_mutex_unlock(&w->lock);
	return err;
}

static void release(struct worker *w)
{
	struct kvcache_pin pin;
	struct lease *l;

	while ((l = leases_due(&w->leases, INT64_MAX))) {
		leases_end(&w->leases, l, LEASE_EXPIRED, &pin);
		engine_unpin(&w->engine, &pin, 0);
	}
	leases_release(&w->leases);
	engine_release(&w->engine);
	journal_release(&w->journal);
	kv_pool_free(w->kv_pool);
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_mutex_destroy(&w->fault_lock);
	(void)pthread_cond_destroy(&w->lease_added);
	free(w);
}

static void stop_sweeper(struct worker *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_cond_signal(&w->lease_added);
	(void)pthread_mutex_unlock(&w->lock);
	if (w->sweeping)
		(void)pthread_join(w->sweeper, NULL);
}

int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = init(w, cfg);
	if (err)
		(void)pd_fail(msg, err, "the engine cannot be set up: %s", pd_err_text(err));
	else if (pthread_create(&w->sweeper, NULL, sweep, w) != 0)
		err = pd_fail(msg, PD_EIO, "cannot start a thread");
	else
		w->sweeping = true;
	if (!err)
		err = start_server(w, msg);
	if (err) {
		stop_sweeper(w);
		release(w);
		return err;
	}
	*out = w;
	return PD_OK;
}

struct http_server *worker_http(struct worker *w)
{
	struct http_server *s;

	(void)pthread_mutex_lock(&w->lock);
	s = w->server;
	(void)pthread_mutex_unlock(&w->lock);
	return s;
}

uint16_t worker_port(struct worker *w)
{
	return http_server_port(worker_http(w));
}

void worker_drain(struct worker *w)
{
	http_server_drain(w->server);
}

unsigned worker_stop(struct worker *w, int64_t deadline)
{
	unsigned cut = http_server_wait(w->server, deadline);
	struct http_server *server = w->server;

	(void)http_server_stop(server);
	stop_sweeper(w);
	release(w); /* with connections of the server's threads */
	(void)http_server_free(server);
	return cut;
}
