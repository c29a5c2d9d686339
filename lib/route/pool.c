/*
 * Building the ring. It is one flat sorted array: looking up is a binary search over memory that
 * lies together, and two pools of the same names are equal byte for byte, so that several routers
 * agree.
 */
#include "lib/route/pool.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const char *const *names, size_t n, struct pd_msg *msg)
{
	const char **sorted = calloc(n ? n : 1, sizeof(*sorted));
	int err = PD_OK;

	if (!sorted)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++)
		sorted[i] = names[i];
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n && !err; i++) {
		size_t len = strlen(sorted[i]);

		if (len == 0 || len > ROUTE_NAME_MAX)
			err = pd_fail(msg, PD_EINVAL,
				      "worker name of %zu bytes, expected 1 to %d: '%.40s'", len,
				      ROUTE_NAME_MAX, sorted[i]);
		else if (i > 0 && strcmp(sorted[i], sorted[i - 1]) == 0)
			err = pd_fail(msg, PD_EINVAL, "two workers have the name '%s'", sorted[i]);
	}
	free(sorted);
	return err;
}

static int check_sizes(size_t n, unsigned vnodes, struct pd_msg *msg)
{
	if (n > ROUTE_WORKERS_MAX)
		return pd_fail(msg, PD_EINVAL, "%zu workers in one pool, expected at most %d", n,
			       ROUTE_WORKERS_MAX);
	if (vnodes < 1 || vnodes > ROUTE_VNODES_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "%u virtual nodes per worker, expected a number from 1 to %d",
			       vnodes, ROUTE_VNODES_MAX);
	if (n * vnodes > ROUTE_POINTS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "%zu workers with %u virtual nodes each, expected at most %u in all",
			       n, vnodes, ROUTE_POINTS_MAX);
	return PD_OK;
}

static int by_pos(const void *a, const void *b)
{
	const struct route_point *x = a, *y = b;

	if (x->pos != y->pos)
		return x->pos < y->pos ? -1 : 1;
	return x->worker < y->worker ? -1 : x->worker > y->worker;
}

static void place_points(struct route_pool *p)
{
	char text[ROUTE_NAME_MAX + 16];

	for (size_t w = 0; w < p->n; w++) {
		size_t len = strlen(p->worker[w].name);

		memcpy(text, p->worker[w].name, len);
		for (unsigned v = 0; v < p->vnodes; v++) {
			int tail = snprintf(text + len, sizeof(text) - len, ":%u", v);

			p->point[p->npoints++] = (struct route_point){
				route_hash(p->hash, text, len + (size_t)tail), (uint32_t)w};
		}
	}
	qsort(p->point, p->npoints, sizeof(*p->point), by_pos);
}

/* Of points at one position the last stays. */
static void drop_hidden_points(struct route_pool *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->npoints; i++) {
		if (i + 1 < p->npoints && p->point[i].pos == p->point[i + 1].pos)
			continue;
		p->point[kept++] = p->point[i];
	}
	p->npoints = kept;
}

static size_t count_on_ring(const struct route_pool *p)
{
	bool seen[ROUTE_WORKERS_MAX] = {false};
	size_t n = 0;

	for (size_t i = 0; i < p->npoints; i++) {
		n += !seen[p->point[i].worker];
		seen[p->point[i].worker] = true;
	}
	return n;
}

static int fill(struct route_pool *p, const char *const *names, struct route_slot *const *slots,
		size_t n)
{
	p->worker = calloc(n ? n : 1, sizeof(*p->worker));
	p->point = calloc(n ? n * p->vnodes : 1, sizeof(*p->point));
	if (!p->worker || !p->point)
		return PD_ENOMEM;
	for (; p->n < n; p->n++) {
		p->worker[p->n].name = strdup(names[p->n]);
		p->worker[p->n].slot = slots[p->n];
		if (!p->worker[p->n].name)
			return PD_ENOMEM;
	}
	place_points(p);
	drop_hidden_points(p);
	p->on_ring = count_on_ring(p);
	return PD_OK;
}

int route_pool_new(struct route_pool **out, const char *const *names,
		   struct route_slot *const *slots, size_t n, enum route_hash hash, unsigned vnodes,
		   struct pd_msg *msg)
{
	struct route_pool *p;
	int err = check_sizes(n, vnodes, msg);

	*out = NULL;
	if (!err)
		err = check_names(names, n, msg);
	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return PD_ENOMEM;
	p->hash = hash;
	p->vnodes = vnodes;
	err = fill(p, names, slots, n);
	if (err) {
		route_pool_free(p);
		return err;
	}
	*out = p;
	return PD_OK;
}

void route_pool_free(struct route_pool *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		free(p->worker[i].name);
	free(p->worker);
	free(p->point);
	free(p);
}

/* Without branches that depend on the data: which half comes next is never predictable. */
size_t route_pool_lookup(const struct route_pool *p, uint64_t h)
{
	const struct route_point *base = p->point;
	size_t n = p->npoints;

	while (n > 1) {
		size_t half = n / 2;

		base += base[half - 1].pos < h ? half : 0;
		n -= half;
	}
	base += base->pos < h;
	return base == p->point + p->npoints ? 0 : (size_t)(base - p->point);
}
