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

/* One engine of a data-parallel group. */
struct rank {
	struct core core;
	struct nixl nixl;
	struct generator gen;
};

struct worker {
	struct worker_config cfg;
	pthread_mutex_t lock; /* of the servers until all have started; requests wait for it */
	struct http_server *server;
	struct http_server *side[SIDES]; /* NULL: not asked for */
	int64_t started_wall_s;
	struct worker_stats stats;
	struct fault_box faults;
	struct journal journal;
	struct kv_client *client; /* to other workers */
	struct rank *rank;	  /* owned; cfg.dp_size of them, of which `started` are */
	uint32_t started;
	struct nixl *engine[WORKER_RANKS_MAX];
};

/* Waits until the ports are known. */
static void await_start(struct worker *w)
{
	(void)pthread_mutex_lock(&w->lock);
	(void)pthread_mutex_unlock(&w->lock);
}

/* -- which engine -- */

static size_t load_of(struct core *k)
{
	size_t load;

	(void)pthread_mutex_lock(&k->lock);
	load = 4 * (k->engine.sched.wait.n + k->engine.sched.remote.n) + k->engine.sched.nrun;
	(void)pthread_mutex_unlock(&k->lock);
	return load;
}

/* The rank that X-data-parallel-rank names, else the least loaded, a waiting request counted like
 * four running ones, as vLLM's own balancer does. NULL: it was answered. */
static struct rank *rank_for(struct worker *w, struct http_conn *c, const struct http_request *r)
{
	const struct field *f = http_field(&r->head, "x-data-parallel-rank");
	struct api_error e = {0};
	size_t best = 0, least = SIZE_MAX;
	int64_t n = 0;

	if (f && (json_int(f->value, &n) != PD_OK || n < 0 || n >= (int64_t)w->cfg.dp_size)) {
		(void)api_fail(&e, 400, "data_parallel_rank",
			       "X-data-parallel-rank: found '%.*s', expected 0 to %u",
			       (int)(f->value.n < 40 ? f->value.n : 40), f->value.p,
			       w->cfg.dp_size - 1);
		api_reply_error(c, &e, NULL);
		return NULL;
	}
	if (f)
		return &w->rank[n];
	for (size_t i = 0; w->cfg.dp_size > 1 && i < w->cfg.dp_size; i++) {
		size_t load = load_of(&w->rank[i].core);

		if (load < least) {
			least = load;
			best = i;
		}
	}
	return &w->rank[best];
}

static void generate_at(struct worker *w, struct http_conn *c, struct http_request *r,
			enum gen_kind kind)
{
	struct rank *rank = rank_for(w, c, r);

	if (rank)
		generate_serve(&rank->gen, c, r, kind);
}

/* -- routes -- */

static void serve_chat(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_CHAT);
}

static void serve_completion(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_COMPLETION);
}

static void serve_embedding(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_EMBEDDING);
}

static void serve_messages(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_MESSAGES);
}

static void serve_responses(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_RESPONSES);
}

static void serve_tokens(struct worker *w, struct http_conn *c, struct http_request *r)
{
	generate_at(w, c, r, GEN_TOKENS);
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
	page_load(w->engine, w->cfg.dp_size, c);
}

static void serve_metrics(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_metrics(w->engine, w->cfg.dp_size, w->server, c);
}

static void serve_version(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)w, (void)r;
	(void)http_reply(c, 200, "application/json", NULL, "{\"version\":\"" WORKER_VERSION "\"}",
			 sizeof("{\"version\":\"" WORKER_VERSION "\"}") - 1);
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
	for (uint32_t i = 0; i < w->cfg.dp_size; i++)
		core_forget(&w->rank[i].core);
	(void)http_reply(c, 200, NULL, NULL, "", 0);
}

static void serve_kv_read(struct worker *w, struct http_conn *c, struct http_request *r)
{
	kvread_serve(w->engine, w->cfg.dp_size, c, r);
}

static void serve_faults(struct worker *w, struct http_conn *c, struct http_request *r)
{
	faults_serve(&w->faults, c, r);
}

static void serve_requests(struct worker *w, struct http_conn *c, struct http_request *r)
{
	page_requests(&w->journal, c, r);
}

/* Where the KV events of each rank are, as vllm-router asks for it. */
static void serve_event_sources(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_event_sources(&w->cfg, c);
}

static void serve_server_info(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_server_info(&w->cfg, w->rank[0].core.id, c);
}

/* Mooncake's bootstrap server: the engines by their rank. */
static void serve_query(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct jout o;

	(void)r;
	jout_init(&o, 65536);
	for (uint32_t i = 0; i < w->cfg.dp_size; i++) {
		jout_fmt(&o, "%s\"%u\":{\"engine_id\":", i ? "," : "{", i);
		jout_quote(&o, span_of(w->rank[i].core.id));
		jout_put(&o, "}");
	}
	jout_put(&o, "}");
	api_reply(c, &o);
	jout_release(&o);
}

static void serve_babysitter(struct worker *w, struct http_conn *c, struct http_request *r)
{
	bool good = !faults_now(&w->faults).unhealthy;

	(void)r;
	page_babysitter(&w->cfg, http_server_port(w->server), good, c);
}

