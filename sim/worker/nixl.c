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
#include "sim/worker/played.h"

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

int nixl_check(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	if (g->kind == GEN_EMBEDDING) {
		g->kv.do_remote_decode = g->kv.do_remote_prefill = false;
		return PD_OK;
	}
	return played_of(x->cfg)->read(x, g, e);
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

/* Where the blocks are, for the decode worker. */
static void put_coordinates(const struct nixl *x, const struct core_job *job, const char *lease_id,
			    const struct lease_blocks *held, struct jout *o)
{
	int64_t lasts = (int64_t)(x->cfg->kv_lease_s * (double)NS_PER_S);

	jout_put(o,
		 "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[");
	/* Block 0 is the engine's null block, so ours are numbered from 1. */
	for (size_t i = 0; i < held->n; i++) {
		if (i > 0)
			jout_put(o, ",");
		jout_uint(o, (uint64_t)held->block[i] + 1);
	}
	jout_put(o, "]],\"remote_engine_id\":");
	jout_quote(o, span_of(x->core->id));
	jout_put(o, ",\"remote_request_id\":");
	jout_quote(o, span_of(lease_id));
	jout_put(o, ",\"remote_host\":");
	jout_quote(o, span_of(x->cfg->kv_host));
	jout_fmt(o,
		 ",\"remote_port\":%u,\"tp_size\":%u,\"dcp_size\":1,\"pp_size\":1,"
		 "\"remote_num_tokens\":%zu,\"remote_blocks_expiry_time\":%.3f,"
		 "\"transfer_mode\":\"%s\"",
		 x->kv_port, x->cfg->tp_size, (size_t)job->prompt_tokens,
		 (double)(clock_wall() + lasts) / (double)NS_PER_S,
		 x->cfg->kv_push ? "push" : "pull");
}

void nixl_offer(struct nixl *x, const struct gen_request *g, const char *key, uint64_t prompt_hash,
		struct core_job **job, char lease_id[NIXL_ID_MAX], struct jout *o)
{
	struct lease_blocks held = {.job = *job};
	int64_t lasts = (int64_t)(x->cfg->kv_lease_s * (double)NS_PER_S);
	size_t before = o ? o->b.len : 0;
	struct lease *l;

	if (key[0])
		(void)snprintf(lease_id, NIXL_ID_MAX, "%s", key);
	else
		(void)snprintf(lease_id, NIXL_ID_MAX, "%s-%08llx", g->id,
			       atomic_fetch_add(&x->core->next, 1) & 0xffffffffu);
	(void)pthread_mutex_lock(&x->core->lock);
	(void)core_lease(x->core, *job, &held.block, &held.n);
	(void)nixl_expire(x, clock_now());
	if (o && held.n > 0) {
		put_coordinates(x, *job, lease_id, &held, o);
		/* MoRI-IO's name for a transfer is the router's. */
		if (key[0] && !x->cfg->kv_push) {
			jout_put(o, ",\"transfer_id\":");
			jout_quote(o, span_of(key));
		}
		jout_put(o, "}");
	}
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
		if (o) {
			jout_cut(o, before);
			jout_put(o, "null");
		}
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
	       struct worker_stats *stats, struct kv_client *client)
{
	pthread_condattr_t attr;

	memset(x, 0, sizeof(*x));
	x->client = client;
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
	(void)pthread_cond_destroy(&x->changed);
}
