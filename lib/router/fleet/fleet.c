/*
 * DESIGN: the life of a snapshot
 *
 *	workers file, POST /workers, a worker that left
 *	      |  (one change at a time: `loading`; names are resolved with nothing else held)
 *	      v
 *	wanted list --> pool_build: workers that stay are the same objects, one more reference each
 *	      |
 *	      v
 *	on_change (the capture) --> published --> fleet_get: a request, a probe, a page
 *	                               |             |  one reference each, until fleet_put
 *	                    the next one is published |
 *	                               v             v
 *	                            fleet_put ... last reference: the snapshot goes, and with it the
 *	                                          workers that no other snapshot has
 *
 * Guaranteed:
 * - A fleet never changes: its holder sees one set of workers with one version, from its
 *   decision to its last byte. What changes is inside the workers (worker.h), by atomics or under
 *   the worker's lock.
 * - fleet_get takes no lock and never waits (lib/base/swap.h); a change waits for those that
 *   are within fleet_get, a few instructions.
 * - A worker that stays (same role, name and URL) keeps its counters, breaker and connections. One
 *   that goes lives until the last stream on it has ended; its idle connections are closed at once
 *   and it pools no others.
 * - A change that fails (a name or URL that is taken, no memory) leaves the fleet as it was. A name
 *   that cannot be resolved fails nothing: its worker is not ready, and health.c asks on.
 * - The capture knows a fleet before the first decision from it.
 *
 * Not guaranteed: that a request sees the newest fleet. It keeps the one that it began with.
 *
 * Every change, of the file or by hand, edits the list of wanted workers and builds the next
 * snapshot from all of it.
 */
#include "lib/router/fleet/fleet.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/route/key/key_extract.h"

/* Names are asked one after the other while a fleet is built; those that are left after this are
 * asked later, at once, by the health thread. */
#define NAMES_PATIENCE (2 * NS_PER_S)

/* -- pools -- */

static struct worker *find_same(struct fleet *old, const struct worker_spec *spec)
{
	struct fleet_pool *p = old ? &old->pool[spec->role] : NULL;

	for (size_t i = 0; p && i < p->n; i++)
		if (strcmp(p->worker[i]->name, spec->name) == 0 &&
		    strcmp(p->worker[i]->url, spec->url) == 0)
			return p->worker[i];
	return NULL;
}

static void pool_release(struct fleet_pool *p)
{
	route_pool_free(p->ring);
	route_pool_free(p->shadow);
	for (size_t i = 0; i < p->n; i++)
		worker_unref(p->worker[i]);
	free(p->worker);
}

/* The state of the pool before goes on when the policy stays: a reload forgets nothing. */
static int build_ring(struct route_pool **out, const struct route_pool *old,
		      const struct route_spec *spec, const struct route_member *member, size_t n,
		      struct pd_msg *msg)
{
	struct route_state *state = NULL;
	int err = PD_OK;

	if (old && route_spec_same(&old->state->spec, spec))
		state = route_state_ref(old->state);
	else
		err = route_state_new(&state, spec);
	err = err ? pd_fail(msg, PD_ENOMEM, "out of memory")
		  : route_pool_new(out, member, n, state, msg);
	route_state_unref(state);
	return err;
}

static int pool_build(struct fleet_pool *p, enum worker_role role, struct fleet_holder *h,
		      const struct router_config *c, const struct fleet_config *fc, int64_t until,
		      struct pd_msg *msg)
{
	struct route_member *member = calloc(fc->workers.n + 1, sizeof(*member));
	struct fleet *old = h->now;
	int err = PD_OK;

