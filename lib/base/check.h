/*
 * PD_CHECK(condition): an assertion on entry, for what a header's contract asks of the caller
 * ("lock held", "on this loop", "n <= len").
 *
 * On when PD_CHECKS is defined: the Makefile does so for SAN=..., FUZZ=1 and DEBUG=1. A condition
 * that does not hold is written to standard error with its place, and the process aborts. Otherwise
 * the condition is compiled but never evaluated, so it must have no side effect. It is for defects
 * of this program only: what a user, a file or a peer got wrong is an error that is returned.
 */
#ifndef PD_BASE_CHECK_H
#define PD_BASE_CHECK_H

#include <pthread.h>
#include <stdbool.h>

#ifdef PD_CHECKS
#define PD_CHECK(condition)                                                                        \
	((condition) ? (void)0 : pd_check_failed(__FILE__, __LINE__, __func__, #condition))

_Noreturn void pd_check_failed(const char *file, int line, const char *function,
			       const char *condition);
#else
#define PD_CHECK(condition) ((void)(0 && (condition)))
#endif
/* The caller holds this pthread_mutex_t (or, which the check cannot tell, another thread does). */
#define PD_CHECK_LOCKED(mutex) PD_CHECK(pthread_mutex_trylock(mutex) != 0)

/* For PD_CHECK only: some thread holds the lock. (Which one a plain mutex does not know; a caller
 * that forgot it is found as soon as no other thread holds it.) */
static inline bool pd_lock_held(pthread_mutex_t *lock)
{
	if (pthread_mutex_trylock(lock) != 0)
		return true;
	(void)pthread_mutex_unlock(lock);
	return false;
}

#endif
