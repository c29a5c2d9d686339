/* pdctl compare: options, which file belongs to which side, printing, exit code. The judgement is
 * in lib/results. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/bars_opts.h"
#include "cmd/cmd.h"
#include "cmd/compare_input.h"
#include "cmd/store_opts.h"
#include "lib/base/cli.h"
#include "lib/base/file.h"
#include "lib/page/html_report.h"
#include "lib/results/compare_bars.h"
#include "lib/results/compare_config.h"
#include "lib/results/compare_export.h"
#include "lib/results/compare_policy.h"
#include "lib/results/compare_sweep.h"
#include "lib/results/compare_text.h"

#define REPORT_MAX ((size_t)64 << 20)
#define FORMS	   "text|md|json|junit|gha-bench|gha-bench-bigger|gha-annotations"

static struct options {
	struct opt_list vs, fail_on, warn_on, require, reports;
	double alpha, level;
	int64_t min_runs;
	bool strict, quiet, pairs, single, bootstrap;
	const char *format, *metrics, *preset, *output, *allow, *policy, *run_spread, *detect,
		*html, *bars;
	struct store_opts store;
} o;

static const struct opt table[] = {
	{OPT_HEADING, NULL, NULL, NULL, "what is compared", NULL, 0, 0, NULL},
	{OPT_LIST, "vs", &o.vs, "RUNS",
	 "the runs of the new side: files, quoted patterns, @REF of the store; may be repeated for "
	 "a third side",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "pairs", &o.pairs, NULL,
	 "run i of the base belongs to run i of the new side: taken in turns, they share what "
	 "drifts",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "metrics", &o.metrics, "LIST",
	 "comma-separated metrics or patterns ('*_ttft_ms', all); default: the figures both sides "
	 "have",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "preset", &o.preset, "NAME",
	 "a fixed list of metrics; infinilm: its nine, in its order", "infinilm", 0, 0, NULL},
	{OPT_TEXT, "allow-different", &o.allow, "KEYS",
	 "what may differ, comma-separated, or all; otherwise exit 3", NULL, 0, 0, NULL},
	{OPT_TEXT, "store", &o.store.path, "FILE",
	 "the store of @REF; default results/pdctl.db, or $PDCTL_STORE", NULL, 0, 0, NULL},
	{OPT_HEADING, NULL, NULL, NULL, "gates", NULL, 0, 0, NULL},
	{OPT_LIST, "fail-on", &o.fail_on, "GATE",
	 "METRIC:+N%, METRIC:-N% or METRIC:N% (worse by N %); exit 1 when exceeded; repeatable",
	 NULL, 1, 1, NULL},
	{OPT_LIST, "warn-on", &o.warn_on, "GATE", "the same, but only a warning; repeatable", NULL,
	 1, 1, NULL},
	{OPT_LIST, "require", &o.require, "GATE",
	 "METRIC<=N, >=, < or >: must hold in every new run; repeatable", NULL, 1, 1, NULL},
	{OPT_TEXT, "policy", &o.policy, "FILE",
	 "gates and rules from a YAML file; options on the command line win", NULL, 0, 0, NULL},
	{OPT_REAL, "gate-level", &o.level, "P",
	 "how often a change of just the limit may fail its gate; all gates together; default 0.1",
	 NULL, 0.0001, 0.5, NULL},
	{OPT_INT, "min-runs", &o.min_runs, "N",
	 "runs per side needed for a statistical verdict; default 4", NULL, 2, RESULT_DOCS_MAX,
	 NULL},
	{OPT_TEXT, "run-spread", &o.run_spread, "N%",
	 "fewer runs: the spread between runs that is assumed; default 2.5%", NULL, 0, 0, NULL},
	{OPT_FLAG, "single", &o.single, NULL,
	 "too few runs without details: the plain change decides, instead of exit 4", NULL, 0, 0,
	 NULL},
	{OPT_FLAG, "bootstrap", &o.bootstrap, NULL,
	 "judge by the hierarchical bootstrap of runs and requests, where all runs have details",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "strict", &o.strict, NULL,
	 "exit 4 instead of a pass for a change beyond the limit that is not proven", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "detect", &o.detect, "N%",
	 "the change that a gate should find, for the number of runs it names; default: twice its "
	 "limit",
	 NULL, 0, 0, NULL},
	{OPT_REAL, "alpha", &o.alpha, "P",
	 "of the table's intervals and marks, two-sided; 0.0001 to 0.5; default 0.05", NULL, 0.0001,
	 0.5, NULL},
	{OPT_HEADING, NULL, NULL, NULL, "output", NULL, 0, 0, NULL},
	{OPT_CHOICE, "format", &o.format, "FORM",
	 "text (default), md, json, junit, gha-bench (lower is better), gha-bench-bigger, "
	 "gha-annotations",
	 FORMS, 0, 0, NULL},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "write the report to this file instead of standard output", NULL, 0, 0, NULL},
	{OPT_LIST, "report", &o.reports, "FORM=FILE", "write it in this form too; repeatable", NULL,
	 1, 1, NULL},
	{OPT_TEXT, "html", &o.html, "FILE",
	 "write a report with charts, one HTML file that needs nothing else (docs/reports.md)",
	 NULL, 0, 0, NULL},
	BARS_OPTION(o.bars),
	{OPT_FLAG, "quiet", &o.quiet, NULL,
	 "no report on standard output; failed gates go to standard error", NULL, 0, 0, NULL},
	{OPT_END, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};

static const struct opt_command command = {
	.name = "compare",
	.usage = "pdctl compare [options] BASE NEW\n"
		 "       pdctl compare [options] BASE... --vs NEW...\n"
		 "       pdctl compare [options] LABEL=RUNS...",
	.summary =
		"tell whether a new result is worse than an old one, beyond noise: a gate for CI",
	.about = "Reads results of pdctl bench, pdctl simulate, vllm bench serve (also files "
		 "written with\n"
		 "--append-result), SGLang's bench_serving, AIPerf and guidellm; files, quoted "
		 "patterns, and runs of\n"
		 "the store: @last, @last~1, @LABEL, @12. A sweep is compared setting by "
		 "setting.\n\n"
		 "One run per side proves little: p99 TTFT of the same server may differ by a "
		 "factor of five from\n"
		 "run to run. With four or more runs per side a gate fails when the runs "
		 "contradict \"not beyond the\n"
		 "limit\"; with fewer it needs per-request values (--save-detailed), else it is "
		 "inconclusive. Take\n"
		 "the runs in turns: old, new, old, new, ... and compare with --pairs.\n\n"
		 "Exit codes: 0 ok; 1 a gate failed; 2 usage or unreadable input; 3 not comparable "
		 "(different\n"
		 "settings or outcomes, or a gate's metric has no sample); 4 inconclusive.",
	.examples =
		"  $ pdctl compare old.json new.json\n"
		"        what changed, and in which direction\n"
		"  $ pdctl compare 'old-*.json' --vs 'new-*.json' --fail-on 'p99_ttft_ms:+5%' "
		"--fail-on 'request_throughput:-3%'\n"
		"        the CI gate: several runs per side\n"
		"  $ pdctl compare @main --vs @pr-17 --pairs --policy gates.yaml\n"
		"        runs of the store by label, taken in turns\n"
		"  $ pdctl compare --require 'p99_ttft_ms<=500' --require 'failed<=0' new.json\n"
		"        a service level for one side alone\n"
		"  $ pdctl compare --preset infinilm single=a.json roundrobin=b.json cache=c.json\n"
		"        three deployments; the first is the base\n"
		"  $ pdctl compare old.json new.json --report md=summary.md --report "
		"junit=gates.xml\n"
		"        the table here, a job summary and test cases in files\n",
	.opts = table,
};

struct run {
	struct compare all;   /* until it is split into settings */
	struct compare *part; /* owned */
	size_t nparts;
	struct compare_policy policy;
	struct gate gate[GATES_MAX];
	size_t ngates;
	struct gate_result *result; /* owned */
	size_t nresults;
	struct pd_msg msg;
};

