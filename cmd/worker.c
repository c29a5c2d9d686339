/* pdctl worker: a simulated vLLM engine. Options, wiring, signals; the engine itself is sim/. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/profile_opts.h"
#include "cmd/worker_join.h"
#include "cmd/worker_vllm.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/pd/connector.h"
#include "sim/worker/played.h"
#include "sim/worker/worker.h"

static struct worker_config cfg;
static struct opt_list models, served, adapters, words;
static struct worker_vllm_config vllm;
static int64_t port, kv_port, bootstrap_port, tp_size, dp_size, block_size, num_blocks,
	max_num_seqs, batched, max_model_len, seed, max_connections;
static const char *role, *log_level, *log_format, *io;
static const char *connector, *transfer_mode, *transfer_config, *events_config, *shared_path;
static bool prefix_caching, vllm_markdown;
static const char *profile_path;
static double drain_timeout_s, slow_accept_ms, prefill_rate;
static const char *tls_cert, *tls_key, *tls_client_ca, *kv_ca;

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "where"},
	{OPT_TEXT, "host", &cfg.host, "ADDR", "address to listen on (default: 127.0.0.1)", NULL, 0,
	 0, NULL},
	{OPT_INT, "port", &port, "N", "port; 0 takes a free one and prints it (default: 8000)",
	 NULL, 0, 65535, NULL},
	{OPT_TEXT, "kv-host", &cfg.kv_host, "ADDR",
	 "where others reach this worker: remote_host in kv_transfer_params, registrations "
	 "(default: --host)",
	 NULL, 0, 0, "advertise-host"},
	{OPT_INT, "max-connections", &max_connections, "N",
	 "simultaneous client connections; 0: what the descriptor limit allows (default: 0)", NULL,
	 0, 1e6, NULL},
	{OPT_CHOICE, "io", &io, NULL,
	 "events: a fiber per request in flight, on event loops; threads: a kernel thread per "
	 "request in flight (default: events)",
	 "events|threads", 0, 0, NULL},
	{OPT_TEXT, "api-key", &cfg.api_key, "KEY",
	 "require this bearer token on /v1 (default: none)", NULL, 0, 0, NULL},
	{OPT_TEXT, "tls-cert", &tls_cert, "FILE",
	 "serve HTTPS with this certificate chain, PEM (default: plain HTTP)", NULL, 0, 0,
	 "ssl-certfile"},
	{OPT_TEXT, "tls-key", &tls_key, "FILE",
	 "private key of --tls-cert (default: in the same file)", NULL, 0, 0, "ssl-keyfile"},
	{OPT_TEXT, "tls-client-ca", &tls_client_ca, "FILE",
	 "require client certificates that these CAs signed (default: not required)", NULL, 0, 0,
	 "ssl-ca-certs"},
	{OPT_TEXT, "kv-ca", &kv_ca, "FILE",
	 "with --tls-cert KV blocks are read over HTTPS; CAs that verify the other workers "
	 "(default: the system's)",
	 NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "model and engine"},
	{OPT_LIST, "model", &models, "NAME",
	 "served model names; responses carry the first (default: pdctl-sim)", NULL, 0, 0, NULL},
	{OPT_LIST, "served-model-name", &served, "NAME", "as --model, and instead of it", NULL, 0,
	 0, NULL},
	{OPT_LIST, "lora-modules", &adapters, "NAME[=PATH]",
	 "LoRA adapters, served as models whose parent is the first one", NULL, 0, 0, NULL},
	{OPT_CHOICE, "role", &role, "ROLE",
	 "both, prefill or decode: the P/D requests it accepts (default: both)",
	 "both|prefill|decode", 0, 0, "disaggregation-mode"},
	{OPT_INT, "tensor-parallel-size", &tp_size, "N",
	 "in hand-overs and registrations; a --profile has its times (default: 1)", NULL, 1, 1024,
	 NULL},
	{OPT_INT, "data-parallel-size", &dp_size, "N",
	 "engines behind the port: X-data-parallel-rank names one, else the least loaded "
	 "(default: 1)",
	 NULL, 1, WORKER_RANKS_MAX, NULL},
	{OPT_INT, "max-model-len", &max_model_len, "N",
	 "tokens of prompt and answer (default: 131072)", NULL, 2, 1e8, NULL},
	{OPT_INT, "block-size", &block_size, "N", "tokens per KV block (default: 16)", NULL, 1,
	 65536, NULL},
	{OPT_INT, "num-gpu-blocks", &num_blocks, "N",
	 "KV blocks that requests and prefix cache share; 0: unlimited (default: 16384)", NULL, 0,
	 1e9, "num-gpu-blocks-override"},
	{OPT_INT, "max-num-seqs", &max_num_seqs, "N",
	 "sequences in a batch; the others are queued (default: 256)", NULL, 1, SCHED_SEATS_MAX,
	 NULL},
	{OPT_INT, "max-num-batched-tokens", &batched, "N", "tokens in a step (default: 8192)", NULL,
	 1, SCHED_BUDGET_MAX, NULL},
	{OPT_FLAG, "enable-prefix-caching", &prefix_caching, NULL,
	 "keep blocks for later requests; --no-enable-prefix-caching: not (default: on)", NULL, 0,
	 0, NULL},
	{OPT_FLAG, "no-async-scheduling", &cfg.engine.synchronous, NULL,
	 "schedule a step when the one before has ended (default: while it runs)", NULL, 0, 0,
	 NULL},
	{.type = OPT_HEADING, .help = "time of a step"},
	{OPT_TEXT, "profile", &profile_path, "FILE.yaml",
	 "a measured engine, as `pdctl simulate --calibrate` writes it: times of a step and "
	 "limits; "
	 "options override it (default: data sheet of Llama-3.1-8B on one H100)",
	 NULL, 0, 0, NULL},
	{OPT_REAL, "prefill-tokens-per-s", &prefill_rate, "R",
	 "prompt tokens computed per second; 0: they take no time (default: 45455)", NULL, 0, 1e12,
	 NULL},
	{OPT_REAL, "decode-ms-per-token", &cfg.engine.step_ms, "MS",
	 "fixed time of one step of a batch (default: 7)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "decode-us-per-request", &cfg.engine.request_us, "US",
	 "added to a step per decoding request (default: 0)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "decode-us-per-context-token", &cfg.engine.context_us, "US",
	 "added to a step per token of context (default: 0.056)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "transfer-ms", &cfg.transfer_ms, "MS",
	 "P/D: fixed time of fetching a prompt's blocks (default: 1)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "transfer-us-per-token", &cfg.transfer_us_token, "US",
	 "P/D: per token that is fetched (default: 5.24, 128 KiB at 25 GB/s)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "speedup", &cfg.speedup, "X", "divides all these times (default: 1)", NULL, 1e-6,
	 1e6, NULL},
	{.type = OPT_HEADING, .help = "prefill/decode protocol"},
	{OPT_TEXT, "kv-connector", &connector, "NAME",
	 "the connector that it plays, a name of pdctl serve --list-connectors or of vLLM's class "
	 "(default: nixl)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "kv-transfer-mode", &transfer_mode, "MODE",
	 "nixl: pull or push; moriio: read or write (default: pull, write)", "pull|push|read|write",
	 0, 0, NULL},
	{OPT_TEXT, "kv-transfer-config", &transfer_config, "JSON",
	 "as vLLM has it: kv_connector, kv_role, kv_port, kv_connector_extra_config", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "kv-events-config", &events_config, "JSON",
	 "publish KV events by ZeroMQ as vLLM does: enable_kv_cache_events, publisher, endpoint, "
	 "replay_endpoint, topic, buffer_steps, hwm",
	 NULL, 0, 0, NULL},
	{OPT_INT, "kv-port", &kv_port, "N",
	 "port of the KV transfer (default: that of the API, or kv_port)", NULL, 0, 65535, NULL},
	{OPT_INT, "bootstrap-port", &bootstrap_port, "N",
	 "mooncake, sglang: port of the bootstrap server; 0 takes a free one (default: 8998, or "
	 "VLLM_MOONCAKE_BOOTSTRAP_PORT)",
	 NULL, 0, 65535, "disaggregation-bootstrap-port"},
	{OPT_TEXT, "shared-storage-path", &shared_path, "DIR",
	 "lmcache, example: the directory that both workers use (default: /tmp/pdctl-kv)", NULL, 0,
	 0, NULL},
	{OPT_FLAG, "strict", &cfg.strict, NULL,
	 "answer protocol mistakes with 400 (default: count them and continue)", NULL, 0, 0, NULL},
	{OPT_REAL, "kv-lease-s", &cfg.kv_lease_s, "S",
	 "how long prefilled blocks are kept for the decode worker (default: 30)", NULL, 0.001,
	 86400, NULL},
	{.type = OPT_HEADING, .help = "registration"},
	{.type = OPT_ROWS, .value = (void *)(uintptr_t)worker_join_rows},
	{.type = OPT_HEADING, .help = "faults (also at run time: POST /pdctl/faults)"},
	{OPT_REAL, "fail-rate", &cfg.faults.fail_rate, "P",
	 "share of requests that fail, 0 to 1 (default: 0)", NULL, 0, 1, NULL},
	{OPT_INT, "fail-first", &cfg.faults.fail_first, "N",
	 "the first N requests fail (default: 0)", NULL, 0, 1e15, NULL},
	{OPT_INT, "fail-status", &cfg.faults.fail_status, "CODE",
	 "status of failures (default: 500)", NULL, 400, 599, NULL},
	{OPT_REAL, "fail-retry-after", &cfg.faults.fail_retry_after_s, "S",
	 "Retry-After of failures (default: none)", NULL, -1, 86400, NULL},
	{OPT_INT, "crash-after", &cfg.faults.crash_after, "N",
	 "the process is killed when request N + 1 arrives (default: never)", NULL, -1, 1e15, NULL},
	{OPT_INT, "stall-mid-stream", &cfg.faults.stall_after, "N",
	 "send nothing after N tokens (default: never)", NULL, -1, 1e15, NULL},
	{OPT_REAL, "stall-s", &cfg.faults.stall_s, "S",
	 "duration of a stall; 0: until the client disconnects (default: 0)", NULL, 0, 86400, NULL},
	{OPT_INT, "close-mid-stream", &cfg.faults.close_after, "N",
	 "close the connection after N tokens (default: never)", NULL, -1, 1e15, NULL},
	{OPT_REAL, "delay-s", &cfg.faults.delay_s, "S",
	 "delay every request by S seconds (default: 0)", NULL, 0, 86400, NULL},
	{OPT_REAL, "slow-accept-ms", &slow_accept_ms, "MS", "delay before each accept (default: 0)",
	 NULL, 0, 1e6, NULL},
	{OPT_FLAG, "unhealthy", &cfg.faults.unhealthy, NULL, "/health answers 503", NULL, 0, 0,
	 NULL},
	{OPT_INT, "seed", &seed, "N", "random seed of the failures (default: 1)", NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "process"},
	{OPT_CHOICE, "log-level", &log_level, "LEVEL",
	 "debug, info, warn, error or off (default: info)",
	 "debug|info|warn|warning|error|critical|off", 0, 0, NULL},
	{OPT_CHOICE, "log-format", &log_format, "FORM", "text or json (default: text)", "text|json",
	 0, 0, NULL},
	{OPT_REAL, "drain-timeout", &drain_timeout_s, "S",
	 "time after SIGTERM for requests in flight to finish (default: 5)", NULL, 0, 86400, NULL},
	{OPT_FLAG, "vllm-serve-markdown", &vllm_markdown, NULL, NULL, NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = worker_vllm_rows},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "worker",
	.usage = "pdctl worker [options], or pdctl worker serve MODEL [options]",
	.summary = "a simulated vLLM engine: OpenAI API, prefix cache, P/D hand-over, faults on "
		   "request",
	.about = "Serves what a router needs from a vLLM server, without a GPU: chat, completions, "
		 "embeddings (streamed\n"
		 "or not), models, health, load and vLLM's metrics. The text is a function of the "
		 "prompt alone, so a routed\n"
		 "answer can be compared with a direct one. The prefix cache, the queue and the "
		 "clock of an engine are\n"
		 "modelled; P/D requests are checked strictly and every mistake is counted in\n"
		 "pdctl_worker_protocol_mistakes_total. GET /pdctl/requests shows what arrived. "
		 "Command lines of vllm serve\n"
		 "are understood: flags that mean nothing here are named once at the start.",
	.examples = "  $ pdctl worker --port 8100 --role prefill --strict\n"
		    "  $ pdctl worker --port 8200 --role decode --strict\n"
		    "      a prefill and a decode worker; a router between them must keep to the "
		    "protocol\n"
		    "  $ pdctl worker serve llama --port 8100 --block-size 128 "
		    "--kv-transfer-config "
		    "'{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\"}'\n"
		    "      as vllm serve\n"
		    "  $ pdctl worker --role prefill --register 127.0.0.1:30001\n"
		    "      a router with --vllm-discovery-address 127.0.0.1:30001 uses it\n"
		    "  $ pdctl worker --port 0 --model llama --prefill-tokens-per-s 8000 "
		    "--decode-ms-per-token 25\n"
		    "      prints: pdctl worker listening on http://127.0.0.1:PORT\n"
		    "  $ pdctl worker --fail-rate 0.3 --fail-status 503 --fail-retry-after 1\n"
		    "      three of ten requests fail",
	.opts = opts,
};

/* Options stand over the profile: it fills in what none of them says. */
static int read_profile(int argc, char **argv, struct pd_msg *msg)
{
	struct engine_params e = cfg.engine;
	struct profile p;
	int err;

	if (!profile_path)
		return PD_OK;
	err = profile_opts_read(&command, argc, argv, profile_path, &p, &e, msg);
	if (err)
		return err;
	if (!opt_given(&command, argc, argv, "prefill-tokens-per-s"))
		prefill_rate = e.prefill_us > 0 ? 1e6 / e.prefill_us : 0;
	if (!opt_given(&command, argc, argv, "max-num-seqs"))
		max_num_seqs = e.max_num_seqs;
	if (!opt_given(&command, argc, argv, "max-num-batched-tokens"))
		batched = e.max_batched_tokens;
	if (p.block_size && !opt_given(&command, argc, argv, "block-size"))
		block_size = p.block_size;
	if (p.num_blocks && !opt_given(&command, argc, argv, "num-gpu-blocks"))
		num_blocks = p.num_blocks - 1; /* without the null block */
	cfg.engine = e;
	return PD_OK;
}

