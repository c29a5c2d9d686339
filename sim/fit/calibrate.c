/* Percent errors are of the mean or the percentile: (simulated - real) / real. */
#include "sim/fit/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/summary.h"
#include "sim/engine/hardware.h"

const char *const calibrate_figures[CAL_FIGURES] = {"ttft", "tpot", "e2e"};

static const double percentiles[CAL_PERCENTILES] = {50, 90, 95, 99};

/* False: a single token has no time per token. */
static bool figure(const struct fit_request *r, double ttft, double e2e, int what, double *out)
{
	if (what == CAL_TPOT && r->output < 2)
		return false;
	*out = what == CAL_TTFT ? ttft : what == CAL_TPOT ? (e2e - ttft) / (r->output - 1) : e2e;
	return true;
}

static double pearson(const double *x, const double *y, size_t n)
{
	double mx = 0, my = 0, xy = 0, xx = 0, yy = 0;

	for (size_t i = 0; i < n; i++) {
		mx += x[i] / (double)n;
		my += y[i] / (double)n;
	}
	for (size_t i = 0; i < n; i++) {
		xy += (x[i] - mx) * (y[i] - my);
		xx += (x[i] - mx) * (x[i] - mx);
		yy += (y[i] - my) * (y[i] - my);
	}
	return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static int compare(const struct fit_request *r, const struct fit_outcome *o, size_t n, int what,
		   struct calibrate_error *e)
{
	double *real = reallocarray(NULL, n + 1, sizeof(*real)),
	       *sim = reallocarray(NULL, n + 1, sizeof(*sim));
	size_t k = 0;

	*e = (struct calibrate_error){.real_mean = NAN, .sim_mean = NAN, .pearson_r = NAN};
	if (!real || !sim) {
		free(real);
		free(sim);
		return PD_ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		if (figure(&r[i], r[i].ttft_ms, r[i].e2e_ms, what, &real[k]) &&
		    figure(&r[i], o[i].ttft_ms, o[i].e2e_ms, what, &sim[k])) {
			e->mape += fabs(sim[k] - real[k]) / real[k];
			k++;
		}
	e->n = k;
	e->mape = k ? e->mape / (double)k : NAN;
	if (k > 1)
		e->pearson_r = pearson(real, sim, k);
	summary_sort(real, k);
	summary_sort(sim, k);
	if (k > 0) {
		e->real_mean = summary_of(real, k).mean;
		e->sim_mean = summary_of(sim, k).mean;
	}
	for (size_t i = 0; i < CAL_PERCENTILES; i++) {
		e->real[i] = summary_percentile(real, k, percentiles[i]);
		e->sim[i] = summary_percentile(sim, k, percentiles[i]);
	}
	free(real);
	free(sim);
	return PD_OK;
}

static struct hardware_setup setup_of(const struct profile *p)
{
	return (struct hardware_setup){.gpu = hardware_gpu_find(p->gpu),
				       .model = hardware_model_find(p->model),
				       .tensor = p->tensor_parallel,
				       .data = p->data_parallel,
				       .expert = p->expert_parallel,
				       .weight_bytes = 2};
}

static void terms_of(const struct stepcost *c, double out[FIT_TERMS])
{
	const double term[FIT_TERMS] = {c->a, c->b, c->c, c->d, c->e};

	memcpy(out, term, sizeof(term));
}

static int fit(struct calibration *c, struct pd_msg *msg)
{
	struct hardware_setup h = setup_of(&c->m.profile);
	struct fit_limits limits = {0};
	struct stepcost prior;

	if (h.gpu && h.model) {
		c->has_floors = true;
		c->floor = hardware_floor(&h);
		prior = hardware_prior(&h);
		terms_of(&c->floor, limits.floor);
		terms_of(&prior, limits.prior);
		limits.known_e = prior.e;
		limits.prior[2] = 0;
	}
	return fit_costs(&c->m.engine, c->m.r, c->m.n, c->nfit, &limits, &c->fit, msg);
}

static int predict(struct calibration *c, struct pd_msg *msg)
{
	struct fit_engine engine = c->m.engine;
	struct fit_outcome *out = calloc(c->m.n + 1, sizeof(*out));
	size_t from[2] = {0, c->nfit}, n[2] = {c->nfit, c->m.n - c->nfit};
	int err;

	if (!out)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	engine.cold_ns = llround(c->fit.cold_ms * 1e6);
	err = fit_run(&engine, &c->fit.cost, c->m.r, c->m.n, out, msg);
	for (int part = 0; !err && part < 2; part++)
		for (int k = 0; !err && k < CAL_FIGURES; k++)
			err = compare(c->m.r + from[part], out + from[part], n[part], k,
				      &c->part[part][k]);
	free(out);
	return err;
}

static void make_profile(struct calibration *c, const char *path)
{
	const char *file = strrchr(path, '/');
	struct profile *p = &c->profile;
	double band = 0;

	*p = c->m.profile;
	p->cost = c->fit.cost;
	/* What was estimated is not passed on as if it had been stated. */
	if (!c->m.has_blocks)
		p->num_blocks = 0;
	p->fitted = (uint32_t)c->nfit;
	p->tested = (uint32_t)(c->m.n - c->nfit);
	p->condition = isfinite(c->fit.condition) ? c->fit.condition : 1e300;
	(void)snprintf(p->source, sizeof(p->source), "%.150s", file ? file + 1 : path);
	for (int k = 0; k < CAL_FIGURES; k++) {
		const struct calibrate_error *e = &c->part[c->m.n > c->nfit][k];

		if (e->n > 0)
			band = fmax(band, fabs(e->sim_mean / e->real_mean - 1) * 100);
	}
	p->band_percent = band;
}

int calibrate_run(struct calibration *c, const char *path, size_t fit_first,
		  const struct profile *given, struct pd_msg *msg)
{
	int err;

	*c = (struct calibration){0};
	err = measured_load(&c->m, path, msg);
	if (err)
		return err;
	c->nfit = given ? 0 : fit_first ? fit_first : (c->m.n + 2) / 3;
	c->given = given != NULL;
	if (c->nfit > c->m.n)
		err = pd_fail(msg, PD_EINVAL,
			      "--fit-first: found %zu, expected at most the %zu "
			      "requests of %s",
			      c->nfit, c->m.n, path);
	if (!err && given) {
		c->fit.cost = given->cost;
		c->fit.condition = given->condition;
	} else if (!err) {
		err = fit(c, msg);
	}
	if (!err)
		err = predict(c, msg);
	if (!err)
		make_profile(c, path);
	if (err)
		calibrate_release(c);
	return err;
}

void calibrate_release(struct calibration *c)
{
	measured_release(&c->m);
}

int calibrate_prior(const char *path, struct profile *out, struct pd_msg *msg)
{
	struct hardware_setup h;
	struct measured m;
	int err = measured_load(&m, path, msg);

	if (err)
		return err;
	*out = m.profile;
	h = setup_of(out);
	measured_release(&m);
	if (!h.gpu || !h.model)
		return pd_fail(msg, PD_ENOENT,
			       "%s: found GPU '%s' and model '%s', expected ones whose data sheets "
			       "are known",
			       path, out->gpu, out->model);
	out->cost = hardware_prior(&h);
	return PD_OK;
}
