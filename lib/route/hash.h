/*
 * Hash functions of the rings, and the dice. XXH3 for our own; fbi_hash (murmur64A over furc, as
 * published for vllm-router) so that sessions keep their worker when a pool moves from vllm-router
 * to pdctl. Pure, thread-safe.
 */
#ifndef PD_ROUTE_HASH_H
#define PD_ROUTE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define ROUTE_FBI_SEED 4193360111u

enum route_hash { ROUTE_HASH_XXH3, ROUTE_HASH_FBI };

uint64_t route_murmur64a(const void *p, size_t n, uint64_t seed);
/* furc(key, m) with 32 tries and a shift of 23; 0 when m <= 1. */
uint32_t route_furc(const void *p, size_t n, uint32_t m);
uint64_t route_fbi_hash(const void *p, size_t n);
uint64_t route_hash(enum route_hash kind, const void *p, size_t n);

/*
 * The draw of a decision: a function of its place in the run and of nothing else, so that it is the
 * same whatever connection, thread or program makes the decision. `role` is 0 for a plain pool, 1
 * for prefill, 2 for decode; `number` counts the requests that make a decision, from 0; `attempt`
 * counts from 0.
 */
uint64_t route_dice(uint64_t seed, unsigned role, uint64_t number, unsigned attempt);
/* The nth number that a draw gives, in [0, n); 0 when n is 0. */
uint64_t route_below(uint64_t draw, unsigned nth, uint64_t n);

#endif
