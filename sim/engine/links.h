/*
 * Transfers over links that are shared by the transfers in flight: each node has one way out and
 * one way in, and a transfer gets the smaller of its fair shares of both, anew whenever one begins
 * or ends. Before its bytes flow a transfer waits for its set-up.
 *
 * Time is an argument, in nanoseconds that do not decrease. Deterministic. Not thread-safe.
 */
#ifndef PD_SIM_ENGINE_LINKS_H
#define PD_SIM_ENGINE_LINKS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct link_transfer;

struct links {
	struct link_transfer *t; /* owned; in order of their start */
	size_t n, cap;
	uint32_t *out, *in; /* owned; transfers that flow now, per node */
	int64_t last;	    /* until when `left` of each is accounted */
	int64_t next;	    /* earliest begin or end; CLOCK_NEVER without one */
};

/* Nodes that send are numbered from 0 to senders - 1, those that receive likewise. */
int links_init(struct links *l, size_t senders, size_t receivers) PD_MUST;
void links_release(struct links *l);

/* A transfer that takes set_up_ns, then alone_ns if it had both links to itself. */
int links_start(struct links *l, int64_t now, uint32_t from, uint32_t to, int64_t set_up_ns,
		int64_t alone_ns, void *owner) PD_MUST;
/* Takes a transfer out, wherever it is. */
void links_cancel(struct links *l, int64_t now, const void *owner);

/* When links_ended() has to be called next. */
static inline int64_t links_next(const struct links *l)
{
	return l->next;
}
/* The owner of a transfer that has ended at `now`, in order of their starts; NULL: no more. */
void *links_ended(struct links *l, int64_t now);

#endif
