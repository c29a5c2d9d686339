/*
 * llhttp as a second opinion about HTTP messages, for tests only. It comes as C source with
 * Debian's package node-llhttp; without it oracle_present() is false and nothing else may be
 * called.
 *
 * One message at a time in static memory, so that a comparison costs no allocation: not
 * thread-safe.
 */
#ifndef PD_FUZZ_ORACLE_H
#define PD_FUZZ_ORACLE_H

#include <stdint.h>

#include "lib/base/buf.h"

struct oracle {
	struct buf target, payload;
	struct buf names, values; /* of the head's fields, each ended by a line feed */
	bool headers;		  /* the end of the head was seen */
	bool complete;		  /* the end of the message was seen */
	bool refused;
	const char *reason; /* of a refusal */
	/* As of the end of the head: */
	int status, major, minor;
	const char *method;
	bool chunked, has_length, needs_eof, keep_alive;
	uint64_t length;
	bool trailers; /* reading trailers, as of the last byte */
};

bool oracle_present(void);
/* Starts a message. The result is filled by the calls below and lent until the next start. */
const struct oracle *oracle_start(bool response, bool to_head);
/* The next bytes of the message. Bytes behind its end are left alone. */
void oracle_feed(const char *p, size_t n);

#endif
