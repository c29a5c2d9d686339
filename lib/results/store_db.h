/* The SQLite connection behind lib/results/store.h and store_query.h: opening, making the tables,
 * errors as sentences. Owner thread only. */
#ifndef PD_RESULTS_STORE_DB_H
#define PD_RESULTS_STORE_DB_H

#include <sqlite3.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define STORE_HASH_CAP 33

struct store {
	sqlite3 *lite;
	char path[512];
};

/* Opens for writing and makes what is missing. Errors as in store.h. */
int store_db_make(struct store *s, const char *path, struct pd_msg *msg) PD_MUST;
/* Opens for reading. PD_ENOENT: there is no such file. */
int store_db_read(struct store *s, const char *path, struct pd_msg *msg) PD_MUST;
void store_db_close(struct store *s);

/* What makes a document the same one: the XXH3 of its bytes, without white space at the end. */
void store_db_hash(struct span text, char out[STORE_HASH_CAP]);

/* PD_OK for SQLITE_OK, SQLITE_ROW and SQLITE_DONE; else the error with a message. */
int store_db_check(const struct store *s, int code, struct pd_msg *msg) PD_MUST;
int store_db_run(const struct store *s, const char *sql, struct pd_msg *msg) PD_MUST;
int store_db_prepare(const struct store *s, const char *sql, sqlite3_stmt **out,
		     struct pd_msg *msg) PD_MUST;

#endif
