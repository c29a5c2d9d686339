/*
 * State of a role: one slot per worker name, one memory of the policy, a pool per fleet. Events are
 * taken by number. `open` are the events with company that have begun and were not taken yet: each
 * may also come before its number, if that explains a decision.
 */
#include "sim/replay/exact.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/route/prefix.h"

/* What a request holds in a role. */
struct hold {
	uint32_t fleet, worker, tokens;
	bool held, stay;
};

struct role {
	struct route_slot *slot; /* owned; one per name */
	const char **name;
	size_t nslots;
	struct route_pool **pool; /* owned; one per fleet */
	uint32_t **place;	  /* owned; per fleet: slot of each worker */
	struct route_pool *now;
	char policy[ROUTE_SPEC_MAX];
	struct route_state *state;
};

enum fit { DIFFERS, FITS, FITS_AS_SEEN /* with the score and ties that the router saw */ };

/* A ranking that was tried. */
struct found {
	enum fit fit;
	struct route_decision d;
	_Alignas(max_align_t) unsigned char walk[ROUTE_WALK_MAX];
};

struct exact {
	const struct capture_log *log;
	const struct exact_options *opt;
	struct exact_result *out;
	struct role role[CAPTURE_ROLES];
	struct hold *hold; /* owned; per call and role */
	bool *done;	   /* owned; per event: taken */
	uint32_t *partner; /* owned; per event: the other pick of its attempt, or none */
	uint32_t *company; /* owned; events whose span holds others, by `began` */
	size_t ncompany, next;
	uint32_t *open;	     /* owned */
	struct found **kept; /* owned; per place in open: the best ranking since it began */
	size_t nopen;
	struct found *now, *best; /* owned; scratch */
	bool tried[ROUTE_WORKERS_MAX], barred[ROUTE_WORKERS_MAX];
};

#define NO_EVENT  UINT32_MAX
#define TURNS_MAX 256
#define SETS_MAX  8

/* ---- pools ---- */

static uint32_t slot_of(struct role *r, const char *name)
{
	for (size_t i = 0; i < r->nslots; i++)
		if (strcmp(r->name[i], name) == 0)
			return (uint32_t)i;
	r->name[r->nslots] = name;
	return (uint32_t)r->nslots++;
}

/* The slots first: pools point to them, so that their array must not move. */
static int make_slots(struct exact *x, int k)
{
	struct role *r = &x->role[k];
	size_t all = 0;
	int err = PD_OK;

	for (size_t f = 0; f < x->log->nfleets; f++)
		all += x->log->fleet[f].n[k];
	r->name = calloc(all + 1, sizeof(*r->name));
	r->place = calloc(x->log->nfleets + 1, sizeof(*r->place));
	r->pool = calloc(x->log->nfleets + 1, sizeof(struct route_pool *));
	if (!r->name || !r->place || !r->pool)
		return PD_ENOMEM;
	for (size_t f = 0; !err && f < x->log->nfleets; f++) {
		const struct capture_fleet_row *row = &x->log->fleet[f];

		r->place[f] = calloc(row->n[k] + 1, sizeof(**r->place));
		err = r->place[f] ? PD_OK : PD_ENOMEM;
		for (size_t w = 0; !err && w < row->n[k]; w++)
			r->place[f][w] = slot_of(r, row->peer[k][w].name);
	}
	r->slot = calloc(r->nslots + 1, sizeof(*r->slot));
	return err ? err : r->slot ? PD_OK : PD_ENOMEM;
}

/* A policy keeps its memory as long as its text stays the same, as in a reload. */
static int take_policy(struct exact *x, int k, size_t f, struct pd_msg *msg)
{
	const struct route_spec *given = x->opt->policy[k];
	const char *text = given ? given->type->name : x->log->fleet[f].policy[k];
	struct role *r = &x->role[k];
	struct route_spec spec;
	int err;

	if (r->state && (given || strcmp(r->policy, text) == 0))
		return PD_OK;
	route_state_unref(r->state);
	r->state = NULL;
	if (given)
		spec = *given;
	else if ((err = route_spec_parse(&spec, text, x->opt->settings, msg)) != PD_OK)
		return err;
	memcpy(r->policy, text, strlen(text) + 1);
	return route_state_new(&r->state, &spec);
}

