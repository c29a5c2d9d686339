/*
 * Questions to the store of runs (store.h). A connection belongs to one thread; it sees the store
 * as it is at each call. Runs have numbers that are never used again.
 *
 * References, with or without '@': last, last~N (the N-th before the last), last:N (the N last
 * ones, oldest first), N or #N (the number of a run), LABEL (every run with this label, oldest
 * first), LABEL~N, LABEL:N, and label=NAME for labels that look like one of these.
 */
#ifndef PD_RESULTS_STORE_QUERY_H
#define PD_RESULTS_STORE_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define STORE_FOUND_MAX 1000000 /* runs that one reference may name */

struct store;

/* One row of a list; texts are borrowed until the callback returns, NULL when unknown, numbers NaN.
 */
struct store_run {
	int64_t id, saved_ns, bytes;
	const char *tool, *label, *model, *backend, *date, *commit;
	double request_rate, concurrency, requests, completed, failed, duration;
	double mean_ttft_ms, p99_ttft_ms, mean_tpot_ms, request_throughput;
	int client_ok; /* 1, 0, or -1: unknown */
};

/* Which runs a list or a history has; NULL or 0: all. */
struct store_filter {
	const char *label, *model, *tool;
	int64_t last; /* only the newest N of them */
};

/* PD_ENOENT: there is no such file; PD_EINVAL: it is something else. Closed with store_close. */
int store_open(const char *path, struct store **out, struct pd_msg *msg) PD_MUST;
void store_close(struct store *s);

/* Calls `each` for every run of the filter, oldest first; its error ends the walk and is returned.
 */
int store_list(struct store *s, const struct store_filter *f,
	       int (*each)(void *arg, const struct store_run *run), void *arg,
	       struct pd_msg *msg) PD_MUST;

/* *ids (owned by the caller) of a reference, oldest first. PD_ENOENT: no such run; PD_EINVAL: no
 * reference; both with a message that has the nearest label. */
int store_find(struct store *s, const char *ref, int64_t **ids, size_t *n,
	       struct pd_msg *msg) PD_MUST;
/* Appends the document as it was given. PD_ENOENT. */
int store_document(struct store *s, int64_t id, struct buf *out, struct pd_msg *msg) PD_MUST;
/* The run whose document is these bytes but for white space at the end, or 0. */
int store_same(struct store *s, const void *text, size_t n, int64_t *id,
	       struct pd_msg *msg) PD_MUST;

/* One value per run that has a number of this name; oldest first. */
int store_history(struct store *s, const char *metric, const struct store_filter *f,
		  int (*each)(void *arg, const struct store_run *run, double value), void *arg,
		  struct pd_msg *msg) PD_MUST;
/* The known metric nearest to a misspelt name, to be freed, or NULL. */
char *store_nearest_metric(struct store *s, const char *name);

/* Takes runs out of the store, in one transaction. PD_ENOENT, PD_EIO, PD_EBUSY. */
int store_remove(const char *path, const int64_t *ids, size_t n, struct pd_msg *msg) PD_MUST;

#endif
