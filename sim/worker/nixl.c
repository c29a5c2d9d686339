/*
 * The NIXL pull protocol as a router sees it (vLLM's NixlConnector). The prefill worker keeps the
 * prompt's blocks under a lease and says where they are; the decode worker gets that verbatim, asks
 * for the blocks over HTTP (POST /pdctl/kv/read, standing in for the RDMA read and its
 * notification), and the prefill worker frees them.
 *
 * Who counts: mistakes that a worker can see in its own request are counted there; what comes out
 * of the read is counted by the decode worker, because it received the wrong request; blocks that
 * nobody fetched are counted by the prefill worker.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker/impl.h"

#define READ_DEADLINE_NS (5 * NS_PER_S)
#define READ_ANSWER_MAX	 65536

void nixl_mistake(struct worker *w, enum worker_mistake kind, const char *id, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)atomic_fetch_add(&w->stats.mistakes[kind], 1);
	log_line(w->cfg.log, LOG_WARN, "protocol mistake %s: request %s: %s",
		 stats_mistake_name(kind), id, text);
}

/* Under --strict the first mistake of a request is its error. */
static int judge(const struct worker *w, struct api_error *e, enum worker_mistake kind,
		 const char *text)
{
	if (!w->cfg.strict)
		return PD_OK;
	return api_fail(e, 400, "kv_transfer_params", "protocol mistake %s: %s",
			stats_mistake_name(kind), text);
}

static int check_prefill_leg(struct worker *w, struct gen_request *g, struct api_error *e)
{
	int err = PD_OK;

	if (w->cfg.role == WORKER_DECODE) {
		nixl_mistake(w, MISTAKE_wrong_role, g->id,
			     "do_remote_decode sent to a decode worker");
		err = judge(w, e, MISTAKE_wrong_role, "do_remote_decode sent to a decode worker");
	}
	if (g->max_tokens != 1) {
		nixl_mistake(w, MISTAKE_prefill_max_tokens, g->id,
			     "prefill called with max_tokens %zu", g->max_tokens);
		if (!err)
			err = judge(w, e, MISTAKE_prefill_max_tokens, "prefill needs max_tokens 1");
	}
	if (g->stream) {
		nixl_mistake(w, MISTAKE_prefill_stream, g->id, "prefill called with stream true");
		if (!err)
			err = judge(w, e, MISTAKE_prefill_stream, "prefill needs stream false");
	}
	return err;
}

static int check_decode_leg(struct worker *w, struct gen_request *g, struct api_error *e)
{
	const struct kv_params *kv = &g->kv;
	int err = PD_OK;

	if (w->cfg.role == WORKER_PREFILL) {
		nixl_mistake(w, MISTAKE_wrong_role, g->id,
			     "do_remote_prefill sent to a prefill worker");
		err = judge(w, e, MISTAKE_wrong_role, "do_remote_prefill sent to a prefill worker");
	}
	if (kv->complete && g->nprompts == 1)
		return err;
	nixl_mistake(
		w, MISTAKE_missing_fields, g->id,
		"decode needs one prompt, and these are absent or of the wrong type:%s%s%s%s%s",
		kv->block_ids.n ? "" : " remote_block_ids",
		kv->engine_id.n ? "" : " remote_engine_id",
		kv->request_id.n ? "" : " remote_request_id", kv->host.n ? "" : " remote_host",
		kv->port > 0 && kv->port <= UINT16_MAX ? "" : " remote_port");
	g->kv.do_remote_prefill = false; /* the prompt is computed here */
	return err ? err
		   : judge(w, e, MISTAKE_missing_fields,
			   "decode needs remote_block_ids, remote_engine_id, remote_request_id, "
			   "remote_host and remote_port, and one prompt");
}