static void crash(void)
{
	_exit(EXIT_RUNTIME);
}

static void set_defaults(void)
{
	worker_config_default(&cfg);
	port = 8000;
	block_size = cfg.block_size;
	num_blocks = cfg.num_blocks;
	batched = cfg.engine.max_batched_tokens;
	prefill_rate = 1e6 / cfg.engine.prefill_us;
	max_num_seqs = cfg.engine.max_num_seqs;
	max_model_len = (int64_t)cfg.max_model_len;
	seed = (int64_t)cfg.seed;
	tp_size = dp_size = 1;
	kv_port = bootstrap_port = -1;
	connector = transfer_mode = transfer_config = events_config = NULL;
	shared_path = NULL;
	prefix_caching = true;
	vllm_markdown = false;
	worker_vllm_defaults();
	worker_join_defaults();
	max_connections = 0;
	drain_timeout_s = 5;
	slow_accept_ms = 0;
	role = "both";
	io = "events";
	log_level = "info";
	log_format = "text";
}

#define NAMES_MAX 256

static char adapter_names[NAMES_MAX][128];
static const char *names[NAMES_MAX];

/* The models, then the adapters; a name ends before '='. */
static int apply_models(struct pd_msg *msg)
{
	const struct opt_list *l = served.n ? &served : models.n ? &models : &words;

	if (words.n > 1)
		return pd_fail(msg, PD_EINVAL, "unexpected argument '%.100s'", words.items[1]);
	if (words.n && models.n)
		return pd_fail(msg, PD_EINVAL, "found the model '%.100s' and --model, expected one",
			       words.items[0]);
	if (l->n + adapters.n > NAMES_MAX)
		return pd_fail(msg, PD_EINVAL, "--model: found %zu names, expected at most %d",
			       l->n + adapters.n, NAMES_MAX);
	cfg.nmodels = 0;
	for (size_t i = 0; i < l->n; i++)
		names[cfg.nmodels++] = l->items[i];
	if (l->n == 0)
		names[cfg.nmodels++] = "pdctl-sim";
	for (size_t i = 0; i < adapters.n; i++) {
		size_t n = strcspn(adapters.items[i], "=");

		if (n == 0 || n >= sizeof(adapter_names[0]))
			return pd_fail(msg, PD_EINVAL,
				       "--lora-modules: found '%.100s', expected NAME=PATH",
				       adapters.items[i]);
		(void)snprintf(adapter_names[i], sizeof(adapter_names[0]), "%.*s", (int)n,
			       adapters.items[i]);
		names[cfg.nmodels++] = adapter_names[i];
	}
	cfg.models = names;
	cfg.nadapters = adapters.n;
	return PD_OK;
}

