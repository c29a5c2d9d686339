/*
 * The records of the requests are sorted by the time of routing once; slices, windows and the
 * neighbourhood of events are ranges of that order.
 */
#include "sim/figures/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/summary.h"

#define WINDOW_MIN 8	/* requests */
#define DIP_MIN	   20	/* requests that make a hit rate */
#define RECOVERED  0.95 /* of the rate before */
#define GROWN	   1.25 /* a queue that grows evenly from 0 has 1.4 */

const char *const timeline_window_metric[TIMELINE_WINDOW_FIGURES] = {
	[TIMELINE_MEAN_TTFT] = "mean_ttft_ms", [TIMELINE_P99_TTFT] = "p99_ttft_ms",
	[TIMELINE_MEAN_TPOT] = "mean_tpot_ms", [TIMELINE_MEAN_E2EL] = "mean_e2el_ms",
	[TIMELINE_P99_E2EL] = "p99_e2el_ms",   [TIMELINE_TOKEN_HITS] = "token_hit_rate",
	[TIMELINE_GOODPUT] = "goodput_share",
};

static double ms(int64_t from, int64_t to)
{
	return (double)(to - from) / 1e6;
}

static double tpot(const struct replay_request *r, uint32_t output_tokens)
{
	return ms(r->first_ns, r->done_ns) / (double)(output_tokens - 1);
}

bool figures_goals_met(const struct figures_goals *g, const struct replay_request *r,
		       uint32_t output_tokens)
{
	bool any = g->ttft_ms > 0 || g->tpot_ms > 0 || g->e2el_ms > 0;

	if (!any || r->fate != REPLAY_COMPLETED || r->first_ns < 0)
		return false;
	return (g->ttft_ms <= 0 || ms(r->issued_ns, r->first_ns) <= g->ttft_ms) &&
	       (g->tpot_ms <= 0 || output_tokens < 2 || tpot(r, output_tokens) <= g->tpot_ms) &&
	       (g->e2el_ms <= 0 || ms(r->issued_ns, r->done_ns) <= g->e2el_ms);
}

struct maker {
	struct timeline *l;
	const struct simtrace *t;
	const struct replay_config *cfg;
	const struct figures_goals *goals;
	const struct replay_result *r;
	uint32_t *order; /* owned: requests that were routed, by time */
	size_t n;
	double *scratch; /* owned, n */
	double *load;	 /* owned: per slice and worker of the last pool, ns in flight */
	int64_t begin, end;
};

static const struct replay_request *nth(const struct maker *m, size_t i)
{
	return &m->r->request[m->order[i]];
}

