/*
 * Building the text of a key from pieces: private to lib/route/key.
 */
#ifndef PD_ROUTE_KEY_TEXT_H
#define PD_ROUTE_KEY_TEXT_H

#include "lib/route/key/key_extract.h"

/* A part of a key: plain text, or the inside of a JSON string with its escapes. */
struct key_piece {
	struct span text;
	bool json;
};

/* Puts the pieces together in out->text; too long: the hash of the whole. */
void key_build(struct route_key *out, const struct key_piece *piece, size_t n);

/* The private part out of the sources; of a path the first step counts. */
void route_keyspec_index(struct route_keyspec *s);

/* No key. */
void key_clear(struct route_key *out);

/* out->source = kind followed by name, cut at its size. */
void key_source(struct route_key *out, const char *kind, const char *name);

/*
 * The value as a piece: what is inside a string, or the digits of a number, without white space
 * around it. False for all other types and for nothing but white space.
 */
bool key_value(enum json_type type, struct span value, struct key_piece *piece);

/* The first header of this name (lower case) that is not blank. */
bool key_header(const struct field *headers, size_t n, const char *name, struct key_piece *piece);

/* vllm-router's extraction. */
void key_extract_vllm_router(const struct field *headers, size_t nheaders,
			     const struct json_object *body, bool fields_only,
			     struct route_key *out);

#endif
