/*
 * The document holds numbers and names only (no dates, no machine), so the same input gives the
 * same bytes. Pools are an object keyed by role and not an array, so that `compare` can address
 * their figures by a dotted path.
 */
#include "sim/report/report.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/route/policy/policies.h"

#define CAVEAT                                                                                     \
	"latencies come from a simulated engine; its default parameters are a data-sheet prior, "  \
	"calibrated against nothing: trust their order, not their size"

static const char *role(const struct arm *a, size_t pool)
{
	if (a->cfg.npools == 1)
		return "workers";
	return pool == 0 ? "prefill" : "decode";
}

static void put(cJSON *o, const char *name, double value)
{
	if (isfinite(value))
		(void)cJSON_AddNumberToObject(o, name, value);
	else
		(void)cJSON_AddNullToObject(o, name);
}

static void put_spread(cJSON *o, const char *what, const struct spread *s)
{
	static const char *const forms[] = {"mean_%s_ms", "median_%s_ms", "std_%s_ms",
					    "p90_%s_ms",  "p95_%s_ms",	  "p99_%s_ms"};
	const double values[] = {s->mean, s->median, s->std, s->p90, s->p95, s->p99};
	char name[64];

	for (size_t i = 0; s->n > 0 && i < sizeof(values) / sizeof(values[0]); i++) {
		const char *hole = strchr(forms[i], '%');

		(void)snprintf(name, sizeof(name), "%.*s%s%s", (int)(hole - forms[i]), forms[i],
			       what, hole + 2);
		put(o, name, values[i]);
	}
}

/* The keys that vllm bench writes, in its order. */
static void put_bench_keys(cJSON *o, const struct arm *a)
{
	const struct replay_result *x = &a->result;
	double seconds = x->duration_s;

	(void)cJSON_AddStringToObject(o, "endpoint_type", "simulated");
	(void)cJSON_AddStringToObject(o, "backend", "pdctl-simulate");
	(void)cJSON_AddStringToObject(o, "label", a->policy);
	put(o, "num_prompts", (double)x->requests);
	put(o, "max_concurrency",
	    a->cfg.max_concurrency ? (double)a->cfg.max_concurrency : (double)NAN);
	put(o, "duration", seconds);
	put(o, "completed", (double)x->completed);
	put(o, "failed", (double)(x->refused + x->lost));
	put(o, "mean_itl_ms", a->figures.itl_ms);
	if (a->figures.goals)
		put(o, "request_goodput",
		    seconds > 0 ? (double)a->figures.good / seconds : (double)NAN);
	if (a->cfg.npools == 2 && a->cfg.decider.kind != ROUTE_DECIDER_always)
		put(o, "local_prefills", (double)x->local);
	put(o, "total_input_tokens", (double)x->input_tokens);
	put(o, "total_output_tokens", (double)x->output_tokens);
	if (seconds > 0 && !a->cfg.routing_only) {
		put(o, "request_throughput", (double)x->completed / seconds);
		put(o, "output_throughput", (double)x->output_tokens / seconds);
		put(o, "total_token_throughput",
		    (double)(x->output_tokens + x->input_tokens) / seconds);
		put(o, "max_concurrent_requests", x->peak_in_flight);
	}
	put_spread(o, "ttft", &a->figures.ttft);
	put_spread(o, "tpot", &a->figures.tpot);
	put_spread(o, "e2el", &a->figures.e2el);
	put_spread(o, "queue", &a->figures.queue);
}

static void put_caveat(cJSON *o, const struct engine_params *p)
{
	char text[256];

	if (p->profile[0] && p->band_percent >= 0)
		(void)snprintf(text, sizeof(text),
			       "latencies come from a simulated engine with the profile %s, whose "
			       "means were within %.2g %% of measured ones that were not fitted",
			       p->profile, p->band_percent);
	else
		(void)snprintf(text, sizeof(text), "%s", CAVEAT);
	(void)cJSON_AddStringToObject(o, "caveat", text);
}

static void put_engine(cJSON *o, const struct arm *a)
{
	const struct engine_params *p = &a->cfg.engine;
	cJSON *e = cJSON_AddObjectToObject(o, "engine");

	if (p->profile[0]) {
		(void)cJSON_AddStringToObject(e, "profile", p->profile);
		put(e, "error_band_percent", p->band_percent >= 0 ? p->band_percent : (double)NAN);
	}
	put(e, "step_ms", p->step_ms);
	put(e, "prefill_us", p->prefill_us);
	put(e, "attention_us", p->attention_us);
	put(e, "request_us", p->request_us);
	put(e, "context_us", p->context_us);
	put(e, "max_num_seqs", p->max_num_seqs);
	put(e, "max_batched_tokens", p->max_batched_tokens);
	put(e, "kv_tokens", (double)p->kv_tokens);
	if (a->cfg.npools < 2)
		return;
	put(e, "transfer_ms", a->cfg.transfer_ms);
	put(e, "transfer_us_token", a->cfg.transfer_us_token);
}

