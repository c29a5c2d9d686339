/*
 * The comparison itself: sides (each a set of runs), one row per metric, one change per further
 * side against the first. The unit of replication is the run, never the request. No I/O except
 * reading the files; no printing. Not thread-safe.
 *
 * A change is relative to the size of the base's median: 0.05 is +5 %, the sign is always the raw
 * one. With enough runs it is the Hodges-Lehmann shift and has a confidence interval and an exact
 * Mann-Whitney p; see enum compare_basis.
 */
#ifndef PD_RESULTS_COMPARE_DATA_H
#define PD_RESULTS_COMPARE_DATA_H

#include "lib/results/document.h"
#include "lib/results/metric_name.h"

#define COMPARE_SIDES_MAX 8
#define COMPARE_NOTES_MAX 64

struct compare_side {
	char label[64];
	struct result_set runs;
};

enum compare_basis {
	COMPARE_NONE,	/* no change can be computed: a value is missing or the base is zero and the
			   new one is not */
	COMPARE_SINGLE, /* one run on a side: the plain change, with a bootstrap interval when both
			   have details */
	COMPARE_FEW,	/* too few runs for a claim at this alpha */
	COMPARE_RUNS	/* enough runs: p and interval mean something */
};

struct compare_change {
	enum compare_basis basis;
	double change;	  /* ratio; infinite when the base is 0 and the new value is not */
	double lo, hi;	  /* interval of the ratio, NaN when there is none */
	double p;	  /* NaN unless COMPARE_FEW or COMPARE_RUNS */
	double effect;	  /* rank-biserial, NaN for COMPARE_SINGLE */
	bool significant; /* COMPARE_RUNS and p < alpha */
};

struct compare_cell {
	double *v; /* owned; one value per run */
	size_t n;
	double median;
	double spread; /* largest distance of a run from the median, as a ratio; NaN with one run or
			  a median of 0 */
};

struct compare_row {
	char *name; /* owned */
	enum metric_direction direction;
	struct compare_cell cell[COMPARE_SIDES_MAX];
	struct compare_change change[COMPARE_SIDES_MAX]; /* [0] unused */
};

struct compare {
	double alpha;
	size_t min_runs;
	struct compare_side side[COMPARE_SIDES_MAX];
	size_t nsides;
	struct compare_row *row; /* owned */
	size_t nrows, cap;
	char *note[COMPARE_NOTES_MAX]; /* owned; sentences for the reader */
	size_t nnotes;
};

void compare_init(struct compare *c, double alpha, size_t min_runs);
void compare_release(struct compare *c);

/* The side with this label, made when it is new. PD_ETOOBIG with a message when there are too many.
 */
int compare_side_named(struct compare *c, struct span label, struct compare_side **out,
		       struct pd_msg *msg) PD_MUST;

/* Adds a sentence; silently dropped beyond COMPARE_NOTES_MAX. */
void compare_note(struct compare *c, const char *fmt, ...) PD_PRINTF(2, 3);

/* True when every run of every side has a finite number under this name and the sides mean the same
 * by it. */
bool compare_usable(const struct compare *c, const char *name);
/* True when any run has this key with any value. */
bool compare_known(const struct compare *c, const char *name);
/* The known metric nearest to a misspelt name, or NULL. Borrowed. */
const char *compare_nearest(const struct compare *c, const char *name);

/* The row of a metric, added (with its statistics) when it is not there. The metric must be usable:
 * else PD_EINVAL. */
int compare_row(struct compare *c, const char *name, struct compare_row **out) PD_MUST;

/*
 * Rows of the default table (names = NULL) or of a comma-separated list of names and shell
 * patterns, "all" included. A plain name that is unknown is PD_EINVAL with the nearest name, one
 * that is not usable PD_ENOENT.
 */
int compare_rows(struct compare *c, const char *names, struct pd_msg *msg) PD_MUST;
/* Rows of a NULL-terminated list; those that are not usable are noted. */
int compare_rows_preset(struct compare *c, const char *const *names) PD_MUST;

/* True for a file of pdctl: it has the object "pdctl". */
bool compare_is_ours(const struct result_doc *d);

#endif
