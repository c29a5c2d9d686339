/*
 * A YAML text through a libcyaml schema into the schema's structs, for every file that people
 * write. libcyaml alone reports the position of the value before the wrong one, takes "3x" for 3
 * and any word for true, and says nothing about an empty file; here each of these is an error with
 * its place.
 *
 * Thread-safe: no state is shared.
 */
#ifndef PD_BASE_YAMLLOAD_H
#define PD_BASE_YAMLLOAD_H

#include <cyaml/cyaml.h>

#include "lib/base/err.h"
#include "lib/base/yamlpos.h"

/*
 * The top of the schema is a mapping with CYAML_FLAG_POINTER. `name` is the file's name for
 * messages. PD_EINVAL: msg begins with "NAME:LINE:COLUMN: ". On success *out is the struct, to be
 * given back with yamlload_free, and *pos says where each value stands; on failure *out is NULL and
 * *pos released.
 */
int yamlload_read(const cyaml_schema_value_t *schema, void **out, struct yamlpos *pos,
		  const char *text, size_t n, const char *name, struct pd_msg *msg) PD_MUST;
/* One optional field of text per key, for an array of n `char *` at this offset; out gets n + 1 of
 * them. The keys are borrowed for as long as the schema is used. */
void yamlload_text_fields(cyaml_schema_field_t *out, const char *const *key, size_t n,
			  size_t offset);
void yamlload_free(const cyaml_schema_value_t *schema, void *data); /* NULL is fine */

#endif
