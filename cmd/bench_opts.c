#include "cmd/bench_opts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/bars_opts.h"
#include "cmd/bench_vllm.h"
#include "cmd/workload_opts.h"
#include "lib/base/clock.h"
#include "lib/load/talks.h"
#include "lib/results/result_opts.h"

#define GRACE_NS (2 * NS_PER_S)
#define SALT_MAX 200

struct bench_options bench_options;
#define o bench_options

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "target"},
	{OPT_TEXT, "base-url", &o.base_url, "URL",
	 "server or router, http[s]://HOST:PORT[/v1] (default: http://127.0.0.1:30000)", NULL, 0, 0,
	 NULL},
	{OPT_LIST, "ab", &o.ab, "URL",
	 "two servers instead: each request goes to both, in alternating order", NULL, 2, 2, NULL},
	{OPT_TEXT, "unix-socket", &o.unix_socket, "PATH", "connect to this socket", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "model", &o.model, "NAME", "model id (default: the first of GET /v1/models)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "endpoint", &o.endpoint, "PATH",
	 "endpoint of the requests (default: /v1/chat/completions)",
	 "/v1/chat/completions|/v1/completions|/v1/embeddings|/v1/responses|/v1/messages", 0, 0,
	 NULL},
	{OPT_TEXT, "api-key", &o.api_key, "KEY",
	 "bearer token (default: the variable OPENAI_API_KEY, if it is set)", NULL, 0, 0, NULL},
	{OPT_LIST, "header", &o.headers, "'NAME: VALUE'",
	 "a header for every request (also NAME=VALUE); may be repeated", NULL, 1, 0, NULL},
	{OPT_TEXT, "ca-file", &o.ca_file, "FILE",
	 "PEM file with the CAs of an https:// server (default: the system's)", NULL, 0, 0, NULL},
	{OPT_FLAG, "insecure", &o.insecure, NULL,
	 "do not look at the server's certificate (default: off)", NULL, 0, 0, NULL},
	{OPT_CHOICE, "transport", &o.transport, "NAME",
	 "client: pdctl, or curl for HTTP/2, proxies and as a check (default: pdctl)", "pdctl|curl",
	 0, 0, NULL},
	{OPT_TEXT, "proxy", &o.proxy, "URL", "HTTP or SOCKS proxy; with --transport curl", NULL, 0,
	 0, NULL},
	{OPT_FLAG, "http2", &o.http2, NULL,
	 "HTTP/2: by ALPN over https, from the first byte over http, where a libcurl before 8.0 "
	 "opens "
	 "a connection for each request; with --transport curl (default: off)",
	 NULL, 0, 0, NULL},
	{OPT_REAL, "timeout", &o.timeout_s, "S",
	 "seconds one request may take in total (default: 21600)", NULL, 0.001, 1e6, NULL},
	{.type = OPT_HEADING, .help = "load"},
	{OPT_TEXT, "dataset", &o.dataset, "FILE",
	 "data set, recognised by its content (see docs/workloads.md), or a capture of pdctl serve "
	 "(default: built-in prompts)",
	 NULL, 0, 0, "dataset-path"},
	{.type = OPT_ROWS, .value = workload_opts_rows},
	{OPT_INT, "capture-run", &o.capture_run, "N", "run of the capture (default: the last one)",
	 NULL, 1, 9e8, NULL},
	{OPT_INT, "num-prompts", &o.num_prompts, "N",
	 "requests (default: all of the data set; built-in: 100)", NULL, 1, 1e7, NULL},
	{OPT_FLAG, "oversample", &o.oversample, NULL,
	 "repeat the records when there are fewer than --num-prompts (default: off)", NULL, 0, 0,
	 NULL},
	{OPT_INT, "input-len", &o.input_len, "TOKENS",
	 "built-in prompts: about this many tokens (default: 128)", NULL, 1, 1e7, "prompt-tokens"},
	{OPT_INT, "output-len", &o.output_len, "TOKENS",
	 "max_tokens of every request (default: the record's own, else 128)", NULL, 1, 1e7,
	 "max-tokens"},
	{OPT_REAL, "scale-tokens", &o.scale, "F",
	 "traces without text: shrink prompts and outputs by this factor (default: 1)", NULL, 1e-6,
	 1, NULL},
	{OPT_FLAG, "token-ids", &o.token_ids, NULL,
	 "traces without text: prompts of token ids, exact lengths; /v1/completions only (default: "
	 "off)",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "calibrate", &o.calibrate, NULL,
	 "made text: ask the server with two requests how many tokens a word has (default: off)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "salt", &o.salt, "TEXT",
	 "put this before each prompt, so that no cache knows it from an earlier run", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "stream", &o.stream, NULL,
	 "ask for a stream, which TTFT and ITL need (default: on)", NULL, 0, 0, NULL},
	{OPT_FLAG, "continuous-usage", &o.continuous_usage, NULL,
	 "ask for the token count with every event, so that ITL is per token (default: on)", NULL,
	 0, 0, NULL},
	{OPT_FLAG, "ignore-eos", &o.ignore_eos, NULL,
	 "send ignore_eos: always max_tokens tokens (default: off)", NULL, 0, 0, NULL},
	{OPT_REAL, "temperature", &o.temperature, "T", "sampling temperature (default: 0)", NULL, 0,
	 100, NULL},
	{OPT_TEXT, "extra-body", &o.extra_body, "JSON",
	 "JSON object whose members are added to each body and override it", NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "sessions and keys"},
	{OPT_INT, "sessions", &o.sessions, "N",
	 "built-in prompts: N sessions, each sends its requests one after another", NULL, 1, 1e6,
	 NULL},
	{OPT_INT, "requests-per-session", &o.turns, "N",
	 "built-in prompts: requests of each session (default: 20)", NULL, 1, 1e6, NULL},
	{OPT_INT, "concurrent-sessions", &o.concurrent_sessions, "N",
	 "sessions in progress at a time (default: no limit)", NULL, 1, 1e6, NULL},
	{OPT_FLAG, "carry-answers", &o.carry, NULL,
	 "turns carry the real answers of the turns before (default: off)", NULL, 0, 0, NULL},
	{OPT_CHOICE, "affinity", &o.affinity, "WHAT",
	 "what a key stands for: the record's own key, its session, its prefix group; none sends "
	 "no key (default: key)",
	 "none|key|session|prefix", 0, 0, NULL},
	{OPT_TEXT, "session-pattern", &o.session_pattern, "TEXT",
	 "session key of request i, as in 'key_<i%4>' or 'bench_key_{request_id // 10}' (default: "
	 "by --affinity)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "prompt-cache-key", &o.prompt_cache_key, "TEXT",
	 "the same, sent as prompt_cache_key only", NULL, 0, 0, NULL},
	{OPT_TEXT, "session-field", &o.session_field, "LIST",
	 "where the key is sent: header:NAME, body:PATH (as in body:metadata.user), "
	 "session_params, user, prompt_cache_key, session_id, or none (default: "
	 "header:X-Session-Id,session_params)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "echo-headers", &o.echo, "LIST",
	 "headers of an answer that the session's next turn sends back, as X-Session-Token", NULL,
	 0, 0, NULL},
	{.type = OPT_HEADING, .help = "when"},
	{OPT_REAL, "request-rate", &o.request_rate, "REQ/S",
	 "mean arrivals per second; inf: send at once (default: inf)", NULL, 1e-6, INFINITY, NULL},
	{OPT_REAL, "burstiness", &o.burstiness, "X",
	 "shape of the gaps: 1 Poisson, below 1 burstier, inf constant (default: 1)", NULL, 1e-6,
	 INFINITY, NULL},
	{OPT_LIST, "phases", &o.phases, "S:RATE[-RATE]...",
	 "instead of --request-rate: seconds at a rate, or a ramp, one after another, as 60:5 "
	 "30:5-20",
	 NULL, 1, 0, NULL},
	{OPT_FLAG, "timestamps", &o.timestamps, NULL,
	 "send at the data set's own timestamps (default: off)", NULL, 0, 0, NULL},
	{OPT_REAL, "speedup", &o.speedup, "F",
	 "divide timestamps and think times by this (default: 1)", NULL, 1e-6, 1e9, NULL},
	{OPT_FLAG, "spread", &o.spread, NULL,
	 "requests of one timestamp go at random moments before the next one (default: off)", NULL,
	 0, 0, NULL},
	{OPT_REAL, "session-rate", &o.session_rate, "REQ/S",
	 "each session is a user with this rate of its own", NULL, 1e-6, 1e6, NULL},
	{OPT_INT, "max-concurrency", &o.max_concurrency, "N",
	 "requests in flight at a time: with --request-rate inf a closed loop (default: no limit)",
	 NULL, 1, LOAD_IN_FLIGHT_MAX, NULL},
	{OPT_REAL, "duration", &o.duration_s, "S",
	 "send nothing later than this after the start (default: no limit)", NULL, 0.001, 1e6,
	 NULL},
	{OPT_INT, "num-warmups", &o.warmups, "N",
	 "warm-up requests of other prompts, sent first and not measured (default: 0)", NULL, 0,
	 1e6, NULL},
	{OPT_REAL, "warmup-seconds", &o.warmup_s, "S",
	 "leave requests of the first seconds out of the figures (default: 0)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "cooldown-seconds", &o.cooldown_s, "S",
	 "leave requests of the last seconds out of the figures (default: 0)", NULL, 0, 1e6, NULL},
	{OPT_FLAG, "sweep", &o.sweep, NULL,
	 "run at rising rates until the server is saturated (default: off)", NULL, 0, 0, NULL},
	{OPT_INT, "repeat", &o.repeat, "N", "run N times, one document each (default: 1)", NULL, 1,
	 1000, NULL},
	{OPT_TEXT, "shard", &o.shard, "I/N",
	 "send part I of N of the load, for several processes or machines", NULL, 0, 0, NULL},
	{OPT_INT, "seed", &o.seed, "N", "random seed of arrivals and synthesised text (default: 0)",
	 NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "results"},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "write the result document (the keys of vllm bench) to this file", NULL, 0, 0, NULL},
	{OPT_TEXT, "html", &o.html, "FILE",
	 "write a report with charts, one HTML file that needs nothing else (docs/reports.md)",
	 NULL, 0, 0, NULL},
	BARS_OPTION(o.bars),
	{OPT_FLAG, "save-detailed", &o.detailed, NULL,
	 "add per-request lists and generated texts to the document (default: off)", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "json", &o.json, NULL, "print the document instead of the tables (default: off)",
	 NULL, 0, 0, NULL},
	STORE_OPTS(o.store),
	{OPT_TEXT, "percentile-metrics", &o.metric_list, "LIST",
	 "metrics with percentiles: ttft, tpot, itl, e2el, client_queue_time, "
	 "e2el_including_client_queue (default: ttft,tpot,itl)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "metric-percentiles", &o.percentile_list, "LIST",
	 "percentiles of each metric (default: 99)", NULL, 0, 0, NULL},
	{OPT_LIST, "goodput", &o.goodput, "METRIC:MS...",
	 "goodput goals in ms, such as ttft:200 tpot:50 e2el:2000", NULL, 1, RESULT_GOALS_MAX,
	 NULL},
	{OPT_TEXT, "label", &o.label, "TEXT", "label of the document", NULL, 0, 0, NULL},
	{OPT_LIST, "metadata", &o.metadata, "KEY=VALUE...",
	 "members added to the document, as strings", NULL, 1, 0, NULL},
	{.type = OPT_HEADING, .help = "verdict"},
	{OPT_TEXT, "max-failures", &o.max_failures, "N|P%",
	 "exit 1 when more requests fail than this (default: 0)", NULL, 0, 0, NULL},
	{OPT_FLAG, "verify", &o.verify, NULL,
	 "check that sessions stayed on their workers; exit 1 on FAIL (default: off)", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "assert", &o.asserts, "LIST",
	 "exit 1 unless all hold: split[=N], sticky, not-sticky, hits-faster", NULL, 0, 0, NULL},
	{OPT_FLAG, "vllm-markdown", &o.vllm_markdown, NULL, NULL, NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = bench_vllm_rows},
	{.type = OPT_END},
};

