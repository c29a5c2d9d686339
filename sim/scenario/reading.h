/* What the files that read a scenario share: the object, and values of the YAML with errors that
 * name their place. Used by scenario*.c only. */
#ifndef PD_SIM_SCENARIO_READING_H
#define PD_SIM_SCENARIO_READING_H

#include "lib/base/yamlload.h"
#include "lib/epp/epp_config.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/schema.h"
#include "sim/scenario/sweep.h"

struct scenario {
	char *path;	      /* owned */
	struct y_scenario *y; /* owned by libcyaml */
	struct scenario_schema schema;
	struct yamlpos pos;
	struct experiment_spec spec;
	struct shape shape;
	struct generate_options gen;
	char *workload;		/* owned: path of the workload file */
	struct epp_config *epp; /* owned; NULL: none */
	uint32_t counts[3][64];
	uint64_t *caches;	    /* owned */
	struct plan_event *events;  /* owned */
	struct plan_node *nodes[3]; /* owned; of the pools */
	char *note;		    /* owned; of a profile */
	struct expect *expect;	    /* owned */
	char **place;		    /* owned: texts "FILE:LINE:COLUMN" */
	size_t nplaces;
	char *point, *same; /* owned: of a point of a sweep; see experiment_spec */
	struct sweep sweep;
	struct scenario **child;	/* owned; the points */
	struct experiment_spec *points; /* owned; their specifications */
	size_t npoints;
};

/* "FILE:LINE:COLUMN: text" for the value at this path; a column (from 1) counts inside the value's
 * text, 0 is the value. Returns PD_EINVAL. */
int scn_at(const struct scenario *s, struct pd_msg *msg, const char *path, size_t column,
	   const char *fmt, ...) PD_PRINTF(5, 6);
/* "FILE:LINE:COLUMN" of the value at this path, for errors that only a run finds. NULL: out of
 * memory. */
const char *scn_place(struct scenario *s, const char *path);
/* *to = *from when it is stated and within min..max. */
int scn_whole(const struct scenario *s, const char *path, const uint64_t *from, uint64_t min,
	      uint64_t max, uint64_t *to, struct pd_msg *msg) PD_MUST;
int scn_real(const struct scenario *s, const char *path, const double *from, double min, double max,
	     double *to, struct pd_msg *msg) PD_MUST;
/* The index of the word in a NULL-terminated list. */
int scn_choice(const struct scenario *s, const char *path, const char *word,
	       const char *const *words, int *to, struct pd_msg *msg) PD_MUST;
/* A file is found beside the scenario, not in the current directory. Owned by the caller; NULL: out
 * of memory. */
char *scn_beside(const struct scenario *s, const char *file);

#endif