static void put_workers(cJSON *o, const struct arm *a, size_t pool)
{
	const struct replay_pool_result *p = &a->result.pool[pool];
	cJSON *list = cJSON_AddArrayToObject(o, "per_worker");

	for (size_t i = 0; list && i < p->nworkers; i++) {
		const struct replay_worker *w = &p->worker[i];
		cJSON *e = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(e, "name", a->names[pool][i]);
		put(e, "requests", (double)w->requests);
		put(e, "sessions", (double)w->keys);
		put(e, "input_tokens", (double)w->input_tokens);
		put(e, "uncached_tokens", (double)w->uncached_tokens);
		put(e, "blocks", (double)w->blocks);
		put(e, "hit_blocks", (double)w->hit_blocks);
		put(e, "hit_tokens", (double)w->hit_tokens);
		put(e, "peak_in_flight", w->peak_in_flight);
		put(e, "preemptions", (double)w->preemptions);
		put(e, "busy_s", w->busy_s);
		(void)cJSON_AddItemToArray(list, e);
	}
}

/* The parameters of all policies, as the pools have them, else the default. */
static void put_parameters(cJSON *o, const struct arm *a)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	struct route_param_keys keys;
	struct buf text;

	(void)route_param_list(list);
	route_param_keys(&keys);
	buf_init(&text, 256);
	for (size_t i = 0; i < keys.n; i++) {
		const char *key = list[i].alias ? list[i].alias : keys.key[i];
		const struct route_spec *spec = &a->cfg.pool[0].policy;
		const struct route_param *p = route_param_find(spec->type, span_of(list[i].name));
		_Alignas(int64_t) unsigned char defaults[ROUTE_PARAMS_SIZE];

		if (!p && a->cfg.npools == 2) {
			spec = &a->cfg.pool[1].policy;
			p = route_param_find(spec->type, span_of(list[i].name));
		}
		route_params_default((struct route_param[2]){list[i]}, defaults);
		buf_clear(&text);
		if (list[i].type != ROUTE_PARAM_CHOICE)
			put(o, key,
			    route_param_number(p ? p : &list[i], p ? spec->params : defaults));
		else if (route_param_print(p ? p : &list[i], p ? spec->params : defaults, &text) ==
			 PD_OK)
			(void)cJSON_AddStringToObject(o, key, text.data);
	}
	buf_release(&text);
}

static void put_pool(cJSON *pools, const struct arm *a, size_t pool)
{
	const struct replay_pool_result *p = &a->result.pool[pool];
	const struct pool_figures *f = &a->figures.pool[pool];
	cJSON *o = cJSON_AddObjectToObject(pools, role(a, pool)), *reasons;

	(void)cJSON_AddStringToObject(o, "policy", p->policy.type->name);
	put(o, "workers", (double)p->nworkers);
	for (const struct simmetric *m = simmetrics; m->name; m++)
		if (m->per_pool)
			put(o, m->name, simmetric_value(m, a, pool));
	put(o, "total_blocks", (double)f->blocks);
	put(o, "hit_tokens", (double)f->hit_tokens);
	put(o, "keys_asked", (double)f->moved.keys);
	reasons = cJSON_AddObjectToObject(o, "reasons");
	for (int i = 0; i < REPLAY_REASONS; i++)
		put(reasons, route_reason_name((enum route_reason)i), (double)p->reasons[i]);
	reasons = cJSON_AddObjectToObject(o, "rebinds");
	put(reasons, "worker_gone", (double)p->moved_gone);
	for (int i = 0; i < REPLAY_REASONS; i++)
		if (p->moved[i] > 0)
			put(reasons, route_reason_name((enum route_reason)i), (double)p->moved[i]);
	put_workers(o, a, pool);
}

