/* The options of `pdctl serve` about spans: values, rows of the option table, and what they become.
 */
#ifndef PD_CMD_SERVE_TRACE_H
#define PD_CMD_SERVE_TRACE_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_trace {
	const char *endpoint;
	double ratio;
	bool generate;
};

extern struct serve_trace serve_trace;

/* clang-format off */
#define SERVE_TRACE_OPTIONS \
	{OPT_FLAG, "generate-traceparent", &serve_trace.generate, NULL, \
	 "give requests without a valid traceparent a new, sampled one", NULL, 0, 0, NULL}, \
	{OPT_TEXT, "otlp-traces-endpoint", &serve_trace.endpoint, "URL", \
	 "send spans of requests to this OpenTelemetry collector, OTLP over HTTP: " \
	 "http[s]://HOST:PORT, /v1/traces is added where there is no path (none)", NULL, 0, 0, NULL}, \
	{OPT_REAL, "otel-sampling-ratio", &serve_trace.ratio, "X", \
	 "of requests that bring no traceparent; others are recorded as it says (1)", NULL, 0, 1, NULL}
/* clang-format on */

void serve_trace_defaults(void);
int serve_trace_apply(struct router_config *c, struct pd_msg *msg) PD_MUST;
/* Warns of an endpoint that looks like another protocol's, and of a ratio of nothing. */
void serve_trace_warn(struct log *log);

#endif
