/* The grammar behind lib/results/document.h: walks over a sequence of JSON objects and fills one
 * document each. */
#ifndef PD_RESULTS_SCAN_H
#define PD_RESULTS_SCAN_H

#include "lib/base/buf.h"
#include "lib/results/result_detail.h"

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
	struct detail_list inner, gaps; /* one request's gaps; those of all requests */
	size_t list; /* where the list of results in the last object begins, 0: it has none */
};

void result_scan_init(struct result_scan *s, const char *name, struct span text,
		      struct pd_msg *msg);
void result_scan_release(struct result_scan *s);
/* Reads the next object into d. PD_EINVAL with a message, PD_ETOOBIG, PD_ENOMEM. */
int result_scan_next(struct result_scan *s, struct result_doc *d) PD_MUST;
/* Goes to the results of a list that result_scan_next found (scan.list): the next one is read by
 * result_scan_element, which says in *more whether there was one. `outer` lends its fields, may be
 * NULL. */
void result_scan_list(struct result_scan *s, size_t at);
int result_scan_element(struct result_scan *s, const struct result_doc *outer, struct result_doc *d,
			bool *more) PD_MUST;
/* Skips white space; true when nothing is left. */
bool result_scan_end(struct result_scan *s);

#endif