	p->n = 0;
	p->worker = calloc(fc->workers.n + 1, sizeof(struct worker *));
	if (!p->worker || !member) {
		free(member);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	for (size_t i = 0; !err && i < fc->workers.n; i++) {
		const struct worker_spec *spec = &fc->workers.spec[i];
		struct worker *w;

		if (spec->role != role)
			continue;
		w = find_same(old, spec);
		if (w) {
			atomic_fetch_add(&w->refs, 1);
			atomic_store(&w->source, (int)spec->source);
		} else {
			err = worker_new(&w, spec, c, &h->waiting[role], clock_now() < until, msg);
		}
		if (err)
			break;
		member[p->n] =
			(struct route_member){w->name, &w->slot, spec->labels, w->at.authority};
		p->worker[p->n++] = w;
	}
	if (!err)
		err = build_ring(&p->ring, old ? old->pool[role].ring : NULL, &fc->policy[role],
				 member, p->n, msg);
	if (!err && c->has_shadow)
		err = build_ring(&p->shadow, old ? old->pool[role].shadow : NULL, &c->shadow[role],
				 member, p->n, msg);
	free(member);
	return err;
}

/* -- snapshots -- */

static void fleet_free(struct fleet *f)
{
	for (int r = 0; r < ROLES; r++)
		pool_release(&f->pool[r]);
	free(f);
}

struct fleet *fleet_get(struct fleet_holder *h)
{
	struct swap_look look = swap_enter(&h->swap);
	struct fleet *f = fleet_ref(h->published[look.place]);

	swap_leave(look);
	return f;
}

struct fleet *fleet_ref(struct fleet *f)
{
	PD_CHECK(atomic_load(&f->refs) > 0);
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void fleet_put(struct fleet *f)
{
	unsigned before = f ? atomic_fetch_sub(&f->refs, 1) : 2;

	PD_CHECK(before > 0);
	if (before == 1)
		fleet_free(f);
}

int fleet_holder_init(struct fleet_holder *h)
{
	int err = PD_OK;

	*h = (struct fleet_holder){0};
	for (int r = 0; !err && r < ROLES; r++) {
		err = waitlist_init(&h->waiting[r]);
		err = err ? err : rotation_init(&h->rotation[r]);
	}
	return err || pthread_mutex_init(&h->loading, NULL) != 0 ? PD_ENOMEM : PD_OK;
}

void fleet_holder_release(struct fleet_holder *h)
{
	worker_list_release(&h->wanted.workers);
	for (int k = 0; k < WORKER_SOURCES; k++)
		worker_list_release(&h->offered[k]);
	for (int r = 0; r < ROLES; r++) {
		rotation_configure(&h->rotation[r], (enum worker_role)r, NULL);
		for (size_t i = 0; h->now && i < h->now->pool[r].n; i++)
			worker_part(h->now->pool[r].worker[i]);
	}
	fleet_put(h->now);
	h->now = NULL;
	for (int r = 0; r < ROLES; r++) {
		rotation_release(&h->rotation[r]);
		waitlist_release(&h->waiting[r]);
	}
	(void)pthread_mutex_destroy(&h->loading);
}

static bool has_worker(const struct fleet_pool *p, const struct worker *w)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->worker[i] == w)
			return true;
	return false;
}

/* Idle connections of workers that are gone are closed now; their streams end in their own time.
 * Returns how many are gone. */
static uint64_t retire(struct log *log, struct fleet *old, struct fleet *fresh)
{
	uint64_t gone = 0;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < old->pool[r].n; i++) {
			struct worker *w = old->pool[r].worker[i];

			if (has_worker(&fresh->pool[r], w))
				continue;
			worker_part(w);
			http_pool_close(&w->pool);
			log_event(
				log, LOG_INFO, "worker_removed",
				LOG_FIELDS(LOG_TEXT("role", worker_role_name(w->role)),
					   LOG_TEXT("worker", w->url),
					   LOG_NUMBER("in_flight", atomic_load(&w->slot.in_flight)),
					   LOG_NUMBER("requests", atomic_load(&w->requests))),
				"%s worker %s: removed; %u in flight, %llu requests",
				worker_role_name(w->role), w->url,
				(unsigned)atomic_load(&w->slot.in_flight),
				(unsigned long long)atomic_load(&w->requests));
			gone++;
		}
	}
	return gone;
}

