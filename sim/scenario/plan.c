/* Names are made per arm, because the number of workers is a dimension and worker identities decide
 * where keys live. */
#include "sim/scenario/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/epp/epp_config.h"

#include "lib/base/opt.h"

static const char *const role_patterns[] = {"worker-{i}", "prefill-{i}", "decode-{i}"};

int plan_policy_parse(const char *text, const struct route_settings *settings,
		      struct route_spec policy[REPLAY_POOLS], struct pd_msg *msg)
{
	struct route_settings with = *settings;
	char copy[ARM_LABEL_MAX];
	char *slash, *at;
	int err;

	if (strlen(text) >= sizeof(copy))
		return pd_fail(msg, PD_EINVAL, "policy '%.40s...' is too long", text);
	memcpy(copy, text, strlen(text) + 1);
	at = strchr(copy, '@');
	slash = strchr(copy, '/');
	if (at) {
		if (slash && slash > at)
			return pd_fail(msg, PD_EINVAL,
				       "policy '%s': expected PREFILL/DECODE@HASH, the hash last",
				       text);
		*at = '\0';
		err = route_settings_put(&with, "ring-hash", at + 1);
		if (err)
			return err;
	}
	if (slash)
		*slash = '\0';
	err = route_spec_parse(&policy[0], copy, &with, msg);
	policy[1] = policy[0];
	if (!err && slash)
		err = route_spec_parse(&policy[1], slash + 1, &with, msg);
	return err;
}

/* Writes `pattern` with {i} replaced; a pattern without {i} gets "-N" at its end. */
static char *worker_name(const char *pattern, size_t number)
{
	const char *hole = strstr(pattern, "{i}");
	char *name = NULL;
	int n;

	if (hole)
		n = asprintf(&name, "%.*s%zu%s", (int)(hole - pattern), pattern, number, hole + 3);
	else
		n = asprintf(&name, "%s-%zu", pattern, number);
	return n < 0 ? NULL : name;
}

static int make_names(struct arm *a, size_t pool, const struct plan_pool *p, size_t n,
		      const char *role)
{
	a->names[pool] = calloc(n + 1, sizeof(char *));
	a->absent[pool] = calloc(n + 1, sizeof(bool));
	if (!a->names[pool] || !a->absent[pool])
		return PD_ENOMEM;
	a->cfg.pool[pool].n = n;
	for (size_t i = 0; i < n; i++) {
		a->names[pool][i] = p->nnames ? strdup(p->names[i])
					      : worker_name(p->pattern ? p->pattern : role, i + 1);
		if (!a->names[pool][i])
			return PD_ENOMEM;
	}
	return PD_OK;
}

/* A name of the pool, or a number from 1. */
static bool find_worker(const struct arm *a, uint32_t pool, const char *text, uint32_t *out)
{
	size_t n = a->cfg.pool[pool].n;
	char *end;
	unsigned long number;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(a->names[pool][i], text) == 0) {
			*out = (uint32_t)i;
			return true;
		}
	}
	number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || number < 1 || number > n)
		return false;
	*out = (uint32_t)number - 1;
	return true;
}

static int resolve_event(struct arm *a, const struct plan_event *from, struct replay_event *to,
			 struct pd_msg *msg)
{
	bool pd = a->cfg.npools == 2;

	*to = from->event;
	if ((from->pool != NULL) != pd)
		return pd_fail(msg, PD_EINVAL,
			       pd ? "an event needs 'pool: prefill' or 'pool: decode' here"
				  : "an event with 'pool' needs prefill and decode pools");
	to->pool = pd && strcmp(from->pool, "decode") == 0;
	if (!find_worker(a, to->pool, from->worker, &to->worker))
		return pd_fail(msg, PD_EINVAL,
			       "event names worker '%s', which is not in the pool: expected a name "
			       "or a number from 1 to %zu",
			       from->worker, a->cfg.pool[to->pool].n);
	return PD_OK;
}

