/*
 * One worker: its counters, its connections, and the state that says whether it may be picked:
 * circuit breaker, health, ejection, drain. It is shared by every fleet that lists it and lives as
 * long as one of them does. Functions are thread-safe; `lock` is held for a few assignments only.
 */
#ifndef PD_ROUTER_WORKER_H
#define PD_ROUTER_WORKER_H

#include <pthread.h>

#include "lib/net/net.h"
#include "lib/net/resolver.h"
#include "lib/http/upstream.h"
#include "lib/epp/engine_metrics.h"
#include "lib/router/config/config.h"
#include "lib/router/fleet/breaker.h"
#include "lib/router/fleet/rotation.h"
#include "lib/router/fleet/waitlist.h"

#define WORKER_TEXT 200 /* of a reason */

/* What a request's failure says about the worker. */
enum worker_fault {
	FAULT_CONNECT, /* nothing was sent */
	FAULT_CUT,     /* the connection ended: the process may be another one by now */
	FAULT_SILENT,  /* it said nothing, or not in time */
	FAULT_ANSWER   /* it answered, with an error or with what cannot be read */
};

/* Tokens are counted per model; which model a place stands for, the counting one knows. */
#define WORKER_MODELS 16
enum worker_tokens { TOKENS_PROMPT, TOKENS_CACHED, TOKENS_COMPLETION, WORKER_TOKENS };

enum worker_refusal { WORKER_REFUSED_503, WORKER_REFUSED_429, WORKER_REFUSALS };

/* What a worker is doing, for people. */
enum worker_state {
	WORKER_AVAILABLE,
	WORKER_STARTING, /* added while running, not one good probe yet */
	WORKER_DRAINING,
	WORKER_REMOVING,
	WORKER_EJECTED, /* a connection failed */
	WORKER_UNHEALTHY,
	WORKER_UNRESOLVED, /* its name has no address yet */
	WORKER_STALLED,	   /* healthy, but none of its requests moves */
	WORKER_OPEN,	   /* the circuit breaker's */
	WORKER_HALF_OPEN,
	WORKER_BUSY, /* asked for a pause with Retry-After */
	WORKER_STATES
};

struct worker {
	char *name, *url; /* owned */
	enum worker_role role;
	int bootstrap;	    /* 0: none */
	_Atomic int source; /* enum worker_source; SOURCE_LISTED as soon as it is listed */
	struct net_url at;  /* its base without a trailing /v1 */
	bool named;	    /* its host is a name, not an address */
	struct route_slot slot;
	struct http_pool pool;
	struct tls_peer *peer; /* NULL: http:// */
	_Atomic unsigned refs; /* fleets that contain it */
	struct waitlist
		*waiting; /* requests that wait for a worker of its pool; borrowed, or NULL */

	struct rotation_place place;
	struct log *log; /* where its changes are told; borrowed, or NULL */

	pthread_mutex_t lock;	/* the fields below; slot.permits is written under it */
	struct net_addrs addrs; /* n 0: the name has none yet */
	int64_t next_ask;	/* its name, when nothing happens */
	int64_t asked;		/* when it was asked last */
	struct breaker breaker;
	bool healthy, ejected; /* ejected: by a failed connection; one good probe brings it back */
	bool fresh;	       /* added while running, not one good probe yet */
	bool draining;
	bool leaving;	      /* goes when nothing needs it any more */
	bool force;	      /* goes now */
	unsigned quiet_looks; /* how often in a row nothing needed it */
	char note[160];	      /* why the last health check failed; empty when it was good */
	int64_t rest_until;   /* asked for a pause with Retry-After; 0: none */
	bool trial;	      /* a half-open breaker's permit is out or taken */
	bool suspect;	      /* silent while others answer: probed each second */
	bool quick;	      /* out as a suspect: one good probe brings it back */
	bool silent;	      /* out because probes got no answer: what it owes is not waited for */
	bool stalled;	      /* healthy, but none of its requests moves */
	int64_t stalled_at;
	bool reachable;	    /* the last failure was a connection that ended */
	int64_t reset_at;   /* when a good probe closed the breaker for that */
	unsigned streak;    /* probes in a row that disagree with `healthy` */
	int64_t probe_sent; /* when the last probe began */
	int64_t next_probe;
	int64_t probe_wait;	   /* growing pause between probes of an ejected worker */
	_Atomic int64_t out_at;	   /* since when it is out, wall clock; 0: it is not (rotation.c) */
	char failure[WORKER_TEXT]; /* the last one, of a request or a health check */
	int64_t failed_at;	   /* wall clock; 0: never */
	enum worker_state said;	   /* the state that the log was told, and when */
	int64_t said_at;

	/* The metrics thread's own. */
	struct {
		struct engine_metrics figures;
		int64_t next, good_at;
		bool busy, silent;
		char why[WORKER_TEXT];
	} scrape;

	struct look_up *asking; /* the health thread's: its name is being asked */

	struct served_list *served; /* what it lists, under `lock`; NULL: not known (served.h) */
	struct {		    /* the models thread's own, but for the atomics */
		int64_t next;
		bool known;
		int said; /* its last status and 1, 1: it was silent; 0: not asked yet */
		_Atomic bool silent, refused; /* did not answer; answered without a list */
	} models;

	/* What the connector knows of a prefill worker, under `lock`; until it is out. */
	char *known; /* owned; NULL: nothing */
	size_t known_n;
	int64_t known_at;
	_Atomic bool knows; /* spares the lock */

