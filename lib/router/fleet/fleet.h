/*
 * The workers a router knows now. A fleet is an immutable snapshot (pools and policies), swapped by
 * pointer and counted by reference; the workers in it live on across snapshots, so a reload loses
 * no connection and no counter. A request holds one reference from its decision to its last byte.
 */
#ifndef PD_ROUTER_FLEET_H
#define PD_ROUTER_FLEET_H

#include <pthread.h>

#include "lib/base/swap.h"
#include "lib/router/config/config.h"
#include "lib/router/fleet/worker.h"

struct fleet_pool {
	struct route_pool *ring;   /* workers and policy */
	struct route_pool *shadow; /* the same workers with --shadow-policy; NULL: none */
	struct worker **worker;	   /* worker[i] is ring->worker[i] */
	size_t n;
};

struct fleet {
	_Atomic unsigned refs;
	uint64_t version;
	struct fleet_pool pool[ROLES];
};

struct fleet_holder {
	pthread_mutex_t loading;    /* one change at a time; held while names are resolved */
	struct fleet_config wanted; /* what `now` was built from; owned, under `loading` */
	struct worker_list offered[WORKER_SOURCES]; /* what sources have; owned, under `loading` */
	struct fleet *now; /* for changes, under `loading`; one reference */
	uint64_t version;
	struct swap swap; /* for readers: published[] at its current place is `now` */
	struct fleet *published[2];
	/* Requests that wait for a worker; they outlive snapshots. */
	struct waitlist waiting[ROLES];
	struct rotation rotation[ROLES]; /* of the workers of `now` */
	/* Told of each new fleet before a request can see it, under `loading`; may be NULL. Set
	 * before the first load. */
	void (*on_change)(void *ctx, struct fleet *f);
	void *ctx;
	/* Loads after the first that changed the set of workers, and by how many the last did. */
	_Atomic uint64_t updates, added, removed;
};

int fleet_holder_init(struct fleet_holder *h) PD_MUST;
void fleet_holder_release(struct fleet_holder *h);
/* The current fleet with a reference; fleet_put gives it back. No lock, thread-safe. */
struct fleet *fleet_get(struct fleet_holder *h);
/* One more reference to a fleet that the caller holds. */
struct fleet *fleet_ref(struct fleet *f);
void fleet_put(struct fleet *f);

/*
 * Builds a fleet from the configuration: workers whose role, name and URL stay the same are the
 * same objects. Resolves names; blocks. On failure the old fleet stays. A worker whose name cannot
 * be resolved is not ready.
 */
int fleet_load(struct fleet_holder *h, const struct router_config *c, const struct fleet_config *fc,
	       struct pd_msg *msg) PD_MUST;
/*
 * One more worker ("[name=]URL"; with dp_size > 1 one per rank), out of the rotation until its
 * first good probe. labels NULL: those of its role only. PD_EEXIST when the name or URL is taken.
 * Blocks as fleet_load does.
 */
int fleet_add(struct fleet_holder *h, const struct router_config *c, enum worker_role role,
	      const char *text, int bootstrap, const struct route_labels *labels,
	      struct pd_msg *msg) PD_MUST;
/*
 * What a source (not SOURCE_LISTED) has now, each entry with that source: new ones join as with
 * fleet_add, labels are taken over, and those that it has no more leave, to be taken out by
 * fleet_reap. A worker that another source has by name or URL stays that one's; when that one lets
 * it go, or the worker whose name it has is gone, it joins. One that was removed by hand stays out
 * until its source has let it go. Blocks.
 */
int fleet_publish(struct fleet_holder *h, const struct router_config *c, enum worker_source source,
		  const struct worker_list *list, struct pd_msg *msg) PD_MUST;
/*
 * Takes workers out that are leaving and that nothing needs any more. Returns how many are still
 * leaving; *gone counts those that went. To be called again after a pause while there are some.
 */
size_t fleet_reap(struct fleet_holder *h, const struct router_config *c, size_t *gone);

/* The labels of a worker of this fleet, while it is held; NULL: it is not one. */
const struct route_labels *fleet_labels(const struct fleet *f, const struct worker *w);
/* Workers of a pool that may be picked now. */
size_t fleet_available(const struct fleet_pool *p);
/* Tells the policies that a session will send no more. */
void fleet_session_finished(struct fleet *f, struct span id, int64_t now);
/*
 * The workers that an id means: those of this role (ROLES: of each) whose name or URL it is, else
 * all ranks of a server by the name or URL without "@rank". One URL may serve two roles. Fills at
 * most cap, returns how many there are; valid while the fleet is held.
 */
size_t fleet_match(struct fleet *f, enum worker_role role, struct span id, struct worker **out,
		   size_t cap);

#endif