static int by_issue(const void *a, const void *b, void *ctx)
{
	const struct replay_request *r = ctx;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	if (r[x].issued_ns != r[y].issued_ns)
		return r[x].issued_ns < r[y].issued_ns ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int sort_requests(struct maker *m)
{
	const struct replay_request *r = m->r->request;
	bool sorted = true;

	m->order = reallocarray(NULL, m->t->n + 1, sizeof(*m->order));
	m->scratch = reallocarray(NULL, m->t->n + 1, sizeof(*m->scratch));
	if (!m->order || !m->scratch)
		return PD_ENOMEM;
	for (size_t i = 0; i < m->t->n; i++) {
		if (r[i].issued_ns < 0)
			continue;
		sorted &= m->n == 0 || r[m->order[m->n - 1]].issued_ns <= r[i].issued_ns;
		m->order[m->n++] = (uint32_t)i;
	}
	if (!sorted)
		qsort_r(m->order, m->n, sizeof(*m->order), by_issue, (void *)r);
	for (size_t i = 0; i < m->n; i++) {
		const struct replay_request *q = nth(m, i);

		m->end = q->done_ns > m->end ? q->done_ns : m->end;
	}
	m->begin = m->n ? nth(m, 0)->issued_ns : 0;
	return PD_OK;
}

/* ---- slices ---- */

/* Adds the part of [from, to) in each slice, in ns, to *at + slice * stride. */
static void overlap(const struct maker *m, int64_t from, int64_t to, double *at, size_t stride)
{
	double slice = m->l->slice_s * 1e9;
	size_t i = (size_t)((double)(from - m->begin) / slice);

	for (; i < m->l->n; i++) {
		double a = (double)m->begin + (double)i * slice, b = a + slice;
		double x = (double)from > a ? (double)from : a, y = (double)to < b ? (double)to : b;

		if (x >= y && i > 0 && (double)to <= a)
			break;
		if (y > x)
			at[i * stride] += y - x;
	}
}

static size_t slice_of(const struct maker *m, int64_t at)
{
	size_t i = (size_t)((double)(at - m->begin) / (m->l->slice_s * 1e9));

	return i < m->l->n ? i : m->l->n - 1;
}

/* When it left: with its last token, or (lost) with the run's end at the latest. */
static int64_t end_of(const struct replay_request *q)
{
	return q->done_ns >= 0 ? q->done_ns : q->first_ns >= 0 ? q->first_ns : q->issued_ns;
}

static void add_to_slices(struct maker *m, double *flight, double *waiting, double *ttft,
			  double *first, double *tokens, double *hits)
{
	size_t last = m->cfg->npools - 1, workers = m->cfg->pool[last].n;

	for (size_t i = 0; i < m->n; i++) {
		const struct replay_request *q = nth(m, i);
		size_t at = slice_of(m, q->issued_ns);
		int64_t seen = q->first_ns >= 0 ? q->first_ns : end_of(q);

		m->l->slice[at].arrivals++;
		if (q->fate != REPLAY_COMPLETED)
			continue;
		m->l->slice[slice_of(m, q->done_ns)].completed++;
		overlap(m, q->issued_ns, q->done_ns, flight, 1);
		overlap(m, q->issued_ns, seen, waiting, 1);
		if (q->worker[last] < workers)
			overlap(m, q->issued_ns, q->done_ns, m->load + q->worker[last], workers);
		ttft[at] += ms(q->issued_ns, seen);
		first[at]++;
		tokens[at] += m->t->req[m->order[i]].input_tokens;
		hits[at] += q->cached;
	}
}

static double ratio(double part, double whole)
{
	return whole > 0 ? part / whole : (double)NAN;
}

static int make_slices(struct maker *m)
{
	double flight[TIMELINE_SLICES] = {0}, waiting[TIMELINE_SLICES] = {0},
	       ttft[TIMELINE_SLICES] = {0}, first[TIMELINE_SLICES] = {0},
	       tokens[TIMELINE_SLICES] = {0}, hits[TIMELINE_SLICES] = {0};
	struct timeline *l = m->l;
	size_t workers = m->cfg->pool[m->cfg->npools - 1].n;

	if (m->cfg->routing_only || m->n == 0 || m->end <= m->begin)
		return PD_OK;
	l->n = TIMELINE_SLICES;
	l->start_s = (double)m->begin / 1e9;
	l->slice_s = (double)(m->end - m->begin) / 1e9 / TIMELINE_SLICES;
	m->load = calloc(TIMELINE_SLICES * workers + 1, sizeof(*m->load));
	if (!m->load)
		return PD_ENOMEM;
	add_to_slices(m, flight, waiting, ttft, first, tokens, hits);
	for (size_t i = 0; i < l->n; i++) {
		struct timeline_slice *s = &l->slice[i];
		double ns = l->slice_s * 1e9, most = 0, sum = 0;

		for (size_t w = 0; w < workers; w++) {
			double x = m->load[i * workers + w];

			most = x > most ? x : most;
			sum += x;
		}
		s->in_flight = flight[i] / ns;
		s->waiting = waiting[i] / ns;
		s->ttft_ms = ratio(ttft[i], first[i]);
		s->hit_rate = ratio(hits[i], tokens[i]);
		s->peak_to_mean = ratio(most * (double)workers, sum);
	}
	return PD_OK;
}

/* Mean number of requests without a token between two instants. */
static double queue(const struct maker *m, int64_t from, int64_t to)
{
	double sum = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct replay_request *q = nth(m, i);
		int64_t a = q->issued_ns > from ? q->issued_ns : from,
			b = q->first_ns >= 0 ? q->first_ns : end_of(q);

		b = b < to ? b : to;
		if (b > a)
			sum += (double)(b - a);
	}
	return to > from ? sum / (double)(to - from) : 0;
}

