/* What happens to one worker: breaker, health, ejection, drain, pause. Each change ends in sync(),
 * which tells the rotation of its pool. */
#include "lib/router/fleet/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/json/scan.h"
#include "lib/router/fleet/known.h"
#include "lib/router/fleet/served.h"

#define PROBE_SOON    (200 * NS_PER_MS) /* after an ejection */
#define PROBE_SLOW    NS_PER_S		/* an ejected worker is asked at least this often */
#define SUSPECT_PROBE NS_PER_S		/* a suspect one too */
#define SUSPECT_LIMIT (3 * NS_PER_S)	/* for the answer of one */
#define SUSPECT_BAD   2u		/* bad probes that take a suspect out */
#define ASK_EVERY     (30 * NS_PER_S)	/* a name that has an answer */
#define ASK_SOON      NS_PER_S		/* one that has none, or whose addresses refuse */

void worker_unref(struct worker *w)
{
	unsigned before = atomic_fetch_sub(&w->refs, 1);

	PD_CHECK(before > 0);
	if (before != 1)
		return;
	PD_CHECK(!w->place.of);
	/* Each request holds a fleet until its picks have ended. */
	PD_CHECK(atomic_load(&w->slot.in_flight) == 0 && atomic_load(&w->handovers) == 0);
	http_pool_release(&w->pool);
	resolver_drop(w->asking);
	tls_peer_free(w->peer);
	(void)pthread_mutex_destroy(&w->lock);
	served_list_put(w->served);
	free(w->known);
	free(w->name);
	free(w->url);
	free(w);
}

/* "http://host/v1" is what clients call a base URL: the paths of requests begin with /v1 anyway. */
static void drop_v1(struct net_url *u)
{
	size_t n = strlen(u->base);

	if (n >= 3 && strcmp(u->base + n - 3, "/v1") == 0)
		u->base[n - 3] = '\0';
}

/* Blocks, with `look_up`. */
static void find_first(struct worker *w, const struct router_config *c, bool look_up)
{
	struct pd_msg why = {0};

	w->named = !net_literal(&w->addrs.a[0], w->at.host, w->at.port);
	w->addrs.n = !w->named;
	if (w->named && look_up) {
		w->asked = clock_now();
		w->next_ask = w->asked + ASK_EVERY;
		if (net_resolve_all(&w->addrs, w->at.host, w->at.port, &why)) {
			(void)worker_unresolved(w, why.text);
			log_event(
				c->log, LOG_WARN, "worker_not_ready",
				LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("error", why.text)),
				"worker %s: not ready: %s", w->url, why.text);
			w->next_ask = w->asked + ASK_SOON;
		}
	}
	if (w->addrs.n > 0)
		return;
	w->healthy = false;
	w->ejected = true;
}

int worker_new(struct worker **out, const struct worker_spec *spec, const struct router_config *c,
	       struct waitlist *waiting, bool look_up, struct pd_msg *msg)
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
	atomic_store(&w->source, (int)spec->source);
	w->healthy = spec->source == SOURCE_LISTED;
	w->ejected = w->fresh = spec->source != SOURCE_LISTED;
	w->name = strdup(spec->name);
	w->url = strdup(spec->url);
	atomic_store(&w->refs, 1);
	w->waiting = waiting;
	atomic_store(&w->slot.cap, c->worker_cap);
	atomic_store(&w->quiet, true);
	err = !w->name || !w->url ? pd_fail(msg, PD_ENOMEM, "out of memory")
				  : net_url_parse(&w->at, w->url, msg);
	if (!err) {
		drop_v1(&w->at);
		find_first(w, c, look_up);
		atomic_store(&w->slot.available, w->healthy);
		w->out_at = w->healthy ? 0 : clock_wall();
	}
	if (!err && w->at.tls && !(w->peer = tls_peer_new(w->at.host)))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (err) {
		worker_unref(w);
		return err;
	}
	w->log = c->log;
	w->said = worker_state(w);
	w->said_at = clock_now();
	*out = w;
	return PD_OK;
}

static struct breaker_limits limits(const struct router_config *c)
{
	return (struct breaker_limits){c->cb_failures, c->cb_successes, c->cb_timeout, c->cb_off};
}

static enum worker_state state_of(struct worker *w);

static void say_fields(struct worker *w, enum worker_state was, int64_t before,
		       enum log_level level, bool bad)
{
	struct buf b;
	int err;

