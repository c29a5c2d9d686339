/* The forms for machines: JSON, JUnit XML, github-action-benchmark, workflow commands. */
#include "lib/results/compare_export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/results/compare_change.h"

static int put_number(struct buf *out, double v)
{
	char text[40];

	if (!isfinite(v))
		return buf_puts(out, "null");
	for (int digits = 15; digits <= 17; digits++) {
		double back;

		(void)snprintf(text, sizeof(text), "%.*g", digits, v);
		back = strtod(text, NULL);
		if (!(back < v) && !(back > v))
			break;
	}
	return buf_puts(out, text);
}

static int put_member(struct buf *out, const char *name, double v)
{
	int err = buf_printf(out, ",\"%s\":", name);

	return err ? err : put_number(out, v);
}

static int put_text(struct buf *out, const char *before, const char *s)
{
	int err = buf_puts(out, before);

	return err ? err : json_quote(out, s, strlen(s));
}

static int json_side(const struct compare_side *s, struct buf *out)
{
	int err = put_text(out, "{\"label\":", s->label);

	if (!err)
		err = buf_puts(out, ",\"runs\":[");
	for (size_t r = 0; !err && r < s->runs.n; r++)
		err = put_text(out, r ? "," : "", s->runs.doc[r].source);
	return err ? err : buf_puts(out, "]}");
}

static int json_cell(const struct compare_cell *cell, struct buf *out)
{
	int err = buf_printf(out, "{\"n\":%zu", cell->n);

	if (!err)
		err = put_member(out, "median", cell->median);
	if (!err)
		err = put_member(out, "spread", cell->spread);
	if (!err)
		err = buf_puts(out, ",\"values\":[");
	for (size_t i = 0; !err && i < cell->n; i++) {
		if (i)
			err = buf_putc(out, ',');
		if (!err)
			err = put_number(out, cell->v[i]);
	}
	return err ? err : buf_puts(out, "]}");
}

static int json_change(const struct compare *c, const struct compare_row *row, size_t side,
		       struct buf *out)
{
	static const char *const basis[] = {"none", "single run, indicative",
					    "too few runs, indicative", "runs"};
	static const char *const marks[] = {"unknown", "same", "better", "worse", "differs"};
	const struct compare_change *ch = &row->change[side];
	int err = put_text(out, "{\"side\":", c->side[side].label);

	if (!err)
		err = put_member(out, "change_pct", ch->change * 100);
	if (!err)
		err = put_member(out, "low_pct", ch->lo * 100);
	if (!err)
		err = put_member(out, "high_pct", ch->hi * 100);
	if (!err)
		err = put_member(out, "p", ch->p);
	if (!err)
		err = put_member(out, "effect", ch->effect);
	return err ? err
		   : buf_printf(out, ",\"basis\":\"%s\",\"significant\":%s,\"verdict\":\"%s\"}",
				basis[ch->basis], ch->significant ? "true" : "false",
				marks[compare_mark(row, side)]);
}

static int json_row(const struct compare *c, const struct compare_row *row, struct buf *out)
{
	static const char *const better[] = {"", "lower", "higher"};
	int err = put_text(out, "{\"metric\":", row->name);

	if (!err)
		err = buf_printf(out, ",\"unit\":\"%s\",\"better\":\"%s\",\"sides\":[",
				 metric_unit(row->name), better[row->direction]);
	for (size_t k = 0; !err && k < c->nsides; k++) {
		err = k ? buf_putc(out, ',') : PD_OK;
		if (!err)
			err = json_cell(&row->cell[k], out);
	}
	if (!err)
		err = buf_puts(out, "],\"changes\":[");
	for (size_t k = 1; !err && k < c->nsides; k++) {
		err = k > 1 ? buf_putc(out, ',') : PD_OK;
		if (!err)
			err = json_change(c, row, k, out);
	}
	return err ? err : buf_puts(out, "]}");
}

static int json_gate(const struct compare *c, const struct gate_result *g, struct buf *out)
{
	int err = buf_printf(out, "{\"kind\":\"%s\"", gate_flag(g->gate->kind) + 2);

	if (!err)
		err = put_text(out, ",\"gate\":", g->gate->text);
	if (!err)
		err = put_text(out, ",\"metric\":", g->gate->metric);
	if (!err)
		err = put_text(out, ",\"side\":", c->side[g->side].label);
	if (!err)
		err = buf_printf(out, ",\"verdict\":\"%s\",\"indicative\":%s",
				 g->verdict == GATE_FAIL   ? "fail"
				 : g->verdict == GATE_WARN ? "warn"
							   : gate_verdict_text(g->verdict),
				 g->indicative ? "true" : "false");
	if (!err)
		err = put_text(out, ",\"why\":", g->why);
	return err ? err : buf_putc(out, '}');
}

int compare_report_json(const struct compare_report *r, struct buf *out)
{
	const struct compare *c = r->compare;
	int err = buf_printf(out, "{\"pdctl_compare\":1,\"exit_code\":%d,\"strict\":%s",
			     r->exit_code, r->strict ? "true" : "false");

	if (!err)
		err = put_member(out, "alpha", c->alpha);
	if (!err)
		err = buf_printf(out, ",\"min_runs\":%zu,\"sides\":[", c->min_runs);
	for (size_t k = 0; !err && k < c->nsides; k++) {
		err = k ? buf_putc(out, ',') : PD_OK;
		if (!err)
			err = json_side(&c->side[k], out);
	}
	if (!err)
		err = buf_puts(out, "],\n\"metrics\":[");
	for (size_t i = 0; !err && i < c->nrows; i++) {
		err = buf_puts(out, i ? ",\n" : "\n");
		if (!err)
			err = json_row(c, &c->row[i], out);
	}
	if (!err)
		err = buf_puts(out, "],\n\"gates\":[");
	for (size_t i = 0; !err && i < r->nresults; i++) {
		err = buf_puts(out, i ? ",\n" : "\n");
		if (!err)
			err = json_gate(c, &r->result[i], out);
	}
	if (!err)
		err = buf_puts(out, "],\n\"notes\":[");
	for (size_t i = 0; !err && i < c->nnotes; i++)
		err = put_text(out, i ? "," : "", c->note[i]);
	return err ? err : buf_puts(out, "]}\n");
}

