/*
 * The hashes of the rings. murmur64A, furc and fbi_hash follow the public definitions that
 * vllm-router uses, including its one difference from mcrouter: when the depth has reached 0, bit 0
 * is tested before 0 is returned. The golden vectors in tests/unit/test_route_hash.c pin all of it.
 */
#include "lib/route/hash.h"

#include <string.h>

#include "lib/base/rng.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MURMUR_M   0xc6a4a7935bd1e995u
#define MURMUR_R   47
#define FURC_SHIFT 23
#define FURC_TRIES 32
#define FBI_RANGE  8388607u /* 2^23 - 1 positions */

/* n <= 8 bytes as a little-endian integer, whatever the machine is. */
static inline uint64_t little_endian(const unsigned char *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

static inline uint64_t murmur_mix(uint64_t k)
{
	k *= MURMUR_M;
	k ^= k >> MURMUR_R;
	return k * MURMUR_M;
}

uint64_t route_murmur64a(const void *data, size_t n, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t h = seed ^ n * MURMUR_M;

	for (; n >= 8; n -= 8, p += 8)
		h = (h ^ murmur_mix(little_endian(p, 8))) * MURMUR_M;
	if (n > 0)
		h = (h ^ little_endian(p, n)) * MURMUR_M;
	h ^= h >> MURMUR_R;
	h *= MURMUR_M;
	return h ^ h >> MURMUR_R;
}

static uint64_t rehash(uint64_t k)
{
	unsigned char bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(k >> 8 * i);
	return route_murmur64a(bytes, sizeof(bytes), ROUTE_FBI_SEED);
}

/*
 * A long string of bits: word 0 is the key's hash, each further word the hash of the one before it.
 * One try moves forward by at most 23 * 23 bits, so 32 tries stay below word 266; almost all keys
 * need the first 9 words.
 */
#define FURC_WORDS ((FURC_SHIFT + FURC_TRIES * FURC_SHIFT * 32) / 64 + 1)

struct bit_source {
	uint64_t word[FURC_WORDS];
	unsigned known;
};

static unsigned bit_at(struct bit_source *b, unsigned i)
{
	for (; b->known <= i >> 6; b->known++)
		b->word[b->known] = rehash(b->word[b->known - 1]);
	return (unsigned)(b->word[i >> 6] >> (i & 63)) & 1;
}

uint32_t route_furc(const void *p, size_t n, uint32_t m)
{
	struct bit_source b;
	unsigned d = 0, a;

	if (m <= 1)
		return 0;
	b.word[0] = route_murmur64a(p, n, ROUTE_FBI_SEED);
	b.known = 1;
	while (((uint64_t)1 << d) < m)
		d++;
	a = d;
	for (int tries = 0; tries < FURC_TRIES; tries++) {
		uint32_t num = 1;

		while (!bit_at(&b, a)) {
			if (d == 0)
				return 0;
			a = --d;
		}
		a += FURC_SHIFT;
		for (unsigned i = 1; i < d; i++, a += FURC_SHIFT)
			num = num << 1 | bit_at(&b, a);
		if (num < m)
			return num;
	}
	return 0;
}

uint64_t route_fbi_hash(const void *p, size_t n)
{
	uint32_t v = route_furc(p, n, FBI_RANGE);
	const unsigned char bytes[4] = {(unsigned char)v, (unsigned char)(v >> 8),
					(unsigned char)(v >> 16), (unsigned char)(v >> 24)};

	return route_murmur64a(bytes, sizeof(bytes), ROUTE_FBI_SEED);
}

uint64_t route_hash(enum route_hash kind, const void *p, size_t n)
{
	return kind == ROUTE_HASH_FBI ? route_fbi_hash(p, n) : XXH3_64bits(p, n);
}

/* Each argument goes through a full mixing step, so that neighbours share no bits. */
uint64_t route_dice(uint64_t seed, unsigned role, uint64_t number, unsigned attempt)
{
	uint64_t x = seed;

	x = rng_splitmix(&x) ^ ((uint64_t)role << 32 | attempt);
	x = rng_splitmix(&x) ^ number;
	return rng_splitmix(&x);
}

/* The top of a product, without the loop of an exact method: the bias is below n / 2^64. */
uint64_t route_below(uint64_t draw, unsigned nth, uint64_t n)
{
	uint64_t x = draw + nth * UINT64_C(0x9e3779b97f4a7c15);

	return (uint64_t)((unsigned __int128)rng_splitmix(&x) * n >> 64);
}
