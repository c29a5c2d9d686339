/* --store and --no-store of the commands that make results. */
#ifndef PD_CMD_STORE_OPTS_H
#define PD_CMD_STORE_OPTS_H

#include "lib/base/opt.h"
#include "lib/base/span.h"

struct store_opts {
	const char *path; /* --store, or NULL */
	bool off;	  /* --no-store */
};

/* The rows for an option table: {OPT_ROWS, NULL, &store_opts, ...} with STORE_OPTS(name). */
#define STORE_OPTS(o)                                                                              \
	{OPT_TEXT,                                                                                 \
	 "store",                                                                                  \
	 &(o).path,                                                                                \
	 "FILE",                                                                                   \
	 "the SQLite store that keeps every run; default results/pdctl.db, or $PDCTL_STORE",       \
	 NULL,                                                                                     \
	 0,                                                                                        \
	 0,                                                                                        \
	 NULL},                                                                                    \
	{                                                                                          \
		OPT_FLAG, "no-store", &(o).off, NULL, "keep this run out of the store", NULL, 0,   \
			0, NULL                                                                    \
	}

/* The file that counts: --store, else $PDCTL_STORE, else results/pdctl.db. NULL: no store
 * (--no-store, or PDCTL_STORE set and empty, or "none"). */
const char *store_opts_path(const struct store_opts *o);

/* Saves finished documents in one transaction. What goes wrong is a warning on standard error and
 * nothing else: the run itself is not lost. Returns the number of the first run, 0 when none was
 * stored. `command` is the command's name for the warning. */
int64_t store_opts_save(const struct store_opts *o, const char *command, const struct span *doc,
			size_t n);

#endif
