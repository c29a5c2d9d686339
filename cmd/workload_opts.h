/* The options about workload files that bench and simulate share, and what both say about the file
 * that was read. */
#ifndef PD_CMD_WORKLOAD_OPTS_H
#define PD_CMD_WORKLOAD_OPTS_H

#include "lib/base/opt.h"
#include "lib/workload/workload.h"

struct workload_opts {
	const char *format, *unit;
};

/* Rows for an option table: {.type = OPT_ROWS, .value = workload_opts_rows}. They fill the one
 * struct of this program. */
extern struct opt workload_opts_rows[];
extern struct workload_opts workload_opts;

/* Sets format and unit. */
void workload_opts_take(struct workload_options *out);
/* A line "note: ..." on standard error for each note. */
void workload_opts_say(const char *const *note, size_t n);

#endif
