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

#define WIDTH_MAX 100 /* of a table of several sides */
#define GREEN	  "\033[32m"
#define RED	  "\033[31m"
#define RESET	  "\033[0m"

/* "worse", "(worse)" when only indicative, "~" when not significant. */
static const char *mark_text(const struct compare_row *row, size_t side)
{
	static const char *const sure[] = {"", "~", "better", "worse", "differs"};
	static const char *const unsure[] = {"", "(~)", "(better)", "(worse)", "(differs)"};
	const struct compare_change *ch = &row->change[side];
	enum compare_mark mark = compare_mark(row, side);
	bool proven = ch->basis == COMPARE_RUNS || ch->basis == COMPARE_PAIRS;

	if (mark == MARK_SAME && !proven && !(fabs(ch->change) > 0))
		return "=";
	return proven ? sure[mark] : unsure[mark];
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
	if (isnan(cell->median))
		table_cell(t, "-");
	else if (isnan(cell->spread))
		table_cell(t, "%s", text);
	else
		table_cell(t, "%s ±%.0f%%", text, cell->spread * 100);
}

/* "+1.20%"; what two decimals do not show is no change and has no sign. */
static void change_cell(struct table *t, const struct compare_change *ch)
{
	double percent = ch->change * 100;

	if (isnan(percent))
		table_cell(t, "-");
	else if (isinf(percent))
		table_cell(t, "%s", percent > 0 ? "from 0 up" : "from 0 down");
	else if (fabs(percent) < 0.005)
		table_cell(t, "0.00%%");
	else
		table_cell(t, "%+.2f%%", percent);
}

static void detail_cells(struct table *t, const struct compare_row *row, size_t side)
{
	const struct compare_change *ch = &row->change[side];

	if (isnan(ch->lo) || isinf(ch->lo) || isinf(ch->hi))
		table_cell(t, "-");
	else
		table_cell(t, "[%+.1f%%, %+.1f%%]", ch->lo * 100, ch->hi * 100);
	if (isnan(ch->p))
		table_cell(t, "-");
	else
		table_cell(t, "%.3f", ch->p);
	if (isnan(ch->effect))
		table_cell(t, "-");
	else
		table_cell(t, "%+.2f", ch->effect);
	table_cell(t, "%zu+%zu", row->cell[0].n, row->cell[side].n);
}

/* The base and the sides from..to-1, with all figures when it is one side. */
struct columns {
	size_t from, to;
	bool theirs; /* ITL is per chunk */
};

static void fill_row(struct table *t, const struct compare_row *row, const struct columns *cols)
{
	table_row(t);
	table_cell(t, "%s%s", row->name,
		   cols->theirs && metric_is_itl(row->name) ? " (per chunk)" : "");
	value_cell(t, &row->cell[0]);
	for (size_t k = cols->from; k < cols->to; k++) {
		value_cell(t, &row->cell[k]);
		change_cell(t, &row->change[k]);
		if (cols->to - cols->from == 1)
			detail_cells(t, row, k);
		table_cell(t, "%s", mark_text(row, k));
	}
}

static void metric_table(struct table *t, const struct compare *c, const struct columns *cols)
{
	char head[96];

	table_init(t);
	table_column(t, "metric");
	for (size_t k = 0; k < cols->to; k++) {
		if (k > 0 && k < cols->from)
			continue;
		(void)snprintf(head, sizeof(head), ">%s", c->side[k].label);
		table_column(t, head);
		if (k == 0)
			continue;
		table_column(t, ">change");
		if (cols->to - cols->from == 1) {
			(void)snprintf(head, sizeof(head), ">%g%% interval",
				       100 * (1 - c->rules.alpha));
			table_column(t, head);
			table_column(t, ">p");
			table_column(t, ">effect");
			table_column(t, ">n");
		}
		table_column(t, "");
	}
	for (size_t i = 0; i < c->nrows; i++)
		fill_row(t, &c->row[i], cols);
}

static const char *row_colour(const struct compare *c, size_t row, const struct columns *cols)
{
	enum compare_mark mark = MARK_NONE;

	for (size_t k = cols->from; k < cols->to; k++)
		if (mark != MARK_WORSE)
			mark = compare_mark(&c->row[row], k);
	return mark == MARK_BETTER ? GREEN : mark == MARK_WORSE ? RED : NULL;
}

/* Copies a finished table; its last lines, one per row, get the colour of their row. */
static int paint(const struct compare *c, const struct columns *cols, const struct buf *table,
		 struct buf *out)
{
	size_t lines = 0, line = 0, at = 0;
	int err = PD_OK;

