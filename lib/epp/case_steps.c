#include "lib/epp/case_steps.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "lib/epp/engine_metrics.h"
#include "lib/route/hash.h"
#include "lib/route/score/session_affinity.h"

static const char *text(const cJSON *o, const char *name)
{
	const char *t = cJSON_GetStringValue(cJSON_GetObjectItem(o, name));

	return t ? t : "";
}

/* -- in flight -- */

#define FLIGHTS 512

/* A request's pick for one profile. */
struct flight {
	const char *id;
	uint32_t worker, generation;
	struct route_decision d;
	bool prefill, counted;
};

struct flights {
	struct flight f[FLIGHTS];
	size_t n;
	uint32_t *generation; /* of each worker's slot: it was taken out so often */
	bool *gone;
};

/* As the router does: at the first byte the prompt is computed, and prefill's part has ended. */
static void answered(struct epp_case *k, struct flights *fl, struct flight *f)
{
	if (f->d.tokens_stay)
		return;
	if (f->generation == fl->generation[f->worker] && f->d.tokens > 0)
		route_computed(k->pool, f->worker, f->d.tokens);
	f->d.tokens = 0;
}

static void ended(struct epp_case *k, struct flights *fl, struct flight *f)
{
	f->d.tokens_stay = false;
	answered(k, fl, f);
	if (f->counted && f->generation == fl->generation[f->worker])
		k->slot[f->worker].in_flight--;
	f->counted = false;
}

static int take(struct epp_case *k, struct flights *fl, const cJSON *step, const char *profile)
{
	const cJSON *name = cJSON_GetObjectItem(cJSON_GetObjectItem(step, "picked"), profile);
	struct flight *f = &fl->f[fl->n];
	int64_t cost;

	if (!cJSON_IsString(name))
		return PD_OK;
	if (fl->n == FLIGHTS)
		return pd_fail(k->why, PD_EINVAL, "too many requests");
	*f = (struct flight){.id = text(cJSON_GetObjectItem(step, "request"), "id"),
			     .worker = case_find(k, case_text(name)),
			     .prefill = strcmp(profile, "prefill") == 0,
			     .counted = true};
	if (f->worker == ROUTE_NO_WORKER)
		return pd_fail(k->why, PD_EINVAL, "unknown endpoint '%.60s'", case_text(name));
	f->generation = fl->generation[f->worker];
	cost = score_uncached(&k->run, f->worker);
	f->d.tokens = (uint32_t)(cost > 0 ? cost : 0);
	f->d.tokens_stay = k->run.flight->output;
	k->slot[f->worker].in_flight++;
	k->slot[f->worker].tokens += f->d.tokens;
	fl->n++;
	return PD_OK;
}

/* The scores of a profile before its pick, and which are the best. */
static int check_scores(struct epp_case *k, const cJSON *step, const char *profile)
{
	const cJSON *scores = cJSON_GetObjectItem(cJSON_GetObjectItem(step, "scores"), profile), *e;
	const cJSON *best = cJSON_GetObjectItem(cJSON_GetObjectItem(step, "best"), profile);
	uint16_t top[ROUTE_WORKERS_MAX];
	size_t ntop = 0;
	int err;

	if (!scores)
		return PD_OK;
	k->n = 0;
	cJSON_ArrayForEach(e, scores)
	{
		uint32_t w = case_find(k, case_name(e));

		if (w == ROUTE_NO_WORKER)
			return pd_fail(k->why, PD_EINVAL, "unknown endpoint '%.60s'", case_name(e));
		k->list[k->n++] = (uint16_t)w;
	}
	score_sum(&k->run, k->list, k->n, k->sum, k->raw);
	err = case_compare(k, scores, k->raw, profile);
	for (size_t i = 0; i < k->n; i++) {
		if (ntop > 0 && k->sum[i] > k->sum[top[0]])
			ntop = 0;
		if (ntop == 0 || k->sum[i] == k->sum[top[0]])
			top[ntop++] = (uint16_t)i;
	}
	for (size_t i = 0; i < ntop; i++)
		top[i] = k->list[top[i]];
	return err ? err : case_compare_set(k, best, top, ntop, "best");
}

