/*
 * Both sides of one exchange in one file, because the body that one writes is the body that the
 * other reads.
 */
#include "sim/worker/kvread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

#define BLOCKS_MAX	 (1u << 20)
#define READ_DEADLINE_NS (5 * NS_PER_S)
#define READ_ANSWER_MAX	 65536
#define READ_BODY_MAX	 ((size_t)64 << 20)

/* The body of /pdctl/kv/read. */
struct kv_read {
	struct buf request_id, engine_id, xid, prompt_hash;
	uint32_t *block; /* owned */
	size_t nblocks;
};

static int read_ids(struct span array, struct kv_read *k, int depth)
{
	enum json_type type;
	struct span value;
	size_t at = 0;
	int64_t id = 0;
	int err = PD_OK;

	while (!err && json_array_next(array, &at, &value, &type)) {
		if (type == JSON_ARRAY && depth == 0) {
			err = read_ids(value, k, 1);
			continue;
		}
		err = type == JSON_NUMBER ? json_int(value, &id) : PD_EINVAL;
		if (!err && (id < 1 || id > UINT32_MAX || k->nblocks == BLOCKS_MAX))
			err = PD_EINVAL;
		if (!err)
			k->block[k->nblocks++] = (uint32_t)(id - 1);
	}
	return err;
}

static int read_text(const struct json_object *o, const char *name, struct buf *out)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_STRING ? json_string_decode(m->value, out) : PD_EINVAL;
}

static int parse_read(const struct http_request *r, struct kv_read *k)
{
	const struct json_member *m;
	struct json_object o;
	int err = json_object_scan(&o, r->body.p, r->body.n, NULL);

	buf_init(&k->request_id, 4096);
	buf_init(&k->engine_id, 4096);
	buf_init(&k->xid, 4096);
	buf_init(&k->prompt_hash, 64);
	if (err)
		return err;
	k->block = malloc(BLOCKS_MAX < r->body.n ? BLOCKS_MAX * sizeof(uint32_t)
						 : r->body.n * sizeof(uint32_t));
	m = json_object_get(&o, "block_ids");
	err = k->block && m && m->type == JSON_ARRAY ? read_ids(m->value, k, 0) : PD_EINVAL;
	if (!err)
		err = read_text(&o, "request_id", &k->request_id);
	if (!err)
		err = read_text(&o, "engine_id", &k->engine_id);
	if (!err)
		err = read_text(&o, "prompt_hash", &k->prompt_hash);
	if (!err)
		err = read_text(&o, "x_request_id", &k->xid);
	json_object_release(&o);
	return err;
}

static void release_read(struct kv_read *k)
{
	buf_release(&k->request_id);
	buf_release(&k->engine_id);
	buf_release(&k->xid);
	buf_release(&k->prompt_hash);
	free(k->block);
}

/* The mistake of this read, or MISTAKE_COUNT. *free_blocks: it is a read of this lease, which ends
 * it. */
static enum worker_mistake judge_read(const struct core *core, const struct kv_read *k,
				      const struct lease *l, bool *free_blocks)
{
	char hash[20];

	*free_blocks = false;
	if (!l || !span_eq(buf_span(&k->engine_id), span_of(core->id)))
		return MISTAKE_unknown_id;
	if (l->state != LEASE_LIVE)
		return l->state == LEASE_READ ? MISTAKE_duplicate_read : MISTAKE_expired_lease;
	if (k->nblocks != l->held.n ||
	    memcmp(k->block, l->held.block, k->nblocks * sizeof(*k->block)) != 0)
		return MISTAKE_unknown_id;
	*free_blocks = true;
	(void)snprintf(hash, sizeof(hash), "%016" PRIx64, l->prompt_hash);
	if (!span_eq(buf_span(&k->prompt_hash), span_of(hash)))
		return MISTAKE_prompt_mismatch;
	if (!span_eq(buf_span(&k->xid), span_of(l->xid)))
		return MISTAKE_request_id_mismatch;
	return MISTAKE_COUNT;
}

