/* Workers, policies, pools, requests and decisions. */
#include "lib/pdroute/pdroute_impl.h"

#ifndef PDROUTE_TABLE

#include <stdlib.h>
#include <string.h>

static void hold(_Atomic unsigned *holders)
{
	atomic_fetch_add_explicit(holders, 1, memory_order_relaxed);
}

/* True for the last one, who sees all that the others did. */
static bool let_go(_Atomic unsigned *holders)
{
	return atomic_fetch_sub_explicit(holders, 1, memory_order_acq_rel) == 1;
}

/* -- workers -- */

int pdroute_worker_new(struct pdroute_worker **out, const char *name, struct pdroute_message *msg)
{
	struct pdroute_worker *w;
	size_t n = name ? strnlen(name, PDROUTE_NAME_MAX + 1) : 0;
	struct pd_msg why = {0};

	if (!out || n == 0 || n > PDROUTE_NAME_MAX)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "name of a worker: found %s, expected 1 to %d bytes",
					    n > 0 ? "more" : "nothing", PDROUTE_NAME_MAX));
	w = aligned_alloc(_Alignof(struct pdroute_worker), sizeof(*w));
	if (w)
		*w = (struct pdroute_worker){.holders = 1, .name = strdup(name)};
	if (!w || !w->name) {
		free(w);
		return pdroute_fail(msg, &why, PD_ENOMEM);
	}
	atomic_store(&w->slot.available, true);
	*out = w;
	return PD_OK;
}

void pdroute_worker_free(struct pdroute_worker *w)
{
	if (!w || !let_go(&w->holders))
		return;
	free(w->name);
	free(w);
}

const char *pdroute_worker_name(const struct pdroute_worker *w)
{
	return w->name;
}

void pdroute_worker_set_available(struct pdroute_worker *w, bool available)
{
	atomic_store_explicit(&w->slot.available, available, memory_order_release);
}

bool pdroute_worker_available(const struct pdroute_worker *w)
{
	return atomic_load_explicit(&w->slot.available, memory_order_acquire);
}

void pdroute_worker_set_cap(struct pdroute_worker *w, uint32_t cap)
{
	atomic_store_explicit(&w->slot.cap, cap, memory_order_relaxed);
}

uint32_t pdroute_worker_cap(const struct pdroute_worker *w)
{
	return atomic_load_explicit(&w->slot.cap, memory_order_relaxed);
}

void pdroute_worker_set_trials(struct pdroute_worker *w, uint32_t trials)
{
	atomic_store_explicit(&w->slot.permits, trials, memory_order_relaxed);
}

uint32_t pdroute_worker_trials(const struct pdroute_worker *w)
{
	return atomic_load_explicit(&w->slot.permits, memory_order_relaxed);
}

uint32_t pdroute_worker_in_flight(const struct pdroute_worker *w)
{
	return atomic_load_explicit(&w->slot.in_flight, memory_order_relaxed);
}

uint64_t pdroute_worker_picks(const struct pdroute_worker *w)
{
	return atomic_load_explicit(&w->slot.picks, memory_order_relaxed);
}

/* -- policies -- */

static const char *const policy_names[ROUTE_POLICIES + 1] = {
	"consistent_hash", "rendezvous_hash", "round_robin", "random",
	"power_of_two",	   "least_request",   NULL};
static const char *const policy_help[ROUTE_POLICIES] = {
	"the first worker on a hash ring from the key's place on",
	"the worker with the highest hash of key and name",
	"one after the other",
	"any, with equal chances",
	"the less loaded of two random ones",
	"the one with the fewest requests in flight; ties take turns",
};
static const struct pdroute_parameter ring_parameters[] = {
	{"virtual-nodes", "places of each worker on the ring", "1..65536", "160"},
	{"ring-hash", "hash of keys and places; fbi: vllm-router's", "xxh3|fbi", "xxh3"},
};

const char *pdroute_policy_at(size_t i)
{
	return i < ROUTE_POLICIES ? policy_names[i] : NULL;
}

const char *pdroute_policy_help(const char *name)
{
	enum route_policy_kind k;

	return name && route_policy_parse(name, &k, NULL) == PD_OK ? policy_help[k] : NULL;
}

bool pdroute_policy_parameter(const char *policy, size_t i, struct pdroute_parameter *out)
{
	if (!policy || strcmp(policy, policy_names[ROUTE_CONSISTENT_HASH]) != 0 || i >= 2)
		return false;
	*out = ring_parameters[i];
	return true;
}

static int set_parameter(struct pdroute_policy *p, const char *text, struct pd_msg *why)
{
	bool ring = p->policy.kind == ROUTE_CONSISTENT_HASH;
	char *end;

	if (ring && strncmp(text, "virtual-nodes=", 14) == 0) {
		unsigned long n = strtoul(text + 14, &end, 10);

		if (end == text + 14 || *end || n < 1 || n > ROUTE_VNODES_MAX)
			return pd_fail(why, PD_EINVAL, "%.80s: expected 1..%d", text,
				       ROUTE_VNODES_MAX);
		p->vnodes = (unsigned)n;
		return PD_OK;
	}
	if (ring && (strcmp(text, "ring-hash=xxh3") == 0 || strcmp(text, "ring-hash=fbi") == 0)) {
		p->hash = text[10] == 'x' ? ROUTE_HASH_XXH3 : ROUTE_HASH_FBI;
		return PD_OK;
	}
	return pd_fail(why, PD_EINVAL, "%s: no parameter '%.80s'",
		       route_policy_name(p->policy.kind), text);
}

