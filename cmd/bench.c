/* pdctl bench: sessions, schedules and honest measurement against any OpenAI-compatible server. */
#include <curl/curl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "cmd/cmd.h"
#include "cmd/store_opts.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/load/load.h"
#include "lib/load/loadplan.h"
#include "lib/results/result_calc.h"
#include "lib/results/result_opts.h"
#include "lib/results/result_table.h"
#include "lib/results/verify_report.h"
#include "lib/stats/summary.h"

#define DOCUMENT_MAX ((size_t)4 << 30)
#define GRACE_NS     (2 * NS_PER_S)
/* The schedule was not kept when the 99th percentile of the lag is above this. */
#define LAG_LIMIT_MS 10.0
/* More than this share of one processor: the client is the bottleneck. */
#define CPU_LIMIT 0.95

struct bench_options {
	const char *base_url, *ca_file, *model, *endpoint, *api_key, *dataset, *session_pattern,
		*session_field, *extra_body;
	const char *label, *output, *metric_list, *percentile_list;
	int64_t capture_run, num_prompts, input_len, output_len, sessions, turns,
		concurrent_sessions, max_concurrency, warmups, seed;
	double request_rate, burstiness, speedup, scale, timeout_s;
	bool stream, continuous_usage, ignore_eos, timestamps, detailed, json, verify;
	struct opt_list headers, goodput, metadata;
};

