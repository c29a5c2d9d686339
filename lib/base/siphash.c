#include "lib/base/siphash.h"

#include <string.h>

#include "lib/base/rng.h"

struct state {
	uint64_t v[4];
};

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void rounds(struct state *s, int n)
{
	uint64_t *v = s->v;

	while (n-- > 0) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

static void take(struct state *s, uint64_t m)
{
	s->v[3] ^= m;
	rounds(s, 2);
	s->v[0] ^= m;
}

/* Little-endian, whatever the machine is. */
static uint64_t word(const unsigned char *p, size_t n)
{
	uint64_t m = 0;

	for (size_t i = 0; i < n; i++)
		m |= (uint64_t)p[i] << (8 * i);
	return m;
}

struct sip_tag sip_hash(const struct sip_key *key, const void *p, size_t n)
{
	struct state s = {{key->k[0] ^ UINT64_C(0x736f6d6570736575),
			   key->k[1] ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
			   key->k[0] ^ UINT64_C(0x6c7967656e657261),
			   key->k[1] ^ UINT64_C(0x7465646279746573)}};
	const unsigned char *in = p;
	struct sip_tag tag;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8)
		take(&s, word(in + i, 8));
	take(&s, word(in + i, n - i) | (uint64_t)n << 56);
	s.v[2] ^= 0xee;
	rounds(&s, 4);
	tag.t[0] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
	s.v[1] ^= 0xdd;
	rounds(&s, 4);
	tag.t[1] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
	return tag;
}

void sip_key_new(struct sip_key *key)
{
	unsigned char bytes[sizeof(key->k)];

	rng_system_bytes(bytes, sizeof(bytes));
	memcpy(key->k, bytes, sizeof(key->k));
}
