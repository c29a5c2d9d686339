#include "lib/router/way/render.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/net/shelf.h"
#include "lib/route/prefix.h"
#include "lib/router/way/exchange.h"

/* -- token ids to blocks -- */

/* Blocks of adapters and of salted prompts are others than those of the tokens alone, and nobody
 * tells of them. */
static uint64_t seed_of(const struct exchange *x)
{
	const struct json_member *salt = json_object_get(x->rec.json, "cache_salt");

	return salt && salt->type != JSON_NULL
		       ? route_block(x->block_seed, salt->value.p, salt->value.n)
		       : x->block_seed;
}

/* False: it is no list of token ids. */
static bool take_ids(struct exchange *x, struct span array, uint32_t block_tokens)
{
	struct rendered *r = &x->rendered;
	size_t room = (size_t)ROUTE_BLOCKS_MAX * block_tokens, n = 0, at = 0;
	uint32_t *id;
	enum json_type type;
	struct span value;
	int64_t v = 0;
	bool good = true;

	/* A number and a comma each, at least. */
	room = room < array.n / 2 + 1 ? room : array.n / 2 + 1;
	id = malloc(room * sizeof(*id));
	r->block = id ? calloc(room / block_tokens + 1, sizeof(*r->block)) : NULL;
	while (r->block && good && json_array_next(array, &at, &value, &type)) {
		good = type == JSON_NUMBER && json_int(value, &v) == PD_OK && v >= 0 &&
		       v <= UINT32_MAX;
		if (good && n < room)
			id[n] = (uint32_t)v;
		n++;
	}
	good &= r->block != NULL && n > 0;
	if (good) {
		r->nblocks =
			route_blocks(seed_of(x), id, (n < room ? n : room) * sizeof(*id),
				     block_tokens * sizeof(*id), r->block, room / block_tokens + 1);
		r->tokens = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
		r->block_tokens = block_tokens;
	}
	free(id);
	return good;
}

/* -- asking a worker -- */

static int put_member(struct buf *b, const char *name, const struct json_member *m)
{
	return buf_printf(b, "%s\"%s\":%.*s", b->len > 1 ? "," : "", name, (int)m->value.n,
			  m->value.p);
}

/* The question; false: this prompt is not of a form that /tokenize knows. */
static bool write_body(const struct json_object *o, struct buf *b)
{
	static const char *const too[] = {"model", "tools", "chat_template_kwargs"};
	const struct json_member *chat = json_object_get(o, "messages"),
				 *text = json_object_get(o, "prompt");
	int err = buf_putc(b, '{');

	if (chat && chat->type == JSON_ARRAY)
		err = err ? err : put_member(b, "messages", chat);
	else if (text && text->type == JSON_STRING)
		err = err ? err : put_member(b, "prompt", text);
	else
		return false;
	for (size_t i = 0; !err && i < sizeof(too) / sizeof(too[0]); i++) {
		const struct json_member *m = json_object_get(o, too[i]);

		if (m && m->type != JSON_NULL && (i == 0 || chat))
			err = put_member(b, too[i], m);
	}
	return !err && buf_putc(b, '}') == PD_OK;
}

static bool ask(struct exchange *x, struct worker *w, struct span body, struct buf *answer)
{
	const struct router_config *cfg = x->way->cfg;
	int64_t now = clock_now(), deadline = now + RENDER_TIMEOUT;
	struct buf in, head;
	struct http_call call = {
		.to = leg_target(cfg, w),
		.in = &in,
		.of = x->conn,
		.limit = {.connect = RENDER_TIMEOUT,
			  .send = RENDER_TIMEOUT,
			  .first_byte = RENDER_TIMEOUT,
			  .between = RENDER_TIMEOUT},
		.deadline = deadline < x->deadline ? deadline : x->deadline,
		.repeat = true,
	};
	struct pd_msg why;
	bool good;

	buf_init(&in, RENDER_ANSWER_MAX);
	buf_init(&head, 65536);
	good = buf_printf(&head,
			  "POST %s/tokenize HTTP/1.1\r\nHost: %s\r\nContent-Type: "
			  "application/json\r\nContent-Length: %zu\r\n%.*s\r\n",
			  w->at.base, w->at.authority, body.n, (int)x->way->own_lines.n,
			  x->way->own_lines.n ? x->way->own_lines.p : "") == PD_OK;
	if (good) {
		struct iovec iov[] = {{head.data, head.len}, {(void *)(uintptr_t)body.p, body.n}};

		good = http_call_begin(&call, iov, 2, &why) == HTTP_CALL_OK &&
		       call.head.status == 200 && http_call_collect(&call, answer) == PD_OK;
		(void)http_call_end(&call);
	}
	buf_clear(&in);
	shelf_give(&in);
	buf_release(&in);
	buf_release(&head);
	return good;
}

/* The first that answers, of some: not each serves each model. */
static bool ask_someone(struct exchange *x, enum worker_role role, struct span body,
			struct buf *answer)
{
	const struct fleet_pool *p = &x->fleet->pool[role];
	unsigned asked = 0;

	for (size_t i = 0; i < p->n && asked < RENDER_ASKED_MAX; i++) {
		struct worker *w = p->worker[(x->number + i) % p->n];

		if (!atomic_load(&w->slot.available))
			continue;
		asked++;
		buf_clear(answer);
		if (ask(x, w, body, answer))
			return true;
	}
	return false;
}

static bool ask_for_ids(struct exchange *x, enum worker_role role, uint32_t block_tokens)
{
	struct json_object o;
	enum json_type type;
	struct span ids;
	struct buf body, answer;
	bool good;

	buf_init(&body, x->req->body.n + 1024);
	buf_init(&answer, RENDER_ANSWER_MAX);
	good = write_body(x->rec.json, &body) && ask_someone(x, role, buf_span(&body), &answer) &&
	       json_object_scan(&o, answer.data, answer.len, NULL) == PD_OK;
	if (good) {
		good = json_object_path(&o, "tokens", &type, &ids) && type == JSON_ARRAY &&
		       take_ids(x, ids, block_tokens);
		json_object_release(&o);
	}
	buf_release(&body);
	buf_release(&answer);
	return good;
}

void render_prompt(struct exchange *x, enum worker_role role, uint32_t block_tokens)
{
	static const char *const of_ids[] = {"prompt", "token_ids", "input_ids"};
	struct rendered *r = &x->rendered;
	bool good = false;

	if (r->tried || !x->rec.json)
		return;
	r->tried = true;
	for (size_t i = 0; !good && i < sizeof(of_ids) / sizeof(of_ids[0]); i++) {
		const struct json_member *m = json_object_get(x->rec.json, of_ids[i]);

		if (m && m->type == JSON_ARRAY) {
			render_release(r);
			good = take_ids(x, m->value, block_tokens);
		}
	}
	if (!good) {
		render_release(r);
		good = ask_for_ids(x, role, block_tokens);
	}
	r->tried = true;
	metrics_count(x->way->watch.metrics, x->rec.stripe,
		      good ? METRIC_RENDERED : METRIC_NOT_RENDERED, x->rec.route, 1);
}

void render_release(struct rendered *r)
{
	free(r->block);
	*r = (struct rendered){.tried = r->tried};
}