static struct bench_options o;
static struct store_opts store;

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "target"},
	{OPT_TEXT, "base-url", &o.base_url, "URL",
	 "server or router, http[s]://HOST:PORT (default: http://127.0.0.1:30000)", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "ca-file", &o.ca_file, "FILE",
	 "PEM file with the CAs of an https:// server (default: the system's)", NULL, 0, 0, NULL},
	{OPT_TEXT, "model", &o.model, "NAME", "model id (default: the first of GET /v1/models)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "endpoint", &o.endpoint, "PATH",
	 "endpoint of the requests (default: /v1/chat/completions)",
	 "/v1/chat/completions|/v1/completions|/v1/embeddings", 0, 0, NULL},
	{OPT_TEXT, "api-key", &o.api_key, "KEY", "bearer token (default: none)", NULL, 0, 0, NULL},
	{OPT_LIST, "header", &o.headers, "'NAME: VALUE'",
	 "a header for every request; may be repeated", NULL, 1, 1, NULL},
	{OPT_REAL, "timeout", &o.timeout_s, "S",
	 "seconds one request may take in total (default: 21600)", NULL, 0.001, 1e6, NULL},
	{.type = OPT_HEADING, .help = "load"},
	{OPT_TEXT, "dataset", &o.dataset, "FILE",
	 "JSON Lines: vLLM custom, InfiniLM, Mooncake or pdctl gen, recognised by their fields; or "
	 "a capture of pdctl serve (default: built-in prompts)",
	 NULL, 0, 0, "dataset-path"},
	{OPT_INT, "capture-run", &o.capture_run, "N", "run of the capture (default: the last one)",
	 NULL, 1, 9e8, NULL},
	{OPT_INT, "num-prompts", &o.num_prompts, "N",
	 "requests (default: all of the data set; built-in: 100)", NULL, 1, 1e7, NULL},
	{OPT_INT, "input-len", &o.input_len, "TOKENS",
	 "built-in prompts: about this many tokens (default: 128)", NULL, 1, 1e7, "prompt-tokens"},
	{OPT_INT, "output-len", &o.output_len, "TOKENS",
	 "max_tokens of every request (default: the record's own, else 128)", NULL, 1, 1e7,
	 "max-tokens"},
	{OPT_REAL, "scale-tokens", &o.scale, "F",
	 "traces without text: shrink prompts and outputs by this factor (default: 1)", NULL, 1e-6,
	 1, NULL},
	{OPT_FLAG, "stream", &o.stream, NULL,
	 "ask for a stream, which TTFT and ITL need (default: on)", NULL, 0, 0, NULL},
	{OPT_FLAG, "continuous-usage", &o.continuous_usage, NULL,
	 "ask for the token count with every event, so that ITL is per token (default: on)", NULL,
	 0, 0, NULL},
	{OPT_FLAG, "ignore-eos", &o.ignore_eos, NULL,
	 "send ignore_eos: always max_tokens tokens (default: off)", NULL, 0, 0, NULL},
	{OPT_TEXT, "extra-body", &o.extra_body, "JSON",
	 "JSON object whose members are added to each body and override it", NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "sessions"},
	{OPT_INT, "sessions", &o.sessions, "N",
	 "built-in prompts: N sessions, each sends its requests one after another", NULL, 1, 1e6,
	 NULL},
	{OPT_INT, "requests-per-session", &o.turns, "N",
	 "built-in prompts: requests of each session (default: 20)", NULL, 1, 1e6, NULL},
	{OPT_INT, "concurrent-sessions", &o.concurrent_sessions, "N",
	 "sessions in progress at a time (default: no limit)", NULL, 1, 1e6, NULL},
	{OPT_TEXT, "session-pattern", &o.session_pattern, "TEXT",
	 "session key of request i, as in 'key_<i%4>' or 'bench_key_{request_id // 10}' (default: "
	 "the record's)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "session-field", &o.session_field, "LIST",
	 "fields that carry the key: header:NAME, session_params, user, prompt_cache_key, "
	 "session_id, or "
	 "none (default: "
	 "header:X-Session-Id,session_params)",
	 NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "when"},
	{OPT_REAL, "request-rate", &o.request_rate, "REQ/S",
	 "mean arrivals per second; inf: send at once (default: inf)", NULL, 1e-6, INFINITY, NULL},
	{OPT_REAL, "burstiness", &o.burstiness, "X",
	 "shape of the gaps: 1 Poisson, below 1 burstier, inf constant (default: 1)", NULL, 1e-6,
	 INFINITY, NULL},
	{OPT_FLAG, "timestamps", &o.timestamps, NULL,
	 "send at the data set's own timestamps (default: off)", NULL, 0, 0, NULL},
	{OPT_REAL, "speedup", &o.speedup, "F",
	 "divide timestamps and think times by this (default: 1)", NULL, 1e-6, 1e9, NULL},
	{OPT_INT, "max-concurrency", &o.max_concurrency, "N",
	 "requests in flight at a time (default: no limit)", NULL, 1, LOAD_IN_FLIGHT_MAX, NULL},
	{OPT_INT, "num-warmups", &o.warmups, "N",
	 "warm-up requests, sent first and not measured (default: 0)", NULL, 0, 1e6, NULL},
	{OPT_INT, "seed", &o.seed, "N", "random seed of arrivals and synthesised text (default: 0)",
	 NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "results"},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "write the result document (the keys of vllm bench) to this file", NULL, 0, 0,
	 "save-result"},
	{OPT_FLAG, "save-detailed", &o.detailed, NULL,
	 "add per-request lists and generated texts to the document (default: off)", NULL, 0, 0,
	 NULL},
	STORE_OPTS(store),
	{OPT_FLAG, "json", &o.json, NULL, "print the document instead of the tables (default: off)",
	 NULL, 0, 0, NULL},
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
	{OPT_FLAG, "verify", &o.verify, NULL,
	 "check that sessions stayed on their workers; exit 1 on FAIL (default: off)", NULL, 0, 0,
	 NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "bench",
	.usage = "pdctl bench --base-url URL [options]",
	.summary = "load a server with sessions and schedules, and measure what its clients see",
	.about = "Sends chat, completion or embedding requests on an absolute schedule and "
		 "measures time to first\n"
		 "token, time per output token, inter-token latency and total time, from the "
		 "moment of sending. The\n"
		 "lag of the client itself is measured too; client_ok tells whether the figures "
		 "are valid.\n"
		 "Turns of a session wait for each other. A stream that ends early is a failure.\n"
		 "Exit codes: 0 done, 1 --verify failed or no request succeeded, 2 wrong input, 3 "
		 "run-time failure,\n"
		 "130 interrupted (once: no new requests and 2 s for those in flight; twice: at "
		 "once).",
	.examples = "  $ pdctl bench --base-url http://127.0.0.1:30000 --sessions 6 "
		    "--requests-per-session 20 --concurrent-sessions 3 --verify\n"
		    "      the published consistent-hash test: do sessions stay on their workers?\n"
		    "  $ pdctl bench --dataset multi.jsonl --session-pattern 'key_<i%4>' "
		    "--request-rate 8 --output run.json\n"
		    "      Poisson arrivals at 8 requests/s, four session keys, document for pdctl "
		    "compare\n"
		    "  $ pdctl bench --dataset mooncake.jsonl --num-prompts 500 --scale-tokens "
		    "0.05 --max-concurrency 64\n"
		    "      the first 500 requests of a trace, text made from its block hashes, 20 "
		    "times smaller",
	.opts = opts,
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupts = interrupts + 1;
}