static void put_events(cJSON *o, const struct arm *a)
{
	cJSON *list = a->cfg.nevents ? cJSON_AddArrayToObject(o, "events") : NULL;

	for (size_t i = 0; list && i < a->cfg.nevents; i++) {
		const struct replay_event *e = &a->events[i];
		cJSON *x = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(x, "action", replay_action_name(e->action));
		(void)cJSON_AddStringToObject(x, "worker", a->names[e->pool][e->worker]);
		put(x, e->by_request ? "at_request" : "at_ms",
		    e->by_request ? (double)e->request : (double)e->at_ns / 1e6);
		if (a->figures.time.dip) {
			put(x, "hit_rate_before", a->figures.time.dip[i].before);
			put(x, "hit_rate_lowest", a->figures.time.dip[i].lowest);
			put(x, "recovered_s", a->figures.time.dip[i].recovered_s);
		}
		(void)cJSON_AddItemToArray(list, x);
	}
}

static void put_expected(cJSON *o, const struct simreport *r, size_t arm)
{
	cJSON *list = r->expected ? cJSON_AddArrayToObject(o, "expectations") : NULL;

	for (size_t i = 0; list && i < r->expected->n; i++) {
		const struct expect_result *x = &r->expected->item[i];
		cJSON *e;

		if (x->arm != arm)
			continue;
		e = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(e, "text", x->expect->text);
		(void)cJSON_AddStringToObject(e, "pool", role(&r->arms->arm[arm], x->pool));
		put(e, "value", x->value);
		put(e, "bound", x->bound);
		(void)cJSON_AddBoolToObject(e, "ok", x->ok);
		(void)cJSON_AddItemToArray(list, e);
	}
}

/* "PATH=VALUE PATH=VALUE" as an object. */
static void put_point(cJSON *o, const char *point)
{
	cJSON *p = *point ? cJSON_AddObjectToObject(o, "point") : NULL;
	char path[ARM_POINT_MAX], value[ARM_POINT_MAX];

	while (p && *point) {
		size_t n = strcspn(point, " ");
		const char *is = memchr(point, '=', n);

		(void)snprintf(path, sizeof(path), "%.*s", (int)(is - point), point);
		(void)snprintf(value, sizeof(value), "%.*s", (int)(point + n - is - 1), is + 1);
		(void)cJSON_AddStringToObject(p, path, value);
		point += n + (point[n] == ' ');
	}
}

static cJSON *numbers(const double *v, size_t n, size_t stride)
{
	cJSON *list = cJSON_CreateArray();

	for (size_t i = 0; list && i < n; i++) {
		double x = *(const double *)(const void *)((const char *)v + i * stride);

		(void)cJSON_AddItemToArray(list, isfinite(x) ? cJSON_CreateNumber(x)
							     : cJSON_CreateNull());
	}
	return list;
}

/* The metrics of the run as a whole, the values of each repetition, and windows of the first one.
 */
static void put_values(cJSON *o, const struct arm *a)
{
	const struct timeline *l = &a->figures.time;
	cJSON *f = cJSON_AddObjectToObject(o, "figures"), *list, *values;
	char name[96];

	for (const struct simmetric *m = simmetrics; m->name; m++)
		if (!m->per_pool)
			put(f, m->name, simmetric_value(m, a, 0));
	if (a->figures.goals) {
		list = cJSON_AddObjectToObject(o, "goals");
		put(list, "ttft_ms", a->goals.ttft_ms > 0 ? a->goals.ttft_ms : (double)NAN);
		put(list, "tpot_ms", a->goals.tpot_ms > 0 ? a->goals.tpot_ms : (double)NAN);
		put(list, "e2el_ms", a->goals.e2el_ms > 0 ? a->goals.e2el_ms : (double)NAN);
	}
	f = cJSON_AddObjectToObject(o, "repetitions");
	list = cJSON_AddArrayToObject(f, "seeds");
	for (size_t i = 0; i < a->nreps; i++)
		(void)cJSON_AddItemToArray(list, cJSON_CreateNumber((double)(a->seed + i)));
	values = a->nreps > 1 ? cJSON_AddObjectToObject(f, "values") : NULL;
	for (const struct simmetric *m = simmetrics; values && m->name; m++)
		for (size_t p = 0; p < (m->per_pool ? a->cfg.npools : 1); p++) {
			(void)snprintf(name, sizeof(name), "%s%s%s", m->per_pool ? role(a, p) : "",
				       m->per_pool ? "." : "", m->name);
			(void)cJSON_AddItemToObject(values, name,
						    numbers(&a->rep[0].v[m - simmetrics][p],
							    a->nreps, sizeof(a->rep[0])));
		}
	f = l->nwindows > 0 ? cJSON_AddObjectToObject(o, "windows") : NULL;
	for (size_t i = 0; f && i < TIMELINE_WINDOW_FIGURES; i++)
		(void)cJSON_AddItemToObject(f, timeline_window_metric[i],
					    numbers(l->window[i], l->nwindows, sizeof(double)));
}