static void say_policy(struct log *log, enum worker_role r, const struct fleet_pool *old,
		       const struct fleet_pool *fresh)
{
	const char *was = route_pool_policy(old->ring), *now = route_pool_policy(fresh->ring);

	if (strcmp(was, now) != 0)
		log_event(log, LOG_INFO, "policy",
			  LOG_FIELDS(LOG_TEXT("pool", worker_role_name(r)), LOG_TEXT("policy", now),
				     LOG_TEXT("was", was)),
			  "%s pool: policy %s instead of %s", worker_role_name(r), now, was);
}

static void replace(struct fleet_holder *h, struct log *log, struct fleet *old, struct fleet *fresh)
{
	uint64_t gone = retire(log, old, fresh), added = 0;

	for (int r = 0; r < ROLES; r++) {
		say_policy(log, (enum worker_role)r, &old->pool[r], &fresh->pool[r]);
		for (size_t i = 0; i < fresh->pool[r].n; i++) {
			struct worker *w = fresh->pool[r].worker[i];
			enum worker_source from;

			if (has_worker(&old->pool[r], w))
				continue;
			added++;
			from = (enum worker_source)atomic_load(&w->source);
			/* The others have a line of their own. */
			if (from == SOURCE_LISTED || from == SOURCE_REGISTRY || from == SOURCE_DNS)
				log_event(log, LOG_INFO, "worker_added",
					  LOG_FIELDS(LOG_TEXT("role", worker_role_name(w->role)),
						     LOG_TEXT("worker", w->url),
						     LOG_TEXT("source", worker_source_name(from))),
					  "%s worker %s: added", worker_role_name(w->role), w->url);
		}
	}
	if (added == 0 && gone == 0)
		return;
	atomic_store(&h->added, added);
	atomic_store(&h->removed, gone);
	atomic_fetch_add(&h->updates, 1);
}

static int load(struct fleet_holder *h, const struct router_config *c,
		const struct fleet_config *fc, struct pd_msg *msg)
{
	struct fleet *f = calloc(1, sizeof(*f)), *old;
	int64_t until = clock_now() + NAMES_PATIENCE;
	int err = PD_OK;

	if (!f)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	atomic_store(&f->refs, 1);
	for (int r = 0; !err && r < ROLES; r++)
		err = pool_build(&f->pool[r], (enum worker_role)r, h, c, fc, until, msg);
	if (err) {
		fleet_free(f);
		return err;
	}
	f->version = ++h->version;
	if (h->on_change)
		h->on_change(h->ctx, f);
	old = h->now;
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < f->pool[r].n; i++)
			if (!old || !has_worker(&old->pool[r], f->pool[r].worker[i]))
				worker_join(f->pool[r].worker[i], &h->rotation[r]);
		rotation_configure(&h->rotation[r], (enum worker_role)r, c);
	}
	h->now = f;
	h->published[swap_spare(&h->swap)] = f;
	h->published[swap_publish(&h->swap)] = NULL;
	for (int r = 0; r < ROLES; r++) {
		route_pool_announce(old ? old->pool[r].ring : NULL, f->pool[r].ring, clock_now());
		if (f->pool[r].shadow)
			route_pool_announce(old ? old->pool[r].shadow : NULL, f->pool[r].shadow,
					    clock_now());
	}
	for (int r = 0; r < ROLES; r++)
		waitlist_call(&h->waiting[r]);
	if (old)
		replace(h, c->log, old, f);
	fleet_put(old);
	return PD_OK;
}

/* -- changes: with `loading` held -- */

/* The next list replaces the wanted one when a fleet could be built from it. Takes `next` over. */
static int build_and_keep(struct fleet_holder *h, const struct router_config *c,
			  struct fleet_config *next, struct pd_msg *msg)
{
	int err;

	PD_CHECK_LOCKED(&h->loading);
	err = load(h, c, next, msg);
	if (err) {
		worker_list_release(&next->workers);
		return err;
	}
	worker_list_release(&h->wanted.workers);
	h->wanted = *next;
	return PD_OK;
}

static bool same_worker(const struct worker_spec *a, const struct worker_spec *b)
{
	return a->role == b->role && (strcmp(a->name, b->name) == 0 || strcmp(a->url, b->url) == 0);
}