void kvread_serve(struct nixl *x, struct http_conn *c, const struct http_request *r)
{
	struct lease_blocks held;
	struct kv_read k = {0};
	struct api_error e = {0};
	enum worker_mistake mistake;
	bool free_blocks, restarted;
	struct lease *l;
	struct jout o;

	if (parse_read(r, &k) != PD_OK) {
		(void)api_fail(&e, 400, NULL,
			       "expected {\"request_id\",\"engine_id\",\"block_ids\","
			       "\"prompt_hash\",\"x_request_id\"}");
		goto out;
	}
	(void)pthread_mutex_lock(&x->core->lock);
	(void)nixl_expire(x, clock_now());
	l = leases_find(&x->leases, buf_span(&k.request_id));
	/* The process was started again on this port: the reader finds the KV gone, which is no
	 * mistake of the protocol. */
	restarted = !l && !span_eq(buf_span(&k.engine_id), span_of(x->core->id));
	mistake = judge_read(x->core, &k, l, &free_blocks);
	if (free_blocks) {
		leases_end(&x->leases, l, LEASE_READ, &held);
		if (held.job)
			core_unhold(x->core, held.job, clock_now());
		(void)atomic_fetch_add(&x->stats->kv_blocks_served, k.nblocks);
	}
	(void)pthread_mutex_unlock(&x->core->lock);
	if (restarted) {
		(void)api_fail(&e, 410, NULL, "the engine that held these blocks has restarted");
		goto out;
	}
	if (mistake != MISTAKE_COUNT)
		log_event(x->cfg->log, LOG_INFO, "kv_read_refused",
			  LOG_FIELDS(LOG_TEXT("request_id",
					      k.request_id.data ? k.request_id.data : ""),
				     LOG_TEXT("mistake", stats_mistake_name(mistake))),
			  "KV read of %s answered with %s",
			  k.request_id.data ? k.request_id.data : "", stats_mistake_name(mistake));
	jout_init(&o, 4096);
	jout_fmt(&o, "{\"mistake\":\"%s\",\"blocks\":%zu}\n",
		 mistake == MISTAKE_COUNT ? "" : stats_mistake_name(mistake), k.nblocks);
	api_reply(c, &o);
	jout_release(&o);
out:
	if (e.status)
		api_reply_error(c, &e, NULL);
	release_read(&k);
}

/* One exchange with the prefill worker: *mistake is the kind it named, MISTAKE_COUNT for none. */
static int ask(struct kv_client *client, struct http_conn *c, const struct gen_request *g,
	       uint64_t prompt_hash, enum worker_mistake *mistake, struct pd_msg *msg)
{
	const struct kv_params *kv = &g->kv;
	struct buf host, answer, name;
	struct json_object o = {0};
	struct jout body;
	int status = 0, err;

	buf_init(&host, 255);
	buf_init(&name, 64);
	buf_init(&answer, READ_ANSWER_MAX);
	jout_init(&body, READ_BODY_MAX);
	jout_put(&body, "{\"request_id\":");
	jout_raw(&body, kv->request_id.p, kv->request_id.n);
	jout_put(&body, ",\"engine_id\":");
	jout_raw(&body, kv->engine_id.p, kv->engine_id.n);
	jout_put(&body, ",\"block_ids\":");
	jout_raw(&body, kv->block_ids.p, kv->block_ids.n);
	jout_fmt(&body, ",\"prompt_hash\":\"%016" PRIx64 "\",\"x_request_id\":", prompt_hash);
	jout_quote(&body, g->xid);
	jout_put(&body, "}");
	err = body.err ? body.err : json_string_decode(kv->host, &host);
	if (!err)
		err = kv_client_post(client, c, host.data, (uint16_t)kv->port, "/pdctl/kv/read",
				     buf_span(&body.b), clock_now() + READ_DEADLINE_NS, &status,
				     &answer, msg);
	if (!err && status != 200)
		err = pd_fail(msg, PD_EPROTO, "found status %d, expected 200", status);
	if (!err)
		err = json_object_scan(&o, answer.data, answer.len, msg);
	if (!err)
		err = read_text(&o, "mistake", &name);
	json_object_release(&o);
	for (*mistake = 0; !err && *mistake < MISTAKE_COUNT; ++*mistake)
		if (span_eq(buf_span(&name), span_of(stats_mistake_name(*mistake))))
			break;
	if (!err && *mistake == MISTAKE_COUNT && name.len > 0)
		err = PD_EPROTO;
	buf_release(&host);
	buf_release(&name);
	buf_release(&answer);
	jout_release(&body);
	return err;
}

int kvread_fetch(struct nixl *x, struct http_conn *c, const struct gen_request *g,
		 uint64_t prompt_hash, struct api_error *e)
{
	const struct kv_params *kv = &g->kv;
	enum worker_mistake mistake = MISTAKE_COUNT;
	struct pd_msg msg = {0};
	int err = ask(x->client, c, g, prompt_hash, &mistake, &msg);

	if (err) {
		(void)atomic_fetch_add(&x->stats->kv_read_failures, 1);
		log_event(x->cfg->log, LOG_WARN, "kv_read_failed",
			  LOG_FIELDS(LOG_TEXT("request_id", g->id), LOG_SPAN("of", kv->request_id),
				     LOG_SPAN("host", kv->host), LOG_NUMBER("port", kv->port),
				     LOG_TEXT("error", msg.text[0] ? msg.text : pd_err_text(err))),
			  "request %s: cannot read the KV of %.*s at %.*s:%d: %s", g->id,
			  (int)kv->request_id.n, kv->request_id.p, (int)kv->host.n, kv->host.p,
			  (int)kv->port, msg.text[0] ? msg.text : pd_err_text(err));
		return PD_EIO;
	}
	if (mistake != MISTAKE_COUNT) {
		err = nixl_mistake(
			x, mistake, g->id, e, "the prefill worker refused the read of %.*s",
			(int)(kv->request_id.n < 200 ? kv->request_id.n : 200), kv->request_id.p);
		/* The blocks are the right ones even with another X-Request-Id. */
		if (err || mistake != MISTAKE_request_id_mismatch)
			return PD_EPROTO;
	}
	(void)atomic_fetch_add(&x->stats->kv_reads_ok, 1);
	return PD_OK;
}
