/*
 * A reader counts itself in at the place that is current and looks again whether it still is; only
 * then it reads. Either the writer, who makes another place current first and reads the counts
 * afterwards, sees this reader, or the reader sees that the place is not current any more and goes
 * back. All of these are sequentially consistent operations, else both could miss each other. A
 * place that became current again meanwhile is as good: it is full, and the reader is counted.
 */
#include "lib/base/swap.h"

#include "lib/base/check.h"
#include "lib/base/clock.h"

static _Atomic unsigned threads;
static _Thread_local unsigned stripe; /* 0: not given yet */

struct swap_look swap_enter(struct swap *s)
{
	struct swap_look look;

	if (stripe == 0)
		stripe = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
	for (;;) {
		look.place = atomic_load(&s->current);
		look.counted = &s->readers[look.place][stripe % SWAP_STRIPES].n;
		atomic_fetch_add(look.counted, 1);
		if (atomic_load(&s->current) == look.place)
			return look;
		atomic_fetch_sub(look.counted, 1);
	}
}

void swap_leave(struct swap_look look)
{
	PD_CHECK(atomic_load(look.counted) > 0);
	atomic_fetch_sub(look.counted, 1);
}

unsigned swap_spare(const struct swap *s)
{
	return 1 - atomic_load(&s->current);
}

unsigned swap_publish(struct swap *s)
{
	unsigned old = atomic_load(&s->current);

	atomic_store(&s->current, 1 - old);
	for (unsigned i = 0; i < SWAP_STRIPES; i++)
		while (atomic_load(&s->readers[old][i].n) > 0)
			clock_sleep_until(clock_now() + NS_PER_MS / 10);
	return old;
}
