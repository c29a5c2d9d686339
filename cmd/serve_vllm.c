#include "cmd/serve_vllm.h"

#include <stdlib.h>
#include <string.h>

enum effect {
	WORKS,	   /* an option of pdctl serve */
	NO_EFFECT, /* accepted, named at the start */
	LATER,	   /* likewise, and will be supported */
	REFUSED	   /* not supported, and a request could be routed wrongly without it: exit 2 */
};

static const struct flag {
	const char *name, *alias; /* the spelling of its other launcher, or NULL */
	enum opt_type type;
	enum effect effect;
	const char *note; /* may be NULL: a word for the table, and for REFUSED the reason */
} flags[] = {
	{"host", NULL, OPT_TEXT, WORKS, NULL},
	{"port", NULL, OPT_INT, WORKS, NULL},
	{"worker-urls", NULL, OPT_LIST, WORKS, "http and https; no grpc"},
	{"policy", NULL, OPT_TEXT, WORKS, "see below"},
	{"prefill-policy", NULL, OPT_TEXT, WORKS, "as `--policy`"},
	{"decode-policy", NULL, OPT_TEXT, WORKS, "as `--policy`"},
	{"cache-threshold", NULL, OPT_TEXT, WORKS, "with `cache_aware`"},
	{"balance-abs-threshold", NULL, OPT_TEXT, WORKS, "with `cache_aware`"},
	{"balance-rel-threshold", NULL, OPT_TEXT, WORKS, "with `cache_aware`"},
	{"eviction-interval", "eviction-interval-secs", OPT_TEXT, WORKS, "with `cache_aware`"},
	{"max-tree-size", NULL, OPT_TEXT, WORKS, "with `cache_aware`"},
	{"router-temperature", NULL, OPT_TEXT, WORKS, "with `kv_aware`"},
	{"kv-penalty-host", NULL, OPT_TEXT, WORKS, "with `kv_aware`"},
	{"kv-penalty-external", NULL, OPT_TEXT, WORKS, "with `kv_aware`"},
	{"kv-penalty-disk", NULL, OPT_TEXT, WORKS, "with `kv_aware`"},
	{"kv-aware-session-affinity-ttl-secs", NULL, OPT_TEXT, WORKS, "with `kv_aware`"},
	{"kv-event-source", NULL, OPT_LIST, WORKS, "with `kv_aware`; without it workers are asked"},
	{"kv-event-replay-source", NULL, OPT_LIST, WORKS, "with `kv_aware`"},
	{"kv-event-block-size", NULL, OPT_INT, WORKS, "with `kv_aware`; without it as engines say"},
	{"kv-event-model", NULL, OPT_TEXT, NO_EFFECT,
	 "each pool has one index, whatever the model"},
	{"pd-kv-events", NULL, OPT_LIST, WORKS, "as `--kv-event-source`"},
	{"vllm-pd-disaggregation", "pd-disaggregation", OPT_FLAG, WORKS, NULL},
	{"prefill", NULL, OPT_LIST, WORKS, NULL},
	{"decode", NULL, OPT_LIST, WORKS, NULL},
	{"vllm-discovery-address", NULL, OPT_TEXT, WORKS,
	 "with health checks and breakers; workers of `--prefill` and `--decode` are used beside"},
	{"kv-connector", NULL, OPT_TEXT, WORKS, "those of `--list-connectors`; others: exit 2"},
	{"intra-node-data-parallel-size", NULL, OPT_INT, WORKS, NULL},
	{"worker-startup-timeout-secs", NULL, OPT_REAL, WORKS,
	 "of workers that are added; the router itself starts at once"},
	{"worker-startup-check-interval", NULL, OPT_TEXT, NO_EFFECT,
	 "a new worker is checked at once"},
	{"max-payload-size", NULL, OPT_INT, WORKS, NULL},
	{"request-timeout-secs", NULL, OPT_REAL, WORKS, NULL},
	{"pool-idle-timeout-secs", NULL, OPT_REAL, WORKS, NULL},
	{"max-concurrent-requests", NULL, OPT_INT, WORKS, "a true limit of requests in flight"},
	{"queue-size", NULL, OPT_INT, WORKS, NULL},
	{"queue-timeout-secs", NULL, OPT_REAL, WORKS, NULL},
	{"rate-limit-tokens-per-second", NULL, OPT_REAL, WORKS, "no limit unless given"},
	{"cors-allowed-origins", NULL, OPT_LIST, WORKS, NULL},
	{"api-key", NULL, OPT_TEXT, WORKS, "on all requests to workers"},
	{"api-key-validation-urls", NULL, OPT_LIST, WORKS,
	 "also the variable `API_KEY_VALIDATION_URLS`"},
	{"request-id-headers", NULL, OPT_LIST, WORKS, NULL},
	{"retry-max-retries", NULL, OPT_INT, WORKS, NULL},
	{"retry-initial-backoff-ms", NULL, OPT_REAL, WORKS, NULL},
	{"retry-max-backoff-ms", NULL, OPT_REAL, WORKS, NULL},
	{"retry-backoff-multiplier", NULL, OPT_REAL, WORKS, NULL},
	{"retry-jitter-factor", NULL, OPT_REAL, WORKS, NULL},
	{"disable-retries", NULL, OPT_FLAG, WORKS, NULL},
	{"cb-failure-threshold", NULL, OPT_INT, WORKS, NULL},
	{"cb-success-threshold", NULL, OPT_INT, WORKS, NULL},
	{"cb-timeout-duration-secs", NULL, OPT_REAL, WORKS, NULL},
	{"cb-window-duration-secs", NULL, OPT_TEXT, NO_EFFECT,
	 "vllm-router does not use it either"},
	{"disable-circuit-breaker", NULL, OPT_FLAG, WORKS, NULL},
	{"health-failure-threshold", NULL, OPT_INT, WORKS, NULL},
	{"health-success-threshold", NULL, OPT_INT, WORKS, NULL},
	{"health-check-timeout-secs", NULL, OPT_REAL, WORKS, NULL},
	{"health-check-interval-secs", NULL, OPT_REAL, WORKS, NULL},
	{"health-check-endpoint", NULL, OPT_TEXT, WORKS, NULL},
	{"service-discovery", NULL, OPT_FLAG, WORKS,
	 "pods that are deleted while the watch is away leave too"},
	{"selector", NULL, OPT_LIST, WORKS, "with prefill/decode beside the role's selector"},
	{"service-discovery-port", NULL, OPT_INT, WORKS,
	 "per role: `--prefill-discovery-port`, `--decode-discovery-port`"},
	{"service-discovery-namespace", NULL, OPT_TEXT, WORKS, NULL},
	{"prefill-selector", NULL, OPT_LIST, WORKS, "without it `llm-d.ai/role=prefill`"},
	{"decode-selector", NULL, OPT_LIST, WORKS, "without it `llm-d.ai/role=decode`"},
	{"prometheus-host", NULL, OPT_TEXT, WORKS, "also `--admin-host`"},
	{"prometheus-port", NULL, OPT_INT, WORKS, "also `--admin-port`"},
	{"log-dir", NULL, OPT_TEXT, NO_EFFECT, "lines go to standard error"},
	{"log-level", NULL, OPT_TEXT, WORKS, NULL},
	{"enable-trace", NULL, OPT_FLAG, NO_EFFECT,
	 "spans are sent with `--otlp-traces-endpoint`; `traceparent` is checked and passed on"},
	{"otlp-traces-endpoint", NULL, OPT_TEXT, WORKS,
	 "OTLP over HTTP (a collector's port 4318), where vllm-router speaks gRPC"},
	{"otel-sampling-ratio", NULL, OPT_REAL, WORKS, "of requests without a `traceparent`"},
	{"otel-excluded-paths", NULL, OPT_LIST, NO_EFFECT, "the router's own routes have no spans"},
	{"backend", "runtime", OPT_TEXT, NO_EFFECT, "workers speak the OpenAI API"},
	{"history-backend", NULL, OPT_TEXT, NO_EFFECT, "the router stores no history"},
	{"profile", NULL, OPT_FLAG, NO_EFFECT, NULL},
	{"mini-lb", NULL, OPT_FLAG, NO_EFFECT, "a debugging aid"},
	{"epd-config", NULL, OPT_TEXT, REFUSED, "requests with media would miss their encoder"},
	{"enable-igw", NULL, OPT_FLAG, NO_EFFECT, "requests go by model without it"},
	{"enable-program-scheduling", NULL, OPT_FLAG, LATER, "requests are routed one by one"},
	{"program-scheduling-config-json", NULL, OPT_TEXT, LATER,
	 "with `--enable-program-scheduling`"},
	{"wasm-middleware", NULL, OPT_TEXT, REFUSED,
	 "requests would pass that the module rejects or changes"},
	{"wasm-middleware-sha256", NULL, OPT_TEXT, NO_EFFECT, "with `--wasm-middleware`"},
	{"wasm-middleware-route", NULL, OPT_LIST, NO_EFFECT, "with `--wasm-middleware`"},
	{"help", NULL, OPT_FLAG, WORKS, NULL},
	{"version", NULL, OPT_FLAG, WORKS, NULL},
};
#define FLAGS (sizeof(flags) / sizeof(flags[0]))