static int put_xml(struct buf *out, const char *s)
{
	int err = PD_OK;

	for (; !err && *s; s++) {
		unsigned char ch = (unsigned char)*s;

		if (ch == '&')
			err = buf_puts(out, "&amp;");
		else if (ch == '<')
			err = buf_puts(out, "&lt;");
		else if (ch == '>')
			err = buf_puts(out, "&gt;");
		else if (ch == '"')
			err = buf_puts(out, "&quot;");
		else
			err = buf_putc(out, ch < 0x20 ? ' ' : (char)ch);
	}
	return err;
}

static int junit_case(const struct compare_report *r, const struct gate_result *g, struct buf *out)
{
	const char *label = r->compare->side[g->side].label;
	int err = buf_puts(out, "  <testcase classname=\"pdctl.compare\" name=\"");

	if (!err)
		err = buf_printf(out, "%s ", gate_flag(g->gate->kind));
	if (!err)
		err = put_xml(out, g->gate->text);
	if (!err)
		err = buf_puts(out, " (");
	if (!err)
		err = put_xml(out, label);
	if (!err)
		err = buf_puts(out, ")\">");
	if (!err && g->verdict == GATE_FAIL)
		err = buf_puts(out, "<failure message=\"");
	else if (!err && g->verdict == GATE_INCONCLUSIVE)
		err = buf_puts(out, "<error message=\"inconclusive: ");
	else if (!err)
		err = buf_puts(out, "<system-out>");
	if (!err && g->verdict == GATE_WARN)
		err = buf_puts(out, "warning: ");
	if (!err)
		err = put_xml(out, g->why);
	if (err)
		return err;
	if (g->verdict == GATE_FAIL || g->verdict == GATE_INCONCLUSIVE)
		return buf_puts(out, "\"/></testcase>\n");
	return buf_puts(out, "</system-out></testcase>\n");
}

int compare_report_junit(const struct compare_report *r, struct buf *out)
{
	size_t failed = 0, errors = 0;
	int err;

	for (size_t i = 0; i < r->nresults; i++) {
		failed += r->result[i].verdict == GATE_FAIL;
		errors += r->result[i].verdict == GATE_INCONCLUSIVE;
	}
	err = buf_printf(out,
			 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"pdctl "
			 "compare\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\">\n",
			 r->nresults, failed, errors);
	for (size_t i = 0; !err && i < r->nresults; i++)
		err = junit_case(r, &r->result[i], out);
	return err ? err : buf_puts(out, "</testsuite>\n");
}

static int bench_entry(const struct compare_row *row, const struct compare_cell *cell,
		       struct buf *out)
{
	int err = put_text(out, "{\"name\":", row->name);

	if (!err)
		err = put_text(out, ",\"unit\":", metric_unit(row->name));
	if (!err)
		err = put_member(out, "value", cell->median);
	if (!err && !isnan(cell->spread))
		err = buf_printf(out, ",\"range\":\"± %.2f%%\"", cell->spread * 100);
	return err ? err : buf_printf(out, ",\"extra\":\"median of %zu runs\"}", cell->n);
}

int compare_report_gha_bench(const struct compare_report *r, bool bigger, struct buf *out)
{
	const struct compare *c = r->compare;
	enum metric_direction want = bigger ? METRIC_HIGHER : METRIC_LOWER;
	size_t written = 0;
	int err = buf_putc(out, '[');

	for (size_t i = 0; !err && i < c->nrows; i++) {
		if (c->row[i].direction != want)
			continue;
		err = buf_puts(out, written++ ? ",\n" : "\n");
		if (!err)
			err = bench_entry(&c->row[i], &c->row[i].cell[c->nsides - 1], out);
	}
	return err ? err : buf_puts(out, "\n]\n");
}

/* Workflow commands end at a line feed and use %-escapes for what must not end them. */
static int put_command_text(struct buf *out, const char *s)
{
	int err = PD_OK;

	for (; !err && *s; s++)
		err = *s == '%'	   ? buf_puts(out, "%25")
		      : *s == '\n' ? buf_puts(out, "%0A")
		      : *s == '\r' ? buf_puts(out, "%0D")
				   : buf_putc(out, *s);
	return err;
}

int compare_report_annotations(const struct compare_report *r, struct buf *out)
{
	size_t written = 0;
	int err = PD_OK;

	for (size_t i = 0; !err && i < r->nresults; i++) {
		const struct gate_result *g = &r->result[i];

		if (g->verdict == GATE_PASS)
			continue;
		written++;
		err = buf_printf(out, "::%s title=pdctl compare::",
				 g->verdict == GATE_FAIL ? "error" : "warning");
		if (!err)
			err = put_command_text(out, g->gate->text);
		if (!err)
			err = buf_printf(out, " %s: ", gate_verdict_text(g->verdict));
		if (!err)
			err = put_command_text(out, g->why);
		if (!err)
			err = buf_putc(out, '\n');
	}
	if (!err && written == 0)
		err = buf_printf(out, "::notice title=pdctl compare::%zu gates, all passed\n",
				 r->nresults);
	return err;
}
