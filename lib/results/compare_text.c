/*
 * The tables for people, in the manner of benchstat. Two sides get every figure of a change; three
 * and more get one column pair each, so that the table fits a job log. Colour is laid over finished
 * lines, so columns stay aligned.
 */
#include "lib/results/compare_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/table.h"
#include "lib/results/compare_change.h"

#define GREEN "\033[32m"
#define RED   "\033[31m"
#define RESET "\033[0m"

/* "worse", "(worse)" when only indicative, "~" when not significant. */
static const char *mark_text(const struct compare_row *row, size_t side)
{
	static const char *const sure[] = {"", "~", "better", "worse", "differs"};
	static const char *const unsure[] = {"", "(~)", "(better)", "(worse)", "(differs)"};
	enum compare_mark mark = compare_mark(row, side);

	if (!(fabs(row->change[side].change) > 0))
		return row->change[side].basis == COMPARE_RUNS ? "~" : "=";
	return row->change[side].basis == COMPARE_RUNS ? sure[mark] : unsure[mark];
}

/* Four or more significant digits, no exponent in the usual range, whole numbers as such. */
static void number(char *out, size_t cap, double v)
{
	double size = fabs(v);

	if (size < 1e15 && !(fabs(v - nearbyint(v)) > 0))
		(void)snprintf(out, cap, "%.0f", v);
	else if (size >= 1000 && size < 1e15)
		(void)snprintf(out, cap, "%.1f", v);
	else if (size >= 1)
		(void)snprintf(out, cap, "%.2f", v);
	else
		(void)snprintf(out, cap, "%.4g", v);
}

static void value_cell(struct table *t, const struct compare_cell *cell)
{
	char text[64];

	number(text, sizeof(text), cell->median);
	if (isnan(cell->spread))
		table_cell(t, "%s", text);
	else
		table_cell(t, "%s ±%.0f%%", text, cell->spread * 100);
}

static void change_cell(struct table *t, const struct compare_change *ch)
{
	if (isinf(ch->change))
		table_cell(t, "%s", ch->change > 0 ? "from 0 up" : "from 0 down");
	else
		table_cell(t, "%+.2f%%", ch->change * 100);
}

static void detail_cells(struct table *t, const struct compare_row *row)
{
	const struct compare_change *ch = &row->change[1];

	if (isnan(ch->lo) || isinf(ch->lo) || isinf(ch->hi))
		table_cell(t, "-");
	else
		table_cell(t, "[%+.1f%%, %+.1f%%]", ch->lo * 100, ch->hi * 100);
	if (isnan(ch->p)) {
		table_cell(t, "-");
		table_cell(t, "-");
	} else {
		table_cell(t, "%.3f", ch->p);
		table_cell(t, "%+.2f", ch->effect);
	}
	table_cell(t, "%zu+%zu", row->cell[0].n, row->cell[1].n);
}

static void fill_row(struct table *t, const struct compare *c, const struct compare_row *row,
		     bool theirs)
{
	table_row(t);
	table_cell(t, "%s%s", row->name, theirs && metric_is_itl(row->name) ? " (per chunk)" : "");
	value_cell(t, &row->cell[0]);
	for (size_t k = 1; k < c->nsides; k++) {
		value_cell(t, &row->cell[k]);
		change_cell(t, &row->change[k]);
		if (c->nsides == 2)
			detail_cells(t, row);
		table_cell(t, "%s", mark_text(row, k));
	}
}

static void metric_table(struct table *t, const struct compare *c)
{
	char head[96];
	bool theirs = !compare_is_ours(&c->side[0].runs.doc[0]);

	table_init(t);
	table_column(t, "metric");
	for (size_t k = 0; k < c->nsides; k++) {
		(void)snprintf(head, sizeof(head), ">%s", c->side[k].label);
		table_column(t, head);
		if (k == 0)
			continue;
		table_column(t, ">change");
		if (c->nsides == 2) {
			(void)snprintf(head, sizeof(head), ">%g%% interval", 100 * (1 - c->alpha));
			table_column(t, head);
			table_column(t, ">p");
			table_column(t, ">effect");
			table_column(t, ">n");
		}
		table_column(t, "");
	}
	for (size_t i = 0; i < c->nrows; i++)
		fill_row(t, c, &c->row[i], theirs);
}

static void gate_table(struct table *t, const struct compare_report *r)
{
	table_init(t);
	table_column(t, "gate");
	table_column(t, "side");
	table_column(t, "verdict");
	table_column(t, "why");
	for (size_t i = 0; i < r->nresults; i++) {
		const struct gate_result *g = &r->result[i];

		table_row(t);
		table_cell(t, "%s %s", gate_flag(g->gate->kind), g->gate->text);
		table_cell(t, "%s", r->compare->side[g->side].label);
		table_cell(t, "%s", gate_verdict_text(g->verdict));
		table_cell(t, "%s", g->why);
	}
}

static const char *row_colour(const struct compare *c, size_t row)
{
	enum compare_mark mark = MARK_NONE;

	for (size_t k = 1; k < c->nsides; k++)
		if (mark != MARK_WORSE)
			mark = compare_mark(&c->row[row], k);
	return mark == MARK_BETTER ? GREEN : mark == MARK_WORSE ? RED : NULL;
}

