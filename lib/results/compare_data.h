/*
 * The comparison itself: sides (each a set of runs), one row per metric, one change per further
 * side against the first. The unit of replication is the run, never the request. No I/O except
 * reading the files; no printing. Not thread-safe.
 *
 * A change is relative to the size of the base's median: 0.05 is +5 %, the sign is always the raw
 * one. With enough runs it is the Hodges-Lehmann shift and has a confidence interval and an exact
 * Mann-Whitney p (with pairs: the mean log ratio, Student's t); see enum compare_basis. Gates have
 * a test of their own (compare_judge.h).
 */
#ifndef PD_RESULTS_COMPARE_DATA_H
#define PD_RESULTS_COMPARE_DATA_H

#include "lib/results/document.h"
#include "lib/results/metric_name.h"
#include "lib/stats/bootstrap.h"

#define COMPARE_SIDES_MAX   8
#define COMPARE_NOTES_MAX   64
#define COMPARE_REASONS_MAX 64

struct compare_side {
	char label[64];
	struct result_set runs;
};

enum compare_basis {
	COMPARE_NONE,	 /* no change can be computed: a side has no value */
	COMPARE_SINGLE,	 /* one run on a side, without details: the plain change */
	COMPARE_DETAILS, /* too few runs, but with details: bootstrap */
	COMPARE_FEW,	 /* too few runs for a claim at this alpha */
	COMPARE_RUNS,	 /* enough runs: p and interval mean something */
	COMPARE_PAIRS	 /* enough runs, taken in pairs */
};

/* How to compare; the defaults are those of compare_rules_default(). */
struct compare_rules {
	double alpha;	   /* of intervals and marks in the table, two-sided */
	double level;	   /* of gates, one-sided: how often a change of just the limit may fail */
	double run_spread; /* deviation between runs that single runs are assumed to have */
	double detect;	   /* the change a gate is asked to find; NaN: twice its limit */
	size_t min_runs;
	bool pairs;	/* run i of the base with run i of the other side */
	bool single;	/* too few runs without details: the plain change decides */
	bool strict;	/* what is not proven either way is inconclusive */
	bool bootstrap; /* gates: hierarchical bootstrap also with enough runs that have details */
};
struct compare_rules compare_rules_default(void);

struct compare_change {
	enum compare_basis basis;
	double change;	  /* ratio; infinite when the base is 0 and the new value is not */
	double lo, hi;	  /* interval of the ratio, NaN when there is none */
	double p;	  /* NaN with one run on a side */
	double effect;	  /* rank-biserial; NaN with one run on a side and for pairs */
	bool significant; /* COMPARE_RUNS or COMPARE_PAIRS, and p < alpha */
};

struct compare_cell {
	double *v; /* owned; one value per run, NaN where a run has none */
	size_t n;
	double median; /* NaN when a run has no value */
	double spread; /* largest distance of a run from the median, as a ratio; NaN with one run or
			  a median of 0 */
};

struct compare_row {
	char *name; /* owned */
	enum metric_direction direction;
	struct compare_cell cell[COMPARE_SIDES_MAX];
	struct compare_change change[COMPARE_SIDES_MAX]; /* [0] unused */
	struct bootstrap_draws draws[COMPARE_SIDES_MAX]; /* made when asked for; compare_series.h */
};

struct compare {
	struct compare_rules rules;
	char setting[160]; /* of a sweep: "request_rate 4, max_concurrency 8"; else empty */
	struct compare_side side[COMPARE_SIDES_MAX];
	size_t nsides;
	struct compare_row *row; /* owned */
	size_t nrows, cap;
	char *note[COMPARE_NOTES_MAX]; /* owned; sentences for the reader */
	size_t nnotes;
	char *reason[COMPARE_REASONS_MAX]; /* owned; why the runs are not comparable */
	size_t nreasons;
};

void compare_init(struct compare *c, const struct compare_rules *rules);
void compare_release(struct compare *c);

/* The side with this label, made when it is new. PD_ETOOBIG with a message when there are too many.
 */
int compare_side_named(struct compare *c, struct span label, struct compare_side **out,
		       struct pd_msg *msg) PD_MUST;

/* Adds a sentence; silently dropped beyond COMPARE_NOTES_MAX. */
void compare_note(struct compare *c, const char *fmt, ...) PD_PRINTF(2, 3);

/* The same for a reason not to compare. */
void compare_refuse(struct compare *c, const char *fmt, ...) PD_PRINTF(2, 3);

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
 * A row also where some runs have no value: their cells are "-" and there is no change.
 */
int compare_row_with_gaps(struct compare *c, const char *name, struct compare_row **out) PD_MUST;

/*
 * Rows of the default table (names = NULL) or of a comma-separated list of names and shell
 * patterns, "all" included. A plain name that is unknown is PD_EINVAL with the nearest name, one
 * that is not usable PD_ENOENT.
 */
int compare_rows(struct compare *c, const char *names, struct pd_msg *msg) PD_MUST;
/* Rows of a NULL-terminated list; those that are not usable are noted. */
int compare_rows_preset(struct compare *c, const char *const *names) PD_MUST;

/* Enough runs on both sides for a claim at `alpha` (two-sided), and at least min_runs. */
bool compare_enough(const struct compare *c, size_t na, size_t nb);

/* True for a file of pdctl: it has the object "pdctl". */
bool compare_is_ours(const struct result_doc *d);

#endif