int pdroute_policy_new(struct pdroute_policy **out, const char *name, const char *const *parameters,
		       size_t n, struct pdroute_message *msg)
{
	struct pdroute_policy *p;
	enum route_policy_kind kind;
	struct pd_msg why = {0};
	int err = out && name && (parameters || n == 0) ? route_policy_parse(name, &kind, &why)
							: PD_EINVAL;

	if (err)
		return pdroute_fail(msg, &why, err);
	p = calloc(1, sizeof(*p));
	if (!p)
		return pdroute_fail(msg, &why, PD_ENOMEM);
	p->holders = 1;
	p->vnodes = ROUTE_VNODES;
	route_policy_init(&p->policy, kind);
	for (size_t i = 0; i < n && !err; i++) {
		for (size_t k = 0; k < i && !err; k++)
			if (strcspn(parameters[i], "=") == strcspn(parameters[k], "=") &&
			    strncmp(parameters[i], parameters[k], strcspn(parameters[i], "=")) == 0)
				err = pd_fail(&why, PD_EINVAL, "%.80s: given twice", parameters[i]);
		if (!err)
			err = set_parameter(p, parameters[i], &why);
	}
	if (err) {
		free(p);
		return pdroute_fail(msg, &why, err);
	}
	*out = p;
	return PD_OK;
}

void pdroute_policy_free(struct pdroute_policy *p)
{
	if (p && let_go(&p->holders))
		free(p);
}

const char *pdroute_policy_name(const struct pdroute_policy *p)
{
	return route_policy_name(p->policy.kind);
}

/* -- pools -- */

static void pool_free(struct pdroute_pool *p)
{
	route_pool_free(p->pool);
	for (size_t i = 0; p->worker && i < p->n; i++)
		pdroute_worker_free(p->worker[i]);
	pdroute_policy_free(p->policy);
	free(p->worker);
	free(p);
}

int pdroute_pool_new(struct pdroute_pool **out, struct pdroute_policy *policy,
		     struct pdroute_worker *const *workers, size_t n, struct pdroute_message *msg)
{
	const char **names = NULL;
	struct route_slot **slots = NULL;
	struct pdroute_pool *p = NULL;
	struct pd_msg why = {0};
	int err = PD_ENOMEM;

	if (!out || !policy || (!workers && n > 0) || n > PDROUTE_WORKERS_MAX)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "pool of %zu workers, expected a policy and 0..%d", n,
					    PDROUTE_WORKERS_MAX));
	p = calloc(1, sizeof(*p));
	names = calloc(n + 1, sizeof(*names));
	slots = calloc(n + 1, sizeof(struct route_slot *));
	if (p)
		p->worker = calloc(n + 1, sizeof(struct pdroute_worker *));
	if (!p || !p->worker || !names || !slots)
		goto out;
	p->holders = 1;
	p->policy = policy;
	hold(&policy->holders);
	for (; p->n < n; p->n++) {
		if (!workers[p->n]) {
			err = PD_EINVAL;
			goto out;
		}
		hold(&workers[p->n]->holders);
		p->worker[p->n] = workers[p->n];
		names[p->n] = workers[p->n]->name;
		slots[p->n] = &workers[p->n]->slot;
	}
	err = route_pool_new(&p->pool, names, slots, n, policy->hash, policy->vnodes, &why);
	if (!err)
		*out = p;
out:
	free(names);
	free(slots);
	if (!err)
		return PD_OK;
	if (p)
		pool_free(p);
	return pdroute_fail(msg, &why, err);
}

void pdroute_pool_free(struct pdroute_pool *p)
{
	if (p && let_go(&p->holders))
		pool_free(p);
}

size_t pdroute_pool_size(const struct pdroute_pool *p)
{
	return p->n;
}

struct pdroute_worker *pdroute_pool_worker(const struct pdroute_pool *p, size_t i)
{
	return i < p->n ? p->worker[i] : NULL;
}

/* -- decisions -- */

int pdroute_decision_new(struct pdroute_decision **out)
{
	struct pdroute_decision *d = out ? calloc(1, sizeof(*d)) : NULL;

	if (!d)
		return out ? PD_ENOMEM : PD_EINVAL;
	*out = d;
	return PD_OK;
}

void pdroute_decision_free(struct pdroute_decision *d)
{
	pdroute_release(d, NULL);
	free(d);
}

static bool was_tried(const struct pdroute_request *r, const struct pdroute_worker *w)
{
	for (size_t i = 0; i < r->ntried; i++)
		if (r->tried[i] == w)
			return true;
	return false;
}

