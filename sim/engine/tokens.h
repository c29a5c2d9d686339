/*
 * The simulated model's tokenizer and its text. Pure functions, thread-safe, the same on every
 * machine.
 *
 * Tokenizer: a token is an optional single space followed by up to 6 "word" bytes (letters, digits,
 * '_' and every byte >= 0x80), or one other byte. Its id is a 31-bit hash of its bytes, so that
 * different words practically never collide. Any text can be tokenised, one token is about 4 to 5
 * bytes of English, and joining generated words gives back their ids: an answer that comes back as
 * history in the next turn hits the cache.
 *
 * Text: token i after a prompt is a pronounceable word chosen by hash(all prompt token ids, i): a
 * function of the prompt alone, so the same prompt gives the same words whatever the sampling
 * parameters, the worker or the path through a router.
 */
#ifndef PD_SIM_ENGINE_TOKENS_H
#define PD_SIM_ENGINE_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define TOKEN_ID_MAX   UINT32_C(0x7fffffff)
#define TOKEN_TEXT_MAX 8 /* a space, six letters and a terminator */

/* A growing sequence of token ids, at most `max`. */
struct tokens {
	uint32_t *id; /* owned */
	size_t n, cap, max;
};

void tokens_init(struct tokens *t, size_t max);
void tokens_release(struct tokens *t);
/* PD_ETOOBIG beyond the maximum, PD_ENOMEM. */
int tokens_add(struct tokens *t, uint32_t id) PD_MUST;
int tokens_add_text(struct tokens *t, const char *text, size_t n) PD_MUST;
/* A control token such as "<|user|>": never the result of tokenising text. */
int tokens_add_special(struct tokens *t, const char *name, size_t n) PD_MUST;

/* What the text after these tokens depends on. */
uint64_t tokens_seed(const uint32_t *id, size_t n);

/* Token i of the answer: its text (with a leading space when i > 0) into out, its length returned,
 * its id into *id (may be NULL). */
size_t tokens_answer(uint64_t seed, size_t i, char out[TOKEN_TEXT_MAX], uint32_t *id);

#endif
