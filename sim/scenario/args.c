/*
 * Options and scenario files fill the same specification, so an option and its key in a file mean
 * the same.
 */
#include "sim/scenario/args.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/epp/epp_config.h"
#include "lib/json/scan.h"
#include "sim/engine/kvpool.h"
#include "sim/scenario/recommend.h"

#define DECISIONS_MAX ((size_t)4 << 30)

void simulate_args_defaults(struct simulate_args *a)
{
	*a = (struct simulate_args){
		.seed = 1,
		.engine = ENGINE_DEFAULTS,
		.prefill_rate = 0,
		.transfer_ms = 1,
		.transfer_us = 5.24,
		.load = {.speedup = 1, .output_tokens = 128},
	};
}

void simulate_args_release(struct simulate_args *a)
{
	for (size_t i = 0; i < a->npolicy; i++)
		free(a->policy[i]);
	free(a->policy);
	free(a->expect);
	free(a->point);
	free(a->spec);
	epp_config_free(a->epp);
	capture_info_release(&a->capture);
	opt_list_release(&a->policies);
	opt_list_release(&a->names);
	opt_list_release(&a->expects);
}

/* "4,8" into numbers from min to max; *n receives how many. */
static int read_numbers(const char *flag, const char *text, uint64_t min, uint64_t max,
			uint64_t *out, size_t *n, struct pd_msg *msg)
{
	const char *p = text;

	for (*n = 0;; p++) {
		char *end;
		unsigned long long v = *p >= '0' && *p <= '9' ? strtoull(p, &end, 10) : 0;

		if (*p < '0' || *p > '9' || (*end != ',' && *end != '\0') || v < min || v > max ||
		    *n == SIMULATE_LIST_MAX)
			return pd_fail(msg, PD_EINVAL,
				       "--%s '%s': expected at most %d whole numbers from %" PRIu64
				       " to %" PRIu64 ", separated by commas",
				       flag, text, SIMULATE_LIST_MAX, min, max);
		out[(*n)++] = v;
		p = end;
		if (*p == '\0')
			return PD_OK;
	}
}

static int add_policy(struct simulate_args *a, const char *text, size_t n)
{
	char **grown = reallocarray(a->policy, a->npolicy + 1, sizeof(char *));

	if (!grown)
		return PD_ENOMEM;
	a->policy = grown;
	a->policy[a->npolicy] = strndup(text, n);
	return a->policy[a->npolicy++] ? PD_OK : PD_ENOMEM;
}

/* Policies separated by commas; "all" is each of them. */
static int add_words(struct simulate_args *a, const char *word)
{
	int err = PD_OK;

	for (;; word++) {
		size_t n = strcspn(word, ",");

		if (n == 3 && memcmp(word, "all", 3) == 0)
			for (size_t i = 0; !err && route_policies[i]; i++)
				err = add_policy(a, route_policies[i]->name,
						 strlen(route_policies[i]->name));
		else
			err = add_policy(a, word, n);
		word += n;
		if (err || *word == '\0')
			return err;
	}
}

static int add_family(struct simulate_args *a, struct experiment_spec *spec)
{
	const char *const *family = spec->plan.prefill.ncounts > 0 ? recommend_pd : recommend_plain;
	int err = PD_OK;

	if (a->policies.n > 0)
		return PD_OK; /* these are the family, the first one is the base */
	if (a->capture.run == 0 && !a->epp) {
		free(a->policy[1]); /* round_robin comes in its turn */
		a->npolicy = 1;
	}
	for (size_t i = 0; !err && family[i]; i++)
		if (strcmp(family[i], a->policy[0]) != 0)
			err = add_policy(a, family[i], strlen(family[i]));
	return err;
}

