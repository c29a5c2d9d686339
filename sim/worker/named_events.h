/*
 * Streams whose events have names: Anthropic's messages and OpenAI's responses, as vLLM sends them.
 * Each function writes whole events into o, which the caller has emptied. Such a request has one
 * answer.
 */
#ifndef PD_SIM_WORKER_NAMED_EVENTS_H
#define PD_SIM_WORKER_NAMED_EVENTS_H

#include "sim/worker/answer.h"

/* What the stream has come to. */
struct event_flow {
	const struct gen_request *g;
	int64_t created;
	size_t prompt, completion, cached; /* tokens, for the usage */
	unsigned long number;		   /* of the next event of a response */
};

/* Before the first token. */
void events_begin(struct jout *o, struct event_flow *f);
/* A piece of text. */
void events_text(struct jout *o, struct event_flow *f, struct span text);
/* After the last token: `text` is all of it. */
void events_end(struct jout *o, struct event_flow *f, struct span text, const char *finish);

#endif
