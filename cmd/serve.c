/* pdctl serve: options into a router_config. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/decider_opts.h"
#include "cmd/policy_opts.h"
#include "cmd/serve_capture.h"
#include "cmd/serve_choice.h"
#include "cmd/serve_connector.h"
#include "cmd/serve_discovery.h"
#include "cmd/serve_epp.h"
#include "cmd/serve_events.h"
#include "cmd/serve_keys.h"
#include "cmd/serve_run.h"
#include "cmd/serve_tls.h"
#include "cmd/serve_trace.h"
#include "cmd/serve_vllm.h"
#include "cmd/serve_warn.h"
#include "lib/base/cli.h"
#include "lib/pd/connector.h"
#include "lib/router/config/workersfile.h"
#include "lib/router/keys/cors.h"
#include "lib/router/router.h"
#include "lib/router/watch/metricsdoc.h"

#define LISTEN_FD 3 /* first inherited descriptor of socket activation */

static struct {
	const char *host, *admin_host, *policy, *prefill_policy, *decode_policy, *session_key,
		*compat, *key_compat, *keyless, *log_level, *log_format, *fallback, *connector,
		*workers_file, *health_endpoint, *forwarded, *access_log, *access_format, *io,
		*log_requests, *admin_keys, *scrape_host, *pid_file;
	int64_t port, admin_port, scrape_port, dp, seed, max_body, max_connections, max_per_ip,
		max_concurrent, queue_size, worker_cap, pool_size, retry_max, remember_ids,
		cb_failures, cb_successes, panic_threshold, health_failures, health_successes,
		threads;
	double queue_timeout, connect_timeout, first_byte, inter_token, request_timeout,
		write_stall, head_timeout, client_idle, pool_idle, retry_initial_ms, retry_max_ms,
		retry_multiplier, retry_jitter, retry_budget, cb_timeout, health_timeout,
		health_interval, startup, lease, drain_delay, drain_timeout;
	struct opt_list workers, prefill, decode, id_headers, cors;
	bool pd, no_retries, no_breaker, batch, half_close, allow_ec, expose_workers,
		no_worker_headers, list_metrics, list_policies, list_connectors, admin_on_data_port,
		version, keyless_given, policy_given, decider_given,
		concurrent_given; /* --keyless was, on the command line */
} o;

static struct policy_opts policies;
static struct decider_opts decider;

#define SECONDS_MAX 1e6

