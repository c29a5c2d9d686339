/* --otlp-traces-endpoint and --otel-sampling-ratio. */
#include "cmd/serve_trace.h"

#include <string.h>

#include "lib/router/watch/spans.h"

#define GRPC_PORT ":4317"

struct serve_trace serve_trace;

static struct buf url; /* for the life of the program */

void serve_trace_defaults(void)
{
	serve_trace = (struct serve_trace){.ratio = -1};
}

int serve_trace_apply(struct router_config *c, struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	c->generate_traceparent = serve_trace.generate;
	c->otlp_ratio = serve_trace.ratio < 0 ? 1 : serve_trace.ratio;
	if (!serve_trace.endpoint)
		return PD_OK;
	buf_init(&url, 4096);
	if (spans_url(serve_trace.endpoint, &url, &inner))
		return pd_fail(msg, PD_EINVAL, "--otlp-traces-endpoint: %.480s",
			       inner.text[0] ? inner.text : "found more than 4096 bytes");
	c->otlp_url = url.data;
	return PD_OK;
}

void serve_trace_warn(struct log *log)
{
	if (!serve_trace.endpoint && serve_trace.ratio >= 0)
		log_event(log, LOG_WARN, "flag_without_effect",
			  LOG_FIELDS(LOG_TEXT("flag", "otel-sampling-ratio"),
				     LOG_TEXT("reason", "no --otlp-traces-endpoint")),
			  "--otel-sampling-ratio has no effect without --otlp-traces-endpoint");
	if (url.len > 0 && strstr(url.data, GRPC_PORT))
		log_event(
			log, LOG_WARN, "flag_unsafe",
			LOG_FIELDS(LOG_TEXT("flag", "--otlp-traces-endpoint")),
			"--otlp-traces-endpoint: port 4317 is usually OTLP over gRPC; this router "
			"speaks OTLP over HTTP, usually port 4318");
}
