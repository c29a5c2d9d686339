/*
 * What must hold for every message head, request or response; shared by fuzz_request and
 * fuzz_response. A violation aborts with a sentence.
 *
 * (1) The verdict and every span are the same when the message arrives in two pieces and byte by
 * byte. (2) What was accepted, printed and parsed again is the same head. (3) Whatever we accept,
 * llhttp accepts, and agrees about method, target, status, fields, framing, payload and keep-alive.
 * (4) Where llhttp accepts and we refuse, the reason is one of a list, and docs/http-strictness.md
 * has an example of each.
 */
#ifndef PD_FUZZ_MESSAGE_H
#define PD_FUZZ_MESSAGE_H

#include "lib/base/buf.h"
#include "lib/http/head.h"

#define MESSAGE_MAX (1u << 19)

struct message_mode {
	bool response, to_head;
	size_t first; /* bytes of the first piece */
};

/* Parses p[0..n) and checks all of it; the parser's verdict and head. n <= MESSAGE_MAX. */
int message_check(struct http_head *h, const struct message_mode *m, const char *p, size_t n);
/* The head as text, for all n fields. `out` is cleared first. */
void message_print(struct buf *out, const struct http_head *h, bool response);
/* The reasons of (4); ends with NULL. */
extern const char *const message_stricter[];

#endif