/* "label=path": the label ends at the first '=' and holds no '/', and no '@' of a reference. */
static size_t label_length(const char *word)
{
	size_t n = strcspn(word, "=/@");

	return word[n] == '=' ? n : 0;
}

static int add_runs(struct run *r, const char *label, const char *word)
{
	size_t n = label_length(word);
	struct compare_side *side;
	int err = compare_side_named(&r->all, n ? (struct span){word, n} : span_of(label), &side,
				     &r->msg);

	return err ? err
		   : compare_input(&side->runs, n ? word + n + 1 : word, store_opts_path(&o.store),
				   &r->msg);
}

/* Which side a positional word belongs to when it has no label. */
static int read_base(struct run *r, const struct opt_list *rest)
{
	size_t labels = 0;
	bool pair = o.vs.n == 0 && rest->n == 2;
	int err = PD_OK;

	for (size_t i = 0; i < rest->n; i++)
		labels += label_length(rest->items[i]) > 0;
	if (rest->n == 0)
		return pd_fail(&r->msg, PD_EINVAL, "found no file, expected BASE.json NEW.json");
	if (o.vs.n == 0 && rest->n > 2 && labels < rest->n)
		return pd_fail(
			&r->msg, PD_EINVAL,
			"found %zu files, expected two, or BASE... --vs NEW..., or a label on "
			"each (old=a.json)",
			rest->n);
	for (size_t i = 0; !err && i < rest->n; i++)
		err = add_runs(r, pair && i == 1 ? "new" : "base", rest->items[i]);
	return err;
}

