/*
 * A pool: an immutable list of workers, the policy that chooses among them with the table it made
 * for them, and the live slots that decisions count in.
 *
 * A worker's identity is its name (default: its URL, with "@rank" when it has a rank), so a changed
 * port moves no session. The pool never changes after route_pool_new; a reload builds a new one
 * that points to the same slots and, when the policy stays, to the same state. Reading is
 * thread-safe.
 */
#ifndef PD_ROUTE_POOL_H
#define PD_ROUTE_POOL_H

#include <stdbool.h>

#include "lib/base/err.h"
#include "lib/base/span.h"
#include "lib/route/route_slot.h"
#include "lib/route/state.h"

#define ROUTE_WORKERS_MAX 1024
#define ROUTE_NAME_MAX	  1024 /* bytes of a worker's name */
#define ROUTE_WEIGHT_MAX  100
#define ROUTE_NO_WORKER	  UINT32_MAX

/* What is said about a worker: `llm-d.ai/role`, a rack, a model. Each name once. */
struct route_labels {
	struct field *label; /* with NUL behind both texts */
	size_t n;
};

#define ROUTE_LABELS_MAX     64	 /* of a worker */
#define ROUTE_LABEL_TEXT_MAX 512 /* bytes of a name or of a value */
#define ROUTE_LABEL_ROLE     "llm-d.ai/role"
#define ROUTE_LABEL_WEIGHT   "weight" /* its share of the work beside others; absent: 1 */

/* Sets or replaces one; copies. PD_ETOOBIG: more than the limits. PD_ENOMEM. */
int route_labels_set(struct route_labels *l, struct span name, struct span value) PD_MUST;
int route_labels_copy(struct route_labels *to, const struct route_labels *from) PD_MUST;
void route_labels_release(struct route_labels *l);
/* p NULL: it has no such label. */
struct span route_label(const struct route_labels *l, struct span name);
bool route_labels_same(const struct route_labels *a, const struct route_labels *b);

struct route_worker {
	char *name; /* owned */
	size_t name_len;
	uint64_t id;		    /* of the name: memories use it, never the index */
	struct route_slot *slot;    /* borrowed */
	struct route_labels labels; /* owned */
	char *address;		    /* owned; host:port of its server */
	uint32_t weight;	    /* 1 to ROUTE_WEIGHT_MAX */
};

struct route_pool {
	size_t n;
	struct route_worker *worker; /* in configuration order */
	struct route_state *state;   /* a reference */
	void *table;		     /* what the policy made for these workers; NULL: none */
	uint64_t weight;	     /* of all workers */
	bool weighted;		     /* they are not all equal */
	uint16_t *by_id;	     /* owned; places in `worker` by id */
	size_t by_id_mask;
};

/* A worker for a new pool; all borrowed. */
struct route_member {
	const char *name;
	struct route_slot *slot;
	struct route_labels labels;
	const char *address; /* host:port; NULL: what the name has behind "://" */
};

/*
 * Names and labels are copied; the pool takes a reference to the state.
 * PD_EINVAL for n > ROUTE_WORKERS_MAX, an empty name or one longer than ROUTE_NAME_MAX, two equal
 * names, a label "weight"
 * other than a whole number from 1 to ROUTE_WEIGHT_MAX, or what the policy's table refuses. n may
 * be 0.
 */
int route_pool_new(struct route_pool **out, const struct route_member *member, size_t n,
		   struct route_state *state, struct pd_msg *msg) PD_MUST;
void route_pool_free(struct route_pool *p);

/* The place of the worker with this id; ROUTE_NO_WORKER: it is not in the pool. */
uint32_t route_pool_find(const struct route_pool *p, uint64_t id);

/*
 * Tells the policy of `now` which workers joined, and which left when `before` had the same policy
 * with the same memory. before NULL: all joined.
 */
void route_pool_announce(const struct route_pool *before, const struct route_pool *now,
			 int64_t at_ns);

#endif
