/* What happens to one worker: breaker, health, ejection, drain. `available` is derived in one
 * place, sync(). */
#include "lib/router/fleet/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/rng.h"

#define PROBE_SOON (200 * NS_PER_MS) /* after an ejection */
#define PROBE_SLOW NS_PER_S	     /* an ejected worker is asked at least this often */

void worker_unref(struct worker *w)
{
	unsigned before = atomic_fetch_sub(&w->refs, 1);

	PD_CHECK(before > 0);
	if (before != 1)
		return;
	/* Each request holds a fleet until its picks have ended. */
	PD_CHECK(atomic_load(&w->slot.in_flight) == 0 && atomic_load(&w->handovers) == 0);
	http_pool_release(&w->pool);
	tls_peer_free(w->peer);
	(void)pthread_mutex_destroy(&w->lock);
	free(w->name);
	free(w->url);
	free(w);
}

int worker_new(struct worker **out, const struct worker_spec *spec, const struct router_config *c,
	       struct waitlist *waiting, struct pd_msg *msg)
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
	w->bootstrap = spec->bootstrap;
	atomic_store(&w->by_hand, spec->by_hand);
	w->healthy = !spec->by_hand;
	w->ejected = w->fresh = spec->by_hand;
	w->name = strdup(spec->name);
	w->url = strdup(spec->url);
	atomic_store(&w->refs, 1);
	w->waiting = waiting;
	atomic_store(&w->slot.available, w->healthy);
	atomic_store(&w->slot.cap, c->worker_cap);
	atomic_store(&w->quiet, true);
	err = !w->name || !w->url ? pd_fail(msg, PD_ENOMEM, "out of memory")
				  : net_url_parse(&w->at, w->url, msg);
	if (!err)
		err = net_resolve(&w->addr, w->at.host, w->at.port, msg);
	if (!err && w->at.tls && !(w->peer = tls_peer_new(w->at.host)))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (err) {
		worker_unref(w);
		return err;
	}
	*out = w;
	return PD_OK;
}

static struct breaker_limits limits(const struct router_config *c)
{
	return (struct breaker_limits){c->cb_failures, c->cb_successes, c->cb_timeout, c->cb_off};
}

/*
 * Called with the lock held after every change. A half-open breaker hands out one permit; the next
 * one follows when the trial has reported. A permit that was not used is withdrawn first, so that a
 * drain or a failed probe in between can neither lose it nor double it.
 */
static void sync(struct worker *w)
{
	bool usable = w->healthy && !w->draining, closed = w->breaker.state == BREAKER_CLOSED;

	PD_CHECK_LOCKED(&w->lock);
	if (atomic_exchange(&w->slot.permits, 0) > 0)
		w->trial = false;
	if (usable && w->breaker.state == BREAKER_HALF_OPEN && !w->trial) {
		w->trial = true;
		atomic_store(&w->slot.permits, 1);
	}
	atomic_store(&w->slot.available, usable && closed);
	atomic_store_explicit(&w->quiet, closed && w->breaker.streak == 0, memory_order_relaxed);
	if (w->waiting)
		waitlist_call(w->waiting);
}