static int make_pool(struct exact *x, int k, size_t f, struct pd_msg *msg)
{
	const struct capture_fleet_row *row = &x->log->fleet[f];
	struct role *r = &x->role[k];
	struct route_member *m = calloc(row->n[k] + 1, sizeof(*m));
	char weight[16];
	int err = m ? take_policy(x, k, f, msg) : PD_ENOMEM;

	for (size_t w = 0; !err && w < row->n[k]; w++) {
		m[w].name = row->peer[k][w].name;
		m[w].slot = &r->slot[r->place[f][w]];
		m[w].slot->cap = row->peer[k][w].cap;
		if (k != CAPTURE_ROLE_REGULAR)
			err = route_labels_set(&m[w].labels, SPAN(ROUTE_LABEL_ROLE),
					       k == CAPTURE_ROLE_PREFILL ? SPAN("prefill")
									 : SPAN("decode"));
		(void)snprintf(weight, sizeof(weight), "%u", row->peer[k][w].weight);
		if (!err && row->peer[k][w].weight != 1)
			err = route_labels_set(&m[w].labels, SPAN(ROUTE_LABEL_WEIGHT),
					       span_of(weight));
	}
	if (!err)
		err = route_pool_new(&r->pool[f], m, row->n[k], r->state, msg);
	for (size_t w = 0; m && w < row->n[k]; w++)
		route_labels_release(&m[w].labels);
	free(m);
	return err;
}

/* The pool of this fleet; what the policy hears when it takes the place of another. */
static struct route_pool *pool_of(struct exact *x, const struct capture_event *e)
{
	struct role *r = &x->role[e->role];
	struct route_pool *p = r->pool[e->fleet];

	if (p != r->now && (!r->now || e->what == CAPTURE_PICKED)) {
		route_pool_announce(r->now, p, e->at_ns + 1);
		r->now = p;
	}
	return p;
}

/* ---- decisions ---- */

static bool bit(const struct exact *x, size_t at, size_t i, bool without)
{
	return at == CAPTURE_NONE ? without : x->log->word[at + i / 64] >> i % 64 & 1;
}

/* The workers as the decision found them. */
static void set_workers(struct exact *x, const struct capture_event *e, struct route_pool *p)
{
	for (size_t i = 0; i < p->n; i++) {
		p->worker[i].slot->available = i == e->worker || bit(x, e->usable, i, true);
		x->tried[i] = i != e->worker && bit(x, e->tried, i, false);
		x->barred[i] = i != e->worker && e->tried != CAPTURE_NONE &&
			       bit(x, e->tried + (p->n + 63) / 64, i, false);
	}
}

/* Were there workers that do not serve the request's model? */
static bool some_barred(const struct exact *x, const struct capture_event *e)
{
	size_t words = (x->role[e->role].pool[e->fleet]->n + 63) / 64;
	uint64_t any = 0;

	for (size_t i = 0; e->what == CAPTURE_PICKED && e->tried != CAPTURE_NONE && i < words; i++)
		any |= x->log->word[e->tried + words + i];
	return any != 0;
}

static void key_of(const struct exact *x, const struct capture_call *c, struct route_key *key)
{
	const char *text = x->log->text.data + c->key, *source = x->log->text.data + c->source;
	size_t n = strlen(text), m = strlen(source);

	key->level = (enum route_key_level)c->level;
	key->len = n < ROUTE_KEY_MAX ? n : ROUTE_KEY_MAX;
	memcpy(key->text, text, key->len);
	key->text[key->len] = '\0';
	m = m < sizeof(key->source) ? m : sizeof(key->source) - 1;
	memcpy(key->source, source, m);
	key->source[m] = '\0';
}

static struct route_request request_of(struct exact *x, uint32_t i, struct route_key *key)
{
	const struct capture_event *e = &x->log->event[i];
	const struct capture_call *c = &x->log->call[e->call];
	const struct capture_event *other =
		x->partner[i] == NO_EVENT ? NULL : &x->log->event[x->partner[i]];
	bool partner = other && (e->role == CAPTURE_ROLE_PREFILL ||
				 (x->role[e->role].state->spec.type->flags & ROUTE_WANTS_PARTNER));

	key_of(x, c, key);
	return (struct route_request){
		.key = key,
		.block = c->nblocks ? x->log->word + c->block : NULL,
		.nblocks = c->nblocks < ROUTE_BLOCKS_MAX ? c->nblocks : ROUTE_BLOCKS_MAX,
		.tokens = c->tokens,
		.output_tokens = c->output_tokens,
		.partner = partner ? &x->role[other->role].pool[other->fleet]->worker[other->worker]
				   : NULL,
		.model = span_of(x->log->text.data + c->model),
		.tried = x->tried,
		.barred = some_barred(x, e) ? x->barred : NULL,
		.now_ns = e->at_ns + 1,
		.draw = e->draw,
	};
}

