/* A heap in an array: no allocation per event, and the (time, sequence) order makes equal times
 * deterministic. */
#include "sim/replay/events.h"

#include <stdlib.h>

void events_init(struct events *q, size_t max)
{
	*q = (struct events){.max = max};
}

void events_release(struct events *q)
{
	free(q->heap);
	events_init(q, q->max);
}

static bool before(const struct event *a, const struct event *b)
{
	if (a->at != b->at)
		return a->at < b->at;
	return a->kind != b->kind ? a->kind < b->kind : a->seq < b->seq;
}

int events_push(struct events *q, const struct event *e)
{
	size_t at, cap = q->cap ? q->cap * 2 : 64;
	struct event add = *e, *heap;

	if (q->n >= q->max)
		return PD_ETOOBIG;
	if (q->n == q->cap) {
		heap = reallocarray(q->heap, cap, sizeof(*heap));
		if (!heap)
			return PD_ENOMEM;
		q->heap = heap;
		q->cap = cap;
	}
	add.seq = q->seq++;
	for (at = q->n++; at > 0 && before(&add, &q->heap[(at - 1) / 2]); at = (at - 1) / 2)
		q->heap[at] = q->heap[(at - 1) / 2];
	q->heap[at] = add;
	return PD_OK;
}

const struct event *events_peek(const struct events *q)
{
	return q->n > 0 ? &q->heap[0] : NULL;
}

bool events_pop(struct events *q, struct event *out)
{
	struct event last;
	size_t at = 0, child;

	if (q->n == 0)
		return false;
	*out = q->heap[0];
	last = q->heap[--q->n];
	while ((child = 2 * at + 1) < q->n) {
		if (child + 1 < q->n && before(&q->heap[child + 1], &q->heap[child]))
			child++;
		if (!before(&q->heap[child], &last))
			break;
		q->heap[at] = q->heap[child];
		at = child;
	}
	q->heap[at] = last;
	return true;
}
