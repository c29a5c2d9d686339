/*
 * Which worker a session is bound to, and when it was last seen. A table of a fixed size in groups
 * of eight: a new session replaces what is free or expired in its group, else the one that was not
 * seen for the longest time. So memory is what bindings_new took, whatever the number of sessions.
 *
 * With a tally the bindings of each worker are counted in its cell. Sessions are known by a 64-bit
 * hash, workers by their id. Thread-safe: each call locks one of 64 parts.
 */
#ifndef PD_ROUTE_BINDINGS_H
#define PD_ROUTE_BINDINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/route/memory/tally.h"

#define BINDINGS_MIN 1024
#define BINDINGS_MAX (4 << 20)

struct bindings;

/* At least `max` sessions, rounded up to a power of two. `tally` may be NULL, and outlives it. */
int bindings_new(struct bindings **out, size_t max, int64_t ttl_ns, struct tally *tally) PD_MUST;
void bindings_free(struct bindings *b);
size_t bindings_bytes(const struct bindings *b);
size_t bindings_count(struct bindings *b); /* those not yet dropped; visits the table */

/* False: unknown, or not seen for the time to live. Does not count as seen. */
bool bindings_find(struct bindings *b, uint64_t session, int64_t now, uint64_t *worker);
/* Binds a session that is not bound; returns the worker that it is bound to now. Of callers at
 * once all get the same. */
uint64_t bindings_claim(struct bindings *b, uint64_t session, uint64_t worker, int64_t now);
/* Binds it to this worker whatever it was bound to. */
void bindings_set(struct bindings *b, uint64_t session, uint64_t worker, int64_t now);
void bindings_forget(struct bindings *b, uint64_t session);
/* All of a worker that is gone. */
void bindings_drop_worker(struct bindings *b, uint64_t worker);
/* Drops those that are expired, a 64th of the table at a time, so that all of it is visited within
 * a minute; call it with each request. */
void bindings_sweep(struct bindings *b, int64_t now);

#endif
