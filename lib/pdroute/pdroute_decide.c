/* Workers, policies, pools and decisions. */
#include "lib/pdroute/pdroute_impl.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "lib/route/hash.h"
#include "lib/route/policy/policies.h"

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

void pdroute_worker_set_signal(struct pdroute_worker *w, uint32_t waiting, uint32_t running,
			       uint32_t kv_permille, int64_t at_ns)
{
	route_signal_set(&w->slot.signal, (int32_t)(waiting & INT32_MAX),
			 (int32_t)(running & INT32_MAX), kv_permille / 1000.0, at_ns);
}

/* -- policies -- */

const char *pdroute_policy_at(size_t i)
{
	for (size_t n = 0; route_policies[n]; n++)
		if (n == i)
			return route_policies[n]->name;
	return NULL;
}

static const struct route_policy_type *type_of(const char *name)
{
	return name ? route_policy_find(span_of(name)) : NULL;
}

const char *pdroute_policy_help(const char *name)
{
	const struct route_policy_type *t = type_of(name);

	return t ? t->help : NULL;
}

bool pdroute_policy_parameter(const char *policy, size_t i, struct pdroute_parameter *out)
{
	const struct route_policy_type *t = type_of(policy);
	const struct route_param *p = t ? t->params : NULL;
	struct route_spec spec;
	struct buf text;

	for (; p && p->type && i > 0; i--)
		p++;
	if (!p || !p->type)
		return false;
	*out = (struct pdroute_parameter){.name = p->name, .help = p->help};
	if (p->type == ROUTE_PARAM_CHOICE)
		(void)snprintf(out->range, sizeof(out->range), "%s", p->choices);
	else
		(void)snprintf(out->range, sizeof(out->range), "%.10g..%.10g", p->min, p->max);
	spec = route_spec_of(t);
	buf_init(&text, sizeof(out->initial) - 1);
	if (route_param_print(p, spec.params, &text) == PD_OK)
		memcpy(out->initial, text.data, text.len);
	buf_release(&text);
	return true;
}

/* "name=value", which `before` must not name too. */
static int set_parameter(struct route_spec *spec, const char *text, const char *const *before,
			 size_t n, struct pd_msg *why)
{
	struct span name = {text, strcspn(text, "=")};
	const struct route_param *p = route_param_find(spec->type, name);
	struct pd_msg found = {0};

	if (!p || text[name.n] != '=')
		return pd_fail(why, PD_EINVAL, "policy %s: found '%.80s', expected %s",
			       spec->type->name, text, p ? "NAME=VALUE" : "one of its parameters");
	for (size_t i = 0; i < n; i++)
		if (route_param_find(spec->type,
				     (struct span){before[i], strcspn(before[i], "=")}) == p)
			return pd_fail(why, PD_EINVAL, "policy %s: parameter %s is given twice",
				       spec->type->name, p->name);
	if (route_param_set(p, spec->params, span_of(text + name.n + 1), &found))
		return pd_fail(why, PD_EINVAL, "policy %s: parameter %s: %.300s", spec->type->name,
			       p->name, found.text);
	return PD_OK;
}

static struct route_state *state_of(const struct pdroute_policy *p)
{
	return (struct route_state *)(uintptr_t)p;
}

int pdroute_policy_new(struct pdroute_policy **out, const char *name, const char *const *parameters,
		       size_t n, struct pdroute_message *msg)
{
	struct route_state *state;
	struct pd_msg why = {0};
	struct route_spec spec;
	int err = out && name && (parameters || n == 0) ? route_spec_parse(&spec, name, NULL, &why)
							: PD_EINVAL;

	for (size_t i = 0; i < n && !err; i++)
		err = parameters[i] ? set_parameter(&spec, parameters[i], parameters, i, &why)
				    : PD_EINVAL;
	if (!err)
		err = route_state_new(&state, &spec);
	if (err)
		return pdroute_fail(msg, &why, err);
	*out = (struct pdroute_policy *)state;
	return PD_OK;
}

void pdroute_policy_free(struct pdroute_policy *p)
{
	route_state_unref(state_of(p));
}

const char *pdroute_policy_name(const struct pdroute_policy *p)
{
	return state_of(p)->spec.type->name;
}

bool pdroute_policy_wants_blocks(const struct pdroute_policy *p)
{
	return state_of(p)->spec.type->flags & ROUTE_WANTS_BLOCKS;
}

/* -- pools -- */

static void pool_free(struct pdroute_pool *p)
{
	route_pool_free(p->pool);
	for (size_t i = 0; p->worker && i < p->n; i++)
		pdroute_worker_free(p->worker[i]);
	free(p->worker);
	free(p);
}

int pdroute_pool_new(struct pdroute_pool **out, struct pdroute_policy *policy,
		     struct pdroute_worker *const *workers, size_t n, struct pdroute_message *msg)
{
	struct route_member *member = NULL;
	struct pdroute_pool *p = NULL;
	struct pd_msg why = {0};
	int err = PD_ENOMEM;

