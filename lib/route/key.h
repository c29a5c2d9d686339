/*
 * A session key: the text that says "these requests belong together". How it is found in a request
 * stands in lib/route/key.
 */
#ifndef PD_ROUTE_KEY_H
#define PD_ROUTE_KEY_H

#include <stddef.h>

/* Bytes kept of a key; a longer one is replaced by "xxh3:" and the 128-bit XXH3 of the whole text
 * in hexadecimal. */
#define ROUTE_KEY_MAX 512

enum route_key_level { ROUTE_KEY_NONE, ROUTE_KEY_PREFIX, ROUTE_KEY_USER, ROUTE_KEY_SESSION };

struct route_key {
	enum route_key_level level;
	size_t len;
	/* What is hashed. Default form: the value without white space around it, then unescaped, so
	 * the same id in a header or in the body is the same session. */
	char text[ROUTE_KEY_MAX + 1];
	/* "header:x-session-id", "body:session_params.session_id", "prefix", "request" (compat's
	 * fallback) or "" */
	char source[80];
};

#endif
