/*
 * Text where a trace only has lengths and block hashes, so that it can be sent to a real server.
 *
 * The same hash id always gives the same text, in every run and on every machine, and a partial
 * block is a prefix of the full one: two requests that share leading ids share exactly that text.
 * Every word has three letters and one space: four bytes, and one token for most tokenizers, so
 * bytes / 4 and words both state the token count. Pure functions.
 */
#ifndef PD_WORKLOAD_SYNTH_H
#define PD_WORKLOAD_SYNTH_H

#include "lib/base/buf.h"
#include "lib/workload/workload.h"

#define SYNTH_TOKEN_BYTES 4u

/* Appends `tokens` words of the stream named by id. */
int synth_words(struct buf *out, uint64_t id, uint64_t tokens) PD_MUST;

/*
 * Appends the prompt of a trace request: one stream per hash id, block_tokens * scale words each
 * (at least 1), the last block as much shorter as input_tokens says. Without hash ids: input_tokens
 * * scale words of a stream named by seed and the request's line. scale: words per token, as
 * calibrated, times what a user shrinks by; it is the same for all blocks, so sharing stays what it
 * was. Where it does not give whole words, a block is rounded up or down by its name: the sum is
 * right within the noise of these draws, and a part of a block stays the beginning of the whole.
 */
int synth_prompt(struct buf *out, const struct workload_request *r, double scale,
		 uint64_t seed) PD_MUST;

/* Ids that are words in the vocabularies of today's models, behind bytes and before special tokens.
 */
#define SYNTH_FIRST_ID 1000u
#define SYNTH_IDS      16384u

/* The same prompt as token ids, a JSON array: its length is exact without a tokenizer. */
int synth_ids(struct buf *out, const struct workload_request *r, double scale,
	      uint64_t seed) PD_MUST;

/* About how many tokens n characters of English are: (n + 3) / 4. The approximation stated in
 * generated files. */
uint64_t synth_tokens_of_chars(uint64_t n);

#endif