	if (!out || !policy || (!workers && n > 0) || n > PDROUTE_WORKERS_MAX)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "pool of %zu workers, expected a policy and 0..%d", n,
					    PDROUTE_WORKERS_MAX));
	p = calloc(1, sizeof(*p));
	member = calloc(n + 1, sizeof(*member));
	if (p)
		p->worker = calloc(n + 1, sizeof(struct pdroute_worker *));
	if (!p || !p->worker || !member)
		goto out;
	p->holders = 1;
	for (; p->n < n; p->n++) {
		if (!workers[p->n]) {
			err = PD_EINVAL;
			goto out;
		}
		hold(&workers[p->n]->holders);
		p->worker[p->n] = workers[p->n];
		member[p->n].name = workers[p->n]->name;
		member[p->n].slot = &workers[p->n]->slot;
	}
	err = route_pool_new(&p->pool, member, n, state_of(policy), &why);
	if (!err)
		*out = p;
out:
	free(member);
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

/* What the decision may know; `tried` has room for the pool's workers. */
static struct route_request ask(const struct pdroute_pool *pool, const struct pdroute_request *r,
				unsigned role, bool *tried)
{
	for (size_t i = 0; tried && r->ntried > 0 && i < pool->n; i++)
		tried[i] = was_tried(r, pool->worker[i]);
	return (struct route_request){
		.key = &r->key,
		.block = r->block,
		.nblocks = r->nblocks,
		.tokens = r->tokens,
		.model = {r->model, r->model_size},
		.body = r->body,
		.header = r->field,
		.nheaders = r->nfields,
		.tried = r->ntried > 0 ? tried : NULL,
		.now_ns = r->now_ns,
		.draw = route_dice(r->seed, role, r->number, r->attempt),
	};
}

static void held(struct pdroute_decision *d, struct pdroute_pool *pool,
		 const struct route_decision *made)
{
	hold(&pool->holders);
	d->pool = pool;
	d->d = *made;
}

int pdroute_decide(struct pdroute_pool *pool, const struct pdroute_request *r,
		   struct pdroute_decision *d)
{
	bool tried[PDROUTE_WORKERS_MAX];
	struct route_decision made;
	struct route_request rq;
	int err;

	if (!pool || !r || !d || d->pool)
		return PD_EINVAL;
	rq = ask(pool, r, 0, tried);
	err = route_decide(pool->pool, &rq, &made);
	if (!err)
		held(d, pool, &made);
	return err;
}

int pdroute_decide_pair(struct pdroute_pool *prefill, struct pdroute_pool *decode,
			const struct pdroute_request *r, struct pdroute_decision *prefill_d,
			struct pdroute_decision *decode_d, struct pdroute_pool **failed)
{
	bool tried[ROUTE_ENDS][PDROUTE_WORKERS_MAX];
	struct pdroute_pool *pool[ROUTE_ENDS] = {
		[ROUTE_PREFILL] = prefill, [ROUTE_DECODE] = decode};
	struct route_pair pair = {.failed = ROUTE_DECODE};
	int err;

	if (!prefill || !decode || !r || !prefill_d || !decode_d || prefill_d == decode_d ||
	    prefill_d->pool || decode_d->pool)
		return PD_EINVAL;
	for (unsigned i = 0; i < ROUTE_ENDS; i++) {
		pair.pool[i] = pool[i]->pool;
		pair.request[i] = ask(pool[i], r, 1 + i, tried[i]);
	}
	err = route_decide_pair(&pair);
	if (err) {
		if (failed)
			*failed = pool[pair.failed];
		return err;
	}
	held(prefill_d, prefill, &pair.decision[ROUTE_PREFILL]);
	held(decode_d, decode, &pair.decision[ROUTE_DECODE]);
	return PD_OK;
}

void pdroute_release(struct pdroute_decision *d, const struct pdroute_request *r)
{
	struct pdroute_pool *pool = d ? d->pool : NULL;
	struct route_request rq;

	if (!pool)
		return;
	d->pool = NULL;
	rq = r ? ask(pool, r, 0, NULL) : (struct route_request){.key = NULL};
	rq.counted = d->d.tokens;
	route_end(pool->pool, d->d.worker, &rq);
	pdroute_pool_free(pool);
}

void pdroute_pool_announce(const struct pdroute_pool *before, const struct pdroute_pool *now,
			   int64_t at_ns)
{
	if (now)
		route_pool_announce(before ? before->pool : NULL, now->pool, at_ns);
}

int pdroute_tell(struct pdroute_pool *pool, enum pdroute_event what, const struct pdroute_worker *w,
		 const struct pdroute_request *r, const uint64_t *block, size_t n, int64_t at_ns)
{
	static const enum route_event_kind kinds[] = {[PDROUTE_STORED] = ROUTE_STORED,
						      [PDROUTE_EVICTED] = ROUTE_EVICTED,
						      [PDROUTE_FINISHED] = ROUTE_FINISHED};
	struct route_event e = {.at_ns = at_ns, .block = block, .nblocks = n};
	struct route_request rq;
	size_t i = 0;

	if (!pool || (unsigned)what > PDROUTE_FINISHED || (what == PDROUTE_FINISHED ? !r : !w) ||
	    (!block && n > 0))
		return PD_EINVAL;
	while (w && i < pool->n && pool->worker[i] != w)
		i++;
	if (w && i == pool->n)
		return PD_ENOENT;
	e.kind = kinds[what];
	e.worker = w ? pool->pool->worker[i].id : 0;
	if (r) {
		rq = ask(pool, r, 0, NULL);
		e.request = &rq;
	}
	route_tell(pool->pool->state, &e);
	return PD_OK;
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
	int err = pool && r && order ? route_order(pool->pool, &r->key, place) : PD_EINVAL;

	for (size_t i = 0; !err && i < pool->n; i++)
		order[i] = place[i];
	return err;
}
