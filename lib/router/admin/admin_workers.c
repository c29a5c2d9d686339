/*
 * Workers come, go and pause while requests run: the REST routes below /workers, and vllm-router's
 * older /add_worker and /remove_worker. Adding resolves a name, so it is handed to another thread
 * (changes.h); all else marks a worker and returns.
 */
#include "lib/router/admin/admin_workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/nearest.h"
#include "lib/json/scan.h"
#include "lib/router/admin/admin_lists.h"

#define HEALTH_STEP (50 * NS_PER_MS)  /* how often a handler looks whether its worker is there */
#define GONE_WAIT   (400 * NS_PER_MS) /* an idle worker is gone by then */

/* The worker that a request asks to add. */
struct wanted {
	enum worker_role role; /* ROLES: not said */
	bool wait;
	struct buf name, url;
	int bootstrap;
	struct route_labels labels; /* owned */
};

static void wanted_init(struct wanted *w)
{
	*w = (struct wanted){.role = ROLES};
	buf_init(&w->name, 256);
	buf_init(&w->url, 640);
}

static void wanted_release(struct wanted *w)
{
	buf_release(&w->name);
	buf_release(&w->url);
	route_labels_release(&w->labels);
}

/* -- the workers that an id means -- */

struct matches {
	struct fleet *fleet;
	struct worker **worker; /* owned array, valid while the fleet is held */
	size_t n;
};

static int find_matches(struct matches *m, struct admin *ad, enum worker_role role, struct span id)
{
	m->fleet = fleet_get(ad->fleet);
	m->n = 0;
	m->worker = calloc(ROUTE_WORKERS_MAX, sizeof(struct worker *));
	if (!m->worker)
		return PD_ENOMEM;
	m->n = fleet_match(m->fleet, role, id, m->worker, ROUTE_WORKERS_MAX);
	m->n = m->n < ROUTE_WORKERS_MAX ? m->n : ROUTE_WORKERS_MAX;
	return m->n > 0 ? PD_OK : PD_ENOENT;
}

static void release_matches(struct matches *m)
{
	free(m->worker);
	fleet_put(m->fleet);
}

static void not_found(struct admin_call *a, enum worker_role role, struct span id)
{
	admin_error(a, 404, "WORKER_NOT_FOUND",
		    "no %s%sworker has the name or URL '%.*s'; GET /workers lists them",
		    role == ROLES ? "" : worker_role_name(role), role == ROLES ? "" : " ",
		    (int)(id.n < 700 ? id.n : 700), id.p ? id.p : "");
}

static int put_array(const struct admin_call *a, const struct matches *m, struct buf *b)
{
	int err = buf_putc(b, '[');

	for (size_t i = 0; !err && i < m->n; i++) {
		err = i > 0 ? buf_putc(b, ',') : PD_OK;
		err = err ? err : admin_put_worker(a, m->fleet, m->worker[i], b);
	}
	return err ? err : buf_putc(b, ']');
}

/* One worker as an object, the ranks of a server as {"workers":[...]}. */
static int put_matches(const struct admin_call *a, const struct matches *m, struct buf *b)
{
	int err;

	if (m->n == 1)
		return admin_put_worker(a, m->fleet, m->worker[0], b);
	err = buf_puts(b, "{\"workers\":");
	err = err ? err : put_array(a, m, b);
	return err ? err : buf_putc(b, '}');
}

/* -- adding: what the request says -- */

static int parse_role(enum worker_role *out, const char *text, struct pd_msg *msg)
{
	for (int r = 0; r < ROLES; r++) {
		if (strcmp(text, worker_role_name((enum worker_role)r)) == 0) {
			*out = (enum worker_role)r;
			return PD_OK;
		}
	}
	return pd_fail(msg, PD_EINVAL, "worker_type: found '%.60s', expected %s", text,
		       "regular, prefill or decode");
}

