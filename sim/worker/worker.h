/*
 * A simulated vLLM engine behind an HTTP server: what `pdctl worker` runs. See
 * docs/worker.md.
 *
 * It is strict where a real engine is: OpenAI routes, error shapes, streaming format, prefix cache,
 * queueing, the NIXL hand-over with leases. Text is a function of the prompt alone
 * (sim/engine/tokens.h), time is the simulator's engine (sim/engine/stepper.h).
 */
#ifndef PD_SIM_WORKER_WORKER_H
#define PD_SIM_WORKER_WORKER_H

#include <stdint.h>

#include "lib/base/err.h"
#include "sim/worker/config.h"

struct worker;

/* Binds and serves. The configuration's texts must outlive the worker. */
int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg) PD_MUST;
uint16_t worker_port(struct worker *w);
/* Stops accepting; requests in flight may finish. */
void worker_drain(struct worker *w);
/* Waits for them, cuts those that are left at the deadline, frees everything. Returns how many were
 * cut. */
unsigned worker_stop(struct worker *w, int64_t deadline);

#endif
