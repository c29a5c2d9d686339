/* One table per tool: their name, ours, and a factor. What is missing there stays missing here. */
#include "lib/results/foreign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME_CAP 160

struct spelling {
	const char *theirs, *ours;
	double factor;
};

static bool has(const struct result_doc *d, const char *name)
{
	return !isnan(result_number(d, name));
}

/* Adds `ours` unless the file has it itself. */
static int add(struct result_doc *d, const char *ours, double v)
{
	char text[40];

	if (isnan(v) || result_get(d, ours))
		return PD_OK;
	(void)snprintf(text, sizeof(text), "%.17g", v);
	return result_add(d, ours, RESULT_NUMBER, text, v);
}

static int add_text(struct result_doc *d, const char *ours, const char *text)
{
	if (!text || result_get(d, ours))
		return PD_OK;
	return result_add(d, ours, RESULT_TEXT, text, NAN);
}

static int add_all(struct result_doc *d, const struct spelling *s)
{
	int err = PD_OK;

	for (; !err && s->theirs; s++)
		err = add(d, s->ours, result_number(d, s->theirs) * s->factor);
	return err;
}

/* -- SGLang -- */

static const struct spelling sglang[] = {{"total_throughput", "total_token_throughput", 1},
					 {NULL, NULL, 0}};

/* X_e2e_latency_ms -> X_e2el_ms for whatever X is there. */
static int read_sglang(struct result_doc *d)
{
	static const char theirs[] = "_e2e_latency_ms";
	char ours[NAME_CAP];
	size_t n = d->n;
	int err = add_all(d, sglang);

	for (size_t i = 0; !err && i < n; i++) {
		const char *end = strstr(d->field[i].name, theirs);

		if (!end || end[sizeof(theirs) - 1] || d->field[i].type != RESULT_NUMBER)
			continue;
		(void)snprintf(ours, sizeof(ours), "%.*s_e2el_ms", (int)(end - d->field[i].name),
			       d->field[i].name);
		err = add(d, ours, d->field[i].number);
	}
	return err;
}

/* -- statistics of one metric -- */

struct statistic {
	const char *theirs, *ours;
};

/* stem.STAT -> STAT_metric_ms */
static int add_statistics(struct result_doc *d, const char *stem, const struct statistic *s,
			  const char *metric, double factor)
{
	char theirs[NAME_CAP], ours[NAME_CAP];
	int err = PD_OK;

	for (; !err && s->theirs; s++) {
		(void)snprintf(theirs, sizeof(theirs), "%s.%s", stem, s->theirs);
		(void)snprintf(ours, sizeof(ours), "%s_%s_ms", s->ours, metric);
		err = add(d, ours, result_number(d, theirs) * factor);
	}
	return err;
}

/* -- AIPerf and GenAI-Perf -- */

static const struct statistic aiperf_statistics[] = {
	{"avg", "mean"}, {"p50", "median"}, {"std", "std"}, {"p1", "p1"},
	{"p5", "p5"},	 {"p10", "p10"},    {"p25", "p25"}, {"p75", "p75"},
	{"p90", "p90"},	 {"p95", "p95"},    {"p99", "p99"}, {NULL, NULL}};
static const struct statistic aiperf_metrics[] = {{"time_to_first_token", "ttft"},
						  {"inter_token_latency", "tpot"},
						  {"inter_chunk_latency", "itl"},
						  {"request_latency", "e2el"},
						  {NULL, NULL}};
static const struct spelling aiperf_totals[] = {
	{"request_throughput.avg", "request_throughput", 1},
	{"output_token_throughput.avg", "output_throughput", 1},
	{"total_token_throughput.avg", "total_token_throughput", 1},
	{"goodput.avg", "request_goodput", 1},
	{"request_count.avg", "completed", 1},
	{"error_request_count.avg", "failed", 1},
	{"benchmark_duration.avg", "duration", 1},
	{"total_isl.avg", "total_input_tokens", 1},
	{"total_osl.avg", "total_output_tokens", 1},
	{"input_config.loadgen.request_rate", "request_rate", 1},
	{"input_config.loadgen.concurrency", "max_concurrency", 1},
	{"input_config.loadgen.request_count", "num_prompts", 1},
	{NULL, NULL, 0}};

static double to_ms(const char *unit)
{
	if (!unit || strcmp(unit, "ms") == 0)
		return 1;
	if (strcmp(unit, "sec") == 0 || strcmp(unit, "s") == 0 || strcmp(unit, "seconds") == 0)
		return 1e3;
	if (strcmp(unit, "us") == 0)
		return 1e-3;
	return strcmp(unit, "ns") == 0 ? 1e-6 : (double)NAN;
}

static int read_aiperf(struct result_doc *d)
{
	char unit[NAME_CAP];
	double count = result_number(d, "request_count.avg");
	int err = add_all(d, aiperf_totals);

	for (const struct statistic *m = aiperf_metrics; !err && m->theirs; m++) {
		(void)snprintf(unit, sizeof(unit), "%s.unit", m->theirs);
		err = add_statistics(d, m->theirs, aiperf_statistics, m->ours,
				     to_ms(result_text(d, unit)));
	}
	if (!err)
		err = add(d, "total_input_tokens",
			  result_number(d, "input_sequence_length.avg") * count);
	if (!err)
		err = add(d, "total_output_tokens",
			  result_number(d, "output_sequence_length.avg") * count);
	return err ? err : add_text(d, "backend", result_text(d, "input_config.endpoint.type"));
}