static int apply_role(int argc, char **argv, struct pd_msg *msg)
{
	const char *as = !vllm.role				 ? role
			 : strcmp(vllm.role, "kv_producer") == 0 ? "prefill"
			 : strcmp(vllm.role, "kv_consumer") == 0 ? "decode"
								 : "both";

	/* kv_both says nothing that a --role could contradict. */
	if (opt_given(&command, argc, argv, "role")) {
		if (strcmp(as, "both") != 0 && strcmp(as, role) != 0)
			return pd_fail(msg, PD_EINVAL,
				       "--kv-transfer-config: found kv_role %s with --role %s",
				       vllm.role, role);
		as = role;
	}
	cfg.role = strcmp(as, "prefill") == 0  ? WORKER_PREFILL
		   : strcmp(as, "decode") == 0 ? WORKER_DECODE
					       : WORKER_BOTH;
	return PD_OK;
}

static int apply_mode(struct pd_msg *msg)
{
	bool nixl = strcmp(cfg.connector->name, "nixl") == 0,
	     moriio = strcmp(cfg.connector->name, "moriio") == 0;
	bool of_nixl = transfer_mode && transfer_mode[0] == 'p';

	if (transfer_mode && (of_nixl ? !nixl : !moriio))
		return pd_fail(msg, PD_EINVAL, "--kv-transfer-mode %s: the connector is %s",
			       transfer_mode, cfg.connector->name);
	cfg.kv_push = transfer_mode ? strcmp(transfer_mode, "push") == 0 : nixl && vllm.push;
	cfg.kv_writes = moriio &&
			(transfer_mode ? strcmp(transfer_mode, "write") == 0 : vllm.read_mode != 1);
	return PD_OK;
}