	buf_init(&b, 8192);
	err = buf_puts(&b, "\"worker\":");
	err = err ? err : json_quote(&b, w->url, strlen(w->url));
	if (!err)
		err = buf_printf(&b,
				 ",\"state\":\"%s\",\"was\":\"%s\",\"for_s\":%.1f,"
				 "\"in_flight\":%u,\"requests\":%llu,\"errors\":%llu,"
				 "\"ejections\":%llu",
				 worker_state_name(w->said), worker_state_name(was),
				 (double)before / 1e9, (unsigned)atomic_load(&w->slot.in_flight),
				 (unsigned long long)atomic_load(&w->requests),
				 (unsigned long long)atomic_load(&w->errors),
				 (unsigned long long)atomic_load(&w->ejections));
	if (!err && bad && w->failure[0]) {
		err = buf_puts(&b, ",\"reason\":");
		err = err ? err : json_quote(&b, w->failure, strlen(w->failure));
	}
	if (err)
		log_lost(w->log);
	else
		log_json(w->log, level, "worker", b.data);
	buf_release(&b);
}

/* Tells the log what the worker is doing now, why, and with which counts. What an operator did is
 * info, and so is a step of a breaker on its way back. Removals have a line where they are asked
 * for, stalled ones in health.c. */
static void say(struct worker *w)
{
	enum worker_state was = w->said, s = state_of(w);
	bool bad = s == WORKER_EJECTED || s == WORKER_UNHEALTHY || s == WORKER_OPEN,
	     back = s == WORKER_AVAILABLE && (was == WORKER_EJECTED || was == WORKER_UNHEALTHY ||
					      was == WORKER_OPEN || was == WORKER_HALF_OPEN);
	enum log_level level = bad || back				? LOG_WARN
			       : s == WORKER_BUSY || was == WORKER_BUSY ? LOG_DEBUG
									: LOG_INFO;
	int64_t now = clock_now(), before = now - w->said_at;

	if (s == was)
		return;
	w->said = s;
	w->said_at = now;
	if (s == WORKER_REMOVING || s == WORKER_STALLED ||
	    (was == WORKER_STALLED && s == WORKER_AVAILABLE))
		return;
	if (log_is_json(w->log))
		say_fields(w, was, before, level, bad);
	else
		log_line(w->log, level,
			 "worker %s: %s after %.1f s %s%s%s; %u in flight, %llu requests, %llu "
			 "errors, %llu ejections",
			 w->url, worker_state_name(s), (double)before / 1e9, worker_state_name(was),
			 bad && w->failure[0] ? ": " : "", bad ? w->failure : "",
			 (unsigned)atomic_load(&w->slot.in_flight),
			 (unsigned long long)atomic_load(&w->requests),
			 (unsigned long long)atomic_load(&w->errors),
			 (unsigned long long)atomic_load(&w->ejections));
}