const struct opt_command bench_command = {
	.name = "bench",
	.usage = "pdctl bench --base-url URL [options]",
	.summary = "load a server with sessions and schedules, and measure what its clients see",
	.about =
		"Sends requests on an absolute schedule and measures time to first token, time "
		"per output token,\n"
		"inter-token latency and total time, from the moment of sending and from the "
		"moment the schedule\n"
		"intended. client_ok tells whether the client itself was fast enough, second by "
		"second.\n"
		"Turns of a session wait for each other. A stream that ends early, brings no token "
		"or does not say\n"
		"how it finished is a failure. The options of vllm bench serve mean what they mean "
		"there.\n"
		"Exit codes: 0 done, 1 failed requests (--max-failures), --verify or --assert, 2 "
		"wrong input,\n"
		"3 run-time failure, 130 interrupted (once: no new requests and 2 s for those in "
		"flight; twice:\nat once).",
	.examples =
		"  $ pdctl bench --base-url http://127.0.0.1:30000 --sessions 6 "
		"--requests-per-session 20 --concurrent-sessions 3 --verify\n"
		"      the published consistent-hash test: do sessions stay on their workers?\n"
		"  $ pdctl bench --dataset multi.jsonl --session-pattern 'key_<i%4>' "
		"--request-rate 8 --output run.json\n"
		"      Poisson arrivals at 8 requests/s, four session keys, document for pdctl "
		"compare\n"
		"  $ pdctl bench --dataset mooncake.jsonl --num-prompts 500 --scale-tokens "
		"0.05 --max-concurrency 64\n"
		"      the first 500 requests of a trace, text made from its block hashes, 20 "
		"times smaller\n"
		"  $ pdctl bench --ab http://old:8000 http://new:8000 --request-rate 4 "
		"--output ab.json\n"
		"      the same requests to two servers at the same time: ab.a.json, ab.b.json\n"
		"  $ pdctl bench --sweep --goodput ttft:200 tpot:50 --output sweep.json\n"
		"      rising rates until the server cannot follow",
	.opts = opts,
};