struct bench {
	struct load_options load;
	struct workload work;
	struct load_plan plan;
	struct result_run run;
	struct load_outcome outcome;
	struct verify verify;
	struct buf members; /* of "pdctl" in the document */
	char *model;	    /* owned, when it was asked for */
	char *key_header;   /* owned */
	char hash[17], date[20];
};

/* ---- options ---- */

static int flag_error(const char *flag, int err, const struct pd_msg *why, struct pd_msg *msg)
{
	return pd_fail(msg, err, "--%s: %s", flag, why->text);
}

static int set_session_place(struct bench *b, struct span place, struct pd_msg *msg)
{
	static const struct {
		const char *name;
		unsigned bit;
	} places[] = {
		{"session_params", BODY_KEY_SESSION_PARAMS},
		{"session_params.session_id", BODY_KEY_SESSION_PARAMS},
		{"user", BODY_KEY_USER},
		{"prompt_cache_key", BODY_KEY_PROMPT_CACHE_KEY},
		{"session_id", BODY_KEY_SESSION_ID},
		{"none", 0},
	};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (span_eq(place, span_of(places[i].name))) {
			b->load.body.key_places |= places[i].bit;
			return PD_OK;
		}
	if (!span_starts(place, SPAN("header:")) || place.n == 7 || memchr(place.p, ' ', place.n))
		return pd_fail(msg, PD_EINVAL,
			       "--session-field: found '%.*s', expected header:NAME, "
			       "session_params, user, prompt_cache_key, session_id "
			       "or none",
			       (int)place.n, place.p);
	if (b->key_header)
		return pd_fail(msg, PD_EINVAL,
			       "--session-field: only one header can carry the key");
	b->key_header = strndup(place.p + 7, place.n - 7);
	b->load.key_header = b->key_header;
	return b->key_header ? PD_OK : PD_ENOMEM;
}

static int set_session_fields(struct bench *b, struct pd_msg *msg)
{
	const char *p = o.session_field, *comma;
	int err = PD_OK;

	for (; !err && p; p = comma ? comma + 1 : NULL) {
		comma = strchr(p, ',');
		err = set_session_place(
			b, span_trim((struct span){p, comma ? (size_t)(comma - p) : strlen(p)}),
			msg);
	}
	return err;
}

static int check_headers(struct pd_msg *msg)
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
	return PD_OK;
}

static int set_result_options(struct bench *b, struct pd_msg *msg)
{
	struct pd_msg why = {""};

	if (o.metric_list && result_metrics_parse(&b->run, o.metric_list, &why))
		return flag_error("percentile-metrics", PD_EINVAL, &why, msg);
	if (o.percentile_list && result_percentiles_parse(&b->run, o.percentile_list, &why))
		return flag_error("metric-percentiles", PD_EINVAL, &why, msg);
	for (size_t i = 0; i < o.goodput.n; i++)
		if (result_goal_parse(&b->run, o.goodput.items[i], &why))
			return flag_error("goodput", PD_EINVAL, &why, msg);
	b->run.pooling = b->load.body.endpoint == BODY_EMBEDDINGS;
	result_defaults(&b->run);
	return PD_OK;
}

