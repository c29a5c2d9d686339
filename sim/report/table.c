/*
 * P/D values are written as "prefill/decode". The best value of a column within
 * one scenario may carry a mark; then the others carry a space in its place, so columns stay
 * aligned.
 */
#include "sim/report/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct column {
	const char *head;
	const char *metric;
	const char *format;
	double scale;
	const char *second; /* shown in brackets behind it */
	const char *pair;   /* format of each of two pools; NULL: `format` */
};

static const struct column columns[] = {
	{">kept %", "session_consistency", "%.1f", 100, NULL, NULL},
	{">peak/mean", "peak_to_mean", "%.2f", 1, "floor_peak_to_mean", NULL},
	{">CV", "cv", "%.3f", 1, NULL, NULL},
	{">idle", "idle_workers", "%.0f", 1, NULL, NULL},
	{">hits %", "block_hit_rate", "%.2f", 100, NULL, "%.1f"},
	{">load max/mean", "peak_to_mean_uncached", "%.2f", 1, NULL, NULL},
	{">leave moves %", "keys_moved_leave", "%.1f", 100, "keys_moved_leave_ideal", NULL},
	{">join moves %", "keys_moved_join", "%.1f", 100, "keys_moved_join_ideal", NULL},
	{">TTFT p50*", "median_ttft_ms", "%.0f", 1, NULL, NULL},
	{">TTFT p99*", "p99_ttft_ms", "%.0f", 1, NULL, NULL},
	{">E2E p99*", "p99_e2el_ms", "%.0f", 1, NULL, NULL},
	{">TPOT p50*", "median_tpot_ms", "%.1f", 1, NULL, NULL},
	{">queue p99*", "p99_queue_ms", "%.0f", 1, NULL, NULL},
	{">good %", "goodput_share", "%.1f", 100, NULL, NULL},
};

#define NCOLUMNS  (sizeof(columns) / sizeof(columns[0]))
#define CELL_MAX  96
#define LINE_MAX_ 95 /* characters of a line that lists columns */
#define NAME_MIN  12 /* characters that are left of a name */

void simreport_columns(struct table *t)
{
	table_column(t, "scenario");
	table_column(t, "policy");
	table_column(t, "point");
	table_column(t, ">pool");
	table_column(t, ">cache");
	for (size_t i = 0; i < NCOLUMNS; i++)
		table_column(t, columns[i].head);
	table_column(t, ">failed");
	table_column(t, "front");
	table_column(t, "expected");
}

static const char *const failed_head = "failed";

static size_t column_named(const struct table *t, const char *head)
{
	for (size_t c = 0; c < t->ncols; c++)
		if (strcmp(t->heads[c], head) == 0)
			return c;
	return t->ncols;
}

/* Does the column say the same in all rows? `text`: and is it that; NULL: whatever it is. */
static bool constant(const struct table *t, size_t col, const char *text)
{
	for (size_t r = 0; r < t->nrows; r++) {
		const char *s = table_at(t, r, col);

		while (*s == ' ' || *s == SIMREPORT_MARK[0])
			s++;
		if (strcmp(s, text ? text : table_at(t, 0, col)) != 0)
			return false;
	}
	return true;
}

/* Policies tell rows apart more than names of scenarios do. */
static void cut_names(struct table *t, size_t width)
{
	static const char *const names[] = {"scenario", "policy", "point"};

	for (size_t i = 0; width > 0 && i < 3 && table_width(t) > width; i++) {
		size_t over = table_width(t) - width, col = column_named(t, names[i]), w;

		if (col == t->ncols)
			continue;
		w = table_column_width(t, col);
		table_cut(t, col, w > NAME_MIN + over ? w - over : NAME_MIN);
	}
}

void simreport_fit(struct table *t, size_t width, struct buf *left_out)
{
	/* what goes first when it does not fit; what stays tells the rows apart and what they are
	 * about */
	static const char *const order[] = {
		"queue p99*", "TPOT p50*",     "join moves %", "leave moves %", "CV",
		"idle",	      "load max/mean", "TTFT p99*",    "scenario",	"cache",
		"point",      "TTFT p50*",     "peak/mean",    "E2E p99*"};
	static const char *const rare[] = {"point", "front", "good %"};
	size_t before = left_out->len, at;
	size_t line = before; /* where the last line of left_out begins */
	int err = PD_OK;

	at = column_named(t, failed_head);
	if (at < t->ncols && constant(t, at, "0"))
		table_drop_column(t, at);
	for (size_t i = 0; i < sizeof(rare) / sizeof(rare[0]); i++) {
		at = column_named(t, rare[i]);
		if (at < t->ncols && constant(t, at, "-"))
			table_drop_column(t, at);
	}
	/* columns without a value cost width and say nothing */
	for (size_t c = 0; width > 0 && c < t->ncols;)
		if (table_width(t) > width && strcmp(t->heads[c], "expected") != 0 &&
		    constant(t, c, "-"))
			table_drop_column(t, c);
		else
			c++;
	for (size_t i = 0; width > 0 && i < sizeof(order) / sizeof(order[0]); i++) {
		at = column_named(t, order[i]);
		if (at == t->ncols || table_width(t) <= width)
			continue;
		/* rows that differ in it only would not be told apart */
		if ((strcmp(order[i], "scenario") == 0 || strcmp(order[i], "cache") == 0 ||
		     strcmp(order[i], "point") == 0) &&
		    !constant(t, at, NULL))
			continue;
		table_drop_column(t, at);
		if (!err && left_out->len - line + strlen(order[i]) > LINE_MAX_) {
			err = buf_puts(left_out, ",\n  ");
			line = left_out->len - 2;
		} else if (!err) {
			err = buf_puts(left_out,
				       left_out->len == before ? "columns of --wide: " : ", ");
		}
		err = err ? err : buf_puts(left_out, order[i]);
	}
	if (!err && left_out->len > before)
		err = buf_putc(left_out, '\n');
	t->failed |= err != PD_OK;
	cut_names(t, width);
}