/* Whom would it be? Nothing changes. False: nobody. */
static bool whom(struct exact *x, uint32_t i, struct found *f)
{
	const struct capture_event *e = &x->log->event[i];
	struct route_pool *p = pool_of(x, e);
	struct route_key key;
	struct route_request rq = request_of(x, i, &key);

	set_workers(x, e, p);
	rq.dry = true;
	rq.walk = f->walk;
	return route_decide(p, &rq, &f->d) == PD_OK;
}

/* Asks with each turn that it can have had. *best becomes the last of the rankings that fit best,
 * if one fits. */
static void ask(struct exact *x, uint32_t i, struct found **best)
{
	const struct capture_event *e = &x->log->event[i];
	uint32_t turns = e->turns < TURNS_MAX ? e->turns : TURNS_MAX;
	struct route_state *s = x->role[e->role].state;

	s->turn = e->turn;
	do {
		struct found *now = x->now;

		if (!whom(x, i, now) || now->d.worker != e->worker)
			continue;
		now->fit = now->d.score == e->score && now->d.ties == e->ties ? FITS_AS_SEEN : FITS;
		if (now->fit < (*best)->fit)
			continue;
		x->now = *best;
		*best = now;
		if (now->fit == FITS_AS_SEEN)
			return;
	} while (++s->turn < e->turn + turns);
}

/* The same with the loads that it found. */
static void ask_as_seen(struct exact *x, uint32_t i, struct found **best)
{
	const struct capture_event *e = &x->log->event[i];
	struct route_pool *p = pool_of(x, e);
	uint32_t now[ROUTE_WORKERS_MAX];

	if (e->in_flight == CAPTURE_NONE)
		return;
	for (size_t w = 0; w < p->n; w++) {
		uint64_t two = x->log->word[e->in_flight + w / 2];

		now[w] = route_load(p->worker[w].slot);
		p->worker[w].slot->in_flight = (uint32_t)(w % 2 ? two >> 32 : two);
	}
	ask(x, i, best);
	for (size_t w = 0; w < p->n; w++)
		p->worker[w].slot->in_flight = now[w];
}

/* Counts event v in its worker, or out of it again. */
static void toggle(struct exact *x, uint32_t v, bool in)
{
	const struct capture_event *e = &x->log->event[v];
	struct route_slot *s = x->role[e->role].pool[e->fleet]->worker[e->worker].slot;

	s->in_flight += (e->what == CAPTURE_PICKED) == in ? 1u : UINT32_MAX;
}

/* A ranking reads one worker after the other: of the picks and ends in its span it may have seen
 * any. Tries each set of them, of the last ones when there are many. */
static void ask_with_some(struct exact *x, uint32_t i, struct found **best)
{
	const struct capture_event *e = &x->log->event[i];
	uint32_t v[SETS_MAX];
	size_t n = 0;

	for (uint32_t k = i; k-- > 0 && n < SETS_MAX && x->log->event[k].seq > e->began;)
		if (x->log->event[k].role == e->role && x->log->event[k].what != CAPTURE_COMPUTED)
			v[n++] = k;
	for (size_t k = 0; k < x->nopen && n < SETS_MAX; k++)
		if (x->open[k] > i && x->log->event[x->open[k]].role == e->role &&
		    x->log->event[x->open[k]].what != CAPTURE_COMPUTED)
			v[n++] = x->open[k];
	for (uint32_t set = 1; (*best)->fit == DIFFERS && set < 1u << n; set++) {
		for (size_t k = 0; k < n; k++)
			if (set >> k & 1)
				toggle(x, v[k], !x->done[v[k]]);
		ask(x, i, best);
		for (size_t k = 0; k < n; k++)
			if (set >> k & 1)
				toggle(x, v[k], x->done[v[k]]);
	}
}

