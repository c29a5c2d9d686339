/* The same figures as text and as a document. */
#include "sim/fit/calreport.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double percent(double sim, double real)
{
	return (sim / real - 1) * 100;
}

static int signed_percent(struct buf *out, double v)
{
	return isfinite(v) ? buf_printf(out, "%+9.1f %%", v) : buf_printf(out, "%11s", "-");
}

static int error_rows(struct buf *out, const struct calibration *c, int part)
{
	int err = PD_OK;

	for (int k = 0; !err && k < CAL_FIGURES; k++) {
		const struct calibrate_error *e = &c->part[part][k];

		if (e->n == 0)
			continue;
		err = buf_printf(out, "%-7s %-5s %5zu", part ? "rest" : "fitted",
				 calibrate_figures[k], e->n);
		err = err ? err : signed_percent(out, percent(e->sim_mean, e->real_mean));
		err = err ? err : signed_percent(out, percent(e->sim[CAL_P50], e->real[CAL_P50]));
		err = err ? err : signed_percent(out, percent(e->sim[CAL_P99], e->real[CAL_P99]));
		err = err ? err : buf_printf(out, "%9.1f %%%8.3f\n", e->mape * 100, e->pearson_r);
	}
	return err;
}

/* Terms that grow together in this data. */
static int inseparable(struct buf *out, const struct fit_result *f, const char *join)
{
	bool any = false;
	int err = PD_OK;

	for (int i = 0; !err && i < FIT_TERMS; i++) {
		if (!(f->inflation[i] > 10) || f->twin[i] < 0)
			continue;
		err = buf_printf(out, "%s%s", any ? join : "", fit_term_names[i]);
		any = true;
	}
	return err;
}

static int warnings(const struct calibration *c, struct buf *out)
{
	struct pd_msg floors = {.text = ""};
	int err = PD_OK;

	profile_floors(&c->profile, &floors);
	if (floors.text[0])
		err = buf_printf(out, "warning: %s\n", floors.text);
	if (!err && c->m.notes.len > 0)
		err = buf_append(out, c->m.notes.data, c->m.notes.len);
	return err;
}

int calibrate_text(const struct calibration *c, struct buf *out)
{
	const struct stepcost *k = &c->fit.cost;
	size_t before;
	int err;

	err = buf_printf(out, "%s: %zu requests, %zu fitted, %zu predicted%s\n\n",
			 c->profile.source, c->m.n, c->nfit, c->m.n - c->nfit,
			 c->given ? " with the costs that were given" : "");
	err = err ? err
		  : buf_printf(out,
			       "step = %.0f us + %.2f us * prompt tokens + %.2f us * decodes\n"
			       "       + %.4f us * context + %.3g us * attention\n\n",
			       k->a, k->b, k->c, k->d, k->e);
	err = err ? err
		  : buf_printf(out, "%-7s %-5s %5s %10s %10s %10s %10s %7s\n", "part", "", "n",
			       "mean", "p50", "p99", "MAPE", "r");
	err = err ? err : error_rows(out, c, 0);
	err = err ? err : error_rows(out, c, 1);
	if (!err && !c->given) {
		err = buf_printf(out, "\ncondition number %.0f", c->fit.condition);
		before = out->len;
		err = err ? err : buf_puts(out, "; this data cannot tell apart: ");
		err = err ? err : inseparable(out, &c->fit, ", ");
		if (!err && out->data[out->len - 2] == ':')
			out->len = before;
		err = err ? err : buf_putc(out, '\n');
		if (!err && c->fit.cold_ms > 1)
			err = buf_printf(out,
					 "the first step took %.0f ms longer than its like: a cold "
					 "engine, not part of\nthe profile\n",
					 c->fit.cold_ms);
	}
	return err ? err : warnings(c, out);
}

static void put(cJSON *o, const char *name, double v)
{
	if (isfinite(v))
		(void)cJSON_AddNumberToObject(o, name, v);
	else
		(void)cJSON_AddNullToObject(o, name);
}