static const struct worker_spec *listed(const struct worker_list *l, const struct worker_spec *s)
{
	for (size_t i = 0; i < l->n; i++)
		if (same_worker(&l->spec[i], s))
			return &l->spec[i];
	return NULL;
}

static struct worker_spec *same_entry(const struct worker_list *l, const struct worker_spec *s)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->spec[i].role == s->role && strcmp(l->spec[i].name, s->name) == 0 &&
		    strcmp(l->spec[i].url, s->url) == 0)
			return &l->spec[i];
	return NULL;
}

static int copy_some(struct worker_list *to, const struct worker_list *from,
		     bool (*keep)(const struct worker_spec *s, void *arg), void *arg)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < from->n; i++)
		if (!keep || keep(&from->spec[i], arg))
			err = worker_list_copy(to, &from->spec[i]);
	return err;
}

static bool not_from_lists(const struct worker_spec *s, void *arg)
{
	return s->source != SOURCE_LISTED && !listed(arg, s);
}

/* What sources have and nobody else has by name or URL: a worker that was listed too, or whose name
 * another one had that has gone now. */
static int append_offers(struct fleet_holder *h, struct worker_list *next)
{
	int err = PD_OK;

	for (int k = 0; k < WORKER_SOURCES; k++)
		for (size_t i = 0; !err && i < h->offered[k].n; i++)
			if (!h->offered[k].spec[i].dismissed &&
			    !listed(next, &h->offered[k].spec[i]))
				err = worker_list_copy(next, &h->offered[k].spec[i]);
	return err;
}

/* A worker of the list stays, even if it was removed by hand and is still leaving. */
static void keep_listed(struct fleet_holder *h, const struct worker_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct worker *w = find_same(h->now, &l->spec[i]);

		if (w)
			worker_stay(w);
	}
}

int fleet_load(struct fleet_holder *h, const struct router_config *c, const struct fleet_config *fc,
	       struct pd_msg *msg)
{
	struct fleet_config next = *fc;
	int err;

	next.workers = (struct worker_list){0};
	(void)pthread_mutex_lock(&h->loading);
	err = copy_some(&next.workers, &fc->workers, NULL, NULL);
	if (!err)
		err = copy_some(&next.workers, &h->wanted.workers, not_from_lists,
				(void *)(uintptr_t)&fc->workers);
	err = err ? err : append_offers(h, &next.workers);
	if (err) {
		worker_list_release(&next.workers);
		(void)pd_fail(msg, err, "out of memory");
	} else {
		err = build_and_keep(h, c, &next, msg);
	}
	if (!err)
		keep_listed(h, &fc->workers);
	(void)pthread_mutex_unlock(&h->loading);
	return err;
}

/* Appends what `text` says to `next`; a name or URL that is taken is refused. */
static int append_new(struct fleet_holder *h, const struct router_config *c, enum worker_role role,
		      const char *text, int bootstrap, const struct route_labels *labels,
		      struct worker_list *next, struct pd_msg *msg)
{
	size_t from = next->n;
	int err = worker_list_add(next, role, text, c->dp_size, msg);

	for (size_t i = from; !err && i < next->n; i++) {
		const struct worker_spec *taken = listed(&h->wanted.workers, &next->spec[i]);

		next->spec[i].source = SOURCE_HAND;
		next->spec[i].bootstrap = bootstrap;
		for (size_t k = 0; !err && labels && k < labels->n; k++)
			err = route_labels_set(&next->spec[i].labels, labels->label[k].name,
					       labels->label[k].value);
		if (err)
			return pd_fail(msg, err, "worker '%.150s': too many labels", text);
		if (taken)
			err = pd_fail(msg, PD_EEXIST,
				      "worker '%.150s' exists: '%.100s' is a %s worker at %.150s",
				      text, taken->name, worker_role_name(taken->role), taken->url);
	}
	return err;
}

int fleet_add(struct fleet_holder *h, const struct router_config *c, enum worker_role role,
	      const char *text, int bootstrap, const struct route_labels *labels,
	      struct pd_msg *msg)
{
	struct fleet_config next;
	int err;