void bench_options_defaults(void)
{
	o = (struct bench_options){.base_url = "http://127.0.0.1:30000",
				   .transport = "pdctl",
				   .endpoint = "/v1/chat/completions",
				   .affinity = "key",
				   .input_len = 128,
				   .turns = 20,
				   .request_rate = INFINITY,
				   .burstiness = 1,
				   .speedup = 1,
				   .scale = 1,
				   .repeat = 1,
				   .timeout_s = 21600,
				   .stream = true,
				   .continuous_usage = true};
	bench_vllm_defaults();
}

void bench_options_release(void)
{
	struct opt_list *lists[] = {&o.headers, &o.ab, &o.phases, &o.goodput, &o.metadata};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		opt_list_release(lists[i]);
	bench_vllm_release();
}

/* ---- from options to what the engine needs ---- */

static int flag_error(const char *flag, int err, const struct pd_msg *why, struct pd_msg *msg)
{
	return pd_fail(msg, err, "--%s: %s", flag, why->text);
}

/* A path of names that JSON needs no escapes for. */
static bool good_path(const char *path)
{
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == '"' || *p == '\\' || *p == 0x7f ||
		    (*p == '.' && (p == path || p[1] == '.' || p[1] == '\0')))
			return false;
	return *path && strlen(path) < 256;
}