static const struct opt options[] = {
	{.type = OPT_HEADING, .help = "where to listen"},
	{OPT_TEXT, "host", &o.host, "ADDR", "address to listen on (127.0.0.1)", NULL, 0, 0, NULL},
	{OPT_INT, "port", &o.port, "N",
	 "port to listen on; 0 takes a free one and prints it (30000)", NULL, 0, 65535, NULL},
	{OPT_TEXT, "admin-host", &o.admin_host, "ADDR",
	 "address of the admin and metrics port; anyone who can connect may change the fleet "
	 "(127.0.0.1)",
	 NULL, 0, 0, "prometheus-host"},
	{OPT_INT, "admin-port", &o.admin_port, "N",
	 "admin and metrics port, also --prometheus-port; 0 takes a free one, -1 none (29000)",
	 NULL, -1, 65535, "prometheus-port"},
	{OPT_TEXT, "admin-api-key-file", &o.admin_keys, "FILE",
	 "who changes the fleet needs a key of this file, one per line; read again on SIGHUP or "
	 "POST "
	 "/reload (none)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "metrics-host", &o.scrape_host, "ADDR", "address of --metrics-port (127.0.0.1)",
	 NULL, 0, 0, NULL},
	{OPT_INT, "metrics-port", &o.scrape_port, "N",
	 "a port with /metrics and the probes only, which may be open to all; 0 takes a free one, "
	 "-1 "
	 "none (-1)",
	 NULL, -1, 65535, NULL},
	{OPT_FLAG, "admin-on-data-port", &o.admin_on_data_port, NULL,
	 "allow changes of the fleet on --port too, by anyone who can connect", NULL, 0, 0, NULL},
	{OPT_LIST, "cors-allowed-origins", &o.cors, "ORIGIN...",
	 "origins whose pages may read answers in a browser, like https://chat.example; no word or "
	 "*: any; none: no page (any)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "compat", &o.compat, NULL,
	 "vllm-router's defaults where others are better: --policy cache_aware, --key-compat, "
	 "--ring-hash fbi, --admin-on-data-port, statuses of its admin routes (none)",
	 "none|vllm-router", 0, 0, NULL},

	{.type = OPT_HEADING,
	 .help = "workers ([NAME=]http[s]://HOST:PORT[@RANK]; the name is the identity on the "
		 "ring)"},
	{OPT_LIST, "worker-urls", &o.workers, "URL...", "workers of a plain pool", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "pd-disaggregation", &o.pd, NULL, "route to prefill and decode pools", NULL, 0,
	 0, "vllm-pd-disaggregation"},
	{OPT_LIST, "prefill", &o.prefill, "URL [PORT|none]",
	 "a prefill worker, repeatable; a bootstrap port is accepted and unused by NIXL", NULL, 1,
	 2, NULL},
	{OPT_LIST, "decode", &o.decode, "URL", "a decode worker, repeatable", NULL, 1, 1, NULL},
	{OPT_TEXT, "workers-file", &o.workers_file, "FILE",
	 "YAML with workers and policies; read again on SIGHUP or POST /reload", NULL, 0, 0, NULL},
	{OPT_INT, "intra-node-data-parallel-size", &o.dp, "N",
	 "ranks per worker: URL@0 .. URL@N-1 (1)", NULL, 1, 1024, NULL},

	SERVE_DISCOVERY_OPTIONS,

	SERVE_TLS_OPTIONS,

	{.type = OPT_HEADING, .help = "policy"},
	{OPT_TEXT, "policy", &o.policy, "NAME", policies.names, NULL, 0, 0, NULL},
	SERVE_EPP_OPTIONS,
	SERVE_CHOICE_OPTIONS,
	{OPT_TEXT, "prefill-policy", &o.prefill_policy, "NAME",
	 "policy of the prefill pool (as --policy)", NULL, 0, 0, NULL},
	{OPT_TEXT, "decode-policy", &o.decode_policy, "NAME",
	 "policy of the decode pool (as --policy)", NULL, 0, 0, NULL},
	{OPT_TEXT, "session-key", &o.session_key, "LIST",
	 "fields that hold the key: header:NAME|body:PATH,... (session ids, then user ids)", NULL,
	 0, 0, NULL},
	{OPT_CHOICE, "key-compat", &o.key_compat, NULL,
	 "key order and prefixes of another router (none)", "none|vllm-router", 0, 0, NULL},
	{OPT_CHOICE, "keyless", &o.keyless, NULL,
	 "hash policies without a key: least_request, or by the prompt's beginning (least_request)",
	 "least_request|prefix", 0, 0, NULL},
	{.type = OPT_ROWS, .value = policies.rows},
	{.type = OPT_ROWS, .value = (void *)(uintptr_t)serve_events_rows},
	{OPT_INT, "seed", &o.seed, "N", "seed of random choices; 0 takes one from the system (0)",
	 NULL, 0, 9e15, NULL},

	{.type = OPT_HEADING, .help = "limits"},
	{OPT_INT, "max-payload-size", &o.max_body, "BYTES",
	 "larger request bodies get 413 (536870912)", NULL, 1, 1e12, NULL},
	{OPT_INT, "max-connections", &o.max_connections, "N",
	 "client connections; 0: from the limit of open files (0)", NULL, 0, 1e6, NULL},
	{OPT_INT, "max-connections-per-ip", &o.max_per_ip, "N",
	 "connections of one client address (IPv6: of its /64); more get 503; 0: no limit (0)",
	 NULL, 0, 1e6, NULL},
	{OPT_INT, "max-concurrent-requests", &o.max_concurrent, "N",
	 "requests in flight, until their last byte (32768)", NULL, 1, 1e6, NULL},
	{OPT_INT, "queue-size", &o.queue_size, "N",
	 "requests in the admission queue; more get 429 (100)", NULL, 0, 1e6, NULL},
	SERVE_WAIT_OPTIONS,
	{OPT_REAL, "queue-timeout-secs", &o.queue_timeout, "S",
	 "longest wait in the admission queue; then 408 (60)", NULL, 0, SECONDS_MAX, NULL},
	{OPT_INT, "worker-max-in-flight", &o.worker_cap, "N",
	 "requests in flight per worker; 0: no limit (0)", NULL, 0, 1e6, NULL},
	{OPT_INT, "pool-size", &o.pool_size, "N", "idle connections kept per worker (500)", NULL, 0,
	 1e5, NULL},

	SERVE_KEY_OPTIONS,

	{.type = OPT_HEADING, .help = "time limits (seconds)"},
	{OPT_REAL, "request-timeout-secs", &o.request_timeout, "S",
	 "whole request with its stream (1800)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "connect-timeout-secs", &o.connect_timeout, "S", "connection to a worker (10)",
	 NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "first-byte-timeout-secs", &o.first_byte, "S",
	 "response of prefill, or first byte of a stream (600)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "inter-token-timeout-secs", &o.inter_token, "S", "silence inside a stream (120)",
	 NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "write-stall-timeout-secs", &o.write_stall, "S",
	 "a client or worker that accepts no bytes (30)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "head-timeout-secs", &o.head_timeout, "S", "a client's request head (10)", NULL,
	 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "client-idle-timeout-secs", &o.client_idle, "S",
	 "an idle client connection (75)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "pool-idle-timeout-secs", &o.pool_idle, "S",
	 "an idle worker connection; below the worker's own limit (2)", NULL, 0, SECONDS_MAX, NULL},

	{.type = OPT_HEADING,
	 .help = "retries (408, 429, 500, 502, 503, 504 and lost connections, before the first "
		 "byte)"},
	{OPT_INT, "retry-max-retries", &o.retry_max, "N", "attempts in all (5)", NULL, 1, 100,
	 NULL},
	{OPT_REAL, "retry-initial-backoff-ms", &o.retry_initial_ms, "MS", "first backoff (50)",
	 NULL, 0, 1e6, NULL},
	{OPT_REAL, "retry-max-backoff-ms", &o.retry_max_ms, "MS", "longest backoff (30000)", NULL,
	 0, 1e7, NULL},
	{OPT_REAL, "retry-backoff-multiplier", &o.retry_multiplier, "X",
	 "growth of the backoff (1.5)", NULL, 1, 100, NULL},
	{OPT_REAL, "retry-jitter-factor", &o.retry_jitter, "X", "random part of the backoff (0.2)",
	 NULL, 0, 1, NULL},
	{OPT_REAL, "retry-budget", &o.retry_budget, "X",
	 "retries per request on average, bursts of at most 100 (0.5)", NULL, 0, 100, NULL},
	{OPT_FLAG, "disable-retries", &o.no_retries, NULL, "one attempt per request", NULL, 0, 0,
	 NULL},

	{.type = OPT_HEADING, .help = "circuit breaker and health"},
	{OPT_INT, "cb-failure-threshold", &o.cb_failures, "N",
	 "consecutive failures that open it; 4xx and 503 never count (10)", NULL, 1, 1e6, NULL},
	{OPT_INT, "cb-success-threshold", &o.cb_successes, "N",
	 "successes, one at a time, that close it (3)", NULL, 1, 1e6, NULL},
	{OPT_REAL, "cb-timeout-duration-secs", &o.cb_timeout, "S",
	 "time open before one request probes the worker (60)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_FLAG, "disable-circuit-breaker", &o.no_breaker, NULL, "never open it", NULL, 0, 0,
	 NULL},
	{OPT_INT, "panic-threshold", &o.panic_threshold, "PERCENT",
	 "when fewer of a pool's reachable workers have a closed breaker, requests go to all of "
	 "them; 0: never (50)",
	 NULL, 0, 100, NULL},
	{OPT_INT, "health-failure-threshold", &o.health_failures, "N",
	 "consecutive failed checks that make a worker unhealthy (3)", NULL, 1, 1000, NULL},
	{OPT_INT, "health-success-threshold", &o.health_successes, "N",
	 "consecutive successful checks that make it healthy again (2)", NULL, 1, 1000, NULL},
	{OPT_REAL, "health-check-timeout-secs", &o.health_timeout, "S",
	 "time limit of one check (5)", NULL, 0.001, SECONDS_MAX, NULL},
	{OPT_REAL, "health-check-interval-secs", &o.health_interval, "S",
	 "interval between checks, with 10 % jitter (60)", NULL, 0.01, SECONDS_MAX, NULL},
	{OPT_TEXT, "health-check-endpoint", &o.health_endpoint, "PATH",
	 "path of the check (/health)", NULL, 0, 0, NULL},

	{OPT_REAL, "worker-startup-timeout-secs", &o.startup, "S",
	 "a worker added with wait is removed again if it is not healthy within this time (600)",
	 NULL, 0.001, SECONDS_MAX, NULL},

	{.type = OPT_HEADING, .help = "prefill/decode"},
	{OPT_TEXT, "kv-connector", &o.connector, "NAME",
	 "how the blocks of a prompt get from prefill to decode, a name of --list-connectors "
	 "(nixl)",
	 NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = decider.rows},
	{.type = OPT_ROWS, .value = (void *)(uintptr_t)serve_connector_rows},
	{OPT_CHOICE, "pd-fallback", &o.fallback, NULL,
	 "no prefill worker, or no kv_transfer_params: decode alone computes the prompt, or the "
	 "request fails (decode-only)",
	 "decode-only|fail", 0, 0, NULL},
	{OPT_REAL, "pd-lease-secs", &o.lease, "S",
	 "decode is dispatched within this time after prefill, else prefill is repeated (30)", NULL,
	 1e-6, SECONDS_MAX, NULL},
	{OPT_FLAG, "allow-ec-transfer-params", &o.allow_ec, NULL,
	 "pass ec_transfer_params of clients, which name a host that an engine connects to; else "
	 "such a request gets 400, in every mode",
	 NULL, 0, 0, NULL},

	SERVE_CAPTURE_OPTIONS,

	{.type = OPT_HEADING, .help = "running"},
	{OPT_REAL, "drain-timeout-secs", &o.drain_timeout, "S",
	 "SIGTERM: time for streams in flight to end (30)", NULL, 0, SECONDS_MAX, "drain-timeout"},
	{OPT_REAL, "drain-delay-secs", &o.drain_delay, "S",
	 "SIGTERM: /readiness is 503 this long before the port closes (0)", NULL, 0, SECONDS_MAX,
	 NULL},
	{OPT_CHOICE, "log-level", &o.log_level, NULL, "least severe lines to write (info)",
	 "debug|info|warn|warning|error|critical|off", 0, 0, NULL},
	{OPT_CHOICE, "log-format", &o.log_format, NULL,
	 "format of the lines on standard error (text)", "text|json", 0, 0, NULL},
	{OPT_CHOICE, "log-requests", &o.log_requests, NULL,
	 "a line at info for each request when it has ended, at warn when it failed (on)", "on|off",
	 0, 0, NULL},
	{OPT_CHOICE, "x-forwarded-for", &o.forwarded, NULL,
	 "the field that workers get: as the client sent it, with the client's address appended, "
	 "only that address, or none; set and drop remove Forwarded and the like too (pass)",
	 "pass|append|set|drop", 0, 0, NULL},
	{OPT_LIST, "request-id-headers", &o.id_headers, "NAME...",
	 "fields that may hold the client's request id (x-request-id x-correlation-id x-trace-id "
	 "request-id)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "access-log", &o.access_log, "FILE",
	 "one line per request with the time of each stage; - is standard output; reopened on "
	 "SIGUSR1 (none)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "access-log-format", &o.access_format, NULL, "format of its lines (text)",
	 "text|json", 0, 0, NULL},
	{OPT_FLAG, "expose-workers", &o.expose_workers, NULL,
	 "let clients read the URLs of workers, in error texts and lists on --port; without it "
	 "these say the worker's name or role",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "no-worker-headers", &o.no_worker_headers, NULL,
	 "answer without X-Worker, X-Prefill-Worker and X-Decode-Worker", NULL, 0, 0, NULL},
	{OPT_INT, "remember-ids", &o.remember_ids, "N",
	 "ids that only one worker knows (responses, conversations, files) and that are remembered "
	 "with it; 0: none (65536)",
	 NULL, 0, 1 << 24, NULL},
	{OPT_TEXT, "pid-file", &o.pid_file, "FILE",
	 "holds the process id while the router runs, for kill -HUP and kill -USR1 (none)", NULL, 0,
	 0, NULL},
	SERVE_TRACE_OPTIONS,
	{OPT_FLAG, "version", &o.version, NULL, "print the version and exit", NULL, 0, 0, NULL},
	{OPT_FLAG, "list-metrics", &o.list_metrics, NULL,
	 "print every metric with its labels and what moves it, as Markdown, and exit", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "list-policies", &o.list_policies, NULL,
	 "print the name of each policy, one a line, and exit", NULL, 0, 0, NULL},
	{OPT_FLAG, "list-connectors", &o.list_connectors, NULL,
	 "print the name of each connector, one a line, and exit", NULL, 0, 0, NULL},
	{OPT_CHOICE, "io", &o.io, NULL,
	 "events: a fiber per request in flight, on event loops; threads: a kernel thread per "
	 "request in flight, to debug and trace (events)",
	 "events|threads", 0, 0, NULL},
	{OPT_INT, "threads", &o.threads, "N",
	 "event loops, at most 32, 0: one for each processor; with --io threads the most threads, "
	 "0: 4096 (0)",
	 NULL, 0, HTTP_THREADS_MAX, NULL},
	{OPT_FLAG, "batch-threads", &o.batch, NULL,
	 "SCHED_BATCH for these threads; --no-batch-threads turns it off (on)", NULL, 0, 0, NULL},
	{OPT_FLAG, "half-close", &o.half_close, NULL,
	 "a client that shuts down its sending side is still connected", NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = serve_vllm_rows},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "serve",
	.usage = "pdctl serve (--worker-urls URL... | --pd-disaggregation --prefill URL ... "
		 "--decode URL ...) [options]",
	.summary = "Route requests to LLM workers: a plain pool, or prefill and decode pools.",
	.about = "Option names and defaults are vllm-router's where it has the option; all of its "
		 "flags are accepted (docs/migration.md).\nOwn routes: "
		 "/health /liveness /readiness /health_generate\n"
		 "/metrics /v1/models /workers /list_workers /add_worker /remove_worker /get_loads "
		 "/flush_cache /get_server_info /get_model_info /reload;\n"
		 "everything else goes to a worker. Changes of the fleet go to the admin port "
		 "(`pdctl workers`).\n"
		 "Signals: TERM and INT drain (a second one ends at once), HUP reads the workers "
		 "file and the client keys again,\n"
		 "USR1 reopens the access log. Send them to one process, by --pid-file.\n"
		 "With LISTEN_FDS=1 (socket activation) the inherited socket is used, so a restart "
		 "refuses no connection.",
	.examples =
		"  two workers, sessions stay where they are:\n"
		"    pdctl serve --worker-urls http://10.0.0.1:8000 http://10.0.0.2:8000 "
		"--policy consistent_hash\n"
		"  prefill and decode pools; names keep sessions in place when ports change:\n"
		"    pdctl serve --pd-disaggregation --prefill p1=http://10.0.0.1:8000 "
		"--prefill p2=http://10.0.0.2:8000 \\\n"
		"                --decode d1=http://10.0.0.3:8000 --decode "
		"d2=http://10.0.0.4:8000\n"
		"  coming from vllm-router, sessions keep their workers:\n"
		"    pdctl serve --compat vllm-router --worker-urls ... --policy consistent_hash\n",
	.opts = options,
};