static int read_policies(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	const struct capture_info *c = &a->capture;
	struct route_spec policy[REPLAY_POOLS];
	struct pd_msg inner = {0};
	char word[ARM_LABEL_MAX] = "affinity,round_robin";
	int err = PD_OK;

	if (a->epp_config && epp_config_read(&a->epp, a->epp_config, &inner))
		return pd_fail(msg, PD_EINVAL, "--epp-config: %.480s", inner.text);
	spec->plan.epp = a->epp;
	/* By default a capture is replayed with the policy of its router. */
	if (c->run > 0 && a->prefill_count > 0)
		(void)snprintf(word, sizeof(word), "%s/%s", c->policy[CAPTURE_ROLE_PREFILL],
			       c->policy[CAPTURE_ROLE_DECODE]);
	else if (c->run > 0)
		(void)snprintf(word, sizeof(word), "%s", c->policy[CAPTURE_ROLE_REGULAR]);
	if (a->epp)
		(void)snprintf(word, sizeof(word), "scores");
	if (a->policies.n == 0)
		err = add_words(a, word);
	/* What is there now is the first one, and what the others are compared with. */
	if (!err && a->recommend)
		err = add_family(a, spec);
	for (size_t i = 0; !err && i < a->policies.n; i++)
		err = add_words(a, a->policies.items[i]);
	spec->plan.policies = (const char *const *)a->policy;
	spec->plan.npolicies = a->npolicy;
	if (a->recommend && a->npolicy > 0)
		spec->rules.base = a->policy[0];
	for (size_t i = 0; !err && i < a->npolicy; i++)
		if (plan_policy_parse(a->policy[i], &spec->plan.settings, policy, &inner))
			return pd_fail(msg, PD_EINVAL, "--policy: %.480s", inner.text);
	return err;
}

static void captured_pool(struct plan_pool *p, const struct capture_info *c, enum capture_role role,
			  uint32_t *count)
{
	*count = (uint32_t)c->n[role];
	*p = (struct plan_pool){.names = (const char *const *)c->names[role],
				.nnames = c->n[role],
				.counts = count,
				.ncounts = 1};
}

/* The workers that the router had. */
static int captured_pools(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	const struct capture_info *c = &a->capture;

	if (!c->pd) {
		captured_pool(&spec->plan.workers, c, CAPTURE_ROLE_REGULAR, a->counts);
		return PD_OK;
	}
	captured_pool(&spec->plan.prefill, c, CAPTURE_ROLE_PREFILL, &a->prefill_count);
	captured_pool(&spec->plan.decode, c, CAPTURE_ROLE_DECODE, &a->decode_count);
	if (a->prefill_count > 0 && a->decode_count > 0)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "the router of this capture had %u prefill and %u decode workers: expected "
		       "--prefill and --decode, or --workers",
		       a->prefill_count, a->decode_count);
}

/* Unless an option says it. */
static int settle(struct route_settings *s, const char *name, const char *value)
{
	return route_setting(s, name) ? PD_OK : route_settings_put(s, name, value);
}

/* Reads the configuration of the captured router; options override it. */
static int read_capture(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	int err;

	if (!a->workload || !capture_file_is(a->workload))
		return a->capture_run == 0
			       ? PD_OK
			       : pd_fail(msg, PD_EINVAL,
					 "--capture-run: expected a capture of pdctl serve as the "
					 "workload");
	err = capture_info_read(&a->capture, a->workload, a->capture_run, msg);
	if (err)
		return err;
	spec->load.capture_run = a->capture.run;
	(void)snprintf(a->vnodes, sizeof(a->vnodes), "%u", a->capture.vnodes);
	err = settle(&spec->plan.settings, "ring-hash", a->capture.fbi ? "fbi" : "xxh3");
	return err ? err : settle(&spec->plan.settings, "virtual-nodes", a->vnodes);
}