static void make_verdict(struct maker *m)
{
	struct timeline *l = m->l;
	int64_t last = m->n ? nth(m, m->n - 1)->issued_ns : 0, span = last - m->begin;

	if (l->n == 0 || span <= 0)
		return;
	l->queue_third = queue(m, m->begin + span / 2, m->begin + span / 4 * 3);
	l->queue_last = queue(m, m->begin + span / 4 * 3, last);
	l->saturated = l->queue_last > GROWN * l->queue_third &&
		       l->queue_last - l->queue_third > (double)m->cfg->pool[0].n;
}

/* Mean requests in flight per worker, in 1/1000. */
static void make_balance(struct maker *m)
{
	double span = (double)(m->end - m->begin);

	for (size_t p = 0; m->l->n > 0 && p < m->cfg->npools; p++) {
		uint64_t load[ROUTE_WORKERS_MAX] = {0};
		size_t workers = m->cfg->pool[p].n;

		for (size_t i = 0; i < m->n; i++) {
			const struct replay_request *q = nth(m, i);
			bool leg = m->cfg->npools == 2 && p == 0;

			if (q->fate == REPLAY_COMPLETED && q->worker[p] < workers)
				load[q->worker[p]] +=
					(uint64_t)((leg ? q->first_ns : q->done_ns) - q->issued_ns);
		}
		for (size_t w = 0; w < workers; w++)
			load[w] = (uint64_t)llround(1e3 * (double)load[w] / span);
		balance_of(load, workers, &m->l->in_flight[p]);
	}
}

/* ---- windows ---- */

enum latency { TTFT, TPOT, E2EL };

/* The latencies of a range of the order into scratch; how many there are. */
static size_t take(struct maker *m, size_t from, size_t to, enum latency what)
{
	size_t n = 0;

	for (size_t i = from; i < to; i++) {
		const struct replay_request *q = nth(m, i);
		uint32_t out = m->t->req[m->order[i]].output_tokens;

		if (q->fate != REPLAY_COMPLETED || q->first_ns < 0 || (what == TPOT && out < 2))
			continue;
		m->scratch[n++] =
			what == TPOT ? tpot(q, out)
				     : ms(q->issued_ns, what == TTFT ? q->first_ns : q->done_ns);
	}
	summary_sort(m->scratch, n);
	return n;
}

static void make_window(struct maker *m, size_t w, size_t from, size_t to)
{
	static const struct {
		enum latency what;
		int mean, p99; /* -1: none */
	} rows[] = {{TTFT, TIMELINE_MEAN_TTFT, TIMELINE_P99_TTFT},
		    {TPOT, TIMELINE_MEAN_TPOT, -1},
		    {E2EL, TIMELINE_MEAN_E2EL, TIMELINE_P99_E2EL}};
	double tokens = 0, hits = 0, good = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n = take(m, from, to, rows[i].what);

		m->l->window[rows[i].mean][w] = n ? summary_of(m->scratch, n).mean : (double)NAN;
		if (rows[i].p99 >= 0)
			m->l->window[rows[i].p99][w] = summary_percentile(m->scratch, n, 99);
	}
	for (size_t i = from; i < to; i++) {
		const struct replay_request *q = nth(m, i);
		const struct sim_request *s = &m->t->req[m->order[i]];

		tokens += s->input_tokens;
		hits += q->cached;
		good += figures_goals_met(m->goals, q, s->output_tokens);
	}
	m->l->window[TIMELINE_TOKEN_HITS][w] = ratio(hits, tokens);
	m->l->window[TIMELINE_GOODPUT][w] = good / (double)(to - from);
}

static void make_windows(struct maker *m)
{
	if (m->n < (size_t)TIMELINE_WINDOWS * WINDOW_MIN)
		return;
	m->l->nwindows = TIMELINE_WINDOWS;
	for (size_t w = 0; w < TIMELINE_WINDOWS; w++)
		make_window(m, w, m->n * w / TIMELINE_WINDOWS, m->n * (w + 1) / TIMELINE_WINDOWS);
	for (size_t k = 0; k < TIMELINE_WINDOW_FIGURES; k++)
		for (size_t w = 0; w < TIMELINE_WINDOWS; w++)
			m->l->window[k][w] = balance_as_written(m->l->window[k][w]);
}

/* ---- events ---- */

