/*
 * The linear system has one row per request for the time to its first token and one for the time
 * from there to its last. All are wrong by about a step, so they weigh alike. Five terms are few
 * enough to try every subset of them for the non-negative solution.
 */
#include "sim/fit/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"

#define ROUNDS	 10
#define SIMPLEX	 (FIT_TERMS + 1)
#define RUNS_MAX 120  /* of the engine per simplex */
#define RIDGE	 1e-4 /* towards the prior, relative to the system */
#define TWINS	 100  /* inflation of c above which d alone stands for both */

#define WANDER 300 /* runs of the random search */
#define COLD   0.3 /* share of the first request's time that is not chance */

enum { TERM_A, TERM_B, TERM_C, TERM_D };

struct system {
	double ata[FIT_TERMS][FIT_TERMS], atb[FIT_TERMS];
	double scale[FIT_TERMS]; /* length of each column */
};

struct task {
	struct fit_engine engine; /* with what the first step took longer */
	const struct fit_request *r;
	size_t n, nfit;
	const struct fit_limits *limits;
	struct fit_outcome *out; /* owned */
	struct pd_msg *msg;
	unsigned runs;
	int err;
};

static double *term_of(struct stepcost *c, size_t i)
{
	double *const term[FIT_TERMS] = {&c->a, &c->b, &c->c, &c->d, &c->e};

	return term[i];
}

static void set_terms(struct stepcost *c, const double *x)
{
	for (size_t i = 0; i < FIT_TERMS; i++)
		*term_of(c, i) = x[i];
}

static int run(struct task *t, const double *x)
{
	struct stepcost cost = {0};

	set_terms(&cost, x);
	t->runs++;
	t->err = fit_run(&t->engine, &cost, t->r, t->n, t->out, t->msg);
	return t->err;
}

static void add_row(struct system *s, const double *row, double y)
{
	for (size_t i = 0; i < FIT_TERMS; i++) {
		for (size_t k = 0; k < FIT_TERMS; k++)
			s->ata[i][k] += row[i] * row[k];
		s->atb[i] += row[i] * y;
	}
}

/* Times in microseconds; columns are scaled to length 1. */
static void build(const struct task *t, struct system *s)
{
	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < t->nfit; i++) {
		const struct fit_request *r = &t->r[i];
		const struct fit_outcome *o = &t->out[i];

		add_row(s, o->until_first, (r->ttft_ms - o->waited_ms) * 1e3);
		if (r->output > 1)
			add_row(s, o->until_last, (r->e2e_ms - r->ttft_ms) * 1e3);
	}
	for (size_t i = 0; i < FIT_TERMS; i++)
		s->scale[i] = s->ata[i][i] > 0 ? sqrt(s->ata[i][i]) : 1;
	for (size_t i = 0; i < FIT_TERMS; i++) {
		for (size_t k = 0; k < FIT_TERMS; k++)
			s->ata[i][k] /= s->scale[i] * s->scale[k];
		s->atb[i] /= s->scale[i];
	}
}

/* Solves for the terms of `set` by elimination; false when they cannot be told apart at all. */
static bool solve(const struct system *s, const double *b, unsigned set, double *x)
{
	double m[FIT_TERMS][FIT_TERMS + 1];
	size_t at[FIT_TERMS], n = 0;

	memset(x, 0, FIT_TERMS * sizeof(*x));
	for (size_t i = 0; i < FIT_TERMS; i++)
		if (set >> i & 1)
			at[n++] = i;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < n; k++)
			m[i][k] = s->ata[at[i]][at[k]];
		m[i][n] = b[at[i]];
	}
	for (size_t p = 0; p < n; p++) {
		if (m[p][p] < 1e-12)
			return false;
		for (size_t i = p + 1; i < n; i++) {
			double f = m[i][p] / m[p][p];

			for (size_t k = p; k <= n; k++)
				m[i][k] -= f * m[p][k];
		}
	}
	for (size_t p = n; p-- > 0;) {
		double v = m[p][n];

		for (size_t k = p + 1; k < n; k++)
			v -= m[p][k] * x[at[k]];
		x[at[p]] = v / m[p][p];
	}
	return true;
}

