/* vLLM's pages, as far as routers and tests read them. */
#include "sim/worker/pages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/worker/prompt.h"

#define PAGE_MAX ((size_t)64 << 20)

static void put_models(const struct worker_config *cfg, int64_t created_s, struct jout *o)
{
	jout_put(o, "[");
	for (size_t i = 0; i < cfg->nmodels; i++) {
		struct span name = span_of(cfg->models[i]);

		jout_put(o, i ? ",{\"id\":" : "{\"id\":");
		jout_quote(o, name);
		jout_fmt(o,
			 ",\"object\":\"model\",\"created\":%" PRId64
			 ",\"owned_by\":\"vllm\",\"root\":",
			 created_s);
		jout_quote(o, i < cfg->nmodels - cfg->nadapters ? name : span_of(cfg->models[0]));
		jout_put(o, ",\"parent\":");
		if (i < cfg->nmodels - cfg->nadapters)
			jout_put(o, "null");
		else
			jout_quote(o, span_of(cfg->models[0]));
		jout_fmt(o, ",\"max_model_len\":%zu,\"permission\":[]}", cfg->max_model_len);
	}
	jout_put(o, "]");
}

void page_models(const struct worker_config *cfg, int64_t created_s, struct http_conn *c)
{
	struct jout o;

	jout_init(&o, 1 << 20);
	jout_put(&o, "{\"object\":\"list\",\"data\":");
	put_models(cfg, created_s, &o);
	jout_put(&o, "}");
	api_reply(c, &o);
	jout_release(&o);
}

int page_models_data(const struct worker_config *cfg, int64_t created_s, struct buf *out)
{
	struct jout o;
	int err;

	jout_init(&o, 1 << 20);
	put_models(cfg, created_s, &o);
	err = o.err ? o.err : buf_append(out, o.b.data, o.b.len);
	jout_release(&o);
	return err;
}

void page_load(struct nixl *const *engine, size_t n, struct http_conn *c)
{
	struct jout o;
	size_t load = 0;

	for (size_t i = 0; i < n; i++) {
		struct core *core = engine[i]->core;

		(void)pthread_mutex_lock(&core->lock);
		load += sched_unfinished(&core->engine.sched);
		(void)pthread_mutex_unlock(&core->lock);
	}
	jout_init(&o, 256);
	jout_fmt(&o, "{\"server_load\":%zu}", load);
	api_reply(c, &o);
	jout_release(&o);
}

static void read_gauges(struct nixl *x, struct worker_gauges *g)
{
	const struct sched *engine = &x->core->engine.sched;
	struct kvpool_stats kv;

	(void)pthread_mutex_lock(&x->core->lock);
	(void)nixl_expire(x, clock_now());
	kvpool_stats(engine->kv, &kv);
	g->running = engine->nrun;
	g->waiting = engine->wait.n + engine->remote.n;
	g->queried_tokens = x->core->queried_tokens;
	g->hit_tokens = x->core->hit_tokens;
	g->leases = x->leases.live.n;
	if (x->core->events)
		kvevents_stats(x->core->events, &g->published);
	(void)pthread_mutex_unlock(&x->core->lock);
	g->evictions = kv.evictions;
	g->cache_usage = kv.usable == KVPOOL_BLOCKS_MAX ? 0 : (double)kv.held / (double)kv.usable;
}

void page_metrics(struct nixl *const *engine, size_t n, const struct http_server *server,
		  struct http_conn *c)
{
	struct worker_gauges g[WORKER_RANKS_MAX];
	struct http_server_stats hs;
	struct jout o;

	http_server_stats(server, &hs);
	memset(g, 0, n * sizeof(*g));
	for (size_t i = 0; i < n; i++)
		read_gauges(engine[i], &g[i]);
	jout_init(&o, 1 << 20);
	stats_page(engine[0]->stats, engine[0]->cfg->models[0], g, n, hs.connections, &o);
	if (o.err)
		api_reply(c, &o);
	else
		(void)http_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, o.b.data,
				 o.b.len);
	jout_release(&o);
}

/* "tcp://host:port" with the port of a rank. */
static void put_endpoint(const char *endpoint, uint32_t rank, struct jout *o)
{
	const char *colon = endpoint ? strrchr(endpoint, ':') : NULL;
	char text[512];

	if (!colon || strlen(endpoint) > 400) {
		jout_put(o, "null");
		return;
	}
	(void)snprintf(text, sizeof(text), "%.*s:%lu", (int)(colon - endpoint), endpoint,
		       strtoul(colon + 1, NULL, 10) + rank);
	jout_quote(o, span_of(text));
}

void page_event_sources(const struct worker_config *cfg, struct http_conn *c)
{
	struct jout o;

	jout_init(&o, 65536);
	jout_put(&o, "{");
	for (uint32_t i = 0; cfg->events_endpoint && i < cfg->dp_size; i++) {
		jout_fmt(&o, "%s\"%u\":{\"endpoint\":", i ? "," : "", i);
		put_endpoint(cfg->events_endpoint, i, &o);
		jout_put(&o, ",\"replay_endpoint\":");
		put_endpoint(cfg->events_replay, i, &o);
		jout_put(&o, ",\"topic\":");
		jout_quote(&o, span_of(cfg->events_topic ? cfg->events_topic : ""));
		jout_fmt(&o,
			 ",\"hwm\":%d,\"publisher\":\"zmq\",\"encoding\":\"msgpack\","
			 "\"schema_version\":1,\"enable_kv_cache_events\":true}",
			 cfg->events_hwm);
	}
	jout_put(&o, "}");
	api_reply(c, &o);
	jout_release(&o);
}

