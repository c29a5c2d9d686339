/* The configuration of a simulated worker; constant while it runs. */
#ifndef PD_SIM_WORKER_CONFIG_H
#define PD_SIM_WORKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/log.h"
#include "lib/net/tls.h"
#include "sim/engine/params.h"
#include "sim/worker/faults.h"

enum worker_role { WORKER_BOTH, WORKER_PREFILL, WORKER_DECODE };

struct worker_config {
	const char *host;
	uint16_t port; /* 0: a free one */
	const char *const *models;
	size_t nmodels; /* >= 1 */
	enum worker_role role;
	struct engine_params engine;	       /* kv_tokens is not used */
	uint32_t block_size;		       /* tokens */
	uint32_t num_blocks;		       /* that requests can have; 0: unlimited */
	double speedup;			       /* divides the times of steps and transfers */
	double transfer_ms, transfer_us_token; /* P/D: of a fetch, and per token that is fetched */
	size_t max_model_len;
	bool strict; /* protocol mistakes are answered with 400 */
	double kv_lease_s;
	const char *kv_host; /* remote_host in kv_transfer_params; NULL: host */
	const char *api_key; /* NULL: none is asked for */
	uint64_t seed;	     /* of the random faults */
	int64_t slow_accept_ns;
	bool io_threads;	    /* a kernel thread per request instead of event loops */
	unsigned max_connections;   /* 0: what the descriptor limit allows */
	struct tls_context *tls;    /* of the listener; borrowed; NULL: plain HTTP */
	struct tls_context *kv_tls; /* to other workers, when the listener speaks TLS; borrowed */
	struct worker_faults faults;
	struct log *log;
	void (*crash)(void); /* ends the process at once (crash_after) */
};

void worker_config_default(struct worker_config *cfg);
/* The engine that this means. */
struct stepper_config worker_engine(const struct worker_config *cfg);

#endif
