/*
 * Text output with a sticky error, for building JSON and metric pages without a check after every
 * piece: the first failure is remembered, later calls do nothing, and the owner looks at `err` once
 * at the end. Owner thread only.
 */
#ifndef PD_SIM_WORKER_JOUT_H
#define PD_SIM_WORKER_JOUT_H

#include <stdint.h>

#include "lib/base/buf.h"

struct jout {
	struct buf b;
	int err;
};

void jout_init(struct jout *o, size_t max);
void jout_release(struct jout *o);
/* Forgets what comes after the first n bytes. */
void jout_cut(struct jout *o, size_t n);
void jout_raw(struct jout *o, const void *p, size_t n);
void jout_put(struct jout *o, const char *text);
void jout_fmt(struct jout *o, const char *fmt, ...) PD_PRINTF(2, 3);
void jout_uint(struct jout *o, uint64_t value);
/* A JSON string with quotes. */
void jout_quote(struct jout *o, struct span text);

#endif
