/*
 * The tokens of a prompt, for policies that go by what engines hold: engines name blocks by their
 * tokens. A prompt of token ids has them; for a text one available worker of the pool is asked,
 * with POST /tokenize, once for a request; when it refuses, up to RENDER_ASKED_MAX in turn. Without
 * them the policy goes by load.
 */
#ifndef PD_ROUTER_RENDER_H
#define PD_ROUTER_RENDER_H

#include "lib/router/fleet/fleet.h"

struct exchange;

#define RENDER_TIMEOUT	  NS_PER_S
#define RENDER_ANSWER_MAX (16u << 20)
#define RENDER_ASKED_MAX  3

/* The blocks of a prompt by its tokens. */
struct rendered {
	bool tried;
	uint64_t *block; /* owned */
	size_t nblocks;
	uint32_t tokens, block_tokens; /* 0: not known */
};

/* Fills x->rendered when that was not tried before. Waits. */
void render_prompt(struct exchange *x, enum worker_role role, uint32_t block_tokens);
void render_release(struct rendered *r);

#endif
