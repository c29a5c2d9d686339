/*
 * The cap on requests in flight, from admission to the last byte. Above it requests wait in the
 * admission queue, first come first served or by priority and with turns between flows, and are
 * refused when that is full. A waiter holds its
 * connection and its fiber or thread; its body was not read yet. Thread-safe. When there is room,
 * entering and leaving are one atomic operation each.
 */
#ifndef PD_ROUTER_GATE_H
#define PD_ROUTER_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/http/server.h"

struct gate_waiter;

#define GATE_BANDS 32 /* priorities whose turns are remembered */

/* Whose request it is: of requests that wait the highest priority comes first, and flows of one
 * priority take turns. */
struct gate_flow {
	int priority;
	uint64_t id;
};

struct gate {
	/* Requests that may begin per second, and how many at once when none did; 0: no limit. Set
	 * after gate_init. */
	double rate, burst;
	double tokens; /* under the lock */
	int64_t filled;
	bool fair; /* looks at priorities and flows; set after gate_init */
	unsigned limit, queue_size;
	_Atomic unsigned in_work;
	_Atomic unsigned waiting;
	pthread_mutex_t lock;
	struct gate_waiter *first, **last;
	struct {
		int priority;
		uint64_t last;
	} band[GATE_BANDS];
	size_t bands;
	_Atomic uint64_t queued, full, timed_out, left;
};

int gate_init(struct gate *g, unsigned limit, unsigned queue_size) PD_MUST;
void gate_release(struct gate *g);
/* A place without waiting; gate_leave follows true. False: gate_enter decides. */
bool gate_try(struct gate *g);
/* PD_OK; PD_EBUSY: the queue is full, or another flow has taken this place in it; PD_ETIMEOUT: the
 * wait is over; PD_ECANCELED: the client left. gate_leave follows PD_OK only. */
int gate_enter(struct gate *g, struct http_conn *c, const struct gate_flow *flow,
	       int64_t deadline) PD_MUST;
void gate_leave(struct gate *g);

#endif
