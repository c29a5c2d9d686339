/*
 * docs/metrics.md as text: the rows of metrics_table.h, and the names of vllm-router that are not
 * there. A page that is printed by the program cannot describe another version of it.
 */
#include "lib/router/watch/metricsdoc.h"

#include "lib/router/watch/metrics.h"

static const char intro[] =
	"# Metrics\n\n"
	"What `/metrics` shows, also on `--prometheus-port`. This page is what `pdctl serve "
	"--list-metrics` prints; a test\n"
	"makes each of these families move. Questions and the queries that answer them: "
	"[watching a router](watching.md).\n\n"
	"Names that begin with `vllm_router_` are vllm-router's and mean the same, so its "
	"dashboards work. Where vllm-router\n"
	"declares a name and never records it (request duration, worker load, stream errors, "
	"discovery), it is recorded here.\n"
	"`vllm_router_pd_decode_pending_seconds` is a summary there and a histogram here: the "
	"same `_sum` and `_count`, and\n"
	"quantiles over several routers. Times are in seconds, counters start at 0 with the "
	"process.\n";

static const char worker_note[] =
	"\nEach has the labels `worker` (the URL, with `@rank`), `stage` (`regular`, `prefill`, "
	"`decode`), and `name` when the\n"
	"worker has a name of its own; those of one stage only exist for workers of that stage. "
	"They live and die with the worker:\n"
	"a reload that keeps it keeps its counters.\n\n";

static const char missing[] =
	"\n## Names of vllm-router that are not there\n\n"
	"A metric that cannot move is not shown. There is nothing to count for:\n\n"
	"| name | because |\n|---|---|\n"
	"| `vllm_router_tree_size`, `vllm_router_cache_hits_total`, "
	"`vllm_router_cache_misses_total`, `vllm_router_load_balancing_events_total`, "
	"`vllm_router_max_load`, `vllm_router_min_load` | they belong to the policy "
	"`cache_aware`, which counts in `pdctl_decisions_total` here |\n"
	"| `vllm_router_prefix_routing_decisions_total`, "
	"`vllm_router_kv_placement_lookups_total`, `vllm_router_kv_routing_inputs_total` | "
	"`cache_aware` and `kv_aware`; `pdctl_decisions_total` has the reasons of our policies |\n"
	"| `vllm_router_pd_prefill_decisions_total`, `vllm_router_pd_new_prefill_tokens`, "
	"`vllm_router_pd_credited_prefix_tokens_total`, `vllm_router_pd_kv_prepare_seconds`, "
	"`vllm_router_pd_identity_verified`, `vllm_router_pd_affinity_decisions_total` | "
	"`kv_aware` |\n"
	"| `vllm_router_pd_active_prefill_tokens`, `vllm_router_pd_unknown_prefill_requests` | "
	"the router has no tokenizer and counts requests, not tokens |\n"
	"| `vllm_router_agent_aware_*`, `vllm_router_workflow_*` | program scheduling |\n"
	"| `vllm_tokenizer_*` | there is no tokenizer |\n";

static const char worker_values[] =
	"| `policy` | as `--policy` |\n"
	"| `from`, `to` | `closed` `open` `half_open` |\n"
	"| `outcome` | `success` `failure` |\n"
	"| `result` of `pdctl_health_checks_total` | `ok` `failed` |\n"
	"| `rank` | a number, or `aggregate` for a worker without ranks |\n"
	"| `state` | `available` `starting` `draining` `removing` `ejected` `unhealthy` "
	"`unresolved` "
	"`stalled` `open` `half_open` |\n"
	"| `log` | `main` `access` |\n"
	"| `kind` | `request` `decision` `release` |\n"
	"| `loss` | `queue_full` `write_error` |\n"
	"| `version` | as `pdctl --version` |\n";

static int heading(struct buf *out, const char *title)
{
	return buf_printf(out, "\n## %s\n", title);
}

static int table(struct buf *out)
{
	return buf_puts(out, "\n| metric | type | labels | what it is | moves when |\n"
			     "|---|---|---|---|---|\n");
}