static void serve_info(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	page_info(&w->cfg, http_server_port(w->server), clock_wall() / NS_PER_S - w->started_wall_s,
		  c);
}

struct route {
	const char *method;
	const char *path;
	void (*serve)(struct worker *w, struct http_conn *c, struct http_request *r);
};

static const struct route routes[] = {
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
	{"GET", "/kv_event_sources", serve_event_sources},
	{"GET", "/get_server_info", serve_server_info},
	{"POST", "/tokenize", serve_tokenize},
	{"GET", "/tokenizer_info", serve_tokenizer_info},
	{"POST", "/reset_prefix_cache", reset_cache},
	{"POST", "/pdctl/kv/read", serve_kv_read},
	{"GET", "/pdctl/faults", serve_faults},
	{"POST", "/pdctl/faults", serve_faults},
	{"GET", "/pdctl/requests", serve_requests},
	{NULL, NULL, NULL},
};

/* What the ports beside it answer. */
static const struct route side_routes[SIDES][4] = {
	[SIDE_KV] = {{"POST", "/pdctl/kv/read", serve_kv_read}},
	[SIDE_BOOTSTRAP] = {{"GET", "/query", serve_query},
			    {"GET", "/health", serve_health},
			    {"POST", "/pdctl/kv/read", serve_kv_read}},
	[SIDE_HEALTH] = {{"GET", "/health", serve_babysitter},
			 {"GET", "/models", serve_models},
			 {"GET", "/info", serve_info}},
};

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

static void answer(struct worker *w, const struct route *at, struct http_conn *c,
		   struct http_request *r)
{
	bool path_known = false;

