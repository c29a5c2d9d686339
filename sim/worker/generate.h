/* Generation requests from body to last byte: chat, completions, messages, responses, token ids,
 * embeddings. */
#ifndef PD_SIM_WORKER_GENERATE_H
#define PD_SIM_WORKER_GENERATE_H

#include "sim/worker/faults.h"
#include "sim/worker/journal.h"
#include "sim/worker/nixl.h"

/* What a request needs of its worker; borrowed, thread-safe parts. */
struct generator {
	const struct worker_config *cfg;
	struct core *core;
	struct nixl *nixl;
	struct worker_stats *stats;
	struct fault_box *faults;
	struct journal *journal;
};

void generate_serve(const struct generator *gen, struct http_conn *c, struct http_request *r,
		    enum gen_kind kind);

#endif
