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

#include "lib/route/decide.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define NAMED_MAX 8 /* workers with names from the input */

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
	enum route_policy_kind kind;
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
static const struct route_pool *numbered_pool(size_t size, enum route_hash hash, size_t v)
{
	static struct route_pool *made[SIZES][2][VNODES];
	static char text[ROUTE_WORKERS_MAX][24];
	static const char *names[ROUTE_WORKERS_MAX];
	struct route_pool **pool = &made[size][hash][v];

	if (*pool)
		return *pool;
	for (size_t i = 0; i < ROUTE_WORKERS_MAX; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "http://w%zu:8000", i);
		names[i] = text[i];
		slot_list[i] = &slots[i];
	}
	expect(route_pool_new(pool, names, slot_list, sizes[size], hash, vnodes[v], NULL) == PD_OK,
	       "a pool");
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
static struct route_pool *named_pool(struct input *in, char (*text)[8], size_t *n,
				     enum route_hash hash, unsigned v)
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
	err = route_pool_new(&pool, names, slot_list, *n, hash, v, NULL);
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
static int decide(const struct setup *s, struct route_policy *p, struct route_decision *d)
{
	struct rng rng;
	struct route_input in = {.key = &s->key, .tried = tried, .rng = &rng};

	rng_seed(&rng, s->seed);
	return route_decide(p, s->pool, &in, d);
}

/* One decision from the state at the beginning. */
static int decide_anew(const struct setup *s, struct route_decision *d)
{
	struct route_policy p;

	reset(s);
	route_policy_init(&p, s->kind);
	atomic_store_explicit(&p.cursor, s->cursor, memory_order_relaxed);
	return decide(s, &p, d);
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

	if (s->kind == ROUTE_RENDEZVOUS_HASH) {
		memcpy(text, s->key.text, s->key.len);
		n = snprintf(text + s->key.len, 64, ":%s", pool->worker[w].name);
		return UINT64_MAX - route_hash(pool->hash, text, s->key.len + (size_t)n);
	}
	h = route_hash(pool->hash, s->key.text, s->key.len);
	for (unsigned v = 0; v < pool->vnodes; v++) {
		uint64_t far;

		n = snprintf(text, sizeof(text), "%s:%u", pool->worker[w].name, v);
		far = route_hash(pool->hash, text, (size_t)n) - h;
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
	struct route_policy p;
	size_t at = 0;

	route_policy_init(&p, s->kind);
	expect(route_order(&p, s->pool, &s->key, order) == PD_OK, "no order");
	memset(seen, 0, s->pool->n);
	for (size_t i = 0; i < s->pool->n; i++) {
		expect(order[i] < s->pool->n && !seen[order[i]], "the order is no permutation");
		seen[order[i]] = true;
		if (i > 0 && i < 4 && s->pool->n * s->pool->vnodes <= 4096)
			check_pair(s, order[i - 1], order[i]);
	}
	while (at < s->pool->n && !can_take(order[at]))
		at++;
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
	struct route_policy p;
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
	expect(route_pool_new(&pool, names, list, n, s->pool->hash, s->pool->vnodes, NULL) == PD_OK,
	       "a smaller pool");
	reset(s);
	less.pool = pool;
	for (uint32_t i = gone; i + 1 < s->pool->n; i++)
		tried[i] = states[i + 1].tried;
	route_policy_init(&p, s->kind);
	expect(decide(&less, &p, &again) == PD_OK, "no worker in a smaller pool");
	expect(strcmp(pool->worker[again.worker].name, s->pool->worker[d->worker].name) == 0,
	       "a worker that was removed moved the key");
	route_pool_free(pool);
}

static void check_keyed(const struct setup *s, const struct route_decision *d, int err,
			unsigned choice)
{
	uint32_t gone;

	/* the order of all by score takes the square of their number */
	if (s->pool->n <= (s->kind == ROUTE_CONSISTENT_HASH || choice < UINT8_MAX ? 16 : 65) ||
	    (s->kind == ROUTE_CONSISTENT_HASH && choice == UINT8_MAX))
		check_order(s, d, err);
	if (err || s->pool->n < 2)
		return;
	gone = (d->worker + 1 + choice % (uint32_t)(s->pool->n - 1)) % (uint32_t)s->pool->n;
	check_absence(s, d, gone);
	if (s->pool->n <= NAMED_MAX)
		check_removal(s, d, gone);
}

/* -- policies by load -- */

static void check_load(const struct setup *s, const struct route_decision *d)
{
	uint32_t load = states[d->worker].load, ties = 0;
	double second = INFINITY;

	expect(d->score == load, "the score is not the load");
	if (s->kind == ROUTE_POWER_OF_TWO) {
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
	struct route_policy p;

	if (s->pool->n > 16)
		return;
	for (size_t i = 0; i < s->pool->n; i++)
		if (states[i].cap > 0 || !states[i].available)
			return;
	reset(s);
	route_policy_init(&p, s->kind);
	atomic_store(&p.cursor, s->cursor);
	memset(seen, 0, sizeof(seen));
	for (size_t i = 0; i < s->room; i++) {
		expect(decide(s, &p, &d) == PD_OK && !seen[d.worker], "a turn out of turn");
		seen[d.worker] = true;
	}
}

static void check_policy(const struct setup *s, const struct route_decision *d, int err,
			 unsigned choice)
{
	switch (s->kind) {
	case ROUTE_CONSISTENT_HASH:
	case ROUTE_RENDEZVOUS_HASH:
		if (s->key.level != ROUTE_KEY_NONE) {
			check_keyed(s, d, err, choice);
		} else if (!err) {
			expect(d->reason == ROUTE_REASON_NO_KEY, "the reason without a key");
			check_load(s, d);
		}
		return;
	case ROUTE_POWER_OF_TWO:
	case ROUTE_LEAST_REQUEST:
		if (!err) {
			expect(d->reason == ROUTE_REASON_LOAD, "the reason by load");
			check_load(s, d);
		}
		return;
	case ROUTE_ROUND_ROBIN:
		expect(err || d->reason == ROUTE_REASON_ROTATION, "the reason of a rotation");
		if (!err)
			check_rotation(s);
		return;
	default:
		expect(err || d->reason == ROUTE_REASON_RANDOM, "the reason of a random pick");
		return;
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
		route_release(s->pool->worker[d.worker].slot);
		check_counters(s, d.worker, d.trial, true);
		expect(decide_anew(s, &again) == PD_OK, "another verdict the second time");
		check_same(&d, &again);
	}
	check_policy(s, &d, err, choice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct input in = {data, n};
	struct setup s = {.kind = (enum route_policy_kind)(next(&in) % ROUTE_POLICIES)};
	struct route_pool *named = NULL;
	unsigned size = next(&in), ring = next(&in), choice;
	char text[NAMED_MAX][8];
	size_t named_n;

	if (size & 0x80)
		s.pool = named = named_pool(&in, text, &named_n, ring & 1, ring >> 1 & 15 ? 3 : 1);
	else
		s.pool = numbered_pool(size >= LARGE && !(ring & 1) ? size - LARGE + SMALL
								    : size % SMALL,
				       ring & 1, (ring >> 1) % VNODES);
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