/* |Ax - b|^2 without its constant part. */
static double misfit(const struct system *s, const double *b, const double *x)
{
	double sum = 0;

	for (size_t i = 0; i < FIT_TERMS; i++) {
		for (size_t k = 0; k < FIT_TERMS; k++)
			sum += x[i] * s->ata[i][k] * x[k];
		sum -= 2 * x[i] * b[i];
	}
	return sum;
}

/* The best non-negative solution above the floors, with `e` given. */
static void solve_bounded(const struct task *t, struct system *s, unsigned terms, double *x)
{
	const struct fit_limits *l = t->limits;
	double best = INFINITY, b[FIT_TERMS], y[FIT_TERMS], base[FIT_TERMS];

	for (size_t i = 0; i < FIT_TERMS; i++) {
		if (l->prior[i] <= 0)
			continue;
		s->ata[i][i] += RIDGE;
		s->atb[i] += RIDGE * l->prior[i] * s->scale[i];
	}
	/* What floors explain is taken off; the rest must not be negative. */
	for (size_t i = 0; i < FIT_TERMS; i++)
		base[i] = (i == FIT_TERMS - 1 ? l->known_e : l->floor[i]) * s->scale[i];
	for (size_t i = 0; i < FIT_TERMS; i++) {
		b[i] = s->atb[i];
		for (size_t k = 0; k < FIT_TERMS; k++)
			b[i] -= s->ata[i][k] * base[k];
	}
	for (unsigned set = 1; set < 1u << (FIT_TERMS - 1); set++) {
		bool ok = (set & ~terms) == 0 && solve(s, b, set, y);
		double f;

		for (size_t i = 0; ok && i < FIT_TERMS; i++)
			ok = y[i] >= 0;
		if (!ok)
			continue;
		f = misfit(s, b, y);
		if (f >= best)
			continue;
		best = f;
		for (size_t i = 0; i < FIT_TERMS; i++)
			x[i] = (base[i] + y[i]) / s->scale[i];
	}
}

/* Squares and biases of the three figures, relative to their means. */
static double loss(const struct task *t)
{
	double real[3] = {0}, bias[3] = {0}, square[3] = {0}, sum = 0;

	for (size_t i = 0; i < t->nfit; i++) {
		const struct fit_request *r = &t->r[i];
		const struct fit_outcome *o = &t->out[i];
		double tokens = r->output > 1 ? r->output - 1 : 1;
		const double want[3] = {r->ttft_ms, (r->e2e_ms - r->ttft_ms) / tokens, r->e2e_ms};
		const double got[3] = {o->ttft_ms, (o->e2e_ms - o->ttft_ms) / tokens, o->e2e_ms};

		for (size_t k = 0; k < 3; k++) {
			real[k] += want[k];
			bias[k] += got[k] - want[k];
			square[k] += (got[k] - want[k]) * (got[k] - want[k]);
		}
	}
	for (size_t k = 0; k < 3; k++) {
		double mean = real[k] / (double)t->nfit;

		sum += sqrt(square[k] / (double)t->nfit) / mean + fabs(bias[k]) / real[k];
	}
	return sum;
}

static double try_terms(struct task *t, const size_t *dim, size_t ndim, const double *from,
			const double *at, double *x)
{
	memcpy(x, from, FIT_TERMS * sizeof(*x));
	for (size_t i = 0; i < ndim; i++) {
		double low = t->limits->floor[dim[i]];

		x[dim[i]] = at[i] > low ? at[i] : low;
	}
	if (t->err || run(t, x))
		return INFINITY;
	return loss(t);
}