/* The captured pick counts; what the policy learns comes from the ranking that explains it. */
static int pick(struct exact *x, uint32_t i, struct found *f)
{
	const struct capture_event *e = &x->log->event[i];
	struct hold *h = &x->hold[(size_t)e->call * CAPTURE_ROLES + e->role];
	struct route_pool *p = pool_of(x, e);
	struct route_key key;
	struct route_request rq = request_of(x, i, &key);

	set_workers(x, e, p);
	if (f->fit == DIFFERS) {
		rq.dry = true;
		rq.walk = f->walk;
		for (size_t w = 0; w < p->n; w++)
			x->tried[w] = w != e->worker;
		/* When no ranking yields it, it is counted all the same. */
		if (route_decide(p, &rq, &f->d)) {
			atomic_fetch_add(&p->worker[e->worker].slot->in_flight, 1);
			*h = (struct hold){.fleet = e->fleet, .worker = e->worker, .held = true};
			return PD_OK;
		}
		rq.dry = false;
	}
	rq.walk = f->walk;
	route_commit(p, &rq, &f->d);
	*h = (struct hold){.fleet = e->fleet,
			   .worker = e->worker,
			   .tokens = f->d.tokens,
			   .stay = f->d.tokens_stay,
			   .held = true};
	return PD_OK;
}

static void release(struct exact *x, uint32_t i)
{
	const struct capture_event *e = &x->log->event[i];
	struct hold *h = &x->hold[(size_t)e->call * CAPTURE_ROLES + e->role];
	struct route_pool *p = x->role[e->role].pool[h->fleet];
	struct route_key key;
	struct route_request rq;

	/* Its pick may be one that the capture lacks. */
	if (!h->held || h->fleet != e->fleet || h->worker != e->worker)
		return;
	if (e->what == CAPTURE_COMPUTED) {
		if (!h->stay) {
			route_computed(p, h->worker, h->tokens);
			h->tokens = 0;
		}
		return;
	}
	rq = request_of(x, i, &key);
	rq.tried = rq.barred = NULL;
	rq.counted = h->tokens;
	route_end(p, h->worker, &rq);
	h->held = false;
}

/* f: of a pick, the ranking that explains it. */
static int apply(struct exact *x, uint32_t i, struct found *f)
{
	x->done[i] = true;
	if (x->log->event[i].what == CAPTURE_PICKED)
		return pick(x, i, f);
	release(x, i);
	return PD_OK;
}

/* ---- order ---- */

static struct found *found_new(void)
{
	struct found *f = malloc(sizeof(*f));

	if (f)
		f->fit = DIFFERS;
	return f;
}

/* Forgets those that were taken, and asks the others about the state of now. */
static int look_at_open(struct exact *x)
{
	size_t n = 0;

	for (size_t k = 0; k < x->nopen; k++) {
		uint32_t i = x->open[k];

		if (x->done[i]) {
			free(x->kept[k]);
			continue;
		}
		x->open[n] = i;
		x->kept[n] = x->kept[k];
		if (x->log->event[i].what == CAPTURE_PICKED) {
			x->kept[n] = x->kept[n] ? x->kept[n] : found_new();
			if (!x->kept[n])
				return PD_ENOMEM;
			ask(x, i, &x->kept[n]);
		}
		n++;
	}
	x->nopen = n;
	return PD_OK;
}

static int open_until(struct exact *x, uint64_t seq)
{
	size_t before = x->nopen;

	while (x->next < x->ncompany && x->log->event[x->company[x->next]].began < seq) {
		uint32_t i = x->company[x->next++];

		if (x->done[i])
			continue;
		x->kept[x->nopen] = NULL;
		x->open[x->nopen++] = i;
	}
	return x->nopen > before ? look_at_open(x) : PD_OK;
}

/* An event that may have come before event i, and explains it. */
static int take_early(struct exact *x, uint32_t i, bool *taken)
{
	*taken = false;
	for (size_t k = 0; k < x->nopen; k++) {
		uint32_t o = x->open[k];

		if (o == i || x->done[o] || x->log->event[o].role != x->log->event[i].role)
			continue;
		if (x->log->event[o].what == CAPTURE_PICKED) {
			x->kept[k]->fit = DIFFERS;
			ask(x, o, &x->kept[k]);
			if (x->kept[k]->fit == DIFFERS)
				continue;
		}
		*taken = true;
		return apply(x, o, x->kept[k]);
	}
	return PD_OK;
}

/* Or what the policy learnt from it would: one that fits the state of now as it saw it. */
static int take_learnt(struct exact *x, uint32_t i, struct found **best)
{
	for (size_t k = 0; k < x->nopen; k++) {
		uint32_t o = x->open[k];
		int err;

		if (o == i || x->done[o] || x->log->event[o].what != CAPTURE_PICKED ||
		    x->log->event[o].role != x->log->event[i].role)
			continue;
		x->kept[k]->fit = x->kept[k]->fit == DIFFERS ? DIFFERS : FITS;
		ask(x, o, &x->kept[k]);
		if (x->kept[k]->fit != FITS_AS_SEEN)
			continue;
		err = apply(x, o, x->kept[k]);
		if (!err)
			ask(x, i, best);
		return err;
	}
	return PD_OK;
}