/* What happened when. */
static void put_timeline(cJSON *o, const struct arm *a)
{
	static const struct {
		const char *name;
		size_t offset;
	} real[] = {{"in_flight", offsetof(struct timeline_slice, in_flight)},
		    {"waiting", offsetof(struct timeline_slice, waiting)},
		    {"mean_ttft_ms", offsetof(struct timeline_slice, ttft_ms)},
		    {"token_hit_rate", offsetof(struct timeline_slice, hit_rate)},
		    {"peak_to_mean_in_flight", offsetof(struct timeline_slice, peak_to_mean)}};
	const struct timeline *l = &a->figures.time;
	cJSON *t = l->n > 0 ? cJSON_AddObjectToObject(o, "time") : NULL, *arrivals, *completed;

	if (!t)
		return;
	put(t, "start_s", l->start_s);
	put(t, "slice_s", l->slice_s);
	put(t, "queue_third_quarter", l->queue_third);
	put(t, "queue_last_quarter", l->queue_last);
	(void)cJSON_AddBoolToObject(t, "saturated", l->saturated);
	arrivals = cJSON_AddArrayToObject(t, "arrivals");
	completed = cJSON_AddArrayToObject(t, "completed");
	for (size_t i = 0; i < l->n; i++) {
		(void)cJSON_AddItemToArray(arrivals, cJSON_CreateNumber(l->slice[i].arrivals));
		(void)cJSON_AddItemToArray(completed, cJSON_CreateNumber(l->slice[i].completed));
	}
	for (size_t i = 0; i < sizeof(real) / sizeof(real[0]); i++)
		(void)cJSON_AddItemToObject(
			t, real[i].name,
			numbers((const double *)(const void *)((const char *)l->slice +
							       real[i].offset),
				l->n, sizeof(l->slice[0])));
}

static void put_facts(cJSON *w, const struct arm_load *r)
{
	cJSON *notes;

	if (r->format && r->format[0])
		(void)cJSON_AddStringToObject(w, "format", r->format);
	if (r->arrivals)
		(void)cJSON_AddStringToObject(w, "arrivals", r->arrivals);
	(void)cJSON_AddBoolToObject(w, "arrivals_invented", r->invented);
	notes = cJSON_AddArrayToObject(w, "notes");
	for (size_t i = 0; notes && i < r->nnotes; i++)
		(void)cJSON_AddItemToArray(notes, cJSON_CreateString(r->note[i]));
}

static void put_regret(cJSON *o, const struct arm *a)
{
	cJSON *r = a->regret.n > 0 ? cJSON_AddObjectToObject(o, "regret") : NULL, *list, *e;

	if (!r)
		return;
	put(r, "decisions", (double)a->regret.n);
	put(r, "mean_ms", a->regret.mean_ms);
	put(r, "mean_total_ms", a->regret.mean_total_ms);
	put(r, "not_best_share", a->regret.not_best);
	list = cJSON_AddArrayToObject(r, "items");
	for (size_t i = 0; i < a->regret.n; i++) {
		const struct regret_decision *d = &a->regret.item[i];

		e = cJSON_CreateObject();
		put(e, "request", d->request);
		(void)cJSON_AddStringToObject(e, "chosen", a->names[0][d->chosen]);
		(void)cJSON_AddStringToObject(e, "better", a->names[0][d->better]);
		put(e, "own_ms", d->own_ms);
		put(e, "total_ms", d->total_ms);
		(void)cJSON_AddItemToArray(list, e);
	}
}

struct cJSON *simreport_arm(const struct simreport *r, size_t arm)
{
	const struct arm *a = &r->arms->arm[arm];
	const struct arm_load *l = a->workload;
	cJSON *doc = cJSON_CreateObject(), *o, *pools, *w;