static int64_t ns(double seconds)
{
	return (int64_t)(seconds * 1e9);
}

static double seconds(int64_t duration)
{
	return (double)duration / 1e9;
}

static void defaults(const struct router_config *c)
{
	memset(&o, 0, sizeof(o));
	policy_opts_init(&policies, "");
	decider_opts_init(&decider);
	serve_vllm_defaults();
	serve_events_defaults();
	serve_tls_defaults();
	o.host = c->host;
	o.port = c->port;
	o.admin_host = c->metrics_host;
	o.admin_port = c->metrics_port;
	o.scrape_host = c->scrape_host;
	o.scrape_port = c->scrape_port;
	o.policy = route_policies[0]->name;
	o.compat = "none";
	o.key_compat = "none";
	o.keyless = "least_request";
	o.log_level = "info";
	o.log_requests = "on";
	o.log_format = "text";
	o.access_format = "text";
	o.forwarded = "pass";
	o.io = "events";
	o.health_endpoint = c->health_endpoint;
	o.dp = c->dp_size;
	o.max_body = (int64_t)c->max_body;
	o.max_concurrent = c->max_concurrent;
	o.queue_size = c->queue_size;
	o.pool_size = c->pool_size;
	o.retry_max = c->retry_max;
	o.remember_ids = (long)c->remember_ids;
	o.cb_failures = c->cb_failures;
	o.cb_successes = c->cb_successes;
	o.panic_threshold = c->panic_threshold;
	o.health_failures = c->health_failures;
	o.health_successes = c->health_successes;
	o.queue_timeout = seconds(c->queue_timeout);
	o.connect_timeout = seconds(c->connect_timeout);
	o.first_byte = seconds(c->first_byte_timeout);
	o.inter_token = seconds(c->inter_token_timeout);
	o.request_timeout = seconds(c->request_timeout);
	o.write_stall = seconds(c->write_stall_timeout);
	o.head_timeout = seconds(c->head_timeout);
	o.client_idle = seconds(c->client_idle_timeout);
	o.pool_idle = seconds(c->pool_idle_timeout);
	o.retry_initial_ms = 1e3 * seconds(c->retry_initial);
	o.retry_max_ms = 1e3 * seconds(c->retry_cap);
	o.retry_multiplier = c->retry_multiplier;
	o.retry_jitter = c->retry_jitter;
	o.retry_budget = c->retry_budget;
	o.cb_timeout = seconds(c->cb_timeout);
	o.health_timeout = seconds(c->health_timeout);
	o.health_interval = seconds(c->health_interval);
	o.startup = seconds(c->startup_timeout);
	o.lease = seconds(c->pd_lease);
	serve_discovery_defaults();
	o.drain_timeout = seconds(c->drain_timeout);
	o.drain_delay = seconds(c->drain_delay);
	serve_capture_defaults();
	serve_trace_defaults();
	o.batch = c->batch_threads;
	serve_keys_defaults(c);
}

