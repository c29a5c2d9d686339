/*
 * Words of three letters come from a list of 128 by the top bits of a splitmix64 stream seeded with
 * the hash id: ten words already carry 70 bits, so two ids never share a text that a cache could
 * mistake. Ids are mixed first, because traces number them 0, 1, 2, ...
 */
#include "lib/workload/synth.h"

#include <math.h>
#include <string.h>

#include "lib/base/rng.h"

static const char words[128][4] = {
	"act", "add", "age", "aid", "aim", "air", "all", "and", "any", "arm", "art", "ask", "bad",
	"bag", "bar", "bat", "bay", "bed", "bet", "big", "bit", "bow", "box", "boy", "bus", "but",
	"buy", "can", "cap", "car", "cat", "cow", "cry", "cup", "cut", "day", "dog", "dry", "due",
	"ear", "eat", "egg", "end", "eye", "fan", "far", "fat", "few", "fit", "fly", "for", "fox",
	"fun", "gap", "gas", "get", "god", "gun", "guy", "had", "has", "hat", "her", "him", "his",
	"hit", "hot", "how", "ice", "ill", "ink", "its", "job", "joy", "key", "kid", "law", "lay",
	"leg", "let", "lie", "lip", "lot", "low", "man", "map", "may", "mix", "net", "new", "nor",
	"not", "now", "nut", "odd", "off", "oil", "old", "one", "our", "out", "own", "pay", "pen",
	"pie", "pot", "put", "raw", "red", "rid", "row", "run", "sad", "say", "sea", "see", "set",
	"sit", "six", "sky", "sun", "tax", "tea", "ten", "top", "two", "use", "way",
};

int synth_words(struct buf *out, uint64_t id, uint64_t tokens)
{
	uint64_t state = id;
	size_t at = out->len, bytes;
	int err;

	if (__builtin_mul_overflow(tokens, (uint64_t)SYNTH_TOKEN_BYTES, &bytes))
		return PD_ETOOBIG;
	err = buf_reserve(out, bytes);
	if (err)
		return err;
	state = rng_splitmix(&state) ^ id;
	for (uint64_t i = 0; i < tokens; i++, at += SYNTH_TOKEN_BYTES) {
		memcpy(out->data + at, words[rng_splitmix(&state) >> 57], 3);
		out->data[at + 3] = ' ';
	}
	out->len = at;
	if (out->data)
		out->data[at] = '\0';
	return PD_OK;
}

/* Words of a block of so many tokens. A part of a word is rounded up in as many blocks as it is
 * large, by the block's name: so the mean is right, equal blocks stay equal, and fewer tokens never
 * have more words. */
static uint64_t scaled(uint64_t tokens, double scale, uint64_t id)
{
	uint64_t state = id ^ UINT64_C(0x9e3779b97f4a7c15);
	double n = floor((double)tokens * scale + (double)(rng_splitmix(&state) >> 11) * 0x1p-53);

	return tokens == 0 ? 0 : n < 1 ? 1 : (uint64_t)n;
}

/* `put` appends `n` words or ids of the stream named by id, for each piece of the prompt. */
static int each_piece(struct buf *out, const struct workload_request *r, double scale,
		      uint64_t seed,
		      int (*put)(struct buf *out, uint64_t id, uint64_t n, void *arg), void *arg)
{
	uint64_t left = r->input_tokens > 0 ? (uint64_t)r->input_tokens : 0;
	int err = PD_OK;

	if (r->input_tokens < 0)
		left = (uint64_t)r->nhash * r->block_tokens;
	for (uint32_t i = 0; !err && i < r->nhash && left > 0; i++) {
		uint64_t block = left < r->block_tokens ? left : r->block_tokens;

		err = put(out, r->hash_ids[i], scaled(block, scale, r->hash_ids[i]), arg);
		left -= block;
	}
	if (!err && left > 0) {
		uint64_t state = seed ^ ((uint64_t)r->line << 32), id = rng_splitmix(&state);

		err = put(out, id, scaled(left, scale, id), arg);
	}
	return err;
}

static int put_words(struct buf *out, uint64_t id, uint64_t n, void *arg)
{
	(void)arg;
	return synth_words(out, id, n);
}

int synth_prompt(struct buf *out, const struct workload_request *r, double scale, uint64_t seed)
{
	return each_piece(out, r, scale, seed, put_words, NULL);
}

static int put_ids(struct buf *out, uint64_t id, uint64_t n, void *arg)
{
	bool *first = arg;
	uint64_t state = id;
	int err = PD_OK;

	state = rng_splitmix(&state) ^ id;
	for (uint64_t i = 0; !err && i < n; i++) {
		err = buf_printf(out, "%s%u", *first ? "" : ",",
				 SYNTH_FIRST_ID + (unsigned)(rng_splitmix(&state) % SYNTH_IDS));
		*first = false;
	}
	return err;
}

int synth_ids(struct buf *out, const struct workload_request *r, double scale, uint64_t seed)
{
	bool first = true;
	int err = buf_putc(out, '[');

	if (!err)
		err = each_piece(out, r, scale, seed, put_ids, &first);
	return err ? err : buf_putc(out, ']');
}

uint64_t synth_tokens_of_chars(uint64_t n)
{
	return n / 4 + (n % 4 != 0);
}
