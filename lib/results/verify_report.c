/* The analysis of verify.c as text for people and as JSON. */
#include "lib/results/verify_report.h"

#include <inttypes.h>
#include <string.h>

#include "lib/base/table.h"
#include "lib/json/scan.h"
#include "lib/results/result_opts.h"

#define BAR_WIDTH      30
#define SESSIONS_SHOWN 40

static double percent(size_t part, size_t whole)
{
	return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static void session_row(const struct verify *v, const struct verify_session *s, struct table *t)
{
	table_row(t);
	table_cell(t, "%s", s->name);
	table_cell(t, "%zu/%zu", s->completed, s->requests);
	for (unsigned r = 0; r < VERIFY_ROLES; r++) {
		if (!v->role[r].judged)
			continue;
		table_cell(t, "%.1f%%", percent(s->on_worker[r], s->completed));
		table_cell(t, "%s%s", s->worker[r] ? s->worker[r] : "-",
			   s->workers[r] > 1 ? " and others" : "");
	}
}

static int sessions_text(const struct verify *v, struct buf *out)
{
	struct table t;
	size_t shown = 0;
	int err;

	table_init(&t);
	table_column(&t, "session");
	table_column(&t, ">requests");
	for (unsigned r = 0; r < VERIFY_ROLES; r++)
		if (v->role[r].judged) {
			table_column(&t, ">same");
			table_column(&t, r == VERIFY_PREFILL  ? "prefill worker"
					 : r == VERIFY_DECODE ? "decode worker"
							      : "worker");
		}
	for (size_t i = 0; i < v->nsessions && shown < SESSIONS_SHOWN; i++, shown++)
		session_row(v, &v->session[i], &t);
	err = buf_puts(out, "session consistency\n");
	if (!err)
		err = table_text(&t, out);
	if (!err && shown < v->nsessions)
		err = buf_printf(out, "... and %zu more sessions\n", v->nsessions - shown);
	table_release(&t);
	return err;
}

static int load_text(const struct verify *v, struct buf *out)
{
	struct table t;
	int err;

	table_init(&t);
	table_column(&t, "role");
	table_column(&t, "worker");
	table_column(&t, ">sessions");
	table_column(&t, ">requests");
	table_column(&t, ">share");
	table_column(&t, "");
	for (unsigned r = 0; r < VERIFY_ROLES; r++)
		for (size_t i = 0; i < v->role[r].nworkers; i++) {
			const struct verify_worker *w = &v->role[r].worker[i];
			double p = percent(w->requests, v->role[r].named);

			table_row(&t);
			table_cell(&t, "%s", verify_role_name(r));
			table_cell(&t, "%s", w->name);
			table_cell(&t, "%zu", w->sessions);
			table_cell(&t, "%zu", w->requests);
			table_cell(&t, "%.1f%%", p);
			table_cell(&t, "%.*s", (int)(p / 100 * BAR_WIDTH + 0.5),
				   "##############################");
		}
	err = buf_puts(out, "\nload distribution\n");
	if (!err)
		err = table_text(&t, out);
	table_release(&t);
	return err;
}

static int summary_text(const struct verify *v, struct buf *out)
{
	int err = buf_puts(out, "\n");

	for (unsigned r = 0; !err && r < VERIFY_ROLES; r++) {
		const struct verify_role *role = &v->role[r];

		if (!role->judged)
			continue;
		err = buf_printf(out,
				 "%s: %zu/%zu sessions consistent (%.1f%%), %zu worker%s used%s\n",
				 verify_role_name(r), role->consistent, v->nsessions,
				 percent(role->consistent, v->nsessions), role->nworkers,
				 role->nworkers == 1 ? "" : "s",
				 role->nworkers == 1 && v->nsessions > 1
					 ? " (one worker cannot show consistency)"
					 : "");
		if (!err && role->named < v->completed)
			err = buf_printf(out, "%s: %zu answers named no worker\n",
					 verify_role_name(r), v->completed - role->named);
	}
	if (!err)
		err = buf_printf(out, "requests: %zu/%zu completed\n", v->completed, v->requests);
	return err;
}

int verify_text(const struct verify *v, struct buf *out)
{
	int err = PD_OK;

	if (v->nsessions > 0)
		err = sessions_text(v, out);
	if (!err && !v->why)
		err = load_text(v, out);
	if (!err)
		err = summary_text(v, out);
	if (!err)
		err = buf_printf(out, "verdict: %s%s%s\n", verify_verdict_name(v->verdict),
				 v->why ? ", " : "", v->why ? v->why : "");
	return err;
}

static int role_json(const struct verify *v, unsigned r, bool first, struct buf *out)
{
	const struct verify_role *role = &v->role[r];
	int err = buf_printf(
		out, "%s\"%s\": {\"consistent_sessions\": %zu, \"named\": %zu, \"workers\": {",
		first ? "" : ", ", verify_role_name(r), role->consistent, role->named);

	for (size_t i = 0; !err && i < role->nworkers; i++) {
		if (i > 0)
			err = buf_puts(out, ", ");
		if (!err)
			err = json_quote(out, role->worker[i].name, strlen(role->worker[i].name));
		if (!err)
			err = buf_printf(out, ": {\"requests\": %zu, \"sessions\": %zu}",
					 role->worker[i].requests, role->worker[i].sessions);
	}
	return err ? err : buf_puts(out, "}}");
}

int verify_json(const struct verify *v, struct buf *out)
{
	bool first = true;
	int err = buf_printf(out,
			     "{\"verdict\": \"%s\", \"score\": ", verify_verdict_name(v->verdict));

	if (!err)
		err = result_put_number(out, v->score);
	if (!err)
		err = buf_printf(
			out,
			", \"sessions\": %zu, \"requests\": %zu, \"completed\": %zu, \"roles\": {",
			v->nsessions, v->requests, v->completed);
	for (unsigned r = 0; !err && r < VERIFY_ROLES; r++)
		if (v->role[r].judged) {
			err = role_json(v, r, first, out);
			first = false;
		}
	return err ? err : buf_puts(out, "}}");
}