static int decide(struct pdroute_pool *pool, const struct pdroute_request *r,
		  struct pdroute_decision *d, const char *role)
{
	bool tried[PDROUTE_WORKERS_MAX];
	struct rng rng;
	struct route_input in = {.key = &r->key, .rng = &rng};
	int err;

	for (size_t i = 0; r->ntried > 0 && i < pool->n; i++)
		tried[i] = was_tried(r, pool->worker[i]);
	in.tried = r->ntried > 0 ? tried : NULL;
	rng_seed(&rng, r->seed ^ r->number << 20 ^ r->attempt ^ (uint64_t)role[0] << 56);
	err = route_decide(&pool->policy->policy, pool->pool, &in, &d->d);
	if (err)
		return err;
	hold(&pool->holders);
	d->pool = pool;
	return PD_OK;
}

int pdroute_decide(struct pdroute_pool *pool, const struct pdroute_request *r,
		   struct pdroute_decision *d)
{
	return pool && r && d && !d->pool ? decide(pool, r, d, "regular") : PD_EINVAL;
}

int pdroute_decide_pair(struct pdroute_pool *prefill, struct pdroute_pool *decode,
			const struct pdroute_request *r, struct pdroute_decision *prefill_d,
			struct pdroute_decision *decode_d, struct pdroute_pool **failed)
{
	int err;

	if (!prefill || !decode || !r || !prefill_d || !decode_d || prefill_d == decode_d ||
	    prefill_d->pool || decode_d->pool)
		return PD_EINVAL;
	err = decide(decode, r, decode_d, "decode");
	if (err) {
		if (failed)
			*failed = decode;
		return err;
	}
	err = decide(prefill, r, prefill_d, "prefill");
	if (err) {
		pdroute_release(decode_d, NULL);
		if (failed)
			*failed = prefill;
	}
	return err;
}

void pdroute_release(struct pdroute_decision *d, const struct pdroute_request *r)
{
	struct pdroute_pool *pool = d ? d->pool : NULL;

	(void)r;
	if (!pool)
		return;
	d->pool = NULL;
	route_release(&pool->worker[d->d.worker]->slot);
	pdroute_pool_free(pool);
}

struct pdroute_worker *pdroute_decision_worker(const struct pdroute_decision *d)
{
	return d->pool ? d->pool->worker[d->d.worker] : NULL;
}

size_t pdroute_decision_index(const struct pdroute_decision *d)
{
	return d->pool ? d->d.worker : 0;
}

struct pdroute_worker *pdroute_decision_home(const struct pdroute_decision *d)
{
	return d->pool ? d->pool->worker[d->d.home] : NULL;
}

const char *pdroute_decision_reason(const struct pdroute_decision *d)
{
	return d->pool ? route_reason_name(d->d.reason) : NULL;
}

double pdroute_decision_score(const struct pdroute_decision *d)
{
	return d->pool ? d->d.score : 0;
}

double pdroute_decision_margin(const struct pdroute_decision *d)
{
	return d->pool ? d->d.margin : 0;
}

uint32_t pdroute_decision_ties(const struct pdroute_decision *d)
{
	return d->pool ? d->d.ties : 0;
}

bool pdroute_decision_trial(const struct pdroute_decision *d)
{
	return d->pool && d->d.trial;
}

struct pdroute_worker *pdroute_decision_candidate(const struct pdroute_decision *d, size_t i,
						  double *score)
{
	if (!d->pool || i >= d->d.ncandidates)
		return NULL;
	if (score)
		*score = d->d.candidate[i].score;
	return d->pool->worker[d->d.candidate[i].worker];
}

int pdroute_order(struct pdroute_pool *pool, const struct pdroute_request *r, size_t *order)
{
	uint32_t place[PDROUTE_WORKERS_MAX];
	int err = pool && r && order
			  ? route_order(&pool->policy->policy, pool->pool, &r->key, place)
			  : PD_EINVAL;

	for (size_t i = 0; !err && i < pool->n; i++)
		order[i] = place[i];
	return err;
}

void pdroute_worker_set_signal(struct pdroute_worker *w, uint32_t waiting, uint32_t running,
			       uint32_t kv_permille, int64_t at_ns)
{
	(void)w, (void)waiting, (void)running, (void)kv_permille, (void)at_ns;
}

void pdroute_pool_announce(const struct pdroute_pool *before, const struct pdroute_pool *now,
			   int64_t at_ns)
{
	(void)before, (void)now, (void)at_ns;
}

int pdroute_tell(struct pdroute_pool *pool, enum pdroute_event what, const struct pdroute_worker *w,
		 const struct pdroute_request *r, const uint64_t *block, size_t n, int64_t at_ns)
{
	(void)what, (void)w, (void)r, (void)block, (void)n, (void)at_ns;
	return pool ? PD_OK : PD_EINVAL;
}

size_t pdroute_blocks(uint64_t parent, const void *p, size_t size, size_t block, uint64_t *out,
		      size_t max)
{
	(void)parent, (void)p, (void)size, (void)block, (void)out, (void)max;
	return 0;
}
#endif
