/*
 * A capture of `pdctl serve --capture` as a workload: its requests become the records that
 * workload.h reads, in the order of the router's decisions, each with the workers that were chosen.
 * So whatever takes a workload takes a capture.
 */
#ifndef PD_WORKLOAD_CAPTURE_FILE_H
#define PD_WORKLOAD_CAPTURE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

/* Plain pool: workers in REGULAR. */
enum capture_role {
	CAPTURE_ROLE_REGULAR,
	CAPTURE_ROLE_PREFILL,
	CAPTURE_ROLE_DECODE,
	CAPTURE_ROLES
};

/* What the router of a run was: the set of workers that most of its decisions saw. */
struct capture_info {
	int64_t run;
	bool pd, fbi;
	unsigned vnodes;
	char policy[CAPTURE_ROLES][256]; /* with its parameters */
	char **names[CAPTURE_ROLES];	 /* owned, in the order of the configuration */
	size_t n[CAPTURE_ROLES];
};

/* Does the file begin like an SQLite file? False also for what cannot be read. */
bool capture_file_is(const char *path);

/* `run` 0: the last one. PD_EINVAL: not a capture of this version, or no such run. */
int capture_info_read(struct capture_info *out, const char *path, int64_t run,
		      struct pd_msg *msg) PD_MUST;
void capture_info_release(struct capture_info *i);

/*
 * Appends one JSON line per request of the run that a worker was chosen for: timestamp (ms since
 * the first decision), input_length, output_length, prompt_cache_key, block_tokens, hash_ids, the
 * prompt when the capture has it, and picked, draws, key_hashed (see record.c). Lengths that the
 * answer did not tell: four bytes of the prompt per token, one token per event.
 */
int capture_to_records(const char *path, int64_t run, struct buf *out, struct pd_msg *msg) PD_MUST;

#endif
