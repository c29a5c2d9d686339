/*
 * The router's counters and histograms. Striped by connection, so that threads do not share cache
 * lines; relaxed atomics; summed when somebody asks. Names that vllm-router has keep their name.
 * The text is Prometheus format 0.0.4.
 */
#ifndef PD_ROUTER_METRICS_H
#define PD_ROUTER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define METRICS_STRIPES 16
#define METRICS_BUCKETS 20

/* Routes that are told apart; everything else is "other": label values are bounded. */
enum metrics_route {
	ROUTE_CHAT,
	ROUTE_COMPLETIONS,
	ROUTE_EMBEDDINGS,
	ROUTE_RESPONSES,
	ROUTE_OTHER,
	METRICS_ROUTES
};

#define METRICS_COUNTERS(X)                                                                        \
	X(REQUESTS, "vllm_router_requests_total", "Requests answered with 2xx")                    \
	X(RECEIVED, "pdctl_requests_received_total", "Requests accepted for routing")              \
	X(RETRIES, "vllm_router_retries_total", "Attempts after the first")                        \
	X(RETRIES_EXHAUSTED, "vllm_router_retries_exhausted_total",                                \
	  "Requests that failed after their last attempt")                                         \
	X(BUDGET_EMPTY, "pdctl_retry_budget_exhausted_total",                                      \
	  "Retries not made because the budget was spent")                                         \
	X(STALE, "pdctl_stale_connections_total",                                                  \
	  "Requests sent again because a pooled connection was dead")                              \
	X(NO_WORKER, "pdctl_no_worker_total", "Decisions that found no available worker")          \
	X(CLIENT_LEFT, "pdctl_client_left_total", "Requests whose client left before the end")     \
	X(WRITE_STALLS, "pdctl_write_stalls_total",                                                \
	  "Answers given up because the client did not read")                                      \
	X(STREAM_ERRORS, "pdctl_stream_errors_total",                                              \
	  "Answers that a worker cut after the first byte")                                        \
	X(EVENTS, "pdctl_events_relayed_total", "Server-sent events relayed")                      \
	X(BYTES, "pdctl_bytes_relayed_total", "Body bytes relayed to clients")                     \
	X(NO_KEY, "pdctl_keyless_requests_total", "Requests without a session key")                \
	X(FAILOVERS, "pdctl_failover_picks_total", "Picks that were not the key's first choice")   \
	X(PD_FALLBACK, "pdctl_pd_fallback_total", "P/D requests decoded without a prefill")        \
	X(PD_REPREFILL, "pdctl_pd_reprefill_total",                                                \
	  "Prefills repeated because decode failed or the lease passed")                           \
	X(PD_RELEASED, "pdctl_pd_released_total",                                                  \
	  "Decodes sent for clients that had left, to free the blocks")                            \
	X(PD_DUPLICATE, "pdctl_duplicate_fields_total",                                            \
	  "Requests refused because an edited field occurs twice")                                 \
	X(PD_REQUESTS, "vllm_router_pd_requests_total", "P/D requests")

#define METRICS_HISTOGRAMS(X)                                                                      \
	X(DURATION, "vllm_router_request_duration_seconds",                                        \
	  "Request to the last byte of the answer")                                                \
	X(TTFT, "pdctl_time_to_first_token_seconds",                                               \
	  "Request to the first event or body byte sent to the client")                            \
	X(ITL, "pdctl_inter_event_seconds", "Gap between events of one stream")                    \
	X(QUEUE, "pdctl_queue_wait_seconds", "Wait for a place below the concurrency limit")       \
	X(PREFILL, "pdctl_prefill_seconds", "Prefill leg, dispatch to answer")                     \
	X(HANDOVER, "pdctl_handover_seconds", "Prefill answer to decode dispatch")                 \
	X(OVERHEAD, "pdctl_decision_seconds", "Request read to first dispatch")

#define METRICS_ENUM(id, name, help) METRIC_##id,
enum metrics_counter { METRICS_COUNTERS(METRICS_ENUM) METRICS_COUNTERS_N };
#define METRICS_HIST_ENUM(id, name, help) HIST_##id,
enum metrics_hist { METRICS_HISTOGRAMS(METRICS_HIST_ENUM) METRICS_HISTS_N };

struct metrics_stripe {
	_Atomic uint64_t count[METRICS_COUNTERS_N][METRICS_ROUTES];
	_Atomic uint64_t code[METRICS_ROUTES][6]; /* 1xx..5xx, and 0: none sent */
	_Atomic uint64_t bucket[METRICS_HISTS_N][METRICS_BUCKETS + 1];
	_Atomic uint64_t sum_us[METRICS_HISTS_N];
} __attribute__((aligned(64)));

struct metrics {
	struct metrics_stripe stripe[METRICS_STRIPES];
};

void metrics_count(struct metrics *m, unsigned stripe, enum metrics_counter c, enum metrics_route r,
		   uint64_t n);
void metrics_code(struct metrics *m, unsigned stripe, enum metrics_route r, int status);
void metrics_observe(struct metrics *m, unsigned stripe, enum metrics_hist h, int64_t ns);
uint64_t metrics_total(const struct metrics *m, enum metrics_counter c);
int metrics_text(const struct metrics *m, struct buf *out) PD_MUST;

#endif
