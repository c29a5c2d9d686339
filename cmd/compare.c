/* pdctl compare: options, which file belongs to which side, printing, exit code. The judgement is
 * in lib/results. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "lib/base/cli.h"
#include "lib/base/file.h"
#include "lib/results/compare_change.h"
#include "lib/results/compare_config.h"
#include "lib/results/compare_export.h"
#include "lib/results/compare_text.h"

#define REPORT_MAX ((size_t)64 << 20)

static struct options {
	struct opt_list vs, fail_on, warn_on, require;
	double alpha;
	int64_t min_runs;
	bool strict, quiet;
	const char *format, *metrics, *preset, *output, *allow;
} o;

static const struct opt table[] = {
	{OPT_HEADING, NULL, NULL, NULL, "what is compared", NULL, 0, 0, NULL},
	{OPT_LIST, "vs", &o.vs, "FILE",
	 "the files of the new side; may be repeated for a third side", NULL, 0, 0, NULL},
	{OPT_TEXT, "metrics", &o.metrics, "LIST",
	 "comma-separated metrics or patterns ('*_ttft_ms', all); default: the figures both sides "
	 "have",
	 NULL, 0, 0, NULL},
	{OPT_CHOICE, "preset", &o.preset, "NAME",
	 "a fixed list of metrics; infinilm: its nine, in its order", "infinilm", 0, 0, NULL},
	{OPT_TEXT, "allow-different", &o.allow, "KEYS",
	 "settings that may differ, comma-separated, or all; otherwise exit 3", NULL, 0, 0, NULL},
	{OPT_HEADING, NULL, NULL, NULL, "gates", NULL, 0, 0, NULL},
	{OPT_LIST, "fail-on", &o.fail_on, "GATE",
	 "METRIC:+N%, METRIC:-N% or METRIC:N% (worse by N %); exit 1 when exceeded; repeatable",
	 NULL, 1, 1, NULL},
	{OPT_LIST, "warn-on", &o.warn_on, "GATE", "the same, but only a warning; repeatable", NULL,
	 1, 1, NULL},
	{OPT_LIST, "require", &o.require, "GATE",
	 "METRIC<=N, >=, < or >: must hold in every new run; repeatable", NULL, 1, 1, NULL},
	{OPT_REAL, "alpha", &o.alpha, "P", "significance level, 0.0001 to 0.5; default 0.05", NULL,
	 0.0001, 0.5, NULL},
	{OPT_INT, "min-runs", &o.min_runs, "N",
	 "runs per side needed for a statistical verdict; default 4", NULL, 2, RESULT_DOCS_MAX,
	 NULL},
	{OPT_FLAG, "strict", &o.strict, NULL,
	 "exit 4 instead of a verdict from too few runs or an unproven change", NULL, 0, 0, NULL},
	{OPT_HEADING, NULL, NULL, NULL, "output", NULL, 0, 0, NULL},
	{OPT_CHOICE, "format", &o.format, "FORM",
	 "text (default), md, json, junit, gha-bench (lower is better), gha-bench-bigger, "
	 "gha-annotations",
	 "text|md|json|junit|gha-bench|gha-bench-bigger|gha-annotations", 0, 0, NULL},
	{OPT_TEXT, "output", &o.output, "FILE",
	 "write the report to this file instead of standard output", NULL, 0, 0, NULL},
	{OPT_FLAG, "quiet", &o.quiet, NULL,
	 "no report on standard output; failed gates go to standard error", NULL, 0, 0, NULL},
	{OPT_END, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};

static const struct opt_command command = {
	.name = "compare",
	.usage = "pdctl compare [options] BASE.json NEW.json\n"
		 "       pdctl compare [options] BASE.json... --vs NEW.json...\n"
		 "       pdctl compare [options] LABEL=FILE.json...",
	.summary =
		"tell whether a new result is worse than an old one, beyond noise: a gate for CI",
	.about = "Reads results of pdctl bench, pdctl simulate and vllm bench serve (also files "
		 "written with\n"
		 "--append-result, and JSON lines: each object is one run).\n\n"
		 "One run per side shows a change but proves nothing: p99 TTFT of the same server "
		 "may differ\n"
		 "by a factor of five from run to run. With four or more runs per side a gate "
		 "fails only when\n"
		 "the change is significant (Mann-Whitney) and its whole confidence interval lies "
		 "beyond the\n"
		 "limit. Take the runs interleaved: old, new, new, old, ...\n\n"
		 "Exit codes: 0 ok; 1 a gate failed; 2 usage or unreadable input; 3 not comparable "
		 "(different\n"
		 "settings, or a gate's metric is missing or no number); 4 inconclusive (only with "
		 "--strict).",
	.examples =
		"  $ pdctl compare old.json new.json\n"
		"        what changed, and in which direction\n"
		"  $ pdctl compare old-*.json --vs new-*.json --fail-on 'p99_ttft_ms:+5%' "
		"--fail-on 'request_throughput:-3%'\n"
		"        the CI gate: several runs per side\n"
		"  $ pdctl compare --require 'p99_ttft_ms<=500' --require 'failed<=0' new.json\n"
		"        a service level for one side alone\n"
		"  $ pdctl compare --preset infinilm single=a.json roundrobin=b.json cache=c.json\n"
		"        three deployments; the first is the base\n"
		"  $ pdctl compare old.json new.json --format md --output summary.md\n"
		"        a table for a job summary\n",
	.opts = table,
};

struct run {
	struct compare compare;
	struct gate gate[GATES_MAX];
	size_t ngates;
	struct gate_result result[COMPARE_RESULTS_MAX];
	size_t nresults;
	struct pd_msg msg;
};

/* "label=path": the label ends at the first '=' and holds no '/'. */
static size_t label_length(const char *word)
{
	size_t n = strcspn(word, "=/");

	return word[n] == '=' ? n : 0;
}

