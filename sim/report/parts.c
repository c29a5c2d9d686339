/* Arms are rebuilt from their documents as far as expectations and verdicts look at them. A number
 * that was printed reads back as the same number, so they come out the same. */
#include "sim/report/parts.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report/report.h"
#include "sim/report/whole.h"

static const cJSON *get(const cJSON *o, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(o, name);
}

static double number(const cJSON *o, const char *name)
{
	const cJSON *v = get(o, name);

	return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static const char *text(const cJSON *o, const char *name)
{
	return cJSON_GetStringValue(get(o, name));
}

bool parts_is(const struct cJSON *doc)
{
	const cJSON *o = get(doc, "pdctl");
	const char *kind = text(o, "kind");

	return kind && strcmp(kind, "simulate") == 0 && get(o, "shard") != NULL;
}

/* ---- an arm ---- */

static void read_point(const cJSON *o, char out[ARM_POINT_MAX])
{
	size_t n = 0;
	const cJSON *e;

	cJSON_ArrayForEach(e, get(o, "point"))
	{
		int k = snprintf(out + n, ARM_POINT_MAX - n, "%s%s=%s", n ? " " : "", e->string,
				 e->valuestring ? e->valuestring : "");

		n += k > 0 && (size_t)k < ARM_POINT_MAX - n ? (size_t)k : 0;
	}
}

static const char *role(const struct arm *a, size_t pool)
{
	return a->cfg.npools == 1 ? "workers" : pool == 0 ? "prefill" : "decode";
}

static double nth(const cJSON *list, size_t i)
{
	const cJSON *v = cJSON_GetArrayItem(list, (int)i);

	return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static void read_values(const cJSON *o, struct arm *a)
{
	const cJSON *values = get(get(o, "repetitions"), "values"), *pools = get(o, "pools");
	char name[96];

	for (size_t i = 0; i < a->nreps; i++)
		for (const struct simmetric *m = simmetrics; m->name; m++)
			for (size_t p = 0; p < REPLAY_POOLS; p++) {
				double v = (double)NAN;

				(void)snprintf(name, sizeof(name), "%s%s%s",
					       m->per_pool ? role(a, p) : "",
					       m->per_pool ? "." : "", m->name);
				if (p > 0 && (!m->per_pool || p >= a->cfg.npools))
					v = (double)NAN;
				else if (values)
					v = nth(get(values, name), i);
				else if (m->per_pool)
					v = number(get(pools, role(a, p)), m->name);
				else
					v = number(get(o, "figures"), m->name);
				a->rep[i].v[m - simmetrics][p] = v;
			}
}

static int read_arm(const cJSON *doc, struct arm *a)
{
	const cJSON *o = get(doc, "pdctl"), *pools = get(o, "pools"), *windows = get(o, "windows");
	int reps = cJSON_GetArraySize(get(get(o, "repetitions"), "seeds"));
	struct timeline *l = &a->figures.time;

	a->done = true;
	a->workers = (uint32_t)number(o, "workers");
	a->cache = (uint64_t)number(o, "cache_blocks");
	a->cfg.npools = get(pools, "prefill") ? 2 : 1;
	for (size_t p = 0; p < a->cfg.npools; p++)
		a->cfg.pool[p].n = (size_t)number(get(pools, role(a, p)), "workers");
	a->cfg.nevents = (size_t)cJSON_GetArraySize(get(o, "events"));
	a->result.requests = (uint64_t)number(doc, "num_prompts");
	a->result.completed = (uint64_t)number(doc, "completed");
	(void)snprintf(a->policy, sizeof(a->policy), "%s",
		       text(o, "policy") ? text(o, "policy") : "");
	read_point(o, a->point);
	l->nwindows =
		windows ? (size_t)cJSON_GetArraySize(get(windows, timeline_window_metric[0])) : 0;
	l->nwindows = l->nwindows > TIMELINE_WINDOWS ? TIMELINE_WINDOWS : l->nwindows;
	for (size_t k = 0; k < TIMELINE_WINDOW_FIGURES; k++)
		for (size_t w = 0; w < l->nwindows; w++)
			l->window[k][w] = nth(get(windows, timeline_window_metric[k]), w);
	if (reps < 1 || reps > ARM_REPS_MAX)
		return PD_EINVAL;
	if (arm_reps_new(a, (size_t)reps))
		return PD_ENOMEM;
	read_values(o, a);
	return PD_OK;
}

/* ---- an experiment ---- */

struct whole {
	struct arms arms;
	cJSON **doc;	       /* owned list; documents of the parts until they move */
	struct expect *expect; /* owned */
	size_t nexpect;
	struct expect_results expected;
	struct verdict_rules rules;
	struct verdict verdict;
};

static void whole_release(struct whole *w)
{
	expect_results_release(&w->expected);
	verdict_release(&w->verdict);
	arms_release(&w->arms);
	free(w->doc);
	free(w->expect);
}

static int read_rules(const cJSON *e, struct whole *w, struct pd_msg *msg)
{
	const cJSON *x, *list = get(e, "expect");
	double share = number(e, "goodput_share_wanted");
	size_t column;
	int err = PD_OK;

	w->rules.base = text(e, "base");
	w->rules.share = isfinite(share) ? share : 0;
	if (text(e, "objective"))
		err = objective_parse(&w->rules.objective, text(e, "objective"), &column, msg);
	cJSON_ArrayForEach(x, get(e, "front"))
	{
		if (!err && x->valuestring && w->rules.nfront < VERDICT_FRONT_MAX)
			err = objective_parse(&w->rules.front[w->rules.nfront++], x->valuestring,
					      &column, msg);
	}
	w->expect = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*w->expect));
	if (!w->expect)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	cJSON_ArrayForEach(x, list)
	{
		if (err || !text(x, "text"))
			continue;
		err = expect_parse(&w->expect[w->nexpect], text(x, "text"), &column, msg);
		w->expect[w->nexpect++].place = text(x, "place");
	}
	return err;
}

