#include "lib/route/memory/bindings.h"

#include <pthread.h>
#include <stdlib.h>

#define WAYS  8u
#define PARTS 64u

#define SWEEP_NS INT64_C(60000000000)

struct binding {
	uint64_t session, worker;
	int64_t seen; /* 0: the place is free */
};

struct bindings {
	size_t groups; /* a power of two, at least PARTS */
	int64_t ttl;
	struct tally *tally;
	struct binding *place; /* groups * WAYS */
	_Atomic int64_t swept; /* when the last part was visited */
	_Atomic unsigned next;
	pthread_mutex_t lock[PARTS];
};

int bindings_new(struct bindings **out, size_t max, int64_t ttl_ns, struct tally *tally)
{
	struct bindings *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (!b)
		return PD_ENOMEM;
	max = max < BINDINGS_MIN ? BINDINGS_MIN : max > BINDINGS_MAX ? BINDINGS_MAX : max;
	for (b->groups = PARTS; b->groups * WAYS < max;)
		b->groups *= 2;
	b->ttl = ttl_ns;
	b->tally = tally;
	b->place = calloc(b->groups * WAYS, sizeof(*b->place));
	if (!b->place) {
		free(b);
		return PD_ENOMEM;
	}
	for (size_t i = 0; i < PARTS; i++)
		(void)pthread_mutex_init(&b->lock[i], NULL);
	*out = b;
	return PD_OK;
}

void bindings_free(struct bindings *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < PARTS; i++)
		(void)pthread_mutex_destroy(&b->lock[i]);
	free(b->place);
	free(b);
}

size_t bindings_bytes(const struct bindings *b)
{
	return sizeof(*b) + b->groups * WAYS * sizeof(*b->place);
}

static struct binding *group_of(struct bindings *b, uint64_t session, pthread_mutex_t **lock)
{
	size_t group = (session >> 6) & (b->groups - 1);

	*lock = &b->lock[group % PARTS];
	return &b->place[group * WAYS];
}

static bool expired(const struct bindings *b, const struct binding *p, int64_t now)
{
	return now - p->seen > b->ttl;
}

static void count(struct bindings *b, uint64_t worker, int64_t by)
{
	if (b->tally)
		tally_add(tally_find(b->tally, worker), by);
}

static void drop(struct bindings *b, struct binding *p)
{
	count(b, p->worker, -1);
	p->seen = 0;
}

static struct binding *look(struct binding *group, uint64_t session)
{
	for (unsigned i = 0; i < WAYS; i++)
		if (group[i].seen != 0 && group[i].session == session)
			return &group[i];
	return NULL;
}

/* The first free place of the group, or the one that is seen least recently. */
static struct binding *make_room(struct bindings *b, struct binding *group)
{
	struct binding *oldest = group;

	for (unsigned i = 0; i < WAYS; i++) {
		if (group[i].seen == 0)
			return &group[i];
		oldest = group[i].seen < oldest->seen ? &group[i] : oldest;
	}
	drop(b, oldest);
	return oldest;
}

/* A time of 0 (not known) is a time all the same. */
static int64_t moment(int64_t now)
{
	return now > 0 ? now : 1;
}

bool bindings_find(struct bindings *b, uint64_t session, int64_t now, uint64_t *worker)
{
	pthread_mutex_t *lock;
	struct binding *group = group_of(b, session, &lock), *p;
	bool found;

	(void)pthread_mutex_lock(lock);
	p = look(group, session);
	found = p && !expired(b, p, moment(now));
	if (found)
		*worker = p->worker;
	(void)pthread_mutex_unlock(lock);
	return found;
}

static uint64_t bind(struct bindings *b, uint64_t session, uint64_t worker, int64_t now, bool keep)
{
	pthread_mutex_t *lock;
	struct binding *group = group_of(b, session, &lock), *p;

	now = moment(now);
	(void)pthread_mutex_lock(lock);
	p = look(group, session);
	if (p && expired(b, p, now))
		drop(b, p);
	if (!p || p->seen == 0) {
		p = p ? p : make_room(b, group);
		*p = (struct binding){.session = session, .worker = worker};
		count(b, worker, 1);
	} else if (!keep && p->worker != worker) {
		count(b, p->worker, -1);
		count(b, worker, 1);
		p->worker = worker;
	}
	worker = p->worker;
	p->seen = now > p->seen ? now : p->seen;
	(void)pthread_mutex_unlock(lock);
	return worker;
}

uint64_t bindings_claim(struct bindings *b, uint64_t session, uint64_t worker, int64_t now)
{
	return bind(b, session, worker, now, true);
}

void bindings_set(struct bindings *b, uint64_t session, uint64_t worker, int64_t now)
{
	(void)bind(b, session, worker, now, false);
}

void bindings_forget(struct bindings *b, uint64_t session)
{
	pthread_mutex_t *lock;
	struct binding *group = group_of(b, session, &lock), *p;

	(void)pthread_mutex_lock(lock);
	p = look(group, session);
	if (p)
		drop(b, p);
	(void)pthread_mutex_unlock(lock);
}

/* Drops the bindings of `worker` in one part (NULL: those expired at `now`), and counts those that
 * stay. */
static size_t visit(struct bindings *b, size_t part, const uint64_t *worker, int64_t now)
{
	size_t left = 0;

	(void)pthread_mutex_lock(&b->lock[part]);
	for (size_t g = part; g < b->groups; g += PARTS) {
		for (unsigned i = 0; i < WAYS; i++) {
			struct binding *p = &b->place[g * WAYS + i];

			if (p->seen == 0)
				continue;
			if (worker ? p->worker == *worker : expired(b, p, now))
				drop(b, p);
			else
				left++;
		}
	}
	(void)pthread_mutex_unlock(&b->lock[part]);
	return left;
}

void bindings_drop_worker(struct bindings *b, uint64_t worker)
{
	for (size_t part = 0; part < PARTS; part++)
		(void)visit(b, part, &worker, 0);
}

void bindings_sweep(struct bindings *b, int64_t now)
{
	int64_t last = atomic_load_explicit(&b->swept, memory_order_relaxed);

	if (now - last < SWEEP_NS / PARTS || !atomic_compare_exchange_strong(&b->swept, &last, now))
		return;
	(void)visit(b, atomic_fetch_add(&b->next, 1) % PARTS, NULL, moment(now));
}

size_t bindings_count(struct bindings *b)
{
	size_t n = 0;

	for (size_t part = 0; part < PARTS; part++)
		n += visit(b, part, NULL, INT64_MIN / 2);
	return n;
}
