/* The grammar behind lib/results/document.h: walks over a sequence of JSON objects and fills one
 * document each. */
#ifndef PD_RESULTS_SCAN_H
#define PD_RESULTS_SCAN_H

#include "lib/base/buf.h"
#include "lib/results/document.h"

/* The per-request arrays that are kept while a document is read. */
enum detail {
	DETAIL_TTFTS,
	DETAIL_LATENCIES,
	DETAIL_ITLS,
	DETAIL_OUTPUT_LENS,
	DETAIL_ERRORS,
	DETAILS
};

struct detail_list {
	double *v; /* numbers; for a list its sum, for text its length, for null NaN */
	size_t n, cap;
};

struct result_scan {
	const char *name; /* borrowed: for messages */
	struct span text; /* borrowed */
	size_t at;
	unsigned depth;
	struct pd_msg *msg;
	struct result_doc *doc; /* NULL while values are skipped */
	struct buf path;	/* dotted path of the member being read */
	struct buf word;	/* the last string, decoded */
	struct detail_list detail[DETAILS];
};

void result_scan_init(struct result_scan *s, const char *name, struct span text,
		      struct pd_msg *msg);
void result_scan_release(struct result_scan *s);
/* Reads the next object into d. PD_EINVAL with a message, PD_ETOOBIG, PD_ENOMEM. */
int result_scan_next(struct result_scan *s, struct result_doc *d) PD_MUST;
/* Skips white space; true when nothing is left. */
bool result_scan_end(struct result_scan *s);

/* Makes the series of `d` from the details (lib/results/result_detail.c). Details that do not fit
 * together are left out. */
int result_detail_series(const struct detail_list *detail, struct result_doc *d) PD_MUST;
int result_detail_push(struct detail_list *l, double v) PD_MUST;
/* Which detail a top-level key is, or DETAILS. */
enum detail result_detail_of(const char *key);

#endif
