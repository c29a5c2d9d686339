/* simulate --html: its option and its file. */
#ifndef PD_CMD_SIMULATE_HTML_H
#define PD_CMD_SIMULATE_HTML_H

#include <cjson/cJSON.h>

#include "lib/base/opt.h"

extern const char *simulate_html; /* the file; NULL: none */

/* clang-format off */
#define SIMULATE_HTML_OPTION \
	{OPT_TEXT, "html", &simulate_html, "FILE", \
	 "write a report with charts, one HTML file that needs nothing else (docs/reports.md)", NULL, 0, 0, NULL}
/* clang-format on */

/* `docs`: an array with a document per arm. Nothing without --html. */
int simulate_html_write(const cJSON *docs, struct pd_msg *msg) PD_MUST;

#endif
