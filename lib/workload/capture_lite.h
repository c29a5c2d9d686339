/* A capture file, opened for reading: what the readers of captures share. */
#ifndef PD_WORKLOAD_CAPTURE_LITE_H
#define PD_WORKLOAD_CAPTURE_LITE_H

#include <sqlite3.h>
#include <stdint.h>

#include "lib/base/err.h"

/* *version (may be NULL) receives that of the tables. *lite is to be closed also after a failure.
 */
int capture_lite_open(sqlite3 **lite, const char *path, int64_t *version,
		      struct pd_msg *msg) PD_MUST;
int capture_lite_error(sqlite3 *lite, const char *path, struct pd_msg *msg);
/* Prepares a statement whose first parameter is the run. */
int capture_lite_prepare(sqlite3 *lite, const char *path, const char *sql, int64_t run,
			 sqlite3_stmt **st, struct pd_msg *msg) PD_MUST;
/* *run 0 becomes the last one; another one is looked for. */
int capture_lite_run(sqlite3 *lite, const char *path, int64_t *run, struct pd_msg *msg) PD_MUST;
/* "" for NULL; valid until the next step. */
const char *capture_lite_text(sqlite3_stmt *st, int column);

/* Names of the roles in the tables, by enum capture_role. */
extern const char *const capture_role_names[];

#endif
