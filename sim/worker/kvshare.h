/*
 * KV of prompts in a directory that both engines reach, as LMCache's disk and vLLM's
 * ExampleConnector keep it: one file for each entry, named by the hash of the tokens up to its end.
 * An entry is `chunk` tokens; with chunk 0 it is the whole prompt but its last token, in whole
 * blocks, and only the very same prompt finds it. The files hold no KV, only what they stand for.
 *
 * Bounded: a process writes KVSHARE_ENTRIES_MAX files. Thread-safe; blocks on a local file.
 */
#ifndef PD_SIM_WORKER_KVSHARE_H
#define PD_SIM_WORKER_KVSHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KVSHARE_ENTRIES_MAX 100000

/* Tokens of a prompt. */
struct kvshare_prompt {
	const char *path;
	const uint32_t *id;
	size_t n;
	uint64_t salt;
	uint32_t chunk, block_size;
};

/* Is all of it there that could be? False for a prompt that is too short for an entry. */
bool kvshare_has(const struct kvshare_prompt *p);
/* Writes what is missing; makes the directory. PD_EIO with errno; PD_EBUSY: the bound is reached;
 * PD_ENOMEM. */
int kvshare_store(const struct kvshare_prompt *p, size_t *stored) PD_MUST;

#endif
