/*
 * What a session's next turn takes over from the answers before: headers that the server gave
 * (X-Session-Token and the like), and the texts of its answers. Memory only for sessions that have
 * something; forgotten when the session's last turn has ended. Internal to lib/load. Owner thread
 * only.
 */
#ifndef PD_LOAD_TALKS_H
#define PD_LOAD_TALKS_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define TALK_HEADERS_MAX 16
#define TALK_BYTES_MAX	 ((size_t)64 << 20) /* of one session's answers */

struct talk {
	char *header[TALK_HEADERS_MAX]; /* owned values, by options.echo_headers; NULL: none yet */
	char **answer;			/* owned: JSON strings without quotes, in order */
	size_t nanswers, cap;
	size_t bytes;
};

struct talks {
	struct talk **talk; /* owned; by session number */
	size_t n;
};

void talks_release(struct talks *t);
/* The session's, made when missing; NULL: out of memory. */
struct talk *talks_get(struct talks *t, uint32_t session);
/* The same, NULL when there is none. */
const struct talk *talks_find(const struct talks *t, uint32_t session);
int talk_set_header(struct talk *k, size_t which, struct span value) PD_MUST;
/* Takes an answer's text over (copied). */
int talk_add_answer(struct talk *k, struct span text) PD_MUST;

#endif