void page_server_info(const struct worker_config *cfg, const char *id, struct http_conn *c)
{
	struct jout o;

	jout_init(&o, 65536);
	jout_put(&o, "{\"version\":\"" WORKER_VERSION "\",\"instance_id\":");
	jout_quote(&o, span_of(id));
	jout_put(&o, ",\"model_id\":");
	jout_quote(&o, span_of(cfg->models[0]));
	jout_fmt(&o, ",\"kv_block_size\":%u,\"tensor_parallel_size\":%u,\"data_parallel_size\":%u}",
		 cfg->block_size, cfg->tp_size, cfg->dp_size);
	api_reply(c, &o);
	jout_release(&o);
}

void page_babysitter(const struct worker_config *cfg, uint16_t port, bool good, struct http_conn *c)
{
	struct jout o;

	jout_init(&o, 4096);
	jout_fmt(&o, "{\"status\":\"%s\",\"service\":", good ? "healthy" : "unhealthy");
	jout_quote(&o, span_of(cfg->name ? cfg->name : cfg->models[0]));
	jout_fmt(&o,
		 ",\"babysitter\":\"enhanced\",\"infinilm_server_running\":%s,"
		 "\"infinilm_server_port\":%u,\"timestamp\":%.3f}",
		 good ? "true" : "false", port, (double)clock_wall() / (double)NS_PER_S);
	if (o.err)
		api_reply(c, &o);
	else
		(void)http_reply(c, good ? 200 : 503, "application/json", NULL, o.b.data, o.b.len);
	jout_release(&o);
}

void page_info(const struct worker_config *cfg, uint16_t port, int64_t uptime_s,
	       struct http_conn *c)
{
	bool v6 = strchr(cfg->kv_host, ':') != NULL;
	struct jout o;

	jout_init(&o, 8192);
	jout_put(&o, "{\"name\":");
	jout_quote(&o, span_of(cfg->name ? cfg->name : cfg->models[0]));
	jout_put(&o, ",\"host\":");
	jout_quote(&o, span_of(cfg->kv_host));
	jout_fmt(&o,
		 ",\"port\":%u,\"url\":\"%s://%s%s%s:%u\",\"service_type\":\"" WORKER_TYPE
		 "\",\"infinilm_server_port\":%u,\"uptime\":%" PRId64 ",\"restart_count\":0}",
		 port, cfg->tls ? "https" : "http", v6 ? "[" : "", cfg->kv_host, v6 ? "]" : "",
		 port, port, uptime_s);
	api_reply(c, &o);
	jout_release(&o);
}

void page_requests(struct journal *j, struct http_conn *c, const struct http_request *r)
{
	struct span q = r->head.target;
	size_t last = JOURNAL_MAX;
	struct jout o;

	q.p += r->head.path.n < q.n ? r->head.path.n : q.n;
	q.n -= (size_t)(q.p - r->head.target.p);
	if (span_starts(q, SPAN("?last="))) {
		last = 0;
		for (size_t i = 6; i < q.n && q.p[i] >= '0' && q.p[i] <= '9' && last <= JOURNAL_MAX;
		     i++)
			last = last * 10 + (size_t)(q.p[i] - '0');
	}
	jout_init(&o, PAGE_MAX);
	journal_write(j, last, &o);
	api_reply(c, &o);
	jout_release(&o);
}

void page_tokenize(const struct worker_config *cfg, struct http_conn *c,
		   const struct http_request *r)
{
	struct gen_request g = {.n = 1};
	struct api_error e = {0};
	struct jout o;
	int err = api_check_json(r, &e);

	if (!err && json_object_scan(&g.body, r->body.p, r->body.n, NULL) != PD_OK)
		err = api_fail(&e, 400, NULL, "JSON decode error");
	if (!err)
		err = gen_request_model(&g, cfg, &e);
	g.kind = g.model.n && json_object_get(&g.body, "messages") ? GEN_CHAT : GEN_COMPLETION;
	if (!err)
		err = prompt_parse(&g, cfg->max_model_len, &e);
	jout_init(&o, PAGE_MAX);
	if (err) {
		api_reply_error(c, &e, NULL);
	} else {
		jout_fmt(&o, "{\"count\":%zu,\"max_model_len\":%zu,\"tokens\":[", g.tokens.n,
			 cfg->max_model_len);
		for (size_t i = 0; i < g.tokens.n; i++) {
			if (i > 0)
				jout_put(&o, ",");
			jout_uint(&o, g.tokens.id[i]);
		}
		jout_put(&o, "],\"token_strs\":null}");
		api_reply(c, &o);
	}
	jout_release(&o);
	gen_request_release(&g);
}
