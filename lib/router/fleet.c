/*
 * Requests hold a snapshot of the fleet while they run, and a reload swaps the pointer: the lock is
 * held for a pointer and a count only, and nobody sees half a change. A worker that stays (same
 * name and address) is carried over with its counters, breaker and connections.
 */
#include "lib/router/fleet.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

/* -- workers -- */

static void worker_unref(struct worker *w)
{
	if (atomic_fetch_sub(&w->refs, 1) != 1)
		return;
	http_pool_release(&w->pool);
	(void)pthread_mutex_destroy(&w->lock);
	free(w->name);
	free(w->url);
	free(w);
}

static int worker_new(struct worker **out, const struct worker_spec *spec,
		      const struct router_config *c, struct pd_msg *msg)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w || http_pool_init(&w->pool, c->pool_size, c->pool_idle_timeout)) {
		free(w);
		(void)pd_fail(msg, PD_ENOMEM, "out of memory");
		return PD_ENOMEM;
	}
	(void)pthread_mutex_init(&w->lock, NULL);
	breaker_init(&w->breaker);
	w->role = spec->role;
	w->healthy = true;
	w->name = strdup(spec->name);
	w->url = strdup(spec->url);
	atomic_store(&w->refs, 1);
	atomic_store(&w->slot.available, true);
	atomic_store(&w->slot.cap, c->worker_cap);
	atomic_store(&w->quiet, true);
	err = !w->name || !w->url ? pd_fail(msg, PD_ENOMEM, "out of memory")
				  : net_url_parse(&w->at, w->url, msg);
	if (!err)
		err = net_resolve(&w->addr, w->at.host, w->at.port, msg);
	if (err) {
		worker_unref(w);
		return err;
	}
	*out = w;
	return PD_OK;
}

static struct worker *find_same(struct fleet *old, const struct worker_spec *spec)
{
	struct fleet_pool *p = old ? &old->pool[spec->role] : NULL;

	for (size_t i = 0; p && i < p->n; i++)
		if (strcmp(p->worker[i]->name, spec->name) == 0 &&
		    strcmp(p->worker[i]->url, spec->url) == 0)
			return p->worker[i];
	return NULL;
}

/* -- pools -- */

static void pool_release(struct fleet_pool *p)
{
	route_pool_free(p->ring);
	for (size_t i = 0; i < p->n; i++)
		worker_unref(p->worker[i]);
	free(p->worker);
}

static int build_ring(struct fleet_pool *p, const struct router_config *c, struct pd_msg *msg)
{
	const char **names = calloc(p->n + 1, sizeof(*names));
	struct route_slot **slots = calloc(p->n + 1, sizeof(struct route_slot *));
	int err = PD_ENOMEM;

	if (names && slots) {
		for (size_t i = 0; i < p->n; i++) {
			names[i] = p->worker[i]->name;
			slots[i] = &p->worker[i]->slot;
		}
		err = route_pool_new(&p->ring, names, slots, p->n, c->ring_hash, c->vnodes, msg);
	} else {
		(void)pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	free(names);
	free(slots);
	return err;
}

static int pool_build(struct fleet_pool *p, enum worker_role role, struct fleet *old,
		      const struct router_config *c, const struct fleet_config *fc,
		      struct pd_msg *msg)
{
	int err = PD_OK;

	route_policy_init(&p->policy, fc->policy[role]);
	p->n = 0;
	p->worker = calloc(fc->workers.n + 1, sizeof(struct worker *));
	if (!p->worker)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; !err && i < fc->workers.n; i++) {
		const struct worker_spec *spec = &fc->workers.spec[i];
		struct worker *w;

		if (spec->role != role)
			continue;
		w = find_same(old, spec);
		if (w)
			atomic_fetch_add(&w->refs, 1);
		else
			err = worker_new(&w, spec, c, msg);
		if (!err)
			p->worker[p->n++] = w;
	}
	return err ? err : build_ring(p, c, msg);
}

