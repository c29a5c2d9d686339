/*
 * The engine with its lock and its identity: what requests, leases and pages share. The lock is
 * never held across I/O or sleep; the identity is constant, the counter atomic.
 */
#ifndef PD_SIM_WORKER_CORE_H
#define PD_SIM_WORKER_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "sim/engine/engine.h"

struct core {
	pthread_mutex_t lock;
	struct engine engine; /* under the lock */
	char id[40];	      /* a UUID, new in every process: remote_engine_id */
	atomic_ullong next;   /* makes ids of requests and leases unique */
};

/* core_release in every case. */
int core_init(struct core *k, const struct engine_config *cfg) PD_MUST;
/* All jobs must be done and all pins returned. */
void core_release(struct core *k);

#endif
