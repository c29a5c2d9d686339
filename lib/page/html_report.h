/*
 * A report for people: one HTML file that opens from disk, with its data, styles, scripts and the
 * chart library inside, and nothing from anywhere else. The charts are made when it is opened, out
 * of the same document that programs read; each has a table. Pure.
 */
#ifndef PD_PAGE_HTML_REPORT_H
#define PD_PAGE_HTML_REPORT_H

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define HTML_REPORT_MAX (1u << 20) /* bytes of a file */

enum html_report_kind { HTML_BENCH, HTML_SIMULATE, HTML_COMPARE };

/*
 * Appends the file. `json` is the document: valid JSON text, what a script could end on is escaped.
 * `out` should have a maximum of HTML_REPORT_MAX or more. PD_ETOOBIG with a message when the file
 * would be larger, PD_ENOMEM.
 */
int html_report(enum html_report_kind kind, const char *version, struct span json, struct buf *out,
		struct pd_msg *msg) PD_MUST;

#endif
