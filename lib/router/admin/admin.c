/*
 * The router's own routes, as one table: path, methods, and whether they are served on the data
 * port. None of them waits for a place at the gate. What changes something is for the admin port,
 * because every client reaches the data port.
 */
#include "lib/router/admin/admin.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/router/admin/admin_fanout.h"
#include "lib/router/admin/admin_lists.h"
#include "lib/router/admin/admin_workers.h"
#include "lib/router/fleet/veil.h"
#include "lib/router/keys/auth.h"
#include "lib/router/page/page_serve.h"

/* -- answers -- */

void admin_answer_json(struct admin_call *a, int status, const char *extra, struct buf *b, int err)
{
	if (err)
		(void)http_reply_error(a->conn, 500, "server_error", NULL, "%s", pd_err_text(err));
	else
		(void)http_reply(a->conn, status, ADMIN_CTYPE, extra, b->data, b->len);
}

void admin_error(struct admin_call *a, int status, const char *type, const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)http_reply_error(a->conn, status, type, status == 503 ? "Retry-After: 1\r\n" : NULL,
			       "%s", text);
}

int admin_put_text(struct buf *b, const char *s)
{
	return json_quote(b, s, strlen(s));
}

/* -- the request -- */

/* Is the method one of "GET, HEAD"? */
static bool is_one_of(struct span method, const char *list)
{
	while (*list) {
		size_t n = strcspn(list, ",");

		if (span_eq(method, (struct span){list, n}))
			return true;
		list += n + strspn(list + n, ", ");
	}
	return false;
}

bool admin_method(struct admin_call *a, const char *allow)
{
	char extra[80];

	if (is_one_of(a->req->head.method, allow))
		return true;
	(void)snprintf(extra, sizeof(extra), "Allow: %s\r\n", allow);
	(void)http_reply_error(a->conn, 405, "invalid_request_error", extra,
			       "found method %.*s, expected %s", (int)a->req->head.method.n,
			       a->req->head.method.p, allow);
	return false;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int admin_percent_decode(struct span in, bool plus, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < in.n; i++) {
		int hi = i + 2 < in.n && in.p[i] == '%' ? hex_digit(in.p[i + 1]) : -1;
		int lo = hi >= 0 ? hex_digit(in.p[i + 2]) : -1;

		if (lo >= 0) {
			err = buf_putc(out, (char)(hi * 16 + lo));
			i += 2;
		} else {
			err = buf_putc(out, plus && in.p[i] == '+' ? ' ' : in.p[i]);
		}
	}
	return err;
}

int admin_query(const struct http_request *r, const char *name, struct buf *out)
{
	const char *end = r->head.target.p + r->head.target.n, *p = r->head.path.p + r->head.path.n;
	size_t len = strlen(name);

	while (p < end) {
		const char *from = p + 1; /* after the ? or & */
		const char *to = from < end ? memchr(from, '&', (size_t)(end - from)) : NULL;

		to = to ? to : end;
		if ((size_t)(to - from) >= len && memcmp(from, name, len) == 0 &&
		    (from + len == to || from[len] == '=')) {
			from += len + (from + len < to);
			return admin_percent_decode((struct span){from, (size_t)(to - from)}, true,
						    out);
		}
		p = to;
	}
	return PD_ENOENT;
}

/* -- health -- */

/* Where keys are asked for this route is open all the same, so it does not name the workers then.
 */
static int put_bad_count(const struct fleet *f, size_t bad, struct buf *b)
{
	size_t n = 0;

	for (int r = 0; r < ROLES; r++)
		n += f->pool[r].n;
	buf_clear(b);
	return buf_printf(b, "Unhealthy servers: %zu of %zu", bad, n);
}

/* Whether the router lives, as a probe asks: workers that are out are named, and are no reason to
 * start it anew. vllm-router answers 503 then. */