/* Ports that connectors need, and where they meet. */
static int apply_ports(struct pd_msg *msg)
{
	const char *env = getenv("VLLM_MOONCAKE_BOOTSTRAP_PORT");
	bool mooncake = strcmp(cfg.connector->name, "mooncake") == 0;
	char *end = NULL;
	long n = mooncake && env && *env ? strtol(env, &end, 10) : 8998;

	if (end && (*end || n < 1 || n > UINT16_MAX))
		return pd_fail(msg, PD_EINVAL,
			       "VLLM_MOONCAKE_BOOTSTRAP_PORT: found '%.40s', expected a port", env);
	if (bootstrap_port >= 0 && !(cfg.connector->flags & PLAYED_BOOTSTRAP))
		return pd_fail(msg, PD_EINVAL,
			       "--bootstrap-port: the connector %s has no bootstrap server",
			       cfg.connector->name);
	cfg.bootstrap = (cfg.connector->flags & PLAYED_BOOTSTRAP) && cfg.role != WORKER_DECODE;
	cfg.bootstrap_port = (uint16_t)(bootstrap_port >= 0 ? bootstrap_port : n);
	if (kv_port >= 0)
		cfg.kv_port = (uint16_t)kv_port;
	else if (vllm.handshake_port)
		cfg.kv_port = (uint16_t)vllm.handshake_port;
	else
		cfg.kv_port = (uint16_t)vllm.kv_port;
	return PD_OK;
}

