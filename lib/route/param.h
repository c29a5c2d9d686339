/*
 * A policy's parameters, declared once in the policy's file: flags, keys of YAML files, --help,
 * tables in docs/ and error texts come from the declaration. A declaration says where the value
 * lies in the policy's parameter struct. Pure, thread-safe.
 */
#ifndef PD_ROUTE_PARAM_H
#define PD_ROUTE_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"

/* How the value lies in the struct. */
enum route_param_type {
	ROUTE_PARAM_END,    /* ends a list */
	ROUTE_PARAM_INT,    /* int64_t within [min, max] */
	ROUTE_PARAM_REAL,   /* double within [min, max] */
	ROUTE_PARAM_CHOICE, /* int64_t: the number of the word in `choices`, from 0 */
};

struct route_param {
	enum route_param_type type;
	const char *name;  /* "virtual-nodes": --virtual-nodes, and virtual_nodes in YAML */
	const char *alias; /* a second spelling of the flag, or NULL */
	const char *arg;   /* what stands for the value in help: "N", "xxh3|fbi" */
	const char *help;  /* one line, without the default */
	size_t offset;
	double min, max;
	const char *choices; /* "xxh3|fbi" */
	double fallback;     /* the default; CHOICE: the number of the word */
};

/* Fills a parameter struct with the defaults. */
void route_params_default(const struct route_param *list, void *params);

/* Reads one value. PD_EINVAL: "found 'x', expected a whole number from 1 to 65536", without the
 * parameter's name, which the caller spells as the user did. */
int route_param_set(const struct route_param *p, void *params, struct span text,
		    struct pd_msg *msg) PD_MUST;
/* Appends the value as route_param_set reads it. */
int route_param_print(const struct route_param *p, const void *params, struct buf *out) PD_MUST;
/* The value as a number; CHOICE: the number of the word. */
double route_param_number(const struct route_param *p, const void *params);

/* Does `text` spell this name? '-' and '_' are the same, so that a flag and its YAML key match. */
bool route_param_named(const char *name, struct span text);

#endif
