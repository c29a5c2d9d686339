/* Lists are formatted line by line and not through a table: 10,000 runs are printed in some
 * milliseconds. */
#include "cmd/results_print.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/table.h"
#include "lib/json/scan.h"
#include "lib/results/document.h"
#include "lib/results/metric_name.h"
#include "lib/results/result_opts.h"

#define LABEL_WIDTH 16
#define TREND_LINES 40
#define MARKS_MAX   80
#define DOCUMENT    ((size_t)1 << 30)

/* "-" for what is not known; `decimals` below 0: as many as needed. */
static void cell(char *text, size_t cap, int decimals, double v)
{
	if (isnan(v))
		(void)snprintf(text, cap, "-");
	else if (isinf(v))
		(void)snprintf(text, cap, "inf");
	else if (decimals <= 0 && fabs(v) < 1e15 && !(fabs(v - nearbyint(v)) > 0))
		(void)snprintf(text, cap, "%" PRId64, (int64_t)v);
	else if (decimals < 0)
		(void)snprintf(text, cap, "%.4g", v);
	else
		(void)snprintf(text, cap, "%.*f", decimals, v);
}

/* Bytes of at most `width` characters of UTF-8 text, and how many characters these are. */
static int fit(const char *text, int width, int *shown)
{
	int bytes = 0;

	for (*shown = 0; text[bytes] && *shown < width; ++*shown)
		for (bytes++; ((unsigned char)text[bytes] & 0xC0u) == 0x80u;)
			bytes++;
	return bytes;
}

static void when(int64_t wall_ns, char *text, size_t cap)
{
	time_t t = (time_t)(wall_ns / NS_PER_S);
	struct tm tm;

	(void)localtime_r(&t, &tm);
	(void)strftime(text, cap, "%Y-%m-%d %H:%M", &tm);
}

struct listing {
	struct buf *out;
	int64_t minute; /* of the text in `saved` */
	char saved[32];
};

static int list_line(void *arg, const struct store_run *r)
{
	struct listing *l = arg;
	char rate[24], requests[24], failed[24], ttft[24], p99[24], tpot[24], tput[24];
	const char *label = r->label ? r->label : "-";
	int shown, bytes = fit(label, LABEL_WIDTH, &shown);

	if (l->minute != r->saved_ns / NS_PER_S / 60) {
		when(r->saved_ns, l->saved, sizeof(l->saved));
		l->minute = r->saved_ns / NS_PER_S / 60;
	}
	cell(rate, sizeof(rate), -1, r->request_rate);
	cell(requests, sizeof(requests), 0, r->requests);
	cell(failed, sizeof(failed), 0, r->failed);
	cell(ttft, sizeof(ttft), 2, r->mean_ttft_ms);
	cell(p99, sizeof(p99), 2, r->p99_ttft_ms);
	cell(tpot, sizeof(tpot), 2, r->mean_tpot_ms);
	cell(tput, sizeof(tput), 2, r->request_throughput);
	return buf_printf(l->out, "%5" PRId64 "  %s  %.*s%*s  %5s  %7s  %5s  %8s  %8s  %6s  %6s\n",
			  r->id, l->saved, bytes, label, LABEL_WIDTH - shown, "", rate, requests,
			  failed, ttft, p99, tpot, tput);
}

static int put_text(struct buf *out, const char *name, const char *text)
{
	int err = buf_printf(out, ", \"%s\": ", name);

	if (err)
		return err;
	return text ? json_quote(out, text, strlen(text)) : buf_puts(out, "null");
}

static int put_number(struct buf *out, const char *name, double v)
{
	int err = buf_printf(out, ", \"%s\": ", name);

	if (err)
		return err;
	return isinf(v) ? buf_puts(out, "\"inf\"") : result_put_number(out, v);
}

static int json_members(struct buf *out, const struct store_run *r)
{
	char saved[40];
	int err;

	clock_rfc3339(r->saved_ns, saved, sizeof(saved));
	err = buf_printf(out, "{\"run\": %" PRId64 ", \"saved\": \"%s\"", r->id, saved);
	err = err ? err : put_text(out, "tool", r->tool);
	err = err ? err : put_text(out, "label", r->label);
	err = err ? err : put_text(out, "model_id", r->model);
	err = err ? err : put_text(out, "backend", r->backend);
	err = err ? err : put_text(out, "date", r->date);
	err = err ? err : put_text(out, "commit", r->commit);
	err = err ? err : put_number(out, "request_rate", r->request_rate);
	err = err ? err : put_number(out, "max_concurrency", r->concurrency);
	err = err ? err : put_number(out, "num_prompts", r->requests);
	err = err ? err : put_number(out, "completed", r->completed);
	return err ? err : put_number(out, "failed", r->failed);
}