static void health(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	char name[VEIL_NAME];
	struct buf b;
	int err = PD_OK;
	size_t bad = 0;

	buf_init(&b, ADMIN_MAX);
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			enum worker_state s = worker_state(w);

			if (atomic_load(&w->slot.available) || s == WORKER_BUSY)
				continue;
			err = buf_printf(&b, "%s%s (%s)", bad++ ? ", " : "Unhealthy servers: ",
					 a->veiled ? veil_name(w, i, name) : w->url,
					 worker_state_name(s));
		}
	}
	if (bad && !err && a->admin->keyed)
		err = put_bad_count(f, bad, &b);
	fleet_put(f);
	if (!bad && !err)
		err = buf_puts(&b, "All servers healthy");
	if (err)
		admin_answer_json(a, 500, NULL, &b, err);
	else
		(void)http_reply(a->conn, bad && a->admin->cfg->compat ? 503 : 200, ADMIN_TEXT,
				 NULL, b.data, b.len);
	buf_release(&b);
}

static int put_readiness(struct admin *ad, struct fleet *f, bool ready, const char *why,
			 struct buf *b)
{
	int err = buf_printf(b, "{\"status\":\"%s\"", ready ? "ready" : "not_ready");

	if (!err && why)
		err = buf_printf(b, ",\"reason\":\"%s\"", why);
	if (ad->cfg->pd) {
		for (int r = ROLE_PREFILL; !err && r < ROLES; r++)
			err = buf_printf(b, ",\"%s\":{\"healthy\":%zu,\"total\":%zu}",
					 worker_role_name((enum worker_role)r),
					 fleet_available(&f->pool[r]), f->pool[r].n);
	} else if (!err) {
		err = buf_printf(b, ",\"healthy_workers\":%zu,\"total_workers\":%zu",
				 fleet_available(&f->pool[ROLE_REGULAR]), f->pool[ROLE_REGULAR].n);
	}
	err = err ? err : admin_put_pools(ad->fleet, ad->cfg->pd, b);
	return err ? err : buf_putc(b, '}');
}

static void readiness(struct admin_call *a)
{
	struct admin *ad = a->admin;
	struct fleet *f = fleet_get(ad->fleet);
	bool draining = atomic_load(&ad->draining), ready;
	const char *why = NULL;
	struct buf b;

	if (ad->cfg->pd) {
		bool decode = fleet_available(&f->pool[ROLE_DECODE]) > 0,
		     prefill = fleet_available(&f->pool[ROLE_PREFILL]) > 0;

		ready = decode && (prefill || ad->cfg->pd_fallback == PD_FALLBACK_DECODE_ONLY);
		why = !decode  ? "no decode worker is available"
		      : !ready ? "no prefill worker is available"
			       : NULL;
	} else {
		ready = fleet_available(&f->pool[ROLE_REGULAR]) > 0;
		why = ready ? NULL : "no worker is available";
	}
	if (!atomic_load(&ad->listening)) {
		ready = false;
		why = "starting";
	}
	if (draining)
		why = "draining";
	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, ready && !draining ? 200 : 503, NULL, &b,
			  put_readiness(ad, f, ready && !draining, why, &b));
	buf_release(&b);
	fleet_put(f);
}

/* -- the rest of this file's routes -- */

static void liveness(struct admin_call *a)
{
	(void)http_reply(a->conn, 200, ADMIN_TEXT, NULL, "OK", 2);
}

static void models(struct admin_call *a)
{
	a->admin->models(a->admin->ctx, a->conn, a->req);
}

static void reload(struct admin_call *a)
{
	struct change ch = {.kind = CHANGE_RELOAD};
	int err = changes_do(a->admin->changes, a->conn, &ch);

	if (err == PD_ECANCELED)
		return;
	if (err == PD_ETIMEOUT)
		admin_error(a, 503, "server_error",
			    "the reload has taken more than %d s and goes on", CHANGE_WAIT_S);
	else if (err == PD_EBUSY)
		admin_error(a, 503, "server_error",
			    "at capacity: %d changes of the fleet pending, try again",
			    CHANGES_QUEUE);
	else if (err)
		admin_error(a, 503, "server_error", "cannot reload: %s", pd_err_text(err));
	else if (ch.err)
		admin_error(a, 400, "invalid_request_error", "%s; nothing was changed",
			    ch.msg.text);
	else
		(void)http_reply(a->conn, 200, ADMIN_CTYPE, NULL, "{\"status\":\"reloaded\"}", 21);
}

