/*
 * A measured run: requests with their times, and what engine it was. Read from JSON Lines with
 * times per request (as LLMServingSim's bench writes them) and the .meta.json beside it, from
 * the result of `vllm bench serve --save-detailed` or of `pdctl bench`, or from a capture of `pdctl
 * serve`.
 */
#ifndef PD_SIM_FIT_MEASURED_H
#define PD_SIM_FIT_MEASURED_H

#include "sim/engine/profile.h"
#include "sim/fit/fitrun.h"

struct measured {
	struct fit_request *r; /* owned; in order of arrival */
	size_t n;
	struct fit_engine engine;
	struct profile profile; /* names and limits; no costs */
	bool has_meta, has_blocks;
	struct buf notes; /* what was taken for granted, a line each */
};

/* PD_EINVAL: the message names file, line and column. Nothing to release then. */
int measured_load(struct measured *m, const char *path, struct pd_msg *msg) PD_MUST;
void measured_release(struct measured *m);

#endif
