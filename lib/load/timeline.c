#include "lib/load/timeline.h"

#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/load/hists.h"

struct lane {
	const char *session;
	unsigned n;
};

struct timeline {
	int64_t from, step; /* ns */
	uint64_t sent[TIMELINE_STEPS], ended[TIMELINE_STEPS], failed[TIMELINE_STEPS];
	struct {
		const char *name;
		int64_t began[TIMELINE_STEPS], over[TIMELINE_STEPS];
	} worker[TIMELINE_WORKERS];
	unsigned nworkers;
	struct lane lane[TIMELINE_LANES];
	unsigned nlanes;
	bool more_workers, more_sessions;
};

static const char *worker_of(const struct result_request *r)
{
	return r->decode ? r->decode : r->worker;
}

static unsigned step_of(const struct timeline *t, int64_t ns)
{
	int64_t step = (ns - t->from) / t->step;

	return step < TIMELINE_STEPS ? (unsigned)step : TIMELINE_STEPS - 1;
}

/* False: nothing was sent. */
static bool span_of_run(const struct result_run *run, struct timeline *t)
{
	int64_t last = INT64_MIN;

	t->from = INT64_MAX;
	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (r->sent_ns < 0)
			continue;
		t->from = r->sent_ns < t->from ? r->sent_ns : t->from;
		last = r->end_ns > last ? r->end_ns : last;
		last = r->sent_ns > last ? r->sent_ns : last;
	}
	if (t->from == INT64_MAX)
		return false;
	t->step = (last - t->from) / TIMELINE_STEPS + 1;
	return true;
}

static unsigned find_worker(struct timeline *t, const char *name)
{
	for (unsigned i = 0; i < t->nworkers; i++)
		if (strcmp(t->worker[i].name, name) == 0)
			return i;
	if (t->nworkers == TIMELINE_WORKERS) {
		t->more_workers = true;
		return TIMELINE_WORKERS;
	}
	t->worker[t->nworkers].name = name;
	return t->nworkers++;
}

static unsigned find_lane(struct timeline *t, const char *session)
{
	for (unsigned i = 0; i < t->nlanes; i++)
		if (strcmp(t->lane[i].session, session) == 0)
			return i;
	if (t->nlanes == TIMELINE_LANES) {
		t->more_sessions = true;
		return TIMELINE_LANES;
	}
	t->lane[t->nlanes].session = session;
	return t->nlanes++;
}

static void note(struct timeline *t, const struct result_request *r)
{
	const char *name = worker_of(r);
	unsigned w = name ? find_worker(t, name) : TIMELINE_WORKERS;

	t->sent[step_of(t, r->sent_ns)]++;
	if (r->end_ns >= 0)
		t->ended[step_of(t, r->end_ns)]++;
	if (r->end_ns >= 0 && r->failure)
		t->failed[step_of(t, r->end_ns)]++;
	if (w < TIMELINE_WORKERS) {
		t->worker[w].began[step_of(t, r->sent_ns)]++;
		if (r->end_ns >= 0)
			t->worker[w].over[step_of(t, r->end_ns)]++;
	}
	if (r->session)
		(void)find_lane(t, r->session);
}

static int put_list(struct buf *out, const char *name, const uint64_t *v)
{
	int err = buf_printf(out, "%s\": [", name);

	for (unsigned i = 0; !err && i < TIMELINE_STEPS; i++)
		err = buf_printf(out, "%s%llu", i ? ", " : "", (unsigned long long)v[i]);
	return err ? err : buf_putc(out, ']');
}

static int put_workers(const struct timeline *t, struct buf *out)
{
	uint64_t running[TIMELINE_STEPS];
	int err = buf_puts(out, ", \"workers\": [");

	for (unsigned w = 0; !err && w < t->nworkers; w++) {
		int64_t now = 0;

		for (unsigned i = 0; i < TIMELINE_STEPS; i++) {
			now += t->worker[w].began[i] - t->worker[w].over[i];
			running[i] = (uint64_t)now;
		}
		err = buf_puts(out, w ? ", {\"name\": " : "{\"name\": ");
		err = err ? err : json_quote(out, t->worker[w].name, strlen(t->worker[w].name));
		err = err ? err : put_list(out, ", \"in_flight", running);
		err = err ? err : buf_putc(out, '}');
	}
	return err ? err
		   : buf_printf(out, "], \"more_workers\": %s", t->more_workers ? "true" : "false");
}

static int put_seconds(struct buf *out, const struct timeline *t, int64_t ns, const char *before)
{
	return ns < 0 ? buf_printf(out, "%snull", before)
		      : buf_printf(out, "%s%.4f", before, (double)(ns - t->from) / 1e9);
}