struct opt serve_vllm_rows[FLAGS + 1];

/* What was given for flags[i]. */
static struct {
	bool on;
	const char *text;
	struct opt_list list;
} given[FLAGS];

void serve_vllm_defaults(void)
{
	struct opt *row = serve_vllm_rows;

	memset(given, 0, sizeof(given));
	for (size_t i = 0; i < FLAGS; i++) {
		if (flags[i].effect == WORKS)
			continue;
		*row++ =
			(struct opt){.type = flags[i].type,
				     .name = flags[i].name,
				     .alias = flags[i].alias,
				     .value = flags[i].type == OPT_FLAG	  ? (void *)&given[i].on
					      : flags[i].type == OPT_LIST ? (void *)&given[i].list
									  : (void *)&given[i].text};
	}
	*row = (struct opt){.type = OPT_END};
}

static bool is_given(size_t i)
{
	return given[i].on || given[i].text || given[i].list.occurrences > 0;
}

int serve_vllm_check(struct pd_msg *msg)
{
	for (size_t i = 0; i < FLAGS; i++)
		if (flags[i].effect == REFUSED && is_given(i))
			return pd_fail(msg, PD_EINVAL,
				       "--%s is not supported and cannot be ignored: %s",
				       flags[i].name, flags[i].note);
	return PD_OK;
}

