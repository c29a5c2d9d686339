/*
 * W3C Trace Context, level 1: the context of a request is checked, passed on unchanged and logged.
 * A request whose span is recorded (spans.h) goes on with that span as the parent; any other
 * context is left alone. Pure; thread-safe.
 */
#ifndef PD_ROUTER_TRACEPARENT_H
#define PD_ROUTER_TRACEPARENT_H

#include "lib/base/rng.h"
#include "lib/http/head.h"

#define TRACEPARENT_LEN 55

struct trace_context {
	struct span id; /* 32 hex digits inside the client's head or `text`; empty: none */
	bool refused;	/* traceparent and tracestate of the client go no further */
	char text[TRACEPARENT_LEN + 1]; /* made here: what the workers get; empty otherwise */
	bool recorded;			/* a span of this request is exported */
	bool joined;			/* `text` goes on with the client's trace */
	char parent[17], span[17];	/* recorded: 16 hex digits each; parent "": none */
};

/*
 * Reads it from a request's head. True when there is one that is well formed: exactly one field,
 * version-traceid-parentid-flags in lower-case hex, ids not all zero, version not ff; a version
 * above 00 may have more after a dash. False with t->refused when there is one that is not.
 */
bool trace_read(struct trace_context *t, const struct http_head *h);
/* A new one with random ids, sampled. */
void trace_make(struct trace_context *t, struct rng *rng);
/* A client's context: does its caller record? */
bool trace_sampled(const struct trace_context *t);
/* A client's context goes on through a span of ours: `text` has the same trace, a new parent. */
void trace_join(struct trace_context *t, struct rng *rng);
/* The parent in a context that was made here is a span of ours. */
void trace_own_span(struct trace_context *t);
/* A context that was made here is not recorded; without one nothing happens. */
void trace_not_sampled(struct trace_context *t);
/* The check alone, for one value. */
bool trace_valid(struct span value);

#endif