/* --compat vllm-router: its defaults, each for an option that was not given. */
static void read_compat(struct router_config *c, int argc, char **argv)
{
	o.concurrent_given = opt_given(&command, argc, argv, "max-concurrent-requests");
	o.keyless_given = opt_given(&command, argc, argv, "keyless");
	o.policy_given = opt_given(&command, argc, argv, "policy");
	o.decider_given = opt_given(&command, argc, argv, "pd-decider");
	c->compat = strcmp(o.compat, "vllm-router") == 0;
	if (!c->compat)
		return;
	if (!o.policy_given)
		o.policy = "cache_aware";
	if (!opt_given(&command, argc, argv, "key-compat"))
		o.key_compat = "vllm-router";
	if (!opt_given(&command, argc, argv, "admin-on-data-port"))
		o.admin_on_data_port = true;
}

static void read_limits(struct router_config *c)
{
	c->host = o.host;
	c->port = (uint16_t)o.port;
	c->metrics_host = o.admin_host;
	c->metrics_port = (int)o.admin_port;
	c->admin_on_data_port = o.admin_on_data_port;
	c->admin_keys_file = o.admin_keys;
	c->scrape_host = o.scrape_host;
	c->scrape_port = (int)o.scrape_port;
	c->dp_size = (unsigned)o.dp;
	c->seed = (uint64_t)o.seed;
	c->max_body = (size_t)o.max_body;
	c->max_connections = (unsigned)o.max_connections;
	c->max_per_address = (unsigned)o.max_per_ip;
	c->max_concurrent = (unsigned)o.max_concurrent;
	c->queue_size = (unsigned)o.queue_size;
	c->worker_cap = (unsigned)o.worker_cap;
	c->pool_size = (unsigned)o.pool_size;
	c->retry_max = (unsigned)o.retry_max;
	c->retry_multiplier = o.retry_multiplier;
	c->retry_jitter = o.retry_jitter;
	c->retry_budget = o.retry_budget;
	c->retries_off = o.no_retries;
	c->expose_workers = o.expose_workers;
	c->worker_headers = !o.no_worker_headers;
	c->remember_ids = (size_t)o.remember_ids;
	c->cb_failures = (unsigned)o.cb_failures;
	c->cb_successes = (unsigned)o.cb_successes;
	c->cb_off = o.no_breaker;
	c->panic_threshold = (unsigned)o.panic_threshold;
	c->health_failures = (unsigned)o.health_failures;
	c->health_successes = (unsigned)o.health_successes;
	c->health_endpoint = o.health_endpoint;
	c->io_threads = strcmp(o.io, "threads") == 0;
	c->threads = (unsigned)o.threads;
	c->batch_threads = o.batch;
	c->half_close_ok = o.half_close;
	c->forwarded = o.forwarded[0] == 'p'   ? FORWARDED_PASS
		       : o.forwarded[0] == 'a' ? FORWARDED_APPEND
		       : o.forwarded[0] == 's' ? FORWARDED_SET
					       : FORWARDED_DROP;
	c->version = PDCTL_VERSION;
}

