/*
 * A case becomes a configuration of its plugins, a pool of its endpoints with slots that say what
 * the case says, and a decision on them. So the reader of configurations, the labels' facts and the
 * sums are those that the router uses.
 */
#include "lib/epp/cases.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "lib/epp/case_kit.h"
#include "lib/epp/case_steps.h"
#include "lib/route/hash.h"

#define DRAWS 200

/* -- kinds of cases -- */

static int check_loads(struct epp_case *k)
{
	const cJSON *loads = cJSON_GetObjectItem(k->output, "loads");
	struct pd_msg inner = {{0}};
	int err = case_config(k, k->json, &inner);

	if (err && err != PD_EINVAL)
		return err;
	if ((err == PD_OK) == cJSON_IsTrue(loads))
		return PD_OK;
	return pd_fail(k->why, PD_EPROTO, "the parameters are %s, expected the contrary: %.300s",
		       err ? "refused" : "accepted", inner.text);
}

/* A filter, a scorer, or both. */
static int check_stage(struct epp_case *k)
{
	const cJSON *scores = cJSON_GetObjectItem(k->output, "scores");
	const cJSON *kept = cJSON_GetObjectItem(k->output, "kept");
	const cJSON *saturation = cJSON_GetObjectItem(k->output, "saturation");
	int err = case_begin(k, k->json);

	if (err)
		return err;
	if (scores) {
		case_all(k);
		score_sum(&k->run, k->list, k->n, k->sum, k->raw);
		err = case_compare(k, scores, k->raw, "score");
	}
	if (!err && saturation) {
		case_all(k);
		err = case_saturation(k, saturation);
	}
	if (!err && kept) {
		case_all(k);
		k->n = score_filter(&k->run, k->list, k->n, NULL);
		err = case_compare_names(k, kept, k->list, k->n, "kept");
	}
	return err;
}

static int check_decider(struct epp_case *k)
{
	const cJSON *want = cJSON_GetObjectItem(k->output, "disaggregate");
	const struct score_stage *s;
	struct score_match m;
	bool got;
	int err = case_begin(k, k->json);

	if (err)
		return err;
	s = &k->config->plugin[0];
	if (!s->type->split)
		return pd_fail(k->why, PD_EINVAL, "%.60s is no decider", k->plugin);
	m = k->pool->n > 0 ? k->given[0].match : (struct score_match){0};
	got = s->type->split(s->params, k->tokens, k->pool->n > 0 ? &m : NULL);
	if (got == cJSON_IsTrue(want))
		return PD_OK;
	return pd_fail(k->why, PD_EPROTO, "disaggregate: found %s", got ? "true" : "false");
}

/* A whole profile. */
static int check_profile(struct epp_case *k)
{
	const cJSON *error = cJSON_GetObjectItem(k->output, "error"), *raw, *e;
	const cJSON *best = cJSON_GetObjectItem(k->output, "best");
	uint16_t top[ROUTE_WORKERS_MAX];
	size_t ntop = 0, i = 0;
	int err = case_begin(k, k->json);

	if (err)
		return err;
	case_all(k);
	k->n = score_filter(&k->run, k->list, k->n, NULL);
	if (error)
		return k->n == 0 ? PD_OK : pd_fail(k->why, PD_EPROTO, "%zu workers are kept", k->n);
	err = case_compare_names(k, cJSON_GetObjectItem(k->output, "kept"), k->list, k->n, "kept");
	score_sum(&k->run, k->list, k->n, k->sum, k->raw);
	raw = cJSON_GetObjectItem(k->output, "raw");
	cJSON_ArrayForEach(e, raw)
	{
		err = err ? err
			  : case_compare(k, cJSON_GetObjectItem(e, "scores"), k->raw + i * k->n,
					 cJSON_GetStringValue(cJSON_GetObjectItem(e, "type")));
		i++;
	}
	err = err ? err : case_compare(k, cJSON_GetObjectItem(k->output, "scores"), k->sum, "sum");
	/* Exactly those of the highest sum are picked, each some time. */
	for (uint64_t draw = 0; !err && draw < DRAWS; draw++) {
		uint32_t ties;
		size_t at;

		k->rq.draw = route_dice(1, 0, draw, 0);
		at = score_best(&k->run, k->list, k->n, k->sum, &ties);
		for (i = 0; i < ntop && top[i] != k->list[at]; i++)
			continue;
		if (i == ntop)
			top[ntop++] = k->list[at];
	}
	return err ? err : case_compare_set(k, best, top, ntop, "best");
}