/* -- snapshots -- */

static void fleet_free(struct fleet *f)
{
	for (int r = 0; r < ROLES; r++)
		pool_release(&f->pool[r]);
	free(f);
}

struct fleet *fleet_get(struct fleet_holder *h)
{
	struct fleet *f;

	(void)pthread_mutex_lock(&h->lock);
	f = h->now;
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	(void)pthread_mutex_unlock(&h->lock);
	return f;
}

struct fleet *fleet_ref(struct fleet *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void fleet_put(struct fleet *f)
{
	if (f && atomic_fetch_sub(&f->refs, 1) == 1)
		fleet_free(f);
}

int fleet_holder_init(struct fleet_holder *h)
{
	*h = (struct fleet_holder){0};
	return pthread_mutex_init(&h->lock, NULL) == 0 && pthread_mutex_init(&h->loading, NULL) == 0
		       ? PD_OK
		       : PD_ENOMEM;
}

void fleet_holder_release(struct fleet_holder *h)
{
	fleet_put(h->now);
	h->now = NULL;
	(void)pthread_mutex_destroy(&h->loading);
	(void)pthread_mutex_destroy(&h->lock);
}

static bool has_worker(const struct fleet_pool *p, const struct worker *w)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->worker[i] == w)
			return true;
	return false;
}

/* Idle connections of workers that are gone are closed now; their streams end in their own time.
 * Returns how many are gone. */
static uint64_t retire(struct fleet *old, struct fleet *fresh)
{
	uint64_t gone = 0;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < old->pool[r].n; i++) {
			struct worker *w = old->pool[r].worker[i];

			if (has_worker(&fresh->pool[r], w))
				continue;
			http_pool_close(&w->pool);
			gone++;
		}
	}
	return gone;
}

static void replace(struct fleet_holder *h, struct fleet *old, struct fleet *fresh)
{
	uint64_t gone = retire(old, fresh), added = 0;

	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < fresh->pool[r].n; i++)
			added += !has_worker(&old->pool[r], fresh->pool[r].worker[i]);
	if (added == 0 && gone == 0)
		return;
	atomic_store(&h->added, added);
	atomic_store(&h->removed, gone);
	atomic_fetch_add(&h->updates, 1);
}

static int load(struct fleet_holder *h, const struct router_config *c,
		const struct fleet_config *fc, struct pd_msg *msg)
{
	struct fleet *f = calloc(1, sizeof(*f)), *old;
	int err = PD_OK;

	if (!f)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	atomic_store(&f->refs, 1);
	for (int r = 0; !err && r < ROLES; r++)
		err = pool_build(&f->pool[r], (enum worker_role)r, h->now, c, fc, msg);
	if (err) {
		fleet_free(f);
		return err;
	}
	(void)pthread_mutex_lock(&h->lock);
	old = h->now;
	f->version = ++h->version;
	h->now = f;
	(void)pthread_mutex_unlock(&h->lock);
	if (old)
		replace(h, old, f);
	fleet_put(old);
	return PD_OK;
}

int fleet_load(struct fleet_holder *h, const struct router_config *c, const struct fleet_config *fc,
	       struct pd_msg *msg)
{
	int err;

	/* A signal and an admin request may ask at once: the second builds upon the first's fleet.
	 */
	(void)pthread_mutex_lock(&h->loading);
	err = load(h, c, fc, msg);
	(void)pthread_mutex_unlock(&h->loading);
	return err;
}

size_t fleet_available(const struct fleet_pool *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += atomic_load(&p->worker[i]->slot.available);
	return n;
}

struct worker *fleet_find(struct fleet *f, struct span id)
{
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < f->pool[r].n; i++)
			if (span_eq(id, span_of(f->pool[r].worker[i]->name)) ||
			    span_eq(id, span_of(f->pool[r].worker[i]->url)))
				return f->pool[r].worker[i];
	return NULL;
}