static void read_times(struct router_config *c)
{
	c->queue_timeout = ns(o.queue_timeout);
	c->connect_timeout = ns(o.connect_timeout);
	c->first_byte_timeout = ns(o.first_byte);
	c->inter_token_timeout = ns(o.inter_token);
	c->request_timeout = ns(o.request_timeout);
	c->write_stall_timeout = ns(o.write_stall);
	c->head_timeout = ns(o.head_timeout);
	c->client_idle_timeout = ns(o.client_idle);
	c->pool_idle_timeout = ns(o.pool_idle);
	c->retry_initial = ns(o.retry_initial_ms / 1e3);
	c->retry_cap = ns(o.retry_max_ms / 1e3);
	c->cb_timeout = ns(o.cb_timeout);
	c->health_timeout = ns(o.health_timeout);
	c->health_interval = ns(o.health_interval);
	c->startup_timeout = ns(o.startup);
	c->pd_lease = ns(o.lease);
	c->allow_ec_params = o.allow_ec;
	c->drain_delay = ns(o.drain_delay);
	c->drain_timeout = ns(o.drain_timeout);
}

/* The ring of --compat stays out of the flags' own settings: those are checked for being of use. */
static void read_settings(struct router_config *c)
{
	c->settings = policies.settings;
	for (size_t i = 0; c->compat && policies.rows[i].type; i++)
		if (strcmp(policies.rows[i].name, "ring-hash") == 0 && !c->settings.value[i])
			c->settings.value[i] = "fbi";
}