/* -- pickers -- */

struct picks {
	unsigned times[ROUTE_WORKERS_MAX];
	size_t count; /* of one pick */
};

static bool is_named(const cJSON *list, const char *name)
{
	const cJSON *e;

	cJSON_ArrayForEach(e, list) if (strcmp(case_text(e), name) == 0) return true;
	return false;
}

static int check_picks(struct epp_case *k, const struct picks *p)
{
	const cJSON *always = cJSON_GetObjectItem(k->output, "always");
	const cJSON *some = cJSON_GetObjectItem(k->output, "sometimes");
	const cJSON *never = cJSON_GetObjectItem(k->output, "never");
	double count = cJSON_GetNumberValue(cJSON_GetObjectItem(k->output, "picked_count"));

	if ((double)p->count != count)
		return pd_fail(k->why, PD_EPROTO, "picked_count: found %zu, expected %g", p->count,
			       count);
	for (uint32_t i = 0; i < k->pool->n; i++) {
		const char *name = k->pool->worker[i].name;
		unsigned n = p->times[i];
		bool ok = true;

		if (is_named(always, name))
			ok = n == DRAWS;
		else if (is_named(some, name))
			ok = n > 0 && n < DRAWS;
		else if (always || is_named(never, name))
			ok = n == 0;
		if (!ok)
			return pd_fail(k->why, PD_EPROTO, "%s: picked %u times of %u", name, n,
				       DRAWS);
	}
	return PD_OK;
}

static int check_picker(struct epp_case *k)
{
	struct picks p = {.count = 0};
	const struct score_stage *s;
	double sum[ROUTE_WORKERS_MAX];
	int err = case_begin(k, k->json);

	if (err)
		return err;
	s = &k->config->plugin[0];
	if (!s->type->count)
		return pd_fail(k->why, PD_EINVAL, "%.60s is no picker", k->plugin);
	case_all(k);
	for (uint64_t draw = 0; draw < DRAWS; draw++) {
		size_t want = s->type->count(s->params), at;
		uint32_t ties;

		k->rq.draw = route_dice(2, 0, draw, 0);
		memcpy(sum, k->sum, k->n * sizeof(*sum));
		for (p.count = 0; p.count < want; p.count++) {
			at = score_best(&k->run, k->list, k->n, sum, &ties);
			if (at == SIZE_MAX)
				break;
			p.times[k->list[at]]++;
			sum[at] = NAN;
		}
	}
	return check_picks(k, &p);
}

/* -- which kind it is -- */

static bool ends_with(const char *text, const char *tail)
{
	size_t n = strlen(text), t = strlen(tail);

	return n >= t && strcmp(text + n - t, tail) == 0;
}

static int check(struct epp_case *k)
{
	const char *plugin = k->plugin;

	if (cJSON_GetObjectItem(k->output, "loads"))
		return check_loads(k);
	if (!k->output && !cJSON_GetObjectItem(k->json, "steps"))
		return pd_fail(k->why, PD_EINVAL, "found no member output or steps");
	if (strcmp(plugin, "core-metrics-extractor") == 0)
		return case_scrapes(k);
	if (cJSON_GetObjectItem(k->output, "response_headers"))
		return case_response(k);
	if (cJSON_GetObjectItem(k->json, "steps"))
		return strcmp(plugin, "no-hit-lru-scorer") == 0 ||
				       strcmp(plugin, "session-affinity-scorer") == 0
			       ? case_memory(k)
			       : case_flight(k);
	if (strcmp(plugin, "profile") == 0)
		return check_profile(k);
	if (ends_with(plugin, "-picker"))
		return check_picker(k);
	if (ends_with(plugin, "-decider"))
		return check_decider(k);
	return check_stage(k);
}

int epp_case_run(const char *line, size_t n, struct pd_msg *why)
{
	struct epp_case *k = calloc(1, sizeof(*k));
	int err = PD_ENOMEM;

	if (k) {
		k->why = why;
		k->json = cJSON_ParseWithLength(line, n);
		k->output = cJSON_GetObjectItem(k->json, "output");
		k->plugin = cJSON_GetStringValue(cJSON_GetObjectItem(k->json, "plugin"));
		err = k->plugin ? check(k)
				: pd_fail(why, PD_EINVAL,
					  "found no member plugin, expected a recorded case");
		case_release(k);
	}
	free(k);
	return err;
}