static int add_body_path(struct bench_setup *s, const char *path, struct pd_msg *msg)
{
	size_t n = strcspn(path, ".");

	for (size_t i = 0; i < s->load.body.nkey_paths; i++)
		if (strcspn(s->key_path[i], ".") == n && strncmp(s->key_path[i], path, n) == 0)
			return pd_fail(msg, PD_EINVAL,
				       "--session-field: two places in the member '%.*s'", (int)n,
				       path);
	s->key_path[s->load.body.nkey_paths++] = path;
	return PD_OK;
}

static int add_field(struct bench_setup *s, const char *field, struct pd_msg *msg)
{
	static const char *const names[][2] = {
		{"session_params", "session_params.session_id"},
		{"session_params.session_id", "session_params.session_id"},
		{"user", "user"},
		{"prompt_cache_key", "prompt_cache_key"},
		{"session_id", "session_id"},
	};

	if (s->load.body.nkey_paths + s->load.nkey_headers == BODY_KEY_PATHS_MAX)
		return pd_fail(msg, PD_EINVAL, "--session-field: more than %d places",
			       BODY_KEY_PATHS_MAX);
	if (strcmp(field, "none") == 0)
		return PD_OK;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(field, names[i][0]) == 0)
			return add_body_path(s, names[i][1], msg);
	if (strncmp(field, "body:", 5) == 0 && good_path(field + 5))
		return add_body_path(s, field + 5, msg);
	if (strncmp(field, "header:", 7) == 0 && field[7] &&
	    !strpbrk(field + 7, " \t:\"(),/;<=>?@[\\]{}")) {
		s->key_header[s->load.nkey_headers++] = field + 7;
		return PD_OK;
	}
	return pd_fail(msg, PD_EINVAL,
		       "--session-field: found '%s', expected header:NAME, body:PATH, "
		       "session_params, user, prompt_cache_key, session_id or none",
		       field);
}