void worker_report(struct worker *w, const struct router_config *c, enum breaker_verdict v,
		   bool trial, int64_t now)
{
	struct breaker_limits l = limits(c);

	if (v == VERDICT_FAILURE)
		atomic_fetch_add_explicit(&w->errors, 1, memory_order_relaxed);
	/* The usual case, a success on a worker that has no failures, needs no lock. */
	if (v != VERDICT_FAILURE && !trial && atomic_load_explicit(&w->quiet, memory_order_relaxed))
		return;
	(void)pthread_mutex_lock(&w->lock);
	breaker_report(&w->breaker, &l, v, trial, now);
	if (trial)
		w->trial = false;
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_tick(struct worker *w, const struct router_config *c, int64_t now)
{
	struct breaker_limits l = limits(c);

	(void)pthread_mutex_lock(&w->lock);
	if (breaker_tick(&w->breaker, &l, now))
		sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_probe_due(struct worker *w, int64_t now)
{
	bool due;

	(void)pthread_mutex_lock(&w->lock);
	due = now >= w->next_probe;
	(void)pthread_mutex_unlock(&w->lock);
	return due;
}

void worker_eject(struct worker *w, const struct router_config *c, int64_t now)
{
	(void)c;
	(void)pthread_mutex_lock(&w->lock);
	if (w->healthy) {
		w->healthy = false;
		w->ejected = true;
		w->streak = 0;
		w->probe_wait = PROBE_SOON;
		w->next_probe = now + w->probe_wait;
		atomic_fetch_add_explicit(&w->ejections, 1, memory_order_relaxed);
		sync(w);
	}
	(void)pthread_mutex_unlock(&w->lock);
	http_pool_flush(&w->pool);
}

/* When to ask again: ejected workers soon and then more rarely, others at the interval with 10 %
 * jitter. */
static void plan_probe(struct worker *w, const struct router_config *c, int64_t now)
{
	uint64_t mix = (uint64_t)now ^ (uint64_t)(uintptr_t)w;
	int64_t jitter = (int64_t)(rng_splitmix(&mix) % 2001) - 1000, slow = c->health_interval;

	if (!w->healthy && slow > PROBE_SLOW)
		slow = PROBE_SLOW;
	if (w->ejected) {
		w->probe_wait = w->probe_wait * 2 < slow ? w->probe_wait * 2 : slow;
		w->next_probe = now + w->probe_wait;
	} else {
		w->next_probe = now + slow + slow / 10000 * jitter;
	}
}

void worker_probe_later(struct worker *w, const struct router_config *c, int64_t now)
{
	(void)pthread_mutex_lock(&w->lock);
	plan_probe(w, c, now);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_probed(struct worker *w, const struct router_config *c, bool ok, int64_t now)
{
	unsigned needed = ok ? c->health_successes : c->health_failures;

	atomic_fetch_add_explicit(ok ? &w->checks_ok : &w->checks_failed, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&w->lock);
	if (w->ejected && ok)
		needed = 1;
	w->streak = ok == w->healthy ? 0 : w->streak + 1;
	if (w->streak >= needed && ok != w->healthy) {
		w->healthy = ok;
		w->ejected = w->fresh = false;
		w->streak = 0;
		sync(w);
	}
	plan_probe(w, c, now);
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_note(struct worker *w, const char *why)
{
	bool news;

	(void)pthread_mutex_lock(&w->lock);
	news = strncmp(w->note, why, sizeof(w->note) - 1) != 0;
	(void)snprintf(w->note, sizeof(w->note), "%s", why);
	(void)pthread_mutex_unlock(&w->lock);
	return news;
}

void worker_note_get(struct worker *w, char *out, size_t cap)
{
	(void)pthread_mutex_lock(&w->lock);
	(void)snprintf(out, cap, "%s", w->note);
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_is_fresh(struct worker *w)
{
	bool fresh;

	(void)pthread_mutex_lock(&w->lock);
	fresh = w->fresh;
	(void)pthread_mutex_unlock(&w->lock);
	return fresh;
}

void worker_set_draining(struct worker *w, const struct router_config *c, bool on)
{
	(void)c;
	(void)pthread_mutex_lock(&w->lock);
	w->draining = on;
	if (!on)
		w->leaving = w->force = false;
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_leave(struct worker *w, bool force)
{
	(void)pthread_mutex_lock(&w->lock);
	w->draining = w->leaving = true;
	w->force |= force;
	w->quiet_looks = 0;
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_stay(struct worker *w)
{
	atomic_store(&w->by_hand, false);
	(void)pthread_mutex_lock(&w->lock);
	if (w->leaving) {
		w->draining = w->leaving = w->force = false;
		sync(w);
	}
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_is_leaving(struct worker *w)
{
	bool leaving;

	(void)pthread_mutex_lock(&w->lock);
	leaving = w->leaving;
	(void)pthread_mutex_unlock(&w->lock);
	return leaving;
}

bool worker_may_go(struct worker *w)
{
	bool idle = atomic_load(&w->slot.in_flight) == 0 && atomic_load(&w->handovers) == 0, go;

	(void)pthread_mutex_lock(&w->lock);
	w->quiet_looks = idle ? w->quiet_looks + 1 : 0;
	go = w->leaving && (w->force || w->quiet_looks > 1);
	(void)pthread_mutex_unlock(&w->lock);
	return go;
}

const char *worker_state_name(enum worker_state s)
{
	static const char *const names[WORKER_STATES] = {"available", "starting", "draining",
							 "removing",  "ejected",  "unhealthy",
							 "open",      "half_open"};

	return names[s];
}

enum worker_state worker_state(struct worker *w)
{
	enum worker_state s;

	(void)pthread_mutex_lock(&w->lock);
	if (w->leaving)
		s = WORKER_REMOVING;
	else if (w->draining)
		s = WORKER_DRAINING;
	else if (w->fresh)
		s = WORKER_STARTING;
	else if (!w->healthy)
		s = w->ejected ? WORKER_EJECTED : WORKER_UNHEALTHY;
	else
		s = w->breaker.state == BREAKER_CLOSED ? WORKER_AVAILABLE
		    : w->breaker.state == BREAKER_OPEN ? WORKER_OPEN
						       : WORKER_HALF_OPEN;
	(void)pthread_mutex_unlock(&w->lock);
	return s;
}

void worker_address(struct worker *w, struct net_addr *out)
{
	(void)pthread_mutex_lock(&w->lock);
	*out = w->addr;
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_same_server(const struct worker *a, const struct worker *b)
{
	return a->at.tls == b->at.tls && strcmp(a->at.authority, b->at.authority) == 0 &&
	       strcmp(a->at.base, b->at.base) == 0;
}

void worker_resolve(struct worker *w)
{
	struct net_addr fresh;
	bool changed = false;

	if (net_resolve(&fresh, w->at.host, w->at.port, NULL))
		return;
	(void)pthread_mutex_lock(&w->lock);
	changed = fresh.len != w->addr.len || memcmp(&fresh.sa, &w->addr.sa, fresh.len) != 0;
	w->addr = fresh;
	(void)pthread_mutex_unlock(&w->lock);
	if (changed)
		http_pool_flush(&w->pool);
}
