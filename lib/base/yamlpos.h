/*
 * Where things are in a YAML text: every key and every sequence entry by its path
 * ("workload.generate.turns", "expect[2]"), with line and column. libcyaml checks against a schema
 * but keeps no positions afterwards, so range checks and its own errors look them up here.
 *
 * The pass also refuses what a configuration file should not have and libcyaml lets through: double
 * keys, anchors and aliases, a second document, keys that are not plain text, numbers with leading
 * zeros (octal in YAML 1.1), deep nesting, an empty document.
 */
#ifndef PD_BASE_YAMLPOS_H
#define PD_BASE_YAMLPOS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

#define YAMLPOS_ENTRIES_MAX 4096
#define YAMLPOS_DEPTH_MAX   16

enum yamlpos_kind { YAMLPOS_SCALAR, YAMLPOS_MAPPING, YAMLPOS_SEQUENCE };

/* The entries stand in the order of the text, each before what it contains. */
struct yamlpos_entry {
	char *scalar;		/* owned: the value when it is a scalar, else NULL */
	enum yamlpos_kind kind; /* of the value */
	bool quoted;		/* a scalar in quotes or in a block: text, never a number */
	unsigned depth;		/* containers around it; 1: of the document's own */
	size_t name_at;		/* where in `path` its own key or index begins */
	char *path;		/* owned */
	size_t line, column;	/* of the key, or of the entry of a sequence; from 1 */
	size_t value_line, value_column; /* of its value */
	size_t text_column;		 /* of the first character of a scalar, behind its quote */
};

struct yamlpos {
	struct yamlpos_entry *entry; /* owned */
	size_t n, cap;
};

/* PD_EINVAL: msg begins with "NAME:LINE:COLUMN: ". Release also after a failure. */
int yamlpos_scan(struct yamlpos *p, const char *text, size_t n, const char *name,
		 struct pd_msg *msg) PD_MUST;
void yamlpos_release(struct yamlpos *p);
/* NULL when the path is not in the text. */
const struct yamlpos_entry *yamlpos_find(const struct yamlpos *p, const char *path);

#endif
