/* bench --html: the runs of the command as one page. */
#ifndef PD_CMD_BENCH_HTML_H
#define PD_CMD_BENCH_HTML_H

#include "cmd/bench_result.h"

/* Adds a run: its document without lists and histograms, and what its charts need. Before the
 * document is handed on. Nothing without --html. */
int bench_html_add(struct bench_output *out, const struct bench_arm *a) PD_MUST;
/* Writes the file; nothing without --html. */
int bench_html_write(struct bench_output *out, struct pd_msg *msg) PD_MUST;

#endif