/* The arms of experiment `number` from all parts. */
static int collect(cJSON **part, const char *const *name, size_t n, size_t number_, size_t arms,
		   struct whole *w, struct pd_msg *msg)
{
	w->doc = calloc(arms + 1, sizeof(cJSON *));
	w->arms.arm = calloc(arms + 1, sizeof(*w->arms.arm));
	if (!w->doc || !w->arms.arm)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	w->arms.n = arms;
	for (size_t p = 0; p < n; p++) {
		cJSON *x;

		cJSON_ArrayForEach(x, get(get(part[p], "pdctl"), "arms"))
		{
			const cJSON *o = get(x, "pdctl");
			double at = number(o, "arm"), e = number(o, "experiment");

			if (!(e >= 0) || (size_t)e != number_)
				continue;
			if (!(at >= 0) || at >= (double)arms)
				return pd_fail(msg, PD_EINVAL, "%s: arm %g of %zu", name[p], at,
					       arms);
			if (w->doc[(size_t)at])
				return pd_fail(msg, PD_EINVAL,
					       "%s: arm %zu is in another part, too", name[p],
					       (size_t)at);
			w->doc[(size_t)at] = x;
		}
	}
	for (size_t i = 0; i < arms; i++) {
		if (!w->doc[i])
			return pd_fail(msg, PD_EINVAL,
				       "arm %zu of %zu is in none of the %zu parts: is a shard "
				       "missing?",
				       i, arms, n);
		if (read_arm(w->doc[i], &w->arms.arm[i]))
			return pd_fail(msg, PD_EINVAL, "arm %zu: found no values of repetitions",
				       i);
	}
	return PD_OK;
}

static void move_arms(cJSON **part, size_t n, struct whole *w, cJSON *to)
{
	for (size_t i = 0; i < w->arms.n; i++) {
		for (size_t p = 0; p < n; p++) {
			cJSON *list = cJSON_GetObjectItemCaseSensitive(
				cJSON_GetObjectItemCaseSensitive(part[p], "pdctl"), "arms");
			cJSON *x;

			cJSON_ArrayForEach(x, list)
			{
				if (x != w->doc[i])
					continue;
				(void)cJSON_DetachItemViaPointer(list, x);
				(void)cJSON_AddItemToArray(to, x);
				break;
			}
		}
	}
}