	for (size_t i = 0; i < table->len; i++)
		lines += table->data[i] == '\n';
	while (!err && at < table->len) {
		const char *end = memchr(table->data + at, '\n', table->len - at);
		size_t n = end ? (size_t)(end - table->data) - at : table->len - at;
		size_t row = line + c->nrows - lines;
		const char *colour = line + c->nrows >= lines && row < c->nrows
					     ? row_colour(c, row, cols)
					     : NULL;

		err = buf_printf(out, "%s%.*s%s\n", colour ? colour : "", (int)n, table->data + at,
				 colour ? RESET : "");
		at += n + 1;
		line++;
	}
	return err;
}

/* Characters of the widest line, UTF-8 counted by code point. */
static size_t width_of(const struct buf *text)
{
	size_t widest = 0, now = 0;

	for (size_t i = 0; i < text->len; i++) {
		now += ((unsigned char)text->data[i] & 0xC0u) != 0x80u;
		if (text->data[i] == '\n') {
			widest = now - 1 > widest ? now - 1 : widest;
			now = 0;
		}
	}
	return widest;
}

struct style {
	bool markdown, colour;
	const char *bullet;
};

static int draw(const struct compare *c, const struct columns *cols, const struct style *style,
		struct buf *text)
{
	struct table t;
	int err;

	metric_table(&t, c, cols);
	err = style->markdown ? table_markdown(&t, text) : table_text(&t, text);
	table_release(&t);
	return err;
}

/* One table, or several when the sides do not fit beside each other. */
static int put_tables(const struct compare *c, const struct style *style, struct buf *out)
{
	struct columns cols = {1, c->nsides, !compare_is_ours(&c->side[0].runs.doc[0])};
	struct buf text;
	int err = PD_OK;

	buf_init(&text, out->max);
	do {
		for (cols.to = c->nsides; !err; cols.to--) {
			buf_clear(&text);
			err = draw(c, &cols, style, &text);
			if (style->markdown || cols.to <= cols.from + 1 ||
			    width_of(&text) <= WIDTH_MAX)
				break;
		}
		if (!err && cols.from > 1)
			err = buf_putc(out, '\n');
		if (!err)
			err = style->colour ? paint(c, &cols, &text, out)
					    : buf_append(out, text.data, text.len);
		cols.from = cols.to;
	} while (!err && cols.from < c->nsides);
	buf_release(&text);
	return err;
}

static int put_sides(const struct compare_report *r, const struct style *style, struct buf *out)
{
	const struct compare *first = &r->part[0], *last = &r->part[r->nparts - 1];
	int err = PD_OK;

	for (size_t k = 0; !err && k < first->nsides; k++) {
		const struct result_set *a = &first->side[k].runs, *b = &last->side[k].runs;
		size_t runs = 0;

		for (size_t i = 0; i < r->nparts; i++)
			runs += r->part[i].side[k].runs.n;
		err = buf_printf(out, "%s%s: %zu %s, %s%s%s\n", style->bullet, first->side[k].label,
				 runs, runs == 1 ? "run" : "runs", a->doc[0].source,
				 runs > 1 ? " ... " : "", runs > 1 ? b->doc[b->n - 1].source : "");
	}
	return err;
}

/* -- gates -- */

static const char *gate_colour(const struct gate_result *g)
{
	return g->verdict == GATE_FAIL ? RED : g->verdict == GATE_PASS ? GREEN : NULL;
}

static int put_gate(const struct gate_result *g, const struct style *style, struct buf *out)
{
	const struct compare *c = g->compare;
	const char *colour = style->colour ? gate_colour(g) : NULL;
	char why[512], more[256];
	int err;

	gate_why(g, why, sizeof(why), more, sizeof(more));
	err = buf_printf(out, "%s%-12s%s  %s '%s' in %s%s%s\n", colour ? colour : "",
			 gate_verdict_text(g->verdict), colour ? RESET : "",
			 gate_flag(g->gate->kind), g->gate->text, c->side[g->side].label,
			 c->setting[0] ? " at " : "", c->setting);
	if (!err)
		err = buf_printf(out, "%14s%s\n", "", why);
	if (!err && more[0])
		err = buf_printf(out, "%14s%s\n", "", more);
	return err;
}

static int put_gate_rows(const struct compare_report *r, struct buf *out)
{
	struct table t;
	int err;

	table_init(&t);
	table_column(&t, "gate");
	table_column(&t, "side");
	table_column(&t, "verdict");
	table_column(&t, "why");
	for (size_t i = 0; i < r->nresults; i++) {
		const struct gate_result *g = &r->result[i];
		char why[512], more[256];

		gate_why(g, why, sizeof(why), more, sizeof(more));
		table_row(&t);
		table_cell(&t, "%s %s", gate_flag(g->gate->kind), g->gate->text);
		table_cell(&t, "%s%s%s", g->compare->side[g->side].label,
			   g->compare->setting[0] ? " at " : "", g->compare->setting);
		table_cell(&t, "%s", gate_verdict_text(g->verdict));
		table_cell(&t, "%s%s%s", why, more[0] ? "; " : "", more);
	}
	err = table_markdown(&t, out);
	table_release(&t);
	return err;
}

