/* Conversations that a record tells turn by turn: each message of a user becomes a request that
 * carries all messages before it. */
#ifndef PD_WORKLOAD_FORMAT_TALK_H
#define PD_WORKLOAD_FORMAT_TALK_H

#include "lib/workload/format.h"

struct talk {
	struct format_reader *rd;
	size_t fresh; /* where the messages that were not sent yet begin */
	size_t requests;
};

/* Uses rd->text until the last talk_ask. */
int talk_begin(struct talk *t, struct format_reader *rd) PD_MUST;
/* A message; content is a JSON value. */
int talk_say(struct talk *t, const char *role, struct span content) PD_MUST;
/* Adds *r with all messages so far; those since the last request are its fresh ones. */
int talk_ask(struct talk *t, struct workload_request *r) PD_MUST;

#endif