static int read_sides(struct run *r, const struct opt_list *rest)
{
	size_t relative = 0;
	char label[32];
	int err = read_base(r, rest);

	for (size_t i = 0; !err && i < o.vs.n; i++) {
		(void)snprintf(label, sizeof(label), o.vs.occurrence[i] ? "new%u" : "new",
			       o.vs.occurrence[i] + 1);
		err = add_runs(r, label, o.vs.items[i]);
	}
	for (size_t i = 0; i < r->ngates; i++)
		relative += r->gate[i].kind != GATE_REQUIRE;
	if (!err && r->all.nsides == 1 && (r->ngates == 0 || relative > 0))
		err = pd_fail(
			&r->msg, PD_EINVAL,
			"found one side, expected a second one to compare with (one side alone "
			"can only be checked with --require)");
	for (size_t k = 1; !err && o.pairs && k < r->all.nsides; k++)
		if (r->all.side[k].runs.n != r->all.side[0].runs.n)
			err = pd_fail(
				&r->msg, PD_EINVAL,
				"--pairs: found %zu runs in %s and %zu in %s, expected as many",
				r->all.side[0].runs.n, r->all.side[0].label, r->all.side[k].runs.n,
				r->all.side[k].label);
	return err;
}

/* -- rules and gates: the policy file, then the command line -- */

static int read_percent(const char *flag, const char *text, double *out, struct pd_msg *msg)
{
	if (!text)
		return PD_OK;
	if (!gate_percent(text, out) || *out > 10)
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s', expected a percentage such as 2.5%%", flag, text);
	return PD_OK;
}