static int set_body_options(struct bench *b, struct pd_msg *msg)
{
	struct body_options *body = &b->load.body;
	struct pd_msg why = {""};

	body->endpoint = strcmp(o.endpoint, "/v1/embeddings") == 0    ? BODY_EMBEDDINGS
			 : strcmp(o.endpoint, "/v1/completions") == 0 ? BODY_COMPLETIONS
								      : BODY_CHAT;
	body->stream = o.stream && body->endpoint != BODY_EMBEDDINGS;
	body->continuous_usage = o.continuous_usage;
	body->ignore_eos = o.ignore_eos;
	body->output_tokens = o.output_len;
	body->default_output = 128;
	body->scale = o.scale;
	body->seed = (uint64_t)o.seed;
	if (!o.extra_body)
		return PD_OK;
	if (json_object_scan(&body->extra, o.extra_body, strlen(o.extra_body), &why) != PD_OK)
		return flag_error("extra-body", PD_EINVAL, &why, msg);
	return PD_OK;
}

static int set_options(struct bench *b, int argc, char **argv, struct pd_msg *msg)
{
	int err = set_body_options(b, msg);

	if (!err && strncmp(o.base_url, "http://", 7) != 0 &&
	    strncmp(o.base_url, "https://", 8) != 0)
		err = pd_fail(msg, PD_EINVAL,
			      "--base-url: found '%.200s', expected http://HOST:PORT or "
			      "https://HOST:PORT",
			      o.base_url);
	if (!err && o.ca_file && access(o.ca_file, R_OK) != 0)
		err = pd_fail(msg, PD_EINVAL, "--ca-file: cannot read '%.200s'", o.ca_file);
	if (!err)
		err = set_session_fields(b, msg);
	if (!err)
		err = check_headers(msg);
	if (!err)
		err = set_result_options(b, msg);
	if (!err && o.dataset && (o.sessions > 0 || opt_given(&command, argc, argv, "input-len")))
		err = pd_fail(msg, PD_EINVAL,
			      "--dataset cannot be combined with --sessions or --input-len, which "
			      "are for built-in prompts");
	if (!err && !o.dataset && o.sessions == 0 &&
	    opt_given(&command, argc, argv, "requests-per-session"))
		err = pd_fail(msg, PD_EINVAL, "--requests-per-session requires --sessions");
	if (!err && o.timestamps && !isinf(o.request_rate))
		err = pd_fail(msg, PD_EINVAL, "--timestamps and --request-rate cannot be combined");
	b->load.base_url = o.base_url;
	b->load.ca_file = o.ca_file;
	b->load.path = o.endpoint;
	b->load.headers = o.headers.items;
	b->load.nheaders = o.headers.n;
	b->load.api_key = o.api_key;
	b->load.max_concurrency = o.max_concurrency;
	b->load.concurrent_sessions = o.concurrent_sessions;
	b->load.timeout_ns = (int64_t)(o.timeout_s * 1e9);
	b->load.grace_ns = GRACE_NS;
	b->load.keep_text = o.detailed && b->load.body.endpoint != BODY_EMBEDDINGS;
	b->load.stop = &interrupts;
	return err;
}

/* ---- workload ---- */

static int read_workload(struct bench *b, struct pd_msg *msg)
{
	struct workload_options w = {.max_requests = (size_t)o.num_prompts, .run = o.capture_run};
	struct buf text;
	int err;

	if (o.dataset)
		return workload_read(&b->work, o.dataset, &w, msg);
	if (o.capture_run > 0)
		return pd_fail(msg, PD_EINVAL, "--capture-run requires --dataset");
	buf_init(&text, WORKLOAD_FILE_MAX);
	err = load_plan_builtin(&text, o.num_prompts > 0 ? o.num_prompts : 100, o.sessions, o.turns,
				o.input_len, (uint64_t)o.seed);
	if (!err)
		err = workload_parse_take(&b->work, &text, "built-in prompts", NULL, msg);
	buf_release(&text);
	return err;
}