int nixl_check(struct worker *w, struct gen_request *g, struct api_error *e)
{
	if (!g->kv.present)
		return PD_OK;
	if (g->kv.do_remote_decode != g->kv.do_remote_prefill)
		return g->kv.do_remote_decode ? check_prefill_leg(w, g, e)
					      : check_decode_leg(w, g, e);
	nixl_mistake(w, MISTAKE_missing_fields, g->id,
		     "exactly one of do_remote_decode and do_remote_prefill must be true");
	g->kv.do_remote_decode = g->kv.do_remote_prefill = false;
	return judge(w, e, MISTAKE_missing_fields,
		     "exactly one of do_remote_decode and do_remote_prefill must be true");
}

/* -- prefill side -- */

static int add_lease(struct gen_run *run, struct kvcache_pin *pin, int64_t expires)
{
	struct worker *w = run->w;
	struct lease *l;

	(void)pthread_mutex_lock(&w->lock);
	(void)nixl_expire(w, clock_now());
	l = leases_add(&w->leases, span_of(run->remote_id), run->g->xid, expires, pin);
	if (l) {
		l->prompt_hash = run->seed;
		l->prompt_tokens = run->job.prompt_tokens;
	} else {
		engine_unpin(&w->engine, pin, clock_now());
	}
	(void)pthread_cond_signal(&w->lease_added);
	(void)pthread_mutex_unlock(&w->lock);
	return l ? PD_OK : PD_ENOMEM;
}

/* Block 0 is the engine's null block, so ours are numbered from 1. */
static void put_block_ids(struct jout *o, const struct kvcache_pin *pin)
{
	jout_put(o, "[[");
	for (size_t i = 0; i < pin->n; i++) {
		if (i > 0)
			jout_put(o, ",");
		jout_uint(o, (uint64_t)pin->block[i] + 1);
	}
	jout_put(o, "]]");
}