	(void)pthread_mutex_lock(&h->loading);
	next = h->wanted;
	next.workers = (struct worker_list){0};
	err = copy_some(&next.workers, &h->wanted.workers, NULL, NULL);
	if (err)
		(void)pd_fail(msg, err, "out of memory");
	else
		err = append_new(h, c, role, text, bootstrap, labels, &next.workers, msg);
	if (err)
		worker_list_release(&next.workers);
	else
		err = build_and_keep(h, c, &next, msg);
	(void)pthread_mutex_unlock(&h->loading);
	return err;
}

/* The wanted workers, those of the source as `list` has them now; *changed: a fleet must be built.
 * Those that it has no more leave; one that an operator removed leaves although it has it. */
static int merge(struct fleet_holder *h, enum worker_source source, const struct worker_list *list,
		 struct worker_list *next, bool *changed)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < h->wanted.workers.n; i++) {
		const struct worker_spec *was = &h->wanted.workers.spec[i];
		const struct worker_spec *is = same_entry(list, was);
		struct worker *w = find_same(h->now, was);

		if (was->source != source) {
			err = worker_list_copy(next, was);
			continue;
		}
		if (w && !is)
			worker_leave(w, false);
		else if (w && worker_is_leaving(w) && !same_entry(&h->offered[source], was))
			worker_set_draining(w, false);
		err = worker_list_copy(next, is ? is : was);
		*changed |= is && !route_labels_same(&is->labels, &was->labels);
	}
	for (size_t i = 0; !err && i < list->n; i++) {
		if (list->spec[i].dismissed || listed(next, &list->spec[i]))
			continue;
		err = worker_list_copy(next, &list->spec[i]);
		*changed = true;
	}
	return err;
}

/* A copy of the list that remembers what was removed by hand. */
static int copy_offer(struct worker_list *to, const struct worker_list *list,
		      const struct worker_list *before)
{
	int err = copy_some(to, list, NULL, NULL);

	for (size_t i = 0; !err && i < to->n; i++) {
		const struct worker_spec *was = same_entry(before, &to->spec[i]);

		to->spec[i].dismissed = was && was->dismissed;
	}
	return err;
}

int fleet_publish(struct fleet_holder *h, const struct router_config *c, enum worker_source source,
		  const struct worker_list *list, struct pd_msg *msg)
{
	struct worker_list offer = {0};
	struct fleet_config next;
	bool changed = false;
	int err;

	(void)pthread_mutex_lock(&h->loading);
	next = h->wanted;
	next.workers = (struct worker_list){0};
	err = copy_offer(&offer, list, &h->offered[source]);
	err = err ? err : merge(h, source, &offer, &next.workers, &changed);
	if (err) {
		(void)pd_fail(msg, err, "out of memory");
		worker_list_release(&offer);
	} else {
		worker_list_release(&h->offered[source]);
		h->offered[source] = offer;
	}
	if (!err && changed)
		err = build_and_keep(h, c, &next, msg);
	else
		worker_list_release(&next.workers);
	(void)pthread_mutex_unlock(&h->loading);
	return err;
}

struct going {
	const struct worker *worker[ROUTE_WORKERS_MAX];
	size_t n;
};

static bool not_going(const struct worker_spec *s, void *arg)
{
	const struct going *g = arg;

	for (size_t i = 0; i < g->n; i++)
		if (g->worker[i]->role == s->role && strcmp(g->worker[i]->name, s->name) == 0)
			return false;
	return true;
}

/* Those that may go now; returns how many have to stay for a while. */
static size_t list_going(struct fleet_holder *h, struct going *g)
{
	size_t left = 0;

	g->n = 0;
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < h->now->pool[r].n; i++) {
			struct worker *w = h->now->pool[r].worker[i];

			if (!worker_is_leaving(w))
				continue;
			if (g->n < ROUTE_WORKERS_MAX && worker_may_go(w))
				g->worker[g->n++] = w;
			else
				left++;
		}
	}
	return left;
}