static int apply_connector(int argc, char **argv, struct pd_msg *msg)
{
	const struct pd_connector *c = pd_connectors[0];
	const char *flag = connector ? "--kv-connector" : "--kv-transfer-config";
	const char *name = connector ? connector : vllm.connector;
	struct pd_msg why = {0};
	int err = apply_role(argc, argv, msg);

	if (err)
		return err;
	if (name && pd_connector_find(&c, name, &why))
		return pd_fail(msg, PD_EINVAL, "%s: %.400s", flag, why.text);
	cfg.connector = played_find(c->name);
	if (!cfg.connector)
		return pd_fail(msg, PD_EINVAL, "%s: %s is not simulated", flag, c->name);
	if ((cfg.connector->flags & PLAYED_ROLE) && cfg.role == WORKER_BOTH)
		return pd_fail(msg, PD_EINVAL, "%s %s requires --role prefill or decode", flag,
			       c->name);
	if (shared_path && !(cfg.connector->flags & PLAYED_SHARED))
		return pd_fail(msg, PD_EINVAL, "--shared-storage-path: the connector %s has none",
			       c->name);
	cfg.shared_path = shared_path	     ? shared_path
			  : vllm.shared_path ? vllm.shared_path
					     : "/tmp/pdctl-kv";
	err = apply_mode(msg);
	return err ? err : apply_ports(msg);
}

