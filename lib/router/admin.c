/* The router's own routes: health, readiness, lists, loads, drain and reload. None of them waits
 * for a place at the gate. */
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/router/router.h"

#define ADMIN_MAX  (8u << 20)
#define JSON_CTYPE "application/json"

static bool path_is(const struct http_request *r, const char *path)
{
	return span_eq(r->head.path, span_of(path));
}

bool admin_route(struct router *rt, const struct http_request *r)
{
	static const char *const own[] = {"/health",	"/liveness", "/readiness", "/list_workers",
					  "/get_loads", "/metrics",  "/reload",	   "/v1/models"};

	(void)rt;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (path_is(r, own[i]))
			return true;
	return path_is(r, "/workers") || span_starts(r->head.path, SPAN("/workers/"));
}

/* -- building answers -- */

static void answer(struct http_conn *c, int status, struct buf *b, int err)
{
	if (err)
		(void)http_reply_error(c, 500, "server_error", NULL, "%s", pd_err_text(err));
	else
		(void)http_reply(c, status, JSON_CTYPE, NULL, b->data, b->len);
}

static int put_text(struct buf *b, const char *s)
{
	return json_quote(b, s, strlen(s));
}

/* What a worker's state is called. Health fields are read under its lock. */
static const char *state_of(struct worker *w)
{
	const char *state;

	(void)pthread_mutex_lock(&w->lock);
	if (w->draining)
		state = "draining";
	else if (!w->healthy)
		state = w->ejected ? "ejected" : "unhealthy";
	else
		state = w->breaker.state == BREAKER_CLOSED ? "available"
							   : breaker_state_name(w->breaker.state);
	(void)pthread_mutex_unlock(&w->lock);
	return state;
}

static bool usable(struct worker *w)
{
	return atomic_load(&w->slot.available);
}

static size_t count_usable(const struct fleet_pool *p)
{
	return fleet_available(p);
}

/* -- health -- */

static void health(struct router *rt, struct http_conn *c)
{
	struct fleet *f = fleet_get(&rt->fleet);
	struct buf b;
	int err = PD_OK;
	size_t bad = 0;

	buf_init(&b, ADMIN_MAX);
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			if (usable(w))
				continue;
			err = buf_printf(&b, "%s%s (%s)",
					 bad++ ? ", " : "Unhealthy servers: ", w->url, state_of(w));
		}
	}
	fleet_put(f);
	if (!bad && !err)
		err = buf_puts(&b, "All servers healthy");
	if (err)
		answer(c, 500, &b, err);
	else
		(void)http_reply(c, bad ? 503 : 200, "text/plain; charset=utf-8", NULL, b.data,
				 b.len);
	buf_release(&b);
}

static int put_readiness(struct router *rt, struct fleet *f, bool ready, const char *why,
			 struct buf *b)
{
	int err = buf_printf(b, "{\"status\":\"%s\"", ready ? "ready" : "not_ready");

	if (!err && why)
		err = buf_printf(b, ",\"reason\":\"%s\"", why);
	if (rt->cfg.pd) {
		for (int r = ROLE_PREFILL; !err && r < ROLES; r++)
			err = buf_printf(b, ",\"%s\":{\"healthy\":%zu,\"total\":%zu}",
					 worker_role_name((enum worker_role)r),
					 count_usable(&f->pool[r]), f->pool[r].n);
	} else if (!err) {
		err = buf_printf(b, ",\"healthy_workers\":%zu,\"total_workers\":%zu",
				 count_usable(&f->pool[ROLE_REGULAR]), f->pool[ROLE_REGULAR].n);
	}
	return err ? err : buf_putc(b, '}');
}

static void readiness(struct router *rt, struct http_conn *c)
{
	struct fleet *f = fleet_get(&rt->fleet);
	bool draining = atomic_load(&rt->draining), ready;
	const char *why = NULL;
	struct buf b;

	if (rt->cfg.pd) {
		bool decode = count_usable(&f->pool[ROLE_DECODE]) > 0,
		     prefill = count_usable(&f->pool[ROLE_PREFILL]) > 0;

		ready = decode && (prefill || rt->cfg.pd_fallback == PD_FALLBACK_DECODE_ONLY);
		why = !decode  ? "no decode worker is available"
		      : !ready ? "no prefill worker is available"
			       : NULL;
	} else {
		ready = count_usable(&f->pool[ROLE_REGULAR]) > 0;
		why = ready ? NULL : "no worker is available";
	}
	if (!atomic_load(&rt->server)) {
		ready = false;
		why = "starting";
	}
	if (draining)
		why = "draining";
	buf_init(&b, ADMIN_MAX);
	answer(c, ready && !draining ? 200 : 503, &b,
	       put_readiness(rt, f, ready && !draining, why, &b));
	buf_release(&b);
	fleet_put(f);
}