/* A worker whose first event is a join is absent before it. */
static int resolve_events(const struct plan *p, struct arm *a, struct pd_msg *msg)
{
	bool *seen[REPLAY_POOLS] = {NULL, NULL};
	int err = PD_OK;

	a->events = calloc(p->nevents + 1, sizeof(*a->events));
	seen[0] = calloc(a->cfg.pool[0].n + 1, sizeof(bool));
	seen[1] = calloc(a->cfg.pool[1].n + 1, sizeof(bool));
	if (!a->events || !seen[0] || !seen[1])
		err = PD_ENOMEM;
	for (size_t i = 0; !err && i < p->nevents; i++) {
		struct replay_event *e = &a->events[i];

		err = resolve_event(a, &p->events[i], e, msg);
		if (err)
			break;
		if (!seen[e->pool][e->worker] && e->action == REPLAY_JOIN)
			a->absent[e->pool][e->worker] = true;
		seen[e->pool][e->worker] = true;
	}
	free(seen[0]);
	free(seen[1]);
	a->cfg.events = a->events;
	a->cfg.nevents = p->nevents;
	return err;
}

/* Hosts by name: those of `hosts` are "host-1", ... FNV-1a, never 0. */
static uint32_t host_number(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h ? h : 1;
}

static int put_label(struct route_labels *l, const char *text, struct pd_msg *msg)
{
	const char *is = strchr(text, '=');

	if (!is || is == text)
		return pd_fail(msg, PD_EINVAL, "label '%.60s': expected NAME=VALUE", text);
	return route_labels_set(l, (struct span){text, (size_t)(is - text)}, span_of(is + 1));
}

static int fill_node(const struct plan *p, struct arm *a, size_t pool, const struct plan_node *from,
		     struct pd_msg *msg)
{
	struct replay_node *to;
	uint32_t i;
	int err = PD_OK;

	(void)p;
	if (!find_worker(a, (uint32_t)pool, from->worker, &i))
		return pd_fail(
			msg, PD_EINVAL,
			"'each' names worker '%s', which is not in the pool: expected a name "
			"or a number from 1 to %zu",
			from->worker, a->cfg.pool[pool].n);
	to = &a->nodes[pool][i];
	to->engine = from->engine;
	to->cache_blocks = from->has_cache ? from->cache_blocks : to->cache_blocks;
	to->host = from->host ? host_number(from->host) : to->host;
	for (size_t k = 0; !err && k < from->nlabels; k++)
		err = put_label(&to->labels, from->labels[k], msg);
	return err;
}

/* Workers of their own kind, if the pool has any. */
static int fill_nodes(const struct plan *p, struct arm *a, size_t pool,
		      const struct plan_pool *from, struct pd_msg *msg)
{
	size_t n = a->cfg.pool[pool].n;
	char name[32];
	int err = PD_OK;

	if (!from->own_engine && from->neach == 0 && from->hosts == 0)
		return PD_OK;
	a->nodes[pool] = calloc(n + 1, sizeof(*a->nodes[pool]));
	if (!a->nodes[pool])
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < n; i++) {
		struct replay_node *to = &a->nodes[pool][i];

		(void)snprintf(name, sizeof(name), "host-%zu",
			       from->hosts ? i % from->hosts + 1 : 0);
		to->engine = from->own_engine ? from->engine : p->engine;
		to->cache_blocks = a->cache;
		to->host = from->hosts ? host_number(name) : 0;
		if (a->cfg.npools == 2) /* as the fleet labels the workers of its two pools */
			err = route_labels_set(&to->labels, SPAN(ROUTE_LABEL_ROLE),
					       pool == 0 ? SPAN("prefill") : SPAN("decode"));
	}
	for (size_t i = 0; !err && i < from->neach; i++)
		err = fill_node(p, a, pool, &from->each[i], msg);
	a->cfg.pool[pool].node = a->nodes[pool];
	return err;
}