static int make_plan(struct bench *b, struct pd_msg *msg)
{
	struct load_plan_options p = {.requests = (size_t)o.num_prompts,
				      .pattern = o.session_pattern,
				      .request_rate = o.request_rate,
				      .burstiness = o.burstiness,
				      .timestamps = o.timestamps,
				      .speedup = o.speedup,
				      .seed = (uint64_t)o.seed};
	struct pd_msg why = {""};
	int err = read_workload(b, msg);

	if (!err)
		(void)snprintf(
			b->hash, sizeof(b->hash), "%016llx",
			(unsigned long long)XXH3_64bits(b->work.text.data, b->work.text.len));
	for (size_t i = 0; !err && i < b->work.n; i++)
		if (body_check(&b->load.body, &b->work.req[i], &why))
			err = pd_fail(msg, PD_EINVAL, "%s: %s",
				      o.dataset ? o.dataset : "built-in prompts", why.text);
	if (!err)
		err = load_plan_make(&b->plan, &b->work, &p, msg);
	b->load.scheduled = b->plan.scheduled;
	return err;
}

/* ---- model ---- */

static int first_model(struct span list, char **out)
{
	enum json_type type;
	struct span item;
	struct json_member m;
	struct buf text;
	size_t at = 0, k = 0;
	int err = PD_ENOENT;

	buf_init(&text, 65536);
	if (json_array_next(list, &at, &item, &type) && type == JSON_OBJECT)
		while (json_object_next(item, &k, &m))
			if (span_eq(m.key, SPAN("id")) && m.type == JSON_STRING)
				err = json_string_decode(m.value, &text);
	if (!err)
		*out = buf_detach(&text);
	buf_release(&text);
	return err;
}

static int ask_model(struct bench *b, struct pd_msg *msg)
{
	const struct json_member *data = NULL;
	struct json_object doc;
	struct buf body;
	int status = 0, err;

	buf_init(&body, 1 << 20);
	err = load_get(&b->load, "/v1/models", &status, &body, msg);
	if (!err) {
		if (status == 200 && json_object_scan(&doc, body.data, body.len, NULL) == PD_OK)
			data = json_object_get(&doc, "data");
		if (!data || data->type != JSON_ARRAY || first_model(data->value, &b->model))
			err = pd_fail(msg, PD_EPROTO,
				      "GET %s/v1/models: status %d without a model; name one with "
				      "--model",
				      o.base_url, status);
		if (status == 200)
			json_object_release(&doc);
	}
	buf_release(&body);
	return err;
}

/* ---- the run ---- */

static void show_progress(void *arg, const struct load_progress *p)
{
	(void)arg;
	(void)fprintf(stderr, "\r%zu/%zu done, %zu in flight, %zu failed, %.0f s ", p->done,
		      p->total, p->in_flight, p->failed, (double)p->elapsed_ns / 1e9);
	(void)fflush(stderr);
}

static void end_progress(const struct bench *b)
{
	if (b->load.progress)
		(void)fputs("\r\033[K", stderr);
}

static int warm_up(struct bench *b, struct pd_msg *msg)
{
	struct load_outcome outcome;
	struct load_item *item;
	int err;

	if (o.warmups == 0)
		return PD_OK;
	item = calloc((size_t)o.warmups, sizeof(*item));
	if (!item)
		return PD_ENOMEM;
	for (size_t i = 0; i < (size_t)o.warmups; i++) {
		item[i] = b->plan.item[i % b->plan.n];
		item[i].at_ns = 0;
		item[i].before = LOAD_NO_TURN;
		item[i].session_no = WORKLOAD_NO_SESSION;
	}
	err = load_run(&b->load, item, (size_t)o.warmups, &outcome, msg);
	if (!err)
		load_outcome_release(&outcome);
	free(item);
	return err;
}

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
}

