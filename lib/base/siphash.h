/*
 * SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, public domain): a keyed hash.
 * Without the key nobody can find two inputs with the same value or learn an input from how long a
 * look-up takes, so a table of secrets can hold and compare values instead of the secrets. Pure,
 * thread-safe.
 */
#ifndef PD_BASE_SIPHASH_H
#define PD_BASE_SIPHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sip_key {
	uint64_t k[2];
};

struct sip_tag {
	uint64_t t[2];
};

/* A key from the system's random numbers. */
void sip_key_new(struct sip_key *key);
struct sip_tag sip_hash(const struct sip_key *key, const void *p, size_t n);

/* Takes the same time whatever differs. */
static inline bool sip_equal(struct sip_tag a, struct sip_tag b)
{
	return ((a.t[0] ^ b.t[0]) | (a.t[1] ^ b.t[1])) == 0;
}

#endif