/* -- guidellm -- */

static const struct statistic guidellm_statistics[] = {{"mean", "mean"},
						       {"median", "median"},
						       {"std_dev", "std"},
						       {"percentiles.p01", "p1"},
						       {"percentiles.p05", "p5"},
						       {"percentiles.p10", "p10"},
						       {"percentiles.p25", "p25"},
						       {"percentiles.p75", "p75"},
						       {"percentiles.p90", "p90"},
						       {"percentiles.p95", "p95"},
						       {"percentiles.p99", "p99"},
						       {"percentiles.p999", "p99.9"},
						       {NULL, NULL}};
static const struct spelling guidellm_totals[] = {
	{"metrics.requests_per_second.successful.mean", "request_throughput", 1},
	{"metrics.output_tokens_per_second.successful.mean", "output_throughput", 1},
	{"metrics.tokens_per_second.successful.mean", "total_token_throughput", 1},
	{"metrics.prompt_token_count.successful.total_sum", "total_input_tokens", 1},
	{"metrics.output_token_count.successful.total_sum", "total_output_tokens", 1},
	{"metrics.request_totals.successful", "completed", 1},
	{"metrics.request_totals.errored", "failed", 1},
	{"request_totals.successful", "completed", 1},
	{"request_totals.errored", "failed", 1},
	{"scheduler_metrics.requests_made.successful", "completed", 1},
	{"scheduler_metrics.requests_made.errored", "failed", 1},
	{"run_stats.requests_made.successful", "completed", 1},
	{"run_stats.requests_made.errored", "failed", 1},
	{"config.strategy.rate", "request_rate", 1},
	{"args.strategy.rate", "request_rate", 1},
	{"config.strategy.streams", "max_concurrency", 1},
	{"args.strategy.streams", "max_concurrency", 1},
	{"config.strategy.max_concurrency", "max_concurrency", 1},
	{"args.strategy.max_concurrency", "max_concurrency", 1},
	{"duration", "duration", 1},
	{NULL, NULL, 0}};

static int read_guidellm(struct result_doc *d)
{
	static const char *const models[] = {"config.backend.model", "args.model",
					     "config.requests.model", "metadata.model"};
	static const char *const strategies[] = {"config.strategy.type_", "args.strategy.type_"};
	int err = add_all(d, guidellm_totals);

	if (!err)
		err = add_statistics(d, "metrics.time_to_first_token_ms.successful",
				     guidellm_statistics, "ttft", 1);
	if (!err)
		err = add_statistics(d, "metrics.inter_token_latency_ms.successful",
				     guidellm_statistics, "tpot", 1);
	if (!err)
		err = add_statistics(d, "metrics.request_latency.successful", guidellm_statistics,
				     "e2el", 1e3);
	for (size_t i = 0; !err && i < sizeof(models) / sizeof(models[0]); i++)
		err = add_text(d, "model_id", result_text(d, models[i]));
	for (size_t i = 0; !err && i < sizeof(strategies) / sizeof(strategies[0]); i++)
		err = add_text(d, "strategy", result_text(d, strategies[i]));
	return err;
}

/* -- all -- */

static bool of_metric(const char *name, const char *metric)
{
	size_t n = strlen(name), m = strlen(metric);

	return n > m + 4 && strcmp(name + n - 3, "_ms") == 0 && !strchr(name, ' ') &&
	       strncmp(name + n - 3 - m, metric, m) == 0 && name[n - 4 - m] == '_';
}

/* A latency cannot be 0: figures that are all 0 stand for no sample. */
static void zeros_to_null(struct result_doc *d)
{
	static const char *const metrics[] = {"ttft", "tpot", "itl", "e2el"};

	for (size_t m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
		size_t zero = 0, other = 0;

		for (size_t i = 0; i < d->n; i++)
			if (of_metric(d->field[i].name, metrics[m]))
				*(fabs(d->field[i].number) > 0 ? &other : &zero) += 1;
		for (size_t i = 0; other == 0 && zero > 0 && i < d->n; i++) {
			struct result_field *f = &d->field[i];

			if (!of_metric(f->name, metrics[m]) || f->type != RESULT_NUMBER ||
			    !(f->number <= 0))
				continue;
			f->type = RESULT_NULL;
			f->number = NAN;
			f->text[0] = '0';
			f->text[1] = '\0';
		}
	}
}

int result_foreign(struct result_doc *d)
{
	const char *format = NULL;
	int err = PD_OK;

	if (has(d, "mean_e2e_latency_ms") || has(d, "total_throughput")) {
		format = "sglang";
		err = read_sglang(d);
	} else if (has(d, "time_to_first_token.avg") || has(d, "request_latency.avg") ||
		   has(d, "request_throughput.avg")) {
		format = "aiperf";
		err = read_aiperf(d);
	} else if (has(d, "metrics.requests_per_second.successful.mean") ||
		   has(d, "metrics.request_latency.successful.mean")) {
		format = "guidellm";
		err = read_guidellm(d);
	}
	if (!err)
		err = add_text(d, "format", format);
	zeros_to_null(d);
	return err;
}
