/* Everything that is not generation: models, health, load, metrics, tokenize, the journal. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker/impl.h"

int api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
{
	va_list ap;

	e->status = status;
	e->param = param;
	e->type = status >= 500	  ? "InternalServerError"
		  : status == 429 ? "TooManyRequests"
				  : "BadRequestError";
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return status == 404 ? PD_ENOENT : PD_EINVAL;
}

void api_reply_error(struct http_conn *c, const struct api_error *e, const char *extra)
{
	struct jout o;

	jout_init(&o, 8192);
	jout_put(&o, "{\"error\":{\"message\":");
	jout_quote(&o, span_of(e->text));
	jout_fmt(&o, ",\"type\":\"%s\",\"param\":", e->type);
	if (e->param)
		jout_quote(&o, span_of(e->param));
	else
		jout_put(&o, "null");
	jout_fmt(&o, ",\"code\":%d}}", e->status);
	if (!o.err)
		(void)http_reply(c, e->status, "application/json", extra, o.b.data, o.b.len);
	jout_release(&o);
}

void api_reply(struct http_conn *c, struct jout *o)
{
	if (o->err)
		(void)http_reply_error(c, 500, "InternalServerError", NULL,
				       "building the answer failed: %s", pd_err_text(o->err));
	else
		(void)http_reply(c, 200, "application/json", NULL, o->b.data, o->b.len);
}

void page_models(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct jout o;

	(void)r;
	jout_init(&o, 1 << 20);
	jout_put(&o, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < w->cfg.nmodels; i++) {
		struct span name = span_of(w->cfg.models[i]);

		jout_put(&o, i ? ",{\"id\":" : "{\"id\":");
		jout_quote(&o, name);
		jout_fmt(&o,
			 ",\"object\":\"model\",\"created\":%" PRId64
			 ",\"owned_by\":\"vllm\",\"root\":",
			 w->started_wall_s);
		jout_quote(&o, name);
		jout_fmt(&o, ",\"parent\":null,\"max_model_len\":%zu,\"permission\":[]}",
			 w->cfg.max_model_len);
	}
	jout_put(&o, "]}");
	api_reply(c, &o);
	jout_release(&o);
}

void page_health(struct worker *w, struct http_conn *c, struct http_request *r)
{
	bool bad;

	(void)r;
	(void)pthread_mutex_lock(&w->fault_lock);
	bad = w->faults.unhealthy;
	(void)pthread_mutex_unlock(&w->fault_lock);
	(void)http_reply(c, bad ? 503 : 200, NULL, NULL, "", 0);
}

void page_load(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct jout o;
	size_t load;

	(void)r;
	(void)pthread_mutex_lock(&w->lock);
	load = w->engine.running + w->engine.waiting;
	(void)pthread_mutex_unlock(&w->lock);
	jout_init(&o, 256);
	jout_fmt(&o, "{\"server_load\":%zu}", load);
	api_reply(c, &o);
	jout_release(&o);
}

void page_version(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)w;
	(void)r;
	(void)http_reply(c, 200, "application/json", NULL, "{\"version\":\"0.1.0+pdctl\"}", 25);
}

void page_metrics(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct http_server_stats hs;
	struct worker_gauges g = {.model = w->cfg.models[0]};
	struct kvcache_stats kv;
	struct jout o;

	(void)r;
	http_server_stats(worker_http(w), &hs);
	(void)pthread_mutex_lock(&w->lock);
	(void)nixl_expire(w, clock_now());
	kvcache_stats(w->engine.cache, &kv);
	g.running = w->engine.running;
	g.waiting = w->engine.waiting;
	g.queried_tokens = w->engine.queried_tokens;
	g.hit_tokens = w->engine.hit_tokens;
	g.leases = w->leases.live.n;
	(void)pthread_mutex_unlock(&w->lock);
	g.evictions = kv.evictions;
	g.cache_usage = kv.capacity ? (double)kv.pinned / (double)kv.capacity : 0;
	g.connections = hs.connections;
	jout_init(&o, 1 << 20);
	stats_page(&w->stats, &g, &o);
	if (o.err)
		api_reply(c, &o);
	else
		(void)http_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, o.b.data,
				 o.b.len);
	jout_release(&o);
}

void page_requests(struct worker *w, struct http_conn *c, struct http_request *r)
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
	jout_init(&o, WORKER_OUT_MAX);
	journal_write(&w->journal, last, &o);
	api_reply(c, &o);
	jout_release(&o);
}

static void write_tokens(const struct worker *w, const struct gen_request *g, struct jout *o)
{
	jout_fmt(o, "{\"count\":%zu,\"max_model_len\":%zu,\"tokens\":[", g->tokens.n,
		 w->cfg.max_model_len);
	for (size_t i = 0; i < g->tokens.n; i++) {
		if (i > 0)
			jout_put(o, ",");
		jout_uint(o, g->tokens.id[i]);
	}
	jout_put(o, "],\"token_strs\":null}");
}

void page_tokenize(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct gen_request g = {.n = 1};
	struct api_error e = {0};
	struct jout o;
	int err = api_check_json(r, &e);

	if (!err && json_object_scan(&g.body, r->body.p, r->body.n, NULL) != PD_OK)
		err = api_fail(&e, 400, NULL, "JSON decode error");
	if (!err)
		err = api_find_model(w, &g.body, &g.model, &e);
	g.kind = g.model.n && json_object_get(&g.body, "messages") ? GEN_CHAT : GEN_COMPLETION;
	if (!err)
		err = prompt_parse(w, &g, &e);
	jout_init(&o, WORKER_OUT_MAX);
	if (err) {
		api_reply_error(c, &e, NULL);
	} else {
		write_tokens(w, &g, &o);
		api_reply(c, &o);
	}
	jout_release(&o);
	gen_request_release(&g);
}

void page_reset_cache(struct worker *w, struct http_conn *c, struct http_request *r)
{
	(void)r;
	(void)pthread_mutex_lock(&w->lock);
	kvcache_clear(w->engine.cache);
	(void)pthread_mutex_unlock(&w->lock);
	(void)http_reply(c, 200, NULL, NULL, "", 0);
}
