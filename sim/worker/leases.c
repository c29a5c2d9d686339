/*
 * Two lists in order of time (live leases, tombstones) and a hash table over both: expiry and
 * forgetting look at one end of a list, never at all entries.
 */
#include "sim/worker/leases.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

void leases_init(struct lease_table *t)
{
	memset(t, 0, sizeof(*t));
}

static void list_append(struct lease_list *list, struct lease *l)
{
	l->older = list->newest;
	l->newer = NULL;
	if (list->newest)
		list->newest->newer = l;
	else
		list->oldest = l;
	list->newest = l;
	list->n++;
}

static void list_remove(struct lease_list *list, struct lease *l)
{
	if (l->older)
		l->older->newer = l->newer;
	else
		list->oldest = l->newer;
	if (l->newer)
		l->newer->older = l->older;
	else
		list->newest = l->older;
	list->n--;
}

static size_t slot_of(struct span id)
{
	return (size_t)(XXH3_64bits(id.p, id.n) % LEASES_SLOTS);
}

static void forget_oldest(struct lease_table *t, struct lease_list *list)
{
	struct lease *l = list->oldest;
	struct lease **at = &t->slot[slot_of(span_of(l->request_id))];

	while (*at != l)
		at = &(*at)->chain;
	*at = l->chain;
	list_remove(list, l);
	free(l->request_id);
	free(l);
}

void leases_release(struct lease_table *t)
{
	while (t->live.oldest)
		forget_oldest(t, &t->live);
	while (t->dead.oldest)
		forget_oldest(t, &t->dead);
}

struct lease *leases_find(const struct lease_table *t, struct span request_id)
{
	struct lease *l = t->slot[slot_of(request_id)];

	while (l && !span_eq(span_of(l->request_id), request_id))
		l = l->chain;
	return l;
}

struct lease *leases_add(struct lease_table *t, struct span request_id, struct span xid,
			 int64_t expires, const struct lease_blocks *held)
{
	struct lease *l = calloc(1, sizeof(*l));
	struct lease **slot = &t->slot[slot_of(request_id)];

	if (!l)
		return NULL;
	l->request_id = calloc(1, request_id.n + xid.n + 2);
	if (!l->request_id) {
		free(l);
		return NULL;
	}
	memcpy(l->request_id, request_id.p, request_id.n);
	l->xid = l->request_id + request_id.n + 1;
	if (xid.n > 0)
		memcpy(l->xid, xid.p, xid.n);
	l->expires = expires;
	l->held = *held;
	l->chain = *slot;
	*slot = l;
	list_append(&t->live, l);
	while (t->live.n + t->dead.n > LEASES_MAX && t->dead.oldest)
		forget_oldest(t, &t->dead);
	return l;
}

struct lease *leases_due(const struct lease_table *t, int64_t now)
{
	struct lease *l = t->live.oldest;

	return l && (l->expires <= now || t->live.n > LEASES_MAX) ? l : NULL;
}

void leases_end(struct lease_table *t, struct lease *l, enum lease_state state,
		struct lease_blocks *held)
{
	list_remove(&t->live, l);
	*held = l->held;
	l->held = (struct lease_blocks){0};
	l->state = state;
	list_append(&t->dead, l);
}
