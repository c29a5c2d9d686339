/*
 * A simulated vLLM engine behind an HTTP server: what `pdctl worker` runs and tests talk to. See
 * docs/worker.md.
 *
 * It is strict where a real engine is: OpenAI routes, error shapes, streaming format, prefix cache,
 * queueing, the NIXL hand-over with leases. Text is a function of the prompt alone
 * (sim/engine/tokens.h), time is a simple model (sim/engine/engine.h).
 */
#ifndef PD_SIM_WORKER_WORKER_H
#define PD_SIM_WORKER_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/log.h"
#include "lib/net/tls.h"
#include "sim/engine/engine.h"

enum worker_role { WORKER_BOTH, WORKER_PREFILL, WORKER_DECODE };

/* What goes wrong on purpose. Counts are of generation requests since the faults were set. */
struct worker_faults {
	double fail_rate;	   /* share of requests answered with fail_status, 0..1 */
	int64_t fail_first;	   /* so many requests fail first */
	int64_t fail_status;	   /* 400..599 */
	double fail_retry_after_s; /* adds Retry-After to the failures; < 0: no header */
	int64_t crash_after;	   /* the request after so many ends the process; < 0: off */
	int64_t stall_after;	   /* after so many output tokens nothing more is sent; < 0: off */
	double stall_s;		   /* how long; 0: until the client leaves */
	int64_t close_after;	   /* after so many output tokens the connection is cut; < 0: off */
	double delay_s;		   /* every generation request is held for so long first */
	bool unhealthy;		   /* /health answers 503 */
};

struct worker_config {
	const char *host;
	uint16_t port; /* 0: a free one */
	const char *const *models;
	size_t nmodels; /* >= 1 */
	enum worker_role role;
	struct engine_config engine;
	size_t max_model_len;
	bool strict; /* protocol mistakes are answered with 400 */
	double kv_lease_s;
	const char *kv_host; /* remote_host in kv_transfer_params; NULL: host */
	const char *api_key; /* NULL: none is asked for */
	uint64_t seed;	     /* of the random faults */
	int64_t slow_accept_ns;
	unsigned max_connections;   /* 0: what the descriptor limit allows */
	struct tls_context *tls;    /* of the listener; borrowed; NULL: plain HTTP */
	struct tls_context *kv_tls; /* to other workers, when the listener speaks TLS; borrowed */
	struct worker_faults faults;
	struct log *log;
	void (*crash)(void); /* ends the process at once (crash_after) */
};

struct worker;

void worker_config_default(struct worker_config *cfg);
/* Binds and serves. The configuration's texts must outlive the worker. */
int worker_start(struct worker **out, const struct worker_config *cfg, struct pd_msg *msg) PD_MUST;
uint16_t worker_port(struct worker *w);
/* Stops accepting; requests under way may finish. */
void worker_drain(struct worker *w);
/* Waits until they have, cuts what is left at the deadline, frees everything. Returns how many were
 * cut. */
unsigned worker_stop(struct worker *w, int64_t deadline);

#endif