static int list_json(void *arg, const struct store_run *r)
{
	struct buf *out = ((struct listing *)arg)->out;
	int err = json_members(out, r);

	err = err ? err : put_number(out, "duration", r->duration);
	err = err ? err : put_number(out, "mean_ttft_ms", r->mean_ttft_ms);
	err = err ? err : put_number(out, "p99_ttft_ms", r->p99_ttft_ms);
	err = err ? err : put_number(out, "mean_tpot_ms", r->mean_tpot_ms);
	err = err ? err : put_number(out, "request_throughput", r->request_throughput);
	err = err ? err : put_number(out, "bytes", (double)r->bytes);
	return err ? err : buf_puts(out, "}\n");
}

int results_print_list(struct store *s, const struct store_filter *f, bool json, struct buf *out,
		       struct pd_msg *msg)
{
	struct listing l = {out, -1, ""};
	int err = json ? PD_OK
		       : buf_printf(out, "%5s  %-16s  %-*s  %5s  %7s  %5s  %8s  %8s  %6s  %6s\n",
				    "run", "saved", LABEL_WIDTH, "label", "rate", "reqs", "fail",
				    "ttft ms", "p99 ttft", "tpot", "req/s");

	return err ? err : store_list(s, f, json ? list_json : list_line, &l, msg);
}

/* -- one run -- */

static void head_line(struct table *t, const char *what, const char *text)
{
	if (!text)
		return;
	table_row(t);
	table_cell(t, "%s", what);
	table_cell(t, "%s", text);
}

static int run_head(void *arg, const struct store_run *r)
{
	struct table t;
	char text[64];
	int err;

	table_init(&t);
	(void)snprintf(text, sizeof(text), "run %" PRId64, r->id);
	table_column(&t, text);
	table_column(&t, "");
	when(r->saved_ns, text, sizeof(text));
	head_line(&t, "saved", text);
	head_line(&t, "tool", r->tool);
	head_line(&t, "label", r->label);
	head_line(&t, "model", r->model);
	head_line(&t, "backend", r->backend);
	head_line(&t, "commit", r->commit);
	(void)snprintf(text, sizeof(text), "%" PRId64, r->bytes);
	head_line(&t, "bytes", text);
	err = table_text(&t, arg);
	table_release(&t);
	return err;
}

struct wanted {
	int64_t id;
	struct buf *out;
};

static int only_this(void *arg, const struct store_run *r)
{
	const struct wanted *w = arg;

	return r->id == w->id ? run_head(w->out, r) : PD_OK;
}

static int read_document(struct store *s, int64_t id, struct result_set *set, struct pd_msg *msg)
{
	struct buf text;
	char name[32];
	int err;

	buf_init(&text, DOCUMENT);
	(void)snprintf(name, sizeof(name), "@%" PRId64, id);
	err = store_document(s, id, &text, msg);
	if (!err)
		err = result_parse(set, name, buf_span(&text), msg);
	buf_release(&text);
	return err;
}

static int figures(const struct result_doc *d, struct buf *out)
{
	struct table t;
	int err;

	table_init(&t);
	table_column(&t, "figure");
	table_column(&t, ">value");
	table_column(&t, "");
	for (size_t i = 0; i < d->n; i++) {
		const struct result_field *f = &d->field[i];

		if (metric_nested(f->name) || f->type == RESULT_TEXT || f->type == RESULT_BOOL)
			continue;
		table_row(&t);
		table_cell(&t, "%s", f->name);
		if (f->type == RESULT_NULL)
			table_cell(&t, "-");
		else
			table_cell(&t, "%.6g", f->number);
		table_cell(&t, "%s", metric_unit(f->name));
	}
	err = table_text(&t, out);
	table_release(&t);
	return err;
}

