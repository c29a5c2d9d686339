/* Whole files, bounded, and output files that appear complete or not at all. Thread-safe. */
#ifndef PD_BASE_FILE_H
#define PD_BASE_FILE_H

#include "lib/base/buf.h"
#include "lib/base/err.h"

/* Reads the file ("-" is standard input) up to b->max. The message names the file and the reason.
 */
int file_read(const char *path, struct buf *b, struct pd_msg *msg) PD_MUST;

/* Writes path.tmp-PID beside the target, flushes it to disk and renames it; on failure nothing is
 * left behind. "-" and anything that is not a regular file (/dev/stdout, a pipe) is written
 * directly. */
int file_write(const char *path, const void *data, size_t n, struct pd_msg *msg) PD_MUST;

/* Writes everything to a descriptor, continuing after EINTR and partial writes. PD_EIO with errno
 * kept. */
int file_write_fd(int fd, const void *data, size_t n) PD_MUST;

#endif
