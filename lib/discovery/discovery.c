#include "lib/discovery/discovery.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

struct discovery_worker *discovery_add(struct discovery_list *l)
{
	if (l->n == DISCOVERY_WORKERS_MAX)
		return NULL;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 8;
		struct discovery_worker *more = realloc(l->worker, cap * sizeof(*more));

		if (!more)
			return NULL;
		l->worker = more;
		l->cap = cap;
	}
	memset(&l->worker[l->n], 0, sizeof(*l->worker));
	return &l->worker[l->n++];
}

void discovery_release(struct discovery_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		route_labels_release(&l->worker[i].labels);
	free(l->worker);
	*l = (struct discovery_list){0};
}

static bool same_worker(const struct discovery_worker *a, const struct discovery_worker *b)
{
	return a->role == b->role && strcmp(a->url, b->url) == 0 && strcmp(a->name, b->name) == 0 &&
	       a->dp_size == b->dp_size && a->bootstrap == b->bootstrap &&
	       route_labels_same(&a->labels, &b->labels);
}

bool discovery_same(const struct discovery_list *a, const struct discovery_list *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_worker(&a->worker[i], &b->worker[i]))
			return false;
	return true;
}

void discovery_note(const struct discovery_sink *s, bool good)
{
	if (s->stats && good)
		atomic_store(&s->stats->heard, clock_wall());
	else if (s->stats)
		atomic_fetch_add(&s->stats->failures, 1);
}

void discovery_publish(const struct discovery_sink *s, struct discovery_list *last,
		       struct discovery_list *now)
{
	if (!discovery_same(now, last)) {
		discovery_release(last);
		*last = *now;
		*now = (struct discovery_list){0};
		s->publish(s->ctx, last);
	}
	discovery_release(now);
}
