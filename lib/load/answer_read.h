/* What the JSON of an answer says, by API; the rules of time and success are in answer.c. Internal
 * to lib/load. */
#ifndef PD_LOAD_ANSWER_READ_H
#define PD_LOAD_ANSWER_READ_H

#include "lib/json/scan.h"
#include "lib/load/answer.h"

/* What one event, or a whole answer, brought besides what is noted in the answer. */
struct answer_news {
	bool text;  /* some generated text, or a tool call */
	bool usage; /* a count of completion tokens */
};

/* One event of a stream, which is a JSON object. `name`: of its "event:" line, or empty. */
struct answer_news answer_read_event(struct answer *a, const struct json_object *o,
				     struct span name);
/* True for an event that is the mould with another text: that text is noted, and all else is as it
 * was. It need not be read: most events of a stream are of this kind. */
bool answer_read_same(struct answer *a, struct span event);
/* A whole answer that was not streamed. */
struct answer_news answer_read_whole(struct answer *a, const struct json_object *o);
/* "message" of an error object, or the value itself. */
void answer_note_error(struct answer *a, const char *label, struct span value, enum json_type type);

#endif
