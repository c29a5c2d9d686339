/* One object with everything that changes; a reader makes rates of the counts. */
#include "lib/router/page/page_state.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/route/decide.h"
#include "lib/route/key/key_extract.h"
#include "lib/router/page/page_text.h"

#define STATE_FRESH (NS_PER_S / 2)
#define PROBE_WORK  (1u << 17) /* keys times workers that one measurement of shares may take */
#define PROBE_KEYS  2048u
#define PROBE_LEAST 64u
#define PREFERENCES 8 /* of a key that are shown */

/* -- shares -- */

static bool goes_by_key(const struct fleet_pool *p)
{
	return p->ring->state->spec.type->flags & ROUTE_BY_KEY;
}

/* How many of our own keys have each worker for their home. Nothing when memory is short. */
static void measure(const struct fleet_pool *p, struct page_shares *s)
{
	unsigned keys = p->n > 0 ? PROBE_WORK / (unsigned)p->n : 0;
	uint32_t *order = calloc(p->n + 1, sizeof(*order));
	struct route_key key;
	char text[32];

	free(s->of);
	s->keys = 0;
	s->of = calloc(p->n + 1, sizeof(*s->of));
	keys = keys > PROBE_KEYS ? PROBE_KEYS : keys < PROBE_LEAST ? PROBE_LEAST : keys;
	for (unsigned i = 0; s->of && order && p->n > 0 && i < keys; i++) {
		int n = snprintf(text, sizeof(text), "share-%u", i);

		route_key_of_text((struct span){text, (size_t)n}, &key);
		if (route_order(p->ring, &key, order))
			break;
		s->of[order[0]]++;
		s->keys++;
	}
	free(order);
}

static void measure_all(struct page *p, const struct fleet *f)
{
	if (p->shares_version == f->version)
		return;
	p->shares_version = f->version;
	for (int r = 0; r < ROLES; r++) {
		if (goes_by_key(&f->pool[r]))
			measure(&f->pool[r], &p->shares[r]);
		else
			p->shares[r].keys = 0;
	}
}

/* -- workers -- */

static int put_age(struct buf *b, const char *name, int64_t ns, bool there)
{
	return there ? buf_printf(b, ",\"%s\":%.1f", name, (double)ns / 1e9)
		     : buf_printf(b, ",\"%s\":null", name);
}

static int put_condition(const struct page *p, struct worker *w, struct buf *b)
{
	struct worker_view v;
	int64_t now = clock_wall();
	int err;

	worker_view(w, p->cfg.router, &v);
	err = page_put_text(b, "state", span_of(worker_state_name(v.state)));
	err = err ? err : page_put_text(b, "why", span_of(v.why));
	err = err ? err : put_age(b, "out_s", now - v.out_at, v.out_at > 0);
	err = err ? err : put_age(b, "next_try_s", v.next, v.next >= 0);
	err = err ? err : put_age(b, "oldest_silent_s", v.oldest, v.oldest > 0);
	err = err ? err : page_put_text(b, "last_failure", span_of(v.failure));
	return err ? err : put_age(b, "failed_s_ago", now - v.failed_at, v.failed_at > 0);
}

static const char *breaker_of(struct worker *w)
{
	enum breaker_state s;

	(void)pthread_mutex_lock(&w->lock);
	s = w->breaker.state;
	(void)pthread_mutex_unlock(&w->lock);
	return breaker_state_name(s);
}

