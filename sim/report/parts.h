/*
 * Parts of an experiment that were run apart (simulate --shard) become one document, the same to
 * the last byte as a run of the whole: the arms keep their documents, and what needs all of them
 * (expectations, Pareto front, verdict) is computed from the values that these hold.
 */
#ifndef PD_SIM_REPORT_PARTS_H
#define PD_SIM_REPORT_PARTS_H

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct cJSON;

#define PARTS_MAX 4096

/* A document of parts? */
bool parts_is(const struct cJSON *doc);

/*
 * Makes the whole document; the arms are taken out of the parts. `name` of each part is for
 * messages. Lines about expectations that were not met are appended to `missed`, the verdicts to
 * `verdict`. PD_EINVAL: parts of different experiments, one twice or not at all; PD_ENOMEM.
 */
int parts_merge(struct cJSON **part, const char *const *name, size_t n, struct cJSON **out,
		struct buf *missed, struct buf *verdict, struct pd_msg *msg) PD_MUST;

#endif
