/*
 * One engine's case from two files, as the traces of vLLM's own scheduler have them: the engine's
 * configuration (JSON) and its requests (JSON Lines with microseconds and names of blocks).
 */
#ifndef PD_SIM_ORACLE_ENGINECASE_H
#define PD_SIM_ORACLE_ENGINECASE_H

#include "lib/base/buf.h"
#include "sim/engine/stepper.h"

#define ENGINECASE_REQUESTS_MAX 10000000u

enum enginecase_role { ENGINECASE_ALONE, ENGINECASE_PREFILL, ENGINECASE_DECODE, ENGINECASE_PAIR };

struct enginecase_request {
	int64_t id, arrival_ns, hold_ns;
	uint32_t prompt, output, remote_blocks;
	size_t name; /* first in enginecase.name */
	size_t nnames;
};

struct enginecase {
	enum enginecase_role role;
	struct stepper_config engine; /* of a pair: the prefill engine */
	struct stepper_config decode; /* of a pair */
	int64_t transfer_ns, transfer_block_ns;
	struct enginecase_request *req; /* owned; in order of arrival and id */
	size_t n, cap;
	uint64_t *name; /* owned */
	size_t nnames, name_cap;
	struct buf unused; /* "NAME, NAME": members of the configuration that mean nothing here */
};

/* PD_EINVAL: the message names file, line and column. Nothing to release then. */
int enginecase_load(struct enginecase *c, const char *config, const char *workload,
		    struct pd_msg *msg) PD_MUST;
void enginecase_release(struct enginecase *c);

#endif