static int apply(int argc, char **argv, struct pd_msg *msg)
{
	int err = apply_models(msg);

	err = err ? err : worker_vllm_config(transfer_config, events_config, &vllm, msg);
	err = err ? err : apply_connector(argc, argv, msg);
	if (err)
		return err;
	cfg.port = (uint16_t)port;
	cfg.tp_size = (uint32_t)tp_size;
	cfg.dp_size = (uint32_t)dp_size;
	cfg.no_prefix_cache = !prefix_caching;
	cfg.events_endpoint = !vllm.events ? NULL : vllm.endpoint ? vllm.endpoint : "tcp://*:5557";
	cfg.events_replay = vllm.replay_endpoint;
	cfg.events_topic = vllm.topic;
	cfg.events_kept = (size_t)vllm.buffer_steps;
	cfg.events_hwm = (int)vllm.hwm;
	if (vllm.events && !prefix_caching)
		return pd_fail(msg, PD_EINVAL,
			       "--kv-events-config: there are no events without a prefix cache");
	cfg.block_size = (uint32_t)block_size;
	cfg.num_blocks = (uint32_t)num_blocks;
	cfg.engine.max_num_seqs = (uint32_t)max_num_seqs;
	cfg.engine.max_batched_tokens = (uint32_t)batched;
	cfg.engine.prefill_us = prefill_rate > 0 ? 1e6 / prefill_rate : 0;
	cfg.max_model_len = (size_t)max_model_len;
	cfg.io_threads = strcmp(io, "threads") == 0;
	cfg.max_connections = (unsigned)max_connections;
	cfg.seed = (uint64_t)seed;
	cfg.slow_accept_ns = llround(slow_accept_ms * (double)NS_PER_MS);
	cfg.crash = crash;
	return worker_join_check(&cfg, &vllm, msg);
}

static int open_tls(struct pd_msg *msg)
{
	static struct tls_pair pair;
	struct tls_config server = {.server = true, .pairs = &pair, .npairs = 1};
	struct tls_config client = {.pairs = &pair, .npairs = 1, .ca = kv_ca};
	struct pd_msg inner = {0};

	if (!tls_cert && (tls_key || tls_client_ca || kv_ca))
		return pd_fail(msg, PD_EINVAL, "%s requires --tls-cert FILE",
			       tls_key	       ? "--tls-key"
			       : tls_client_ca ? "--tls-client-ca"
					       : "--kv-ca");
	if (!tls_cert)
		return PD_OK;
	pair = (struct tls_pair){tls_cert, tls_key};
	server.ca = tls_client_ca;
	server.verify = tls_client_ca ? TLS_VERIFY_REQUIRED : TLS_VERIFY_NONE;
	if (tls_context_new(&cfg.tls, &server, &inner))
		return pd_fail(msg, PD_EINVAL, "--tls-cert: %.480s", inner.text);
	if (tls_context_new(&cfg.kv_tls, &client, &inner))
		return pd_fail(msg, PD_EINVAL, "--kv-ca: %.480s", inner.text);
	return PD_OK;
}