/*
 * Called with the lock held after every change. A half-open breaker hands out one permit; the next
 * one follows when the trial has reported. A permit that was not used is withdrawn first, so that a
 * drain or a failed probe in between can neither lose it nor double it. A stalled worker that has
 * nothing to do gets one too: that request shows whether it moves again.
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
	if (usable && closed && w->stalled && atomic_load(&w->slot.in_flight) == 0)
		atomic_store(&w->slot.permits, 1);
	rotation_set(w, usable && !w->stalled, closed, w->rest_until > 0);
	atomic_store_explicit(&w->quiet, closed && w->breaker.streak == 0, memory_order_relaxed);
	say(w);
	if (w->waiting)
		waitlist_call(w->waiting);
}

void worker_report(struct worker *w, const struct router_config *c, enum breaker_verdict v,
		   bool trial, int64_t now)
{
	struct breaker_limits l = limits(c);
	bool panic;

	if (v == VERDICT_FAILURE)
		atomic_fetch_add_explicit(&w->errors, 1, memory_order_relaxed);
	if (!worker_awaits(w, v, trial))
		return;
	(void)pthread_mutex_lock(&w->lock);
	/* In a panic everybody is the trial. */
	panic = w->place.of && atomic_load(&w->place.of->panic);
	if (panic && v == VERDICT_SUCCESS)
		breaker_try(&w->breaker, now);
	breaker_report(&w->breaker, &l, v, trial || panic, now);
	if (trial)
		w->trial = false;
	if (w->breaker.state == BREAKER_CLOSED && w->breaker.streak == 0)
		w->reachable = false;
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_tick(struct worker *w, const struct router_config *c, int64_t now)
{
	struct breaker_limits l = limits(c);
	bool rested;

	(void)pthread_mutex_lock(&w->lock);
	rested = w->rest_until > 0 && now >= w->rest_until;
	if (rested)
		w->rest_until = 0;
	if (breaker_tick(&w->breaker, &l, now) || rested)
		sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_rest(struct worker *w, int64_t until)
{
	(void)pthread_mutex_lock(&w->lock);
	if (until > w->rest_until) {
		w->rest_until = until;
		sync(w);
	}
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_offer(struct worker *w)
{
	bool usable;

	(void)pthread_mutex_lock(&w->lock);
	usable = atomic_load(&w->place.usable);
	if (usable && atomic_load(&w->slot.permits) == 0)
		atomic_store(&w->slot.permits, 1);
	(void)pthread_mutex_unlock(&w->lock);
	return usable;
}

void worker_join(struct worker *w, struct rotation *r)
{
	(void)pthread_mutex_lock(&w->lock);
	rotation_join(r, w);
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_part(struct worker *w)
{
	(void)pthread_mutex_lock(&w->lock);
	rotation_leave(w);
	sync(w);
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_probe_due(struct worker *w, const struct router_config *c, int64_t now, int64_t *limit)
{
	bool due;

	(void)pthread_mutex_lock(&w->lock);
	due = now >= w->next_probe && w->addrs.n > 0;
	w->probe_sent = due ? now : w->probe_sent;
	*limit = w->suspect && w->healthy && c->health_timeout > SUSPECT_LIMIT ? SUSPECT_LIMIT
									       : c->health_timeout;
	(void)pthread_mutex_unlock(&w->lock);
	return due;
}

/* Probes are not more frequent than this, whatever happens. Called with the lock held. */
static void probe_now(struct worker *w, int64_t now)
{
	int64_t soon = w->probe_sent + SUSPECT_PROBE;

	soon = soon > now ? soon : now;
	w->next_probe = soon < w->next_probe ? soon : w->next_probe;
}

static void keep_failure(struct worker *w, const char *why)
{
	(void)snprintf(w->failure, sizeof(w->failure), "%s", why);
	w->failed_at = clock_wall();
}

void worker_blame(struct worker *w, enum worker_fault fault, const char *why, int64_t now)
{
	(void)pthread_mutex_lock(&w->lock);
	keep_failure(w, why);
	w->reachable = fault == FAULT_CUT;
	if (w->reachable && w->healthy)
		probe_now(w, now);
	(void)pthread_mutex_unlock(&w->lock);
}

void worker_suspect(struct worker *w, bool on, int64_t now)
{
	(void)pthread_mutex_lock(&w->lock);
	on &= w->healthy;
	if (on && !w->suspect)
		probe_now(w, now);
	w->suspect = on;
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_stall(struct worker *w, bool on, int64_t now)
{
	bool news;

	(void)pthread_mutex_lock(&w->lock);
	news = on != w->stalled;
	w->stalled = on;
	if (news)
		w->stalled_at = on ? now : 0;
	if (news || (on && atomic_load(&w->slot.permits) == 0))
		sync(w);
	(void)pthread_mutex_unlock(&w->lock);
	return news;
}

bool worker_is_silent(struct worker *w)
{
	bool silent;

	(void)pthread_mutex_lock(&w->lock);
	silent = w->silent;
	(void)pthread_mutex_unlock(&w->lock);
	return silent;
}

int64_t worker_stalled_at(struct worker *w)
{
	int64_t at;

	(void)pthread_mutex_lock(&w->lock);
	at = w->stalled_at;
	(void)pthread_mutex_unlock(&w->lock);
	return at;
}

void worker_eject(struct worker *w, int64_t now)
{
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
	known_forget(w);
	if (w->next_ask > w->asked + ASK_SOON)
		w->next_ask = w->asked + ASK_SOON;
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
	if (w->suspect && w->healthy)
		probe_now(w, now);
}

void worker_probe_later(struct worker *w, const struct router_config *c, int64_t now)
{
	(void)pthread_mutex_lock(&w->lock);
	plan_probe(w, c, now);
	(void)pthread_mutex_unlock(&w->lock);
}

/*
 * A worker that was out and is well is taken as a new one: what its breaker counted is of the past
 * (Envoy: successful_active_health_check_uneject_host). So is one whose connections ended and that
 * answers now: it was restarted; once within the breaker's own time, as a process may also break
 * connections again and again. Called with the lock held.
 */
static void forgive(struct worker *w, const struct router_config *c, bool was_out, int64_t now)
{
	if (!was_out && (w->breaker.state == BREAKER_CLOSED || !w->reachable ||
			 (w->reset_at && now - w->reset_at < c->cb_timeout)))
		return;
	if (!was_out)
		w->reset_at = now;
	w->reachable = false;
	breaker_reset(&w->breaker, now);
}

void worker_probed(struct worker *w, const struct router_config *c, bool ok, bool answered,
		   int64_t now)
{
	unsigned needed = ok ? c->health_successes : c->health_failures;

	atomic_fetch_add_explicit(ok ? &w->checks_ok : &w->checks_failed, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&w->lock);
	if (ok && (w->ejected || w->quick))
		needed = 1;
	if (w->suspect && !ok && needed > SUSPECT_BAD)
		needed = SUSPECT_BAD;
	w->streak = ok == w->healthy ? 0 : w->streak + 1;
	w->silent &= !ok;
	if (w->streak >= needed && ok != w->healthy) {
		w->healthy = ok;
		/* A suspect that is out comes back as fast as one that refused connections. */
		w->quick = !ok && w->suspect;
		w->silent = w->quick && !answered;
		w->ejected = w->fresh = w->suspect = false;
		w->streak = 0;
		forgive(w, c, ok, now);
		sync(w);
	} else if (ok && w->healthy && w->breaker.state != BREAKER_CLOSED) {
		forgive(w, c, false, now);
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
	if (why[0])
		keep_failure(w, why);
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

void worker_set_draining(struct worker *w, bool on)
{
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
	atomic_store(&w->source, SOURCE_LISTED);
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

/* -- what people see of it -- */

const char *worker_state_name(enum worker_state s)
{
	static const char *const names[WORKER_STATES] = {
		"available",  "starting", "draining", "removing",  "ejected", "unhealthy",
		"unresolved", "stalled",  "open",     "half_open", "busy"};

	return names[s];
}

static enum worker_state state_of(struct worker *w)
{
	PD_CHECK_LOCKED(&w->lock);
	if (w->leaving)
		return WORKER_REMOVING;
	if (w->draining)
		return WORKER_DRAINING;
	if (w->fresh)
		return WORKER_STARTING;
	if (w->addrs.n == 0)
		return WORKER_UNRESOLVED;
	if (!w->healthy)
		return w->ejected ? WORKER_EJECTED : WORKER_UNHEALTHY;
	if (w->breaker.state != BREAKER_CLOSED)
		return w->breaker.state == BREAKER_OPEN ? WORKER_OPEN : WORKER_HALF_OPEN;
	return w->stalled ? WORKER_STALLED : w->rest_until > 0 ? WORKER_BUSY : WORKER_AVAILABLE;
}

enum worker_state worker_state(struct worker *w)
{
	enum worker_state s;

	(void)pthread_mutex_lock(&w->lock);
	s = state_of(w);
	(void)pthread_mutex_unlock(&w->lock);
	return s;
}

void worker_view(struct worker *w, const struct router_config *c, struct worker_view *out)
{
	static const char *const reasons[WORKER_STATES] = {
		[WORKER_STARTING] = "no successful health check yet",
		[WORKER_DRAINING] = "drained by an operator",
		[WORKER_REMOVING] = "removed: its requests in flight have not ended",
		[WORKER_EJECTED] = "cannot be reached",
		[WORKER_UNHEALTHY] = "health checks fail",
		[WORKER_UNRESOLVED] = "its name has no address yet",
		[WORKER_STALLED] = "it answers health checks, but none of its requests moves",
		[WORKER_OPEN] = "circuit breaker open after failures in a row",
		[WORKER_HALF_OPEN] = "circuit breaker half open: one request at a time",
		[WORKER_BUSY] = "it asked for a pause (Retry-After)",
	};
	bool in = atomic_load(&w->slot.available);
	int64_t now = clock_now(), next = -1;
	struct http_watch calls;
	const char *because;

	http_pool_look(&w->pool, &calls);
	(void)pthread_mutex_lock(&w->lock);
	*out = (struct worker_view){.state = state_of(w),
				    .out_at = w->out_at,
				    .failed_at = w->failed_at,
				    .oldest = calls.unanswered ? now - calls.unanswered : 0};
	if (w->silent)
		because = "it stopped responding";
	else
		because = in ? NULL : reasons[out->state]; /* in a panic an open breaker is in */
	if (in)
		next = -1;
	else if (out->state == WORKER_OPEN)
		next = w->breaker.opened_ns + c->cb_timeout;
	else if (out->state == WORKER_UNRESOLVED || (out->state == WORKER_STARTING && !w->addrs.n))
		next = w->next_ask;
	else if (!w->healthy && !w->draining)
		next = w->next_probe;
	else if (out->state == WORKER_BUSY)
		next = w->rest_until;
	else if (out->state == WORKER_HALF_OPEN)
		next = now;
	out->next = next < 0 ? -1 : next > now ? next - now : 0;
	(void)snprintf(out->failure, sizeof(out->failure), "%s", w->failure);
	if (because)
		(void)snprintf(out->why, sizeof(out->why), "%s%s%s", because,
			       w->note[0] && !w->healthy && !w->draining ? ": " : "",
			       w->healthy || w->draining ? "" : w->note);
	if (w->addrs.n > 0)
		net_addr_text(&w->addrs.a[0].sa.any, out->address);
	(void)pthread_mutex_unlock(&w->lock);
}

/* -- its name -- */

int worker_addresses(struct worker *w, struct net_addrs *out, struct pd_msg *why)
{
	int err = PD_OK;

	(void)pthread_mutex_lock(&w->lock);
	*out = w->addrs;
	if (out->n == 0)
		err = pd_fail(why, PD_ENOENT, "%s", w->note);
	(void)pthread_mutex_unlock(&w->lock);
	return err;
}

/* Its place in the list, or n. */
static unsigned place_of(const struct net_addrs *l, const struct net_addr *a)
{
	unsigned i = 0;

	while (i < l->n && !net_addr_same(&l->a[i], a))
		i++;
	return i;
}

/* To the front; the others keep their order. */
static void to_front(struct net_addrs *l, unsigned i)
{
	struct net_addr first;

	if (i == 0 || i >= l->n)
		return;
	first = l->a[i];
	memmove(&l->a[1], &l->a[0], i * sizeof(l->a[0]));
	l->a[0] = first;
}

void worker_prefer(struct worker *w, const struct net_addr *a)
{
	(void)pthread_mutex_lock(&w->lock);
	to_front(&w->addrs, place_of(&w->addrs, a));
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_same_server(const struct worker *a, const struct worker *b)
{
	return a->at.tls == b->at.tls && a->at.port == b->at.port &&
	       strcmp(a->at.host, b->at.host) == 0 && strcmp(a->at.base, b->at.base) == 0;
}

bool worker_ask_due(struct worker *w, int64_t now)
{
	bool due;

	if (!w->named)
		return false;
	(void)pthread_mutex_lock(&w->lock);
	due = now >= w->next_ask;
	if (due) {
		w->asked = now;
		w->next_ask = now + (w->addrs.n > 0 ? ASK_EVERY : ASK_SOON);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return due;
}

void worker_resolved(struct worker *w, const struct net_addrs *a, int64_t now)
{
	char from[NET_ADDR_TEXT], to[NET_ADDR_TEXT];
	struct net_addrs fresh = *a;
	bool moved;
	unsigned i;

	(void)pthread_mutex_lock(&w->lock);
	i = w->addrs.n > 0 ? place_of(&fresh, &w->addrs.a[0]) : fresh.n;
	moved = i == fresh.n;
	to_front(&fresh, i);
	if (moved && w->addrs.n > 0) {
		net_addr_text(&w->addrs.a[0].sa.any, from);
		net_addr_text(&fresh.a[0].sa.any, to);
		log_event(w->log, LOG_WARN, "worker_moved",
			  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("from", from),
				     LOG_TEXT("to", to)),
			  "worker %s: moved from %s to %s, as its name says now", w->url, from, to);
	}
	w->addrs = fresh;
	if (moved) {
		w->probe_wait = PROBE_SOON;
		w->next_probe = now;
	}
	(void)pthread_mutex_unlock(&w->lock);
	if (moved)
		http_pool_flush(&w->pool);
}

bool worker_unresolved(struct worker *w, const char *why)
{
	bool none;

	(void)pthread_mutex_lock(&w->lock);
	none = w->addrs.n == 0;
	(void)pthread_mutex_unlock(&w->lock);
	return none && worker_note(w, why);
}