static int finish(cJSON **part, const char *const *name, size_t n, size_t number_, cJSON *whole,
		  cJSON *arms, struct buf *missed, struct buf *verdict, struct pd_msg *msg)
{
	double count = number(whole, "arms");
	struct whole w = {0};
	struct simreport r = {.name = text(whole, "scenario"),
			      .source = text(whole, "source"),
			      .number = number_,
			      .arms = &w.arms,
			      .rules = &w.rules,
			      .expected = &w.expected};
	int err = count >= 1 && count <= 1e6
			  ? PD_OK
			  : pd_fail(msg, PD_EINVAL, "%s: found no number of arms", name[0]);

	if (!err)
		err = read_rules(whole, &w, msg);
	if (!err)
		err = collect(part, name, n, number_, (size_t)count, &w, msg);
	if (!err)
		err = expect_evaluate(w.expect, w.nexpect, &w.arms, &w.expected, msg);
	if (!err)
		err = verdict_make(&w.verdict, &w.arms, &w.rules, msg);
	if (!err) {
		r.expected = w.expected.n ? &w.expected : NULL;
		r.verdict = w.verdict.known ? &w.verdict : NULL;
		move_arms(part, n, &w, arms);
		for (size_t i = 0; i < w.arms.n; i++)
			simreport_arm_judged(&r, i, w.doc[i]);
		simreport_whole_judged(&r, whole);
		if (simreport_missed(&r, missed) ||
		    (r.verdict && buf_append(verdict, w.verdict.text.data, w.verdict.text.len)))
			err = pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	whole_release(&w);
	return err;
}

/* ---- all of them ---- */

static int check_same(cJSON **part, const char *const *name, size_t n, struct pd_msg *msg)
{
	const cJSON *first = get(get(part[0], "pdctl"), "experiments");

	for (size_t p = 0; p < n; p++) {
		if (!parts_is(part[p]))
			return pd_fail(msg, PD_EINVAL,
				       "%s: found no shard, expected what simulate --shard wrote",
				       name[p]);
		if (!cJSON_Compare(first, get(get(part[p], "pdctl"), "experiments"), 1))
			return pd_fail(msg, PD_EINVAL, "%s: found other experiments than in %s",
				       name[p], name[0]);
	}
	return cJSON_GetArraySize(first) > 0
		       ? PD_OK
		       : pd_fail(msg, PD_EINVAL, "%s: found no experiments", name[0]);
}

int parts_merge(struct cJSON **part, const char *const *name, size_t n, struct cJSON **out,
		struct buf *missed, struct buf *verdict, struct pd_msg *msg)
{
	cJSON *doc, *o, *list, *arms, *e;
	size_t number_ = 0;
	int err;

	*out = NULL;
	if (n < 1 || n > PARTS_MAX)
		return pd_fail(msg, PD_EINVAL, "found %zu parts, expected 1 to %d", n, PARTS_MAX);
	err = check_same(part, name, n, msg);
	if (err)
		return err;
	doc = cJSON_CreateObject();
	o = simreport_head(doc);
	list = cJSON_Duplicate(get(get(part[0], "pdctl"), "experiments"), 1);
	arms = cJSON_CreateArray();
	if (!o || !list || !arms) {
		cJSON_Delete(list);
		cJSON_Delete(arms);
		cJSON_Delete(doc);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	(void)cJSON_AddItemToObject(o, "experiments", list);
	(void)cJSON_AddItemToObject(o, "arms", arms);
	cJSON_ArrayForEach(e, list)
	{
		if (!err)
			err = finish(part, name, n, number_++, e, arms, missed, verdict, msg);
	}
	if (err)
		cJSON_Delete(doc);
	else
		*out = doc;
	return err;
}