/* The query parameter worker_type or role; *out stays when there is none. */
static int query_role(struct admin_call *a, enum worker_role *out, struct pd_msg *msg)
{
	struct buf b;
	int err;

	buf_init(&b, 64);
	err = admin_query(a->req, "worker_type", &b);
	if (err == PD_ENOENT)
		err = admin_query(a->req, "role", &b);
	if (err == PD_ENOENT)
		err = PD_OK;
	else
		err = parse_role(out, err || !b.data ? "" : b.data, msg);
	buf_release(&b);
	return err;
}

/* The router's mode decides which roles there are; a plain pool has one, which need not be said. */
static int check_role(const struct admin *ad, struct wanted *w, struct pd_msg *msg)
{
	if (ad->cfg->pd && (w->role == ROLE_REGULAR || w->role == ROLES))
		return pd_fail(
			msg, PD_EINVAL,
			"worker_type: found %s, expected prefill or decode: this router runs "
			"prefill and decode pools",
			w->role == ROLES ? "none" : "regular");
	if (!ad->cfg->pd && w->role == ROLES)
		w->role = ROLE_REGULAR;
	if (!ad->cfg->pd && w->role != ROLE_REGULAR)
		return pd_fail(msg, PD_EINVAL,
			       "worker_type: found %s, expected regular: this router runs a plain "
			       "pool",
			       worker_role_name(w->role));
	return PD_OK;
}

static bool is_printable(const struct buf *b)
{
	for (size_t i = 0; i < b->len; i++)
		if ((unsigned char)b->data[i] < ' ' || b->data[i] == 127)
			return false;
	return true;
}

static int read_text(const struct json_member *m, const char *name, struct buf *out,
		     struct pd_msg *msg)
{
	if (m->type != JSON_STRING)
		return pd_fail(msg, PD_EINVAL, "%s: found %.*s, expected a string", name,
			       (int)(m->value.n < 60 ? m->value.n : 60), m->value.p);
	if (json_string_decode(m->value, out) || !is_printable(out))
		return pd_fail(msg, PD_EINVAL,
			       "%s: found a string that is too long or has control characters",
			       name);
	return PD_OK;
}

static int read_port(const struct json_member *m, struct wanted *w, struct pd_msg *msg)
{
	int64_t port = 0;

	if (m->type == JSON_NULL)
		return PD_OK;
	if (m->type != JSON_NUMBER || json_int(m->value, &port) || port < 1 || port > 65535)
		return pd_fail(msg, PD_EINVAL,
			       "bootstrap_port: found %.*s, expected a port number or null",
			       (int)(m->value.n < 60 ? m->value.n : 60), m->value.p);
	w->bootstrap = (int)port;
	return PD_OK;
}

static int set_label(struct wanted *w, struct span name, const struct json_member *m,
		     struct pd_msg *msg)
{
	struct buf text;
	int err = PD_OK;

	buf_init(&text, ROUTE_LABEL_TEXT_MAX);
	if (m->type == JSON_STRING)
		err = json_string_decode(m->value, &text) || !is_printable(&text) ||
		      memchr(text.data ? text.data : "", '\0', text.len);
	else if (m->type == JSON_NUMBER || m->type == JSON_TRUE || m->type == JSON_FALSE)
		err = buf_append(&text, m->value.p, m->value.n);
	else if (m->type != JSON_NULL)
		err = PD_EINVAL;
	if (!err && m->type != JSON_NULL)
		err = route_labels_set(&w->labels, name, buf_span(&text));
	buf_release(&text);
	return err ? pd_fail(msg, PD_EINVAL,
			     "%.*s: found %.*s, expected a text of at most %d bytes, in at most %d "
			     "labels",
			     (int)name.n, name.p, (int)(m->value.n < 60 ? m->value.n : 60),
			     m->value.p, ROUTE_LABEL_TEXT_MAX, ROUTE_LABELS_MAX)
		   : PD_OK;
}

