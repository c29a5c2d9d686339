/* The per-request arrays of a result document, and the series that follow from them. */
#ifndef PD_RESULTS_RESULT_DETAIL_H
#define PD_RESULTS_RESULT_DETAIL_H

#include "lib/results/document.h"

/* The per-request arrays that are kept while a document is read. */
enum detail {
	DETAIL_TTFTS,
	DETAIL_LATENCIES,
	DETAIL_ITLS,
	DETAIL_OUTPUT_LENS,
	DETAIL_INPUT_LENS,
	DETAIL_START_TIMES,
	DETAIL_ERRORS,
	DETAILS
};

struct detail_list {
	double *v; /* numbers; for a list its sum, for text its length, for null NaN */
	size_t n, cap;
};

/* Makes the series of `d` from the details and all gaps in seconds (taken over). Details that do
 * not fit together are left out. */
int result_detail_series(const struct detail_list *detail, struct detail_list *gaps,
			 struct result_doc *d) PD_MUST;
int result_detail_push(struct detail_list *l, double v) PD_MUST;
/* Which detail a top-level key is, or DETAILS. */
enum detail result_detail_of(const char *key);

#endif