/* "a, b,c" in an own copy, one after the other. */
static char *next_of(char **rest)
{
	char *word = strsep(rest, ","), *end;

	if (!word)
		return NULL;
	word += strspn(word, " ");
	for (end = word + strlen(word); end > word && end[-1] == ' ';)
		*--end = '\0';
	return word;
}

static int set_fields(struct bench_setup *s, struct pd_msg *msg)
{
	const char *text = o.session_field	? o.session_field
			   : o.prompt_cache_key ? "prompt_cache_key"
						: "header:X-Session-Id,session_params";
	char *rest, *word;
	int err = PD_OK;

	if (o.prompt_cache_key && (o.session_pattern || o.session_field))
		return pd_fail(msg, PD_EINVAL,
			       "--prompt-cache-key cannot be combined with --session-pattern or "
			       "--session-field");
	s->fields = rest = strdup(text);
	if (!rest)
		return PD_ENOMEM;
	while (!err && (word = next_of(&rest)))
		err = add_field(s, word, msg);
	s->load.body.key_path = s->key_path;
	s->load.key_headers = s->key_header;
	if (err || !o.echo)
		return err;
	s->echoes = rest = strdup(o.echo);
	if (!rest)
		return PD_ENOMEM;
	while ((word = next_of(&rest))) {
		if (!*word || strpbrk(word, " :") || s->load.necho_headers == TALK_HEADERS_MAX)
			return pd_fail(msg, PD_EINVAL,
				       "--echo-headers: found '%s', expected up to %d names of "
				       "headers",
				       word, TALK_HEADERS_MAX);
		s->echo[s->load.necho_headers++] = word;
	}
	s->load.echo_headers = s->echo;
	return PD_OK;
}

static int check_words(struct pd_msg *msg)
{
	for (size_t i = 0; i < o.headers.n; i++) {
		const char *h = o.headers.items[i], *colon = strchr(h, ':');

		if (!colon || colon == h || strpbrk(h, "\r\n"))
			return pd_fail(msg, PD_EINVAL,
				       "--header: found '%s', expected 'NAME: VALUE'", h);
	}
	for (size_t i = 0; i < o.metadata.n; i++)
		if (!strchr(o.metadata.items[i], '=') || o.metadata.items[i][0] == '=')
			return pd_fail(msg, PD_EINVAL, "--metadata: found '%s', expected KEY=VALUE",
				       o.metadata.items[i]);
	if (o.salt && (strlen(o.salt) > SALT_MAX || !*o.salt))
		return pd_fail(msg, PD_EINVAL, "--salt: found %zu bytes, expected 1 to %d",
			       strlen(o.salt), SALT_MAX);
	return PD_OK;
}

static int set_body(struct bench_setup *s, struct pd_msg *msg)
{
	static const char *const paths[] = {[BODY_CHAT] = "/v1/chat/completions",
					    [BODY_COMPLETIONS] = "/v1/completions",
					    [BODY_EMBEDDINGS] = "/v1/embeddings",
					    [BODY_RESPONSES] = "/v1/responses",
					    [BODY_MESSAGES] = "/v1/messages"};
	struct body_options *body = &s->load.body;
	struct pd_msg why = {""};

	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (strcmp(o.endpoint, paths[i]) == 0)
			body->endpoint = (enum body_endpoint)i;
	body->stream = o.stream && body->endpoint != BODY_EMBEDDINGS;
	body->continuous_usage = o.continuous_usage;
	body->ignore_eos = o.ignore_eos;
	body->temperature = o.temperature;
	body->output_tokens = o.output_len;
	body->default_output = bench_vllm_default_output();
	body->scale = o.scale;
	body->token_ids = o.token_ids;
	body->seed = (uint64_t)o.seed;
	if (o.extra_body &&
	    json_object_scan(&body->extra, o.extra_body, strlen(o.extra_body), &why) != PD_OK)
		return flag_error("extra-body", PD_EINVAL, &why, msg);
	return PD_OK;
}

