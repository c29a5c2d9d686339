/* A finished comparison: what compare_text.h and compare_export.h write. */
#ifndef PD_RESULTS_COMPARE_REPORT_H
#define PD_RESULTS_COMPARE_REPORT_H

#include "lib/results/compare_judge.h"

#define COMPARE_PARTS_MAX   64 /* settings of a sweep */
#define COMPARE_RESULTS_MAX (GATES_MAX * COMPARE_SIDES_MAX)

struct compare_report {
	const struct compare *part; /* one per setting; the same sides in each */
	size_t nparts;
	const struct gate_result *result;
	size_t nresults;
	int exit_code;	   /* what the command will return; written into the JSON form */
	const char *title; /* "InfiniLM" and the like, or NULL */
};

#endif