static int request_step(struct epp_case *k, struct flights *fl, const cJSON *step)
{
	const cJSON *match = cJSON_GetObjectItem(step, "prefix_match");
	const cJSON *uncached = cJSON_GetObjectItem(step, "uncached_tokens"), *e;
	int err = PD_OK;

	case_request(k, cJSON_GetObjectItem(step, "request"));
	for (uint32_t i = 0; i < k->pool->n; i++) {
		cJSON *one = cJSON_CreateObject();
		uint32_t load = k->slot[i].in_flight;
		uint64_t tokens = k->slot[i].tokens;

		e = cJSON_GetObjectItemCaseSensitive(match, k->pool->worker[i].name);
		if (e)
			cJSON_AddItemReferenceToObject(one, "prefix_match", (cJSON *)(uintptr_t)e);
		case_endpoint(k, i, one);
		cJSON_Delete(one);
		k->given[i].uncached = -1; /* from the match */
		k->slot[i].in_flight = k->load[i] = load;
		k->slot[i].tokens = tokens;
	}
	cJSON_ArrayForEach(e, uncached)
	{
		uint32_t w = case_find(k, case_name(e));
		int64_t got = w == ROUTE_NO_WORKER ? -1 : score_uncached(&k->run, w);

		if (!err && (double)got != e->valuedouble)
			err = pd_fail(k->why, PD_EPROTO,
				      "uncached tokens of %s: found %" PRId64 ", expected %g",
				      case_name(e), got, e->valuedouble);
	}
	err = err ? err : check_scores(k, step, "decode");
	err = err ? err : check_scores(k, step, "prefill");
	err = err ? err : take(k, fl, step, "decode");
	return err ? err : take(k, fl, step, "prefill");
}

static int check_after(struct epp_case *k, const cJSON *after)
{
	for (uint32_t i = 0; i < k->pool->n; i++) {
		const cJSON *e = cJSON_GetObjectItemCaseSensitive(after, k->pool->worker[i].name);
		double requests = cJSON_GetNumberValue(cJSON_GetObjectItem(e, "requests"));
		double tokens = cJSON_GetNumberValue(cJSON_GetObjectItem(e, "tokens"));

		requests = e ? requests : 0;
		tokens = e ? tokens : 0;
		if ((double)k->slot[i].in_flight != requests || (double)k->slot[i].tokens != tokens)
			return pd_fail(k->why, PD_EPROTO,
				       "%s: found %u requests and %" PRIu64
				       " tokens in flight, expected %g and %g",
				       k->pool->worker[i].name, (unsigned)k->slot[i].in_flight,
				       (uint64_t)k->slot[i].tokens, requests, tokens);
	}
	return PD_OK;
}

static int flight_step(struct epp_case *k, struct flights *fl, const cJSON *step)
{
	const char *op = text(step, "op"), *id = text(step, "id");
	bool end = strcmp(op, "end") == 0 || strcmp(op, "start_and_end") == 0;
	bool first = end || strcmp(op, "first_chunk") == 0;
	uint32_t w = case_find(k, text(step, "endpoint"));
	int err = PD_OK;

	if (strcmp(op, "request") == 0)
		err = request_step(k, fl, step);
	for (size_t i = 0; first && i < fl->n; i++) {
		struct flight *f = &fl->f[i];

		if (strcmp(f->id, id) != 0)
			continue;
		if (end || f->prefill)
			ended(k, fl, f);
		else
			answered(k, fl, f);
	}
	if (strcmp(op, "endpoint_removed") == 0 && w != ROUTE_NO_WORKER) {
		fl->generation[w]++; /* another slot, as another worker has */
		k->slot[w].in_flight = 0;
		k->slot[w].tokens = 0;
	}
	return err ? err : check_after(k, cJSON_GetObjectItem(step, "after"));
}

int case_flight(struct epp_case *k)
{
	struct flights *fl = calloc(1, sizeof(*fl));
	const cJSON *step;
	int err = case_begin(k, k->json);

	if (fl && !err)
		fl->generation = calloc(k->pool->n + 1, sizeof(*fl->generation));
	if (!fl || (!err && !fl->generation))
		err = PD_ENOMEM;
	cJSON_ArrayForEach(step, cJSON_GetObjectItem(k->json, "steps")) err =
		err ? err : flight_step(k, fl, step);
	if (fl)
		free(fl->generation);
	free(fl);
	return err;
}

/* -- memories -- */

static const char *name_of(const cJSON *e)
{
	return cJSON_IsString(e) ? case_text(e) : text(e, "name");
}

/* All endpoints that some step has. */
static cJSON *everybody(const cJSON *steps)
{
	cJSON *all = cJSON_CreateArray();
	const cJSON *step, *e, *p;

	cJSON_ArrayForEach(step, steps)
		cJSON_ArrayForEach(e, cJSON_GetObjectItem(step, "candidates"))
	{
		bool known = false;

		cJSON_ArrayForEach(p, all) known = known || strcmp(case_text(p), name_of(e)) == 0;
		if (!known)
			cJSON_AddItemToArray(all, cJSON_CreateString(name_of(e)));
	}
	return all;
}

