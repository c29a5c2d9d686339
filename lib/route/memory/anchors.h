/*
 * Which worker computed which beginning of a prompt, for the policy affinity. A prompt is a chain
 * of block hashes, each of which stands for everything up to it; of a prompt a few are remembered:
 * its last block (the tail), which the next turn of the conversation contains, and some on the way
 * to it, denser at the front, where prompts of other conversations part from it.
 *
 * An anchor says where its beginning was computed (worker), under which shared beginning it was
 * placed (root), and how much of the traffic goes through it (rate, which fades with the number of
 * picks, not with time). A table of a fixed size in groups of four; in a full group the anchor that
 * was not used for the longest time goes. Lock-free: what is read may mix two anchors when one
 * replaces the other in that moment, which costs one placement and nothing else.
 */
#ifndef PD_ROUTE_ANCHORS_H
#define PD_ROUTE_ANCHORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define ANCHORS_MIN 1024
#define ANCHORS_MAX (16 << 20)

struct anchors;

struct anchor {
	uint64_t block, worker;
	uint64_t root;	     /* block of the shared beginning below it; 0: none */
	uint32_t root_depth; /* its length in blocks */
	uint32_t used;	     /* number of the pick */
	float rate;	     /* picks through it, as of `used` */
	bool tail;	     /* the end of a prompt: who hits it goes on with that conversation */
};

/* At least `max` anchors, rounded up to a power of two. */
int anchors_new(struct anchors **out, size_t max) PD_MUST;
void anchors_free(struct anchors *a);
size_t anchors_bytes(const struct anchors *a);

bool anchors_get(const struct anchors *a, uint64_t block, struct anchor *out);
/* Adds it, or replaces what is there under its block. */
void anchors_put(struct anchors *a, const struct anchor *in);
void anchors_forget(struct anchors *a, uint64_t block);

/* The longest known beginning of a chain: its length, 0 for none. *out is its anchor. */
size_t anchors_deepest(const struct anchors *a, const uint64_t *block, size_t n,
		       struct anchor *out);

/* Is the beginning of this length one to remember? All up to 16 blocks, then eight in each doubling
 * of the length. */
static inline bool anchors_mark(size_t length)
{
	unsigned above = 0;

	while (length >> above >= 16)
		above++;
	return length % ((size_t)1 << above) == 0;
}

#endif