	await_start(w);
	for (; at->path; at++) {
		if (!span_eq(r->head.path, span_of(at->path)))
			continue;
		path_known = true;
		if (span_eq(r->head.method, span_of(at->method))) {
			at->serve(w, c, r);
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

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct worker *w = ctx;

	if (authorised(w, r))
		answer(w, routes, c, r);
	else
		(void)http_reply(c, 401, "application/json", NULL, "{\"error\":\"Unauthorized\"}",
				 24);
}

/* No key is asked for on these ports. */
static void on_kv(void *ctx, struct http_conn *c, struct http_request *r)
{
	answer(ctx, side_routes[SIDE_KV], c, r);
}

static void on_bootstrap(void *ctx, struct http_conn *c, struct http_request *r)
{
	answer(ctx, side_routes[SIDE_BOOTSTRAP], c, r);
}

static void on_health(void *ctx, struct http_conn *c, struct http_request *r)
{
	answer(ctx, side_routes[SIDE_HEALTH], c, r);
}

/* -- life -- */

static void release(struct worker *w)
{
	for (uint32_t i = 0; i < w->started; i++)
		nixl_stop(&w->rank[i].nixl);
	for (uint32_t i = 0; w->rank && i < w->cfg.dp_size; i++) {
		core_stop(&w->rank[i].core);
		core_release(&w->rank[i].core);
	}
	free(w->rank);
	kv_client_free(w->client); /* with connections of the server's threads */
	if (w->server)
		(void)http_server_free(w->server);
	journal_release(&w->journal);
	faults_release(&w->faults);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

/* The ports beside it go last: other workers read KV there until their requests have ended. */
static unsigned end_servers(struct worker *w, int64_t deadline)
{
	unsigned cut = 0;

	if (w->server) {
		http_server_drain(w->server);
		cut = http_server_wait(w->server, deadline);
		(void)http_server_stop(w->server);
	}
	for (int i = 0; i < SIDES; i++) {
		if (!w->side[i])
			continue;
		http_server_drain(w->side[i]);
		(void)http_server_wait(w->side[i], clock_now());
		(void)http_server_free(w->side[i]);
	}
	return cut;
}

static int start_events(struct worker *w, uint32_t rank, struct pd_msg *msg)
{
	const struct worker_config *cfg = &w->cfg;
	struct kvevents_config c = {.endpoint = cfg->events_endpoint,
				    .replay_endpoint = cfg->events_replay,
				    .topic = cfg->events_topic ? cfg->events_topic : "",
				    .rank = rank,
				    .block_size = cfg->block_size,
				    .buffer_steps = cfg->events_kept,
				    .hwm = cfg->events_hwm};
	struct kvevents *events;
	struct pd_msg why = {0};
	int err;

	if (!cfg->events_endpoint)
		return PD_OK;
	err = kvevents_start(&events, &c, &why);
	if (err)
		return pd_fail(msg, err, "--kv-events-config: %.400s", why.text);
	core_publish(&w->rank[rank].core, events);
	return PD_OK;
}

static int start_ranks(struct worker *w, struct pd_msg *msg)
{
	struct stepper_config engine = worker_engine(&w->cfg);
	int err = PD_OK;

	w->rank = calloc(w->cfg.dp_size, sizeof(*w->rank));
	w->client = kv_client_new(w->cfg.kv_tls);
	if (!w->rank || !w->client)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < w->cfg.dp_size; i++) {
		struct rank *r = &w->rank[i];
		int one = core_init(&r->core, &engine, msg);

		err = err ? err : one;
		w->engine[i] = &r->nixl;
		r->gen = (struct generator){.cfg = &w->cfg,
					    .core = &r->core,
					    .nixl = &r->nixl,
					    .stats = &w->stats,
					    .faults = &w->faults,
					    .journal = &w->journal};
	}
	for (uint32_t i = 0; !err && i < w->cfg.dp_size; i++) {
		struct rank *r = &w->rank[i];

		err = start_events(w, i, msg);
		if (err)
			return err;
		if (core_start(&r->core))
			return pd_fail(msg, PD_EIO, "cannot start the thread of the engine");
		err = nixl_start(&r->nixl, &w->cfg, &r->core, &w->stats, w->client);
		if (err)
			return pd_fail(msg, err, "cannot start the thread that ends leases: %s",
				       pd_err_text(err));
		w->started++;
	}
	return err;
}

static struct http_server_config server_config(struct worker *w)
{
	struct http_server_config s;

	http_server_config_default(&s);
	s.host = w->cfg.host;
	s.max_body = BODY_MAX;
	s.stack_bytes = STACK_SIZE;
	s.io = w->cfg.io_threads ? HTTP_IO_THREADS : HTTP_IO_EVENTS;
	s.tls = w->cfg.tls;
	s.log = w->cfg.log;
	s.ctx = w;
	return s;
}

static int start_sides(struct worker *w, struct pd_msg *msg)
{
	const struct worker_config *cfg = &w->cfg;
	const struct {
		bool wanted;
		uint16_t port;
		struct tls_context *tls;
		void (*serve)(void *, struct http_conn *, struct http_request *);
		const char *what;
	} sides[SIDES] = {
		[SIDE_KV] = {cfg->kv_port > 0, cfg->kv_port, cfg->tls, on_kv, "KV transfer"},
		[SIDE_BOOTSTRAP] = {cfg->bootstrap, cfg->bootstrap_port, cfg->tls, on_bootstrap,
				    "the bootstrap server"},
		[SIDE_HEALTH] = {cfg->health, cfg->health_port, NULL, on_health, "health pages"},
	};
	struct http_server_config s = server_config(w);
	int err = PD_OK;

	for (int i = 0; !err && i < SIDES; i++) {
		struct pd_msg why = {0};

		if (!sides[i].wanted)
			continue;
		s.port = sides[i].port;
		s.tls = sides[i].tls;
		s.on_request = sides[i].serve;
		s.threads = w->cfg.io_threads ? 0 : 1;
		err = http_server_start(&w->side[i], &s, &why);
		if (err)
			(void)pd_fail(msg, err, "%s: %.400s", sides[i].what, why.text);
	}
	return err;
}

static int start_servers(struct worker *w, struct pd_msg *msg)
{
	struct http_server_config s = server_config(w);
	int err;

	s.port = w->cfg.port;
	s.max_connections = w->cfg.max_connections;
	s.accept_delay_ns = w->cfg.slow_accept_ns;
	s.on_request = on_request;
	/* Requests may come before the call returns; they wait for the lock. */
	(void)pthread_mutex_lock(&w->lock);
	err = http_server_start(&w->server, &s, msg);
	err = err ? err : start_sides(w, msg);
	for (uint32_t i = 0; !err && i < w->cfg.dp_size; i++) {
		w->engine[i]->kv_port = worker_side_port(w, SIDE_KV);
		w->engine[i]->bootstrap_port = worker_side_port(w, SIDE_BOOTSTRAP);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return err;
}

int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	w->cfg = *cfg;
	if (!w->cfg.kv_host)
		w->cfg.kv_host = strcmp(cfg->host, "0.0.0.0") == 0 || strcmp(cfg->host, "::") == 0
					 ? "127.0.0.1"
					 : cfg->host;
	w->started_wall_s = clock_wall() / NS_PER_S;
	(void)pthread_mutex_init(&w->lock, NULL);
	stats_init(&w->stats);
	faults_init(&w->faults, &cfg->faults, cfg->seed);
	journal_init(&w->journal);
	err = start_ranks(w, msg);
	err = err ? err : start_servers(w, msg);
	if (err) {
		(void)end_servers(w, clock_now());
		release(w);
		return err;
	}
	*out = w;
	return PD_OK;
}

uint16_t worker_port(struct worker *w)
{
	return http_server_port(w->server);
}

uint16_t worker_side_port(const struct worker *w, enum worker_side side)
{
	if (w->side[side])
		return http_server_port(w->side[side]);
	return side == SIDE_KV ? http_server_port(w->server) : 0;
}

int worker_models(const struct worker *w, struct buf *out)
{
	return page_models_data(&w->cfg, w->started_wall_s, out);
}

void worker_drain(struct worker *w)
{
	http_server_drain(w->server);
}

unsigned worker_stop(struct worker *w, int64_t deadline)
{
	unsigned cut = end_servers(w, deadline);

	release(w);
	return cut;
}
