/* A lock of a few instructions, for memories of stages: nothing waits while it is held. */
#ifndef PD_ROUTE_SCORE_LOCK_H
#define PD_ROUTE_SCORE_LOCK_H

#include <stdatomic.h>

struct score_lock {
	atomic_flag held;
};

static inline void score_lock(struct score_lock *l)
{
	while (atomic_flag_test_and_set_explicit(&l->held, memory_order_acquire))
		continue;
}

static inline void score_unlock(struct score_lock *l)
{
	atomic_flag_clear_explicit(&l->held, memory_order_release);
}

#endif
