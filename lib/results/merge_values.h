/* The values behind a merged figure: from the lists of all shards, or from their histograms.
 * Internal to lib/results. */
#ifndef PD_RESULTS_MERGE_VALUES_H
#define PD_RESULTS_MERGE_VALUES_H

#include "lib/json/scan.h"
#include "lib/results/document.h"
#include "lib/stats/hist.h"

/* One shard while it is merged. */
struct merge_shard {
	const char *name;
	struct json_object doc, own; /* the document, and its object "pdctl" */
	struct result_set set;	     /* the same as fields and series: one document */
	size_t n;		     /* requests in the lists */
	double *list[6];	     /* owned; enum merge_list; NULL when absent */
};
enum merge_list { MERGE_TTFT, MERGE_LATENCY, MERGE_QUEUE, MERGE_OUTPUT, MERGE_INPUT, MERGE_CACHED };

/* One statistic's source over all shards. */
struct merge_values {
	double *v; /* owned, ascending, in ms; NULL: no lists */
	size_t n;
	struct hist *hist; /* owned; NULL: no histograms either */
};

/* Reads the number lists; failed requests become NaN. PD_ENOMEM. */
int merge_lists(struct merge_shard *s) PD_MUST;
void merge_lists_release(struct merge_shard *s);

/* `metric` is the middle of a key: "ttft", "e2el_from_intended", "ttft_hit", ... */
int merge_values_of(const struct merge_shard *s, size_t n, const char *metric,
		    struct merge_values *out) PD_MUST;
void merge_values_release(struct merge_values *v);

/* In ms; NaN when nothing can be told. */
double merge_mean(const struct merge_values *v);
double merge_std(const struct merge_values *v);
double merge_percentile(const struct merge_values *v, double p);
double merge_max(const struct merge_values *v);

/* Appends ", \"NAME\": {...}" as lib/load/hists.h describes it. */
int hist_json(const struct hist *h, const char *name, struct buf *out) PD_MUST;
/* Adds a shard's histogram of this name to h; false when it has none, or of another kind. */
bool merge_hist_add(struct hist *h, const struct merge_shard *s, const char *name);

#endif