static int read_pools(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	uint64_t counts[SIMULATE_LIST_MAX] = {4};
	size_t n = 1;
	int err = PD_OK;

	if ((a->prefill > 0) != (a->decode > 0))
		return pd_fail(msg, PD_EINVAL, "--%s without --%s: expected both or neither",
			       a->prefill ? "prefill" : "decode",
			       a->prefill ? "decode" : "prefill");
	if (a->what_if && (a->prefill > 0 || a->workers || a->names.n > 0))
		return pd_fail(msg, PD_EINVAL,
			       "--what-if says how many workers there are: expected no --workers, "
			       "--worker-names, --prefill or --decode");
	if (a->nwhat > 0) {
		spec->plan.workers = (struct plan_pool){.counts = a->counts, .ncounts = a->nwhat};
		return PD_OK;
	}
	if (a->npoints > 0) {
		a->prefill = a->point[0].prefill;
		a->decode = a->point[0].decode;
	}
	if ((a->prefill > 0) + (a->workers != NULL) + (a->names.n > 0) > 1)
		return pd_fail(msg, PD_EINVAL,
			       "expected one of --workers, --worker-names, --prefill with "
			       "--decode");
	if (a->capture.run > 0 && a->prefill == 0 && !a->workers && a->names.n == 0)
		return captured_pools(a, spec, msg);
	if (a->prefill > 0) {
		a->prefill_count = (uint32_t)a->prefill;
		a->decode_count = (uint32_t)a->decode;
		spec->plan.prefill = (struct plan_pool){.counts = &a->prefill_count, .ncounts = 1};
		spec->plan.decode = (struct plan_pool){.counts = &a->decode_count, .ncounts = 1};
		return PD_OK;
	}
	if (a->workers)
		err = read_numbers("workers", a->workers, 1, ROUTE_WORKERS_MAX, counts, &n, msg);
	for (size_t i = 1; i < a->names.n; i++)
		for (size_t k = 0; k < i; k++)
			if (strcmp(a->names.items[i], a->names.items[k]) == 0)
				return pd_fail(
					msg, PD_EINVAL,
					"--worker-names: '%.100s' is given twice: expected a "
					"name of its own for each worker",
					a->names.items[i]);
	if (a->names.n > 0)
		counts[0] = a->names.n;
	for (size_t i = 0; i < n; i++)
		a->counts[i] = (uint32_t)counts[i];
	spec->plan.workers = (struct plan_pool){
		.names = a->names.items, .nnames = a->names.n, .counts = a->counts, .ncounts = n};
	return err;
}

static int read_expects(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	size_t column;
	int err = PD_OK;

	a->expect = calloc(a->expects.n + 1, sizeof(*a->expect));
	if (!a->expect)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < a->expects.n; i++) {
		err = expect_parse(&a->expect[i], a->expects.items[i], &column, &inner);
		a->expect[i].place = "--expect";
		if (err)
			return pd_fail(msg, err, "--expect '%.100s', column %zu: %.300s",
				       a->expects.items[i], column, inner.text);
	}
	spec->expect = a->expect;
	spec->nexpect = a->expects.n;
	return PD_OK;
}

static int read_spec(struct simulate_args *a, struct experiment_spec *spec, struct pd_msg *msg)
{
	size_t ncaches = 0;
	struct pd_msg inner = {.text = ""};
	int err = simload_key_check(a->load.key, &inner);

	*spec = (struct experiment_spec){.workload = a->workload};
	if (err)
		return pd_fail(msg, err, "--key: %.400s", inner.text);
	if (a->seqs)
		a->engine.max_num_seqs = (uint32_t)a->seqs;
	if (a->batched)
		a->engine.max_batched_tokens = (uint32_t)a->batched;
	if (a->kv_tokens)
		a->engine.kv_tokens = (uint64_t)a->kv_tokens;
	if (a->prefill_rate > 0)
		a->engine.prefill_us = 1e6 / a->prefill_rate;
	a->load.seed = (uint64_t)a->seed;
	a->load.max_requests = (size_t)a->limit;
	a->load.block_tokens = (uint32_t)a->block_tokens;
	a->load.closed = a->concurrency > 0 || a->concurrent_sessions > 0;
	spec->load = a->load;
	spec->plan = (struct plan){.source = a->workload,
				   .seed = (uint64_t)a->seed,
				   .settings = a->settings,
				   .engine = a->engine,
				   .decider = a->decider,
				   .transfer_ms = a->transfer_ms,
				   .transfer_us_token = a->transfer_us,
				   .max_concurrency = (uint32_t)a->concurrency,
				   .concurrent_sessions = (uint32_t)a->concurrent_sessions,
				   .routing_only = a->routing_only,
				   .hide_keys = a->hide_keys};
	if (a->caches)
		err = read_numbers("cache-blocks", a->caches, 0, KVPOOL_BLOCKS_MAX, a->cache,
				   &ncaches, msg);
	spec->plan.caches = a->cache;
	spec->plan.ncaches = ncaches;
	if (!err)
		err = read_capture(a, spec, msg);
	if (!err)
		err = read_pools(a, spec, msg);
	if (!err)
		err = read_policies(a, spec, msg);
	if (!err)
		err = read_expects(a, spec, msg);
	return err;
}

