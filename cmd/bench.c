/* pdctl bench: sessions, schedules and honest measurement against any OpenAI-compatible server. */
#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/bench_html.h"
#include "cmd/bench_result.h"
#include "cmd/bench_vllm.h"
#include "cmd/cmd.h"
#include "lib/results/result_calc.h"

#define o	 bench_options
#define STEP_S	 10.0 /* of a sweep, unless --duration says otherwise */
#define FOLLOWED 0.9  /* of the offered rate: less is saturated */
#define STARVED	 0.9  /* of requests within all goals: fewer is saturated */

/* What is counted over all runs of the command. */
struct tally {
	size_t requests, failed, completed, asserts_failed;
	bool stopped, verify_failed;
	double throughput; /* of the last run's first arm */
	double good;	   /* share of its requests that met all goals */
};

static void count(struct tally *t, const struct bench_arm *a, const struct load_outcome *out)
{
	double s = (double)out->wall_ns / 1e9;
	struct result_totals totals;

	t->requests += a->run.n;
	t->failed += a->failed;
	t->completed += a->run.n - a->failed;
	t->asserts_failed += a->asserts_failed;
	t->stopped = t->stopped || out->stopped;
	t->verify_failed = t->verify_failed || (o.verify && a->verify.verdict == VERIFY_FAIL);
	t->throughput = s > 0 ? (double)(a->run.n - a->failed) / s : 0;
	t->good = 0;
	if (a->run.ngoals > 0 && a->run.n > 0 && result_totals(&a->run, &totals) == PD_OK &&
	    totals.goodput > 0)
		t->good = totals.goodput * totals.duration / (double)a->run.n;
}

/* One run: load, tables, documents. */
static int run_once(struct bench *b, struct bench_output *files, struct tally *t, bool last,
		    struct pd_msg *msg)
{
	struct load_outcome out;
	struct bench_arm arm;
	int err = bench_once(b, &out, msg);

	if (err)
		return err;
	if (last)
		bench_forget(b);
	for (size_t target = 0; !err && target < b->setup.load.ntargets; target++) {
		err = bench_arm_make(&arm, b, &out, target, msg);
		err = err ? err : bench_print(&arm, b, &out);
		err = err ? err : bench_html_add(files, &arm);
		err = err ? err : bench_output_add(files, &arm, target);
		count(t, &arm, &out);
		if (!last && o.ab.n == 0)
			files->cached_before = arm.figures.cached_share;
		if (!err && last && target + 1 == b->setup.load.ntargets) {
			err = bench_output_write(files, b, msg);
			if (!err)
				bench_print_hints(files, b, &arm);
		}
		bench_arm_release(&arm);
	}
	load_outcome_release(&out);
	return err;
}

static int repeat(struct bench *b, struct bench_output *files, struct tally *t, struct pd_msg *msg)
{
	int err = bench_warm_up(b, msg);

	bench_print_header(b);
	for (int64_t i = 0; !err && i < o.repeat; i++) {
		bool last = i + 1 == o.repeat || bench_interrupts > 0;

		if (i > 0 && !o.json)
			cli_print("\n", 1);
		err = run_once(b, files, t, last, msg);
		if (!err && bench_interrupts > 0 && !last)
			return bench_output_write(files, b, msg);
	}
	return err;
}

/* ---- the sweep ---- */

/* Ten requests one after another: what one client alone gets is where the search begins. */
static int first_rate(struct bench *b, double *rate, struct pd_msg *msg)
{
	int64_t limit = b->setup.load.max_concurrency;
	struct load_outcome out;
	int err;

	b->setup.load.max_concurrency = 1;
	b->setup.load.salt = "sweep 0";
	err = bench_plan_step(b, INFINITY, 0, msg);
	err = err ? err : bench_once(b, &out, msg);
	b->setup.load.max_concurrency = limit;
	if (err)
		return err;
	*rate = 0;
	for (size_t i = 0; i < out.n; i++)
		*rate += out.record[i].failure == NULL;
	*rate = *rate * 1e9 / (double)out.wall_ns;
	load_outcome_release(&out);
	return *rate > 0 ? PD_OK
			 : pd_fail(msg, PD_EIO,
				   "--sweep: none of 10 requests succeeded one after another");
}

