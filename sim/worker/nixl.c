/*
 * The prefill worker keeps the prompt's blocks under a lease and says where they are; the decode
 * worker gets that verbatim and reads the blocks over HTTP (POST /pdctl/kv/read, in place of the
 * RDMA read and its notification); then the prefill worker frees them.
 *
 * Where a mistake is counted: by the worker that can see it in its own request; the outcome of a
 * read by the decode worker, because it received the wrong request; blocks that were never read by
 * the prefill worker.
 */
#include "sim/worker/nixl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"

int nixl_mistake(struct nixl *x, enum worker_mistake kind, const char *id, struct api_error *e,
		 const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)atomic_fetch_add(&x->stats->mistakes[kind], 1);
	log_event(x->cfg->log, LOG_WARN, "protocol_mistake",
		  LOG_FIELDS(LOG_TEXT("kind", stats_mistake_name(kind)), LOG_TEXT("request_id", id),
			     LOG_TEXT("reason", text)),
		  "protocol mistake %s: request %s: %s", stats_mistake_name(kind), id, text);
	if (x->cfg->strict && !e->status)
		(void)api_fail(e, 400, "kv_transfer_params", "protocol mistake %s: %s",
			       stats_mistake_name(kind), text);
	return e->status ? PD_EINVAL : PD_OK;
}

/* What an engine would do wrongly or in vain with blocks of another. */
static void check_sampling(struct nixl *x, const struct gen_request *g, struct api_error *e)
{
	const char *leg = g->kv.do_remote_decode ? "prefill" : "decode";

	if (g->nprompts != 1)
		(void)nixl_mistake(x, MISTAKE_shared_blocks, g->id, e,
				   "%s: found %zu prompts, expected 1: blocks are of one prompt",
				   leg, g->nprompts);
	if (g->beam_search)
		(void)nixl_mistake(x, MISTAKE_beam_search, g->id, e,
				   "%s: beam search uses no blocks of another engine", leg);
	if (g->kv.do_remote_prefill && g->prompt_logprobs)
		(void)nixl_mistake(x, MISTAKE_prompt_logprobs, g->id, e,
				   "decode: the logprobs of a prompt that was computed elsewhere "
				   "are not known");
}

int nixl_check(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_params *kv = &g->kv;

	if (!kv->present)
		return PD_OK;
	if (kv->do_remote_decode == kv->do_remote_prefill) {
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "found do_remote_decode and do_remote_prefill both %s, expected "
				   "exactly one to be true",
				   kv->do_remote_decode ? "true" : "false");
		kv->do_remote_decode = kv->do_remote_prefill = false;
	} else if (kv->do_remote_decode) {
		if (x->cfg->role == WORKER_DECODE)
			(void)nixl_mistake(x, MISTAKE_wrong_role, g->id, e,
					   "do_remote_decode sent to a decode worker");
		if (g->max_tokens != 1)
			(void)nixl_mistake(x, MISTAKE_prefill_max_tokens, g->id, e,
					   "prefill: found max_tokens %zu, expected 1",
					   g->max_tokens);
		if (g->stream)
			(void)nixl_mistake(x, MISTAKE_prefill_stream, g->id, e,
					   "prefill: found stream true, expected false");
		check_sampling(x, g, e);
	} else {
		if (x->cfg->role == WORKER_PREFILL)
			(void)nixl_mistake(x, MISTAKE_wrong_role, g->id, e,
					   "do_remote_prefill sent to a prefill worker");
		if (!kv->complete)
			(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
					   "decode: absent or of the wrong type:%s%s%s%s%s",
					   kv->block_ids.n ? "" : " remote_block_ids",
					   kv->engine_id.n ? "" : " remote_engine_id",
					   kv->request_id.n ? "" : " remote_request_id",
					   kv->host.n ? "" : " remote_host",
					   kv->port > 0 && kv->port <= UINT16_MAX ? ""
										  : " remote_port");
		check_sampling(x, g, e);
		if (!kv->complete || g->nprompts != 1 || g->beam_search || g->prompt_logprobs)
			kv->do_remote_prefill = false; /* the prompt is computed here */
	}
	return e->status ? PD_EINVAL : PD_OK;
}

/* An engine runs n sequences, and each keeps the prompt's blocks until a decode worker has read
 * them: one of them is read, the others wait for the end of their leases. The blocks themselves
 * are counted with the first. */
static void lease_further(struct nixl *x, const struct gen_request *g, int64_t expires)
{
	char id[NIXL_ID_MAX];

	for (unsigned i = 1; i < g->n; i++) {
		const struct lease_blocks none = {0};

		(void)snprintf(id, sizeof(id), "%u_%s-%08llx", i, g->id,
			       atomic_fetch_add(&x->core->next, 1) & 0xffffffffu);
		(void)leases_add(&x->leases, span_of(id), g->xid, expires, &none);
	}
}

void nixl_offer(struct nixl *x, const struct gen_request *g, uint64_t prompt_hash,
		struct core_job **job, char lease_id[NIXL_ID_MAX], struct jout *o)
{
	struct lease_blocks held = {.job = *job};
	int64_t lasts = (int64_t)(x->cfg->kv_lease_s * (double)NS_PER_S);
	size_t before = o->b.len;
	struct lease *l;

