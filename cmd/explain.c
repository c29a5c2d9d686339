/* pdctl explain: options, files and printing. What is decided is in lib/route and lib/epp. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/explain_pick.h"
#include "lib/base/buf.h"
#include "lib/base/cli.h"
#include "lib/epp/cases.h"
#include "lib/route/score/stage.h"

static struct {
	struct explain_pick pick;
	struct opt_list cases;
	bool plugins;
} o;

static const struct opt options[] = {
	{.type = OPT_HEADING, .help = "a request, and where it would go in an idle pool"},
	{OPT_TEXT, "key", &o.pick.key, "KEY", "its session key (what the request says)", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "body", &o.pick.body, "FILE", "its body, JSON as a client sends it", NULL, 0, 0,
	 NULL},
	{OPT_LIST, "header", &o.pick.headers, "TEXT", "a field of its head, NAME: VALUE", NULL, 1,
	 1, NULL},
	{OPT_LIST, "worker-urls", &o.pick.workers, "URL...", "the workers, [NAME=]URL", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "workers-file", &o.pick.workers_file, "FILE",
	 "the workers, as pdctl serve reads them", NULL, 0, 0, NULL},
	{OPT_TEXT, "policy", &o.pick.policy, "NAME", o.pick.policies.names, NULL, 0, 0, NULL},
	{OPT_TEXT, "epp-config", &o.pick.epp, "FILE",
	 "an EndpointPickerConfig of llm-d; the policy is then scores (none)", NULL, 0, 0, NULL},
	{OPT_FLAG, "json", &o.pick.json, NULL, "one JSON line", NULL, 0, 0, NULL},
	{.type = OPT_ROWS, .value = o.pick.policies.rows},
	{.type = OPT_HEADING, .help = "endpoint picker plugins"},
	{OPT_LIST, "cases", &o.cases, "FILE...",
	 "decide recorded cases of llm-d's endpoint picker again, JSON Lines, and compare; exit 1 "
	 "when one differs",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "list-plugins", &o.plugins, NULL,
	 "print the plugins of endpoint picker configurations with their parameters, as Markdown, "
	 "and exit",
	 NULL, 0, 0, NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "explain",
	.usage = "pdctl explain (--key KEY | --body FILE) (--worker-urls URL... | --workers-file "
		 "FILE)",
	.summary = "why would this request go there? offline, without a worker",
	.opts = options,
};

/* The cases of one file, a line each. *bad counts those that differ. */
static int run_cases(const char *path, size_t *bad, struct buf *out)
{
	FILE *f = fopen(path, "re");
	size_t cap = 0, lines = 0, good = 0;
	char *line = NULL;
	ssize_t n;
	int err;

	if (!f) {
		struct pd_msg msg;

		(void)pd_fail(&msg, PD_EINVAL, "--cases: cannot open '%.300s': %s", path,
			      strerrordesc_np(errno));
		return cli_usage_error(&command, &msg);
	}
	while ((n = getline(&line, &cap, f)) > 0) {
		struct pd_msg why = {{0}};

		lines++;
		err = epp_case_run(line, (size_t)n, &why);
		good += err == PD_OK;
		if (err)
			(void)fprintf(stderr, "%s:%zu: %s\n", path, lines, why.text);
	}
	free(line);
	(void)fclose(f);
	err = buf_printf(out, "%-64s %zu of %zu\n", path, good, lines);
	*bad += lines - good;
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int cases(void)
{
	size_t bad = 0;
	struct buf out;
	int code = EXIT_OK;

	buf_init(&out, 1u << 20);
	for (size_t i = 0; code == EXIT_OK && i < o.cases.n; i++)
		code = run_cases(o.cases.items[i], &bad, &out);
	if (out.len > 0)
		cli_print(out.data, out.len);
	buf_release(&out);
	return code ? code : bad ? EXIT_FINDING : EXIT_OK;
}

static int list_plugins(void)
{
	struct buf b;
	int err;

	buf_init(&b, 1u << 20);
	err = score_types_markdown(&b);
	if (!err)
		cli_print(b.data, b.len);
	buf_release(&b);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int pick(void)
{
	struct pd_msg msg = {{0}};
	struct buf out;
	int err, code = EXIT_OK;

	buf_init(&out, 16u << 20);
	if (!o.pick.key && !o.pick.body)
		err = pd_fail(&msg, PD_EINVAL, "expected --key or --body, or --cases");
	else
		err = explain_pick(&o.pick, &out, &msg);
	if (err)
		code = err == PD_ENOMEM ? cli_runtime_error(&command, &msg)
					: cli_usage_error(&command, &msg);
	else
		cli_print(out.data, out.len);
	buf_release(&out);
	return code;
}

int cmd_explain(int argc, char **argv)
{
	int code;

	policy_opts_init(&o.pick.policies, "");
	code = cli_parse(&command, argc, argv, NULL);
	if (code < 0 && o.plugins)
		code = list_plugins();
	else if (code < 0 && o.cases.n > 0)
		code = cases();
	else if (code < 0)
		code = pick();
	opt_list_release(&o.cases);
	opt_list_release(&o.pick.workers);
	opt_list_release(&o.pick.headers);
	return code;
}