/* ---- --what-if ---- */

/* "N" or "N..M" at *p. */
static bool read_range(const char **p, uint64_t *from, uint64_t *to)
{
	char *end;

	if (**p < '0' || **p > '9')
		return false;
	*from = *to = strtoull(*p, &end, 10);
	if (end[0] == '.' && end[1] == '.' && end[2] >= '0' && end[2] <= '9')
		*to = strtoull(end + 2, &end, 10);
	*p = end;
	return *from >= 1 && *from <= *to && *to <= ROUTE_WORKERS_MAX;
}

static int wrong_what_if(const struct simulate_args *a, struct pd_msg *msg)
{
	return pd_fail(
		msg, PD_EINVAL,
		"--what-if '%.100s': expected workers=N..M, or prefill=N..M,decode=N..M, with "
		"at most %d combinations",
		a->what_if, SIMULATE_LIST_MAX);
}

/* workers=: a list of counts; prefill= and decode=: points. */
static int read_what_if(struct simulate_args *a, struct pd_msg *msg)
{
	uint64_t p0 = 0, p1 = 0, d0 = 0, d1 = 0;
	const char *p = a->what_if;

	if (strncmp(p, "workers=", 8) == 0) {
		p += 8;
		if (!read_range(&p, &p0, &p1) || *p || p1 - p0 >= SIMULATE_LIST_MAX)
			return wrong_what_if(a, msg);
		a->npoints = 0;
		for (uint64_t n = p0; n <= p1; n++)
			a->counts[n - p0] = (uint32_t)n;
		a->nwhat = (size_t)(p1 - p0) + 1;
		return PD_OK;
	}
	if (strncmp(p, "prefill=", 8) != 0)
		return wrong_what_if(a, msg);
	p += 8;
	if (!read_range(&p, &p0, &p1) || strncmp(p, ",decode=", 8) != 0)
		return wrong_what_if(a, msg);
	p += 8;
	if (!read_range(&p, &d0, &d1) || *p || (p1 - p0 + 1) * (d1 - d0 + 1) > SIMULATE_LIST_MAX)
		return wrong_what_if(a, msg);
	a->point = calloc((size_t)((p1 - p0 + 1) * (d1 - d0 + 1)), sizeof(*a->point));
	if (!a->point)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (uint64_t i = p0; i <= p1; i++)
		for (uint64_t k = d0; k <= d1; k++) {
			struct simulate_point *to = &a->point[a->npoints++];

			*to = (struct simulate_point){.prefill = (uint32_t)i,
						      .decode = (uint32_t)k};
			(void)snprintf(to->label, sizeof(to->label),
				       "prefill.count=%" PRIu64 " decode.count=%" PRIu64, i, k);
		}
	return PD_OK;
}

int simulate_args_spec(struct simulate_args *a, size_t *n, struct pd_msg *msg)
{
	int err = a->what_if ? read_what_if(a, msg) : PD_OK;
	size_t points = a->npoints ? a->npoints : 1;

	if (err)
		return err;
	a->spec = calloc(points, sizeof(*a->spec));
	if (!a->spec)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = read_spec(a, a->spec, msg);
	for (size_t i = 0; !err && i < a->npoints; i++) {
		a->spec[i] = a->spec[0];
		a->spec[i].plan.point = a->point[i].label;
		a->spec[i].plan.prefill =
			(struct plan_pool){.counts = &a->point[i].prefill, .ncounts = 1};
		a->spec[i].plan.decode =
			(struct plan_pool){.counts = &a->point[i].decode, .ncounts = 1};
	}
	*n = points;
	return err;
}
