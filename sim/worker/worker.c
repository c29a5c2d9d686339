/*
 * The table of routes, and the life of a worker: its parts are set up from the bottom, and released
 * when the server's threads have ended. Only this file has access to all parts; a page or a handler
 * gets those that it uses.
 */
#include "sim/worker/worker.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/worker/generate.h"
#include "sim/worker/kvread.h"
#include "sim/worker/pages.h"

#define BODY_MAX   ((size_t)512 << 20)
#define STACK_SIZE ((size_t)256 << 10)

struct worker {
	struct worker_config cfg;
	struct http_server *server; /* under core.lock until it has started */
	int64_t started_wall_s;
	struct core core;
	struct worker_stats stats;
	struct fault_box faults;
	struct journal journal;
	struct nixl nixl;
	struct generator gen;
};

/* The server this worker runs on, as soon as it has started. */
static struct http_server *server_of(struct worker *w)
{
	struct http_server *s;

	(void)pthread_mutex_lock(&w->core.lock);
	s = w->server;
	(void)pthread_mutex_unlock(&w->core.lock);
	return s;
}

static void serve_chat(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_CHAT);
}

static void serve_completion(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_COMPLETION);
}

static void serve_embedding(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_EMBEDDING);
}

static void serve_messages(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_MESSAGES);
}

static void serve_responses(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_RESPONSES);
}

static void serve_tokens(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_serve(&w->gen, c, r, GEN_TOKENS);
}

static void serve_models(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_models(&w->cfg, w->started_wall_s, c);
}

static void serve_health(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	(void)http_reply(c, faults_now(&w->faults).unhealthy ? 503 : 200, NULL, NULL, "", 0);
}

static void serve_load(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_load(&w->core, c);
}

static void serve_metrics(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_metrics(&w->nixl, server_of(w), c);
}

static void serve_version(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)w, (void)r;
	(void)http_reply(c, 200, "application/json", NULL, "{\"version\":\"0.1.0+pdctl\"}", 25);
}

/* As with --enable-tokenizer-info-endpoint: what harnesses ask before they tokenize remotely. */
static void serve_tokenizer_info(struct worker *w, struct http_conn *c, struct http_request *r)
{
	static const char info[] = "{\"tokenizer_class\":\"SimulatedTokenizer\",\"bos_token\":null,"
				   "\"eos_token\":\"<|end|>\",\"pad_token\":null}";

	(void)w, (void)r;
	(void)http_reply(c, 200, "application/json", NULL, info, sizeof(info) - 1);
}

static void serve_tokenize(struct worker *w, struct http_conn *c, struct http_request *r)
{
	page_tokenize(&w->cfg, c, r);
}

static void reset_cache(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	(void)pthread_mutex_lock(&w->core.lock);
	kvpool_forget(w->core.engine.sched.kv);
	(void)pthread_mutex_unlock(&w->core.lock);
	(void)http_reply(c, 200, NULL, NULL, "", 0);
}

static void serve_kv_read(struct worker *w, struct http_conn *c, struct http_request *r)
{
	kvread_serve(&w->nixl, c, r);
}

static void serve_faults(struct worker *w, struct http_conn *c, struct http_request *r)
{
	faults_serve(&w->faults, c, r);
}

static void serve_requests(struct worker *w, struct http_conn *c, struct http_request *r)
{
	page_requests(&w->journal, c, r);
}

static const struct route {
	const char *method;
	const char *path;
	void (*serve)(struct worker *w, struct http_conn *c, struct http_request *r);
} routes[] = {
	{"POST", "/v1/chat/completions", serve_chat},
	{"POST", "/v1/completions", serve_completion},
	{"POST", "/v1/embeddings", serve_embedding},
	{"POST", "/v1/messages", serve_messages},
	{"POST", "/v1/responses", serve_responses},
	{"POST", "/inference/v1/generate", serve_tokens},
	{"GET", "/v1/models", serve_models},
	{"GET", "/health", serve_health},
	{"GET", "/ping", serve_health},
	{"POST", "/ping", serve_health},
	{"GET", "/load", serve_load},
	{"GET", "/metrics", serve_metrics},
	{"GET", "/version", serve_version},
	{"POST", "/tokenize", serve_tokenize},
	{"GET", "/tokenizer_info", serve_tokenizer_info},
	{"POST", "/reset_prefix_cache", reset_cache},
	{"POST", "/pdctl/kv/read", serve_kv_read},
	{"GET", "/pdctl/faults", serve_faults},
	{"POST", "/pdctl/faults", serve_faults},
	{"GET", "/pdctl/requests", serve_requests},
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

static void release(struct worker *w)
{
	core_stop(&w->core);
	core_release(&w->core);
	journal_release(&w->journal);
	faults_release(&w->faults);
	free(w);
}

int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg)
{
	struct worker *w = calloc(1, sizeof(*w));
	struct http_server_config s;
	struct stepper_config engine;
	int err;

	if (!w)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	w->cfg = *cfg;
	if (!w->cfg.kv_host)
		w->cfg.kv_host = strcmp(cfg->host, "0.0.0.0") == 0 || strcmp(cfg->host, "::") == 0
					 ? "127.0.0.1"
					 : cfg->host;
	w->started_wall_s = clock_wall() / NS_PER_S;
	stats_init(&w->stats);
	faults_init(&w->faults, &cfg->faults, cfg->seed);
	journal_init(&w->journal);
	engine = worker_engine(cfg);
	err = core_init(&w->core, &engine, msg);
	if (!err && core_start(&w->core))
		err = pd_fail(msg, PD_EIO, "cannot start the thread of the engine");
	if (err) {
		release(w);
		return err;
	}
	err = nixl_start(&w->nixl, &w->cfg, &w->core, &w->stats);
	if (err) {
		release(w);
		return pd_fail(msg, err, "cannot start the thread that ends leases: %s",
			       pd_err_text(err));
	}
	w->gen = (struct generator){.cfg = &w->cfg,
				    .core = &w->core,
				    .nixl = &w->nixl,
				    .stats = &w->stats,
				    .faults = &w->faults,
				    .journal = &w->journal};
	http_server_config_default(&s);
	s.host = w->cfg.host;
	s.port = w->cfg.port;
	s.max_connections = w->cfg.max_connections;
	s.max_body = BODY_MAX;
	s.io = w->cfg.io_threads ? HTTP_IO_THREADS : HTTP_IO_EVENTS;
	s.stack_bytes = STACK_SIZE;
	s.accept_delay_ns = w->cfg.slow_accept_ns;
	s.tls = w->cfg.tls;
	s.log = w->cfg.log;
	s.ctx = w;
	s.on_request = on_request;
	/* Requests may come before the call returns; those that need the server or its port wait
	 * for the lock. */
	(void)pthread_mutex_lock(&w->core.lock);
	err = http_server_start(&w->server, &s, msg);
	if (!err)
		w->nixl.port = http_server_port(w->server);
	(void)pthread_mutex_unlock(&w->core.lock);
	if (!err) {
		*out = w;
		return PD_OK;
	}
	nixl_stop(&w->nixl);
	release(w);
	return err;
}

uint16_t worker_port(struct worker *w)
{
	return http_server_port(server_of(w));
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
	nixl_stop(&w->nixl); /* with connections of the server's threads */
	release(w);
	(void)http_server_free(server);
	return cut;
}