	_Atomic unsigned handovers; /* prefilled blocks that a decode worker has not fetched yet */
	_Atomic bool
		quiet; /* nothing to report: closed breaker without failures (spares the lock) */
	_Atomic uint64_t requests;     /* sent to it */
	_Atomic uint64_t shadow_picks; /* by --shadow-policy, not followed */
	_Atomic uint64_t neutral;      /* of them: ended without a verdict for the breaker */
	_Atomic uint64_t errors, ejections;
	_Atomic uint64_t refusals[WORKER_REFUSALS]; /* its answers 503 and 429 */
	_Atomic uint64_t checks_ok, checks_failed;
	_Atomic uint64_t tokens[WORKER_MODELS][WORKER_TOKENS];
	/* Of the P/D path: answered, failed and cut legs; a decode worker's legs that run now. */
	_Atomic uint64_t pd_requests, pd_errors, pd_cut;
	_Atomic unsigned decoding;
	/* Of streams that ended while somebody looked at the page (lib/router/page): times to the
	 * first token, gaps between events. */
	struct {
		_Atomic uint64_t first_n, first_us, gap_n, gap_us;
	} page;
};

/* A worker out of its configuration with one reference. Its name is resolved when `look_up` says
 * so, which blocks; one that cannot be resolved is no error: the worker is not ready. */
int worker_new(struct worker **out, const struct worker_spec *spec, const struct router_config *c,
	       struct waitlist *waiting, bool look_up, struct pd_msg *msg) PD_MUST;
/* Gives one reference back; the last one frees it. */
void worker_unref(struct worker *w);

/* Is the outcome news? In the usual case, a success on a worker that has no failures, it is not,
 * and needs no lock. */
static inline bool worker_awaits(const struct worker *w, enum breaker_verdict v, bool trial)
{
	return v == VERDICT_FAILURE || trial ||
	       !atomic_load_explicit(&w->quiet, memory_order_relaxed);
}
/* Outcome of a request on the worker; `trial` as its decision said. */
void worker_report(struct worker *w, const struct router_config *c, enum breaker_verdict v,
		   bool trial, int64_t now);
/* It answered 503 or 429 and asked for a pause: others come first until then. */
void worker_rest(struct worker *w, int64_t until);
/* It may be picked once although its breaker is open, or it asked for a pause: a request has failed
 * at all others. False: it cannot be reached. */
bool worker_offer(struct worker *w);
/* Into the rotation of its pool, and out of it. */
void worker_join(struct worker *w, struct rotation *r);
void worker_part(struct worker *w);
/* The probe came to nothing: the next one is planned, nothing is concluded. */
void worker_probe_later(struct worker *w, const struct router_config *c, int64_t now);
/* True when the worker should be probed now, for *limit ns at most: then the probe has begun. */
bool worker_probe_due(struct worker *w, const struct router_config *c, int64_t now, int64_t *limit);
/* A connection could not be made: out of the rotation at once, probed soon, its name asked again.
 */
void worker_eject(struct worker *w, int64_t now);
/* A request failed there, for a person and for the next probe. */
void worker_blame(struct worker *w, enum worker_fault fault, const char *why, int64_t now);
/* Why the last health check failed, "" when it was good. True when that is news. */
bool worker_note(struct worker *w, const char *why);
/* A copy of it; cap 160 holds all of it. */
void worker_note_get(struct worker *w, char *out, size_t cap);
bool worker_is_fresh(struct worker *w);
/* Outcome of a health probe; with !ok `answered`: it was not a matter of time. */
void worker_probed(struct worker *w, const struct router_config *c, bool ok, bool answered,
		   int64_t now);
/*
 * What its calls show (health.c looks some times a second). Suspect: silent while others answer;
 * then it is probed at once and each second, and two bad probes take it out. Stalled: none of its
 * requests moves while another worker answers; then it gets one at a time when it has none; true
 * when that is news.
 */
void worker_suspect(struct worker *w, bool on, int64_t now);
bool worker_stall(struct worker *w, bool on, int64_t now);
/* Does it owe answers that are not waited for? */
bool worker_is_silent(struct worker *w);
/* When it was found to be stalled, monotonic ns; 0: it is not. */
int64_t worker_stalled_at(struct worker *w);
void worker_set_draining(struct worker *w, bool on);
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
/* What it is doing and why, for people. Times are of the wall clock, ns; 0: none. */
struct worker_view {
	enum worker_state state;
	int64_t out_at;
	char why[WORKER_TEXT + 120]; /* why it is out, "" when it is not */
	int64_t failed_at;
	char failure[WORKER_TEXT];   /* the last one */
	int64_t next;		     /* out: it is tried again in so many ns; -1: not by itself */
	char address[NET_ADDR_TEXT]; /* "" while its name has none */
	int64_t oldest;		     /* age of its oldest request without a byte, ns; 0: none */
};
void worker_view(struct worker *w, const struct router_config *c, struct worker_view *out);
/* Its addresses, the one that connected last first. PD_ENOENT: its name has none yet, and why. */
int worker_addresses(struct worker *w, struct net_addrs *out, struct pd_msg *why) PD_MUST;
/* This one has connected, when others before it had not. */
void worker_prefer(struct worker *w, const struct net_addr *a);
/* Ranks or roles of one server: the same URL but for "@rank". */
bool worker_same_server(const struct worker *a, const struct worker *b);
/* True when its name should be asked now: then it has been. */
bool worker_ask_due(struct worker *w, int64_t now);
/* The name's answer. When the address in use is not among them any more the idle connections are
 * dropped and the worker is probed. */
void worker_resolved(struct worker *w, const struct net_addrs *a, int64_t now);
/* There is none. True when that is news; the addresses that it had stay. */
bool worker_unresolved(struct worker *w, const char *why);

#endif