/* One that its source still has was removed by hand: it stays out until the source has let it go.
 */
static void dismiss(struct fleet_holder *h, const struct worker *w)
{
	const struct worker_spec who = {.role = w->role, .name = w->name, .url = w->url};
	struct worker_spec *offer = same_entry(&h->offered[atomic_load(&w->source)], &who);

	if (offer)
		offer->dismissed = true;
}

size_t fleet_reap(struct fleet_holder *h, const struct router_config *c, size_t *gone)
{
	struct fleet_config next;
	struct going g;
	size_t left;

	*gone = 0;
	(void)pthread_mutex_lock(&h->loading);
	left = list_going(h, &g);
	if (g.n > 0) {
		for (size_t i = 0; i < g.n; i++)
			dismiss(h, g.worker[i]);
		next = h->wanted;
		next.workers = (struct worker_list){0};
		if (copy_some(&next.workers, &h->wanted.workers, not_going, &g) ||
		    append_offers(h, &next.workers)) {
			worker_list_release(&next.workers);
			left += g.n;
		} else if (build_and_keep(h, c, &next, NULL)) {
			left += g.n;
		} else {
			*gone = g.n;
		}
	}
	(void)pthread_mutex_unlock(&h->loading);
	return left;
}

void fleet_session_finished(struct fleet *f, struct span id, int64_t now)
{
	struct route_key key;
	struct route_request rq = {.key = &key, .now_ns = now};

	route_key_of_text(id, &key);
	for (int r = 0; r < ROLES; r++) {
		const struct route_event e = {.kind = ROUTE_FINISHED, .at_ns = now, .request = &rq};

		route_tell(f->pool[r].ring->state, &e);
		if (f->pool[r].shadow)
			route_tell(f->pool[r].shadow->state, &e);
	}
}

size_t fleet_available(const struct fleet_pool *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += atomic_load(&p->worker[i]->slot.available);
	return n;
}

/* "ID@digits" */
static bool is_rank_of(const char *text, struct span id)
{
	const char *rank = text + id.n;

	if (strlen(text) <= id.n + 1 || memcmp(text, id.p, id.n) != 0 || *rank++ != '@')
		return false;
	return rank[strspn(rank, "0123456789")] == '\0';
}

static bool is_named(const struct worker *w, struct span id, struct span url, bool ranks)
{
	return ranks ? is_rank_of(w->name, id) || is_rank_of(w->url, url)
		     : span_eq(id, span_of(w->name)) || span_eq(url, span_of(w->url));
}

/* An id that is a URL in its one spelling (net_url_text), else the id itself. */
static struct span spelled(struct span id, char text[NET_URL_TEXT])
{
	struct net_url u;

	if (id.n >= NET_URL_TEXT)
		return id;
	memcpy(text, id.p, id.n);
	text[id.n] = '\0';
	if (strlen(text) != id.n || net_url_parse(&u, text, NULL))
		return id;
	net_url_text(&u, text);
	return span_of(text);
}

size_t fleet_match(struct fleet *f, enum worker_role role, struct span id, struct worker **out,
		   size_t cap)
{
	char text[NET_URL_TEXT];
	struct span url = spelled(id, text);
	size_t n = 0;

	for (int ranks = 0; id.n > 0 && n == 0 && ranks < 2; ranks++) {
		for (int r = 0; r < ROLES; r++) {
			const struct fleet_pool *p = &f->pool[r];

			for (size_t i = 0; (role == ROLES || (int)role == r) && i < p->n; i++) {
				if (!is_named(p->worker[i], id, url, ranks > 0))
					continue;
				if (n < cap)
					out[n] = p->worker[i];
				n++;
			}
		}
	}
	return n;
}

const struct route_labels *fleet_labels(const struct fleet *f, const struct worker *w)
{
	const struct fleet_pool *p = &f->pool[w->role];

	for (size_t i = 0; i < p->n; i++)
		if (p->worker[i] == w)
			return &p->ring->worker[i].labels;
	return NULL;
}
