/*
 * The connectors that a simulated worker plays, one for each of lib/pd/connectors.c: what the
 * engine's side of it makes of a request, as strictly as the engine. How the blocks then change
 * hands is the same for all (kvread.h), or a directory (kvshare.h).
 *
 *	connector   the prefill engine            the decode engine finds the blocks by
 *	nixl        answers with coordinates      the coordinates; push: the request's id
 *	p2p_nccl    by the addresses in the id    the same
 *	mooncake    transfer_id                   remote_bootstrap_addr, remote_engine_id,
 *transfer_id moriio      READ: answers with            READ: the coordinates; WRITE: transfer_id
 *and the coordinates; WRITE:           addresses in the id transfer_id lmcache     stores chunks of
 *256 tokens   the prompt example     stores the whole prompt       the prompt sglang bootstrap_room
 *bootstrap_host, bootstrap_port, bootstrap_room
 */
#ifndef PD_SIM_WORKER_PLAYED_H
#define PD_SIM_WORKER_PLAYED_H

#include "sim/worker/nixl.h"

enum played_flags {
	PLAYED_ANSWERS = 1,   /* the prefill answer carries coordinates */
	PLAYED_SAME_TP = 2,   /* both engines need the same tensor parallel size */
	PLAYED_OTHER_ID = 4,  /* the two legs need not have one X-Request-Id */
	PLAYED_BOOTSTRAP = 8, /* its prefill engines have a bootstrap server */
	PLAYED_SHARED = 16,   /* by a directory */
	PLAYED_ROLE = 32,     /* a worker must be prefill or decode */
};

struct played {
	const char *name; /* as in lib/pd */
	unsigned flags;
	uint32_t chunk; /* PLAYED_SHARED: tokens of one entry; 0: the whole prompt in blocks */
	/* Reads what the request has for the connector into g->kv. Mistakes are counted; under
	 * --strict the first is the error of the request: PD_EINVAL with *e set. */
	int (*read)(struct nixl *x, struct gen_request *g, struct api_error *e);
};

/* That of a connector's name in lib/pd; NULL: it is not played. */
const struct played *played_find(const char *name);
/* That of a worker. */
const struct played *played_of(const struct worker_config *cfg);

#endif
