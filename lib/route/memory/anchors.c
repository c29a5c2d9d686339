#include "lib/route/memory/anchors.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WAYS  4u
#define AHEAD 8 /* groups that are fetched before they are looked at */

/* `block` is written last and read first and last. 40 bytes. */
struct place {
	_Atomic uint64_t block, worker, root;
	_Atomic uint32_t used;
	_Atomic uint32_t rate; /* the bits of a float */
	_Atomic uint32_t root_depth;
	_Atomic uint32_t tail;
};

struct anchors {
	size_t groups; /* a power of two */
	struct place *place;
};

int anchors_new(struct anchors **out, size_t max)
{
	struct anchors *a = calloc(1, sizeof(*a));

	*out = NULL;
	if (!a)
		return PD_ENOMEM;
	max = max < ANCHORS_MIN ? ANCHORS_MIN : max > ANCHORS_MAX ? ANCHORS_MAX : max;
	for (a->groups = 1; a->groups * WAYS < max;)
		a->groups *= 2;
	a->place = calloc(a->groups * WAYS, sizeof(*a->place));
	if (!a->place) {
		free(a);
		return PD_ENOMEM;
	}
	*out = a;
	return PD_OK;
}

void anchors_free(struct anchors *a)
{
	if (a)
		free(a->place);
	free(a);
}

size_t anchors_bytes(const struct anchors *a)
{
	return sizeof(*a) + a->groups * WAYS * sizeof(*a->place);
}

/* Names of traces are small numbers: they are spread here. */
static struct place *group_of(const struct anchors *a, uint64_t block)
{
	uint64_t spread = block * UINT64_C(0x9e3779b97f4a7c15);

	return &a->place[((spread >> 32) & (a->groups - 1)) * WAYS];
}

/* A block of 0 marks a free place. */
static uint64_t name_of(uint64_t block)
{
	return block ? block : UINT64_C(0x5bd1e9955bd1e995);
}

static struct place *find(const struct anchors *a, uint64_t block)
{
	struct place *group = group_of(a, block);

	for (unsigned i = 0; i < WAYS; i++)
		if (atomic_load_explicit(&group[i].block, memory_order_acquire) == block)
			return &group[i];
	return NULL;
}

static bool read_place(struct place *p, struct anchor *out)
{
	uint32_t rate = atomic_load_explicit(&p->rate, memory_order_relaxed);

	out->worker = atomic_load_explicit(&p->worker, memory_order_relaxed);
	out->root = atomic_load_explicit(&p->root, memory_order_relaxed);
	out->root_depth = atomic_load_explicit(&p->root_depth, memory_order_relaxed);
	out->used = atomic_load_explicit(&p->used, memory_order_relaxed);
	out->tail = atomic_load_explicit(&p->tail, memory_order_relaxed);
	memcpy(&out->rate, &rate, sizeof(rate));
	return atomic_load_explicit(&p->block, memory_order_acquire) == out->block;
}

bool anchors_get(const struct anchors *a, uint64_t block, struct anchor *out)
{
	struct place *p = find(a, name_of(block));

	out->block = name_of(block);
	return p && read_place(p, out);
}

void anchors_put(struct anchors *a, const struct anchor *in)
{
	uint64_t block = name_of(in->block);
	struct place *p = find(a, block), *group = group_of(a, block);
	uint32_t rate;

	for (unsigned i = 0; !p && i < WAYS; i++)
		if (atomic_load_explicit(&group[i].block, memory_order_relaxed) == 0)
			p = &group[i];
	if (!p) {
		uint32_t oldest = 0;

		/* Numbers of picks may wrap around: what counts is the distance. */
		for (unsigned i = 0; i < WAYS; i++) {
			uint32_t age = in->used -
				       atomic_load_explicit(&group[i].used, memory_order_relaxed);

			if (p && age <= oldest)
				continue;
			p = &group[i];
			oldest = age;
		}
	}
	memcpy(&rate, &in->rate, sizeof(rate));
	if (atomic_load_explicit(&p->block, memory_order_relaxed) != block)
		atomic_store_explicit(&p->block, 0, memory_order_relaxed);
	atomic_store_explicit(&p->worker, in->worker, memory_order_relaxed);
	atomic_store_explicit(&p->root, in->root, memory_order_relaxed);
	atomic_store_explicit(&p->root_depth, in->root_depth, memory_order_relaxed);
	atomic_store_explicit(&p->used, in->used, memory_order_relaxed);
	atomic_store_explicit(&p->tail, in->tail, memory_order_relaxed);
	atomic_store_explicit(&p->rate, rate, memory_order_relaxed);
	atomic_store_explicit(&p->block, block, memory_order_release);
}

void anchors_forget(struct anchors *a, uint64_t block)
{
	struct place *p = find(a, name_of(block));

	if (p)
		atomic_store_explicit(&p->block, 0, memory_order_relaxed);
}

size_t anchors_deepest(const struct anchors *a, const uint64_t *block, size_t n, struct anchor *out)
{
	for (size_t i = 0; i < AHEAD && i < n; i++)
		__builtin_prefetch(group_of(a, name_of(block[n - 1 - i])));
	for (size_t i = n; i > 0; i--) {
		if (i > AHEAD)
			__builtin_prefetch(group_of(a, name_of(block[i - 1 - AHEAD])));
		if (anchors_get(a, block[i - 1], out))
			return i;
	}
	return 0;
}