void serve_vllm_settings(bool compat, struct route_settings *s)
{
	const char *ttl = getenv("VLLM_ROUTER_SLL_SESSION_EXPIRATION_IN_S");

	if (ttl && *ttl && !route_setting(s, "session-ttl-secs") &&
	    route_settings_put(s, "session-ttl-secs", ttl))
		return;
	if (compat && !route_setting(s, "cache-ties") &&
	    route_settings_put(s, "cache-ties", "first"))
		return;
}

static void say(struct log *log, enum effect effect, const char *text)
{
	struct buf names;
	int err = PD_OK;

	buf_init(&names, 8192);
	for (size_t i = 0; !err && i < FLAGS; i++)
		if (flags[i].effect == effect && is_given(i))
			err = buf_printf(&names, "%s--%s", names.len ? ", " : "", flags[i].name);
	if (!err && names.len)
		log_event(log, LOG_WARN, "flags_without_effect",
			  LOG_FIELDS(LOG_TEXT("flags", names.data),
				     LOG_TEXT("until", effect == LATER ? "supported" : "")),
			  "%s: %s", text, names.data);
	buf_release(&names);
}

void serve_vllm_announce(struct log *log)
{
	say(log, NO_EFFECT, "accepted without effect");
	say(log, LATER, "not supported yet, without effect until then");
}

int serve_vllm_markdown(struct buf *out)
{
	static const char *const words[] = {
		[WORKS] = "works",
		[NO_EFFECT] = "accepted without effect",
		[LATER] = "not yet",
		[REFUSED] = "not yet, exit 2",
	};
	int err = buf_puts(out, "| flag of vllm-router | here | note |\n|---|---|---|\n");

	for (size_t i = 0; !err && i < FLAGS; i++) {
		const struct flag *f = &flags[i];

		err = buf_printf(out, "| `--%s`", f->name);
		if (!err && f->alias)
			err = buf_printf(out, ", `--%s`", f->alias);
		err = err ? err
			  : buf_printf(out, " | %s | %s |\n", words[f->effect],
				       f->note ? f->note : "");
	}
	return err;
}

void serve_vllm_release(void)
{
	for (size_t i = 0; i < FLAGS; i++)
		opt_list_release(&given[i].list);
}