static int row(struct buf *out, const char *name, const char *type, const char *labels,
	       const char *help, const char *moves)
{
	return buf_printf(out, "| `%s` | %s | %s | %s | %s |\n", name, type, labels, help, moves);
}

#define COUNTER_TEXT(id, a, b, name, help, moves)   {name, help, moves},
#define HIST_TEXT(id, a, bounds, name, help, moves) {name, help, moves},
#define WORKER_TEXT(id, type, labels, roles, name, help, moves)                                    \
	{name, TYPE_##type, EXTRA_##labels, help, moves},
#define SINGLE_TEXT(id, type, labels, name, help, moves) {name, TYPE_##type, labels, help, moves},
#define TYPE_COUNTER					 "counter"
#define TYPE_GAUGE					 "gauge"
#define EXTRA_NONE					 ""
#define EXTRA_POLICY					 "policy"
#define EXTRA_SHADOW					 "policy"
#define EXTRA_FROM_TO					 "from, to"
#define EXTRA_OUTCOME					 "outcome"
#define EXTRA_STATUS					 "status"
#define EXTRA_RESULT					 "result"
#define EXTRA_TOKENS					 "model, kind"
#define EXTRA_RANK					 "rank"

static const struct {
	const char *name, *help, *moves;
} counters[] = {METRICS_COUNTERS(COUNTER_TEXT)}, hists[] = {METRICS_HISTOGRAMS(HIST_TEXT)};

static const struct {
	const char *name, *type, *labels, *help, *moves;
} workers[] = {METRICS_WORKERS(WORKER_TEXT)}, singles[] = {METRICS_SINGLES(SINGLE_TEXT)};

static int put_counters(struct buf *out)
{
	struct buf labels;
	int err = heading(out, "Requests and decisions");

	err = err ? err : table(out);
	for (unsigned c = 0; !err && c < METRICS_COUNTERS_N; c++) {
		buf_init(&labels, 256);
		err = metrics_counter_labels(&labels, (enum metrics_counter)c);
		err = err ? err
			  : row(out, counters[c].name, "counter", labels.data, counters[c].help,
				counters[c].moves);
		buf_release(&labels);
	}
	return err;
}

static int put_hists(struct buf *out)
{
	int err = heading(out, "Times");

	err = err ? err : table(out);
	for (unsigned h = 0; !err && h < METRICS_HISTS_N; h++)
		err = row(out, hists[h].name, "histogram", metrics_hist_label((enum metrics_hist)h),
			  hists[h].help, hists[h].moves);
	return err;
}

static int put_rest(struct buf *out)
{
	int err = heading(out, "Workers");

	err = err ? err : buf_puts(out, worker_note);
	err = err ? err
		  : buf_puts(out, "| metric | type | more labels | what it is | moves when |\n"
				  "|---|---|---|---|---|\n");
	for (size_t i = 0; !err && i < sizeof(workers) / sizeof(workers[0]); i++)
		err = row(out, workers[i].name, workers[i].type, workers[i].labels, workers[i].help,
			  workers[i].moves);
	err = err ? err : heading(out, "Pools, queue, connections, process");
	err = err ? err : table(out);
	for (size_t i = 0; !err && i < sizeof(singles) / sizeof(singles[0]); i++)
		err = row(out, singles[i].name, singles[i].type, singles[i].labels, singles[i].help,
			  singles[i].moves);
	return err;
}

int metrics_markdown(struct buf *out)
{
	int err = buf_puts(out, intro);

	err = err ? err : put_counters(out);
	err = err ? err : put_hists(out);
	err = err ? err : put_rest(out);
	err = err ? err
		  : buf_puts(out, "\n## Values of labels\n\nNo label holds anything that a client "
				  "chooses.\n\n| label | values |\n|---|---|\n");
	err = err ? err : metrics_label_values(out);
	err = err ? err : buf_puts(out, worker_values);
	return err ? err : buf_puts(out, missing);
}
