/*
 * Decisions. The input is read as a small program: policy, number of workers, ring, states of the
 * workers, then the key; what is missing is zero.
 *
 * What must hold: the chosen worker may be picked and has room; no worker for the right reason;
 * exactly its counters rise, and fall again; the same input gives the same decision; figures stay
 * in their bounds. A key goes to the first worker of its order that can take it, and the order is
 * that of a slow definition; a worker that was not chosen may leave without moving the key. The
 * least loaded is the least loaded, the rotation visits each worker once.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/route/hash.h"
#include "lib/route/policy/ring.h"
#include "tests/unit/route_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define POLICIES_MAX 64
#define NAMED_MAX    8 /* workers with names from the input */

struct state {
	bool available, tried;
	uint32_t permits, cap, load;
};

static struct route_slot slots[ROUTE_WORKERS_MAX];
static struct route_slot *slot_list[ROUTE_WORKERS_MAX];
static struct state states[ROUTE_WORKERS_MAX];
static bool tried[ROUTE_WORKERS_MAX];

struct input {
	const uint8_t *p;
	size_t n;
};

struct setup {
	const struct route_pool *pool;
	const struct route_policy_type *type;
	struct route_spec spec;
	enum route_hash hash;
	unsigned vnodes;
	struct route_key key;
	uint64_t seed, cursor;
	size_t may, room; /* workers that may be picked; those of them with room */
	uint32_t least;	  /* the smallest load among the latter */
};

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_decide: %s\n", what);
		abort();
	}
}

static bool is(const struct setup *s, const char *name)
{
	return strcmp(s->type->name, name) == 0;
}

/* Is there a slow definition of its order below? */
static bool defined(const struct setup *s)
{
	return is(s, "consistent_hash") || is(s, "rendezvous_hash");
}

static size_t policies(void)
{
	size_t n = 0;

	while (route_policies[n])
		n++;
	expect(n <= POLICIES_MAX, "room for the policies");
	return n ? n : 1;
}

/* The policy with the ring of the input, where it has one. */
static struct route_spec spec_of(const struct setup *s)
{
	struct route_settings settings = {{NULL}};
	struct route_spec spec = route_spec_of(s->type);
	char number[16];

	(void)snprintf(number, sizeof(number), "%u", s->vnodes);
	expect(route_settings_put(&settings, "ring-hash", s->hash ? "fbi" : "xxh3") == PD_OK &&
		       route_settings_put(&settings, "virtual-nodes", number) == PD_OK &&
		       route_spec_apply(&spec, &settings, NULL) == PD_OK,
	       "parameters of a ring");
	return spec;
}

static unsigned next(struct input *in)
{
	if (in->n == 0)
		return 0;
	in->n--;
	return *in->p++;
}

/* -- pools -- */

static const size_t sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, 63, 64, 65, 1023, 1024};
static const unsigned vnodes[] = {1, 2, 16};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))
/* For speed, most inputs have one of the first sizes, and the slow hash has no other. */
#define SMALL  8
#define LARGE  (0x80 - (SIZES - SMALL))
#define VNODES (sizeof(vnodes) / sizeof(vnodes[0]))

/* Pools of numbered workers are made once, for speed. */
static const struct route_pool *numbered_pool(const struct setup *s, size_t policy, size_t size,
					      size_t v)
{
	static struct route_pool *made[POLICIES_MAX][SIZES][2][VNODES];
	static char text[ROUTE_WORKERS_MAX][24];
	static const char *names[ROUTE_WORKERS_MAX];
	struct route_pool **pool = &made[policy][size][s->hash][v];

	if (*pool)
		return *pool;
	for (size_t i = 0; i < ROUTE_WORKERS_MAX; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "http://w%zu:8000", i);
		names[i] = text[i];
		slot_list[i] = &slots[i];
	}
	expect(pool_of(pool, &s->spec, names, slot_list, sizes[size], NULL) == PD_OK, "a pool");
	return *pool;
}