static void metrics(struct admin_call *a)
{
	struct buf b;
	int err;

	buf_init(&b, ADMIN_MAX);
	err = a->admin->metrics(a->admin->ctx, &b);
	if (err)
		admin_answer_json(a, 500, NULL, &b, err);
	else
		(void)http_reply(a->conn, 200, "text/plain; version=0.0.4; charset=utf-8", NULL,
				 b.data, b.len);
	buf_release(&b);
}

/* -- the table -- */

static const struct admin_path {
	const char *path; /* with a trailing '*': everything that begins so */
	const char *allow;
	bool acts; /* what is not a GET or HEAD changes something: admin port only */
	void (*serve)(struct admin_call *a);
} paths[] = {
	{"/v1/models", "GET, HEAD", false, models},
	{"/models", "GET, HEAD", false, models},
	{"/health", "GET, HEAD", false, health},
	{"/liveness", "GET, HEAD", false, liveness},
	{"/readiness", "GET, HEAD", false, readiness},
	{"/metrics", "GET, HEAD", false, metrics},
	{"/workers", "GET, HEAD, POST", true, admin_workers},
	{"/workers/*", "GET, HEAD, POST, DELETE", true, admin_one_worker},
	{"/reload", "POST", true, reload},
	{"/list_workers", "GET, HEAD", false, admin_list_workers},
	{"/get_loads", "GET, HEAD", false, admin_get_loads},
	{"/add_worker", "POST", true, admin_add_worker},
	{"/remove_worker", "POST", true, admin_remove_worker},
	{"/flush_cache", "POST", true, admin_flush_cache},
	{"/get_server_info", "GET, HEAD", false, admin_server_info},
	{"/get_model_info", "GET, HEAD", false, admin_model_info},
	{"/finish_session", "POST", false, admin_finish_session},
};

static const struct admin_path *find_path(struct span path)
{
	/* Nearly all requests are for /v1/...: one comparison for them. */
	size_t n = span_starts(path, SPAN("/v1/")) ? 1 : sizeof(paths) / sizeof(paths[0]);

	for (size_t i = 0; i < n; i++) {
		struct span want = span_of(paths[i].path);

		if (want.p[want.n - 1] == '*' ? span_starts(path, (struct span){want.p, want.n - 1})
					      : span_eq(path, want))
			return &paths[i];
	}
	return NULL;
}

bool admin_route(const struct http_request *r)
{
	return find_path(r->head.path) != NULL;
}

bool admin_acts(const struct http_request *r)
{
	const struct admin_path *p = find_path(r->head.path);

	return p && p->acts && !is_one_of(r->head.method, "GET, HEAD");
}

bool admin_generates(const struct http_request *r)
{
	return span_eq(r->head.path, SPAN("/health_generate"));
}

/* False: 401 was sent. */
static bool has_key(struct admin_call *a)
{
	struct span key = auth_key(&a->req->head);

	if (key_is_valid(key) && keys_has(a->admin->keys, key))
		return true;
	atomic_fetch_add(&a->admin->refused, 1);
	(void)http_reply_error(a->conn, 401, "authentication_error",
			       "WWW-Authenticate: Bearer realm=\"pdctl admin\"\r\n", "%s",
			       key.n > 0 ? "invalid admin API key"
					 : "found no admin API key, expected Authorization: Bearer "
					   "with a key of --admin-api-key-file");
	return false;
}

/* The Origin field names the host that the request was sent to: the page is one of ours. */
static bool is_same_origin(const struct http_head *h, struct span origin)
{
	const struct field *host = http_field(h, "host"), *site = http_field(h, "sec-fetch-site");
	size_t scheme = span_starts(origin, SPAN("http://"))	? 7
			: span_starts(origin, SPAN("https://")) ? 8
								: 0;

	return scheme > 0 && host && host->value.n > 0 &&
	       span_eq_case((struct span){origin.p + scheme, origin.n - scheme}, host->value) &&
	       (!site || span_eq(site->value, SPAN("same-origin")));
}