/* Nelder and Mead's simplex over the terms that the linear fit uses. */
static int polish(struct task *t, double size, double *x)
{
	unsigned most = t->runs + RUNS_MAX;
	double point[SIMPLEX][FIT_TERMS] = {{0}}, value[SIMPLEX], full[FIT_TERMS], best[FIT_TERMS];
	size_t dim[FIT_TERMS], n = 0;

	for (size_t i = 0; i + 1 < FIT_TERMS; i++)
		if (x[i] > 0)
			dim[n++] = i;
	for (size_t k = 0; k <= n; k++) {
		for (size_t i = 0; i < n; i++)
			point[k][i] = x[dim[i]] * (k == i + 1 ? 1 + size : 1);
		value[k] = try_terms(t, dim, n, x, point[k], full);
	}
	while (!t->err && t->runs < most) {
		size_t lo = 0, hi = 0, next = 0;
		double centre[FIT_TERMS] = {0}, at[FIT_TERMS], v, w;

		for (size_t k = 1; k <= n; k++) {
			lo = value[k] < value[lo] ? k : lo;
			hi = value[k] > value[hi] ? k : hi;
		}
		for (size_t k = 0; k <= n; k++)
			if (k != hi && (next == hi || value[k] > value[next]))
				next = k;
		if (value[hi] - value[lo] < 1e-4 * value[lo])
			break;
		for (size_t k = 0; k <= n; k++)
			for (size_t i = 0; k != hi && i < n; i++)
				centre[i] += point[k][i] / (double)n;
		for (size_t i = 0; i < n; i++)
			at[i] = 2 * centre[i] - point[hi][i];
		v = try_terms(t, dim, n, x, at, full);
		if (v < value[lo]) {
			double far[FIT_TERMS];

			for (size_t i = 0; i < n; i++)
				far[i] = 3 * centre[i] - 2 * point[hi][i];
			w = try_terms(t, dim, n, x, far, full);
			memcpy(point[hi], w < v ? far : at, sizeof(at));
			value[hi] = w < v ? w : v;
			continue;
		}
		if (v < value[next]) {
			memcpy(point[hi], at, sizeof(at));
			value[hi] = v;
			continue;
		}
		for (size_t i = 0; i < n; i++)
			at[i] = (centre[i] + (v < value[hi] ? at[i] : point[hi][i])) / 2;
		w = try_terms(t, dim, n, x, at, full);
		if (w < value[hi]) {
			memcpy(point[hi], at, sizeof(at));
			value[hi] = w;
			continue;
		}
		for (size_t k = 0; k <= n; k++) {
			for (size_t i = 0; k != lo && i < n; i++)
				point[k][i] = (point[k][i] + point[lo][i]) / 2;
			if (k != lo)
				value[k] = try_terms(t, dim, n, x, point[k], full);
		}
	}
	for (size_t k = 1; k <= n; k++)
		if (value[k] < value[0]) {
			value[0] = value[k];
			memcpy(point[0], point[k], sizeof(point[0]));
		}
	(void)try_terms(t, dim, n, x, point[0], best);
	memcpy(x, best, sizeof(best));
	return t->err;
}

/*
 * Steps at random from the best point, longer after a success and shorter after failures: which
 * requests meet in a step changes in jumps, and a simplex comes to rest between them.
 */
static int wander(struct task *t, double *x)
{
	double size = 0.05, least, at[FIT_TERMS], full[FIT_TERMS];
	size_t dim[FIT_TERMS], n = 0;
	struct rng rng;

	rng_seed(&rng, 1);
	for (size_t i = 0; i + 1 < FIT_TERMS; i++)
		if (x[i] > 0)
			dim[n++] = i;
	for (size_t i = 0; i < n; i++)
		at[i] = x[dim[i]];
	least = try_terms(t, dim, n, x, at, full);
	for (unsigned k = 0; !t->err && k < WANDER && size > 1e-4; k++) {
		double v;

		for (size_t i = 0; i < n; i++)
			at[i] = x[dim[i]] * (1 + size * rng_normal(&rng));
		v = try_terms(t, dim, n, x, at, full);
		if (v < least) {
			least = v;
			memcpy(x, full, sizeof(full));
			size *= 1.5;
		} else {
			size *= 0.93;
		}
	}
	/* The outcome of the best point, for what is said about it. */
	return t->err ? t->err : run(t, x);
}

/* Eigenvalues of a symmetric matrix by Jacobi's rotations. */
static void eigenvalues(double m[FIT_TERMS][FIT_TERMS], size_t n, double *out)
{
	for (int sweep = 0; sweep < 60; sweep++)
		for (size_t p = 0; p < n; p++)
			for (size_t q = p + 1; q < n; q++) {
				double theta, c, s;

				if (fabs(m[p][q]) < 1e-15)
					continue;
				theta = 0.5 * atan2(2 * m[p][q], m[q][q] - m[p][p]);
				c = cos(theta);
				s = sin(theta);
				for (size_t k = 0; k < n; k++) {
					double x = m[k][p], y = m[k][q];

					m[k][p] = c * x - s * y;
					m[k][q] = s * x + c * y;
				}
				for (size_t k = 0; k < n; k++) {
					double x = m[p][k], y = m[q][k];

					m[p][k] = c * x - s * y;
					m[q][k] = s * x + c * y;
				}
			}
	for (size_t i = 0; i < n; i++)
		out[i] = m[i][i];
}