/* Place in the order of the first request that was routed behind the event. */
static size_t place_of(const struct maker *m, const struct replay_event *e)
{
	size_t low = 0, high = m->n;

	if (e->by_request)
		return e->request < m->n ? (size_t)e->request : m->n;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (nth(m, mid)->issued_ns >= e->at_ns)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* Prompt tokens of a range of the order, and those that were found. */
struct found {
	double tokens, hits;
};

static void found_add(const struct maker *m, size_t i, double sign, struct found *f)
{
	f->tokens += sign * m->t->req[m->order[i]].input_tokens;
	f->hits += sign * nth(m, i)->cached;
}

static void make_dip(const struct maker *m, size_t at, size_t stop, struct timeline_dip *d)
{
	size_t w = m->n / 50 > DIP_MIN ? m->n / 50 : DIP_MIN;
	struct found before = {0, 0}, now = {0, 0};
	bool fell = false;

	*d = (struct timeline_dip){(double)NAN, (double)NAN, (double)NAN};
	if (at < w || at + w > stop)
		return;
	for (size_t i = at - (at < 2 * w ? w : 2 * w); i < at; i++)
		found_add(m, i, 1, &before);
	for (size_t i = at; i + 1 < at + w; i++)
		found_add(m, i, 1, &now);
	d->before = ratio(before.hits, before.tokens);
	for (size_t i = at; i + w <= stop; i++) {
		double rate;

		found_add(m, i + w - 1, 1, &now);
		rate = ratio(now.hits, now.tokens);
		found_add(m, i, -1, &now);
		if (!(rate >= d->lowest))
			d->lowest = rate;
		fell |= rate < RECOVERED * d->before;
		if (rate >= RECOVERED * d->before && fell) {
			d->recovered_s =
				ms(nth(m, at)->issued_ns, nth(m, i + w - 1)->issued_ns) / 1e3;
			return;
		}
	}
	if (!fell)
		d->recovered_s = 0;
}

static int make_dips(struct maker *m)
{
	const struct replay_config *cfg = m->cfg;

	m->l->dip = calloc(cfg->nevents + 1, sizeof(*m->l->dip));
	if (!m->l->dip)
		return PD_ENOMEM;
	for (size_t i = 0; i < cfg->nevents; i++) {
		size_t at = place_of(m, &cfg->events[i]), stop = m->n;

		for (size_t k = 0; k < cfg->nevents; k++) {
			size_t other = place_of(m, &cfg->events[k]);

			if (other > at && other < stop)
				stop = other;
		}
		make_dip(m, at, stop, &m->l->dip[i]);
	}
	return PD_OK;
}

/* Without records of the requests there are the sums of the windows, and no events. */
static int make_brief(struct timeline *l, const struct simtrace *t, const struct replay_result *r)
{
	l->dip = calloc(1, sizeof(*l->dip));
	if (!l->dip)
		return PD_ENOMEM;
	if (t->n < (size_t)TIMELINE_WINDOWS * WINDOW_MIN)
		return PD_OK;
	l->nwindows = TIMELINE_WINDOWS;
	for (size_t k = 0; k < TIMELINE_WINDOW_FIGURES; k++)
		for (size_t w = 0; w < TIMELINE_WINDOWS; w++)
			l->window[k][w] = balance_as_written(
				k == TIMELINE_TOKEN_HITS
					? ratio(r->window_hits[w], r->window_tokens[w])
				: k == TIMELINE_GOODPUT ? 0
							: (double)NAN);
	return PD_OK;
}

int timeline_make(struct timeline *l, const struct simtrace *t, const struct replay_config *cfg,
		  const struct figures_goals *goals, const struct replay_result *r)
{
	struct maker m = {.l = l, .t = t, .cfg = cfg, .goals = goals, .r = r};
	int err;

	*l = (struct timeline){0};
	if (!r->request)
		return make_brief(l, t, r);
	err = sort_requests(&m);
	if (!err)
		err = make_slices(&m);
	if (!err) {
		make_verdict(&m);
		make_balance(&m);
		make_windows(&m);
		err = make_dips(&m);
	}
	free(m.order);
	free(m.scratch);
	free(m.load);
	return err;
}

void timeline_release(struct timeline *l)
{
	free(l->dip);
	l->dip = NULL;
}
