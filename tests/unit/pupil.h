/*
 * A policy that learns, so that tests see what policies are told: workers in the order of the list,
 * and a memory that counts events. One thread.
 */
#ifndef PD_TESTS_PUPIL_H
#define PD_TESTS_PUPIL_H

#include <stdlib.h>

#include "lib/route/policy.h"

/* Counts what it was told, and keeps the last of it. */
struct pupil {
	unsigned told[ROUTE_EVENTS];
	uint64_t worker, block;
	int64_t at;
	bool keyed;
};

static unsigned pupils;

static int pupil_new(const void *params, void **memory)
{
	(void)params;
	*memory = calloc(1, sizeof(struct pupil));
	pupils += *memory != NULL;
	return *memory ? PD_OK : PD_ENOMEM;
}

static void pupil_free(void *memory)
{
	pupils--;
	free(memory);
}

static void pupil_learn(void *memory, const struct route_event *e)
{
	struct pupil *p = memory;

	p->told[e->kind]++;
	p->worker = e->worker;
	p->at = e->at_ns;
	p->block = e->nblocks ? e->block[e->nblocks - 1] : 0;
	p->keyed = e->request && route_has_key(e->request);
}

static void pupil_begin(const struct route_view *v, void *walk)
{
	(void)v;
	*(uint32_t *)walk = 0;
}

static bool pupil_next(const struct route_view *v, void *walk, struct route_choice *c)
{
	uint32_t *at = walk;

	if (*at == v->pool->n)
		return false;
	*c = (struct route_choice){.worker = *at, .score = *at, .reason = ROUTE_REASON_LOAD};
	++*at;
	return true;
}

static const struct route_policy_type pupil_type = {
	.name = "pupil",
	.help = "in the order of the list",
	.walk_size = sizeof(uint32_t),
	.memory_new = pupil_new,
	.memory_free = pupil_free,
	.begin = pupil_begin,
	.next = pupil_next,
	.learn = pupil_learn,
};

#endif