/*
 * A page in a browser may send a POST to any address that the browser reaches, the admin port on
 * this host included; browsers say so with Origin, and no tool for operators does. The router's own
 * page may act with a key; without keys nothing tells its user from anybody's page, because a name
 * may be made to lead here.
 */
static bool may_act_from(struct admin_call *a)
{
	const struct field *origin = http_field(&a->req->head, "origin");

	if (!origin || (a->admin->keys && is_same_origin(&a->req->head, origin->value)))
		return true;
	atomic_fetch_add(&a->admin->refused, 1);
	admin_error(a, 403, "permission_error",
		    "found Origin %.*s, expected %s: web pages may not change the fleet",
		    (int)(origin->value.n < 200 ? origin->value.n : 200), origin->value.p,
		    a->admin->keys ? "none, or that of this port's own page"
				   : "none without --admin-api-key-file");
	return false;
}

static bool may_act(struct admin_call *a, bool admin_port)
{
	const struct router_config *c = a->admin->cfg;

	if (is_one_of(a->req->head.method, "GET, HEAD"))
		return true;
	if (!admin_port && !c->admin_on_data_port) {
		atomic_fetch_add(&a->admin->refused, 1);
		admin_error(a, 403, "permission_error",
			    "%.*s %.*s is for the admin port: %s, or start the router with "
			    "--admin-on-data-port",
			    (int)a->req->head.method.n, a->req->head.method.p,
			    (int)(a->req->head.path.n < 200 ? a->req->head.path.n : 200),
			    a->req->head.path.p,
			    c->metrics_port < 0
				    ? "this router has none; give it one with --admin-port"
				    : "send it to the address of --admin-port");
		return false;
	}
	if (a->admin->keys && !has_key(a))
		return false;
	return may_act_from(a);
}

/* Any path of the admin port shows the metrics, as vllm-router's does; but nothing that was meant
 * to change something may look like a success. */
static void any_path(struct admin_call *a)
{
	if (is_one_of(a->req->head.method, "GET, HEAD"))
		metrics(a);
	else
		admin_error(a, 404, "not_found_error", "the admin port has no route %.*s",
			    (int)(a->req->head.path.n < 200 ? a->req->head.path.n : 200),
			    a->req->head.path.p);
}

static void page(struct admin_call *a)
{
	struct buf key;

	buf_init(&key, 4096);
	if (admin_query(a->req, "key", &key) == PD_ETOOBIG)
		admin_error(a, 400, "invalid_request_error",
			    "key: found more than 4096 bytes, expected a session key");
	else
		page_serve(a->admin->page, a->conn, a->req, buf_span(&key));
	buf_release(&key);
}

bool admin_answer(struct admin *ad, struct http_conn *c, struct http_request *r, bool admin_port)
{
	const struct admin_path *p = find_path(r->head.path);
	struct admin_call a = {.admin = ad, .conn = c, .req = r};

	/* Whoever may change the fleet knows where it is. */
	a.veiled = !admin_port && !ad->cfg->expose_workers && !ad->cfg->admin_on_data_port;
	if (!p && !admin_port)
		return false;
	if (!p && page_route(r)) {
		page(&a);
		return true;
	}
	if (!p && admin_generates(r))
		ad->generate(ad->ctx, c, r);
	else if (!p)
		any_path(&a);
	else if ((!p->acts || may_act(&a, admin_port)) && admin_method(&a, p->allow))
		p->serve(&a);
	return true;
}

void admin_scrape(struct admin *ad, struct http_conn *c, struct http_request *r)
{
	const struct admin_path *p = find_path(r->head.path);
	struct admin_call a = {.admin = ad, .veiled = true, .conn = c, .req = r};

	if (!admin_method(&a, "GET, HEAD"))
		return;
	if (p && (p->serve == health || p->serve == liveness || p->serve == readiness))
		p->serve(&a);
	else
		metrics(&a);
}