static int read_rules(struct run *r, int argc, char **argv)
{
	struct compare_rules *rules = &r->policy.rules;
	const struct {
		const char *name;
		bool given, *rule;
	} flags[] = {{"pairs", o.pairs, &rules->pairs},
		     {"single", o.single, &rules->single},
		     {"strict", o.strict, &rules->strict},
		     {"bootstrap", o.bootstrap, &rules->bootstrap}};
	int err;

	*rules = compare_rules_default();
	err = o.policy ? compare_policy_read(&r->policy, o.policy, &r->msg) : PD_OK;
	if (err)
		return err;
	if (opt_given(&command, argc, argv, "alpha"))
		rules->alpha = o.alpha;
	if (opt_given(&command, argc, argv, "gate-level"))
		rules->level = o.level;
	if (opt_given(&command, argc, argv, "min-runs"))
		rules->min_runs = (size_t)o.min_runs;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (opt_given(&command, argc, argv, flags[i].name))
			*flags[i].rule = flags[i].given;
	err = read_percent("--run-spread", o.run_spread, &rules->run_spread, &r->msg);
	if (!err)
		err = read_percent("--detect", o.detect, &rules->detect, &r->msg);
	o.pairs = rules->pairs;
	o.strict = rules->strict;
	o.allow = o.allow ? o.allow : r->policy.allow;
	o.metrics = o.metrics ? o.metrics : r->policy.metrics;
	o.preset = o.preset ? o.preset : r->policy.preset;
	return err ? err : compare_config_allow(o.allow, &r->msg);
}

static int read_gates(struct run *r)
{
	const struct opt_list *lists[] = {&o.fail_on, &o.warn_on, &o.require};
	int err;

	memcpy(r->gate, r->policy.gate, r->policy.ngates * sizeof(r->gate[0]));
	r->ngates = r->policy.ngates;
	for (unsigned kind = 0; kind < 3; kind++)
		for (size_t i = 0; i < lists[kind]->n; i++) {
			if (r->ngates == GATES_MAX)
				return pd_fail(&r->msg, PD_ETOOBIG, "more than %d gates",
					       GATES_MAX);
			err = gate_parse(&r->gate[r->ngates++], (enum gate_kind)kind,
					 lists[kind]->items[i], &r->msg);
			if (err)
				return err;
		}
	return PD_OK;
}

/* "FORM=FILE" */
static int check_reports(struct pd_msg *msg)
{
	for (size_t i = 0; i < o.reports.n; i++) {
		const char *word = o.reports.items[i];
		size_t n = strcspn(word, "=");
		bool known = false;

		for (const char *at = FORMS; *at; at += strcspn(at, "|"), at += *at == '|')
			known = known || (strcspn(at, "|") == n && memcmp(at, word, n) == 0);
		if (!known || !word[n] || !word[n + 1])
			return pd_fail(
				msg, PD_EINVAL,
				"--report: found '%s', expected FORM=FILE with a form of " FORMS,
				word);
	}
	return PD_OK;
}

/* -- judging -- */

static int judge(struct run *r)
{
	int err = PD_OK;

	for (size_t p = 0; p < r->nparts; p++)
		for (size_t g = 0; !err && g < r->ngates; g++)
			err = gate_check(&r->part[p], &r->gate[g], &r->msg);
	r->result = calloc(r->nparts * r->ngates * COMPARE_SIDES_MAX + 1, sizeof(*r->result));
	if (!r->result)
		return PD_ENOMEM;
	for (size_t p = 0; p < r->nparts; p++) {
		struct compare *c = &r->part[p];

		for (size_t g = 0; !err && g < r->ngates; g++)
			for (size_t k = c->nsides > 1; !err && k < c->nsides; k++)
				err = gate_judge(c, &r->gate[g], k, &r->result[r->nresults++]);
	}
	if (!err)
		gate_decide(r->result, r->nresults);
	return err;
}

static int verdict(const struct run *r)
{
	const struct compare *c = &r->part[0];
	bool inconclusive = false;

	for (size_t i = 0; i < r->nresults; i++) {
		if (r->result[i].verdict == GATE_FAIL)
			return EXIT_FINDING;
		inconclusive = inconclusive || (r->result[i].verdict == GATE_INCONCLUSIVE &&
						r->result[i].gate->kind == GATE_FAIL_ON);
	}
	for (size_t k = 1; o.strict && r->ngates == 0 && k < c->nsides; k++)
		inconclusive =
			inconclusive || !compare_enough(c, c->side[0].runs.n, c->side[k].runs.n);
	return inconclusive ? EXIT_INCONCLUSIVE : EXIT_OK;
}

/* -- output -- */

