/* The transport on fibers: one event loop on a thread of its own. Internal to lib/load. */
#ifndef PD_LOAD_FIBERS_H
#define PD_LOAD_FIBERS_H

#include "lib/load/load_core.h"

/* Two mappings each, of the 65,530 that a process has by default. */
#define FIBERS_MAX 30000

/* Runs what core was set up with. The calling thread waits and shows the progress. */
int fibers_run(struct load_core *c, struct pd_msg *msg) PD_MUST;

#endif