	put_bench_keys(doc, a);
	o = cJSON_AddObjectToObject(doc, "pdctl");
	put(o, "version", 1);
	(void)cJSON_AddStringToObject(o, "kind", "simulate");
	(void)cJSON_AddBoolToObject(o, "simulated", 1);
	put_caveat(o, &r->arms->arm[arm].cfg.engine);
	if (r->name)
		(void)cJSON_AddStringToObject(o, "scenario", r->name);
	(void)cJSON_AddStringToObject(o, "source", r->source);
	put(o, "experiment", (double)r->number);
	put(o, "arm", (double)arm);
	put(o, "seed", (double)a->seed);
	(void)cJSON_AddStringToObject(o, "policy", a->policy);
	put_point(o, a->point);
	put_parameters(o, a);
	put(o, "workers", a->workers);
	put(o, "cache_blocks", (double)a->cache);
	w = cJSON_AddObjectToObject(o, "workload");
	(void)cJSON_AddStringToObject(w, "key", l->key ? l->key : "session");
	put(w, "requests", (double)l->requests);
	put(w, "sessions", (double)l->keys);
	put(w, "blocks", (double)l->named);
	put(w, "block_tokens", l->block_tokens);
	put_facts(w, l);
	if (!a->cfg.routing_only)
		put_engine(o, a);
	put_events(o, a);
	put_values(o, a);
	put_timeline(o, a);
	put_regret(o, a);
	pools = cJSON_AddObjectToObject(o, "pools");
	for (size_t p = 0; p < a->cfg.npools; p++)
		put_pool(pools, a, p);
	return doc;
}

void simreport_arm_judged(const struct simreport *r, size_t arm, struct cJSON *doc)
{
	cJSON *o = cJSON_GetObjectItemCaseSensitive(doc, "pdctl");

	if (r->shards > 0)
		return;
	if (r->arms->n > 1)
		(void)cJSON_AddBoolToObject(o, "pareto", r->arms->arm[arm].pareto);
	put_expected(o, r, arm);
}

static int failures(const struct simreport *r, const struct arm *a, struct buf *out)
{
	const struct replay_result *x = &a->result;

	return buf_printf(out, "%s: %s, %u workers: of %llu requests %llu refused, %llu lost\n",
			  r->name ? r->name : "workload", a->policy, a->workers,
			  (unsigned long long)x->requests, (unsigned long long)x->refused,
			  (unsigned long long)x->lost);
}

int simreport_remarks(const struct simreport *r, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < r->arms->n; i++) {
		const struct regret *g = &r->arms->arm[i].regret;

		if (g->n > 0)
			err = buf_printf(
				out,
				"regret: %s, %u workers: %.4g ms of TTFT per decision, %.0f "
				"%% of %zu had a better worker\n",
				r->arms->arm[i].policy, r->arms->arm[i].workers, g->mean_ms,
				100 * g->not_best, g->n);
	}

	for (size_t i = 0; !err && i < r->arms->n; i++)
		if (r->arms->arm[i].result.refused + r->arms->arm[i].result.lost > 0)
			err = failures(r, &r->arms->arm[i], out);

	for (size_t i = 0; !err && i < r->arms->n; i++) {
		const struct arm *a = &r->arms->arm[i];

		for (size_t k = 0; !err && a->done && a->workload->picks > 0 && k < a->cfg.npools;
		     k++) {
			const struct replay_pool_result *p = &a->result.pool[k];
			double share = p->compared ? (double)p->agreed / (double)p->compared : 0;

			err = buf_printf(out, "agreement with the capture: %s, %s %zu: ", a->policy,
					 role(a, k), a->cfg.pool[k].n);
			if (!err && p->compared == 0)
				err = buf_puts(out, "nothing to compare\n");
			if (err || p->compared == 0)
				continue;
			/* 100 % is all of them. */
			if (p->agreed < p->compared && share > 0.9999)
				share = 0.9999;
			err = buf_printf(out, "%.2f %% (%llu of %llu decisions)\n", 100 * share,
					 (unsigned long long)p->agreed,
					 (unsigned long long)p->compared);
		}
	}
	return err;
}

int simreport_missed(const struct simreport *r, struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < r->arms->n; i++) {
		const struct arm *a = &r->arms->arm[i];

		if (arm_is_dead(a))
			err = buf_printf(out, "FAILED %s: %s, %u workers: no request completed\n",
					 r->source, a->policy, a->workers);
	}

	for (size_t i = 0; r->expected && !err && i < r->expected->n; i++) {
		const struct expect_result *x = &r->expected->item[i];
		const struct arm *a = &r->arms->arm[x->arm];

		if (x->ok)
			continue;
		err = buf_printf(out, "MISSED %s: %s: %s", r->source, x->expect->text, a->policy);
		if (!err)
			err = buf_printf(out, ", %u workers, %s: ", a->workers, role(a, x->pool));
		if (!err)
			err = isfinite(x->value) ? buf_printf(out, "found %.6g", x->value)
						 : buf_puts(out, "found no such value");
		if (!err)
			err = isfinite(x->bound) ? buf_printf(out, ", expected %.6g\n", x->bound)
						 : buf_puts(out, ", nothing to compare with\n");
	}
	return err;
}
