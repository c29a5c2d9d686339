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

static int json_texts(const char *name, char *const *list, size_t n, struct buf *out)
{
	int err = buf_printf(out, ",\n\"%s\":[", name);

	for (size_t i = 0; !err && i < n; i++)
		err = put_text(out, i ? "," : "", list[i]);
	return err ? err : buf_putc(out, ']');
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
	static const char *const basis[] = {"none",
					    "single run, indicative",
					    "details, indicative",
					    "too few runs, indicative",
					    "runs",
					    "pairs"};
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

static int json_gate(const struct gate_result *g, struct buf *out)
{
	static const char *const verdicts[] = {"pass", "warn", "fail", "inconclusive"};
	const double scale = g->gate->kind == GATE_REQUIRE ? 1 : 100;
	const struct {
		const char *name;
		double value;
	} numbers[] = {
		{"change_pct", g->gate->kind == GATE_REQUIRE ? (double)NAN : g->change * 100},
		{"limit", g->gate->limit * scale},
		{"p", g->p},
		{"level", isnan(g->p) ? (double)NAN : g->level},
		{"bound_pct", g->bound * 100},
		{"detectable_pct", g->detectable * 100},
		{"asked_pct", g->asked * 100},
		{"runs_needed", g->runs_needed ? (double)g->runs_needed : (double)NAN}};
	char why[512], more[256];
	int err = buf_printf(out, "{\"kind\":\"%s\"", gate_flag(g->gate->kind) + 2);

	gate_why(g, why, sizeof(why), more, sizeof(more));
	if (!err)
		err = put_text(out, ",\"gate\":", g->gate->text);
	if (!err)
		err = put_text(out, ",\"metric\":", g->gate->metric);
	if (!err)
		err = put_text(out, ",\"side\":", g->compare->side[g->side].label);
	if (!err)
		err = buf_printf(out, ",\"verdict\":\"%s\",\"indicative\":%s", verdicts[g->verdict],
				 g->indicative ? "true" : "false");
	if (!err)
		err = put_text(out, ",\"method\":", gate_method_text(g->method));
	for (size_t i = 0; !err && i < sizeof(numbers) / sizeof(numbers[0]); i++)
		err = put_member(out, numbers[i].name, numbers[i].value);
	if (!err)
		err = put_text(out, ",\"why\":", why);
	if (!err)
		err = put_text(out, ",\"outlook\":", more);
	return err ? err : buf_putc(out, '}');
}

/* The members of one comparison, without the braces around them. */
static int json_part(const struct compare_report *r, const struct compare *c, struct buf *out)
{
	size_t written = 0;
	int err = buf_puts(out, "\"sides\":[");

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
		if (r->result[i].compare != c)
			continue;
		err = buf_puts(out, written++ ? ",\n" : "\n");
		if (!err)
			err = json_gate(&r->result[i], out);
	}
	if (!err)
		err = buf_putc(out, ']');
	if (!err)
		err = json_texts("not_comparable", c->reason, c->nreasons, out);
	return err ? err : json_texts("notes", c->note, c->nnotes, out);
}

int compare_report_json(const struct compare_report *r, struct buf *out)
{
	const struct compare_rules *rules = &r->part[0].rules;
	int err = buf_printf(
		out, "{\"pdctl_compare\":2,\"exit_code\":%d,\"strict\":%s,\"pairs\":%s",
		r->exit_code, rules->strict ? "true" : "false", rules->pairs ? "true" : "false");

	if (!err)
		err = put_member(out, "alpha", rules->alpha);
	if (!err)
		err = put_member(out, "gate_level", rules->level);
	if (!err)
		err = put_member(out, "run_spread_pct", rules->run_spread * 100);
	if (!err)
		err = buf_printf(out, ",\"min_runs\":%zu,", rules->min_runs);
	if (!err && !r->part[0].setting[0]) {
		err = json_part(r, &r->part[0], out);
		return err ? err : buf_puts(out, "}\n");
	}
	if (!err)
		err = buf_puts(out, "\"settings\":[");
	for (size_t p = 0; !err && p < r->nparts; p++) {
		err = put_text(out, p ? ",\n{\"setting\":" : "\n{\"setting\":", r->part[p].setting);
		if (!err)
			err = buf_putc(out, ',');
		if (!err)
			err = json_part(r, &r->part[p], out);
		if (!err)
			err = buf_putc(out, '}');
	}
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

static int junit_case(const struct gate_result *g, struct buf *out)
{
	const struct compare *c = g->compare;
	char why[512], more[256];
	int err = buf_printf(out, "  <testcase classname=\"pdctl.compare\" name=\"%s ",
			     gate_flag(g->gate->kind));

	gate_why(g, why, sizeof(why), more, sizeof(more));
	if (!err)
		err = put_xml(out, g->gate->text);
	if (!err)
		err = buf_puts(out, " (");
	if (!err)
		err = put_xml(out, c->side[g->side].label);
	if (!err && c->setting[0])
		err = buf_puts(out, " at ");
	if (!err)
		err = put_xml(out, c->setting);
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
		err = put_xml(out, why);
	if (!err && more[0])
		err = buf_puts(out, "; ");
	if (!err)
		err = put_xml(out, more);
	if (err)
		return err;
	if (g->verdict == GATE_FAIL || g->verdict == GATE_INCONCLUSIVE)
		return buf_puts(out, "\"/></testcase>\n");
	return buf_puts(out, "</system-out></testcase>\n");
}

/* Runs that are not comparable are one test case with an error. */
static int junit_refused(const struct compare *c, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < c->nreasons; i++) {
		err = buf_puts(out, "  <testcase classname=\"pdctl.compare\" name=\"comparable\">"
				    "<error message=\"");
		if (!err)
			err = put_xml(out, c->reason[i]);
		if (!err)
			err = buf_puts(out, "\"/></testcase>\n");
	}
	return err;
}