static int read_decider(struct router_config *c, struct pd_msg *msg)
{
	decider_opts_spec(&decider, &c->decider);
	serve_epp_decider(c, o.decider_given);
	return serve_decider_check(c, o.decider_given, msg);
}

static int read_policy(struct router_config *c, struct pd_msg *msg)
{
	const char *const names[ROLES] = {o.policy, o.prefill_policy ? o.prefill_policy : o.policy,
					  o.decode_policy ? o.decode_policy : o.policy};
	static const char *const flags[ROLES] = {"policy", "prefill-policy", "decode-policy"};
	struct pd_msg inner = {0};
	int err = policy_opts_check(&policies, msg);

	read_settings(c);
	serve_vllm_settings(c->compat, &c->settings);
	for (int r = 0; !err && r < ROLES; r++) {
		if (route_spec_parse(&c->fleet.policy[r], names[r], &c->settings, &inner))
			err = pd_fail(msg, PD_EINVAL, "--%s: %.480s", flags[r], inner.text);
	}
	err = err ? err : serve_choice_read(c, msg);
	err = err ? err : serve_epp_apply(c, msg);
	c->keyless = strcmp(o.keyless, "prefix") == 0 ? KEYLESS_PREFIX : KEYLESS_LEAST_REQUEST;
	err = err ? err : serve_connector(c, o.connector, o.fallback, msg);
	err = err ? err : read_decider(c, msg);
	err = err ? err : serve_discovery_read(c, msg);
	if (!err && o.session_key)
		err = route_keyspec_parse(&c->keys, o.session_key, msg);
	if (strcmp(o.key_compat, "vllm-router") == 0)
		c->keys.compat = ROUTE_COMPAT_VLLM_ROUTER;
	/* vllm-router takes the text of a request for its key; not where something else was asked
	 * for. */
	c->keys.fields_only = o.keyless_given || c->keyless == KEYLESS_PREFIX;
	return err;
}