static int run_load(struct bench *b, struct pd_msg *msg)
{
	struct sigaction act = {.sa_handler = on_interrupt};
	int err = PD_OK;

	raise_descriptor_limit();
	(void)sigaction(SIGINT, &act, NULL);
	(void)sigaction(SIGTERM, &act, NULL);
	if (isatty(STDERR_FILENO))
		b->load.progress = show_progress;
	b->load.body.model = o.model;
	if (!o.model) {
		err = ask_model(b, msg);
		b->load.body.model = b->model;
	}
	if (!err)
		err = warm_up(b, msg);
	if (!err)
		err = load_run(&b->load, b->plan.item, b->plan.n, &b->outcome, msg);
	end_progress(b);
	return err;
}

/* ---- results ---- */

static double percentile_of_lag(const struct result_run *run)
{
	double *v = NULL, p99 = 0;
	size_t n = 0;

	if (result_lags(run, &v, &n) == PD_OK && n > 0)
		p99 = summary_percentile(v, n, 99);
	free(v);
	return p99;
}

static double cpu_share(const struct load_outcome *out)
{
	return out->wall_ns > 0 ? (double)out->cpu_ns / (double)out->wall_ns : 0;
}

/*
 * The figures hold when the client had processor time to spare and, where there was a schedule,
 * kept it. Without one a late request only means a little less load; its latencies are still taken
 * from the moment of sending.
 */
static bool client_ok(const struct bench *b)
{
	if (b->outcome.wall_ns > NS_PER_S && cpu_share(&b->outcome) > CPU_LIMIT)
		return false;
	return !b->run.scheduled || percentile_of_lag(&b->run) <= LAG_LIMIT_MS;
}

static int add_members(struct bench *b)
{
	int err = buf_puts(&b->members, "\"client_cpu_share\": ");

	if (!err)
		err = result_put_number(&b->members, cpu_share(&b->outcome));
	if (!err)
		err = buf_printf(&b->members,
				 ", \"interrupted\": %s, \"warmups\": %lld, \"endpoint\": \"%s\", "
				 "\"stream\": %s",
				 b->outcome.stopped ? "true" : "false", (long long)o.warmups,
				 o.endpoint, b->load.body.stream ? "true" : "false");
	if (!err)
		err = buf_puts(&b->members, ", \"session_field\": ");
	if (!err)
		err = json_quote(&b->members, o.session_field, strlen(o.session_field));
	if (!err && o.session_pattern)
		err = buf_puts(&b->members, ", \"session_pattern\": ");
	if (!err && o.session_pattern)
		err = json_quote(&b->members, o.session_pattern, strlen(o.session_pattern));
	if (!err && o.verify) {
		err = buf_puts(&b->members, ", \"verify\": ");
		if (!err)
			err = verify_json(&b->verify, &b->members);
	}
	return err;
}

static const char *backend(const struct bench *b)
{
	return b->load.body.endpoint == BODY_CHAT	   ? "openai-chat"
	       : b->load.body.endpoint == BODY_COMPLETIONS ? "openai"
							   : "openai-embeddings";
}

static int make_run(struct bench *b)
{
	time_t now = (time_t)(clock_wall() / NS_PER_S);
	struct tm tm;
	int err;

	(void)localtime_r(&now, &tm);
	(void)strftime(b->date, sizeof(b->date), "%Y%m%d-%H%M%S", &tm);
	b->run.date = b->date;
	b->run.backend = backend(b);
	b->run.label = o.label;
	b->run.model = b->load.body.model;
	b->run.metadata = o.metadata.items;
	b->run.nmetadata = o.metadata.n;
	b->run.request_rate = o.request_rate;
	b->run.burstiness = o.burstiness;
	b->run.max_concurrency = o.max_concurrency;
	b->run.clock_origin_ns = b->outcome.origin_ns;
	b->run.detailed = o.detailed;
	b->run.req = b->outcome.record;
	b->run.n = b->outcome.n;
	b->run.tool = "bench";
	b->run.seed = (uint64_t)o.seed;
	b->run.dataset_hash = b->hash;
	b->run.scheduled = b->plan.scheduled;
	b->run.client_ok = client_ok(b);
	err = o.verify ? verify_run(&b->verify, b->run.req, b->run.n) : PD_OK;
	if (!err)
		err = add_members(b);
	b->run.members = b->members.data;
	return err;
}