static int put_counts(struct worker *w, struct buf *b)
{
	uint64_t tokens[WORKER_TOKENS] = {0};

	for (int m = 0; m < WORKER_MODELS; m++)
		for (int k = 0; k < WORKER_TOKENS; k++)
			tokens[k] += atomic_load_explicit(&w->tokens[m][k], memory_order_relaxed);
	return buf_printf(
		b,
		",\"in_flight\":%u,\"picks\":%llu,\"requests\":%llu,\"errors\":%llu,"
		"\"refusals\":%llu,\"ejections\":%llu,\"handovers\":%u,"
		"\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"completion_tokens\":%llu,"
		"\"first_n\":%llu,\"first_us\":%llu,\"gap_n\":%llu,\"gap_us\":%llu",
		(unsigned)atomic_load(&w->slot.in_flight),
		(unsigned long long)atomic_load(&w->slot.picks),
		(unsigned long long)atomic_load(&w->requests),
		(unsigned long long)atomic_load(&w->errors),
		(unsigned long long)(atomic_load(&w->refusals[WORKER_REFUSED_503]) +
				     atomic_load(&w->refusals[WORKER_REFUSED_429])),
		(unsigned long long)atomic_load(&w->ejections),
		(unsigned)atomic_load(&w->handovers), (unsigned long long)tokens[TOKENS_PROMPT],
		(unsigned long long)tokens[TOKENS_CACHED],
		(unsigned long long)tokens[TOKENS_COMPLETION],
		(unsigned long long)atomic_load(&w->page.first_n),
		(unsigned long long)atomic_load(&w->page.first_us),
		(unsigned long long)atomic_load(&w->page.gap_n),
		(unsigned long long)atomic_load(&w->page.gap_us));
}

static int put_worker(const struct page *p, const struct fleet *f, unsigned role, size_t i,
		      struct buf *b)
{
	struct worker *w = f->pool[role].worker[i];
	const struct page_shares *s = &p->shares[role];
	int err = buf_printf(b, "{\"role\":\"%s\"", worker_role_name((enum worker_role)role));

	err = err ? err : page_put_text(b, "name", span_of(w->name));
	err = err ? err : page_put_text(b, "url", span_of(w->url));
	err = err ? err
		  : page_put_text(b, "source",
				  span_of(worker_source_name(
					  (enum worker_source)atomic_load(&w->source))));
	err = err ? err : put_condition(p, w, b);
	err = err ? err : page_put_text(b, "breaker", span_of(breaker_of(w)));
	err = err ? err : put_counts(w, b);
	if (!err && s->keys > 0)
		err = page_put_number(b, "share", (double)s->of[i] / s->keys);
	else if (!err)
		err = buf_puts(b, ",\"share\":null");
	return err ? err : buf_putc(b, '}');
}

/* -- the whole -- */

static int put_head(struct page *p, const struct fleet *f, struct buf *b)
{
	const struct router_config *c = p->cfg.router;
	struct pulse_look look = {0};
	int err;

	p->cfg.look(p->cfg.ctx, &look);
	err = buf_printf(
		b,
		"{\"at\":%lld,\"mode\":\"%s\",\"may_act\":%s,\"in_flight\":%u,\"queued\":%u,"
		"\"draining\":%s,\"fleet\":%llu",
		(long long)(clock_wall() / NS_PER_MS), c->pd ? "prefill/decode" : "plain",
		p->cfg.may_act ? "true" : "false", look.in_flight, look.queued,
		look.draining ? "true" : "false", (unsigned long long)f->version);
	return err ? err : page_put_text(b, "version", span_of(c->version ? c->version : ""));
}

/* What --shadow-policy would have done, and the end of the object. */
static int put_shadow(const struct page *p, const struct fleet_pool *pool, unsigned role,
		      struct buf *b)
{
	const struct metrics *m = p->cfg.metrics;

	return !pool->shadow
		       ? buf_puts(b, ",\"shadow\":null}")
		       : buf_printf(b,
				    ",\"shadow\":{\"policy\":\"%s\",\"same\":%llu,\"other\":%llu,"
				    "\"none\":%llu}}",
				    route_pool_policy(pool->shadow),
				    (unsigned long long)metrics_shadow(m, role, SHADOW_SAME),
				    (unsigned long long)metrics_shadow(m, role, SHADOW_OTHER),
				    (unsigned long long)metrics_shadow(m, role, SHADOW_NONE));
}

