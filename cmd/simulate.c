/* pdctl simulate: options, files and printing. What happens is in sim/scenario/experiment.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "cmd/cmd.h"
#include "cmd/decider_opts.h"
#include "cmd/json_out.h"
#include "cmd/policy_opts.h"
#include "cmd/profile_opts.h"
#include "cmd/workload_opts.h"
#include "cmd/store_opts.h"
#include "sim/scenario/jsonschema.h"
#include "sim/scenario/recommend.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "sim/report/charts.h"
#include "sim/report/detail.h"
#include "sim/report/table.h"
#include "sim/report/whole.h"
#include "sim/scenario/args.h"
#include "sim/scenario/decisions.h"
#include "cmd/simulate_calibrate.h"
#include "cmd/simulate_exact.h"
#include "cmd/simulate_html.h"
#include "cmd/simulate_print.h"
#include "cmd/simulate_check.h"
#include "cmd/simulate_steps.h"
#include "cmd/simulate_way.h"
#include "sim/scenario/scenario.h"

#define OUT_MAX		      ((size_t)1 << 30)
#define TABLE_WIDTH	      100 /* characters */
#define RECOMMEND_REPETITIONS 5

static struct simulate_args o;
static struct policy_opts policies;
static struct decider_opts decider;
static struct store_opts store;
static struct simulate_steps steps;
static struct simulate_calibrate calibrate;
static const char *profile_path, *replay;
static bool detailed;
static bool print_schema;
static const char *charts;
static struct simulate_way way;