static int print_tables(const struct bench *b)
{
	struct buf text;
	int err;

	buf_init(&text, 64 << 20);
	err = result_table(&b->run, &text);
	if (!err && !b->run.client_ok)
		err = buf_printf(&text,
				 "client_ok: no, the load generator was too slow (99%% of requests "
				 "left within %.1f ms, %.0f%% CPU)\n",
				 percentile_of_lag(&b->run), 100 * cpu_share(&b->outcome));
	if (!err && o.verify) {
		err = buf_puts(&text, "\n");
		if (!err)
			err = verify_text(&b->verify, &text);
	}
	if (!err)
		cli_print(text.data, text.len);
	buf_release(&text);
	return err;
}

static int write_results(const struct bench *b, struct pd_msg *msg)
{
	struct buf doc;
	int err;

	buf_init(&doc, DOCUMENT_MAX);
	err = result_write(&b->run, &doc);
	if (!err) {
		struct span text = buf_span(&doc);

		(void)store_opts_save(&store, "bench", &text, 1);
	}
	if (!err && o.output)
		err = file_write(o.output, doc.data, doc.len, msg);
	if (!err && o.json)
		cli_print(doc.data, doc.len);
	else if (!err)
		err = print_tables(b);
	buf_release(&doc);
	return err;
}

static int verdict(const struct bench *b)
{
	size_t completed = 0;

	for (size_t i = 0; i < b->run.n; i++)
		completed += b->run.req[i].failure == NULL;
	if (b->outcome.stopped)
		return EXIT_INTERRUPTED;
	if ((o.verify && b->verify.verdict == VERIFY_FAIL) || completed == 0)
		return EXIT_FINDING;
	return EXIT_OK;
}

static int run(struct bench *b, int argc, char **argv)
{
	struct pd_msg msg = {""};
	int err = set_options(b, argc, argv, &msg);

	if (!err)
		err = make_plan(b, &msg);
	if (err)
		return err == PD_ENOMEM ? cli_runtime_error(&command, &msg)
					: cli_usage_error(&command, &msg);
	err = run_load(b, &msg);
	if (err == PD_EINVAL)
		return cli_usage_error(&command, &msg);
	if (!err)
		err = make_run(b);
	if (!err)
		err = write_results(b, &msg);
	if (err && !msg.text[0])
		(void)pd_fail(&msg, err, "%s", pd_err_text(err));
	return err ? cli_runtime_error(&command, &msg) : verdict(b);
}

static void release(struct bench *b)
{
	verify_release(&b->verify);
	load_outcome_release(&b->outcome);
	load_plan_release(&b->plan);
	workload_release(&b->work);
	buf_release(&b->members);
	json_object_release(&b->load.body.extra);
	free(b->model);
	free(b->key_header);
	opt_list_release(&o.headers);
	opt_list_release(&o.goodput);
	opt_list_release(&o.metadata);
}

int cmd_bench(int argc, char **argv)
{
	struct bench b = {0};
	int rc;

	o = (struct bench_options){.base_url = "http://127.0.0.1:30000",
				   .endpoint = "/v1/chat/completions",
				   .session_field = "header:X-Session-Id,session_params",
				   .input_len = 128,
				   .turns = 20,
				   .request_rate = INFINITY,
				   .burstiness = 1,
				   .speedup = 1,
				   .scale = 1,
				   .timeout_s = 21600,
				   .stream = true,
				   .continuous_usage = true};
	rc = cli_parse(&command, argc, argv, NULL);
	if (rc >= 0)
		return rc;
	workload_init(&b.work);
	buf_init(&b.members, 64 << 20);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		struct pd_msg msg = {"cannot initialise libcurl"};

		return cli_runtime_error(&command, &msg);
	}
	rc = run(&b, argc, argv);
	release(&b);
	curl_global_cleanup();
	return rc;
}
