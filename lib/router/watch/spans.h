/*
 * --otlp-traces-endpoint: spans of sampled requests for a collector, OTLP over HTTP in JSON.
 *
 * A request that is to be recorded leaves a note in a bounded queue when it has ended; it never
 * waits for the collector. One thread of our own turns notes into batches and posts them with
 * libcurl. When the queue is full, or the collector does not take a batch after SPANS_TRIES, the
 * spans are dropped, counted and told in the log.
 */
#ifndef PD_ROUTER_SPANS_H
#define PD_ROUTER_SPANS_H

#include "lib/base/rng.h"
#include "lib/router/watch/request_record.h"

#define SPANS_QUEUE   4096 /* notes */
#define SPANS_BATCH   256  /* notes in one post */
#define SPANS_PERIOD  (1 * NS_PER_S)
#define SPANS_TIMEOUT (10 * NS_PER_S) /* of one post */
#define SPANS_TRIES   3
#define SPANS_FLUSH   (3 * NS_PER_S) /* what stopping may take */

struct spans;

struct spans_config {
	const char *url; /* borrowed: of the collector's traces, complete */
	double ratio;	 /* of requests that bring no traceparent, 0 to 1 */
	const char *version;
	struct log *log;
};

/*
 * The URL to post to out of what a person gives: "http" is added when there is no scheme,
 * /v1/traces when there is no path. PD_EINVAL names what is wrong.
 */
int spans_url(const char *text, struct buf *out, struct pd_msg *msg) PD_MUST;
int spans_start(struct spans **out, const struct spans_config *c, struct pd_msg *msg) PD_MUST;
/* Sends what is queued, for SPANS_FLUSH at most. Accepts NULL. */
void spans_stop(struct spans *s);

/*
 * Whether this request is recorded: as the client's traceparent says, without one by the ratio.
 * Then `t` names its span, which workers see as their parent. Thread-safe. s NULL: nothing happens.
 */
void spans_begin(const struct spans *s, struct trace_context *t, struct rng *rng);
/* The observer. */
void spans_ended(const struct record *r);

/* Since the start, in spans. */
struct spans_stats {
	uint64_t sent, dropped, failed; /* failed: the collector did not take them */
};
/* Zeros for NULL. Thread-safe. */
void spans_stats(const struct spans *s, struct spans_stats *out);

#endif