static void announce(struct worker *w)
{
	char line[400];
	bool v6 = strchr(cfg.host, ':') != NULL;
	int n = snprintf(line, sizeof(line), "pdctl worker listening on %s://%s%s%s:%u\n",
			 cfg.tls ? "https" : "http", v6 ? "[" : "", cfg.host, v6 ? "]" : "",
			 worker_port(w));

	cli_print(line, n > 0 && (size_t)n < sizeof(line) ? (size_t)n : 0);
	(void)fflush(stdout);
}

/* Serves until SIGTERM or SIGINT; a second signal ends the process immediately. */
static int serve(const sigset_t *stop)
{
	struct pd_msg msg = {0};
	struct worker *w;
	unsigned cut;
	int sig = 0;

	if (worker_start(&w, &cfg, &msg) != PD_OK)
		return cli_runtime_error(&command, &msg);
	worker_vllm_announce(cfg.log);
	if (worker_join_start(w, &cfg, &vllm, &msg) != PD_OK) {
		worker_drain(w);
		(void)worker_stop(w, clock_now());
		return cli_runtime_error(&command, &msg);
	}
	announce(w);
	(void)sigwait(stop, &sig);
	worker_join_stop();
	log_event(cfg.log, LOG_INFO, "drain_begins",
		  LOG_FIELDS(LOG_NUMBER("signal", sig), LOG_REAL("limit_s", drain_timeout_s)),
		  "signal %d: draining", sig);
	(void)pthread_sigmask(SIG_UNBLOCK, stop, NULL);
	worker_drain(w);
	cut = worker_stop(w, clock_now() + (int64_t)(drain_timeout_s * (double)NS_PER_S));
	if (cut > 0)
		log_event(cfg.log, LOG_WARN, "stopped", LOG_FIELDS(LOG_NUMBER("cut", cut)),
			  "%u connections closed at the end of --drain-timeout", cut);
	return EXIT_OK;
}

static int list(int (*print)(struct buf *))
{
	struct buf out;
	int err;

	buf_init(&out, 1 << 20);
	err = print(&out);
	if (!err)
		cli_print(out.data, out.len);
	buf_release(&out);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

/* What the words ask for, checked; -1 to go on, else the exit code. */
static int configure(int argc, char **argv)
{
	struct pd_msg msg = {0};
	int code;

	set_defaults();
	code = cli_parse(&command, argc, argv, &words);
	if (code >= 0)
		return code;
	if (vllm_markdown)
		return list(worker_vllm_markdown);
	if (read_profile(argc, argv, &msg) || apply(argc, argv, &msg))
		return cli_usage_error(&command, &msg);
	return -1;
}

static int run(void)
{
	enum log_level level = LOG_INFO;
	struct pd_msg msg = {0};
	sigset_t stop;
	int code;

	(void)!log_level_parse(log_level, &level); /* OPT_CHOICE let only known levels through */
	(void)sigemptyset(&stop);
	(void)sigaddset(&stop, SIGTERM);
	(void)sigaddset(&stop, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &stop, NULL);
	if (open_tls(&msg))
		return cli_usage_error(&command, &msg);
	cfg.log = log_new(STDERR_FILENO, level, strcmp(log_format, "json") == 0);
	code = serve(&stop);
	log_free(cfg.log);
	return code;
}

int cmd_worker(int argc, char **argv)
{
	char **word = NULL, *texts = NULL;
	struct pd_msg msg = {0};
	int n = 0, code;

	if (worker_vllm_words(argc, argv, &n, &word, &texts)) {
		(void)pd_fail(&msg, PD_ENOMEM, "out of memory");
		code = cli_runtime_error(&command, &msg);
	} else {
		code = configure(n, word);
		code = code < 0 ? run() : code;
	}
	tls_context_free(cfg.tls);
	tls_context_free(cfg.kv_tls);
	opt_list_release(&models);
	opt_list_release(&served);
	opt_list_release(&adapters);
	opt_list_release(&words);
	worker_join_release();
	worker_vllm_release(&vllm);
	free(word);
	free(texts);
	return code;
}
