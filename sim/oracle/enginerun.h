/*
 * Runs a case in virtual time and writes what the engine decided, in the form of the traces of
 * vLLM's own scheduler: one JSON line per step, one per request.
 */
#ifndef PD_SIM_ORACLE_ENGINERUN_H
#define PD_SIM_ORACLE_ENGINERUN_H

#include "sim/oracle/enginecase.h"

#define ENGINERUN_OUT_MAX ((size_t)8 << 30)

/* [0]: the engine, or the prefill engine of a pair; [1]: the decode engine of a pair. */
struct enginerun_out {
	struct buf steps[2], requests[2];
};

void enginerun_out_init(struct enginerun_out *out);
void enginerun_out_release(struct enginerun_out *out);

/* PD_EBUSY: requests wait for ever; the message says how many. */
int enginerun(const struct enginecase *c, struct enginerun_out *out, struct pd_msg *msg) PD_MUST;

/* Appends a row per step that this engine schedules from now on; rows must outlive it. Takes the
 * place of its `scheduled` callback. */
void enginerun_watch(struct stepper *e, struct buf *rows);

#endif