static const struct simmetric *metric(const char *name)
{
	return simmetric_find(name, strlen(name));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the formats are in the table above */
static size_t number(const struct column *c, bool pair, double value, char *out, size_t cap)
{
	int n = isfinite(value) ? snprintf(out, cap, pair && c->pair ? c->pair : c->format,
					   value * c->scale)
				: snprintf(out, cap, "-");

	return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}
#pragma GCC diagnostic pop

static void one_value(const struct column *c, const struct arm *a, size_t pool, char *out,
		      size_t cap)
{
	const struct simmetric *second = c->second ? metric(c->second) : NULL;
	bool pair = a->cfg.npools > 1;
	size_t n = number(c, pair, simmetric_value(metric(c->metric), a, pool), out, cap);

	if (!second || !isfinite(simmetric_value(second, a, pool)) || n + 3 >= cap)
		return;
	(void)snprintf(out + n, cap - n, " (");
	n += 2 + number(c, pair, simmetric_value(second, a, pool), out + n + 2, cap - n - 2);
	(void)snprintf(out + n, cap - n, ")");
}

/* The best of this column among the arms with the same number of workers and cache size; false when
 * all are equal. */
static bool is_best(const struct simreport *r, const struct column *c, const struct arm *a)
{
	const struct simmetric *m = metric(c->metric);
	double mine = simmetric_value(m, a, 0);
	bool differs = false;

	if (m->better == SIMMETRIC_NEITHER || !isfinite(mine) || a->cfg.npools > 1)
		return false;
	for (size_t i = 0; i < r->arms->n; i++) {
		const struct arm *b = &r->arms->arm[i];
		double other = simmetric_value(m, b, 0);

		if (b->workers != a->workers || b->cache != a->cache || !isfinite(other) ||
		    strcmp(b->point, a->point) != 0)
			continue;
		if (m->better == SIMMETRIC_LOWER ? other < mine : other > mine)
			return false;
		differs |= other < mine || other > mine;
	}
	return differs;
}

static void cell(const struct simreport *r, const struct column *c, const struct arm *a, bool mark,
		 struct table *t)
{
	char first[CELL_MAX], second[CELL_MAX];
	const char *front = !mark ? "" : is_best(r, c, a) ? SIMREPORT_MARK : " ";

	one_value(c, a, 0, first, sizeof(first));
	if (a->cfg.npools == 1 || !metric(c->metric)->per_pool) {
		table_cell(t, "%s%s", front, first);
		return;
	}
	one_value(c, a, 1, second, sizeof(second));
	table_cell(t, "%s%s/%s", front, first, second);
}

static void verdict(const struct simreport *r, size_t arm, struct table *t)
{
	size_t checked = 0, missed = 0;

	for (size_t i = 0; r->expected && i < r->expected->n; i++) {
		if (r->expected->item[i].arm != arm)
			continue;
		checked++;
		missed += !r->expected->item[i].ok;
	}
	if (checked == 0)
		table_cell(t, "-");
	else if (missed == 0)
		table_cell(t, "%zu ok", checked);
	else
		table_cell(t, "MISSED %zu of %zu", missed, checked);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* The last names of the swept fields with their values. */
static void point_cell(const char *point, struct table *t)
{
	char out[ARM_POINT_MAX];
	size_t n = 0;

	while (*point) {
		size_t word = strcspn(point, " "), at = (size_t)(strchr(point, '=') - point);

		while (at > 0 && point[at - 1] != '.')
			at--;
		n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%.*s", n ? " " : "",
				      (int)(word - at), point + at);
		point += word + (point[word] == ' ');
	}
	table_cell(t, "%s", n ? out : "-");
}

static bool pools_vary(const struct simreport *r)
{
	for (size_t i = 1; i < r->arms->n; i++)
		if (r->arms->arm[i].workers != r->arms->arm[0].workers)
			return true;
	return false;
}

void simreport_rows(const struct simreport *r, bool mark, struct table *t)
{
	bool front =
		r->shards == 0 && r->arms->n > 1 && (r->arms->arm[0].point[0] || pools_vary(r));

	for (size_t i = 0; i < r->arms->n; i++) {
		const struct arm *a = &r->arms->arm[i];

		if (!a->done)
			continue;
		table_row(t);
		table_cell(t, "%s", r->name ? r->name : base_name(r->source));
		table_cell(t, "%s", a->policy);
		point_cell(a->point, t);
		if (a->cfg.npools == 1)
			table_cell(t, "%u", a->workers);
		else
			table_cell(t, "%zuP+%zuD", a->cfg.pool[0].n, a->cfg.pool[1].n);
		if (a->cache == 0)
			table_cell(t, "unlimited");
		else
			table_cell(t, "%llu", (unsigned long long)a->cache);
		for (size_t c = 0; c < NCOLUMNS; c++)
			cell(r, &columns[c], a, mark, t);
		table_cell(t, "%" PRIu64, a->result.refused + a->result.lost);
		table_cell(t, "%s", !front ? "-" : a->pareto ? "*" : " ");
		verdict(r, i, t);
	}
}
