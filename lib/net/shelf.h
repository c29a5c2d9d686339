/*
 * Receive buffers that a thread lends to handlers that have bytes to process. On an event loop a
 * handler that waits holds none, so a thousand idle streams cost a few buffers, and those are warm.
 * Per thread, without locks; bounded per thread and for the process.
 */
#ifndef PD_NET_SHELF_H
#define PD_NET_SHELF_H

#include <stdbool.h>

#include "lib/base/buf.h"

#define SHELF_BYTES 65536u

/* Memory of SHELF_BYTES for an empty buffer (b->data is NULL) whose maximum allows it. PD_ENOMEM,
 * PD_ETOOBIG. */
int shelf_take(struct buf *b) PD_MUST;
/* Puts the bytes of b, which has outgrown its memory, into a large buffer with room for `more`;
 * false when there is none. Spans into b are void then. */
bool shelf_grow(struct buf *b, size_t more);
/* Takes the memory of b back when nothing is in it; what is not worth keeping is freed. */
void shelf_give(struct buf *b);
/* Frees what this thread keeps. */
void shelf_clear(void);

#endif
