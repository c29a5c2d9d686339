#include "lib/router/fleet/known.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

#define INQUIRY_SOON  NS_PER_S /* when nothing is known */
#define INQUIRY_AGAIN (30 * NS_PER_S)

void known_forget(struct worker *w)
{
	PD_CHECK_LOCKED(&w->lock);
	free(w->known);
	w->known = NULL;
	w->known_n = 0;
	atomic_store_explicit(&w->knows, false, memory_order_relaxed);
}

bool known_learn(struct worker *w, struct span text, int64_t now)
{
	char *copy = text.n > 0 && text.n <= KNOWN_MAX ? malloc(text.n) : NULL;
	bool first;

	if (copy)
		memcpy(copy, text.p, text.n);
	(void)pthread_mutex_lock(&w->lock);
	first = w->known_at == 0;
	known_forget(w);
	w->known = copy;
	w->known_n = copy ? text.n : 0;
	w->known_at = now;
	atomic_store_explicit(&w->knows, copy != NULL, memory_order_relaxed);
	(void)pthread_mutex_unlock(&w->lock);
	return first;
}

int known_get(struct worker *w, struct buf *out)
{
	int err = PD_OK;

	buf_clear(out);
	if (!atomic_load_explicit(&w->knows, memory_order_relaxed))
		return PD_OK;
	(void)pthread_mutex_lock(&w->lock);
	if (w->known)
		err = buf_append(out, w->known, w->known_n);
	(void)pthread_mutex_unlock(&w->lock);
	return err;
}

bool known_due(struct worker *w, const struct router_config *c, int64_t now)
{
	int64_t wait = atomic_load_explicit(&w->knows, memory_order_relaxed) ? INQUIRY_AGAIN
									     : INQUIRY_SOON;
	bool due;

	if (!c->inquiry || w->role != ROLE_PREFILL || !atomic_load(&w->slot.available))
		return false;
	(void)pthread_mutex_lock(&w->lock);
	due = w->known_at == 0 || now >= w->known_at + wait;
	(void)pthread_mutex_unlock(&w->lock);
	return due;
}
