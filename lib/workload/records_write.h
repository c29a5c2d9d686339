/* A workload as records of the format "pdctl", which bench and simulate read again as the same
 * requests: times in ms, lengths, sessions and turns, think times, hash ids, prompts, members of
 * bodies. Pure. */
#ifndef PD_WORKLOAD_RECORDS_WRITE_H
#define PD_WORKLOAD_RECORDS_WRITE_H

#include "lib/workload/workload.h"

/* Appends a line per request. Branches become turns of their session. PD_ETOOBIG, PD_ENOMEM. */
int records_write(const struct workload *w, struct buf *out) PD_MUST;

#endif