static int sweep(struct bench *b, struct bench_output *files, struct tally *t, struct pd_msg *msg)
{
	double seconds = o.duration_s > 0 ? o.duration_s : STEP_S, rate = 0;
	struct sweep s;
	char salt[300], line[200];
	bool more = true, saturated;
	int err = bench_warm_up(b, msg);

	err = err ? err : first_rate(b, &rate, msg);
	sweep_begin(&s, rate);
	b->watching = true;
	while (!err && more && !bench_interrupts) {
		(void)snprintf(salt, sizeof(salt), "%s sweep %u", o.salt ? o.salt : "",
			       s.steps + 1);
		b->setup.load.salt = salt;
		err = bench_plan_step(b, s.rate, seconds, msg);
		if (err)
			break;
		bench_print_header(b);
		sweep_watch_begin(&b->watch);
		t->throughput = 0;
		err = run_once(b, files, t, false, msg);
		saturated = t->throughput < FOLLOWED * s.rate ||
			    (b->setup.run.ngoals > 0 && t->good < STARVED);
		rate = s.rate;
		more = sweep_next(&s, saturated);
		if (!o.json && !err) {
			(void)snprintf(line, sizeof(line), "rate %.3g/s: %s\n\n", rate,
				       saturated ? "saturated" : "followed");
			cli_print(line, strlen(line));
		}
	}
	if (!err)
		err = bench_output_write(files, b, msg);
	if (!err && !o.json) {
		(void)snprintf(
			line, sizeof(line),
			"highest rate that was followed: %.3g/s; lowest that was not: %.3g/s\n",
			s.good, s.bad);
		cli_print(line, strlen(line));
	}
	return err;
}

/* ---- the command ---- */

static int print_vllm(void)
{
	struct buf text;
	int err;

	buf_init(&text, 1 << 20);
	err = bench_vllm_markdown(&text);
	if (!err)
		cli_print(text.data, text.len);
	buf_release(&text);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int verdict(const struct bench *b, const struct tally *t)
{
	double failed = (double)t->failed;

	if (t->stopped)
		return EXIT_INTERRUPTED;
	if (b->setup.max_failures_share)
		failed = t->requests > 0 ? 100 * failed / (double)t->requests : 0;
	if (t->verify_failed || t->asserts_failed > 0 || t->completed == 0 ||
	    (failed > b->setup.max_failures && !o.sweep))
		return EXIT_FINDING;
	return EXIT_OK;
}

static int run(struct bench *b, struct bench_output *files, int argc, char **argv)
{
	struct pd_msg msg = {""};
	struct tally t = {0};
	int err = bench_setup_make(&b->setup, argc, argv, &msg);

	if (!err && o.asserts)
		err = asserts_parse(&b->asserts, o.asserts, &msg);
	err = err ? err : bench_prepare(b, &msg);
	if (err)
		return err == PD_ENOMEM ? cli_runtime_error(&bench_command, &msg)
					: cli_usage_error(&bench_command, &msg);
	err = bench_connect(b, &msg);
	err = err ? err : bench_output_open(files, b, &msg);
	if (!err)
		err = o.sweep ? sweep(b, files, &t, &msg) : repeat(b, files, &t, &msg);
	if (err == PD_EINVAL)
		return cli_usage_error(&bench_command, &msg);
	if (err && !msg.text[0])
		(void)pd_fail(&msg, err, "%s", pd_err_text(err));
	return err ? cli_runtime_error(&bench_command, &msg) : verdict(b, &t);
}

int cmd_bench(int argc, char **argv)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct bench_output *files = calloc(1, sizeof(*files));
	int rc;

	bench_options_defaults();
	rc = b && files ? cli_parse(&bench_command, argc, argv, NULL) : EXIT_RUNTIME;
	if (rc < 0 && o.vllm_markdown)
		rc = print_vllm();
	else if (rc < 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		struct pd_msg msg = {"cannot initialise libcurl"};

		rc = cli_runtime_error(&bench_command, &msg);
	} else if (rc < 0) {
		b->terminal = isatty(STDERR_FILENO) && !bench_vllm_quiet();
		workload_init(&b->work);
		rc = run(b, files, argc, argv);
		bench_output_release(files);
		bench_release(b);
		curl_global_cleanup();
	}
	bench_options_release();
	free(files);
	free(b);
	return rc;
}