/* The decision fits, but not with the score that the router saw: an open pick that was counted
 * before would explain it. */
static int take_before(struct exact *x, uint32_t i, struct found **best)
{
	for (size_t k = 0; k < x->nopen; k++) {
		const struct capture_event *o = &x->log->event[x->open[k]];
		struct found *f = x->kept[k];
		struct route_slot *s;
		int err;

		if (x->open[k] == i || x->done[x->open[k]] || o->what != CAPTURE_PICKED ||
		    o->role != x->log->event[i].role || f->fit == DIFFERS)
			continue;
		s = x->role[o->role].pool[o->fleet]->worker[o->worker].slot;
		s->in_flight++;
		s->tokens += f->d.tokens;
		ask(x, i, best);
		s->in_flight--;
		s->tokens -= f->d.tokens;
		if ((*best)->fit != FITS_AS_SEEN)
			continue;
		err = apply(x, x->open[k], f);
		if (!err)
			ask(x, i, best);
		return err;
	}
	return take_learnt(x, i, best);
}

static int say(struct exact *x, uint32_t i, const struct route_decision *d, bool compared,
	       bool agreed)
{
	const struct capture_event *e = &x->log->event[i];
	const struct capture_peer *peer = x->log->fleet[e->fleet].peer[e->role];
	struct exact_event v = {.e = e,
				.call = &x->log->call[e->call],
				.worker = peer[e->worker].name,
				.decided = d ? peer[d->worker].name : NULL,
				.reason = d ? d->reason : ROUTE_REASON_NO_KEY,
				.compared = compared,
				.agreed = agreed};

	return x->opt->event ? x->opt->event(x->opt->ctx, &v) : PD_OK;
}

static int take_pick(struct exact *x, uint32_t i)
{
	const struct capture_event *e = &x->log->event[i];
	const struct capture_call *c = &x->log->call[e->call];
	struct exact_pool *out = &x->out->pool[e->role];
	struct found **best = &x->best;
	struct route_decision d;
	bool compared, agreed, early = x->done[i], more = !early, any = true;
	int err = PD_OK;

	compared = !(c->key_hashed && (pool_of(x, e)->state->spec.type->flags & ROUTE_BY_KEY));
	out->overlapped += e->began + 1 != e->seq;
	x->out->retries += e->attempt > 0;
	(*best)->fit = DIFFERS;
	for (size_t k = 0; k < x->nopen; k++)
		if (x->open[k] == i)
			best = &x->kept[k];
	if (!early)
		ask(x, i, best);
	if (!early && (*best)->fit == DIFFERS)
		ask_as_seen(x, i, best);
	if (!early && (*best)->fit == DIFFERS)
		ask_with_some(x, i, best);
	while (!err && more && (*best)->fit == DIFFERS) {
		err = take_early(x, i, &more);
		if (!err && more)
			ask(x, i, best);
		if (!err && more && (*best)->fit == DIFFERS)
			ask_as_seen(x, i, best);
	}
	if (!err && !early && (*best)->fit == FITS)
		err = take_before(x, i, best);
	agreed = early || (*best)->fit != DIFFERS;
	if (!agreed) {
		x->role[e->role].state->turn = e->turn;
		any = whom(x, i, x->now);
	}
	d = agreed ? (struct route_decision){.worker = e->worker, .reason = (*best)->d.reason}
		   : x->now->d;
	out->decisions += compared;
	out->agreed += compared && agreed;
	out->hashed += !compared;
	if (!err && !early)
		err = apply(x, i, *best);
	return err ? err : say(x, i, any ? &d : NULL, compared, compared && agreed);
}

static int take_all(struct exact *x)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < x->log->nevents; i++) {
		const struct capture_event *e = &x->log->event[i];

		err = open_until(x, e->seq);
		if (!err && e->what == CAPTURE_PICKED) {
			err = take_pick(x, (uint32_t)i);
		} else if (!err) {
			if (!x->done[i])
				err = apply(x, (uint32_t)i, NULL);
			err = err ? err : say(x, (uint32_t)i, NULL, false, false);
		}
		if (!err && x->nopen > 0)
			err = look_at_open(x);
	}
	return err;
}

/* ---- life ---- */

