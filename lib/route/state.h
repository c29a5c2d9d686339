/*
 * A policy with its parameters (a spec), and a spec with its memory (a state). One state per pool,
 * counted by reference, because the pools of two reloads share it while requests of the older one
 * run.
 */
#ifndef PD_ROUTE_STATE_H
#define PD_ROUTE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define ROUTE_PARAMS_SIZE 128 /* bytes of a policy's parameters, at most */

struct route_event;
struct route_policy_type;

/* A plain value: copied by assignment, nothing to release. */
struct route_spec {
	const struct route_policy_type *type;
	_Alignas(int64_t) unsigned char params[ROUTE_PARAMS_SIZE];
};

struct route_state {
	_Atomic unsigned refs;
	struct route_spec spec;
	_Atomic uint64_t turn; /* route_turn() */
	void *memory;	       /* of the policy; NULL: has none */
};

/* The policy with its default parameters. */
struct route_spec route_spec_of(const struct route_policy_type *type);
/* The same policy with the same parameters? */
bool route_spec_same(const struct route_spec *a, const struct route_spec *b);

/* PD_ENOMEM; PD_EINVAL: the type declares more than there is room for. */
int route_state_new(struct route_state **out, const struct route_spec *spec) PD_MUST;
struct route_state *route_state_ref(struct route_state *s);
void route_state_unref(struct route_state *s); /* NULL is accepted */

/* Tells the policy what happened. Thread-safe. PICKED and ENDED are told by decide.h. */
void route_tell(struct route_state *s, const struct route_event *e);

#endif
