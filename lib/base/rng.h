/*
 * Deterministic random numbers: splitmix64 for seeding, xoshiro256** for the stream (Blackman and
 * Vigna, public domain algorithms). The same seed gives the same stream on every machine. Not
 * thread-safe: one struct per owner.
 */
#ifndef PD_BASE_RNG_H
#define PD_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
/* Uniform in [0, n), without bias; 0 when n is 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [0, 1). */
double rng_unit(struct rng *r);
/* Exponential with the given mean. */
double rng_exp(struct rng *r, double mean);
/* Standard normal. */
double rng_normal(struct rng *r);
/* Gamma with shape k > 0 and scale theta (Marsaglia and Tsang 2000). */
double rng_gamma(struct rng *r, double shape, double scale);
/* splitmix64 step: advances *state. Also a good 64-bit mixer. */
uint64_t rng_splitmix(uint64_t *state);
/* n bytes from the system, for ids that must not repeat between processes. Not in libpdroute. */
void rng_system_bytes(unsigned char *out, size_t n);

#endif