/* What a pool must refuse. */
static bool names_ok(const char (*text)[8], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!text[i][0])
			return false;
		for (size_t k = 0; k < i; k++)
			if (strcmp(text[i], text[k]) == 0)
				return false;
	}
	return true;
}

/* Up to eight workers with names from the input; NULL when these are no good. */
static struct route_pool *named_pool(const struct setup *s, struct input *in, char (*text)[8],
				     size_t *n)
{
	const char *names[NAMED_MAX] = {NULL};
	struct route_pool *pool;
	int err;

	*n = next(in) % (NAMED_MAX + 1);
	for (size_t i = 0; i < *n; i++) {
		size_t len = next(in) % 4;

		memset(text[i], 0, 8);
		for (size_t k = 0; k < len; k++)
			text[i][k] = (char)next(in);
		names[i] = text[i];
		slot_list[i] = &slots[i];
	}
	err = pool_of(&pool, &s->spec, names, slot_list, *n, NULL);
	expect((err == PD_OK) == names_ok((const char(*)[8])text, *n), "names of a pool");
	return pool;
}

/* -- the state before a decision -- */

static void read_states(struct setup *s, struct input *in)
{
	size_t given = next(in) % 32;
	uint8_t code[32][2] = {0};

	for (size_t i = 0; i < given; i++) {
		code[i][0] = (uint8_t)next(in);
		code[i][1] = (uint8_t)next(in);
	}
	s->may = s->room = 0;
	s->least = UINT32_MAX;
	for (size_t i = 0; i < s->pool->n; i++) {
		const uint8_t *c = code[given ? i % given : 0];
		struct state *w = &states[i];

		/* zero is a healthy idle worker */
		*w = (struct state){.available = !(c[0] & 1),
				    .tried = c[0] >> 1 & 1,
				    .permits = c[0] >> 2 & 3,
				    .cap = c[0] >> 4,
				    .load = c[1]};
		if (w->tried || (!w->available && w->permits == 0))
			continue;
		s->may++;
		if (w->cap > 0 && w->load >= w->cap)
			continue;
		s->room++;
		s->least = w->load < s->least ? w->load : s->least;
	}
}

static void reset(const struct setup *s)
{
	for (size_t i = 0; i < s->pool->n; i++) {
		tried[i] = states[i].tried;
		atomic_store_explicit(&slots[i].in_flight, states[i].load, memory_order_relaxed);
		atomic_store_explicit(&slots[i].picks, 7, memory_order_relaxed);
		atomic_store_explicit(&slots[i].available, states[i].available,
				      memory_order_relaxed);
		atomic_store_explicit(&slots[i].cap, states[i].cap, memory_order_relaxed);
		atomic_store_explicit(&slots[i].permits, states[i].permits, memory_order_relaxed);
	}
}

/* One decision from the state as it is. */
static int decide(const struct setup *s, struct route_decision *d)
{
	struct route_request rq = {.key = &s->key, .tried = tried, .draw = s->seed};

	return route_decide(s->pool, &rq, d);
}

/* One decision from the state at the beginning. */
static int decide_anew(const struct setup *s, struct route_decision *d)
{
	reset(s);
	atomic_store_explicit(&s->pool->state->turn, s->cursor, memory_order_relaxed);
	return decide(s, d);
}

/* -- what must hold -- */

static bool can_take(uint32_t w)
{
	const struct state *x = &states[w];

	return !x->tried && (x->available || x->permits > 0) && (x->cap == 0 || x->load < x->cap);
}

/* Of all counters exactly those of the chosen worker moved; `picked` is n for none. */
static void check_counters(const struct setup *s, uint32_t picked, bool trial, bool released)
{
	for (uint32_t i = 0; i < s->pool->n; i++) {
		bool it = i == picked;

		expect(atomic_load(&slots[i].in_flight) == states[i].load + (it && !released),
		       "a count in flight");
		expect(atomic_load(&slots[i].picks) == 7u + it, "a count of picks");
		expect(atomic_load(&slots[i].permits) == states[i].permits - (it && trial),
		       "a permit");
	}
}

