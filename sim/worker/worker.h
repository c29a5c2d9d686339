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

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "sim/worker/config.h"

struct worker;

/* Binds and serves. The configuration's texts must outlive the worker. */
int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg) PD_MUST;
uint16_t worker_port(struct worker *w);
/* Ports beside it: of the KV transfer (its own when there is no other), of the bootstrap server, of
 * the health pages; 0: none. */
enum worker_side { SIDE_KV, SIDE_BOOTSTRAP, SIDE_HEALTH, SIDES };
uint16_t worker_side_port(const struct worker *w, enum worker_side side);
/* Appends the "data" of /v1/models. PD_ENOMEM, PD_ETOOBIG. */
int worker_models(const struct worker *w, struct buf *out) PD_MUST;
/* Stops accepting; requests in flight may finish. */
void worker_drain(struct worker *w);
/* Waits for them, cuts those that are left at the deadline, frees everything. Returns how many were
 * cut. */
unsigned worker_stop(struct worker *w, int64_t deadline);

#endif
