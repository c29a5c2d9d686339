#include "lib/route/policy/ring.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_pos(const void *a, const void *b)
{
	const struct ring_point *x = a, *y = b;

	if (x->pos != y->pos)
		return x->pos < y->pos ? -1 : 1;
	return x->worker < y->worker ? -1 : x->worker > y->worker;
}

static void place_points(struct ring *r, const struct route_pool *pool)
{
	char text[ROUTE_NAME_MAX + 16];

	for (size_t w = 0; w < pool->n; w++) {
		size_t len = strlen(pool->worker[w].name);

		memcpy(text, pool->worker[w].name, len);
		for (unsigned v = 0; v < r->vnodes * pool->worker[w].weight; v++) {
			int tail = snprintf(text + len, sizeof(text) - len, ":%u", v);

			r->point[r->npoints++] = (struct ring_point){
				route_hash(r->hash, text, len + (size_t)tail), (uint32_t)w};
		}
	}
	qsort(r->point, r->npoints, sizeof(*r->point), by_pos);
}

/* Of points at one position the last stays. */
static void drop_hidden_points(struct ring *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->npoints; i++) {
		if (i + 1 < r->npoints && r->point[i].pos == r->point[i + 1].pos)
			continue;
		r->point[kept++] = r->point[i];
	}
	r->npoints = kept;
}

static size_t count_on_ring(const struct ring *r)
{
	bool seen[ROUTE_WORKERS_MAX] = {false};
	size_t n = 0;

	for (size_t i = 0; i < r->npoints; i++) {
		n += !seen[r->point[i].worker];
		seen[r->point[i].worker] = true;
	}
	return n;
}

int ring_new(struct ring **out, const struct route_pool *pool, enum route_hash hash,
	     unsigned vnodes, struct pd_msg *msg)
{
	uint64_t points = pool->weight * vnodes;
	struct ring *r;

	*out = NULL;
	if (vnodes < 1 || vnodes > ROUTE_VNODES_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "found %u virtual nodes per worker, expected a number from 1 to %d",
			       vnodes, ROUTE_VNODES_MAX);
	if (points > ROUTE_POINTS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "found %zu workers%s with %u virtual nodes each, expected at most "
			       "%u in all",
			       pool->n, pool->weighted ? " of several weights" : "", vnodes,
			       ROUTE_POINTS_MAX);
	r = calloc(1, sizeof(*r));
	if (!r)
		return PD_ENOMEM;
	r->hash = hash;
	r->vnodes = vnodes;
	r->point = calloc(points ? points : 1, sizeof(*r->point));
	if (!r->point) {
		ring_free(r);
		return PD_ENOMEM;
	}
	place_points(r, pool);
	drop_hidden_points(r);
	r->on_ring = count_on_ring(r);
	*out = r;
	return PD_OK;
}

void ring_free(struct ring *r)
{
	if (r)
		free(r->point);
	free(r);
}

/* Without branches that depend on the data: which half comes next is never predictable. */
size_t ring_lookup(const struct ring *r, uint64_t h)
{
	const struct ring_point *base = r->point;
	size_t n = r->npoints;

	while (n > 1) {
		size_t half = n / 2;

		base += base[half - 1].pos < h ? half : 0;
		n -= half;
	}
	base += base->pos < h;
	return base == r->point + r->npoints ? 0 : (size_t)(base - r->point);
}

void ring_walk_begin(struct ring_walk *w, const struct ring *r, size_t n, uint64_t hash,
		     bool nearest)
{
	w->hash = hash;
	w->nearest = nearest;
	w->at = r->npoints ? ring_lookup(r, hash) : 0;
	w->back = w->at == 0 ? r->npoints - 1 : w->at - 1;
	w->left = r->npoints;
	w->found = w->missing = 0;
	memset(w->seen, 0, (n + 63) / 64 * sizeof(*w->seen));
}

static bool mark(struct ring_walk *w, uint32_t worker)
{
	uint64_t bit = (uint64_t)1 << worker % 64, *word = &w->seen[worker / 64];
	bool fresh = !(*word & bit);

	*word |= bit;
	w->found += fresh;
	return fresh;
}

bool ring_walk_next(struct ring_walk *w, const struct ring *r, size_t n, uint32_t *worker,
		    double *far)
{
	while (w->left > 0 && w->found < r->on_ring) {
		const struct ring_point *ahead = &r->point[w->at], *behind = &r->point[w->back];
		bool back = w->nearest && w->hash - behind->pos < ahead->pos - w->hash;
		const struct ring_point *p = back ? behind : ahead;

		if (back)
			w->back = w->back == 0 ? r->npoints - 1 : w->back - 1;
		else
			w->at = w->at + 1 == r->npoints ? 0 : w->at + 1;
		w->left--;
		if (!mark(w, p->worker))
			continue;
		*worker = p->worker;
		*far = (double)(back ? w->hash - p->pos : p->pos - w->hash) /
		       18446744073709551616.0;
		return true;
	}
	/* A worker whose points all collided is still there, a whole turn away. */
	for (; w->missing < n; w->missing++) {
		if (!mark(w, (uint32_t)w->missing))
			continue;
		*worker = (uint32_t)w->missing;
		*far = 1;
		return true;
	}
	return false;
}