static void check_figures(const struct setup *s, const struct route_decision *d)
{
	bool seen = false;

	expect(d->worker < s->pool->n && d->home < s->pool->n, "a worker that is not there");
	expect(d->ties < s->pool->n, "more ties than workers");
	expect(isfinite(d->score) && isfinite(d->margin) && d->margin >= 0, "score or margin");
	expect(d->ncandidates >= 1 && d->ncandidates <= ROUTE_CANDIDATES, "candidates");
	for (uint32_t i = 0; i < d->ncandidates; i++) {
		expect(d->candidate[i].worker < s->pool->n && isfinite(d->candidate[i].score),
		       "a candidate");
		for (uint32_t k = 0; k < i; k++)
			expect(d->candidate[i].worker != d->candidate[k].worker,
			       "a candidate twice");
		seen |= d->candidate[i].worker == d->worker && d->candidate[i].score == d->score;
	}
	expect(seen, "the chosen one is no candidate");
}

static void check_same(const struct route_decision *a, const struct route_decision *b)
{
	expect(a->worker == b->worker && a->reason == b->reason && a->home == b->home &&
		       a->trial == b->trial && a->ties == b->ties && a->score == b->score &&
		       a->margin == b->margin && a->ncandidates == b->ncandidates,
	       "another decision the second time");
	for (uint32_t i = 0; i < a->ncandidates; i++)
		expect(a->candidate[i].worker == b->candidate[i].worker &&
			       a->candidate[i].score == b->candidate[i].score,
		       "another candidate the second time");
}

/* -- policies by key -- */

/* How far a key is from a worker, smaller is better, by the definitions of the two policies. */
static uint64_t distance(const struct setup *s, uint32_t w)
{
	const struct route_pool *pool = s->pool;
	char text[ROUTE_KEY_MAX + 64];
	uint64_t best = UINT64_MAX, h;
	int n;

	if (is(s, "rendezvous_hash")) {
		memcpy(text, s->key.text, s->key.len);
		n = snprintf(text + s->key.len, 64, ":%s", pool->worker[w].name);
		return UINT64_MAX - route_hash(s->hash, text, s->key.len + (size_t)n);
	}
	h = route_hash(s->hash, s->key.text, s->key.len);
	for (unsigned v = 0; v < s->vnodes; v++) {
		uint64_t far;

		n = snprintf(text, sizeof(text), "%s:%u", pool->worker[w].name, v);
		far = route_hash(s->hash, text, (size_t)n) - h;
		best = far < best ? far : best;
	}
	return best;
}

/* Is `a` before `b`? Of equal places the later worker wins. */
static void check_pair(const struct setup *s, uint32_t a, uint32_t b)
{
	uint64_t far_a = distance(s, a), far_b = distance(s, b);

	expect(far_a < far_b || (far_a == far_b && a > b), "the order is not the definition's");
}

static void check_order(const struct setup *s, const struct route_decision *d, int err)
{
	static uint32_t order[ROUTE_WORKERS_MAX];
	static bool seen[ROUTE_WORKERS_MAX];
	size_t at = 0;

	expect(route_order(s->pool, &s->key, order) == PD_OK, "no order");
	memset(seen, 0, s->pool->n);
	for (size_t i = 0; i < s->pool->n; i++) {
		expect(order[i] < s->pool->n && !seen[order[i]], "the order is no permutation");
		seen[order[i]] = true;
		if (i > 0 && i < 4 && s->pool->n * s->vnodes <= 4096 && defined(s))
			check_pair(s, order[i - 1], order[i]);
	}
	while (at < s->pool->n && !can_take(order[at]))
		at++;
	/* The load may say otherwise, or who else was tried. */
	if ((s->type->flags & ROUTE_BY_LOAD) || s->type->memory_new || is(s, "modulo"))
		return;
	expect((at < s->pool->n) == (err == PD_OK), "the order has another worker, or none");
	if (err)
		return;
	expect(d->worker == order[at] && d->home == order[0], "not the first of the order");
	expect(d->reason == (at == 0 ? ROUTE_REASON_KEY : ROUTE_REASON_FAILOVER), "the reason");
	expect(d->score >= 0 && d->score <= 1 && d->margin <= 1, "a score outside of 0 to 1");
}

