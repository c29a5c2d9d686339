/*
 * Counters of the simulated worker and the metrics page. Every kind of mistake and every finish
 * reason is exported from the start with 0. Thread-safe: everything is atomic.
 */
#ifndef PD_SIM_WORKER_STATS_H
#define PD_SIM_WORKER_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "sim/worker/jout.h"
#include "sim/worker/kvevents.h"

/* X(name): the protocol mistakes that are counted by kind. */
#define WORKER_MISTAKES(X)                                                                         \
	X(missing_fields)                                                                          \
	X(unknown_id)                                                                              \
	X(expired_lease)                                                                           \
	X(duplicate_read)                                                                          \
	X(prompt_mismatch)                                                                         \
	X(request_id_mismatch)                                                                     \
	X(prefill_max_tokens)                                                                      \
	X(prefill_stream)                                                                          \
	X(shared_blocks)                                                                           \
	X(prompt_logprobs)                                                                         \
	X(beam_search)                                                                             \
	X(wrong_role)                                                                              \
	X(wrong_address)                                                                           \
	X(block_size_mismatch)                                                                     \
	X(tp_size_mismatch)                                                                        \
	X(lease_expired_unread)

enum worker_mistake {
#define X(name) MISTAKE_##name,
	WORKER_MISTAKES(X)
#undef X
		MISTAKE_COUNT
};

enum worker_finish { FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_COUNT };
enum worker_leg { LEG_PLAIN, LEG_PREFILL, LEG_DECODE, LEG_COUNT };

#define HISTOGRAM_MAX 24

struct worker_histogram {
	const double *bound; /* seconds, ascending */
	size_t n;
	atomic_ullong bucket[HISTOGRAM_MAX]; /* not cumulative; the last one is +Inf */
	atomic_ullong sum_ns;
};

struct worker_stats {
	atomic_ullong mistakes[MISTAKE_COUNT];
	atomic_ullong finished[FINISH_COUNT];
	atomic_ullong legs[LEG_COUNT];
	atomic_ullong prompt_tokens, generation_tokens;
	atomic_ullong aborted, rejected, faults;
	atomic_ullong kv_reads_ok, kv_read_failures, kv_blocks_read, kv_blocks_served;
	atomic_ullong kv_stored; /* entries written to the shared directory */
	atomic_bool said_kv_store;
	struct worker_histogram ttft, e2e, queue, prefill;
};

/* What the page shows from elsewhere, read at one moment. */
struct worker_gauges {
	uint64_t running, waiting, queried_tokens, hit_tokens, leases, evictions;
	double cache_usage;		 /* 0..1 */
	struct kvevents_stats published; /* KV events */
};

void stats_init(struct worker_stats *s);
void stats_observe(struct worker_histogram *h, int64_t ns);
const char *stats_mistake_name(enum worker_mistake kind);
const char *stats_leg_name(enum worker_leg leg);
/* The Prometheus text page: gauges of each of the n engines, counts of all together. */
void stats_page(struct worker_stats *s, const char *model, const struct worker_gauges *g, size_t n,
		unsigned connections, struct jout *o);

#endif