static const char *gate_colour(const struct gate_result *g)
{
	return g->verdict == GATE_FAIL ? RED : g->verdict == GATE_PASS ? GREEN : NULL;
}

/* Copies a finished table; its last `rows` lines get the colour of their row. */
static int paint(const struct compare_report *r, bool gates, const struct buf *table, size_t rows,
		 struct buf *out)
{
	size_t lines = 0, line = 0, at = 0;
	int err = PD_OK;

	for (size_t i = 0; i < table->len; i++)
		lines += table->data[i] == '\n';
	while (!err && at < table->len) {
		const char *end = memchr(table->data + at, '\n', table->len - at);
		size_t n = end ? (size_t)(end - table->data) - at : table->len - at;
		const char *colour = NULL;

		if (line + rows >= lines && line + rows - lines < rows) {
			size_t row = line + rows - lines;

			colour = gates ? gate_colour(&r->result[row]) : row_colour(r->compare, row);
		}
		if (colour)
			err = buf_puts(out, colour);
		if (!err)
			err = buf_append(out, table->data + at, n);
		if (!err && colour)
			err = buf_puts(out, RESET);
		if (!err)
			err = buf_putc(out, '\n');
		at += n + 1;
		line++;
	}
	return err;
}

static int put_table(const struct compare_report *r, bool gates, bool markdown, bool colour,
		     struct buf *out)
{
	struct table t;
	struct buf text;
	int err;

	if (gates)
		gate_table(&t, r);
	else
		metric_table(&t, r->compare);
	buf_init(&text, out->max);
	err = markdown ? table_markdown(&t, &text) : table_text(&t, &text);
	if (!err)
		err = colour ? paint(r, gates, &text, t.nrows, out)
			     : buf_append(out, text.data, text.len);
	buf_release(&text);
	table_release(&t);
	return err;
}

static int put_sides(const struct compare *c, const char *bullet, struct buf *out)
{
	int err = PD_OK;

	for (size_t k = 0; !err && k < c->nsides; k++) {
		const struct result_set *s = &c->side[k].runs;

		err = buf_printf(out, "%s%s: %zu %s, %s%s%s\n", bullet, c->side[k].label, s->n,
				 s->n == 1 ? "run" : "runs", s->doc[0].source,
				 s->n > 1 ? " ... " : "", s->n > 1 ? s->doc[s->n - 1].source : "");
	}
	return err;
}

static int put_basis(const struct compare *c, const char *bullet, struct buf *out)
{
	bool enough = true, single = false;
	int err;

	for (size_t k = 1; k < c->nsides; k++) {
		enough = enough && compare_enough(c, c->side[0].runs.n, c->side[k].runs.n);
		single = single || c->side[0].runs.n == 1 || c->side[k].runs.n == 1;
	}
	if (enough)
		return buf_printf(out,
				  "%smedian of the runs ± the run farthest from it; change: "
				  "Hodges-Lehmann shift; p: Mann-Whitney; effect: rank-biserial; "
				  "~ not significant at %g\n",
				  bullet, c->alpha);
	err = buf_printf(out, "%s%s, indicative: no claim at alpha %g is possible; give ", bullet,
			 single ? "single run" : "too few runs", c->alpha);
	if (!err)
		err = buf_printf(out, "at least %zu runs per side, best interleaved (A B B A)\n",
				 c->min_runs > 4 ? c->min_runs : (size_t)4);
	return err;
}

static int put_notes(const struct compare_report *r, const char *bullet, struct buf *out)
{
	const struct compare *c = r->compare;
	size_t relative = 0;
	int err = PD_OK;

	if (c->nsides > 1)
		err = put_basis(c, bullet, out);
	for (size_t i = 0; i < r->nresults; i++)
		relative += r->result[i].gate->kind != GATE_REQUIRE && !r->result[i].indicative;
	if (!err && relative > 1)
		err = buf_printf(out,
				 "%s%zu relative gates tested at once: if nothing changed, one of "
				 "them fails by chance in at most %.1f%% of comparisons\n",
				 bullet, relative, fmin(100, 100 * c->alpha * (double)relative));
	for (size_t i = 0; !err && i < c->nnotes; i++)
		err = buf_printf(out, "%snote: %s\n", bullet, c->note[i]);
	return err;
}

static int put_report(const struct compare_report *r, bool markdown, bool colour, struct buf *out)
{
	const char *bullet = markdown ? "- " : "";
	int err = PD_OK;

	if (markdown)
		err = buf_printf(out, "### pdctl compare%s%s\n\n", r->title ? ": " : "",
				 r->title ? r->title : "");
	if (!err)
		err = put_sides(r->compare, bullet, out);
	if (!err)
		err = buf_putc(out, '\n');
	if (!err)
		err = put_table(r, false, markdown, colour, out);
	if (!err && r->nresults > 0) {
		err = buf_putc(out, '\n');
		if (!err)
			err = put_table(r, true, markdown, colour, out);
	}
	if (!err)
		err = buf_putc(out, '\n');
	return err ? err : put_notes(r, bullet, out);
}

int compare_report_text(const struct compare_report *r, bool colour, struct buf *out)
{
	return put_report(r, false, colour, out);
}

int compare_report_markdown(const struct compare_report *r, struct buf *out)
{
	return put_report(r, true, false, out);
}