/* -- lists -- */

static int put_urls(struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, "{\"urls\":[");
	bool first = true;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			err = buf_puts(b, first ? "" : ",");
			err = err ? err : put_text(b, f->pool[r].worker[i]->url);
		}
	}
	return err ? err : buf_puts(b, "]}");
}

/* The router's own counts: requests in flight per worker. */
static int put_loads(struct router *rt, struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, rt->cfg.pd ? "{\"loads\":{" : "{\"workers\":[");
	bool first = true;
	char name[700];

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			struct worker *w = f->pool[r].worker[i];
			unsigned n = atomic_load(&w->slot.in_flight);

			err = buf_puts(b, first ? "" : ",");
			if (rt->cfg.pd) {
				(void)snprintf(name, sizeof(name), "%s_%s",
					       worker_role_name((enum worker_role)r), w->url);
				err = err ? err : put_text(b, name);
				err = err ? err : buf_printf(b, ":%u", n);
			} else {
				err = err ? err : buf_puts(b, "{\"worker\":");
				err = err ? err : put_text(b, w->url);
				err = err ? err : buf_printf(b, ",\"load\":%u}", n);
			}
		}
	}
	return err ? err : buf_puts(b, rt->cfg.pd ? "},\"errors\":[]}" : "]}");
}

static int put_worker(struct worker *w, struct buf *b)
{
	static const char *const types[] = {"regular", "prefill", "decode"};
	int err = buf_puts(b, "{\"name\":");

	err = err ? err : put_text(b, w->name);
	err = err ? err : buf_puts(b, ",\"url\":");
	err = err ? err : put_text(b, w->url);
	return err ? err
		   : buf_printf(b,
				",\"worker_type\":\"%s\",\"is_healthy\":%s,\"state\":\"%s\","
				"\"load\":%u,\"requests\":%llu,"
				"\"errors\":%llu,\"connections\":%llu,\"idle_connections\":%zu,"
				"\"ejections\":%llu}",
				types[w->role], usable(w) ? "true" : "false", state_of(w),
				(unsigned)atomic_load(&w->slot.in_flight),
				(unsigned long long)atomic_load(&w->requests),
				(unsigned long long)atomic_load(&w->errors),
				(unsigned long long)atomic_load(&w->connects),
				http_pool_idle(&w->pool),
				(unsigned long long)atomic_load(&w->ejections));
}

static int put_workers(struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, "{\"workers\":[");
	size_t total = 0;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			err = buf_puts(b, total++ ? "," : "");
			err = err ? err : put_worker(f->pool[r].worker[i], b);
		}
	}
	return err ? err
		   : buf_printf(b,
				"],\"total\":%zu,\"version\":%llu,\"stats\":{\"prefill_count\":%zu,"
				"\"decode_count\":%zu,"
				"\"regular_count\":%zu}}",
				total, (unsigned long long)f->version, f->pool[ROLE_PREFILL].n,
				f->pool[ROLE_DECODE].n, f->pool[ROLE_REGULAR].n);
}

static void list(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	struct fleet *f = fleet_get(&rt->fleet);
	struct buf b;
	int err;

	buf_init(&b, ADMIN_MAX);
	if (path_is(r, "/list_workers"))
		err = put_urls(f, &b);
	else if (path_is(r, "/get_loads"))
		err = put_loads(rt, f, &b);
	else
		err = put_workers(f, &b);
	answer(c, 200, &b, err);
	buf_release(&b);
	fleet_put(f);
}

/* -- actions -- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX decoded; a name or URL may be written either way in a path. */
static int percent_decode(struct span in, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < in.n; i++) {
		int hi = i + 2 < in.n && in.p[i] == '%' ? hex_digit(in.p[i + 1]) : -1;
		int lo = hi >= 0 ? hex_digit(in.p[i + 2]) : -1;

		if (lo >= 0) {
			err = buf_putc(out, (char)(hi * 16 + lo));
			i += 2;
		} else {
			err = buf_putc(out, in.p[i]);
		}
	}
	return err;
}

