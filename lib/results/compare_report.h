/* A finished comparison: what compare_text.h and compare_export.h write. */
#ifndef PD_RESULTS_COMPARE_REPORT_H
#define PD_RESULTS_COMPARE_REPORT_H

#include "lib/results/compare_gate.h"

#define COMPARE_RESULTS_MAX (GATES_MAX * COMPARE_SIDES_MAX)

struct compare_report {
	const struct compare *compare;
	const struct gate_result *result;
	size_t nresults;
	bool strict;
	int exit_code;	   /* what the command will return; written into the JSON form */
	const char *title; /* "InfiniLM" and the like, or NULL */
};

#endif
