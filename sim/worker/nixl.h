/*
 * The hand-over of KV blocks between two engines, as vLLM's NixlConnector does it and the others in
 * their ways (played.h): what a request may contain, and on a prefill worker the offer of blocks
 * and their leases. A thread ends leases that expire. The read itself is in kvread.h. One for each
 * data-parallel rank. Thread-safe.
 */
#ifndef PD_SIM_WORKER_NIXL_H
#define PD_SIM_WORKER_NIXL_H

#include "sim/worker/kvclient.h"
#include "sim/worker/leases.h"
#include "sim/worker/request.h"
#include "sim/worker/stats.h"

#define NIXL_ID_MAX KV_KEY_MAX

struct nixl {
	const struct worker_config *cfg;
	struct core *core;
	struct worker_stats *stats;
	struct kv_client *client; /* borrowed; to prefill workers */
	/* Constant once requests come: where KV is read, the same for engines that look for it in
	 * offers and in ids; and where the bootstrap server is. */
	uint16_t kv_port, bootstrap_port;
	/* under core->lock */
	struct lease_table leases;
	pthread_cond_t changed; /* a lease was added, or stopping */
	bool stopping;
	pthread_t sweeper;
};

/* Starts the thread. PD_ENOMEM, PD_EIO: nothing has to be released. */
int nixl_start(struct nixl *x, const struct worker_config *cfg, struct core *core,
	       struct worker_stats *stats, struct kv_client *client) PD_MUST;
/* Ends the thread and returns all blocks to the engine. No other call may be running. */
void nixl_stop(struct nixl *x);

/* Counts a mistake and logs it. Under --strict the first mistake of a request is its error: *e is
 * set. Returns PD_EINVAL when *e is an error now. */
int nixl_mistake(struct nixl *x, enum worker_mistake kind, const char *id, struct api_error *e,
		 const char *fmt, ...) PD_PRINTF(5, 6);
/* What the connector makes of the request, with the mistakes that can be seen in it alone.
 * PD_EINVAL under --strict when there was one. */
int nixl_check(struct nixl *x, struct gen_request *g, struct api_error *e) PD_MUST;
/* Takes the blocks of a finished job under a lease, and the job with them: *job is NULL then.
 * `key`: the name under which they are read; "": one that is made up. lease_id receives the name,
 * "" when there is no lease. With `o` the kv_transfer_params object, or null, is appended. */
void nixl_offer(struct nixl *x, const struct gen_request *g, const char *key, uint64_t prompt_hash,
		struct core_job **job, char lease_id[NIXL_ID_MAX], struct jout *o);
/* The answer that carried the offer could not be sent: the blocks will never be read. */
void nixl_withdraw(struct nixl *x, const char *lease_id);
/* Ends leases that have expired; returns the next one's time or CLOCK_NEVER. The caller holds
 * core->lock. */
int64_t nixl_expire(struct nixl *x, int64_t now);

#endif