static int by_began(const void *a, const void *b, void *context)
{
	const struct capture_log *log = context;
	const struct capture_event *x = &log->event[*(const uint32_t *)a],
				   *y = &log->event[*(const uint32_t *)b];

	if (x->began != y->began)
		return x->began < y->began ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The other pick of an attempt is near: they were made together, or one after the other. */
static int find_partners(struct exact *x)
{
	const struct capture_log *log = x->log;
	uint32_t *last = reallocarray(NULL, log->ncalls + 1, sizeof(*last));

	if (!last)
		return PD_ENOMEM;
	memset(last, 0xff, (log->ncalls + 1) * sizeof(*last));
	for (size_t i = 0; i < log->nevents; i++) {
		const struct capture_event *e = &log->event[i], *o;

		x->partner[i] = NO_EVENT;
		if (e->what != CAPTURE_PICKED || e->role == CAPTURE_ROLE_REGULAR)
			continue;
		o = last[e->call] == NO_EVENT ? NULL : &log->event[last[e->call]];
		if (o && o->role != e->role && o->attempt == e->attempt) {
			x->partner[i] = last[e->call];
			x->partner[last[e->call]] = (uint32_t)i;
		}
		last[e->call] = (uint32_t)i;
	}
	free(last);
	return PD_OK;
}

static int prepare(struct exact *x, struct pd_msg *msg)
{
	const struct capture_log *log = x->log;
	int err;

	x->hold = calloc(log->ncalls * CAPTURE_ROLES + 1, sizeof(*x->hold));
	x->done = calloc(log->nevents + 1, sizeof(*x->done));
	x->kept = calloc(log->nevents + 1, sizeof(struct found *));
	x->now = found_new();
	x->best = found_new();
	x->partner = reallocarray(NULL, log->nevents + 1, sizeof(*x->partner));
	x->company = reallocarray(NULL, log->nevents + 1, sizeof(*x->company));
	x->open = reallocarray(NULL, log->nevents + 1, sizeof(*x->open));
	if (!x->hold || !x->done || !x->kept || !x->now || !x->best || !x->partner || !x->company ||
	    !x->open)
		return PD_ENOMEM;
	for (size_t i = 0; i < log->nevents; i++)
		if (log->event[i].began + 1 != log->event[i].seq)
			x->company[x->ncompany++] = (uint32_t)i;
	qsort_r(x->company, x->ncompany, sizeof(*x->company), by_began, (void *)log);
	err = find_partners(x);
	for (int k = 0; !err && k < CAPTURE_ROLES; k++)
		err = make_slots(x, k);
	for (int k = 0; !err && k < CAPTURE_ROLES; k++)
		for (size_t f = 0; !err && f < log->nfleets; f++)
			if (log->fleet[f].n[k] > 0)
				err = make_pool(x, k, f, msg);
	return err;
}

static void end(struct exact *x)
{
	for (int k = 0; k < CAPTURE_ROLES; k++) {
		struct role *r = &x->role[k];

		for (size_t f = 0; f < x->log->nfleets; f++) {
			if (r->pool)
				route_pool_free(r->pool[f]);
			if (r->place)
				free(r->place[f]);
		}
		free(r->pool);
		free(r->place);
		free(r->name);
		free(r->slot);
		route_state_unref(r->state);
	}
	free(x->hold);
	free(x->done);
	for (size_t k = 0; k < x->nopen; k++)
		free(x->kept[k]);
	free(x->kept);
	free(x->now);
	free(x->best);
	free(x->partner);
	free(x->company);
	free(x->open);
}

int exact_run(const struct capture_log *log, const struct exact_options *opt,
	      struct exact_result *out, struct pd_msg *msg)
{
	struct exact x = {.log = log, .opt = opt, .out = out};
	struct pd_msg why = {""};
	int err;

	memset(out, 0, sizeof(*out));
	out->events = log->nevents;
	out->requests = log->ncalls;
	out->dropped = log->dropped;
	err = prepare(&x, &why);
	if (!err)
		err = take_all(&x);
	for (int k = 0; !err && k < CAPTURE_ROLES; k++) {
		struct exact_pool *p = &out->pool[k];

		p->used = p->decisions + p->hashed > 0;
		p->workers = x.role[k].nslots;
		memcpy(p->policy, x.role[k].policy, sizeof(p->policy));
	}
	end(&x);
	return err ? pd_fail(msg, err, "cannot replay the capture: %s",
			     why.text[0] ? why.text : pd_err_text(err))
		   : PD_OK;
}