static int render(const struct compare_report *report, const char *form, size_t n, bool colour,
		  struct buf *out)
{
	struct span s = {form, n};

	if (span_eq(s, SPAN("md")))
		return compare_report_markdown(report, out);
	if (span_eq(s, SPAN("json")))
		return compare_report_json(report, out);
	if (span_eq(s, SPAN("junit")))
		return compare_report_junit(report, out);
	if (span_starts(s, SPAN("gha-bench")))
		return compare_report_gha_bench(report, n > 9, out);
	if (span_eq(s, SPAN("gha-annotations")))
		return compare_report_annotations(report, out);
	return compare_report_text(report, colour, out);
}

static int write_report(const struct compare_report *report, const char *word, struct pd_msg *msg)
{
	size_t n = strcspn(word, "=");
	struct buf out;
	int err;

	buf_init(&out, REPORT_MAX);
	err = render(report, word, n, false, &out);
	err = err ? pd_fail(msg, err, "cannot build the report: %s", pd_err_text(err))
		  : file_write(word + n + 1, out.data, out.len, msg);
	buf_release(&out);
	return err;
}

/* --html FILE */
static int write_html(const struct compare_report *report, struct pd_msg *msg)
{
	struct buf json, page;
	struct pd_msg why = {""};
	int err;

	buf_init(&json, REPORT_MAX);
	buf_init(&page, 4 * HTML_REPORT_MAX);
	err = compare_report_json(report, &json);
	err = err ? err : html_report(HTML_COMPARE, PDCTL_VERSION, buf_span(&json), &page, &why);
	if (err)
		err = pd_fail(msg, err, "--html: cannot write '%.200s': %.250s", o.html,
			      why.text[0] ? why.text : pd_err_text(err));
	else
		err = file_write(o.html, page.data, page.len, msg);
	buf_release(&json);
	buf_release(&page);
	return err;
}

static void print_broken(const struct run *r)
{
	for (size_t i = 0; i < r->nresults; i++) {
		const struct gate_result *g = &r->result[i];
		char why[512], more[256];

		if (g->verdict == GATE_PASS)
			continue;
		gate_why(g, why, sizeof(why), more, sizeof(more));
		(void)fprintf(stderr, "pdctl compare: %s: %s %s%s%s: %s\n",
			      gate_verdict_text(g->verdict), gate_flag(g->gate->kind),
			      g->gate->text, g->compare->setting[0] ? " at " : "",
			      g->compare->setting, why);
	}
}

static int deliver(struct run *r, int code)
{
	struct compare_report report = {r->part, r->nparts, r->result, r->nresults, code, o.preset};
	struct buf out;
	bool ascii;
	int err;

	buf_init(&out, REPORT_MAX);
	err = render(&report, o.format, strlen(o.format), !o.output && cli_colour(STDOUT_FILENO),
		     &out);
	if (!err && !o.output && strcmp(o.format, "text") == 0 && bars_wanted(o.bars, &ascii))
		err = compare_bars_text(&report, ascii, &out);
	if (err)
		err = pd_fail(&r->msg, err, "cannot build the report: %s", pd_err_text(err));
	else if (o.output)
		err = file_write(o.output, out.data, out.len, &r->msg);
	else if (!o.quiet && (code != EXIT_RUNTIME || strcmp(o.format, "text") != 0))
		cli_print(out.data, out.len);
	buf_release(&out);
	for (size_t i = 0; !err && i < o.reports.n; i++)
		err = write_report(&report, o.reports.items[i], &r->msg);
	if (!err && o.html)
		err = write_html(&report, &r->msg);
	if (o.quiet || (o.output && strcmp(o.output, "-") != 0))
		print_broken(r);
	return err ? cli_runtime_error(&command, &r->msg) : code;
}

/* Input errors are exit 2; what is readable but cannot be compared is PD_ENOENT and exit 3. */
static int fail(struct run *r, int err)
{
	if (!r->msg.text[0])
		(void)pd_fail(&r->msg, err, "%s", pd_err_text(err));
	return err == PD_ENOENT || err == PD_ENOMEM ? cli_runtime_error(&command, &r->msg)
						    : cli_usage_error(&command, &r->msg);
}

