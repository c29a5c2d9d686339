/* What `pdctl top` shows: states of a router, as /dashboard/state has them, as lines of text. */
#ifndef PD_CMD_TOP_FRAME_H
#define PD_CMD_TOP_FRAME_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "lib/base/buf.h"

#define TOP_STATES 31 /* that are remembered: a sparkline has one value less */

enum top_order { TOP_BY_NAME, TOP_BY_FLIGHT, TOP_BY_RATE, TOP_BY_ERRORS, TOP_ORDERS };

struct top {
	cJSON *state[TOP_STATES]; /* owned; the newest last */
	unsigned n;
};

struct top_look {
	unsigned width, height; /* characters, lines; 0: no limit */
	bool ascii, colour, paused;
	enum top_order order;
	const char *url, *trouble; /* trouble: why there is no newer state; NULL: there is one */
};

/* Takes the state over, also on failure. PD_EPROTO: it is none. */
int top_add(struct top *t, cJSON *state) PD_MUST;
void top_release(struct top *t);
/* Appends the lines, each with a line feed. What the router says is shown without control
 * characters. */
int top_frame(const struct top *t, const struct top_look *look, struct buf *out) PD_MUST;

#endif
