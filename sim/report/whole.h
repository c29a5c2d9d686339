/* What is said about an experiment as a whole: its verdict, as lines and as a part of the document
 * of several arms. */
#ifndef PD_SIM_REPORT_WHOLE_H
#define PD_SIM_REPORT_WHOLE_H

#include "sim/report/report.h"

/* Gives a document of several arms its head; returns its object "pdctl", which the document owns.
 * NULL when out of memory. */
struct cJSON *simreport_head(struct cJSON *doc);
/* What is said about the experiment as a whole, an entry of "experiments" of a document of several
 * arms, without what simreport_whole_judged appends. NULL when out of memory. */
struct cJSON *simreport_whole(const struct simreport *r);
void simreport_whole_judged(const struct simreport *r, struct cJSON *whole);

/* Appends the lines of the verdict, the first one with the scenario's name in front if `named`;
 * lines longer than `width` characters (0: no limit) go on in the next one, indented. Nothing
 * without a verdict. */
int simreport_verdict(const struct simreport *r, bool named, size_t width, struct buf *out) PD_MUST;

#endif
