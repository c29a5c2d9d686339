/*
 * Reader of benchmark results: one file gives one or more documents (runs).
 *
 * Accepted: one JSON object; objects one after another, with or without line feeds
 * (`--append-result`, JSON Lines); an object with a list of results ("benchmarks" of guidellm,
 * "pdctl.arms" of pdctl simulate), each of which is a document that also has the outer object's
 * fields. Results of other tools get vllm bench's names (lib/results/foreign.h). Tolerated beyond
 * RFC 8259, because Python writers produce it: NaN, Infinity, -Infinity. Unknown keys are kept.
 * Scalars are stored under their name, those of nested objects under a dotted path
 * ("pdctl.simulated"). Arrays are skipped, except the per-request arrays of `--save-detailed` at
 * top level, from which the series below are made. Text inside of arrays is not checked for valid
 * escapes. A JSON string is never taken for a number (metadata values are strings), except "inf"
 * for result_number.
 *
 * Bounds: RESULT_FILE_MAX bytes per file, RESULT_DOCS_MAX documents per set, RESULT_FIELDS_MAX
 * fields per document, depth RESULT_DEPTH_MAX. Not thread-safe per set; sets are independent.
 */
#ifndef PD_RESULTS_DOCUMENT_H
#define PD_RESULTS_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define RESULT_FILE_MAX	  ((size_t)1 << 30)
#define RESULT_DOCS_MAX	  1024
#define RESULT_FIELDS_MAX 4096
#define RESULT_DEPTH_MAX  64
#define RESULT_ITLS_MAX	  ((size_t)1 << 24)

enum result_type { RESULT_NULL, RESULT_BOOL, RESULT_NUMBER, RESULT_TEXT };

struct result_field {
	char *name;    /* owned; dotted path */
	char *text;    /* owned; RESULT_TEXT decoded, otherwise the spelling in the file */
	double number; /* RESULT_NUMBER (may be NaN or infinite), RESULT_BOOL 0 or 1, else NaN */
	enum result_type type;
};

/* One value per successful request that has it, in the order of sending, in milliseconds; empty
 * when the file has no detail. The last three are in the order of completion. */
enum result_series_kind {
	SERIES_TTFT,
	SERIES_TPOT,
	SERIES_ITL, /* one per token (or chunk); empty above RESULT_ITLS_MAX */
	SERIES_E2EL,
	SERIES_GAP,    /* ms since the completion before, from the second one on */
	SERIES_OUTPUT, /* output tokens of the same completions */
	SERIES_TOKENS, /* input and output tokens of the same completions */
	RESULT_SERIES
};

struct result_series {
	double *v; /* owned */
	size_t n;
};

struct result_doc {
	char *source;	/* "a.json", or "a.json#2" for the second object of a file */
	size_t at, len; /* where its object is in the text that was parsed */
	struct result_field *field;
	size_t n, cap;
	struct result_series series[RESULT_SERIES];
};

struct result_set {
	struct result_doc *doc;
	size_t n, cap;
};

void result_set_init(struct result_set *s);
void result_set_release(struct result_set *s);

/* Appends the documents of a file ("-": standard input). PD_EINVAL with "file:line:column: found
 * ..., expected ...". */
int result_read(struct result_set *s, const char *path, struct pd_msg *msg) PD_MUST;
/* The same for a text in memory; on failure the set holds only what it held before. */
int result_parse(struct result_set *s, const char *name, struct span text,
		 struct pd_msg *msg) PD_MUST;

/* Appends a field. PD_ETOOBIG beyond RESULT_FIELDS_MAX, PD_ENOMEM. */
int result_add(struct result_doc *d, const char *name, enum result_type type, const char *text,
	       double number) PD_MUST;

/* Moves a document to the end of a set; *d is empty then. PD_ETOOBIG, PD_ENOMEM: nothing moved. */
int result_take(struct result_set *s, struct result_doc *d) PD_MUST;

/* The last field with this name, or NULL. Borrowed. */
const struct result_field *result_get(const struct result_doc *d, const char *name);
/* A number ("inf" counts), or NaN when absent, null or something else. */
double result_number(const struct result_doc *d, const char *name);
/* The text of a RESULT_TEXT field, or NULL. */
const char *result_text(const struct result_doc *d, const char *name);
/* True when any field is a figure that would get a row (metric_default). */
bool result_has_metric(const struct result_doc *d);

#endif
