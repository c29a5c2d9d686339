/*
 * GET /v1/models: the union of what the available workers serve, by id, with the aliases of what is
 * there. Lists that are known (lib/router/fleet/catalog.h) are taken as they are; servers without
 * one are asked with the client's own head, as they may want its key: each once, whatever ranks and
 * roles it has, and all at the same time on pooled connections with one deadline: a fiber each on a
 * loop, elsewhere a thread each. One that was silent when it was asked last is left out, and so is
 * one that does not answer now. Each model object passes byte for byte.
 */
#include "lib/router/way/models.h"

#include <pthread.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/net/shelf.h"
#include "lib/route/hash.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"
#include "lib/router/way/model.h"

#define MODELS_TIMEOUT (5 * NS_PER_S)
#define MODELS_MAX     (4u << 20) /* of one answer */
#define MODELS_SEEN    512
#define MODELS_AT_ONCE 64	    /* further servers are asked when one of these has answered */
#define MODELS_STACK   (256u << 10) /* of a thread */

/* One server, and what it answered. */
struct question {
	struct worker *worker;
	struct served_list *list; /* a reference; what is known already */
	bool silent;		  /* not asked: it did not answer the last time */
	struct buf head, body;
	struct http_call call;
	struct pd_msg why;
	enum http_call_result result;
	bool good; /* the body is its list */
};

/* Shared with the fibers or threads that ask; the handler waits for all of them. */
struct asking {
	struct exchange *x;
	struct question *q; /* n of them, owned */
	size_t n, open;	    /* open: are asked */
	int64_t deadline;
	_Atomic size_t next;
	_Atomic unsigned running;
	_Atomic bool client_left;
};

/* -- asking -- */

static void ask(struct asking *a, struct question *q)
{
	const struct router_config *cfg = a->x->way->cfg;
	struct iovec iov = {.iov_base = q->head.data, .iov_len = q->head.len};
	struct buf in;

	if (q->list || q->silent)
		return;
	buf_init(&in, MODELS_MAX);
	q->call = (struct http_call){
		.to = leg_target(cfg, q->worker),
		.in = &in,
		.limit = {.connect = cfg->connect_timeout,
			  .send = MODELS_TIMEOUT,
			  .first_byte = MODELS_TIMEOUT,
			  .between = MODELS_TIMEOUT},
		.deadline = a->deadline,
		.repeat = true,
	};
	q->result = http_call_begin(&q->call, &iov, 1, &q->why);
	q->good = q->result == HTTP_CALL_OK && q->call.head.status == 200 &&
		  http_call_collect(&q->call, &q->body) == PD_OK;
	(void)http_call_end(&q->call);
	buf_clear(&in);
	shelf_give(&in);
	buf_release(&in);
}

static void ask_some(void *arg)
{
	struct asking *a = arg;
	struct http_conn *conn = a->x->conn;
	size_t i;

	while ((i = atomic_fetch_add(&a->next, 1)) < a->n && !atomic_load(&a->client_left))
		ask(a, &a->q[i]);
	if (atomic_fetch_sub(&a->running, 1) == 1)
		http_conn_wake(conn);
}

static void *ask_thread(void *arg)
{
	ask_some(arg);
	shelf_clear();
	return NULL;
}

/* Asks all and waits for them. When the client leaves, a call on its loop ends at once; one on a
 * thread has until the deadline. */
static void ask_all(struct asking *a)
{
	pthread_t thread[MODELS_AT_ONCE];
	struct loop *l = loop_self();
	pthread_attr_t attr;
	unsigned want = a->open < MODELS_AT_ONCE ? (unsigned)a->open : MODELS_AT_ONCE, n = 0;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, MODELS_STACK);
	a->deadline = clock_now() + MODELS_TIMEOUT;
	/* This function counts as one of them until all are started. */
	atomic_store(&a->running, want + 1);
	while (n < want && (l ? loop_spawn(l, ask_some, a)
			      : pthread_create(&thread[n], &attr, ask_thread, a)) == 0)
		n++;
	(void)pthread_attr_destroy(&attr);
	atomic_fetch_sub(&a->running, want - n + 1);
	if (n == 0) {
		atomic_store(&a->running, 1);
		ask_some(a);
	}
	while (atomic_load(&a->running) > 0 && !http_conn_sleep(a->x->conn, CLOCK_NEVER))
		continue;
	atomic_store(&a->client_left, true);
	for (size_t i = 0; l && i < a->n; i++)
		http_call_cancel(&a->q[i].call);
	while (l && atomic_load(&a->running) > 0)
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	for (unsigned i = 0; !l && i < n; i++)
		(void)pthread_join(thread[i], NULL);
}

