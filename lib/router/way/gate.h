/*
 * The cap on requests in flight, from admission to the last byte. Above it requests wait in the
 * admission queue, first come first served, and are refused when that is full. A waiter holds its
 * connection and its fiber or thread; its body was not read yet. Thread-safe. When there is room,
 * entering and leaving are one atomic operation each.
 */
#ifndef PD_ROUTER_GATE_H
#define PD_ROUTER_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/http/server.h"

struct gate_waiter;

struct gate {
	unsigned limit, queue_size;
	_Atomic unsigned in_work;
	_Atomic unsigned waiting;
	pthread_mutex_t lock;
	struct gate_waiter *first, **last;
	_Atomic uint64_t queued, full, timed_out, left;
};

int gate_init(struct gate *g, unsigned limit, unsigned queue_size) PD_MUST;
void gate_release(struct gate *g);
/* A place without waiting; gate_leave follows true. False: gate_enter decides. */
bool gate_try(struct gate *g);
/* PD_OK; PD_EBUSY: the queue is full; PD_ETIMEOUT: the wait is over; PD_ECANCELED: the client left.
 * gate_leave follows PD_OK only. */
int gate_enter(struct gate *g, struct http_conn *c, int64_t deadline) PD_MUST;
void gate_leave(struct gate *g);

#endif