/* A worker that was not chosen goes away: the key stays. */
static void check_absence(const struct setup *s, const struct route_decision *d, uint32_t gone)
{
	struct route_decision again;
	struct state kept = states[gone];

	states[gone].tried = true;
	expect(decide_anew(s, &again) == PD_OK && again.worker == d->worker,
	       "a worker that was not chosen moved the key");
	states[gone] = kept;
}

/* The same with a pool in which it is not even named. */
static void check_removal(const struct setup *s, const struct route_decision *d, uint32_t gone)
{
	struct setup less = *s;
	struct route_decision again;
	struct route_pool *pool;
	const char *names[NAMED_MAX];
	struct route_slot *list[NAMED_MAX];
	size_t n = 0;

	for (uint32_t i = 0; i < s->pool->n; i++) {
		if (i == gone)
			continue;
		names[n] = s->pool->worker[i].name;
		list[n++] = s->pool->worker[i].slot;
	}
	expect(pool_of(&pool, &s->spec, names, list, n, NULL) == PD_OK, "a smaller pool");
	reset(s);
	less.pool = pool;
	for (uint32_t i = gone; i + 1 < s->pool->n; i++)
		tried[i] = states[i + 1].tried;
	expect(decide(&less, &again) == PD_OK, "no worker in a smaller pool");
	expect(strcmp(pool->worker[again.worker].name, s->pool->worker[d->worker].name) == 0,
	       "a worker that was removed moved the key");
	route_pool_free(pool);
}

/* Bounded loads: the chosen one has fewer in flight than its share of those that can be picked
 * allows, by a slow definition. */
static void check_bound(const struct setup *s, const struct route_decision *d)
{
	uint64_t total = 1;

	for (uint32_t i = 0; i < s->pool->n; i++)
		total += can_take(i) ? states[i].load : 0;
	expect((double)states[d->worker].load < 1.25 * (double)total / (double)s->room,
	       "over its bound");
}

static void check_keyed(const struct setup *s, const struct route_decision *d, int err,
			unsigned choice)
{
	uint32_t gone;

	/* the order of all by score takes the square of their number */
	if (s->pool->n <= (is(s, "consistent_hash") || choice < UINT8_MAX ? 16 : 65) ||
	    (is(s, "consistent_hash") && choice == UINT8_MAX))
		check_order(s, d, err);
	if (err || s->pool->n < 2 || s->type->memory_new || is(s, "modulo"))
		return; /* what is kept decides, or each change moves keys */
	if (s->type->flags & ROUTE_BY_LOAD) {
		check_bound(s, d);
		return;
	}
	gone = (d->worker + 1 + choice % (uint32_t)(s->pool->n - 1)) % (uint32_t)s->pool->n;
	check_absence(s, d, gone);
	if (s->pool->n <= NAMED_MAX && !is(s, "maglev")) /* its table may move some */
		check_removal(s, d, gone);
}

/* -- policies by load -- */

static void check_load(const struct setup *s, const struct route_decision *d)
{
	uint32_t load = states[d->worker].load, ties = 0;
	double second = INFINITY;

	expect(d->score == load, "the score is not the load");
	if (is(s, "power_of_two")) {
		expect(d->ncandidates == (s->room > 1 ? 2 : 1), "not two were looked at");
		expect(d->ncandidates == 1 || d->candidate[1].score >= load,
		       "the one with more load");
		return;
	}
	expect(load == s->least, "not the least loaded");
	for (uint32_t i = 0; i < s->pool->n; i++) {
		if (!can_take(i) || i == d->worker)
			continue;
		ties += states[i].load == load;
		second = states[i].load < second ? states[i].load : second;
	}
	expect(d->ties == ties, "another number of ties");
	expect(d->margin == (s->room > 1 ? second - load : 0), "another margin");
	for (uint32_t i = 2; i < d->ncandidates; i++)
		expect(d->candidate[i - 1].score <= d->candidate[i].score, "candidates unsorted");
}