static const char *bias_of(const struct calibrate_error *e)
{
	double p = percent(e->sim_mean, e->real_mean);

	return p > 0.05 ? "over-predict" : p < -0.05 ? "under-predict" : "neutral";
}

static const char *quality_of(const struct calibrate_error *e)
{
	if (e->mape < 0.10 && e->pearson_r > 0.95)
		return "excellent";
	if (e->mape < 0.20 && e->pearson_r > 0.85)
		return "good";
	return e->mape < 0.35 && e->pearson_r > 0.70 ? "fair" : "poor";
}

static void put_level(cJSON *o, const char *what, double real, double sim)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "real_%s", what);
	put(o, name, real * 1e3);
	(void)snprintf(name, sizeof(name), "sim_%s", what);
	put(o, name, sim * 1e3);
	(void)snprintf(name, sizeof(name), "%s_error", what);
	put(o, name, (sim - real) * 1e3);
	(void)snprintf(name, sizeof(name), "%s_percent_error", what);
	put(o, name, sim / real - 1);
}

/* Microseconds and fractions, as BLIS writes them. */
static void put_blis(cJSON *o, const struct calibrate_error *e)
{
	static const char *const names[CAL_PERCENTILES] = {"p50", "p90", "p95", "p99"};
	cJSON *level = cJSON_AddObjectToObject(o, "workload_level");
	cJSON *single = cJSON_AddObjectToObject(o, "request_level");

	put_level(level, "mean", e->real_mean, e->sim_mean);
	put_level(level, "median", e->real[CAL_P50], e->sim[CAL_P50]);
	for (int i = 0; i < CAL_PERCENTILES; i++)
		put_level(level, names[i], e->real[i], e->sim[i]);
	put(single, "mape", e->mape);
	put(single, "pearson_r", e->pearson_r);
	if (e->n > 0) {
		(void)cJSON_AddStringToObject(single, "bias_direction", bias_of(e));
		(void)cJSON_AddStringToObject(single, "quality", quality_of(e));
	}
	put(o, "count", (double)e->n);
}

static void put_part(cJSON *o, const struct calibrate_error part[CAL_FIGURES])
{
	char name[64];

	put(o, "requests", (double)part[CAL_E2E].n);
	for (int k = 0; k < CAL_FIGURES; k++) {
		const struct calibrate_error *e = &part[k];
		const struct {
			const char *what;
			double value;
		} all[] = {{"mean_error_percent", percent(e->sim_mean, e->real_mean)},
			   {"p50_error_percent", percent(e->sim[CAL_P50], e->real[CAL_P50])},
			   {"p90_error_percent", percent(e->sim[CAL_P90], e->real[CAL_P90])},
			   {"p99_error_percent", percent(e->sim[CAL_P99], e->real[CAL_P99])},
			   {"mape_percent", e->mape * 100},
			   {"pearson_r", e->pearson_r},
			   {"real_mean_ms", e->real_mean},
			   {"sim_mean_ms", e->sim_mean}};

		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
			(void)snprintf(name, sizeof(name), "%s_%s", calibrate_figures[k],
				       all[i].what);
			put(o, name, all[i].value);
		}
		(void)snprintf(name, sizeof(name), "%s_bias", calibrate_figures[k]);
		if (e->n > 0)
			(void)cJSON_AddStringToObject(o, name, bias_of(e));
	}
}

static void put_terms(cJSON *o, const struct calibration *c)
{
	const double value[FIT_TERMS] = {c->fit.cost.a, c->fit.cost.b, c->fit.cost.c, c->fit.cost.d,
					 c->fit.cost.e};
	cJSON *step = cJSON_AddObjectToObject(o, "step_us");
	cJSON *list;

	for (int i = 0; i < FIT_TERMS; i++)
		put(step, fit_term_names[i], value[i]);
	if (c->given)
		return;
	put(o, "condition_number", c->fit.condition);
	put(o, "cold_first_step_ms", c->fit.cold_ms);
	list = cJSON_AddArrayToObject(o, "inseparable_terms");
	for (int i = 0; list && i < FIT_TERMS; i++)
		if (c->fit.inflation[i] > 10 && c->fit.twin[i] >= 0)
			(void)cJSON_AddItemToArray(list, cJSON_CreateString(fit_term_names[i]));
	list = cJSON_AddArrayToObject(o, "terms_at_floor");
	for (int i = 0; list && i < FIT_TERMS; i++)
		if (c->fit.at_floor[i])
			(void)cJSON_AddItemToArray(list, cJSON_CreateString(fit_term_names[i]));
}