static int read_labels(struct wanted *w, const struct json_member *m, struct pd_msg *msg)
{
	struct json_object o;
	int err = PD_OK;

	if (m->type == JSON_NULL)
		return PD_OK;
	if (m->type != JSON_OBJECT || json_object_scan(&o, m->value.p, m->value.n, NULL))
		return pd_fail(msg, PD_EINVAL, "labels: found %.*s, expected an object of strings",
			       (int)(m->value.n < 60 ? m->value.n : 60), m->value.p);
	for (size_t i = 0; !err && i < o.n; i++) {
		struct buf name;

		buf_init(&name, ROUTE_LABEL_TEXT_MAX);
		err = json_string_decode(
			      (struct span){o.member[i].key.p - 1, o.member[i].key.n + 2}, &name) ||
				      !is_printable(&name)
			      ? pd_fail(msg, PD_EINVAL, "labels: found a name that cannot be used")
			      : set_label(w, buf_span(&name), &o.member[i], msg);
		buf_release(&name);
	}
	json_object_release(&o);
	return err;
}

/* The last ones are labels: selectors and filters read them. */
static const char *const members[] = {"url",	  "name", "worker_type", "role",   "bootstrap_port",
				      "model_id", "cost", "priority",	 "labels", NULL};

static int read_member(struct wanted *w, const struct json_member *m, struct pd_msg *msg)
{
	const char *near;
	struct buf text;
	size_t i = 0;
	int err;

	while (members[i] && !json_member_is(m, members[i]))
		i++;
	buf_init(&text, 256);
	switch (i) {
	case 0:
		err = read_text(m, "url", &w->url, msg);
		break;
	case 1:
		err = m->type == JSON_NULL ? PD_OK : read_text(m, "name", &w->name, msg);
		break;
	case 2:
	case 3:
		err = m->type == JSON_NULL ? PD_OK : read_text(m, members[i], &text, msg);
		if (!err && text.data)
			err = parse_role(&w->role, text.data, msg);
		break;
	case 4:
		err = read_port(m, w, msg);
		break;
	case 5:
	case 6:
	case 7:
		err = set_label(w, span_of(members[i]), m, msg);
		break;
	case 8:
		err = read_labels(w, m, msg);
		break;
	default:
		err = PD_OK;
		break;
	}
	if (!members[i] && buf_append(&text, m->key.p, m->key.n) == PD_OK) {
		near = nearest_word(text.data, members);
		err = pd_fail(msg, PD_EINVAL, "unknown member '%.60s'%s%s%s", text.data,
			      near ? ", did you mean '" : ", expected url, name, worker_type, ",
			      near ? near : "bootstrap_port", near ? "'?" : "");
	}
	buf_release(&text);
	return err;
}

static int read_wanted(struct wanted *w, struct span body, struct pd_msg *msg)
{
	static const char example[] =
		"{\"url\": \"http://HOST:PORT\", \"worker_type\": \"decode\"}";
	struct pd_msg inner = {0};
	struct json_object o;
	int err = json_object_scan(&o, body.p, body.n, &inner);

	if (err)
		return pd_fail(msg, PD_EINVAL, "body: %.300s; expected JSON like %s", inner.text,
			       example);
	for (size_t i = 0; !err && i < o.n; i++)
		err = read_member(w, &o.member[i], msg);
	json_object_release(&o);
	if (!err && w->url.len == 0)
		err = pd_fail(msg, PD_EINVAL, "url: found none, expected JSON like %s", example);
	if (!err && w->name.data && memchr(w->name.data, '=', w->name.len))
		err = pd_fail(msg, PD_EINVAL, "name: found '%.100s', expected a name without '='",
			      w->name.data);
	return err;
}

/* -- adding: doing it -- */

static int hand_over(struct admin_call *a, const struct wanted *w, struct change *ch)
{
	int n = snprintf(ch->text, sizeof(ch->text), "%s%s%s", w->name.len ? w->name.data : "",
			 w->name.len ? "=" : "", w->url.data);

	ch->kind = CHANGE_ADD;
	ch->role = w->role;
	ch->bootstrap = w->bootstrap;
	ch->labels = w->labels;
	if (n < 0 || (size_t)n >= sizeof(ch->text))
		return PD_ETOOBIG;
	return changes_do(a->admin->changes, a->conn, ch);
}

/* The worker (or its ranks) with this URL and role; false when it is gone. */
static bool find_added(struct matches *m, struct admin *ad, const struct wanted *w)
{
	return find_matches(m, ad, w->role, buf_span(&w->url)) == PD_OK;
}