int compare_report_junit(const struct compare_report *r, struct buf *out)
{
	size_t failed = 0, errors = 0, refused = 0;
	int err;

	for (size_t p = 0; p < r->nparts; p++)
		refused += r->part[p].nreasons;
	for (size_t i = 0; i < r->nresults; i++) {
		failed += r->result[i].verdict == GATE_FAIL;
		errors += r->result[i].verdict == GATE_INCONCLUSIVE;
	}
	err = buf_printf(out,
			 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"pdctl "
			 "compare\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\">\n",
			 r->nresults + refused, failed, errors + refused);
	for (size_t p = 0; !err && p < r->nparts; p++)
		err = junit_refused(&r->part[p], out);
	for (size_t i = 0; !err && i < r->nresults; i++)
		err = junit_case(&r->result[i], out);
	return err ? err : buf_puts(out, "</testsuite>\n");
}

static int bench_entry(const struct compare *c, const struct compare_row *row, struct buf *out)
{
	const struct compare_cell *cell = &row->cell[c->nsides - 1];
	char name[320];
	int err;

	(void)snprintf(name, sizeof(name), "%s%s%s", row->name, c->setting[0] ? " at " : "",
		       c->setting);
	err = put_text(out, "{\"name\":", name);
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
	enum metric_direction want = bigger ? METRIC_HIGHER : METRIC_LOWER;
	size_t written = 0;
	int err = buf_putc(out, '[');

	for (size_t p = 0; p < r->nparts; p++) {
		const struct compare *c = &r->part[p];

		for (size_t i = 0; !err && i < c->nrows; i++) {
			if (c->row[i].direction != want ||
			    isnan(c->row[i].cell[c->nsides - 1].median))
				continue;
			err = buf_puts(out, written++ ? ",\n" : "\n");
			if (!err)
				err = bench_entry(c, &c->row[i], out);
		}
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

static int annotation(const char *level, const char *a, const char *b, const char *c,
		      struct buf *out)
{
	int err = buf_printf(out, "::%s title=pdctl compare::", level);

	if (!err)
		err = put_command_text(out, a);
	if (!err)
		err = put_command_text(out, b);
	if (!err)
		err = put_command_text(out, c);
	return err ? err : buf_putc(out, '\n');
}

int compare_report_annotations(const struct compare_report *r, struct buf *out)
{
	size_t written = 0;
	int err = PD_OK;

	for (size_t p = 0; p < r->nparts; p++)
		for (size_t i = 0; !err && i < r->part[p].nreasons; i++, written++)
			err = annotation("error", "not comparable: ", r->part[p].reason[i], "",
					 out);
	for (size_t i = 0; !err && i < r->nresults; i++) {
		const struct gate_result *g = &r->result[i];
		char head[512], why[512], more[256];

		if (g->verdict == GATE_PASS)
			continue;
		written++;
		gate_why(g, why, sizeof(why), more, sizeof(more));
		(void)snprintf(head, sizeof(head), "%.200s%s%s %s: ", g->gate->text,
			       g->compare->setting[0] ? " at " : "", g->compare->setting,
			       gate_verdict_text(g->verdict));
		err = annotation(g->verdict == GATE_FAIL ? "error" : "warning", head, why, "", out);
	}
	if (!err && written == 0)
		err = buf_printf(out, "::notice title=pdctl compare::%zu gates, all passed\n",
				 r->nresults);
	return err;
}