static int set_result(struct bench_setup *s, struct pd_msg *msg)
{
	struct pd_msg why = {""};

	if (o.metric_list && result_metrics_parse(&s->run, o.metric_list, &why))
		return flag_error("percentile-metrics", PD_EINVAL, &why, msg);
	if (o.percentile_list && result_percentiles_parse(&s->run, o.percentile_list, &why))
		return flag_error("metric-percentiles", PD_EINVAL, &why, msg);
	for (size_t i = 0; i < o.goodput.n; i++)
		if (result_goal_parse(&s->run, o.goodput.items[i], &why))
			return flag_error("goodput", PD_EINVAL, &why, msg);
	s->run.pooling = s->load.body.endpoint == BODY_EMBEDDINGS;
	result_defaults(&s->run);
	return PD_OK;
}

/* "60:5" or "30:5-20" */
static int set_phases(struct bench_setup *s, struct pd_msg *msg)
{
	if (o.phases.n > ARRIVALS_PHASES_MAX)
		return pd_fail(msg, PD_EINVAL, "--phases: found %zu, expected at most %d",
			       o.phases.n, ARRIVALS_PHASES_MAX);
	for (size_t i = 0; i < o.phases.n; i++) {
		struct arrivals_phase *p = &s->phase[i];
		char *end;

		p->seconds = strtod(o.phases.items[i], &end);
		p->from = *end == ':' ? strtod(end + 1, &end) : NAN;
		p->to = *end == '-' ? strtod(end + 1, &end) : p->from;
		if (*end || !(p->seconds > 0) || !(p->from >= 0) || !(p->to >= 0) ||
		    !isfinite(p->seconds + p->from + p->to))
			return pd_fail(msg, PD_EINVAL,
				       "--phases: found '%s', expected SECONDS:RATE or "
				       "SECONDS:RATE-RATE",
				       o.phases.items[i]);
	}
	if (o.phases.n > 0 && !(s->phase[o.phases.n - 1].to > 0))
		return pd_fail(msg, PD_EINVAL, "--phases: the last rate must be more than 0");
	return PD_OK;
}

static int set_plan(struct bench_setup *s, struct pd_msg *msg)
{
	static const char *const names[] = {[LOAD_AFFINITY_KEY] = "key",
					    [LOAD_AFFINITY_SESSION] = "session",
					    [LOAD_AFFINITY_PREFIX] = "prefix",
					    [LOAD_AFFINITY_NONE] = "none"};
	struct schedule_options *when = &s->plan.schedule;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(o.affinity, names[i]) == 0)
			s->plan.affinity = (enum load_affinity)i;
	s->plan.pattern = o.prompt_cache_key ? o.prompt_cache_key : o.session_pattern;
	*when = (struct schedule_options){.requests = (size_t)o.num_prompts,
					  .timestamps = o.timestamps,
					  .speedup = o.speedup,
					  .spread = o.spread,
					  .request_rate = o.request_rate,
					  .burstiness = o.burstiness,
					  .phase = s->phase,
					  .nphases = o.phases.n,
					  .session_rate = o.session_rate,
					  .seed = (uint64_t)o.seed};
	if (o.phases.n == 0)
		when->phase = bench_vllm_ramp(&when->nphases);
	s->shard = s->shards = 1;
	if (o.shard) {
		char *end, *slash;

		s->shard = strtoll(o.shard, &slash, 10);
		s->shards = *slash == '/' ? strtoll(slash + 1, &end, 10) : 0;
		if (s->shards < 1 || *end || s->shard < 1 || s->shard > s->shards ||
		    s->shards > 10000)
			return pd_fail(msg, PD_EINVAL,
				       "--shard: found '%s', expected I/N, as 1/4 to 4/4", o.shard);
	}
	if (o.max_failures) {
		char *end;

		s->max_failures = strtod(o.max_failures, &end);
		s->max_failures_share = *end == '%';
		if (end == o.max_failures || end[s->max_failures_share ? 1 : 0] ||
		    !(s->max_failures >= 0))
			return pd_fail(msg, PD_EINVAL,
				       "--max-failures: found '%s', expected a number or a share, "
				       "as 3 or 0.5%%",
				       o.max_failures);
	}
	return set_phases(s, msg);
}