/* What the file says of its engine, and what was simulated; null: it does not say. */
static void put_config(cJSON *o, const struct calibration *c)
{
	const struct profile *p = &c->m.profile;
	const struct sched_config *s = &c->m.engine.sched;
	const struct {
		const char *name;
		double real, sim; /* real 0: not said */
	} row[] = {
		{"max_num_seqs", p->max_num_seqs, s->max_num_seqs},
		{"max_num_batched_tokens", p->max_num_batched_tokens, s->max_num_batched_tokens},
		{"block_size", p->block_size, s->block_size},
		{"num_gpu_blocks", c->m.has_blocks ? p->num_blocks : 0, s->num_blocks},
		{"tensor_parallel_size", c->m.has_meta ? p->tensor_parallel : 0,
		 p->tensor_parallel},
		{"data_parallel_size", c->m.has_meta ? p->data_parallel : 0, c->m.engine.ranks},
	};

	for (size_t i = 0; o && i < sizeof(row) / sizeof(row[0]); i++) {
		cJSON *one = cJSON_AddObjectToObject(o, row[i].name);

		put(one, "real", row[i].real > 0 ? row[i].real : (double)NAN);
		put(one, "sim", row[i].sim);
		(void)cJSON_AddBoolToObject(one, "match", row[i].real == row[i].sim);
	}
}

cJSON *calibrate_json(const struct calibration *c)
{
	cJSON *doc = cJSON_CreateObject(), *info, *metrics, *pdctl, *cal, *list;
	struct pd_msg floors = {.text = ""};

	if (!doc)
		return NULL;
	info = cJSON_AddObjectToObject(doc, "trace_info");
	put(info, "num_requests", (double)c->m.n);
	put(info, "warm_up_excluded", (double)c->nfit);
	put(info, "matched_pairs", (double)(c->m.n - c->nfit));
	put(info, "token_mismatches", 0);
	metrics = cJSON_AddObjectToObject(doc, "metrics");
	for (int k = 0; metrics && k < CAL_FIGURES; k++)
		put_blis(cJSON_AddObjectToObject(metrics, calibrate_figures[k]), &c->part[1][k]);
	put_config(cJSON_AddObjectToObject(doc, "config_match"), c);
	list = cJSON_AddArrayToObject(doc, "known_limitations");
	for (char *at = c->m.notes.data; list && at && *at;) {
		size_t n = strcspn(at, "\n");
		char line[200];

		(void)snprintf(line, sizeof(line), "%.*s", (int)(n < 199 ? n : 199), at);
		(void)cJSON_AddItemToArray(list, cJSON_CreateString(line));
		at += n + (at[n] == '\n');
	}
	pdctl = cJSON_AddObjectToObject(doc, "pdctl");
	(void)cJSON_AddNumberToObject(pdctl, "version", 1);
	(void)cJSON_AddStringToObject(pdctl, "kind", "calibration");
	cal = cJSON_AddObjectToObject(pdctl, "calibration");
	(void)cJSON_AddStringToObject(cal, "source", c->profile.source);
	(void)cJSON_AddBoolToObject(cal, "fitted", !c->given);
	put_terms(cal, c);
	profile_floors(&c->profile, &floors);
	if (floors.text[0])
		(void)cJSON_AddStringToObject(cal, "below_floor", floors.text);
	put(cal, "band_percent", c->profile.band_percent);
	put_part(cJSON_AddObjectToObject(cal, "fitted_part"), c->part[0]);
	put_part(cJSON_AddObjectToObject(cal, "rest"), c->part[1]);
	return doc;
}