static int put_gates(const struct compare_report *r, const struct style *style, struct buf *out)
{
	int err = r->nresults > 0 ? buf_putc(out, '\n') : PD_OK;

	if (style->markdown)
		return err || r->nresults == 0 ? err : put_gate_rows(r, out);
	for (size_t i = 0; !err && i < r->nresults; i++)
		err = put_gate(&r->result[i], style, out);
	return err;
}

/* -- notes -- */

static int put_basis(const struct compare *c, const struct style *style, struct buf *out)
{
	bool enough = true, single = false;
	int err;

	for (size_t k = 1; k < c->nsides; k++) {
		enough = enough && compare_enough(c, c->side[0].runs.n, c->side[k].runs.n);
		single = single || c->side[0].runs.n == 1 || c->side[k].runs.n == 1;
	}
	if (enough && c->rules.pairs)
		return buf_printf(
			out,
			"%smedian of the runs ± the run farthest from it; change: mean log "
			"ratio of the pairs;\n%sp: Student's t; ~ not significant at %g\n",
			style->bullet, style->markdown ? "  " : "", c->rules.alpha);
	if (enough)
		return buf_printf(
			out,
			"%smedian of the runs ± the run farthest from it; change: "
			"Hodges-Lehmann shift;\n%sp: Mann-Whitney; effect: rank-biserial; "
			"~ not significant at %g\n",
			style->bullet, style->markdown ? "  " : "", c->rules.alpha);
	err = buf_printf(out, "%s%s, indicative: no claim at alpha %g is possible;\n%sgive ",
			 style->bullet, single ? "single run" : "too few runs", c->rules.alpha,
			 style->markdown ? "  " : "");
	if (!err)
		err = buf_printf(out, "at least %zu runs per side, best interleaved (A B B A)\n",
				 c->rules.min_runs > 4 ? c->rules.min_runs : (size_t)4);
	return err;
}

static int put_notes(const struct compare_report *r, const struct style *style, struct buf *out)
{
	size_t tests = 0;
	int err = buf_putc(out, '\n');

	if (!err && r->part[0].nsides > 1)
		err = put_basis(&r->part[0], style, out);
	for (size_t i = 0; i < r->nresults; i++)
		tests += isnan(r->result[i].p) ? 0 : 1;
	if (!err && tests > 1)
		err = buf_printf(out,
				 "%s%zu relative gates judged together: Holm keeps the chance of a "
				 "false alarm at %g in all\n",
				 style->bullet, tests, r->part[0].rules.level);
	for (size_t p = 0; p < r->nparts; p++)
		for (size_t i = 0; !err && i < r->part[p].nnotes; i++)
			err = buf_printf(out, "%snote%s%s: %s\n", style->bullet,
					 r->part[p].setting[0] ? " at " : "", r->part[p].setting,
					 r->part[p].note[i]);
	return err;
}

static int put_reasons(const struct compare_report *r, const struct style *style, struct buf *out)
{
	int err = buf_printf(out, "%snot comparable:%s\n", style->markdown ? "**" : "",
			     style->markdown ? "**\n" : "");

	for (size_t p = 0; p < r->nparts; p++)
		for (size_t i = 0; !err && i < r->part[p].nreasons; i++)
			err = buf_printf(out, "- %s\n", r->part[p].reason[i]);
	return err;
}

static bool refused(const struct compare_report *r)
{
	for (size_t p = 0; p < r->nparts; p++)
		if (r->part[p].nreasons > 0)
			return true;
	return false;
}

static int put_part(const struct compare *c, const struct style *style, struct buf *out)
{
	int err = PD_OK;

	if (c->setting[0])
		err = buf_printf(out, "%s%s%s\n", style->markdown ? "#### " : "", c->setting,
				 style->markdown ? "\n" : "");
	return err ? err : put_tables(c, style, out);
}

static int put_report(const struct compare_report *r, const struct style *style, struct buf *out)
{
	int err = PD_OK;

	if (style->markdown)
		err = buf_printf(out, "### pdctl compare%s%s\n\n", r->title ? ": " : "",
				 r->title ? r->title : "");
	if (!err)
		err = put_sides(r, style, out);
	if (!err && refused(r)) {
		err = buf_putc(out, '\n');
		return err ? err : put_reasons(r, style, out);
	}
	for (size_t p = 0; !err && p < r->nparts; p++) {
		err = buf_putc(out, '\n');
		if (!err)
			err = put_part(&r->part[p], style, out);
	}
	if (!err)
		err = put_gates(r, style, out);
	return err ? err : put_notes(r, style, out);
}

int compare_report_text(const struct compare_report *r, bool colour, struct buf *out)
{
	const struct style style = {.colour = colour, .bullet = ""};

	return put_report(r, &style, out);
}

int compare_report_markdown(const struct compare_report *r, struct buf *out)
{
	const struct style style = {.markdown = true, .bullet = "- "};

	return put_report(r, &style, out);
}
