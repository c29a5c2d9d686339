/*
 * A tokenizer that needs no vocabulary: words in pieces, ids by hash. It is stable for a prefix
 * (more text never changes the tokens before it, but for the last), which is what prefix caches
 * depend on, and answers are tokens of the same kind, so that they can be part of the next prompt.
 */
#include "sim/engine/tokens.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "lib/base/rng.h"

#define PIECE_MAX    6
#define SEED_TEXT    0
#define SEED_SPECIAL 0x7370656369616cu

void tokens_init(struct tokens *t, size_t max)
{
	*t = (struct tokens){.max = max};
}

void tokens_release(struct tokens *t)
{
	free(t->id);
	tokens_init(t, t->max);
}

int tokens_add(struct tokens *t, uint32_t id)
{
	size_t cap = t->cap ? t->cap * 2 : 256;
	uint32_t *grown;

	if (t->n >= t->max)
		return PD_ETOOBIG;
	if (t->n == t->cap) {
		grown = realloc(t->id, cap * sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		t->id = grown;
		t->cap = cap;
	}
	t->id[t->n++] = id;
	return PD_OK;
}

static bool is_word(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c >= 0x80;
}

static uint32_t id_of(const char *p, size_t n, uint64_t seed)
{
	return (uint32_t)XXH3_64bits_withSeed(p, n, seed) & TOKEN_ID_MAX;
}

static size_t piece(const char *p, size_t n)
{
	size_t at = *p == ' ' && n > 1 && is_word((unsigned char)p[1]) ? 1 : 0, end = at;

	while (end < n && end - at < PIECE_MAX && is_word((unsigned char)p[end]))
		end++;
	return end > 0 ? end : 1;
}

int tokens_add_text(struct tokens *t, const char *text, size_t n)
{
	int err = PD_OK;

	for (size_t at = 0, len; at < n && !err; at += len) {
		len = piece(text + at, n - at);
		err = tokens_add(t, id_of(text + at, len, SEED_TEXT));
	}
	return err;
}

int tokens_add_special(struct tokens *t, const char *name, size_t n)
{
	return tokens_add(t, id_of(name, n, SEED_SPECIAL));
}

uint64_t tokens_seed(const uint32_t *id, size_t n)
{
	return XXH3_64bits(id, n * sizeof(*id));
}

/* Two or three syllables of consonant and vowel: 6 bytes at most, so a word is one token. */
size_t tokens_answer(uint64_t seed, size_t i, char out[TOKEN_TEXT_MAX], uint32_t *id)
{
	static const char consonants[] = "bdfghjklmnprstvz", vowels[] = "aeiou";
	uint64_t state = seed ^ (uint64_t)i * UINT64_C(0xd1342543de82ef95),
		 r = rng_splitmix(&state);
	size_t n = 0, syllables = 2 + (r & 1);

	r >>= 1;
	if (i > 0)
		out[n++] = ' ';
	for (size_t s = 0; s < syllables; s++) {
		out[n++] = consonants[r & 15];
		r >>= 4;
		out[n++] = vowels[r % 5];
		r /= 5;
	}
	out[n] = '\0';
	if (id)
		*id = id_of(out, n, SEED_TEXT);
	return n;
}