/* Every reason on a line of its own, then what would allow them. */
static int refuse(struct run *r, const char *keys)
{
	(void)fprintf(stderr, "pdctl compare: these runs are not comparable\n");
	for (size_t p = 0; p < r->nparts; p++)
		for (size_t i = 0; i < r->part[p].nreasons; i++)
			(void)fprintf(stderr, "  %s%s%s\n", r->part[p].setting,
				      r->part[p].setting[0] ? ": " : "", r->part[p].reason[i]);
	(void)fprintf(stderr, "compare anyway with --allow-different %s\n", keys);
	return deliver(r, EXIT_RUNTIME);
}

static bool has_reasons(const struct run *r)
{
	for (size_t p = 0; p < r->nparts; p++)
		if (r->part[p].nreasons > 0)
			return true;
	return false;
}

static void add_keys(char *keys, size_t cap, const char *more)
{
	size_t n = strlen(keys);

	if (!strstr(keys, more) && n + strlen(more) + 2 < cap)
		(void)snprintf(keys + n, cap - n, "%s%s", n ? "," : "", more);
}

static int rows(struct run *r)
{
	int err = PD_OK;

	for (size_t p = 0; !err && p < r->nparts; p++)
		err = o.preset && !o.metrics ? compare_rows_preset(&r->part[p], metric_infinilm)
					     : compare_rows(&r->part[p], o.metrics, &r->msg);
	return err;
}

static int compare(struct run *r, const struct opt_list *rest)
{
	char keys[PD_MSG_MAX] = "";
	size_t nrows = 0;
	int err = read_sides(r, rest);

	if (err) /* a file that is not there is unreadable input, too */
		return fail(r, err == PD_ENOMEM ? err : PD_EINVAL);
	err = compare_split(&r->all, o.allow, COMPARE_PARTS_MAX, &r->part, &r->nparts, &r->msg);
	if (err)
		return fail(r, err);
	if (has_reasons(r))
		return refuse(r, "settings");
	for (size_t p = 0; p < r->nparts; p++) {
		err = compare_config(&r->part[p], o.allow, &r->msg);
		if (err && err != PD_ENOENT)
			return fail(r, err);
		if (err)
			add_keys(keys, sizeof(keys), r->msg.text);
	}
	if (has_reasons(r))
		return refuse(r, keys);
	err = rows(r);
	if (!err)
		err = judge(r);
	for (size_t p = 0; p < r->nparts; p++)
		nrows += r->part[p].nrows;
	if (!err && nrows == 0)
		err = pd_fail(&r->msg, PD_ENOENT, "the sides have no metric in common");
	return err ? fail(r, err) : deliver(r, verdict(r));
}

int cmd_compare(int argc, char **argv)
{
	static struct run r;
	struct opt_list rest = {0};
	int code, err;

	o = (struct options){.alpha = 0.05, .level = 0.1, .min_runs = 4, .format = "text"};
	code = cli_parse(&command, argc, argv, &rest);
	if (code < 0) {
		err = check_reports(&r.msg);
		if (!err)
			err = read_rules(&r, argc, argv);
		if (!err)
			err = read_gates(&r);
		compare_init(&r.all, &r.policy.rules);
		code = err ? fail(&r, err == PD_ENOMEM ? err : PD_EINVAL) : compare(&r, &rest);
		compare_release(&r.all);
	}
	for (size_t p = 0; p < r.nparts; p++)
		compare_release(&r.part[p]);
	free(r.part);
	free(r.result);
	compare_policy_release(&r.policy);
	opt_list_release(&rest);
	opt_list_release(&o.vs);
	opt_list_release(&o.fail_on);
	opt_list_release(&o.warn_on);
	opt_list_release(&o.require);
	opt_list_release(&o.reports);
	return code;
}