static int put_pools(const struct page *p, const struct fleet *f, struct buf *b)
{
	bool first = true;
	int err = buf_puts(b, ",\"pools\":[");

	for (unsigned r = 0; !err && r < ROLES; r++) {
		if (f->pool[r].n == 0)
			continue;
		err = buf_printf(
			b,
			"%s{\"role\":\"%s\",\"policy\":\"%s\",\"by_key\":%s,\"workers\":%zu,"
			"\"available\":%zu,\"probe_keys\":%u",
			first ? "" : ",", worker_role_name((enum worker_role)r),
			route_pool_policy(f->pool[r].ring),
			goes_by_key(&f->pool[r]) ? "true" : "false", f->pool[r].n,
			fleet_available(&f->pool[r]), p->shares[r].keys);
		err = err ? err : put_shadow(p, &f->pool[r], r, b);
		first = false;
	}
	return err ? err : buf_putc(b, ']');
}

static int put_state(struct page *p, const struct fleet *f, struct buf *b)
{
	int err = put_head(p, f, b);
	bool first = true;

	err = err ? err : put_pools(p, f, b);
	err = err ? err : buf_puts(b, ",\"workers\":[");
	for (unsigned r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			err = first ? PD_OK : buf_putc(b, ',');
			err = err ? err : put_worker(p, f, r, i, b);
			first = false;
		}
	}
	return err ? err : buf_puts(b, "]}");
}

int page_state(struct page *p, struct buf *out)
{
	int64_t now = clock_now();
	int err = PD_OK;

	(void)pthread_mutex_lock(&p->lock);
	if (p->state.len == 0 || now - p->state_at >= STATE_FRESH) {
		struct fleet *f = fleet_get(p->cfg.fleet);

		measure_all(p, f);
		buf_clear(&p->state);
		err = put_state(p, f, &p->state);
		if (err)
			buf_clear(&p->state);
		p->state_at = now;
		fleet_put(f);
	}
	err = err ? err : buf_append(out, p->state.data, p->state.len);
	(void)pthread_mutex_unlock(&p->lock);
	return err;
}

/* -- where a key goes -- */

static int put_order(const struct fleet_pool *p, const struct route_key *key, struct buf *b)
{
	uint32_t *order = calloc(p->n + 1, sizeof(*order));
	int err = order ? PD_OK : PD_ENOMEM;

	if (!err && route_order(p->ring, key, order)) {
		free(order);
		return buf_puts(b, "null");
	}
	err = err ? err : buf_putc(b, '[');
	for (size_t i = 0; !err && i < p->n && i < PREFERENCES; i++) {
		struct worker *w = p->worker[order[i]];

		err = buf_puts(b, i ? ",{\"worker\":" : "{\"worker\":");
		err = err ? err : json_quote(b, w->name, strlen(w->name));
		err = err ? err
			  : page_put_text(b, "state", span_of(worker_state_name(worker_state(w))));
		err = err ? err : buf_putc(b, '}');
	}
	free(order);
	return err ? err : buf_putc(b, ']');
}

int page_state_where(struct page *p, struct span text, struct buf *out)
{
	struct fleet *f = fleet_get(p->cfg.fleet);
	struct route_key key;
	bool first = true;
	int err = PD_OK;

	route_key_of_text(text, &key);
	for (unsigned r = 0; !err && r < ROLES; r++) {
		if (f->pool[r].n == 0)
			continue;
		err = buf_printf(
			out, "%s{\"role\":\"%s\",\"policy\":\"%s\",\"order\":", first ? "" : ",",
			worker_role_name((enum worker_role)r), route_pool_policy(f->pool[r].ring));
		err = err ? err : put_order(&f->pool[r], &key, out);
		err = err ? err : buf_putc(out, '}');
		first = false;
	}
	fleet_put(f);
	return err;
}