/* One question for each server of the fleet that may be picked. PD_ENOMEM, PD_ETOOBIG. */
static int collect_questions(struct asking *a)
{
	struct exchange *x = a->x;
	size_t max = 0;

	for (int r = 0; r < ROLES; r++)
		max += x->fleet->pool[r].n;
	a->q = calloc(max + 1, sizeof(*a->q));
	if (!a->q)
		return PD_ENOMEM;
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < x->fleet->pool[r].n; i++) {
			struct worker *w = x->fleet->pool[r].worker[i];
			struct question *q = &a->q[a->n];
			size_t k = 0;
			int err;

			while (k < a->n && !worker_same_server(a->q[k].worker, w))
				k++;
			if (k < a->n || !atomic_load(&w->slot.available))
				continue;
			q->worker = w;
			q->list = x->way->catalog ? served_of(w) : NULL;
			q->silent = x->way->catalog && atomic_load(&w->models.silent);
			a->open += !q->list && !q->silent;
			buf_init(&q->head, x->lane->head.max);
			buf_init(&q->body, MODELS_MAX);
			a->n++;
			err = head_for_worker(&q->head, x, w, SIZE_MAX, true, x->rec.id, NULL, 0);
			if (err)
				return err;
		}
	return PD_OK;
}

/* -- the union -- */

struct models {
	struct buf out;
	uint64_t id[MODELS_SEEN]; /* n of them */
	size_t n;
};

static bool is_new(const struct models *m, uint64_t hash)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->id[i] == hash)
			return false;
	return true;
}

static int add_list(struct models *m, const struct served_list *l)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < l->n; i++)
		if (m->n < MODELS_SEEN && is_new(m, l->model[i].hash)) {
			err = buf_puts(&m->out, m->n > 0 ? "," : "");
			err = err ? err
				  : buf_append(&m->out, l->model[i].object.p, l->model[i].object.n);
			m->id[m->n++] = l->model[i].hash;
		}
	return err;
}

static int add_answer(struct models *m, const struct question *q)
{
	struct served_list *l = NULL;
	int err = PD_OK;

	if (q->list)
		return add_list(m, q->list);
	if (q->good && served_list_read(&l, q->body.data, q->body.len) == PD_OK)
		err = add_list(m, l);
	served_list_put(l);
	return err;
}

/* Of models that are there. */
static int add_aliases(struct models *m, const struct router_config *c)
{
	struct span name, model;
	int err = PD_OK;

	for (size_t i = 0; !err && i < c->model_aliases_n; i++) {
		model_alias_at(c, i, &name, &model);
		if (is_new(m, route_hash(ROUTE_HASH_XXH3, model.p, model.n)))
			continue;
		err = buf_puts(&m->out, ",{\"id\":");
		err = err ? err : json_quote(&m->out, name.p, name.n);
		err = err ? err
			  : buf_puts(&m->out, ",\"object\":\"model\",\"owned_by\":\"pdctl\","
					      "\"root\":");
		err = err ? err : json_quote(&m->out, model.p, model.n);
		err = err ? err : buf_puts(&m->out, ",\"parent\":null}");
	}
	return err;
}

void models_ask_all(struct exchange *x)
{
	struct span method = x->req->head.method;
	struct asking a = {.x = x};
	struct models m = {.n = 0};
	int err;

	buf_init(&m.out, 16u << 20);
	x->req->head.method = SPAN("GET"); /* also for HEAD: the union must be known */
	err = collect_questions(&a);
	x->req->head.method = method;
	if (!err && a.open > 0)
		ask_all(&a);
	err = err ? err : buf_puts(&m.out, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < a.n; i++) {
		struct question *q = &a.q[i];

		if (!q->list && !q->silent)
			leg_count(x, q->worker, &q->call, q->result, &q->why);
		err = err ? err : add_answer(&m, q);
		served_list_put(q->list);
		buf_release(&q->head);
		buf_release(&q->body);
	}
	free(a.q);
	err = err ? err : add_aliases(&m, x->way->cfg);
	err = err ? err : buf_puts(&m.out, "]}");
	if (err)
		(void)http_reply_error(x->conn, 500, "server_error", NULL, "%s", pd_err_text(err));
	else if (m.n == 0)
		(void)http_reply_error(x->conn, 503, "server_error", "Retry-After: 1\r\n",
				       "no worker answered /v1/models");
	else
		(void)http_reply(x->conn, 200, "application/json", NULL, m.out.data, m.out.len);
	buf_release(&m.out);
}
