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
#include "sim/worker/played.h"

#define BLOCKS_MAX	 (1u << 20)
#define READ_DEADLINE_NS (5 * NS_PER_S)
#define READ_ANSWER_MAX	 65536
#define READ_BODY_MAX	 ((size_t)64 << 20)
#define LOOK_NS		 (2 * NS_PER_MS) /* between two looks for blocks that are being computed */

/* The body of /pdctl/kv/read. */
struct kv_read {
	struct buf request_id, engine_id, xid, prompt_hash;
	uint32_t *block; /* owned */
	size_t nblocks;
	bool any_blocks, any_xid; /* the connector names none */
	int64_t block_size, tp_size, wait_ms;
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

static int read_number(const struct json_object *o, const char *name, int64_t *out)
{
	const struct json_member *m = json_object_get(o, name);

	*out = 0;
	return !m ? PD_OK : m->type == JSON_NUMBER ? json_int(m->value, out) : PD_EINVAL;
}

static bool is_null(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_NULL;
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
	k->any_blocks = is_null(&o, "block_ids");
	k->any_xid = is_null(&o, "x_request_id");
	if (!k->any_blocks)
		err = k->block && m && m->type == JSON_ARRAY ? read_ids(m->value, k, 0) : PD_EINVAL;
	if (!err)
		err = read_text(&o, "request_id", &k->request_id);
	if (!err)
		err = read_text(&o, "engine_id", &k->engine_id);
	if (!err)
		err = read_text(&o, "prompt_hash", &k->prompt_hash);
	if (!err && !k->any_xid)
		err = read_text(&o, "x_request_id", &k->xid);
	if (!err)
		err = read_number(&o, "block_size", &k->block_size);
	if (!err)
		err = read_number(&o, "tp_size", &k->tp_size);
	if (!err)
		err = read_number(&o, "wait_ms", &k->wait_ms);
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

/* What NIXL's handshake refuses: blocks of another size, and tensor parallel sizes of which neither
 * is a multiple of the other. */
static enum worker_mistake judge_shape(const struct worker_config *cfg, const struct kv_read *k)
{
	int64_t mine = cfg->tp_size, theirs = k->tp_size, more = mine > theirs ? mine : theirs,
		less = mine > theirs ? theirs : mine;

	if (k->block_size > 0 && k->block_size != (int64_t)cfg->block_size)
		return MISTAKE_block_size_mismatch;
	if (theirs > 0 &&
	    (more % less != 0 || (more != less && (played_of(cfg)->flags & PLAYED_SAME_TP))))
		return MISTAKE_tp_size_mismatch;
	return MISTAKE_COUNT;
}

/* The mistake of this read, or MISTAKE_COUNT. *free_blocks: it is a read of this lease, which ends
 * it. */
static enum worker_mistake judge_read(const struct nixl *x, const struct kv_read *k,
				      const struct lease *l, bool *free_blocks)
{
	enum worker_mistake shape;
	char hash[20];

	*free_blocks = false;
	if (!l || (k->engine_id.len > 0 && !span_eq(buf_span(&k->engine_id), span_of(x->core->id))))
		return MISTAKE_unknown_id;
	if (l->state != LEASE_LIVE)
		return l->state == LEASE_READ ? MISTAKE_duplicate_read : MISTAKE_expired_lease;
	shape = judge_shape(x->cfg, k);
	if (shape != MISTAKE_COUNT)
		return shape;
	if (!k->any_blocks &&
	    (k->nblocks != l->held.n ||
	     memcmp(k->block, l->held.block, k->nblocks * sizeof(*k->block)) != 0))
		return MISTAKE_unknown_id;
	*free_blocks = true;
	(void)snprintf(hash, sizeof(hash), "%016" PRIx64, l->prompt_hash);
	if (!span_eq(buf_span(&k->prompt_hash), span_of(hash)))
		return MISTAKE_prompt_mismatch;
	if (!k->any_xid && !span_eq(buf_span(&k->xid), span_of(l->xid)))
		return MISTAKE_request_id_mismatch;
	return MISTAKE_COUNT;
}

/* What came of a read at one engine. */
struct outcome {
	enum worker_mistake mistake;
	bool found;    /* it has, or had, blocks of this name */
	size_t blocks; /* that were read */
};

static struct outcome read_at(struct nixl *x, const struct kv_read *k)
{
	struct outcome out = {.mistake = MISTAKE_COUNT};
	struct lease_blocks held;
	struct lease *l;
	bool free_blocks;

	(void)pthread_mutex_lock(&x->core->lock);
	(void)nixl_expire(x, clock_now());
	l = leases_find(&x->leases, buf_span(&k->request_id));
	out.found = l != NULL;
	out.mistake = judge_read(x, k, l, &free_blocks);
	if (free_blocks) {
		leases_end(&x->leases, l, LEASE_READ, &held);
		out.blocks = held.n;
		if (held.job)
			core_unhold(x->core, held.job, clock_now());
		(void)atomic_fetch_add(&x->stats->kv_blocks_served, out.blocks);
	}
	(void)pthread_mutex_unlock(&x->core->lock);
	return out;
}

static bool is_of(const struct nixl *x, const struct kv_read *k)
{
	return k->engine_id.len == 0 || span_eq(buf_span(&k->engine_id), span_of(x->core->id));
}

/* The engine that has them; while none has, and the reader waits, again. *known: one of them is the
 * engine that was named, or has blocks of that name. */
static struct outcome read_at_any(struct nixl *const *engine, size_t n, struct http_conn *c,
				  const struct kv_read *k, bool *known)
{
	int64_t most = (int64_t)(engine[0]->cfg->kv_lease_s * 1e3),
		wait = k->wait_ms < most ? k->wait_ms : most,
		until = clock_now() + wait * NS_PER_MS;

	for (;;) {
		struct outcome out = {.mistake = MISTAKE_unknown_id};
		int64_t now = clock_now();

		*known = false;
		/* With another engine's id nothing is read: that is its mistake. */
		for (size_t i = 0; i < n && !out.found; i++) {
			out = read_at(engine[i], k);
			*known |= out.found || is_of(engine[i], k);
		}
		if (out.found || !*known || now >= until ||
		    http_conn_sleep(c, now + LOOK_NS < until ? now + LOOK_NS : until))
			return out;
	}
}

void kvread_serve(struct nixl *const *engine, size_t n, struct http_conn *c,
		  const struct http_request *r)
{
	struct kv_read k = {0};
	struct api_error e = {0};
	struct outcome out;
	const char *id;
	bool known;
	struct jout o;

	if (parse_read(r, &k) != PD_OK) {
		(void)api_fail(&e, 400, NULL,
			       "expected {\"request_id\",\"engine_id\",\"block_ids\","
			       "\"prompt_hash\",\"x_request_id\"}");
		goto out;
	}
	out = read_at_any(engine, n, c, &k, &known);
	/* The process was started again on this port: the reader finds the KV gone, which is no
	 * mistake of the protocol. */
	if (!known) {
		(void)api_fail(&e, 410, NULL, "the engine that held these blocks has restarted");
		goto out;
	}
	id = k.request_id.data ? k.request_id.data : "";
	if (out.mistake != MISTAKE_COUNT)
		log_event(engine[0]->cfg->log, LOG_INFO, "kv_read_refused",
			  LOG_FIELDS(LOG_TEXT("request_id", id),
				     LOG_TEXT("mistake", stats_mistake_name(out.mistake))),
			  "KV read of %s answered with %s", id, stats_mistake_name(out.mistake));
	jout_init(&o, 4096);
	jout_fmt(&o, "{\"mistake\":\"%s\",\"blocks\":%zu}\n",
		 out.mistake == MISTAKE_COUNT ? "" : stats_mistake_name(out.mistake), out.blocks);
	api_reply(c, &o);
	jout_release(&o);
out:
	if (e.status)
		api_reply_error(c, &e, NULL);
	release_read(&k);
}

/* One exchange with the prefill worker: *mistake is the kind it named, MISTAKE_COUNT for none. */
static int ask(struct nixl *x, struct http_conn *c, const struct gen_request *g, const char *key,
	       uint64_t prompt_hash, enum worker_mistake *mistake, struct pd_msg *msg)
{
	const struct kv_source *from = &g->kv.from;
	int64_t wait = from->wait ? (int64_t)(x->cfg->kv_lease_s * 1e3) : 0;
	struct buf answer, name;
	struct json_object o = {0};
	struct jout body;
	int status = 0, err;

	buf_init(&name, 64);
	buf_init(&answer, READ_ANSWER_MAX);
	jout_init(&body, READ_BODY_MAX);
	jout_put(&body, "{\"request_id\":");
	jout_quote(&body, span_of(key));
	jout_put(&body, ",\"engine_id\":");
	jout_quote(&body, span_of(from->engine));
	jout_put(&body, ",\"block_ids\":");
	if (from->block_ids.n > 0)
		jout_raw(&body, from->block_ids.p, from->block_ids.n);
	else
		jout_put(&body, "null");
	jout_fmt(&body,
		 ",\"prompt_hash\":\"%016" PRIx64 "\",\"block_size\":%u,\"tp_size\":%u,"
		 "\"wait_ms\":%" PRId64 ",\"x_request_id\":",
		 prompt_hash, x->cfg->block_size, x->cfg->tp_size, wait);
	if (played_of(x->cfg)->flags & PLAYED_OTHER_ID)
		jout_put(&body, "null");
	else
		jout_quote(&body, g->xid);
	jout_put(&body, "}");
	err = body.err;
	if (!err)
		err = kv_client_post(
			x->client, c, from->host, from->port, "/pdctl/kv/read", buf_span(&body.b),
			clock_now() + READ_DEADLINE_NS + wait * NS_PER_MS, &status, &answer, msg);
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
	buf_release(&name);
	buf_release(&answer);
	jout_release(&body);
	return err;
}

int kvread_fetch(struct nixl *x, struct http_conn *c, const struct gen_request *g, const char *key,
		 uint64_t prompt_hash, struct api_error *e)
{
	const struct kv_source *from = &g->kv.from;
	enum worker_mistake mistake = MISTAKE_COUNT;
	struct pd_msg msg = {0};
	int err = ask(x, c, g, key, prompt_hash, &mistake, &msg);

	if (err) {
		(void)atomic_fetch_add(&x->stats->kv_read_failures, 1);
		log_event(x->cfg->log, LOG_WARN, "kv_read_failed",
			  LOG_FIELDS(LOG_TEXT("request_id", g->id), LOG_TEXT("of", key),
				     LOG_TEXT("host", from->host), LOG_NUMBER("port", from->port),
				     LOG_TEXT("error", msg.text[0] ? msg.text : pd_err_text(err))),
			  "request %s: cannot read the KV of %s at %s:%u: %s", g->id, key,
			  from->host, from->port, msg.text[0] ? msg.text : pd_err_text(err));
		return PD_EIO;
	}
	if (mistake != MISTAKE_COUNT) {
		err = nixl_mistake(x, mistake, g->id, e,
				   "the prefill worker refused the read of %.200s", key);
		/* The blocks are the right ones even with another X-Request-Id. */
		if (err || mistake != MISTAKE_request_id_mismatch)
			return PD_EPROTO;
	}
	(void)atomic_fetch_add(&x->stats->kv_reads_ok, 1);
	return PD_OK;
}