static int fill_config(const struct plan *p, struct arm *a, const char *policy, struct pd_msg *msg)
{
	struct route_spec spec[REPLAY_POOLS];
	int err = plan_policy_parse(policy, &p->settings, spec, msg);

	if (err)
		return err;
	if (a->cfg.npools == 1 && strchr(policy, '/'))
		return pd_fail(msg, PD_EINVAL,
			       "policy '%s' names two pools: expected one policy without "
			       "prefill and decode pools",
			       policy);
	for (size_t i = 0; i < a->cfg.npools; i++) {
		epp_apply(p->epp,
			  a->cfg.npools == 1 ? EPP_PLAIN
			  : i == 0	     ? EPP_PREFILL
					     : EPP_DECODE,
			  &spec[i]);
		a->cfg.pool[i].policy = spec[i];
		a->cfg.pool[i].names = (const char *const *)a->names[i];
		a->cfg.pool[i].absent = a->absent[i];
	}
	a->cfg.seed = a->seed = p->seed;
	a->goals = p->goals;
	a->regret_of = p->regret;
	(void)snprintf(a->point, sizeof(a->point), "%s", p->point ? p->point : "");
	a->cfg.engine = p->engine;
	a->cfg.decider = p->decider;
	if (p->epp && p->decider.kind == ROUTE_DECIDER_always)
		(void)epp_decider(p->epp, &a->cfg.decider);
	a->cfg.prefill_first = p->epp && epp_prefill_first(p->epp);
	a->cfg.transfer_ms = p->transfer_ms;
	a->cfg.transfer_us_token = p->transfer_us_token;
	a->cfg.host_link = p->host_link;
	a->cfg.host_transfer_ms = p->host_transfer_ms;
	a->cfg.host_transfer_us_token = p->host_transfer_us_token;
	a->cfg.routers = p->routers;
	a->cfg.routers_by_session = p->routers_by_session;
	a->cfg.scrape_ns = p->scrape_ns;
	a->cfg.scrape_delay_ns = p->scrape_delay_ns;
	a->cfg.attempts = p->attempts;
	a->cfg.backoff_ns = p->backoff_ns;
	a->cfg.max_concurrency = p->max_concurrency;
	a->cfg.concurrent_sessions = p->concurrent_sessions;
	a->cfg.routing_only = p->routing_only;
	a->cfg.hide_keys = p->hide_keys;
	(void)snprintf(a->policy, sizeof(a->policy), "%s", policy);
	return PD_OK;
}

static int make_arm(const struct plan *p, struct arm *a, const char *policy, size_t count,
		    uint64_t cache, struct pd_msg *msg)
{
	bool pd = p->workers.ncounts == 0;
	int err;

	a->cfg.npools = pd ? 2 : 1;
	a->cache = a->cfg.cache_blocks = cache;
	if (pd) {
		a->workers = p->prefill.counts[0] + p->decode.counts[0];
		err = make_names(a, 0, &p->prefill, p->prefill.counts[0], role_patterns[1]);
		if (!err)
			err = make_names(a, 1, &p->decode, p->decode.counts[0], role_patterns[2]);
	} else {
		a->workers = (uint32_t)count;
		err = make_names(a, 0, &p->workers, count, role_patterns[0]);
	}
	if (!err)
		err = fill_nodes(p, a, 0, pd ? &p->prefill : &p->workers, msg);
	if (!err && pd)
		err = fill_nodes(p, a, 1, &p->decode, msg);
	if (!err)
		err = fill_config(p, a, policy, msg);
	if (!err)
		err = resolve_events(p, a, msg);
	return err;
}

int plan_arms(const struct plan *p, struct arms *out, struct pd_msg *msg)
{
	static const uint64_t unlimited[1] = {0};
	size_t ncounts = p->workers.ncounts ? p->workers.ncounts : 1;
	const uint64_t *caches = p->ncaches ? p->caches : unlimited;
	size_t ncaches = p->ncaches ? p->ncaches : 1;
	size_t total = p->npolicies * ncounts * ncaches;
	int err = PD_OK;

	*out = (struct arms){0};
	if (total == 0 || total > PLAN_ARMS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "%zu policies x %zu worker counts x %zu cache sizes: expected 1 to "
			       "%d combinations",
			       p->npolicies, ncounts, ncaches, PLAN_ARMS_MAX);
	out->arm = calloc(total, sizeof(*out->arm));
	if (!out->arm)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t c = 0; !err && c < ncounts; c++)
		for (size_t m = 0; !err && m < ncaches; m++)
			for (size_t i = 0; !err && i < p->npolicies; i++)
				err = make_arm(p, &out->arm[out->n++], p->policies[i],
					       p->workers.ncounts ? p->workers.counts[c] : 0,
					       caches[m], msg);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory");
	if (err)
		arms_release(out);
	return err;
}
