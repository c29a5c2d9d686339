/* Few transfers flow at a time, so all are looked at when one begins or ends. */
#include "sim/engine/links.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/base/clock.h"

struct link_transfer {
	void *owner;
	uint32_t from, to;
	int64_t begin; /* set-up over */
	int64_t end;   /* as it looks now */
	double left;   /* ns of both links alone */
	double share;
	bool flows;
};

int links_init(struct links *l, size_t senders, size_t receivers)
{
	*l = (struct links){.next = CLOCK_NEVER};
	l->out = calloc(senders + 1, sizeof(*l->out));
	l->in = calloc(receivers + 1, sizeof(*l->in));
	if (l->out && l->in)
		return PD_OK;
	links_release(l);
	return PD_ENOMEM;
}

void links_release(struct links *l)
{
	free(l->t);
	free(l->out);
	free(l->in);
	*l = (struct links){.next = CLOCK_NEVER};
}

/* Accounts for what has flowed until `now`. */
static void account(struct links *l, int64_t now)
{
	for (size_t i = 0; i < l->n; i++) {
		struct link_transfer *t = &l->t[i];

		if (!t->flows)
			continue;
		t->left -= t->share * (double)(now - l->last);
		if (t->left < 0 || t->end <= now)
			t->left = 0;
	}
	l->last = now;
}

/* Begins what is set up, and shares the links anew. */
static void share(struct links *l, int64_t now)
{
	l->next = CLOCK_NEVER;
	for (size_t i = 0; i < l->n; i++) {
		struct link_transfer *t = &l->t[i];

		if (t->flows || t->begin > now)
			continue;
		t->flows = true;
		l->out[t->from]++;
		l->in[t->to]++;
	}
	for (size_t i = 0; i < l->n; i++) {
		struct link_transfer *t = &l->t[i];
		uint32_t most;

		if (t->flows) {
			most = l->out[t->from] > l->in[t->to] ? l->out[t->from] : l->in[t->to];
			t->share = 1.0 / most;
			t->end = now + (int64_t)ceil(t->left * most);
		}
		if ((t->flows ? t->end : t->begin) < l->next)
			l->next = t->flows ? t->end : t->begin;
	}
}

int links_start(struct links *l, int64_t now, uint32_t from, uint32_t to, int64_t set_up_ns,
		int64_t alone_ns, void *owner)
{
	size_t cap = l->cap ? l->cap * 2 : 16;
	struct link_transfer *grown;

	if (l->n == l->cap) {
		grown = reallocarray(l->t, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		l->t = grown;
		l->cap = cap;
	}
	account(l, now);
	l->t[l->n++] = (struct link_transfer){.owner = owner,
					      .from = from,
					      .to = to,
					      .begin = now + set_up_ns,
					      .left = (double)alone_ns};
	share(l, now);
	return PD_OK;
}

static void take_out(struct links *l, size_t i)
{
	if (l->t[i].flows) {
		l->out[l->t[i].from]--;
		l->in[l->t[i].to]--;
	}
	l->n--;
	for (; i < l->n; i++)
		l->t[i] = l->t[i + 1];
}

void links_cancel(struct links *l, int64_t now, const void *owner)
{
	account(l, now);
	for (size_t i = l->n; i-- > 0;)
		if (l->t[i].owner == owner)
			take_out(l, i);
	share(l, now);
}

void *links_ended(struct links *l, int64_t now)
{
	if (l->next > now)
		return NULL;
	account(l, now);
	for (size_t i = 0; i < l->n; i++) {
		void *owner = l->t[i].owner;

		if (!l->t[i].flows || l->t[i].end > now)
			continue;
		take_out(l, i);
		share(l, now);
		/* More of the same instant are found before the next begin. */
		return owner;
	}
	share(l, now);
	return l->next <= now ? links_ended(l, now) : NULL;
}
