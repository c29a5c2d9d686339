/*
 * A YAML text as a tree, over the entries that yamlpos found: for files whose keys no schema can
 * list, because each plugin brings its own. Plain values as JSON has them: what is quoted is text,
 * what is not may be a number, true, false or null. Only reads; thread-safe.
 */
#ifndef PD_BASE_YAMLNODE_H
#define PD_BASE_YAMLNODE_H

#include <stdint.h>

#include "lib/base/span.h"
#include "lib/base/yamlpos.h"

/* A value of borrowed entries. pos NULL: there is none. */
struct yamlnode {
	const struct yamlpos *pos;
	size_t at; /* SIZE_MAX: the whole document */
};

static inline struct yamlnode yamlnode_root(const struct yamlpos *pos)
{
	return (struct yamlnode){pos, SIZE_MAX};
}

enum yamlpos_kind yamlnode_kind(struct yamlnode n);
/* The first value inside a mapping or sequence, and the one behind it; pos NULL: none. */
struct yamlnode yamlnode_first(struct yamlnode parent);
struct yamlnode yamlnode_next(struct yamlnode n);
/* The value of a key; pos NULL: there is none, or it is null. */
struct yamlnode yamlnode_get(struct yamlnode parent, const char *key);
/* How it is called in its mapping; of a sequence "[N]". Lives as long as the entries. */
const char *yamlnode_key(struct yamlnode n);
/* The text of a scalar, NULL of anything else. */
const char *yamlnode_text(struct yamlnode n);
bool yamlnode_null(struct yamlnode n);

/* "NAME:LINE:COLUMN: text" for the value, or for its key. Returns PD_EINVAL. */
int yamlnode_fail(struct yamlnode n, const char *name, struct pd_msg *msg, const char *fmt, ...)
	PD_PRINTF(4, 5);
int yamlnode_fail_key(struct yamlnode n, const char *name, struct pd_msg *msg, const char *fmt, ...)
	PD_PRINTF(4, 5);

/* The keys of a mapping are among `known` (ends with NULL): else PD_EINVAL with the nearest one and
 * the list. Anything else than a mapping has no keys. */
int yamlnode_keys(struct yamlnode map, const char *name, const char *const *known,
		  struct pd_msg *msg) PD_MUST;

/* The values of JSON: PD_EINVAL when it is something else, with nothing said. */
int yamlnode_int(struct yamlnode n, int64_t *out) PD_MUST;
int yamlnode_real(struct yamlnode n, double *out) PD_MUST;
int yamlnode_bool(struct yamlnode n, bool *out) PD_MUST;
int yamlnode_string(struct yamlnode n, const char **out) PD_MUST;
/* "1h30m", "200ms", "1.5s", as Go's time.ParseDuration reads it, ns. */
int yamlnode_duration(struct yamlnode n, int64_t *out) PD_MUST;

/* What stands there, for a message: "a list", "text '...'", "'3'". */
const char *yamlnode_found(struct yamlnode n, char *out, size_t cap);

#endif