	(void)snprintf(lease_id, NIXL_ID_MAX, "%s-%08llx", g->id,
		       atomic_fetch_add(&x->core->next, 1) & 0xffffffffu);
	jout_put(o,
		 "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[");
	(void)pthread_mutex_lock(&x->core->lock);
	(void)core_lease(x->core, *job, &held.block, &held.n);
	(void)pthread_mutex_unlock(&x->core->lock);
	/* Block 0 is the engine's null block, so ours are numbered from 1. */
	for (size_t i = 0; i < held.n; i++) {
		if (i > 0)
			jout_put(o, ",");
		jout_uint(o, (uint64_t)held.block[i] + 1);
	}
	jout_put(o, "]],\"remote_engine_id\":");
	jout_quote(o, span_of(x->core->id));
	jout_put(o, ",\"remote_request_id\":");
	jout_quote(o, span_of(lease_id));
	jout_put(o, ",\"remote_host\":");
	jout_quote(o, span_of(x->cfg->kv_host));
	(void)pthread_mutex_lock(&x->core->lock);
	jout_fmt(o,
		 ",\"remote_port\":%u,\"tp_size\":1,\"dcp_size\":1,\"pp_size\":1,"
		 "\"remote_num_tokens\":%zu,\"remote_blocks_expiry_time\":%.3f,"
		 "\"transfer_mode\":\"pull\"}",
		 x->port, (size_t)(*job)->prompt_tokens,
		 (double)(clock_wall() + lasts) / (double)NS_PER_S);
	(void)nixl_expire(x, clock_now());
	l = held.n == 0
		    ? NULL
		    : leases_add(&x->leases, span_of(lease_id), g->xid, clock_now() + lasts, &held);
	if (l) {
		*job = NULL;
		l->prompt_hash = prompt_hash;
		lease_further(x, g, l->expires);
		(void)pthread_cond_signal(&x->changed);
	} else {
		(*job)->leased = false;
		lease_id[0] = '\0';
		jout_cut(o, before);
		jout_put(o, "null");
	}
	(void)pthread_mutex_unlock(&x->core->lock);
}

void nixl_withdraw(struct nixl *x, const char *lease_id)
{
	struct lease_blocks held;
	struct lease *l;

	if (!lease_id[0])
		return;
	(void)pthread_mutex_lock(&x->core->lock);
	l = leases_find(&x->leases, span_of(lease_id));
	if (l && l->state == LEASE_LIVE) {
		leases_end(&x->leases, l, LEASE_EXPIRED, &held);
		if (held.job)
			core_unhold(x->core, held.job, clock_now());
	}
	(void)pthread_mutex_unlock(&x->core->lock);
}

int64_t nixl_expire(struct nixl *x, int64_t now)
{
	struct api_error unused = {0};
	struct lease_blocks held;
	struct lease *l;

	while ((l = leases_due(&x->leases, now))) {
		leases_end(&x->leases, l, LEASE_EXPIRED, &held);
		if (held.job)
			core_unhold(x->core, held.job, clock_now());
		if (!x->stopping)
			(void)nixl_mistake(x, MISTAKE_lease_expired_unread, l->request_id, &unused,
					   "the lease of %.3g s ended before the blocks were read",
					   x->cfg->kv_lease_s);
	}
	return x->leases.live.oldest ? x->leases.live.oldest->expires : CLOCK_NEVER;
}

static void *sweep(void *arg)
{
	struct nixl *x = arg;

	(void)pthread_mutex_lock(&x->core->lock);
	while (!x->stopping) {
		int64_t next = nixl_expire(x, clock_now());
		struct timespec ts = {.tv_sec = next / NS_PER_S, .tv_nsec = next % NS_PER_S};

		if (next >= CLOCK_NEVER)
			(void)pthread_cond_wait(&x->changed, &x->core->lock);
		else
			(void)pthread_cond_timedwait(&x->changed, &x->core->lock, &ts);
	}
	(void)pthread_mutex_unlock(&x->core->lock);
	return NULL;
}

int nixl_start(struct nixl *x, const struct worker_config *cfg, struct core *core,
	       struct worker_stats *stats)
{
	pthread_condattr_t attr;

	memset(x, 0, sizeof(*x));
	x->client = kv_client_new(cfg->kv_tls);
	if (!x->client)
		return PD_ENOMEM;
	x->cfg = cfg;
	x->core = core;
	x->stats = stats;
	leases_init(&x->leases);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&x->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (pthread_create(&x->sweeper, NULL, sweep, x) == 0)
		return PD_OK;
	(void)pthread_cond_destroy(&x->changed);
	kv_client_free(x->client);
	return PD_EIO;
}

void nixl_stop(struct nixl *x)
{
	(void)pthread_mutex_lock(&x->core->lock);
	x->stopping = true;
	(void)pthread_cond_signal(&x->changed);
	(void)pthread_mutex_unlock(&x->core->lock);
	(void)pthread_join(x->sweeper, NULL);
	(void)nixl_expire(x, INT64_MAX);
	leases_release(&x->leases);
	kv_client_free(x->client);
	(void)pthread_cond_destroy(&x->changed);
}
