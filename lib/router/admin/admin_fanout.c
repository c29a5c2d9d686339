/*
 * Questions to workers, passed on in parallel (asks.h): flush the prefix caches, say what you are.
 * The paths are vllm-router's; vLLM's own names for the same are tried when a worker does not know
 * them.
 */
#include "lib/router/admin/admin_fanout.h"

#include <stdio.h>

#include "lib/json/scan.h"
#include "lib/router/fleet/veil.h"

/* False: the client left, or was told why nothing was asked. */
static bool ask(struct admin_call *a, struct ask *q)
{
	int err = q ? ask_run(a->admin->asks, a->conn, q) : PD_ENOMEM;

	if (err == PD_EBUSY)
		admin_error(a, 503, "server_error",
			    "at capacity: %d questions to workers in flight, try again",
			    ASKS_QUEUE);
	else if (err && err != PD_ECANCELED)
		admin_error(a, 503, "server_error", "cannot ask the workers: %s", pd_err_text(err));
	return err == PD_OK;
}

/* -- /flush_cache -- */

/* vllm-router's words: "Prefill URL: flushed", "Decode URL failed: 500", "URL error: ...". */
static int put_outcome(struct buf *b, const struct ask_one *one, bool first)
{
	static const char *const roles[ROLES] = {"", "Prefill ", "Decode "};
	const char *role = roles[one->worker->role], *url = one->worker->url;
	char text[900];

	if (ask_good(one))
		(void)snprintf(text, sizeof(text), "%s%.700s: flushed", role, url);
	else if (one->status)
		(void)snprintf(text, sizeof(text), "%s%.700s failed: %ld", role, url, one->status);
	else
		(void)snprintf(text, sizeof(text), "%s%.700s error: %.150s", role, url, one->why);
	if (!first && buf_puts(b, ", "))
		return PD_ENOMEM;
	return admin_put_text(b, text);
}

static int put_outcomes(struct buf *b, const struct ask *q, bool good)
{
	int err = buf_putc(b, '[');
	bool first = true;

	for (size_t i = 0; !err && i < q->n; i++) {
		if (ask_good(&q->one[i]) != good)
			continue;
		err = put_outcome(b, &q->one[i], first);
		first = false;
	}
	return err ? err : buf_putc(b, ']');
}

static int flush_text(struct buf *b, const struct admin *ad, const struct ask *q, size_t good)
{
	bool all = good == q->n;
	int err;

	if (!ad->cfg->pd && all)
		return buf_puts(b, "Cache flushed on all servers");
	err = buf_puts(b, !ad->cfg->pd ? "Cache flush failed on one or more servers. Results: "
			  : all	       ? "Cache flushed successfully: "
			  : good       ? "Partial success. Results: "
				       : "Cache flush failed. Results: ");
	err = err ? err : put_outcomes(b, q, true);
	if (err || all)
		return err;
	err = buf_puts(b, ", Errors: ");
	return err ? err : put_outcomes(b, q, false);
}

void admin_flush_cache(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct ask *q = ask_new(f, "POST", "/reset_prefix_cache", "/flush_cache", NULL);
	size_t good = 0;
	struct buf b;
	int err = PD_OK, status;

	for (int r = 0; q && !err && r < ROLES; r++)
		for (size_t i = 0; !err && i < f->pool[r].n; i++)
			err = ask_worker(q, f->pool[r].worker[i]);
	fleet_put(f);
	if (err)
		admin_error(a, 503, "server_error", "out of memory");
	else if (ask(a, q)) {
		for (size_t i = 0; i < q->n; i++)
			good += ask_good(&q->one[i]);
		status = good == q->n ? 200 : !a->admin->cfg->pd ? 500 : good > 0 ? 206 : 502;
		buf_init(&b, ADMIN_MAX);
		err = flush_text(&b, a->admin, q, good);
		if (err)
			admin_answer_json(a, 500, NULL, &b, err);
		else
			(void)http_reply(a->conn, status, ADMIN_TEXT, NULL, b.data, b.len);
		buf_release(&b);
	}
	ask_free(q);
}

/* -- one worker's answer, passed on -- */

/* The first available one, else the first; prefill before decode. */
static struct worker *first_worker(struct fleet *f)
{
	struct worker *any = NULL;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			if (atomic_load(&w->slot.available))
				return w;
			any = any ? any : w;
		}
	}
	return any;
}

static void pass_answer(struct admin_call *a, const struct fleet *f, const struct ask_one *one)
{
	char extra[760] = "", why[900], said[VEIL_MAX];

	if (one->status == 0) {
		(void)snprintf(why, sizeof(why), "worker %.600s: %.250s", one->worker->url,
			       one->why);
		admin_error(a, 502, "upstream_error", "%s", veil(f, !a->veiled, why, said));
		return;
	}
	if (a->admin->cfg->worker_headers)
		(void)snprintf(extra, sizeof(extra), "X-Worker: %.700s\r\n", one->worker->url);
	(void)http_reply(a->conn, (int)one->status, one->ctype, extra, one->body.data,
			 one->body.len);
}

static void ask_first(struct admin_call *a, const char *first, const char *second,
		      const char *third)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct worker *w = first_worker(f);
	struct ask *q = w ? ask_new(f, "GET", first, second, third) : NULL;

	if (!w)
		admin_error(a, 503, "server_error", "found no worker to ask");
	else if (q && ask_worker(q, w))
		admin_error(a, 503, "server_error", "out of memory");
	else if (q)
		q->keep_body = true;
	if (w && (!q || q->n > 0) && ask(a, q))
		pass_answer(a, f, &q->one[0]);
	ask_free(q);
	fleet_put(f);
}

void admin_server_info(struct admin_call *a)
{
	ask_first(a, "/get_server_info", "/server_info", "/version");
}

void admin_model_info(struct admin_call *a)
{
	ask_first(a, "/get_model_info", "/v1/models", NULL);
}

/* -- /finish_session -- */

/* The policies may forget the session; vllm-router's answer. */
void admin_finish_session(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf id, b;
	int err;

	buf_init(&id, 4096);
	buf_init(&b, ADMIN_MAX);
	if (admin_query(a->req, "session_id", &id) || id.len == 0) {
		admin_error(a, 400, "invalid_request_error",
			    "found no session_id, expected /finish_session?session_id=ID");
	} else {
		fleet_session_finished(f, buf_span(&id), clock_now());
		err = buf_puts(&b, "{\"status\":\"ok\",\"session_id\":");
		err = err ? err : json_quote(&b, id.data, id.len);
		err = err ? err : buf_putc(&b, '}');
		admin_answer_json(a, 200, NULL, &b, err);
	}
	buf_release(&b);
	buf_release(&id);
	fleet_put(f);
}
