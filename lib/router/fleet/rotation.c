/* All is counted anew at each change: a change is rare, and a pool has at most some hundred. */
#include "lib/router/fleet/rotation.h"

#include "lib/base/clock.h"
#include "lib/router/fleet/worker.h"

int rotation_init(struct rotation *r)
{
	*r = (struct rotation){0};
	return pthread_mutex_init(&r->lock, NULL) != 0 ? PD_ENOMEM : PD_OK;
}

void rotation_release(struct rotation *r)
{
	(void)pthread_mutex_destroy(&r->lock);
}

static double seconds_since(int64_t then)
{
	return (double)(clock_now() - then) / (double)NS_PER_S;
}

static void say_panic(struct rotation *r, bool panic, unsigned usable, unsigned closed)
{
	const char *role = worker_role_name(r->role);

	if (panic == atomic_load(&r->panic))
		return;
	atomic_store(&r->panic, panic);
	if (panic) {
		r->panic_since = clock_now();
		atomic_fetch_add(&r->panics, 1);
		log_event(
			r->cfg->log, LOG_WARN, "panic",
			LOG_FIELDS(LOG_TEXT("pool", role), LOG_NUMBER("on", 1),
				   LOG_NUMBER("closed", closed), LOG_NUMBER("reachable", usable),
				   LOG_NUMBER("threshold_percent", r->cfg->panic_threshold)),
			"panic in the %s pool: the breakers of %u of %u reachable workers are "
			"open, --panic-threshold asks for %u %% closed; requests go to all of them",
			role, usable - closed, usable, r->cfg->panic_threshold);
	} else {
		log_event(r->cfg->log, LOG_WARN, "panic",
			  LOG_FIELDS(LOG_TEXT("pool", role), LOG_NUMBER("on", 0),
				     LOG_NUMBER("closed", closed), LOG_NUMBER("reachable", usable),
				     LOG_REAL("for_s", seconds_since(r->panic_since))),
			  "panic in the %s pool is over after %.1f s: %u of %u reachable workers "
			  "have a closed breaker",
			  role, seconds_since(r->panic_since), closed, usable);
	}
}

static void say_degraded(struct rotation *r, bool degraded, unsigned members)
{
	if (degraded == atomic_load(&r->degraded))
		return;
	atomic_store(&r->degraded, degraded);
	if (degraded) {
		r->degraded_since = clock_now();
		log_event(r->cfg->log, LOG_WARN, "degraded",
			  LOG_FIELDS(LOG_NUMBER("on", 1), LOG_NUMBER("prefill_workers", members),
				     LOG_TEXT("fallback",
					      r->cfg->pd_fallback == PD_FALLBACK_DECODE_ONLY
						      ? "decode-only"
						      : "fail")),
			  "prefill/decode is degraded: none of %u prefill workers is available; %s",
			  members,
			  r->cfg->pd_fallback == PD_FALLBACK_DECODE_ONLY
				  ? "decode workers compute the prompts (--pd-fallback decode-only)"
				  : "requests fail (--pd-fallback fail)");
	} else {
		log_event(r->cfg->log, LOG_WARN, "degraded",
			  LOG_FIELDS(LOG_NUMBER("on", 0),
				     LOG_REAL("for_s", seconds_since(r->degraded_since))),
			  "prefill/decode is no longer degraded: a prefill worker is available "
			  "again after %.1f s",
			  seconds_since(r->degraded_since));
	}
}

static void set(struct worker *w, bool in)
{
	if (atomic_exchange(&w->slot.available, in) != in || (!in && atomic_load(&w->out_at) == 0))
		atomic_store(&w->out_at, in ? 0 : clock_wall());
}

static void decide(struct rotation *r)
{
	unsigned members = 0, usable = 0, closed = 0, awake = 0, in = 0;
	bool panic;

	for (struct worker *w = r->first; w; w = w->place.next) {
		const struct rotation_place *p = &w->place;

		members++;
		usable += p->usable;
		closed += p->usable && p->closed;
	}
	panic = r->cfg && 100 * closed < r->cfg->panic_threshold * usable;
	for (const struct worker *w = r->first; w; w = w->place.next)
		awake += w->place.usable && (w->place.closed || panic) && !w->place.resting;
	for (struct worker *w = r->first; w; w = w->place.next) {
		const struct rotation_place *p = &w->place;
		bool may = p->usable && (p->closed || panic) && (!p->resting || awake == 0);

		set(w, may);
		in += may;
	}
	if (!r->cfg)
		return;
	say_panic(r, panic, usable, closed);
	if (r->cfg->pd && r->role == ROLE_PREFILL)
		say_degraded(r, in == 0, members);
}

void rotation_configure(struct rotation *r, enum worker_role role, const struct router_config *c)
{
	(void)pthread_mutex_lock(&r->lock);
	r->role = role;
	r->cfg = c;
	decide(r);
	(void)pthread_mutex_unlock(&r->lock);
}

void rotation_join(struct rotation *r, struct worker *w)
{
	(void)pthread_mutex_lock(&r->lock);
	w->place.of = r;
	w->place.next = r->first;
	r->first = w;
	(void)pthread_mutex_unlock(&r->lock);
}

void rotation_leave(struct worker *w)
{
	struct rotation *r = w->place.of;
	struct worker **at;

	if (!r)
		return;
	(void)pthread_mutex_lock(&r->lock);
	for (at = &r->first; *at != w; at = &(*at)->place.next)
		continue;
	*at = w->place.next;
	w->place.of = NULL;
	w->place.next = NULL;
	atomic_store(&w->place.usable, false);
	decide(r);
	(void)pthread_mutex_unlock(&r->lock);
}

void rotation_set(struct worker *w, bool usable, bool closed, bool resting)
{
	struct rotation *r = w->place.of;

	if (!r) {
		set(w, usable && closed);
		return;
	}
	(void)pthread_mutex_lock(&r->lock);
	atomic_store(&w->place.usable, usable);
	w->place.closed = closed;
	w->place.resting = resting;
	decide(r);
	(void)pthread_mutex_unlock(&r->lock);
}