static bool all_available(const struct matches *m)
{
	for (size_t i = 0; i < m->n; i++)
		if (!atomic_load(&m->worker[i]->slot.available))
			return false;
	return m->n > 0;
}

/* PD_OK: it is healthy. PD_ETIMEOUT, PD_ENOENT (removed meanwhile), PD_ECANCELED (the client left).
 */
static int await_health(struct admin_call *a, const struct wanted *w)
{
	int64_t now = clock_now(), deadline = now + a->admin->cfg->startup_timeout;
	struct matches m;
	bool here, ready;

	for (;; now = clock_now()) {
		here = find_added(&m, a->admin, w);
		ready = all_available(&m);
		release_matches(&m);
		if (ready || !here)
			return ready ? PD_OK : PD_ENOENT;
		if (now >= deadline || atomic_load(&a->admin->draining))
			return PD_ETIMEOUT;
		if (http_conn_sleep(a->conn, now + HEALTH_STEP))
			return PD_ECANCELED;
	}
}

/* Half an addition is none. `why` gets what was wrong with its health. */
static void take_back(struct admin *ad, const struct wanted *w, char *why, size_t cap)
{
	struct matches m;

	why[0] = '\0';
	(void)find_added(&m, ad, w);
	for (size_t i = 0; i < m.n; i++) {
		if (!why[0])
			worker_note_get(m.worker[i], why, cap);
		worker_leave(m.worker[i], true);
	}
	release_matches(&m);
	changes_reap(ad->changes);
}

/* Adds, waits when asked to, and says in *status and msg what came of it; 0: the client left. */
static int add(struct admin_call *a, const struct wanted *w, struct pd_msg *msg)
{
	struct change *ch = calloc(1, sizeof(*ch));
	int err = ch ? hand_over(a, w, ch) : PD_ENOMEM, status = 202;
	char why[160];

	if (err == PD_ECANCELED)
		status = 0;
	else if (err) {
		if (err == PD_EBUSY)
			(void)pd_fail(msg, err,
				      "at capacity: %d changes of the fleet pending, try again",
				      CHANGES_QUEUE);
		else
			(void)pd_fail(msg, err, "cannot add the worker: %s", pd_err_text(err));
		status = err == PD_ETOOBIG ? 400 : 503;
	} else if (ch->err) {
		*msg = ch->msg;
		status = ch->err == PD_EEXIST ? 409 : ch->err == PD_ENOMEM ? 503 : 400;
	} else if (w->wait) {
		err = await_health(a, w);
		status = err == PD_OK ? 201 : err == PD_ECANCELED ? 0 : 504;
		if (status == 504) {
			take_back(a->admin, w, why, sizeof(why));
			(void)pd_fail(msg, err,
				      "worker %.200s: not healthy within %g s, removed again: %s",
				      w->url.data, (double)a->admin->cfg->startup_timeout / 1e9,
				      why[0] ? why : "no health check has finished");
		}
	}
	free(ch);
	return status;
}

static void answer_added(struct admin_call *a, const struct wanted *w, int status)
{
	struct matches m;
	struct buf b;
	int err;

	if (!find_added(&m, a->admin, w)) {
		release_matches(&m);
		admin_error(a, 409, "WORKER_NOT_FOUND",
			    "worker %.200s has been removed in the meantime", w->url.data);
		return;
	}
	buf_init(&b, ADMIN_MAX);
	err = buf_puts(&b, "{\"success\":true,\"message\":");
	err = err ? err
		  : admin_put_text(&b, all_available(&m)
					       ? "worker added"
					       : "worker added; it gets requests after its first "
						 "successful health check");
	err = err ? err : buf_puts(&b, m.n == 1 ? ",\"worker\":" : ",\"workers\":");
	if (!err)
		err = m.n == 1 ? admin_put_worker(a, m.fleet, m.worker[0], &b)
			       : put_array(a, &m, &b);
	err = err ? err : buf_putc(&b, '}');
	if (a->admin->cfg->compat)
		status = 200;
	else if (all_available(&m))
		status = 201;
	admin_answer_json(a, status, NULL, &b, err);
	buf_release(&b);
	release_matches(&m);
}