/* --prefill URL [PORT|none]: the second word of an occurrence must be one of these. */
static int read_bootstrap(const char *word, struct router_config *c, size_t first,
			  struct pd_msg *msg)
{
	bool digits = word[0] && strspn(word, "0123456789") == strlen(word) && strlen(word) <= 5;
	long port = digits ? strtol(word, NULL, 10) : 0;

	if (strcmp(word, "none") == 0)
		return PD_OK;
	if (port > 0 && port <= 65535) {
		for (size_t i = first; i < c->fleet.workers.n; i++)
			c->fleet.workers.spec[i].bootstrap = (int)port;
		return PD_OK;
	}
	return pd_fail(msg, PD_EINVAL,
		       "--prefill: found '%s' after the URL, expected a port number or none", word);
}

static int add_list(struct router_config *c, enum worker_role role, const char *flag,
		    const struct opt_list *l, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	size_t first = 0; /* of the workers that the last URL added */
	int err = PD_OK;

	for (size_t i = 0; !err && i < l->n; i++) {
		if (role == ROLE_PREFILL && i > 0 && l->occurrence[i] == l->occurrence[i - 1])
			err = read_bootstrap(l->items[i], c, first, msg);
		else if ((first = c->fleet.workers.n,
			  worker_list_add(&c->fleet.workers, role, l->items[i], c->dp_size,
					  &inner) ||
				  worker_list_check(&c->fleet.workers, first, &inner)))
			err = pd_fail(msg, PD_EINVAL, "--%s: %.480s", flag, inner.text);
	}
	return err;
}

static int read_workers(struct router_config *c, struct pd_msg *msg)
{
	int err;

	c->workers_file = o.workers_file;
	if (c->pd && o.workers.n > 0)
		return pd_fail(msg, PD_EINVAL,
			       "--worker-urls and --prefill/--decode cannot be combined");
	if (o.workers_file && (o.workers.n > 0 || o.prefill.n > 0 || o.decode.n > 0))
		return pd_fail(msg, PD_EINVAL,
			       "--workers-file replaces --worker-urls, --prefill and --decode");
	if (o.workers_file) {
		struct fleet_config fc;

		err = fleet_config_read(o.workers_file, c, &fc, msg);
		if (err)
			return err;
		c->fleet = fc;
		return PD_OK;
	}
	err = add_list(c, ROLE_REGULAR, "worker-urls", &o.workers, msg);
	if (err)
		return err;
	err = add_list(c, ROLE_PREFILL, "prefill", &o.prefill, msg);
	if (err)
		return err;
	err = add_list(c, ROLE_DECODE, "decode", &o.decode, msg);
	if (err)
		return err;
	return PD_OK;
}

/* LISTEN_PID and LISTEN_FDS as systemd sets them. */
static int inherited_socket(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	char mine[24];

	(void)snprintf(mine, sizeof(mine), "%ld", (long)getpid());
	return pid && fds && strcmp(pid, mine) == 0 && fds[0] >= '1' && fds[0] <= '9' ? LISTEN_FD
										      : -1;
}

static int open_access_log(struct router_config *c, struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	c->access_json = strcmp(o.access_format, "json") == 0;
	if (!o.access_log || log_open(&c->access_log, o.access_log, &inner) == PD_OK)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL, "--access-log: %.480s", inner.text);
}

static int read_config(struct router_config *c, struct pd_msg *msg)
{
	enum log_level level;
	int err;

	c->pd = o.pd || o.prefill.n > 0 || o.decode.n > 0 || serve_discovery_is_pd();
	read_limits(c);
	read_times(c);
	if (o.id_headers.n > 0) {
		c->request_id_headers = o.id_headers.items;
		c->request_id_headers_n = o.id_headers.n;
	}
	if (o.health_endpoint[0] != '/' || strlen(o.health_endpoint) > 300)
		return pd_fail(
			msg, PD_EINVAL,
			"--health-check-endpoint: found '%.100s', expected a path that begins "
			"with / (at most 300 characters)",
			o.health_endpoint);
	if (!c->io_threads && c->threads > HTTP_LOOPS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "--threads: found %u, expected 0 to %d event loops (more: --io "
			       "threads)",
			       c->threads, HTTP_LOOPS_MAX);
	c->cors_origins = o.cors.items;
	c->cors_origins_n = o.cors.n;
	err = cors_check(c->cors_origins, c->cors_origins_n, msg);
	if (err)
		return err;
	err = serve_keys_read(c, msg);
	if (err)
		return err;
	err = serve_epp_read(c, &o.policy, o.policy_given, msg);
	err = err ? err : serve_events_read(c, msg);
	err = err ? err : read_policy(c, msg);
	if (err)
		return err;
	err = read_workers(c, msg);
	if (err)
		return err;
	err = serve_vllm_check(msg);
	if (err)
		return err;
	err = serve_tls_open(c, msg);
	if (err)
		return err;
	c->listen_fd = inherited_socket();
	if (log_level_parse(o.log_level, &level))
		return pd_fail(msg, PD_EINVAL, "--log-level: found '%s'", o.log_level);
	c->log_requests = strcmp(o.log_requests, "on") == 0;
	c->log = log_new(STDERR_FILENO, level, strcmp(o.log_format, "json") == 0);
	return c->log ? open_access_log(c, msg)
		      : pd_fail(msg, PD_ENOMEM, "cannot start the log thread");
}

