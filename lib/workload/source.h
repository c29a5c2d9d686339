/*
 * The bytes of a file, plain, gzip or zstd, recognised by their first bytes: pulled piece by piece,
 * so that no more of a file is in memory than its reader wants. gzip files of several members and
 * zstd files of several frames are read to their end; one that ends in the middle is an error.
 * Not thread-safe: one owner.
 */
#ifndef PD_WORKLOAD_SOURCE_H
#define PD_WORKLOAD_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

struct source; /* opaque */

/* Opens a file, or "-" for standard input. The message names the file and the reason. */
int source_open(struct source **out, const char *path, struct pd_msg *msg) PD_MUST;
/* The same from memory, which is borrowed until source_close; `name` is for messages. */
int source_memory(struct source **out, struct span text, const char *name,
		  struct pd_msg *msg) PD_MUST;
void source_close(struct source *s);

/*
 * Up to cap bytes of the content; *n == 0 only at its end. PD_EIO, PD_EPROTO (damaged or cut
 * compressed data), PD_ETOOBIG (more than `max` bytes of content), with a message.
 */
int source_read(struct source *s, char *out, size_t cap, size_t *n, struct pd_msg *msg) PD_MUST;
/* Limit of the content; before the first read. */
void source_limit(struct source *s, uint64_t max);

uint64_t source_hash(const struct source *s);	   /* XXH3 of the content that was read */
const char *source_packed(const struct source *s); /* "gzip", "zstd", or NULL */

#endif