/* As many turns as there are workers: each once. Only where no worker fills up meanwhile. */
static void check_rotation(const struct setup *s)
{
	static bool seen[ROUTE_WORKERS_MAX];
	struct route_decision d;
	if (s->pool->n > 16)
		return;
	for (size_t i = 0; i < s->pool->n; i++)
		if (states[i].cap > 0 || !states[i].available)
			return;
	reset(s);
	atomic_store(&s->pool->state->turn, s->cursor);
	memset(seen, 0, sizeof(seen));
	for (size_t i = 0; i < s->room; i++) {
		expect(decide(s, &d) == PD_OK && !seen[d.worker], "a turn out of turn");
		seen[d.worker] = true;
	}
}

/* By the flags, so that a new policy is checked for what it says of itself; by name only where the
 * definition is written down above. */
static void check_policy(const struct setup *s, const struct route_decision *d, int err,
			 unsigned choice)
{
	bool by_key = s->type->flags & ROUTE_BY_KEY;

	if (by_key && s->key.level != ROUTE_KEY_NONE) {
		check_keyed(s, d, err, choice);
	} else if (!err && by_key) {
		expect(d->reason == ROUTE_REASON_NO_KEY, "the reason without a key");
		check_load(s, d);
	} else if (!err && is(s, "round_robin")) {
		expect(d->reason == ROUTE_REASON_ROTATION, "the reason of a rotation");
		check_rotation(s);
	} else if (!err && is(s, "random")) {
		expect(d->reason == ROUTE_REASON_RANDOM, "the reason of a random pick");
	} else if (!err && (is(s, "power_of_two") || is(s, "least_request"))) {
		expect(d->reason == ROUTE_REASON_LOAD, "the reason by load");
		check_load(s, d);
	}
}

static void check(const struct setup *s, unsigned choice)
{
	struct route_decision d, again;
	int err = decide_anew(s, &d);

	expect(err == (s->room > 0 ? PD_OK : s->may > 0 ? PD_EBUSY : PD_ENOENT), "the verdict");
	if (err) {
		check_counters(s, UINT32_MAX, false, false);
	} else {
		check_figures(s, &d);
		expect(can_take(d.worker), "a worker that cannot be picked");
		expect(d.trial == !states[d.worker].available, "a trial");
		check_counters(s, d.worker, d.trial, false);
		route_end(s->pool, d.worker, NULL);
		check_counters(s, d.worker, d.trial, true);
		expect(decide_anew(s, &again) == PD_OK, "another verdict the second time");
		if (!s->type->memory_new) /* it learned from the first */
			check_same(&d, &again);
	}
	check_policy(s, &d, err, choice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct input in = {data, n};
	size_t policy = next(&in) % policies();
	struct setup s = {.type = route_policies[policy]};
	struct route_pool *named = NULL;
	unsigned size = next(&in), ring = next(&in), choice;
	char text[NAMED_MAX][8];
	size_t named_n;

	s.hash = ring & 1;
	s.vnodes = !(size & 0x80) ? vnodes[(ring >> 1) % VNODES] : ring >> 1 & 15 ? 3 : 1;
	s.spec = spec_of(&s);
	if (size & 0x80)
		s.pool = named = named_pool(&s, &in, text, &named_n);
	else
		s.pool = numbered_pool(&s, policy,
				       size >= LARGE && !(ring & 1) ? size - LARGE + SMALL
								    : size % SMALL,
				       (ring >> 1) % VNODES);
	if (!s.pool)
		return 0;
	choice = next(&in);
	s.cursor = choice * 0x0001010101010101u;
	s.seed = next(&in);
	read_states(&s, &in);
	s.key.len = in.n < ROUTE_KEY_MAX ? in.n : ROUTE_KEY_MAX;
	s.key.level = s.key.len ? ROUTE_KEY_SESSION : ROUTE_KEY_NONE;
	if (s.key.len)
		memcpy(s.key.text, in.p, s.key.len);
	check(&s, choice);
	route_pool_free(named);
	return 0;
}
