/*
 * A heap of what may be sent by its intended time. A turn enters when the turn before it has
 * ended; a session beyond the limit is parked with its intended time, so that waiting shows as
 * queue time and not as a late schedule.
 */
#include "lib/load/schedule.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

static bool earlier(const struct schedule_entry *a, const struct schedule_entry *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->item < b->item);
}

static void push(struct schedule *s, struct schedule_entry e)
{
	size_t i = s->nheap++;

	PD_CHECK(i < s->n);
	while (i > 0 && earlier(&e, &s->heap[(i - 1) / 2])) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = e;
}

static struct schedule_entry pop(struct schedule *s)
{
	struct schedule_entry top = s->heap[0], last = s->heap[--s->nheap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < s->nheap) {
		if (child + 1 < s->nheap && earlier(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!earlier(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

static int count_sessions(struct schedule *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].session_no != WORKLOAD_NO_SESSION &&
		    s->items[i].session_no >= s->nsessions)
			s->nsessions = (size_t)s->items[i].session_no + 1;
	s->session_left = calloc(s->nsessions + 1, sizeof(*s->session_left));
	s->session_open = calloc(s->nsessions + 1, sizeof(*s->session_open));
	if (!s->session_left || !s->session_open)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].session_no != WORKLOAD_NO_SESSION)
			s->session_left[s->items[i].session_no]++;
	return PD_OK;
}

static int link_turns(struct schedule *s)
{
	for (size_t i = 0; i < s->n; i++)
		s->after[i] = LOAD_NO_TURN;
	for (size_t i = 0; i < s->n; i++) {
		uint32_t before = s->items[i].before;

		if (before == LOAD_NO_TURN) {
			push(s, (struct schedule_entry){s->items[i].at_ns, s->items[i].at_ns,
							(uint32_t)i});
			continue;
		}
		if (before >= i || s->after[before] != LOAD_NO_TURN)
			return PD_EINVAL;
		s->after[before] = (uint32_t)i;
	}
	return PD_OK;
}

int schedule_init(struct schedule *s, const struct load_item *items, size_t n, int64_t sessions_max)
{
	int err;

	*s = (struct schedule){.items = items, .n = n, .sessions_max = sessions_max};
	s->heap = calloc(n + 1, sizeof(*s->heap));
	s->parked = calloc(n + 1, sizeof(*s->parked));
	s->after = calloc(n + 1, sizeof(*s->after));
	err = s->heap && s->parked && s->after ? count_sessions(s) : PD_ENOMEM;
	if (!err)
		err = link_turns(s);
	if (err)
		schedule_release(s);
	return err;
}

void schedule_release(struct schedule *s)
{
	free(s->heap);
	free(s->parked);
	free(s->after);
	free(s->session_left);
	free(s->session_open);
	*s = (struct schedule){0};
}

static bool needs_place(const struct schedule *s, uint32_t item)
{
	uint32_t session = s->items[item].session_no;

	return s->sessions_max > 0 && session != WORKLOAD_NO_SESSION && !s->session_open[session];
}

int64_t schedule_next(struct schedule *s)
{
	while (s->nheap > 0 && needs_place(s, s->heap[0].item) &&
	       s->sessions_now >= s->sessions_max)
		s->parked[s->nparked++] = pop(s);
	return s->nheap > 0 ? s->heap[0].at_ns : CLOCK_NEVER;
}

struct schedule_entry schedule_take(struct schedule *s)
{
	struct schedule_entry e;

	PD_CHECK(s->nheap > 0);
	e = pop(s);
	if (needs_place(s, e.item)) {
		PD_CHECK(s->sessions_now < s->sessions_max);
		s->session_open[s->items[e.item].session_no] = true;
		s->sessions_now++;
	}
	return e;
}

static void session_ended(struct schedule *s, uint32_t session, int64_t now_ns)
{
	if (!s->session_open[session])
		return;
	s->session_open[session] = false;
	s->sessions_now--;
	if (s->parked_at < s->nparked) {
		struct schedule_entry e = s->parked[s->parked_at++];

		e.since_ns = now_ns > e.at_ns ? now_ns : e.at_ns;
		push(s, e);
	}
}

void schedule_ended(struct schedule *s, uint32_t item, int64_t now_ns)
{
	uint32_t next, session;

	PD_CHECK(item < s->n);
	next = s->after[item];
	session = s->items[item].session_no;
	PD_CHECK(session == WORKLOAD_NO_SESSION || s->session_left[session] > 0);
	if (next != LOAD_NO_TURN) {
		int64_t think = s->items[next].request->delay_ns,
			at = now_ns + (think > 0 ? think : 0);

		if (at < s->items[next].at_ns)
			at = s->items[next].at_ns;
		push(s, (struct schedule_entry){at, at, next});
	}
	if (session != WORKLOAD_NO_SESSION && --s->session_left[session] == 0)
		session_ended(s, session, now_ns);
}

bool schedule_empty(const struct schedule *s)
{
	return s->nheap == 0 && s->parked_at == s->nparked;
}
