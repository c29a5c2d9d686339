/* From an outcome to documents, tables and files. */
#ifndef PD_CMD_BENCH_RESULT_H
#define PD_CMD_BENCH_RESULT_H

#include "cmd/bench_run.h"
#include "cmd/store_opts.h"

#define BENCH_DOCS_MAX 1024

/* What one server, or one step, came to. */
struct bench_arm {
	const char *name; /* "a", "b", or NULL */
	struct result_run run;
	struct result_request *own; /* owned selection of the records, or NULL: the outcome's */
	size_t outside;		    /* left out: warm-up and cool-down windows, never due */
	struct figures figures;
	struct pulse_verdict client;
	struct verify verify;
	bool verified;
	struct buf members, doc;
	char *label; /* owned, or NULL */
	char date[20];
	size_t failed, asserts_failed;
};

/* The documents of this command, and where they go. */
struct bench_output {
	char *path; /* owned; NULL: no file */
	bool append;
	struct buf text[LOAD_TARGETS_MAX]; /* documents of each arm of --ab, one a line; else the
					      first */
	struct {
		size_t arm, at, size;
	} doc[BENCH_DOCS_MAX];
	size_t n;
	struct buf html, timeline; /* of --html: the documents, and the last run over time */
	double cached_before; /* share in the file that is replaced, of the same data set; NaN */
	int64_t stored;	      /* number of the first run in the store; 0: none */
};

/* Opens what will be written, so that a run is not made in vain. PD_EINVAL with a message. */
int bench_output_open(struct bench_output *out, const struct bench *b, struct pd_msg *msg) PD_MUST;
void bench_output_release(struct bench_output *out);

int bench_arm_make(struct bench_arm *a, const struct bench *b, const struct load_outcome *out,
		   size_t target, struct pd_msg *msg) PD_MUST;
void bench_arm_release(struct bench_arm *a);
/* The line before a run that says what is run. */
void bench_print_header(const struct bench *b);
/* Tables, --verify and --assert. */
int bench_print(struct bench_arm *a, const struct bench *b, const struct load_outcome *out) PD_MUST;
/* Adds its document. */
int bench_output_add(struct bench_output *out, struct bench_arm *a, size_t target) PD_MUST;
/* Files and store. When a file cannot be written the documents go to the temporary folder, and the
 * message says where. */
int bench_output_write(struct bench_output *out, const struct bench *b, struct pd_msg *msg) PD_MUST;
/* What to look at, and how to compare; a: the last run. */
void bench_print_hints(const struct bench_output *out, const struct bench *b,
		       const struct bench_arm *a);

#endif