static const struct opt opts[] = {
	{.type = OPT_HEADING, .help = "a workload instead of scenario files"},
	{OPT_TEXT, "workload", &o.workload, "FILE",
	 "trace or data set, recognised by its content (see docs/workloads.md); - is standard "
	 "input; "
	 "or a capture of pdctl serve, with its workers and policy unless options say otherwise",
	 NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = workload_opts_rows},
	{OPT_INT, "capture-run", &o.capture_run, "N", "run of the capture (default: the last one)",
	 NULL, 1, 9e8, NULL},
	{OPT_CHOICE, "replay", &replay, "HOW",
	 "of a capture: exact replays its events in their order and asserts every decision, exit 1 "
	 "when one differs; policy decides and ends requests anew (default: policy)",
	 "exact|policy", 0, 0, NULL},
	{OPT_LIST, "policy", &o.policies, "NAME",
	 "policies, separated by commas, or all; P/D: PREFILL/DECODE; NAME@fbi takes the other "
	 "ring "
	 "hash (default: affinity,round_robin)",
	 NULL, 1, OPT_LIST_MAX, NULL},
	{OPT_TEXT, "epp-config", &o.epp_config, "FILE",
	 "an EndpointPickerConfig of llm-d: what the policy scores does, which is then the default",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "workers", &o.workers, "N",
	 "workers; several counts are separated by commas (default: 4)", NULL, 0, 0, NULL},
	{OPT_LIST, "worker-names", &o.names, "NAME",
	 "identities on the ring, such as the URLs a router has, instead of --workers", NULL, 1,
	 OPT_LIST_MAX, NULL},
	{OPT_INT, "prefill", &o.prefill, "N", "P/D: prefill workers, with --decode", NULL, 1,
	 ROUTE_WORKERS_MAX, NULL},
	{OPT_INT, "decode", &o.decode, "N", "P/D: decode workers, with --prefill", NULL, 1,
	 ROUTE_WORKERS_MAX, NULL},
	{OPT_TEXT, "key", &o.load.key, "KEY",
	 "session key: auto, session, prompt_cache_key, first-blocks:N, prefix, group, "
	 "pattern:TEXT or none (default: auto)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "cache-blocks", &o.caches, "N",
	 "prefix cache of a worker in blocks, 0 is unlimited; several sizes are separated by "
	 "commas (default: 0)",
	 NULL, 0, 0, NULL},
	{OPT_INT, "block-tokens", &o.block_tokens, "N",
	 "tokens per block (default: 512 with hash ids, 16 for text)", NULL, 1, 1 << 20, NULL},
	{.type = OPT_ROWS, .value = policies.rows},
	{.type = OPT_ROWS, .value = decider.rows},
	{OPT_INT, "num-requests", &o.limit, "N", "read at most N records (default: all)", NULL, 1,
	 SIM_REQUESTS_MAX, NULL},
	{OPT_REAL, "request-rate", &o.load.request_rate, "REQ/S",
	 "Poisson arrivals instead of time stamps; inf: all at once (default: the time stamps; "
	 "without them 4, or inf with a limit of requests or sessions in flight)",
	 NULL, 1e-9, INFINITY, NULL},
	{OPT_FLAG, "timestamps", &o.timestamps, NULL,
	 "arrivals at the file's own time stamps (default: on when every record has one)", NULL, 0,
	 0, NULL},
	{OPT_REAL, "speedup", &o.load.speedup, "X", "time stamps are divided by X (default: 1)",
	 NULL, 1e-6, 1e6, NULL},
	{OPT_FLAG, "spread", &o.load.spread, NULL,
	 "spread requests with equal time stamps until the next one (for coarse clocks)", NULL, 0,
	 0, NULL},
	{OPT_INT, "output-tokens", &o.load.output_tokens, "N",
	 "output length of records without one (default: 128)", NULL, 1, 1e8, NULL},
	{OPT_INT, "max-concurrency", &o.concurrency, "N",
	 "requests in flight; the others are queued (default: no limit)", NULL, 1, 1e9, NULL},
	{OPT_INT, "concurrent-sessions", &o.concurrent_sessions, "N",
	 "sessions in progress at a time (default: no limit)", NULL, 1, 1e7, NULL},
	{OPT_FLAG, "hide-keys", &o.hide_keys, NULL,
	 "policies do not see the session keys, which only say what belongs together", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "recommend", &o.recommend, NULL,
	 "try the whole family of policies (or those of --policy), five times each, and say which "
	 "flags of serve are better than the first one's (default: affinity, with a capture its "
	 "router's)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "what-if", &o.what_if, "RANGE",
	 "how many workers? workers=6..12, or prefill=1..4,decode=2..6; with --goodput a line says "
	 "which number is enough",
	 NULL, 0, 0, NULL},
	{OPT_INT, "repetitions", &way.repetitions, "N",
	 "replay each row N times with the seeds SEED, SEED + 1, ...; figures are means, and the "
	 "verdict has intervals (default: 1, or what the scenario says)",
	 NULL, 1, ARM_REPS_MAX, NULL},
	{OPT_TEXT, "objective", &way.objective, "METRIC",
	 "what is best: a metric, or a weighted sum, such as '0.7*p99_ttft_ms + 0.3*mean_tpot_ms' "
	 "(default: mean_ttft_ms, with goals goodput)",
	 NULL, 0, 0, NULL},
	{OPT_LIST, "goodput", &way.goals, "METRIC:MS",
	 "goals in ms, such as ttft:200 tpot:50 e2el:2000: how many requests keep them", NULL, 1, 3,
	 NULL},
	{OPT_INT, "regret", &way.regret, "N",
	 "what N decisions of each row cost: the replay again with the one choice changed, for "
	 "each "
	 "other worker (plain pools; N times workers replays)",
	 NULL, 1, REGRET_DECISIONS_MAX, NULL},
	{OPT_LIST, "expect", &o.expects, "TEXT",
	 "an expectation, such as 'consistent_hash: session_consistency == 1'; exit 1 if it is not "
	 "met",
	 NULL, 1, OPT_LIST_MAX, NULL},
	{.type = OPT_HEADING, .help = "simulated engine"},
	{OPT_TEXT, "profile", &profile_path, "FILE.yaml",
	 "a measured engine: times of a step and limits; options override it (default: data "
	 "sheet of Llama-3.1-8B on one H100)",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "routing-only", &o.routing_only, NULL,
	 "no engines: each request ends before the next begins; no latencies", NULL, 0, 0, NULL},
	{OPT_REAL, "prefill-tokens-per-s", &o.prefill_rate, "N",
	 "prompt tokens that a worker computes per second (default: 45455)", NULL, 1, 1e9, NULL},
	{OPT_REAL, "decode-ms-per-token", &o.engine.step_ms, "MS",
	 "fixed time of one step of a batch (default: 7)", NULL, 0.001, 1e6, NULL},
	{OPT_REAL, "decode-us-per-request", &o.engine.request_us, "US",
	 "added to a step per decoding request (default: 0)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "decode-us-per-context-token", &o.engine.context_us, "US",
	 "added to a step per token of context (default: 0.056)", NULL, 0, 1e6, NULL},
	{OPT_INT, "max-num-seqs", &o.seqs, "N", "requests in a batch (default: 256)", NULL, 1,
	 65536, NULL},
	{OPT_INT, "max-num-batched-tokens", &o.batched, "N", "tokens in a step (default: 8192)",
	 NULL, 1, 1 << 24, NULL},
	{OPT_INT, "kv-tokens", &o.kv_tokens, "N",
	 "KV memory of a worker in tokens; 0 is no limit (default: 0)", NULL, 0, 1e15, NULL},
	{OPT_REAL, "transfer-ms", &o.transfer_ms, "MS",
	 "P/D: fixed time of a hand-over (default: 1)", NULL, 0, 1e6, NULL},
	{OPT_REAL, "transfer-us-per-token", &o.transfer_us, "US",
	 "P/D: per token that the decode worker misses (default: 5.24, 128 KiB at 25 GB/s)", NULL,
	 0, 1e6, NULL},
	{.type = OPT_HEADING, .help = "calibration"},
	{OPT_TEXT, "calibrate", &calibrate.file, "FILE",
	 "fit the times of a step to a measured run: vLLM requests with times and their "
	 ".meta.json, a benchmark's result with --save-detailed, or a capture; with --profile: "
	 "test "
	 "that one",
	 NULL, 0, 0, NULL},
	{OPT_INT, "fit-first", &calibrate.fit_first, "N",
	 "fit the first N requests, predict the rest (default: a third)", NULL, 1, 1e9, NULL},
	{OPT_TEXT, "profile-out", &calibrate.profile_out, "FILE",
	 "write the fitted profile (default: only the report)", NULL, 0, 0, NULL},
	{OPT_FLAG, "prior", &calibrate.prior, NULL,
	 "with --calibrate: fit nothing, predict with what data sheets suggest", NULL, 0, 0, NULL},
	{.type = OPT_HEADING, .help = "one engine, step by step"},
	{OPT_TEXT, "engine-config", &steps.config, "FILE",
	 "with --workload FILE and --engine-steps: run one engine, or a P/D pair, with this "
	 "configuration (JSON)",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "engine-steps", &steps.steps, "FILE",
	 "write one JSON line per step: requests, tokens, preempted ones, lists, free blocks; a "
	 "pair: FILE.prefill.jsonl and FILE.decode.jsonl",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "engine-requests", &steps.requests, "FILE",
	 "the same per request: cached tokens, preemptions, first and last token", NULL, 0, 0,
	 NULL},
	{.type = OPT_HEADING, .help = "all runs"},
	{OPT_INT, "seed", &o.seed, "N",
	 "the same seed gives the same bytes (default: 1, or what the scenario says)", NULL, 0,
	 SIMULATE_SEED_MAX, NULL},
	{OPT_INT, "threads", &way.threads, "N",
	 "replays at the same time; the results do not depend on it (default: one per processor)",
	 NULL, 1, EXPERIMENT_THREADS_MAX, NULL},
	{OPT_TEXT, "shard", &way.shard, "I/N",
	 "run the I-th of N parts of the rows; pdctl results merge joins the documents", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "progress", &way.progress, NULL,
	 "say on standard error how many replays are done, and when the last one will be", NULL, 0,
	 0, NULL},
	{OPT_FLAG, "check", &way.check, NULL,
	 "read the scenario files, say what would be run, and run nothing", NULL, 0, 0, NULL},
	{OPT_FLAG, "print-schema", &print_schema, NULL,
	 "print the form of scenario files as a JSON Schema, for editors, and exit", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "json", &o.json, "FILE",
	 "write the result document; - is standard output, without the table", NULL, 0, 0, NULL},
	SIMULATE_HTML_OPTION,
	{OPT_TEXT, "json-dir", &o.json_dir, "DIR",
	 "write one document per row, as `pdctl compare` reads them", NULL, 0, 0, NULL},
	STORE_OPTS(store),
	{OPT_FLAG, "save-detailed", &detailed, NULL,
	 "add a row per request to the documents: vllm bench's lists of lengths and times", NULL, 0,
	 0, NULL},
	{OPT_TEXT, "decisions", &o.decisions, "FILE",
	 "write one JSON line per decision: request, key, workers, reasons", NULL, 0, 0, NULL},
	{OPT_FLAG, "wide", &o.wide, NULL,
	 "all columns of the table, however wide it gets (default: those that fit 100 characters)",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "charts", &charts, "WHEN",
	 "bars of requests per worker, and sparklines of requests in flight and TTFT (default: "
	 "auto, on a terminal; ascii: without block elements, which a locale without UTF-8 gets, "
	 "too)",
	 "auto|always|ascii|never", 0, 0, NULL},
	{OPT_CHOICE, "format", &o.format, "FORMAT", "of the table (default: text)", "text|md", 0, 0,
	 NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "simulate",
	.usage = "pdctl simulate SCENARIO.yaml... | --workload FILE [options]",
	.summary = "replay workloads on virtual workers, before deploying a policy",
	.about = "Replays requests in virtual time through the router's own decision code and "
		 "reports, per policy:\n"
		 "sessions kept on one worker, balance, idle workers, prefix cache hits, keys "
		 "moved when a worker leaves\n"
		 "or joins, and predicted latencies of a simulated engine (marked *: trust their "
		 "order, not their size).\n"
		 "The number in brackets behind peak/mean is what a perfect hash would reach with "
		 "these sessions; behind\n"
		 "keys moved it is the ideal. Exit 1 when an expectation is not met, 2 for wrong "
		 "input.",
	.examples = "  $ pdctl simulate scenarios/*.yaml\n"
		    "      the scenarios that ship, one table, each with its expectations\n"
		    "  $ pdctl simulate --workload trace.jsonl --workers 4,8 --policy "
		    "consistent_hash,round_robin --cache-blocks 0,1000\n"
		    "      which policy keeps the caches warm, with how many workers?\n"
		    "  $ pdctl simulate --workload trace.jsonl --workers 8 --policy all --spread "
		    "--json - | jq '.pdctl.arms[].pdctl.policy'\n"
		    "      all policies as one document",
	.opts = opts,
};

static int fail(int err, const struct pd_msg *msg)
{
	if (err == PD_EINVAL || err == PD_ENOENT || err == PD_ETOOBIG || err == PD_EPROTO ||
	    err == PD_EIO)
		return cli_usage_error(&command, msg);
	return cli_runtime_error(&command, msg);
}

/* Everything that a run holds; one release. */
struct session {
	struct experiment *done; /* owned */
	size_t n;
	struct scenario **scenario;    /* owned; NULL entries for the command line */
	struct experiment_spec **spec; /* owned, with their entries */
	size_t most;		       /* entries of these lists */
	struct table table;
	cJSON *docs;	     /* owned array, one document per arm */
	cJSON *wholes;	     /* owned array, one object per experiment */
	struct buf verdicts; /* lines */
	struct buf recommended, drawn;
	enum { CHARTS_NONE, CHARTS_ASCII, CHARTS_BLOCKS } charts;
	struct buf agreement; /* lines about captures, and requests that did not complete */
	struct buf decisions;
	bool mark, want_docs, several;
	size_t missed;
};

static void session_release(struct session *s)
{
	for (size_t i = 0; i < s->n; i++)
		experiment_release(&s->done[i]);
	for (size_t i = 0; s->scenario && s->spec && i < s->most; i++) {
		scenario_free(s->scenario[i]);
		free(s->spec[i]);
	}
	free(s->done);
	free(s->scenario);
	free(s->spec);
	table_release(&s->table);
	buf_release(&s->agreement);
	buf_release(&s->decisions);
	buf_release(&s->verdicts);
	buf_release(&s->recommended);
	buf_release(&s->drawn);
	cJSON_Delete(s->docs);
	cJSON_Delete(s->wholes);
}

static int collect_docs(struct session *s, const struct experiment *e, const struct simreport *r)
{
	cJSON *whole = simreport_whole(r);

	if (!whole || !cJSON_AddItemToArray(s->wholes, whole))
		return PD_ENOMEM;
	simreport_whole_judged(r, whole);
	for (size_t i = 0; i < r->arms->n; i++) {
		cJSON *doc = r->arms->arm[i].done ? simreport_arm(r, i) : NULL;

		if (!doc)
			continue;
		simreport_arm_judged(r, i, doc);
		if (r->arms->arm[i].cfg.detailed &&
		    simreport_detail(&r->arms->arm[i], &e->load[r->arms->arm[i].load].trace, doc))
			return PD_ENOMEM;
		if (!cJSON_AddItemToArray(s->docs, doc))
			return PD_ENOMEM;
	}
	return PD_OK;
}

static int collect(struct session *s, const struct experiment *e, struct pd_msg *msg)
{
	struct simreport r = experiment_report(e);
	struct buf missed;
	int err;

	r.number = s->n - 1;
	simreport_rows(&r, s->mark, &s->table);
	if (simreport_remarks(&r, &s->agreement))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	if (o.recommend && r.verdict && recommend_lines(r.verdict, &e->arms, &s->recommended))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	if (s->charts != CHARTS_NONE && simreport_charts(&r, s->charts == CHARTS_ASCII, &s->drawn))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = simreport_verdict(&r, s->several, o.wide ? 0 : TABLE_WIDTH, &s->verdicts);
	if (!err && s->want_docs)
		err = collect_docs(s, e, &r);
	if (err)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	if (e->expected.missed == 0)
		return PD_OK;
	s->missed += e->expected.missed;
	buf_init(&missed, OUT_MAX);
	err = simreport_missed(&r, &missed);
	if (!err)
		(void)fwrite(missed.data, 1, missed.len, stderr);
	buf_release(&missed);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

static int print_table(struct session *s, struct pd_msg *msg)
{
	char note[256] =
		"\n* ms, simulated; the engine's defaults come from data sheets and are not\n"
		"  calibrated, and means of such were up to 20 % off: trust the order\n";
	bool md = o.format && strcmp(o.format, "md") == 0;
	struct buf out;
	int err;

	buf_init(&out, OUT_MAX);
	if (!md && s->verdicts.len > 0) {
		cli_print(s->verdicts.data, s->verdicts.len);
		cli_print(s->recommended.data ? s->recommended.data : "", s->recommended.len);
		cli_print("\n", 1);
	}
	simreport_fit(&s->table, md || o.wide ? 0 : TABLE_WIDTH, &s->agreement);
	err = md ? table_markdown(&s->table, &out) : table_text(&s->table, &out);
	if (!err) {
		simulate_print(out.data, out.len);
		if (o.engine.profile[0] && o.engine.band_percent >= 0)
			(void)snprintf(note, sizeof(note),
				       "\n* ms, simulated; profile %s: means within %.2g %% of "
				       "measured ones\n  that were not fitted\n",
				       o.engine.profile, o.engine.band_percent);
		if (s->drawn.len > 0) {
			cli_print("\n", 1);
			cli_print(s->drawn.data, s->drawn.len);
		}
		cli_print(note, strlen(note));
		if (s->agreement.len > 0)
			cli_print(s->agreement.data, s->agreement.len);
	}
	buf_release(&out);
	return err ? pd_fail(msg, err, "cannot build the table: %s", pd_err_text(err)) : PD_OK;
}

/* One arm: its own document. Several: an object with the documents under "arms". */
static int write_json(struct session *s, struct pd_msg *msg)
{
	cJSON *all, *pdctl, *shard;
	int err;

	if (cJSON_GetArraySize(s->docs) == 1 && way.of == 0)
		return json_out(o.json, cJSON_GetArrayItem(s->docs, 0), msg);
	all = cJSON_CreateObject();
	pdctl = simreport_head(all);
	if (pdctl && way.of > 0) {
		shard = cJSON_AddObjectToObject(pdctl, "shard");
		(void)cJSON_AddNumberToObject(shard, "index", (double)way.index + 1);
		(void)cJSON_AddNumberToObject(shard, "of", (double)way.of);
	}
	if (!pdctl || !cJSON_AddItemReferenceToObject(pdctl, "experiments", s->wholes) ||
	    !cJSON_AddItemReferenceToObject(pdctl, "arms", s->docs))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	else
		err = json_out(o.json, all, msg);
	cJSON_Delete(all);
	return err;
}

static int write_one_each(const struct session *s, struct pd_msg *msg)
{
	char name[256], path[4096];
	int at = 0, err = PD_OK;

	for (size_t i = 0; !err && i < s->n; i++) {
		const struct experiment *e = &s->done[i];

		for (size_t k = 0; !err && k < e->arms.n; k++) {
			const struct arm *a = &e->arms.arm[k];
			const char *source = e->name ? e->name : "workload";

			if (!a->done)
				continue;
			(void)snprintf(name, sizeof(name),
				       "%.60s-%.60s-w%u-c%" PRIu64 "%s%.80s.json", source,
				       a->policy, a->workers, a->cache, a->point[0] ? "-" : "",
				       a->point);
			simulate_file_name(name);
			(void)snprintf(path, sizeof(path), "%.3800s/%s", o.json_dir, name);
			err = json_out(path, cJSON_GetArrayItem(s->docs, at++), msg);
		}
	}
	return err;
}

/* All rows in one transaction; the same bytes as --json-dir writes. */
static int store_runs(const struct session *s, struct pd_msg *msg)
{
	int n = cJSON_GetArraySize(s->docs), err = PD_OK;
	struct span *doc = calloc(n > 0 ? (size_t)n : 1, sizeof(*doc));
	char *text;

	for (int i = 0; doc && !err && i < n; i++) {
		text = cJSON_Print(cJSON_GetArrayItem(s->docs, i));
		if (text) {
			doc[i] = (struct span){text, strlen(text) + 1};
			text[doc[i].n - 1] = '\n';
		} else {
			err = PD_ENOMEM;
		}
	}
	if (doc && !err)
		(void)store_opts_save(&store, "simulate", doc, (size_t)n);
	for (int i = 0; doc && i < n; i++)
		cJSON_free((void *)doc[i].p);
	err = doc ? err : PD_ENOMEM;
	free(doc);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

/* Files first: when one cannot be written nothing was printed. */
static int output(struct session *s, struct pd_msg *msg)
{
	bool instead = o.json && strcmp(o.json, "-") == 0;
	int err = o.json_dir ? write_one_each(s, msg) : PD_OK;

	if (!err && o.json)
		err = write_json(s, msg);
	err = err ? err : simulate_html_write(s->docs, msg);
	if (!err && o.decisions)
		err = file_write(o.decisions, s->decisions.data ? s->decisions.data : "",
				 s->decisions.len, msg);
	if (!err && !instead)
		err = print_table(s, msg);
	for (size_t i = 0; !err && i < s->n; i++) {
		const struct experiment *e = &s->done[i];

		for (size_t l = 0; l < e->nloads; l += e->repetitions)
			workload_opts_say(e->load[l].summary.note, e->load[l].summary.nnotes);
	}
	if (!err && store_opts_path(&store))
		err = store_runs(s, msg);
	return err;
}

struct progress {
	int64_t begun, said;
};

static void say_progress(void *ctx, size_t done, size_t total)
{
	struct progress *p = ctx;
	int64_t now = clock_now(), spent = now - p->begun;

	if (done < total && now - p->said < NS_PER_S)
		return;
	p->said = now;
	(void)fprintf(stderr, "pdctl simulate: %zu of %zu replays, %.0f s left\n", done, total,
		      (double)spent / 1e9 / (double)done * (double)(total - done));
}

static size_t processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

static int run_one(struct session *s, const struct experiment_spec *spec, size_t nspecs,
		   struct pd_msg *msg)
{
	struct experiment *e = &s->done[s->n];
	struct progress progress = {.begun = clock_now(), .said = clock_now()};
	const struct experiment_options opt = {.threads = way.threads > 0 ? (size_t)way.threads
									  : processors(),
					       .shard = way.index,
					       .shards = way.of,
					       .keep_traces = o.decisions != NULL,
					       .detailed = detailed,
					       .progress = way.progress ? say_progress : NULL,
					       .progress_ctx = &progress};
	int err = experiment_run(spec, nspecs, &opt, e, msg);

	if (err)
		return err;
	s->n++;
	if (o.decisions)
		err = decisions_append(e, &s->decisions, msg);
	return err ? err : collect(s, e, msg);
}

/* What the command line says for scenario files, too. */
static void override(struct experiment_spec *spec, bool seed)
{
	if (seed)
		spec->plan.seed = spec->load.seed = (uint64_t)o.seed;
	if (way.repetitions > 0)
		spec->repetitions = (size_t)way.repetitions;
	if (way.rules.objective.n > 0)
		spec->rules.objective = way.rules.objective;
	spec->plan.regret = (size_t)way.regret;
	if (way.goals.n > 0)
		spec->plan.goals = way.goal;
}

static int run_file(struct session *s, const char *file, bool seed, struct pd_msg *msg)
{
	struct scenario *c;
	struct experiment_spec *spec;
	size_t n;
	int err = scenario_load(&c, file, msg);

	if (err)
		return err;
	s->scenario[s->n] = c;
	n = scenario_points(c);
	spec = calloc(n, sizeof(*spec));
	s->spec[s->n] = spec;
	if (!spec)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	memcpy(spec, scenario_spec(c), n * sizeof(*spec));
	for (size_t i = 0; i < n; i++)
		override(&spec[i], seed);
	return run_one(s, spec, n, msg);
}

static int run_all(struct session *s, int argc, char **argv, const struct opt_list *files,
		   struct pd_msg *msg)
{
	struct workload_options file = {0};
	size_t n;
	int err;

	if (o.workload) {
		if (opt_given(&command, argc, argv, "timestamps"))
			o.load.arrivals = o.timestamps ? SIMLOAD_STAMPS : SIMLOAD_MADE;
		else
			o.load.arrivals = SIMLOAD_AUTO;
		workload_opts_take(&file);
		o.load.format = file.format;
		o.load.unit = file.unit;
		err = simulate_args_spec(&o, &n, msg);
		for (size_t i = 0; !err && i < n; i++) {
			override(&o.spec[i], false);
			if (o.recommend && !o.spec[i].repetitions)
				o.spec[i].repetitions = RECOMMEND_REPETITIONS;
		}
		return err ? err : run_one(s, o.spec, n, msg);
	}
	for (size_t i = 0; i < files->n; i++) {
		err = run_file(s, files->items[i], opt_given(&command, argc, argv, "seed"), msg);
		if (err)
			return err;
	}
	return PD_OK;
}

/* Options beside the fitting ones are refused, and the message says why. */
static int others_refused(int argc, char **argv, const char *const *fitting, const char *why,
			  struct pd_msg *msg)
{
	struct opt_walk walk = {.at = opts};

	for (const struct opt *p; (p = opt_next(&walk));) {
		bool fits = p->type == OPT_HEADING;

		for (size_t i = 0; fitting[i] && !fits; i++)
			fits = strcmp(fitting[i], p->name) == 0;
		if (!fits && opt_given(&command, argc, argv, p->name))
			return pd_fail(msg, PD_EINVAL, "--%s %s", p->name, why);
	}
	return PD_OK;
}

/* Options that describe a workload do not go with scenario files, which describe their own. */
static int check_use(int argc, char **argv, const struct opt_list *files, struct pd_msg *msg)
{
	static const char *const both[] = {"seed",	    "json",	   "json-dir", "format",
					   "wide",	    "store",	   "no-store", "decisions",
					   "save-detailed", "threads",	   "shard",    "progress",
					   "check",	    "objective",   "regret",   "goodput",
					   "charts",	    "repetitions", "html",     NULL};
	static const char *const fitting[] = {"calibrate", "fit-first", "profile-out", "profile",
					      "prior",	   "json",	NULL};
	static const char *const exact[] = {"workload", "capture-run", "replay",     "policy",
					    "json",	"decisions",   "epp-config", NULL};
	static const char *const single[] = {"workload", "engine-config", "engine-steps",
					     "engine-requests", NULL};

	if (calibrate.file) {
		if (files->n > 0 || o.workload)
			return pd_fail(
				msg, PD_EINVAL,
				"--calibrate: expected neither --workload nor scenario files");
		return others_refused(argc, argv, fitting, "does not go with --calibrate", msg);
	}
	if (detailed && (o.routing_only || !(o.json || o.json_dir || store_opts_path(&store))))
		return pd_fail(
			msg, PD_EINVAL,
			"--save-detailed: expected --json, --json-dir or --store, and engines "
			"(no --routing-only)");
	if (replay && (!o.workload || files->n > 0))
		return pd_fail(msg, PD_EINVAL, "--replay: expected --workload with a capture");
	if (replay && strcmp(replay, "exact") == 0)
		return others_refused(argc, argv, exact, "does not go with --replay exact", msg);
	if (replay && !capture_file_is(o.workload))
		return pd_fail(msg, PD_EINVAL, "--replay: '%.300s' is not a capture of pdctl serve",
			       o.workload);
	if (calibrate.fit_first || calibrate.profile_out || calibrate.prior)
		return pd_fail(msg, PD_EINVAL,
			       "--fit-first, --profile-out and --prior go with --calibrate");
	if (steps.config || steps.steps || steps.requests) {
		if (!steps.config || !steps.steps || !o.workload || files->n > 0)
			return pd_fail(msg, PD_EINVAL,
				       "expected --workload FILE, --engine-config FILE and "
				       "--engine-steps FILE together, without scenario files");
		return others_refused(argc, argv, single, "does not go with --engine-config", msg);
	}
	if (!o.workload && files->n == 0)
		return pd_fail(msg, PD_EINVAL,
			       "nothing to simulate: expected scenario files or --workload FILE");
	if (o.workload && files->n > 0)
		return pd_fail(msg, PD_EINVAL,
			       "'%s' and --workload: expected scenario files or --workload, not "
			       "both",
			       files->items[0]);
	if (o.workload)
		return PD_OK;
	return others_refused(argc, argv, both, "goes with --workload; a scenario file has its own",
			      msg);
}

static void choose_charts(struct session *s)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
	const char *locale = NULL;
	bool utf8;

	for (size_t i = 0; i < 3 && !(locale && locale[0]); i++)
		locale = getenv(names[i]);
	utf8 = locale && (strcasestr(locale, "UTF-8") || strcasestr(locale, "UTF8"));
	if (charts && strcmp(charts, "ascii") == 0)
		s->charts = CHARTS_ASCII;
	else if ((charts && strcmp(charts, "always") == 0) ||
		 ((!charts || strcmp(charts, "auto") == 0) && isatty(STDOUT_FILENO)))
		s->charts = utf8 ? CHARTS_BLOCKS : CHARTS_ASCII;
}

int cmd_simulate(int argc, char **argv)
{
	struct profile profile;
	struct session s = {0};
	struct opt_list files = {0};
	struct pd_msg msg = {.text = ""};
	int code, err;

	simulate_args_defaults(&o);
	policy_opts_init(&policies, "default: ");
	decider_opts_init(&decider);
	code = cli_parse(&command, argc, argv, &files);
	if (code < 0 && print_schema) {
		cJSON *schema = scenario_json_schema();

		err = json_out("-", schema, &msg);
		cJSON_Delete(schema);
		code = err ? fail(err, &msg) : EXIT_OK;
	} else if (code < 0 && calibrate.file) {
		err = check_use(argc, argv, &files, &msg);
		calibrate.profile = profile_path;
		calibrate.json = o.json;
		err = err ? err : simulate_calibrate_run(&calibrate, &msg);
		code = err ? fail(err, &msg) : EXIT_OK;
	} else if (code < 0 && steps.config) {
		err = check_use(argc, argv, &files, &msg);
		err = err ? err : simulate_steps_run(&steps, o.workload, &msg);
		code = err ? fail(err, &msg) : EXIT_OK;
	} else if (code < 0 && replay && strcmp(replay, "exact") == 0) {
		struct simulate_exact exact = {.workload = o.workload,
					       .json = o.json,
					       .decisions = o.decisions,
					       .epp_config = o.epp_config,
					       .policies = &o.policies,
					       .run = o.capture_run};
		bool agreed = true;

		err = check_use(argc, argv, &files, &msg);
		err = err ? err : simulate_exact_run(&exact, &agreed, &msg);
		code = err ? fail(err, &msg) : agreed ? EXIT_OK : EXIT_FINDING;
	} else if (code < 0) {
		err = check_use(argc, argv, &files, &msg);
		err = err || !profile_path ? err
					   : profile_opts_read(&command, argc, argv, profile_path,
							       &profile, &o.engine, &msg);
		err = err ? err : policy_opts_check(&policies, &msg);
		err = err ? err : simulate_way_read(&way, &msg);
		if (!err && way.check) {
			err = simulate_check(&files, &msg);
			opt_list_release(&files);
			simulate_args_release(&o);
			return err ? fail(err, &msg) : EXIT_OK;
		}
		decider_opts_spec(&decider, &o.decider);
		o.settings = policies.settings;
		s.mark = cli_colour(STDOUT_FILENO) && !(o.format && strcmp(o.format, "md") == 0);
		s.want_docs = o.json || o.json_dir || simulate_html || store_opts_path(&store);
		s.done = calloc(files.n + 1, sizeof(*s.done));
		s.scenario = calloc(files.n + 1, sizeof(struct scenario *));
		s.spec = calloc(files.n + 1, sizeof(struct experiment_spec *));
		s.most = files.n + 1;
		s.several = files.n > 1;
		s.wholes = cJSON_CreateArray();
		buf_init(&s.verdicts, OUT_MAX);
		buf_init(&s.recommended, OUT_MAX);
		buf_init(&s.drawn, OUT_MAX);
		choose_charts(&s);
		s.docs = cJSON_CreateArray();
		table_init(&s.table);
		buf_init(&s.agreement, OUT_MAX);
		buf_init(&s.decisions, DECISIONS_MAX);
		simreport_columns(&s.table);
		if (!err && (!s.done || !s.scenario || !s.spec || !s.docs || !s.wholes))
			err = pd_fail(&msg, PD_ENOMEM, "out of memory");
		if (!err)
			err = run_all(&s, argc, argv, &files, &msg);
		if (!err)
			err = output(&s, &msg);
		code = err ? fail(err, &msg) : s.missed ? EXIT_FINDING : EXIT_OK;
	}
	session_release(&s);
	opt_list_release(&files);
	simulate_args_release(&o);
	return code;
}
