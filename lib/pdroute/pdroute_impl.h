/*
 * What stands behind the opaque types of pdroute.h: private to lib/pdroute. A thin layer: the
 * decisions are lib/route's, the text of P/D requests lib/pd's.
 *
 * Whoever is held lives: a pool counts its workers and its policy, a held decision its pool. So a
 * caller may free in any order, also while requests run. A pdroute_policy is a route_state, which
 * counts its holders itself.
 */
#ifndef PD_PDROUTE_IMPL_H
#define PD_PDROUTE_IMPL_H

#include "lib/json/scan.h"
#include "lib/pdroute/pdroute.h"
#include "lib/route/decide.h"
#include "lib/route/key/key_extract.h"

struct pdroute_worker {
	struct route_slot slot;
	_Atomic unsigned holders;
	char *name;
};

struct pdroute_pool {
	_Atomic unsigned holders;
	struct route_pool *pool; /* holds the policy */
	size_t n;
	struct pdroute_worker **worker;
};

struct pdroute_keys {
	struct route_keyspec spec;
};

struct pdroute_body {
	struct json_object object;
};

struct pdroute_request {
	struct route_key key;
	uint64_t seed, number;
	uint32_t attempt, tokens;
	int64_t now_ns;
	char *model; /* owned */
	size_t model_size;
	uint64_t *block; /* owned */
	size_t nblocks;
	struct field *field; /* owned list of borrowed text */
	size_t nfields;
	struct span body;
	const struct pdroute_worker **tried; /* compared, never followed */
	size_t ntried;
};

struct pdroute_decision {
	struct pdroute_pool *pool; /* NULL: empty */
	struct route_decision d;
};

/* Passes the sentence on, or says the error's name when there is none. */
int pdroute_fail(struct pdroute_message *to, const struct pd_msg *from, int err);

#endif