/* What the data can tell: over a, b, c and d, used or not. */
static void judge(const struct system *s, struct fit_result *out)
{
	double m[FIT_TERMS][FIT_TERMS], value[FIT_TERMS], low = INFINITY, high = 0;
	const size_t n = FIT_TERMS - 1;

	memcpy(m, s->ata, sizeof(m));
	eigenvalues(m, n, value);
	for (size_t i = 0; i < n; i++) {
		low = value[i] < low ? value[i] : low;
		high = value[i] > high ? value[i] : high;
	}
	out->condition = low > 1e-14 ? sqrt(high / low) : INFINITY;
	for (size_t i = 0; i < FIT_TERMS; i++) {
		double unit[FIT_TERMS] = {0}, x[FIT_TERMS], most = 0;

		unit[i] = 1;
		out->twin[i] = -1;
		out->inflation[i] = NAN;
		if (i == n)
			continue;
		/* The i-th diagonal element of the inverse. */
		out->inflation[i] = solve(s, unit, (1u << n) - 1, x) ? x[i] : INFINITY;
		for (size_t k = 0; k < n; k++)
			if (k != i && fabs(s->ata[i][k]) > most) {
				most = fabs(s->ata[i][k]);
				out->twin[i] = (int)k;
			}
	}
}

int fit_costs(const struct fit_engine *engine, const struct fit_request *r, size_t n, size_t nfit,
	      const struct fit_limits *limits, struct fit_result *out, struct pd_msg *msg)
{
	struct task t = {
		.engine = *engine, .r = r, .n = n, .nfit = nfit, .limits = limits, .msg = msg};
	double x[FIT_TERMS] = {10000, 50, 0, 0.05, 0}, best[FIT_TERMS], least = INFINITY;
	unsigned terms = (1u << (FIT_TERMS - 1)) - 1;
	int64_t cold = 0;
	struct system s;

	*out = (struct fit_result){0};
	if (nfit < 10 || nfit > n)
		return pd_fail(msg, PD_EINVAL,
			       "found %zu requests to fit, expected at least 10 of %zu", nfit, n);
	t.out = calloc(n, sizeof(*t.out));
	if (!t.out)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; i < FIT_TERMS; i++)
		x[i] = limits->prior[i] > 0 ? limits->prior[i] : x[i];
	x[FIT_TERMS - 1] = limits->known_e;
	for (int round = 0; round < ROUNDS && run(&t, x) == PD_OK; round++) {
		double v = loss(&t), y[FIT_TERMS];

		if (v < least) {
			least = v;
			cold = t.engine.cold_ns;
			memcpy(best, x, sizeof(best));
		}
		/* The first request of an engine that has just started pays for that; small
		 * differences are the fit's own. */
		t.engine.cold_ns += llround((r[0].ttft_ms - t.out[0].ttft_ms) * 1e6);
		if ((double)t.engine.cold_ns < COLD * r[0].ttft_ms * 1e6)
			t.engine.cold_ns = 0;
		build(&t, &s);
		/* Requests and their context grow together: with both terms the split between them
		 * is chance, and predictions of longer contexts with it. Memory traffic per token
		 * of context is what the hardware must do, so that one stays. */
		if (round == 0)
			judge(&s, out);
		if (round == 0 && out->inflation[TERM_C] > TWINS)
			terms &= ~(1u << TERM_C);
		memcpy(y, x, sizeof(y));
		solve_bounded(&t, &s, terms, y);
		for (size_t i = 0; i < FIT_TERMS; i++)
			x[i] = round < 3 ? y[i] : (x[i] + y[i]) / 2;
	}
	if (!t.err) {
		memcpy(x, best, sizeof(best));
		t.engine.cold_ns = cold;
		(void)polish(&t, 0.1, x);
		(void)wander(&t, x);
	}
	if (!t.err) {
		build(&t, &s);
		judge(&s, out);
		set_terms(&out->cost, x);
		out->cold_ms = (double)cold / 1e6;
		for (size_t i = 0; i < FIT_TERMS; i++) {
			out->used[i] = x[i] > 0;
			out->at_floor[i] =
				limits->floor[i] > 0 && x[i] <= limits->floor[i] * 1.0001;
		}
	}
	out->runs = t.runs;
	free(t.out);
	return t.err;
}