/* "/workers/{id}/drain" or "/workers/{id}/undrain" or "/workers/{id}". Takes the action off the end
 * of *id. */
static struct span action_of(struct span *id)
{
	const char *slash = memrchr(id->p, '/', id->n);
	struct span action = {0};

	if (slash) {
		struct span last = {slash + 1, (size_t)(id->p + id->n - slash - 1)};

		if (span_eq(last, SPAN("drain")) || span_eq(last, SPAN("undrain"))) {
			action = last;
			id->n = (size_t)(slash - id->p);
		}
	}
	return action;
}

/* Pages are only read; answering another method as if it were GET would look like success. */
static bool only_reads(struct http_conn *c, const struct http_request *r)
{
	if (span_eq(r->head.method, SPAN("GET")) || span_eq(r->head.method, SPAN("HEAD")))
		return true;
	(void)http_reply_error(c, 405, "invalid_request_error", "Allow: GET, HEAD\r\n", "use GET");
	return false;
}

static void act_on(struct router *rt, struct http_conn *c, const struct http_request *r,
		   struct worker *w, struct span action)
{
	struct buf b;

	if (action.n == 0 && !only_reads(c, r))
		return;
	if (action.n > 0 && !span_eq(r->head.method, SPAN("POST"))) {
		(void)http_reply_error(c, 405, "invalid_request_error", "Allow: POST\r\n",
				       "use POST");
		return;
	}
	if (action.n > 0) {
		worker_set_draining(w, &rt->cfg, action.n == 5);
		log_line(rt->cfg.log, LOG_INFO, "worker %s: %.*s, %u in flight", w->url,
			 (int)action.n, action.p, (unsigned)atomic_load(&w->slot.in_flight));
	}
	buf_init(&b, ADMIN_MAX);
	answer(c, 200, &b, put_worker(w, &b));
	buf_release(&b);
}

static void one_worker(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	struct span id = {r->head.path.p + 9, r->head.path.n - 9}, action = action_of(&id);
	struct fleet *f = fleet_get(&rt->fleet);
	struct worker *w = NULL;
	struct buf name;

	buf_init(&name, 4096);
	if (percent_decode(id, &name) == PD_OK)
		w = fleet_find(f, buf_span(&name));
	if (w)
		act_on(rt, c, r, w, action);
	else
		(void)http_reply_error(c, 404, "WORKER_NOT_FOUND", NULL,
				       "no worker has the name or URL '%.*s'", (int)name.len,
				       name.data ? name.data : "");
	buf_release(&name);
	fleet_put(f);
}

static void reload(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	struct pd_msg msg = {0};
	int err;

	if (!span_eq(r->head.method, SPAN("POST"))) {
		(void)http_reply_error(c, 405, "invalid_request_error", "Allow: POST\r\n",
				       "use POST");
		return;
	}
	err = router_reload(rt, &msg);
	if (err)
		(void)http_reply_error(c, 400, "invalid_request_error", NULL,
				       "%s; nothing was changed", msg.text);
	else
		(void)http_reply(c, 200, JSON_CTYPE, NULL, "{\"status\":\"reloaded\"}", 21);
}

static void metrics(struct router *rt, struct http_conn *c)
{
	struct buf b;
	int err;

	buf_init(&b, ADMIN_MAX);
	err = prom_text(rt, &b);
	if (err)
		answer(c, 500, &b, err);
	else
		(void)http_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, b.data,
				 b.len);
	buf_release(&b);
}

bool admin_answer(struct router *rt, struct http_conn *c, struct http_request *r, bool admin_port)
{
	if (!admin_route(rt, r)) {
		if (admin_port)
			metrics(rt, c);
		return admin_port;
	}
	if (path_is(r, "/health"))
		health(rt, c);
	else if (path_is(r, "/liveness"))
		(void)http_reply(c, 200, "text/plain; charset=utf-8", NULL, "OK", 2);
	else if (path_is(r, "/readiness"))
		readiness(rt, c);
	else if (path_is(r, "/metrics"))
		metrics(rt, c);
	else if (path_is(r, "/reload"))
		reload(rt, c, r);
	else if (span_starts(r->head.path, SPAN("/workers/")))
		one_worker(rt, c, r);
	else if (!only_reads(c, r))
		return true;
	else if (path_is(r, "/v1/models"))
		models_answer(rt, c, r);
	else
		list(rt, c, r);
	return true;
}