static int put_request(const struct timeline *t, const struct result_request *r, bool first,
		       struct buf *out)
{
	const char *name = worker_of(r) ? worker_of(r) : "";
	int64_t end = r->end_ns >= 0 ? r->end_ns : r->sent_ns;
	int err = put_seconds(out, t, r->sent_ns, first ? "[" : ", [");

	err = err ? err
		  : put_seconds(out, t, r->first_token_ns >= 0 ? r->first_token_ns : end, ", ");
	err = err ? err : put_seconds(out, t, end, ", ");
	err = err ? err : buf_puts(out, ", ");
	err = err ? err : json_quote(out, name, strlen(name));
	return err ? err : buf_puts(out, r->failure ? ", false]" : ", true]");
}

static int put_lane(struct timeline *t, const struct result_run *run, struct lane *lane,
		    struct buf *out)
{
	int err = buf_puts(out, "{\"session\": ");

	err = err ? err : json_quote(out, lane->session, strlen(lane->session));
	err = err ? err : buf_puts(out, ", \"requests\": [");
	for (size_t i = 0; !err && i < run->n && lane->n < TIMELINE_LANE_MAX; i++) {
		const struct result_request *r = &run->req[i];

		if (r->sent_ns < 0 || !r->session || strcmp(r->session, lane->session) != 0)
			continue;
		err = put_request(t, r, lane->n++ == 0, out);
	}
	return err ? err : buf_puts(out, "]}");
}

static int put_timeline(struct timeline *t, const struct result_run *run, struct buf *out)
{
	uint64_t running[TIMELINE_STEPS], now = 0;
	int err = buf_printf(out, "{\"step_s\": %.6g", (double)t->step / 1e9);

	for (unsigned i = 0; i < TIMELINE_STEPS; i++)
		running[i] = now += t->sent[i] - t->ended[i];
	err = err ? err : put_list(out, ", \"sent", t->sent);
	err = err ? err : put_list(out, ", \"ended", t->ended);
	err = err ? err : put_list(out, ", \"failed", t->failed);
	err = err ? err : put_list(out, ", \"in_flight", running);
	err = err ? err : put_workers(t, out);
	err = err ? err : buf_puts(out, ", \"lanes\": [");
	for (unsigned i = 0; !err && i < t->nlanes; i++) {
		err = i ? buf_puts(out, ", ") : PD_OK;
		err = err ? err : put_lane(t, run, &t->lane[i], out);
	}
	return err ? err
		   : buf_printf(out, "], \"more_sessions\": %s}",
				t->more_sessions ? "true" : "false");
}

int timeline_json(const struct result_run *run, struct buf *out)
{
	struct timeline *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return PD_ENOMEM;
	if (!span_of_run(run, t)) {
		free(t);
		return buf_puts(out, "null");
	}
	for (size_t i = 0; i < run->n; i++)
		if (run->req[i].sent_ns >= 0)
			note(t, &run->req[i]);
	err = put_timeline(t, run, out);
	free(t);
	return err;
}

/* -- distributions -- */

static const double points[] = {0,    0.5,  1,	   2,	 3,	4,    5,     7.5,   10,	  12.5,
				15,   17.5, 20,	   22.5, 25,	27.5, 30,    32.5,  35,	  37.5,
				40,   42.5, 45,	   47.5, 50,	52.5, 55,    57.5,  60,	  62.5,
				65,   67.5, 70,	   72.5, 75,	77.5, 80,    82.5,  85,	  87.5,
				90,   91,   92,	   93,	 94,	95,   96,    97,    97.5, 98,
				98.5, 99,   99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 100};

int timeline_distributions(const struct result_run *run, struct buf *out)
{
	static const struct {
		const char *name;
		enum hists_kind kind;
	} kinds[] = {{"ttft", HISTS_TTFT}, {"itl", HISTS_ITL}, {"e2el", HISTS_E2EL}};
	struct hist *h = malloc(sizeof(*h));
	bool first = true;
	int err = h ? buf_putc(out, '{') : PD_ENOMEM;

	for (size_t k = 0; !err && k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		hists_fill(h, run, kinds[k].kind);
		if (h->count == 0)
			continue;
		err = buf_printf(out, "%s\"%s\": {\"count\": %llu, \"cdf\": [", first ? "" : ", ",
				 kinds[k].name, (unsigned long long)h->count);
		first = false;
		for (size_t i = 0; !err && i < sizeof(points) / sizeof(points[0]); i++)
			err = buf_printf(out, "%s[%.6g, %g]", i ? ", " : "",
					 hist_percentile(h, points[i]) / 1e6, points[i]);
		err = err ? err : buf_puts(out, "]}");
	}
	free(h);
	return err ? err : buf_putc(out, '}');
}
