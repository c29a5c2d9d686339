/* A run's distributions and the load of its workers as bars for a terminal. Pure. */
#ifndef PD_LOAD_SHAPES_H
#define PD_LOAD_SHAPES_H

#include "lib/results/result.h"

/* A line per metric that has samples, its bins equally wide on a logarithmic axis; then, where
 * answers name their workers, one per worker, up to SHAPES_WORKERS. Within 100 columns. */
#define SHAPES_WORKERS 16
int shapes_text(const struct result_run *run, bool ascii, struct buf *out) PD_MUST;

#endif