/* Options that exclude or need each other. */
static int check_pairs(int argc, char **argv, struct pd_msg *msg)
{
	bool rate = !isinf(o.request_rate), users = o.session_rate > 0, phases = o.phases.n > 0;
	const struct {
		bool wrong;
		const char *why;
	} rules[] = {
		{o.dataset &&
			 (o.sessions > 0 || opt_given(&bench_command, argc, argv, "input-len")),
		 "--dataset cannot be combined with --sessions or --input-len, which are for "
		 "built-in "
		 "prompts"},
		{!o.dataset && o.sessions == 0 &&
			 opt_given(&bench_command, argc, argv, "requests-per-session"),
		 "--requests-per-session requires --sessions"},
		{!o.dataset && o.capture_run > 0, "--capture-run requires --dataset"},
		{o.token_ids && strcmp(o.endpoint, "/v1/completions") != 0,
		 "--token-ids requires --endpoint /v1/completions"},
		{o.timestamps && rate, "--timestamps and --request-rate cannot be combined"},
		{o.timestamps + phases + users + rate > 1,
		 "--request-rate, --phases, --timestamps and --session-rate exclude each other"},
		{o.spread && !o.timestamps, "--spread requires --timestamps"},
		{o.sweep && (o.timestamps || phases || users || rate),
		 "--sweep chooses the rates: no --request-rate, --phases, --timestamps or "
		 "--session-rate"},
		{o.sweep && o.ab.n > 0, "--sweep and --ab cannot be combined"},
		{o.sweep && o.repeat > 1, "--sweep and --repeat cannot be combined"},
		{o.ab.n > 0 && opt_given(&bench_command, argc, argv, "base-url"),
		 "--ab names the servers: no --base-url"},
		{o.ab.n > 0 && o.unix_socket, "--ab and --unix-socket cannot be combined"},
		{o.store.off && o.store.path, "--store and --no-store cannot be combined"},
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].wrong)
			return pd_fail(msg, PD_EINVAL, "%s", rules[i].why);
	if (o.ca_file && access(o.ca_file, R_OK) != 0)
		return pd_fail(msg, PD_EINVAL, "--ca-file: cannot read '%.200s'", o.ca_file);
	return PD_OK;
}

static int check_url(const char *flag, const char *url, struct pd_msg *msg)
{
	if (strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "--%s: found '%.200s', expected http://HOST:PORT or https://HOST:PORT", flag,
		       url);
}

int bench_setup_make(struct bench_setup *s, int argc, char **argv, struct pd_msg *msg)
{
	struct load_options *l = &s->load;
	int err;

	*s = (struct bench_setup){0};
	err = bench_vllm_apply(argc, argv, msg);
	err = err ? err : check_url("base-url", o.base_url, msg);
	for (size_t i = 0; !err && i < o.ab.n; i++)
		err = check_url("ab", o.ab.items[i], msg);
	err = err ? err : check_pairs(argc, argv, msg);
	err = err ? err : set_body(s, msg);
	err = err ? err : set_fields(s, msg);
	err = err ? err : check_words(msg);
	err = err ? err : set_result(s, msg);
	err = err ? err : set_plan(s, msg);
	l->ntargets = o.ab.n > 0 ? 2 : 1;
	for (size_t i = 0; i < l->ntargets; i++)
		l->target[i] = (struct load_target){o.ab.n > 0 ? o.ab.items[i] : o.base_url,
						    o.unix_socket};
	l->transport = strcmp(o.transport, "curl") == 0 ? LOAD_CURL : LOAD_PDCTL;
	l->ca_file = o.ca_file;
	l->insecure = o.insecure;
	l->proxy = o.proxy;
	l->http2 = o.http2;
	l->path = o.endpoint;
	l->headers = o.headers.items;
	l->nheaders = o.headers.n;
	l->request_id_prefix = bench_vllm_request_id_prefix();
	l->api_key = o.api_key ? o.api_key : getenv("OPENAI_API_KEY");
	l->api_key = l->api_key && *l->api_key ? l->api_key : NULL;
	l->max_concurrency = o.max_concurrency;
	l->concurrent_sessions = o.concurrent_sessions;
	l->timeout_ns = (int64_t)(o.timeout_s * 1e9);
	l->send_until_ns = (int64_t)(o.duration_s * 1e9);
	l->grace_ns = GRACE_NS;
	l->salt = o.salt;
	l->carry_answers = o.carry;
	l->keep_text = o.detailed && l->body.endpoint != BODY_EMBEDDINGS;
	return err;
}

void bench_setup_release(struct bench_setup *s)
{
	json_object_release(&s->load.body.extra);
	free(s->fields);
	free(s->echoes);
}
