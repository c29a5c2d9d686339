/*
 * The store of runs: one SQLite file that keeps every finished result document, byte for byte,
 * beside what lists, comparisons and histories ask for. A run enters in one transaction or not at
 * all; any number of processes may write at once (write-ahead log, writers wait for each other up
 * to STORE_BUSY_MS). A store that cannot be written is never a reason to lose a run: callers warn.
 *
 * Thread-safe: nothing is shared between calls. Times are wall-clock nanoseconds since 1970.
 * Queries are in store_query.h.
 */
#ifndef PD_RESULTS_STORE_H
#define PD_RESULTS_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define STORE_DEFAULT	     "results/pdctl.db" /* under the current directory */
#define STORE_APPLICATION_ID 0x70645273		/* "pdRs" in the header of the file */
#define STORE_VERSION	     1
#define STORE_BUSY_MS	     20000
#define STORE_DOCUMENTS_MAX  1024      /* documents of one call */
#define STORE_DOCUMENT_MAX   999000000 /* bytes of one document: SQLite's own limit is 10^9 */

/*
 * Saves n finished documents (each one JSON object, with its line feed when it should come back
 * with one) in one transaction, in this order. `path` NULL is STORE_DEFAULT; a missing file is
 * made, and so is the last folder of the path; the folder of STORE_DEFAULT gets a .gitignore.
 * Label, model, metrics and the like are read from the document; the commit from .git/HEAD of the
 * current directory or the next one above that has it.
 *
 * *first (may be NULL) becomes the number of the first run, the others follow without a gap. Errors
 * leave the store as it was: PD_EINVAL (no document of a benchmark, or a file of something else,
 * which is not touched), PD_EIO, PD_EBUSY, PD_ETOOBIG, PD_ENOMEM, each with a message.
 */
int store_save(const char *path, const struct span *doc, size_t n, int64_t wall_ns, int64_t *first,
	       struct pd_msg *msg) PD_MUST;

#endif
