/*
 * One worker: its counters, its connections, and the state that says whether it may be picked:
 * circuit breaker, health, ejection, drain. It is shared by every fleet that lists it and lives as
 * long as one of them does. Functions are thread-safe; `lock` is held for a few assignments only.
 */
#ifndef PD_ROUTER_WORKER_H
#define PD_ROUTER_WORKER_H

#include <pthread.h>

#include "lib/net/net.h"
#include "lib/http/upstream.h"
#include "lib/router/config/config.h"
#include "lib/router/fleet/breaker.h"
#include "lib/router/fleet/waitlist.h"

struct worker {
	char *name, *url; /* owned */
	enum worker_role role;
	int bootstrap;	      /* 0: none */
	_Atomic bool by_hand; /* added while running, and not listed since */
	struct net_url at;
	struct route_slot slot;
	struct http_pool pool;
	struct tls_peer *peer; /* NULL: http:// */
	_Atomic unsigned refs; /* fleets that contain it */
	struct waitlist
		*waiting; /* requests that wait for a worker of its pool; borrowed, or NULL */

	pthread_mutex_t
		lock; /* the fields below; slot.available and slot.permits are written under it */
	struct net_addr addr;
	struct breaker breaker;
	bool healthy, ejected; /* ejected: by a failed connection; one good probe brings it back */
	bool fresh;	       /* added while running, not one good probe yet */
	bool draining;
	bool leaving;	      /* goes when nothing needs it any more */
	bool force;	      /* goes now */
	unsigned quiet_looks; /* how often in a row nothing needed it */
	char note[160];	      /* why the last health check failed; empty when it was good */
	bool trial;	      /* a half-open breaker's permit is out or taken */
	unsigned streak;      /* probes in a row that disagree with `healthy` */
	int64_t next_probe;
	int64_t probe_wait; /* growing pause between probes of an ejected worker */

	_Atomic unsigned handovers; /* prefilled blocks that a decode worker has not fetched yet */
	_Atomic bool
		quiet; /* nothing to report: closed breaker without failures (spares the lock) */
	_Atomic uint64_t requests, errors, ejections;
	_Atomic uint64_t checks_ok, checks_failed;
	/* Of the P/D path: answered, failed and cut legs; a decode worker's legs that run now. */
	_Atomic uint64_t pd_requests, pd_errors, pd_cut;
	_Atomic unsigned decoding;
};

/* What a worker is doing, for people. */
enum worker_state {
	WORKER_AVAILABLE,
	WORKER_STARTING, /* added while running, not one good probe yet */
	WORKER_DRAINING,
	WORKER_REMOVING,
	WORKER_EJECTED, /* a connection failed */
	WORKER_UNHEALTHY,
	WORKER_OPEN, /* the circuit breaker's */
	WORKER_HALF_OPEN,
	WORKER_STATES
};

/* A worker out of its configuration with one reference; its name is resolved, which blocks. */
int worker_new(struct worker **out, const struct worker_spec *spec, const struct router_config *c,
	       struct waitlist *waiting, struct pd_msg *msg) PD_MUST;
/* Gives one reference back; the last one frees it. */
void worker_unref(struct worker *w);

/* Outcome of a request on the worker; `trial` as its decision said. */
void worker_report(struct worker *w, const struct router_config *c, enum breaker_verdict v,
		   bool trial, int64_t now);
/* The probe came to nothing: the next one is planned, nothing is concluded. */
void worker_probe_later(struct worker *w, const struct router_config *c, int64_t now);
/* True when the worker should be probed now. */
bool worker_probe_due(struct worker *w, int64_t now);
/* A connection could not be made: out of the rotation at once, probed soon. */
void worker_eject(struct worker *w, const struct router_config *c, int64_t now);
/* Why the last health check failed, "" when it was good. True when that is news. */
bool worker_note(struct worker *w, const char *why);
/* A copy of it; cap 160 holds all of it. */
void worker_note_get(struct worker *w, char *out, size_t cap);
bool worker_is_fresh(struct worker *w);
/* Outcome of a health probe. */
void worker_probed(struct worker *w, const struct router_config *c, bool ok, int64_t now);
void worker_set_draining(struct worker *w, const struct router_config *c, bool on);
/* No new requests; fleet_reap takes it out when what runs has ended, or at once when forced. Undone
 * by worker_set_draining(off). */
void worker_leave(struct worker *w, bool force);
/* The workers file lists it: it is the file's, and stays even if it was leaving. */
void worker_stay(struct worker *w);
bool worker_is_leaving(struct worker *w);
/* True when it may go: asked twice with a pause in between, so that a pick under way is seen. */
bool worker_may_go(struct worker *w);
/* The breaker's clock. */
void worker_tick(struct worker *w, const struct router_config *c, int64_t now);
enum worker_state worker_state(struct worker *w);
const char *worker_state_name(enum worker_state s);
void worker_address(struct worker *w, struct net_addr *out);
/* Ranks or roles of one server: the same URL but for "@rank". */
bool worker_same_server(const struct worker *a, const struct worker *b);
/* Looks the name up again; a new address drops the idle connections. Blocks. */
void worker_resolve(struct worker *w);

#endif
