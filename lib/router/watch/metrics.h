/*
 * The router's counters and histograms. Striped by connection, so that threads do not share cache
 * lines; relaxed atomics; summed for the page. The families are in metrics_table.h. The
 * text is Prometheus format 0.0.4. Thread-safe.
 */
#ifndef PD_ROUTER_METRICS_H
#define PD_ROUTER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/pd/legs.h"
#include "lib/router/watch/metrics_table.h"
#include "lib/router/watch/tokens.h"

#define METRICS_STRIPES 16
#define METRICS_BUCKETS 20

/* Label values are bounded: each label has a fixed list of them. */

/* Routes that are told apart; everything else is "other". */
enum metrics_route {
	ROUTE_CHAT,
	ROUTE_COMPLETIONS,
	ROUTE_EMBEDDINGS,
	ROUTE_RESPONSES,
	ROUTE_OTHER,
	METRICS_ROUTES
};

/* Why an attempt failed. */
enum metrics_cause {
	CAUSE_NONE,    /* it did not */
	CAUSE_CONNECT, /* no connection could be made */
	CAUSE_CLOSED,  /* sent, and the connection ended without a byte */
	CAUSE_TIMEOUT, /* sent, and no byte within the limit */
	CAUSE_BROKEN,  /* a malformed or cut answer */
	CAUSE_STATUS,  /* a status that another attempt may repair */
	CAUSE_LOCAL,   /* out of memory or descriptors here */
	CAUSE_NO_WORKER,
	CAUSE_BUSY,	 /* all workers at their cap */
	CAUSE_NO_PARAMS, /* prefill returned no coordinates */
	CAUSE_LEASE,	 /* too late for the prefilled blocks */
	METRICS_CAUSES
};

/* What a failed request died of; vllm-router's words where it has one. */
enum metrics_error {
	ERROR_NONE, /* it did not fail */
	ERROR_NO_WORKERS,
	ERROR_NOT_RETRYABLE, /* a worker said 4xx */
	ERROR_BACKEND,
	ERROR_INVALID,
	ERROR_LOOP,
	ERROR_QUEUE_FULL,
	ERROR_QUEUE_TIMEOUT,
	ERROR_UNAUTHORIZED,
	ERROR_KEY_CHECK, /* the key could not be validated */
	ERROR_STREAM_CUT,
	ERROR_NO_MODEL, /* no worker serves it */
	METRICS_ERRORS
};

/* What a shadow policy picked beside: the same worker, another, none. */
enum metrics_shadow { SHADOW_SAME, SHADOW_OTHER, SHADOW_NONE, METRICS_SHADOWS };
enum metrics_trace { TRACE_PASSED, TRACE_INVALID, TRACE_GENERATED, METRICS_TRACES };
enum metrics_follow {
	FOLLOW_LEARNT,
	FOLLOW_EVICTED,
	FOLLOW_FOUND,
	FOLLOW_GONE, /* its worker is no longer in the fleet */
	FOLLOW_UNKNOWN,
	FOLLOW_SOUGHT, /* and found by asking the workers */
	METRICS_FOLLOW
};
enum metrics_pd_error { PDERR_SELECTION, PDERR_NO_PARAMS, PDERR_LEASE, METRICS_PDERRORS };

/* How many values a label has; the values stand in metrics.c. */
enum {
	LABELS_NONE = 1,
	LABELS_ROUTE = METRICS_ROUTES,
	LABELS_CODE = 6,
	LABELS_ERROR = METRICS_ERRORS - 1,
	LABELS_CAUSE = METRICS_CAUSES - 1,
	LABELS_STAGE = 3,   /* enum worker_role */
	LABELS_REASON = 10, /* enum route_reason */
	LABELS_ATTEMPT = 5,
	LABELS_SHADOW = METRICS_SHADOWS,
	LABELS_TRACE = METRICS_TRACES,
	LABELS_FOLLOW = METRICS_FOLLOW,
	LABELS_PDERROR = METRICS_PDERRORS,
	LABELS_LEGSTAGE = 1,
	LABELS_HTTPERROR = 11,
	LABELS_ALONE = PD_ALONE_COUNT - 1 /* enum pd_alone */
};

#define METRICS_ENUM(id, ...) METRIC_##id,
enum metrics_counter { METRICS_COUNTERS(METRICS_ENUM) METRICS_COUNTERS_N };
#define METRICS_HIST_ENUM(id, ...) HIST_##id,
enum metrics_hist { METRICS_HISTOGRAMS(METRICS_HIST_ENUM) METRICS_HISTS_N };

/* Where the series of a family begin: each enumerator is followed by the last of its family. */
#define METRICS_AT(id, a, b, ...)                                                                  \
	METRICS_AT_##id,                                                                           \
		METRICS_LAST_##id = METRICS_AT_##id + (int)LABELS_##a * (int)LABELS_##b - 1,
enum { METRICS_COUNTERS(METRICS_AT) METRICS_SERIES_N };
#define METRICS_HIST_AT(id, a, ...)                                                                \
	METRICS_HIST_AT_##id, METRICS_HIST_LAST_##id = METRICS_HIST_AT_##id + (int)LABELS_##a - 1,
enum { METRICS_HISTOGRAMS(METRICS_HIST_AT) METRICS_HIST_SERIES_N };

struct metrics_times {
	_Atomic uint64_t bucket[METRICS_BUCKETS + 1];
	_Atomic uint64_t sum_ns;
};

struct metrics_stripe {
	_Atomic uint64_t count[METRICS_SERIES_N];
	struct metrics_times times[METRICS_HIST_SERIES_N];
} __attribute__((aligned(64)));

struct metrics {
	struct metrics_stripe stripe[METRICS_STRIPES];
	struct token_models models;
};

/* A family whose first label is the route. */
void metrics_count(struct metrics *m, unsigned stripe, enum metrics_counter c, enum metrics_route r,
		   uint64_t n);
/* Any family: `a` and `b` are the places of its label values, 0 where it has no such label. */
void metrics_add(struct metrics *m, unsigned stripe, enum metrics_counter c, unsigned a, unsigned b,
		 uint64_t n);
void metrics_code(struct metrics *m, unsigned stripe, enum metrics_route r, int status);
/* An embeddings request that ended with this status (0: none was sent). */
void metrics_embeddings(struct metrics *m, unsigned stripe, int status);
void metrics_error(struct metrics *m, unsigned stripe, enum metrics_route r, enum metrics_error e);
/* A histogram without labels, and one with. */
void metrics_observe(struct metrics *m, unsigned stripe, enum metrics_hist h, int64_t ns);
void metrics_observe_at(struct metrics *m, unsigned stripe, enum metrics_hist h, unsigned a,
			int64_t ns);
/* Exchanges with workers that failed for this cause. */
uint64_t metrics_failures(const struct metrics *m, enum metrics_cause cause);
/* Decisions of --shadow-policy in the pool of this role (enum worker_role). */
uint64_t metrics_shadow(const struct metrics *m, unsigned role, enum metrics_shadow what);
int metrics_text(const struct metrics *m, struct buf *out) PD_MUST;
/* The label value; "ok" for ERROR_NONE. */
const char *metrics_error_name(enum metrics_error e);

/* "# HELP", "# TYPE": once per family. */
int metrics_head(struct buf *out, const char *name, const char *type, const char *help) PD_MUST;
/* What the documentation says of labels: "route, code"; one row for each label with its values. */
int metrics_counter_labels(struct buf *out, enum metrics_counter c) PD_MUST;
const char *metrics_hist_label(enum metrics_hist h);
int metrics_label_values(struct buf *out) PD_MUST;

#endif