static int add_file(struct run *r, const char *label, const char *word)
{
	size_t n = label_length(word);
	struct compare_side *side;
	size_t before;
	int err = compare_side_named(&r->compare, n ? (struct span){word, n} : span_of(label),
				     &side, &r->msg);

	if (err)
		return err;
	before = side->runs.n;
	err = result_read(&side->runs, n ? word + n + 1 : word, &r->msg);
	for (size_t i = before; !err && i < side->runs.n; i++)
		if (!result_has_metric(&side->runs.doc[i]))
			err = pd_fail(
				&r->msg, PD_EINVAL,
				"'%s' holds no benchmark result: found no metric, expected keys "
				"such as mean_ttft_ms or request_throughput",
				side->runs.doc[i].source);
	return err;
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
		err = add_file(r, pair && i == 1 ? "new" : "base", rest->items[i]);
	return err;
}

static int read_sides(struct run *r, const struct opt_list *rest)
{
	char label[32];
	int err = read_base(r, rest);

	for (size_t i = 0; !err && i < o.vs.n; i++) {
		(void)snprintf(label, sizeof(label), o.vs.occurrence[i] ? "new%u" : "new",
			       o.vs.occurrence[i] + 1);
		err = add_file(r, label, o.vs.items[i]);
	}
	if (!err && r->compare.nsides == 1 && (o.require.n == 0 || o.fail_on.n + o.warn_on.n > 0))
		err = pd_fail(
			&r->msg, PD_EINVAL,
			"found one side, expected a second one to compare with (one side alone "
			"can only be checked with --require)");
	return err;
}

static int read_gates(struct run *r)
{
	const struct opt_list *lists[] = {&o.fail_on, &o.warn_on, &o.require};
	int err;

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

static int judge(struct run *r)
{
	int err = PD_OK;

	for (size_t g = 0; !err && g < r->ngates; g++)
		err = gate_check(&r->compare, &r->gate[g], &r->msg);
	for (size_t g = 0; !err && g < r->ngates; g++)
		for (size_t k = r->compare.nsides > 1; !err && k < r->compare.nsides; k++)
			err = gate_judge(&r->compare, &r->gate[g], k, o.strict,
					 &r->result[r->nresults++]);
	return err;
}

static int verdict(const struct run *r)
{
	const struct compare *c = &r->compare;
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

static int render(const struct compare_report *report, struct buf *out)
{
	if (strcmp(o.format, "md") == 0)
		return compare_report_markdown(report, out);
	if (strcmp(o.format, "json") == 0)
		return compare_report_json(report, out);
	if (strcmp(o.format, "junit") == 0)
		return compare_report_junit(report, out);
	if (strncmp(o.format, "gha-bench", 9) == 0)
		return compare_report_gha_bench(report, o.format[9] != '\0', out);
	if (strcmp(o.format, "gha-annotations") == 0)
		return compare_report_annotations(report, out);
	return compare_report_text(report, !o.output && cli_colour(STDOUT_FILENO), out);
}

static void print_broken(const struct run *r)
{
	for (size_t i = 0; i < r->nresults; i++)
		if (r->result[i].verdict != GATE_PASS)
			(void)fprintf(stderr, "pdctl compare: %s: %s %s: %s\n",
				      gate_verdict_text(r->result[i].verdict),
				      gate_flag(r->result[i].gate->kind), r->result[i].gate->text,
				      r->result[i].why);
}

static int deliver(struct run *r, int code)
{
	struct compare_report report = {&r->compare, r->result, r->nresults,
					o.strict,    code,	o.preset};
	struct buf out;
	int err;

	buf_init(&out, REPORT_MAX);
	err = render(&report, &out);
	if (err)
		err = pd_fail(&r->msg, err, "cannot build the report: %s", pd_err_text(err));
	else if (o.output)
		err = file_write(o.output, out.data, out.len, &r->msg);
	else if (!o.quiet)
		cli_print(out.data, out.len);
	buf_release(&out);
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

static int compare(struct run *r, const struct opt_list *rest)
{
	int err = read_gates(r);

	if (!err)
		err = read_sides(r, rest);
	if (err) /* a file that is not there is unreadable input, too */
		return fail(r, err == PD_ENOMEM ? err : PD_EINVAL);
	err = compare_config(&r->compare, o.allow, &r->msg);
	if (!err)
		err = o.preset && !o.metrics ? compare_rows_preset(&r->compare, metric_infinilm)
					     : compare_rows(&r->compare, o.metrics, &r->msg);
	if (!err)
		err = judge(r);
	if (!err && r->compare.nrows == 0)
		err = pd_fail(&r->msg, PD_ENOENT, "the sides have no metric in common");
	return err ? fail(r, err) : deliver(r, verdict(r));
}

int cmd_compare(int argc, char **argv)
{
	static struct run r;
	struct opt_list rest = {0};
	int code;

	o = (struct options){.alpha = 0.05, .min_runs = 4, .format = "text"};
	code = cli_parse(&command, argc, argv, &rest);
	if (code < 0) {
		compare_init(&r.compare, o.alpha, (size_t)o.min_runs);
		code = compare(&r, &rest);
		compare_release(&r.compare);
	}
	opt_list_release(&rest);
	opt_list_release(&o.vs);
	opt_list_release(&o.fail_on);
	opt_list_release(&o.warn_on);
	opt_list_release(&o.require);
	return code;
}