static int memory_step(struct epp_case *k, const cJSON *step)
{
	const cJSON *picked = cJSON_GetObjectItem(step, "picked"), *e;
	bool lru = strcmp(k->plugin, "no-hit-lru-scorer") == 0, cold = true;
	const char *profile = "decode";
	int err;

	if (!lru && score_session_profile(k->config->plugin[0].params))
		profile = score_session_profile(k->config->plugin[0].params);
	case_request(k, cJSON_GetObjectItem(step, "request"));
	k->n = 0;
	cJSON_ArrayForEach(e, cJSON_GetObjectItem(step, "candidates"))
	{
		uint32_t w = case_find(k, name_of(e));

		if (w == ROUTE_NO_WORKER)
			return pd_fail(k->why, PD_EINVAL, "unknown endpoint");
		k->list[k->n++] = (uint16_t)w;
		case_endpoint(k, w, e);
		cold = cold && k->given[w].match.match == 0;
	}
	score_sum(&k->run, k->list, k->n, k->sum, k->raw);
	err = case_compare(k, cJSON_GetObjectItem(step, "scores"), k->raw, "score");
	if (err || !cJSON_IsObject(picked))
		return err;
	e = cJSON_GetObjectItem(picked, profile);
	if (e && case_find(k, case_text(e)) != ROUTE_NO_WORKER)
		score_picked(&k->run, case_find(k, case_text(e)), cold);
	e = lru ? cJSON_GetObjectItem(picked, "prefill") : NULL;
	if (e && case_find(k, case_text(e)) != ROUTE_NO_WORKER)
		score_picked(&k->run, case_find(k, case_text(e)), cold);
	return PD_OK;
}

int case_memory(struct epp_case *k)
{
	const cJSON *steps = cJSON_GetObjectItem(k->json, "steps"), *step;
	cJSON *all = everybody(steps);
	int err = case_config(k, k->json, k->why);

	err = err ? err : case_pool(k, all);
	cJSON_ArrayForEach(step, steps) err = err ? err : memory_step(k, step);
	cJSON_Delete(all);
	return err;
}

int case_response(struct epp_case *k)
{
	const cJSON *want = cJSON_GetObjectItem(k->output, "response_headers");
	const cJSON *picked = cJSON_GetObjectItem(k->output, "picked"), *e;
	const char *header, *profile;
	struct buf token;
	bool same;
	int err = case_config(k, k->json, k->why);

	if (err)
		return err;
	header = score_session_header(k->config->plugin[0].params);
	profile = score_session_profile(k->config->plugin[0].params);
	e = cJSON_GetObjectItem(picked, profile ? profile : "decode");
	buf_init(&token, 4096);
	if (header && e)
		err = score_session_token(case_text(e), &token);
	same = !err && cJSON_GetArraySize(want) == (header && e);
	if (same && header && e)
		same = strcmp(text(want, header), token.data) == 0;
	buf_release(&token);
	return same ? PD_OK
		    : pd_fail(k->why, PD_EPROTO, "the answer's header %.60s is another",
			      header ? header : "(none)");
}

/* -- pages of metrics -- */

static bool same_names(const struct engine_adapters *got, const cJSON *want)
{
	const cJSON *e;
	uint32_t n = 0;

	cJSON_ArrayForEach(e, want)
	{
		uint64_t name = route_hash(ROUTE_HASH_XXH3, case_text(e), strlen(case_text(e)));
		uint32_t i = 0;

		while (i < got->n && got->name[i] != name)
			i++;
		if (i == got->n)
			return false;
		n++;
	}
	return n == got->n;
}

static int scrape_step(struct epp_case *k, struct engine_metrics *m, const cJSON *step)
{
	const cJSON *want = cJSON_GetObjectItem(step, "metrics");
	const char *page = text(step, "text");
	bool complete, refused = cJSON_IsTrue(cJSON_GetObjectItem(step, "parse_error"));
	int err = engine_metrics_read(m, page, strlen(page), &complete);
	const struct {
		const char *name;
		double got;
	} numbers[] = {{"waiting", m->waiting},
		       {"running", m->running},
		       {"kv_usage", m->kv_usage},
		       {"block_size", (double)m->block_size},
		       {"num_blocks", (double)m->num_blocks},
		       {"max_models", m->max_adapters}};

	if ((err == PD_EPROTO) != refused || (err && err != PD_EPROTO))
		return pd_fail(k->why, PD_EPROTO, "the page is %s", err ? "refused" : "accepted");
	if (!refused && complete != cJSON_IsTrue(cJSON_GetObjectItem(step, "complete")))
		return pd_fail(k->why, PD_EPROTO, "the page is %scomplete", complete ? "" : "in");
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		double w = cJSON_GetNumberValue(cJSON_GetObjectItem(want, numbers[i].name));

		if (numbers[i].got != w)
			return pd_fail(k->why, PD_EPROTO, "%s: found %.17g, expected %.17g",
				       numbers[i].name, numbers[i].got, w);
	}
	if (same_names(&m->active, cJSON_GetObjectItem(want, "active_models")) &&
	    same_names(&m->queued, cJSON_GetObjectItem(want, "waiting_models")))
		return PD_OK;
	return pd_fail(k->why, PD_EPROTO, "other adapters");
}

int case_scrapes(struct epp_case *k)
{
	struct engine_metrics m = {0};
	const cJSON *step;
	int err = PD_OK;

	cJSON_ArrayForEach(step, cJSON_GetObjectItem(k->json, "steps")) err =
		err ? err : scrape_step(k, &m, step);
	return err;
}