int results_print_run(struct store *s, int64_t id, struct buf *out, struct pd_msg *msg)
{
	const struct store_filter all = {NULL, NULL, NULL, 0};
	struct wanted w = {id, out};
	struct result_set set;
	int err;

	result_set_init(&set);
	err = out->len > 0 ? buf_putc(out, '\n') : PD_OK;
	if (!err)
		err = store_list(s, &all, only_this, &w, msg);
	if (!err)
		err = read_document(s, id, &set, msg);
	if (!err)
		err = buf_putc(out, '\n');
	if (!err)
		err = figures(&set.doc[0], out);
	result_set_release(&set);
	return err;
}

/* -- history -- */

struct point {
	int64_t id, saved_ns;
	double value;
	char label[48], commit[16];
};

struct history {
	struct point *p;
	size_t n, cap;
	struct buf *out; /* JSON form */
	bool json;
};

static int add_point(void *arg, const struct store_run *r, double value)
{
	struct history *h = arg;
	struct point *p;
	int err;

	if (h->json) {
		err = json_members(h->out, r);
		err = err ? err : put_number(h->out, "value", value);
		h->n++;
		return err ? err : buf_puts(h->out, "}\n");
	}
	if (h->n == h->cap) {
		p = realloc(h->p, (h->cap ? h->cap * 2 : 64) * sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		h->p = p;
		h->cap = h->cap ? h->cap * 2 : 64;
	}
	p = &h->p[h->n++];
	*p = (struct point){.id = r->id, .saved_ns = r->saved_ns, .value = value};
	(void)snprintf(p->label, sizeof(p->label), "%.47s", r->label ? r->label : "-");
	(void)snprintf(p->commit, sizeof(p->commit), "%.10s", r->commit ? r->commit : "-");
	return PD_OK;
}

/* One mark per run, or per group of runs (its mean) when there are many. */
static int sparkline(const struct history *h, struct buf *out)
{
	static const char *const marks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	size_t groups = h->n < MARKS_MAX ? h->n : MARKS_MAX;
	double lo = INFINITY, hi = -INFINITY, v[MARKS_MAX];
	int err = PD_OK;

	for (size_t g = 0; g < groups; g++) {
		size_t from = g * h->n / groups, to = (g + 1) * h->n / groups;

		v[g] = 0;
		for (size_t i = from; i < to; i++)
			v[g] += h->p[i].value / (double)(to - from);
		lo = fmin(lo, v[g]);
		hi = fmax(hi, v[g]);
	}
	for (size_t g = 0; !err && g < groups; g++)
		err = buf_puts(out, marks[hi > lo ? (int)fmin(7, (v[g] - lo) / (hi - lo) * 8) : 3]);
	return err ? err : buf_printf(out, "  %.6g to %.6g\n\n", lo, hi);
}

static int history_table(const struct history *h, size_t lines, struct buf *out)
{
	size_t from = h->n > lines ? h->n - lines : 0;
	char saved[32];
	struct table t;
	int err;

	table_init(&t);
	table_column(&t, ">run");
	table_column(&t, "saved");
	table_column(&t, "commit");
	table_column(&t, "label");
	table_column(&t, ">value");
	table_column(&t, ">to the one before");
	for (size_t i = from; i < h->n; i++) {
		const struct point *p = &h->p[i];
		double before = i > 0 ? h->p[i - 1].value : (double)NAN;

		when(p->saved_ns, saved, sizeof(saved));
		table_row(&t);
		table_cell(&t, "%" PRId64, p->id);
		table_cell(&t, "%s", saved);
		table_cell(&t, "%s", p->commit);
		table_cell(&t, "%.24s", p->label);
		table_cell(&t, "%.6g", p->value);
		if (fabs(before) > 0)
			table_cell(&t, "%+.2f%%", (p->value - before) / fabs(before) * 100);
		else
			table_cell(&t, "-");
	}
	err = table_text(&t, out);
	table_release(&t);
	return err;
}

int results_print_trend(struct store *s, const char *metric, const struct store_filter *f,
			bool json, struct buf *out, struct pd_msg *msg)
{
	struct history h = {.json = json, .out = out};
	int err = store_history(s, metric, f, add_point, &h, msg);
	char *near;

	if (!err && h.n == 0) {
		near = store_nearest_metric(s, metric);
		(void)pd_fail(msg, PD_EINVAL, "no run of the store has '%s'%s%s%s", metric,
			      near && strcmp(near, metric) != 0 ? ", did you mean '" : "",
			      near && strcmp(near, metric) != 0 ? near : "",
			      near && strcmp(near, metric) != 0 ? "'?" : "");
		free(near);
		err = PD_EINVAL;
	}
	if (!err && !json) {
		err = buf_printf(out, "%s%s%s over %zu %s\n", metric,
				 metric_unit(metric)[0] ? " in " : "", metric_unit(metric), h.n,
				 h.n == 1 ? "run" : "runs");
		err = err ? err : sparkline(&h, out);
		err = err ? err : history_table(&h, f->last > 0 ? h.n : TREND_LINES, out);
	}
	free(h.p);
	return err;
}

/* -- vLLM's table -- */

static const struct {
	const char *ours, *theirs;
} columns[] = {
	{"completed", "# of req."},
	{"max_concurrency", "# of max concurrency."},
	{"request_throughput", "Tput (req/s)"},
	{"total_token_throughput", "Total Token Tput (tok/s)"},
	{"output_throughput", "Output Tput (tok/s)"},
	{"mean_ttft_ms", "Mean TTFT (ms)"},
	{"median_ttft_ms", "Median TTFT (ms)"},
	{"p99_ttft_ms", "P99 TTFT (ms)"},
	{"std_ttft_ms", "STD TTFT (ms)"},
	{"mean_tpot_ms", "Mean TPOT (ms)"},
	{"median_tpot_ms", "Median"},
	{"p99_tpot_ms", "P99"},
	{"std_tpot_ms", "STD TPOT (ms)"},
	{"mean_itl_ms", "Mean ITL (ms)"},
	{"median_itl_ms", "Median ITL (ms)"},
	{"p99_itl_ms", "P99 ITL (ms)"},
};

/* What its table takes from command lines comes from metadata, when given under these names. */
static const struct {
	const char *ours, *theirs;
} described[] = {
	{"dataset_name", "Dataset Name"},
	{"input_len", "Input Len"},
	{"output_len", "Output Len"},
	{"tp_size", "TP Size"},
	{"pp_size", "PP Size"},
	{"dtype", "dtype"},
	{"gpu_type", "GPU"},
};

static int vllm_record(const struct result_doc *d, struct buf *out)
{
	const char *label = result_text(d, "label"), *model = result_text(d, "model_id");
	double rate = result_number(d, "request_rate"), done = result_number(d, "completed");
	int err = buf_puts(out, "{\"Test name\": ");

	err = err ? err
		  : json_quote(out, label ? label : d->source, strlen(label ? label : d->source));
	err = err ? err : put_text(out, "Model", model);
	for (size_t i = 0; !err && i < sizeof(described) / sizeof(described[0]); i++) {
		const char *text = result_text(d, described[i].ours);
		double mean = NAN;

		if (strcmp(described[i].ours, "input_len") == 0)
			mean = nearbyint(result_number(d, "total_input_tokens") / done);
		if (strcmp(described[i].ours, "output_len") == 0)
			mean = nearbyint(result_number(d, "total_output_tokens") / done);
		if (text)
			err = put_text(out, described[i].theirs, text);
		else if (i < 3 && !isnan(mean))
			err = put_number(out, described[i].theirs, mean);
		else
			err = put_text(out, described[i].theirs,
				       strcmp(described[i].ours, "dataset_name") == 0
					       ? result_text(d, "pdctl.dataset_hash")
					       : NULL);
	}
	err = err ? err : put_number(out, "qps", rate);
	for (size_t i = 0; !err && i < sizeof(columns) / sizeof(columns[0]); i++)
		err = put_number(out, columns[i].theirs, result_number(d, columns[i].ours));
	return err ? err : buf_putc(out, '}');
}

int results_print_vllm(struct store *s, int64_t id, bool comma, struct buf *out, struct pd_msg *msg)
{
	struct result_set set;
	int err;

	result_set_init(&set);
	err = read_document(s, id, &set, msg);
	if (!err)
		err = buf_puts(out, comma ? ",\n" : "\n");
	if (!err)
		err = vllm_record(&set.doc[0], out);
	result_set_release(&set);
	return err;
}