static void announce(const struct router *rt, const struct router_config *c)
{
	size_t from = c->pd ? ROLE_PREFILL : ROLE_REGULAR, used = c->pd ? 2 : 1;
	const char *useless = policy_opts_useless(&policies, c->fleet.policy + from, used);
	char line[512];
	bool v6 = strchr(c->host, ':') != NULL;
	int n = snprintf(line, sizeof(line), "pdctl serve listening on %s://%s%s%s:%u\n",
			 c->tls ? "https" : "http", v6 ? "[" : "", c->host, v6 ? "]" : "",
			 router_port(rt));

	cli_print(line, (size_t)n);
	(void)fflush(stdout);
	if (useless)
		log_event(c->log, LOG_WARN, "flag_without_effect",
			  LOG_FIELDS(LOG_TEXT("flag", useless),
				     LOG_TEXT("reason", "no policy in use has this parameter")),
			  "--%s has no effect: no policy in use has this parameter", useless);
	if (o.connector && !c->pd)
		log_event(c->log, LOG_WARN, "flag_without_effect",
			  LOG_FIELDS(LOG_TEXT("flag", "kv-connector"),
				     LOG_TEXT("reason", "no --prefill and --decode")),
			  "--kv-connector has no effect without --prefill and --decode");
	serve_vllm_announce(c->log);
	serve_epp_announce(c);
	serve_trace_warn(c->log);
	serve_discovery_announce(c);
	serve_warn(c, o.concurrent_given);
	serve_tell(c, rt);
}

static int list(int (*print)(struct buf *out))
{
	struct buf b;
	int err;

	buf_init(&b, 1u << 20);
	err = print(&b);
	if (!err)
		cli_print(b.data, b.len);
	buf_release(&b);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

int cmd_serve(int argc, char **argv)
{
	struct router_config c;
	struct capture *capture = NULL;
	struct pd_msg msg = {0};
	bool ended = true;
	sigset_t set;
	int code;

	router_config_default(&c);
	defaults(&c);
	/* The tables of policies and connectors in docs/ come from here, as --help-markdown does.
	 */
	if (argc == 2 && strcmp(argv[1], "--policies-markdown") == 0)
		code = list(route_policies_markdown);
	else if (argc == 2 && strcmp(argv[1], "--connectors-markdown") == 0)
		code = list(pd_connectors_markdown);
	else if (argc == 2 && strcmp(argv[1], "--vllm-router-markdown") == 0)
		code = list(serve_vllm_markdown);
	else
		code = cli_parse(&command, argc, argv, NULL);
	if (code < 0 && o.version) {
		cli_print("pdctl " PDCTL_VERSION "\n", sizeof("pdctl " PDCTL_VERSION "\n") - 1);
		code = EXIT_OK;
	} else if (code < 0 && o.list_metrics) {
		code = list(metrics_markdown);
	} else if (code < 0 && o.list_policies) {
		code = list(route_policies_print);
	} else if (code < 0 && o.list_connectors) {
		code = list(pd_connectors_print);
	} else if (code < 0) {
		/* Before the first thread, the log's: one that did not block them would take a
		 * signal that arrives outside sigwait, and end the process. */
		serve_block_signals(&set);
		read_compat(&c, argc, argv);
		code = read_config(&c, &msg) || serve_trace_apply(&c, &msg) ||
				       serve_capture_open(&capture, &command, argc, argv, &msg)
			       ? cli_usage_error(&command, &msg)
			       : serve_run(&command, &c, capture, &set, o.pid_file, announce,
					   &ended);
	}
	if (!ended) {
		log_stop(c.access_log);
		log_stop(c.log);
		return code;
	}
	log_free(c.access_log);
	log_free(c.log);
	serve_epp_release(&c);
	serve_discovery_release(&c);
	serve_events_release();
	worker_list_release(&c.fleet.workers);
	serve_tls_close(&c);
	opt_list_release(&o.workers);
	opt_list_release(&o.prefill);
	opt_list_release(&o.decode);
	opt_list_release(&o.id_headers);
	opt_list_release(&o.cors);
	serve_vllm_release();
	serve_keys_release();
	serve_choice_release();
	return code;
}
