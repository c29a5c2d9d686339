/*
 * The span scanner: validates a JSON text strictly (RFC 8259, UTF-8, depth <= 128, nothing after
 * the value) in one pass and says where things are. It never builds a tree and never converts a
 * number: the bytes of a value are never changed. Pure functions, thread-safe, no allocation except
 * in struct json_object.
 */
#ifndef PD_JSON_SCAN_H
#define PD_JSON_SCAN_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"

#define JSON_DEPTH_MAX	 128  /* open brackets; deeper is PD_EINVAL */
#define JSON_MEMBERS_MAX 4096 /* members recorded per object; more is PD_ETOOBIG */

enum json_type {
	JSON_NONE,
	JSON_OBJECT,
	JSON_ARRAY,
	JSON_STRING,
	JSON_NUMBER,
	JSON_TRUE,
	JSON_FALSE,
	JSON_NULL
};

struct json_member {
	struct span key; /* between the quotes, escapes untouched */
	struct span
		value; /* the whole value, quotes and brackets included, no white space around it */
	enum json_type type;
	bool key_escaped; /* the key contains a backslash */
};

/* The members of one object in the order of the text. Small objects live in `fixed`; release in
 * every case. */
struct json_object {
	struct span doc;  /* everything that was scanned, with the white space around the object */
	struct span text; /* the object itself, from { to } */
	struct json_member *member; /* points to `fixed` or owned memory */
	size_t n;
	size_t cap;
	uint64_t lengths; /* private: a bit for each length of a name (modulo 64); of most names
			     that are asked for none is there. All when a name has escapes */
	struct json_member fixed[24];
};

/* Validates any JSON value. On failure msg names the byte offset, line and column, what was found
 * and what was expected. */
int json_validate(const char *text, size_t n, struct pd_msg *msg) PD_MUST;

/*
 * Validates the text, which must be one object, and records its members. Spans point into `text`.
 * On failure nothing is left to release. The structure points into itself: never copy it.
 */
int json_object_scan(struct json_object *o, const char *text, size_t n, struct pd_msg *msg) PD_MUST;
void json_object_release(struct json_object *o);

/* The LAST member with this name (as Python's json does), compared after unescaping; NULL when
 * absent. */
const struct json_member *json_object_get(const struct json_object *o, const char *name);
/* Is this the member's name, compared after unescaping? */
bool json_key_unescaped_is(struct span key, struct span name); /* the part of it for escaped keys */
static inline bool json_key_is(const struct json_member *m, struct span name)
{
	return m->key_escaped ? json_key_unescaped_is(m->key, name) : span_eq(m->key, name);
}
static inline bool json_member_is(const struct json_member *m, const char *name)
{
	return json_key_is(m, span_of(name));
}
/* How many members carry this name (after unescaping). */
size_t json_object_count(const struct json_object *o, const char *name);

/*
 * Follows a dotted path ("session_params.session_id") from the object. Returns true and fills type
 * and value span when every step is an object member. A value that was validated as part of `o` is
 * not validated again.
 */
bool json_object_path(const struct json_object *o, const char *path, enum json_type *type,
		      struct span *value);

/* Whether the text is one valid string, quotes included, and nothing else. */
bool json_is_string(struct span text);

/* Decodes a string value (quotes included) to UTF-8 bytes appended to out; \u0000 becomes a NUL
 * byte; lone surrogates become U+FFFD. */
int json_string_decode(struct span value, struct buf *out) PD_MUST;

/*
 * Piecewise: unescapes from *p up to end (the inside of a valid string) until `cap` bytes are
 * written or the text ends; moves *p and returns the bytes written. Never splits a character; cap
 * must be at least 4, and up to 3 bytes of it may stay unused. Lone surrogates become U+FFFD.
 */
size_t json_unescape(const char **p, const char *end, char *out, size_t cap);

/* Integer value of a number span without fraction or exponent that fits; PD_EINVAL otherwise. */
int json_int(struct span value, int64_t *out) PD_MUST;

/* Walks an array value that was already validated: *at starts at 0; returns false at the end. */
bool json_array_next(struct span array, size_t *at, struct span *value, enum json_type *type);
/* The same for an object value that was already validated. */
bool json_object_next(struct span object, size_t *at, struct json_member *m);

/* Appends s as a JSON string with quotes; each byte that is not part of valid UTF-8 becomes U+FFFD.
 */
int json_quote(struct buf *out, const char *s, size_t n) PD_MUST;

#endif
