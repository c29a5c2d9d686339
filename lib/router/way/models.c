/*
 * GET /v1/models: the union of what the available workers serve, by id. The workers are asked one
 * after the other on pooled connections with a short limit; one that does not answer is left out.
 * Each model object passes byte for byte.
 */
#include "lib/router/way/models.h"

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"

#define MODELS_TIMEOUT (5 * NS_PER_S)
#define MODELS_MAX     (4u << 20)
#define MODELS_SEEN    512

struct models {
	struct buf out;
	struct buf ids; /* JSON strings seen, one per line */
	size_t n;
};

static bool seen(struct models *m, struct span id)
{
	const char *p = m->ids.data, *end = p + m->ids.len;

	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));

		if (span_eq((struct span){p, (size_t)(eol - p)}, id))
			return true;
		p = eol + 1;
	}
	return false;
}

static int add_model(struct models *m, struct span value)
{
	struct json_object o;
	enum json_type type;
	struct span id;
	int err = json_object_scan(&o, value.p, value.n, NULL);

	if (err)
		return PD_OK;
	if (json_object_path(&o, "id", &type, &id) && type == JSON_STRING && m->n < MODELS_SEEN &&
	    !seen(m, id)) {
		err = buf_puts(&m->out, m->n++ ? "," : "");
		err = err ? err : buf_append(&m->out, value.p, value.n);
		err = err ? err : buf_append(&m->ids, id.p, id.n);
		err = err ? err : buf_putc(&m->ids, '\n');
	}
	json_object_release(&o);
	return err;
}

static void add_answer(struct models *m, const struct buf *body)
{
	struct json_object o;
	enum json_type type;
	struct span data, value;
	size_t at = 0;

	if (json_object_scan(&o, body->data, body->len, NULL))
		return;
	if (json_object_path(&o, "data", &type, &data) && type == JSON_ARRAY)
		while (json_array_next(data, &at, &value, &type))
			if (type == JSON_OBJECT && add_model(m, value))
				break;
	json_object_release(&o);
}

static void ask(struct exchange *x, struct worker *w, struct models *m)
{
	struct leg l = {.worker = NULL};
	struct buf body;
	struct iovec iov;

	if (head_for_worker(&x->lane->head, x, w, SIZE_MAX, true, x->id))
		return;
	x->deadline = clock_now() + MODELS_TIMEOUT;
	iov = (struct iovec){.iov_base = x->lane->head.data, .iov_len = x->lane->head.len};
	buf_init(&body, MODELS_MAX);
	if (leg_exchange(&l, x, w, &x->lane->up, &iov, 1, MODELS_TIMEOUT) == LEG_OK &&
	    l.call.head.status == 200 && http_call_collect(&l.call, &body) == PD_OK)
		add_answer(m, &body);
	(void)http_call_end(&l.call);
	buf_release(&body);
}

void models_ask_all(struct exchange *x)
{
	struct span method = x->req->head.method;
	struct models m = {.n = 0};
	int err;

	buf_init(&m.out, 16u << 20);
	buf_init(&m.ids, 1u << 20);
	err = buf_puts(&m.out, "{\"object\":\"list\",\"data\":[");
	x->req->head.method = SPAN("GET"); /* also for HEAD: the union must be known */
	for (int r = 0; !err && r < ROLES; r++)
		for (size_t i = 0; i < x->fleet->pool[r].n; i++)
			if (atomic_load(&x->fleet->pool[r].worker[i]->slot.available))
				ask(x, x->fleet->pool[r].worker[i], &m);
	x->req->head.method = method;
	err = err ? err : buf_puts(&m.out, "]}");
	if (err)
		(void)http_reply_error(x->conn, 500, "server_error", NULL, "%s", pd_err_text(err));
	else if (m.n == 0)
		(void)http_reply_error(x->conn, 503, "server_error", "Retry-After: 1\r\n",
				       "no worker answered /v1/models");
	else
		(void)http_reply(x->conn, 200, "application/json", NULL, m.out.data, m.out.len);
	buf_release(&m.out);
	buf_release(&m.ids);
}
