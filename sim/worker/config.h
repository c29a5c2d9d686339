/* The configuration of a simulated worker; constant while it runs. */
#ifndef PD_SIM_WORKER_CONFIG_H
#define PD_SIM_WORKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/log.h"
#include "lib/net/tls.h"
#include "sim/engine/params.h"
#include "sim/worker/faults.h"

#define WORKER_RANKS_MAX 64
#define WORKER_VERSION	 "0.1.0+pdctl"
#define WORKER_TYPE	 "pdctl-worker" /* what it is in a service registry */

struct played;

enum worker_role { WORKER_BOTH, WORKER_PREFILL, WORKER_DECODE };

struct worker_config {
	const char *host;
	uint16_t port; /* 0: a free one */
	const char *const *models;
	size_t nmodels;	  /* >= 1 */
	size_t nadapters; /* of them, the last: LoRA adapters of the first */
	enum worker_role role;
	struct engine_params engine;	       /* kv_tokens is not used */
	uint32_t block_size;		       /* tokens */
	uint32_t num_blocks;		       /* that requests can have; 0: unlimited */
	double speedup;			       /* divides the times of steps and transfers */
	double transfer_ms, transfer_us_token; /* P/D: of a fetch, and per token that is fetched */
	size_t max_model_len;
	bool strict; /* protocol mistakes are answered with 400 */
	double kv_lease_s;
	const char *kv_host;		/* where others reach this worker; NULL: host */
	const struct played *connector; /* NULL: NIXL */
	bool kv_writes;			/* MoRI-IO: writes its blocks to the decode worker */
	bool kv_push;			/* NIXL: pushes its blocks */
	uint16_t kv_port;		/* of the KV transfer; 0: the port itself */
	bool bootstrap;			/* there is a bootstrap server */
	uint16_t bootstrap_port;	/* 0: a free one */
	bool health;			/* pages of its health on a port of their own */
	uint16_t health_port;		/* 0: a free one */
	const char *name;		/* on those pages */
	const char *shared_path;	/* the directory of connectors that have one */
	uint32_t tp_size, dp_size;	/* >= 1; dp_size engines behind the port */
	bool no_prefix_cache;
	/* KV events; NULL: none. Texts as kvevents.h has them. */
	const char *events_endpoint, *events_replay, *events_topic;
	size_t events_kept;
	int events_hwm;
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