static bool is_set(const struct http_request *r, const char *name)
{
	struct buf b;
	bool on;

	buf_init(&b, 64);
	on = admin_query(r, name, &b) == PD_OK &&
	     (b.len == 0 || strcmp(b.data, "true") == 0 || strcmp(b.data, "1") == 0);
	buf_release(&b);
	return on;
}

/* POST /workers */
static void create(struct admin_call *a)
{
	bool compat = a->admin->cfg->compat;
	struct pd_msg msg = {0};
	struct wanted w;
	int status;

	wanted_init(&w);
	w.wait = compat || is_set(a->req, "wait");
	if (read_wanted(&w, a->req->body, &msg) || check_role(a->admin, &w, &msg))
		status = 400;
	else
		status = add(a, &w, &msg);
	if (status == 201 || status == 202)
		answer_added(a, &w, status);
	else if (status)
		admin_error(a, compat ? 400 : status,
			    status == 409 ? "WORKER_EXISTS" : "ADD_WORKER_FAILED", "%s", msg.text);
	wanted_release(&w);
}

void admin_workers(struct admin_call *a)
{
	if (span_eq(a->req->head.method, SPAN("POST")))
		create(a);
	else
		admin_workers_list(a);
}

/* -- /workers/ID -- */

/* Takes "/drain" or "/undrain" off the end of *id. */
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

static void leave(struct admin *ad, const struct matches *m, bool force)
{
	for (size_t i = 0; i < m->n; i++) {
		struct worker *w = m->worker[i];

		worker_leave(w, force);
		log_event(ad->cfg->log, LOG_INFO, "worker_removing",
			  LOG_FIELDS(LOG_TEXT("role", worker_role_name(w->role)),
				     LOG_TEXT("worker", w->url), LOG_NUMBER("at_once", force),
				     LOG_NUMBER("in_flight", atomic_load(&w->slot.in_flight))),
			  "%s worker %s: removing%s, %u in flight", worker_role_name(w->role),
			  w->url, force ? " at once" : "",
			  (unsigned)atomic_load(&w->slot.in_flight));
	}
	changes_reap(ad->changes);
}

static unsigned in_flight(const struct matches *m)
{
	unsigned n = 0;

	for (size_t i = 0; i < m->n; i++)
		n += atomic_load(&m->worker[i]->slot.in_flight);
	return n;
}

/* Waits a moment for workers that have nothing to do; true when they are out of the fleet. */
static bool gone_soon(struct admin_call *a, enum worker_role role, struct span id)
{
	int64_t now = clock_now(), deadline = now + GONE_WAIT;
	struct matches m;
	bool gone;

	for (;; now = clock_now()) {
		gone = find_matches(&m, a->admin, role, id) == PD_ENOENT;
		release_matches(&m);
		if (gone || now >= deadline || http_conn_sleep(a->conn, now + HEALTH_STEP / 2))
			return gone;
	}
}

/* DELETE /workers/ID */
static void delete_one(struct admin_call *a, struct matches *m, enum worker_role role,
		       struct span id)
{
	bool force = is_set(a->req, "force"), gone;
	char text[900];
	struct buf b;
	int err;

	leave(a->admin, m, force);
	gone = gone_soon(a, role, id);
	if (gone)
		(void)snprintf(text, sizeof(text), "Worker %.*s removed successfully",
			       (int)(id.n < 700 ? id.n : 700), id.p);
	else
		(void)snprintf(text, sizeof(text),
			       "Worker %.*s gets no new requests and is removed when its %u in "
			       "flight have ended",
			       (int)(id.n < 700 ? id.n : 700), id.p, in_flight(m));
	buf_init(&b, ADMIN_MAX);
	err = buf_puts(&b, "{\"success\":true,\"message\":");
	err = err ? err : admin_put_text(&b, text);
	err = err ? err : buf_putc(&b, '}');
	admin_answer_json(a, gone || a->admin->cfg->compat ? 200 : 202, NULL, &b, err);
	buf_release(&b);
}