void nixl_offer(struct gen_run *run, struct kvcache_pin *pin, struct jout *o)
{
	struct worker *w = run->w;
	double lease_s = w->cfg.kv_lease_s,
	       expiry = (double)clock_wall() / (double)NS_PER_S + lease_s;
	size_t before = o->b.len;

	(void)snprintf(run->remote_id, sizeof(run->remote_id), "%s-%08llx", run->g->id,
		       atomic_fetch_add(&w->next_id, 1) & 0xffffffffu);
	jout_put(o, "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":");
	put_block_ids(o, pin);
	jout_put(o, ",\"remote_engine_id\":");
	jout_quote(o, span_of(w->engine_id));
	jout_put(o, ",\"remote_request_id\":");
	jout_quote(o, span_of(run->remote_id));
	jout_put(o, ",\"remote_host\":");
	jout_quote(o, span_of(w->cfg.kv_host));
	jout_fmt(o,
		 ",\"remote_port\":%u,\"tp_size\":1,\"dcp_size\":1,\"pp_size\":1,\"remote_num_"
		 "tokens\":%zu,"
		 "\"remote_blocks_expiry_time\":%.3f,\"transfer_mode\":\"pull\"}",
		 worker_port(w), run->job.prompt_tokens, expiry);
	if (add_lease(run, pin, clock_now() + (int64_t)(lease_s * (double)NS_PER_S)) != PD_OK) {
		run->remote_id[0] = '\0';
		jout_cut(o, before);
		jout_put(o, "null");
	}
}

void nixl_withdraw(struct gen_run *run)
{
	struct worker *w = run->w;
	struct kvcache_pin pin = {0};
	struct lease *l;

	if (!run->remote_id[0])
		return;
	(void)pthread_mutex_lock(&w->lock);
	l = leases_find(&w->leases, span_of(run->remote_id));
	if (l && l->state == LEASE_LIVE) {
		leases_end(&w->leases, l, LEASE_EXPIRED, &pin);
		engine_unpin(&w->engine, &pin, clock_now());
	}
	(void)pthread_mutex_unlock(&w->lock);
}

int64_t nixl_expire(struct worker *w, int64_t now)
{
	struct kvcache_pin pin;
	struct lease *l;

	while ((l = leases_due(&w->leases, now))) {
		leases_end(&w->leases, l, LEASE_EXPIRED, &pin);
		engine_unpin(&w->engine, &pin, now);
		if (!w->stopping)
			nixl_mistake(w, MISTAKE_lease_expired_unread, l->request_id,
				     "the lease of %.3g s ended and nobody had read the blocks",
				     w->cfg.kv_lease_s);
	}
	return w->leases.live.oldest ? w->leases.live.oldest->expires : CLOCK_NEVER;
}

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
		if (!err && (id < 1 || id > UINT32_MAX || k->nblocks == WORKER_KV_BLOCKS_MAX))
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
	k->block = malloc(WORKER_KV_BLOCKS_MAX < r->body.n ? WORKER_KV_BLOCKS_MAX * sizeof(uint32_t)
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

/* The blocks of an engine that is no more: the process was started again on this port. That is bad
 * luck of the reader, who finds the KV gone, and nobody's mistake. */
static bool of_earlier_engine(const struct worker *w, const struct kv_read *k,
			      const struct lease *l)
{
	return !l && !span_eq(buf_span(&k->engine_id), span_of(w->engine_id));
}

/* What is wrong with this read; MISTAKE_COUNT when nothing is. *free_blocks: the reader meant this
 * lease and is done with it. */
static enum worker_mistake judge_read(const struct worker *w, const struct kv_read *k,
				      const struct lease *l, bool *free_blocks)
{
	char hash[20];

	*free_blocks = false;
	if (!l || !span_eq(buf_span(&k->engine_id), span_of(w->engine_id)))
		return MISTAKE_unknown_id;
	if (l->state != LEASE_LIVE)
		return l->state == LEASE_READ ? MISTAKE_duplicate_read : MISTAKE_expired_lease;
	if (k->nblocks != l->pin.n ||
	    memcmp(k->block, l->pin.block, k->nblocks * sizeof(*k->block)) != 0)
		return MISTAKE_unknown_id;
	*free_blocks = true;
	(void)snprintf(hash, sizeof(hash), "%016" PRIx64, l->prompt_hash);
	if (!span_eq(buf_span(&k->prompt_hash), span_of(hash)))
		return MISTAKE_prompt_mismatch;
	if (!span_eq(buf_span(&k->xid), span_of(l->xid)))
		return MISTAKE_request_id_mismatch;
	return MISTAKE_COUNT;
}

static enum worker_mistake do_read(struct worker *w, const struct kv_read *k, bool *gone)
{
	struct kvcache_pin pin = {0};
	enum worker_mistake mistake;
	bool free_blocks;
	struct lease *l;

	(void)pthread_mutex_lock(&w->lock);
	(void)nixl_expire(w, clock_now());
	l = leases_find(&w->leases, buf_span(&k->request_id));
	*gone = of_earlier_engine(w, k, l);
	mistake = judge_read(w, k, l, &free_blocks);
	if (free_blocks) {
		leases_end(&w->leases, l, LEASE_READ, &pin);
		engine_unpin(&w->engine, &pin, clock_now());
		(void)atomic_fetch_add(&w->stats.kv_blocks_served, k->nblocks);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return mistake;
}

void nixl_serve_read(struct worker *w, struct http_conn *c, struct http_request *r)
{
	struct kv_read k = {0};
	struct api_error e = {0};
	enum worker_mistake mistake;
	struct jout o;
	bool gone;

	if (parse_read(r, &k) != PD_OK) {
		(void)api_fail(&e, 400, NULL,
			       "expected "
			       "{\"request_id\",\"engine_id\",\"block_ids\",\"prompt_hash\",\"x_"
			       "request_id\"}");
		api_reply_error(c, &e, NULL);
		release_read(&k);
		return;
	}
	mistake = do_read(w, &k, &gone);
	if (gone) {
		(void)api_fail(&e, 410, NULL, "blocks of an engine that is no more");
		api_reply_error(c, &e, NULL);
		release_read(&k);
		return;
	}
	if (mistake != MISTAKE_COUNT)
		log_line(w->cfg.log, LOG_INFO, "KV read of %s answered with %s",
			 k.request_id.data ? k.request_id.data : "", stats_mistake_name(mistake));
	jout_init(&o, 4096);
	jout_fmt(&o, "{\"mistake\":\"%s\",\"blocks\":%zu}\n",
		 mistake == MISTAKE_COUNT ? "" : stats_mistake_name(mistake), k.nblocks);
	api_reply(c, &o);
	jout_release(&o);
	release_read(&k);
}

/* -- decode side -- */

static void put_read(const struct gen_run *run, struct jout *o)
{
	const struct kv_params *kv = &run->g->kv;

	jout_put(o, "{\"request_id\":");
	jout_raw(o, kv->request_id.p, kv->request_id.n);
	jout_put(o, ",\"engine_id\":");
	jout_raw(o, kv->engine_id.p, kv->engine_id.n);
	jout_put(o, ",\"block_ids\":");
	jout_raw(o, kv->block_ids.p, kv->block_ids.n);
	jout_fmt(o, ",\"prompt_hash\":\"%016" PRIx64 "\",\"x_request_id\":", run->seed);
	jout_quote(o, run->g->xid);
	jout_put(o, "}");
}

/* One exchange with the prefill worker: *mistake is the kind it named, MISTAKE_COUNT for none. */
static int ask(struct gen_run *run, enum worker_mistake *mistake)
{
	struct buf host, answer, name;
	struct json_object o = {0};
	struct jout body;
	int status = 0, err;

	buf_init(&host, 255);
	buf_init(&name, 64);
	buf_init(&answer, READ_ANSWER_MAX);
	jout_init(&body, WORKER_OUT_MAX);
	put_read(run, &body);
	err = body.err ? body.err : json_string_decode(run->g->kv.host, &host);
	if (!err)
		err = kv_pool_post(run->w->kv_pool, host.data, (uint16_t)run->g->kv.port,
				   "/pdctl/kv/read", buf_span(&body.b),
				   clock_now() + READ_DEADLINE_NS, &status, &answer);
	if (!err)
		err = status == 200 ? json_object_scan(&o, answer.data, answer.len, NULL)
				    : PD_EPROTO;
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

int nixl_fetch(struct gen_run *run, struct api_error *e)
{
	struct worker *w = run->w;
	const struct kv_params *kv = &run->g->kv;
	enum worker_mistake mistake = MISTAKE_COUNT;
	int err = ask(run, &mistake);

	run->kv_settled = true;
	if (err) {
		(void)atomic_fetch_add(&w->stats.kv_read_failures, 1);
		log_line(w->cfg.log, LOG_WARN,
			 "request %s: KV of %.*s at %.*s:%d cannot be read: %s", run->g->id,
			 (int)kv->request_id.n, kv->request_id.p, (int)kv->host.n, kv->host.p,
			 (int)kv->port, pd_err_text(err));
		return PD_EIO;
	}
	if (mistake != MISTAKE_COUNT) {
		nixl_mistake(w, mistake, run->g->id, "reading %.*s from the prefill worker",
			     (int)(kv->request_id.n < 200 ? kv->request_id.n : 200),
			     kv->request_id.p);
		if (judge(w, e, mistake, "the prefill worker refused the read") != PD_OK)
			return PD_EPROTO;
		/* A wrong X-Request-Id is only a mistake of bookkeeping: the blocks themselves are
		 * right. */
		if (mistake != MISTAKE_request_id_mismatch)
			return PD_EPROTO;
	}
	(void)atomic_fetch_add(&w->stats.kv_reads_ok, 1);
	return PD_OK;
}
