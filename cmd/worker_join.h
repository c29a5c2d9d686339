/*
 * Where a simulated worker registers: at routers by ZeroMQ, and in a service registry. Options and
 * wiring.
 */
#ifndef PD_CMD_WORKER_JOIN_H
#define PD_CMD_WORKER_JOIN_H

#include "cmd/worker_vllm.h"
#include "sim/worker/worker.h"

extern const struct opt worker_join_rows[];

/* Before parsing. */
void worker_join_defaults(void);
/* After it: what the options ask for, into the configuration (ports, name). PD_EINVAL with a
 * sentence. */
int worker_join_check(struct worker_config *cfg, const struct worker_vllm_config *v,
		      struct pd_msg *msg) PD_MUST;
/* Once the worker serves. A failure is one of running. */
int worker_join_start(struct worker *w, const struct worker_config *cfg,
		      const struct worker_vllm_config *v, struct pd_msg *msg) PD_MUST;
/* Takes the entries out of the registry; routers find out by themselves. */
void worker_join_stop(void);
void worker_join_release(void);

#endif