static void act_on(struct admin_call *a, struct matches *m, enum worker_role role, struct span id,
		   struct span action)
{
	struct buf b;

	if (!admin_method(a, action.n > 0 ? "POST" : "GET, HEAD, DELETE"))
		return;
	if (span_eq(a->req->head.method, SPAN("DELETE"))) {
		delete_one(a, m, role, id);
		return;
	}
	for (size_t i = 0; action.n > 0 && i < m->n; i++)
		worker_set_draining(m->worker[i], span_eq(action, SPAN("drain")));
	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_matches(a, m, &b));
	buf_release(&b);
}

void admin_one_worker(struct admin_call *a)
{
	const struct span path = a->req->head.path;
	struct span id = {path.p + 9, path.n - 9}, action = action_of(&id);
	enum worker_role role = ROLES;
	struct pd_msg msg = {0};
	struct matches m;
	struct buf name;
	int err;

	buf_init(&name, 4096);
	if (admin_percent_decode(id, false, &name) != PD_OK) {
		admin_error(a, 404, "WORKER_NOT_FOUND", "no worker has a name of %zu bytes", id.n);
	} else if (query_role(a, &role, &msg)) {
		admin_error(a, 400, "invalid_request_error", "%s", msg.text);
	} else {
		err = find_matches(&m, a->admin, role, buf_span(&name));
		if (!err)
			act_on(a, &m, role, buf_span(&name), action);
		else if (err == PD_ENOENT)
			not_found(a, role, buf_span(&name));
		else
			admin_error(a, 503, "server_error", "%s", pd_err_text(err));
		release_matches(&m);
	}
	buf_release(&name);
}

/* -- vllm-router's older pair: query parameters, plain text -- */

static void plain(struct admin_call *a, int status, const char *what, struct span url)
{
	char text[900];
	int n = snprintf(text, sizeof(text), "%s%.*s", what, (int)(url.n < 700 ? url.n : 700),
			 url.p ? url.p : "");

	(void)http_reply(a->conn, status, ADMIN_TEXT, NULL, text, (size_t)n);
}

void admin_add_worker(struct admin_call *a)
{
	struct pd_msg msg = {0};
	struct wanted w;
	int status = 400;

	wanted_init(&w);
	w.wait = true;
	if (admin_query(a->req, "url", &w.url) || w.url.len == 0 || !is_printable(&w.url))
		(void)pd_fail(&msg, PD_EINVAL,
			      "found no url, expected /add_worker?url=http://HOST:PORT");
	else if (admin_query(a->req, "name", &w.name) == PD_ETOOBIG || !is_printable(&w.name))
		(void)pd_fail(&msg, PD_EINVAL,
			      "name: found a string that is too long or has control characters");
	else if (!query_role(a, &w.role, &msg) && !check_role(a->admin, &w, &msg))
		status = add(a, &w, &msg);
	if (status == 201)
		plain(a, 200, "Successfully added worker: ", buf_span(&w.url));
	else if (status == 503)
		plain(a, 503, msg.text, (struct span){0});
	else if (status)
		plain(a, 400, msg.text, (struct span){0});
	wanted_release(&w);
}

void admin_remove_worker(struct admin_call *a)
{
	enum worker_role role = ROLES;
	struct pd_msg msg = {0};
	struct matches m;
	struct buf url;

	buf_init(&url, 1024);
	if (admin_query(a->req, "url", &url) || url.len == 0) {
		plain(a, 400, "found no url, expected /remove_worker?url=http://HOST:PORT",
		      (struct span){0});
	} else if (query_role(a, &role, &msg)) {
		plain(a, 400, msg.text, (struct span){0});
	} else {
		if (find_matches(&m, a->admin, role, buf_span(&url)) == PD_OK) {
			leave(a->admin, &m, is_set(a->req, "force"));
			plain(a, 200, "Successfully removed worker: ", buf_span(&url));
		} else if (a->admin->cfg->compat) {
			plain(a, 200, "Successfully removed worker: ", buf_span(&url));
		} else {
			plain(a, 404, "no worker has this name or URL: ", buf_span(&url));
		}
		release_matches(&m);
	}
	buf_release(&url);
}
