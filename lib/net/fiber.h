/*
 * Stacks that can be left and entered again (stackful coroutines). The code that runs on one reads
 * as if it blocked; where it would, it switches back to the thread's own stack. No scheduling here:
 * that is loop.c. A fiber is bound to the thread that first enters it. Not thread-safe.
 *
 * AddressSanitizer and ThreadSanitizer are told about every switch.
 */
#ifndef PD_NET_FIBER_H
#define PD_NET_FIBER_H

#include <stddef.h>

#include "lib/base/err.h"

struct fiber_stack {
	void *sp;	       /* where it goes on, while it is not running */
	void *base;	       /* lowest usable byte; below it lies a page without access */
	size_t size;	       /* usable bytes */
	void (*entry)(void *); /* NULL: the thread's own stack */
	void *arg;
	void *asan_fake, *tsan; /* the sanitizers' view */
};

/* The calling thread's own stack, to come back to. */
void fiber_stack_thread(struct fiber_stack *t);
/* A new stack of at least `size` bytes. `entry` runs at the first switch and must not return.
 * PD_ENOMEM. */
int fiber_stack_init(struct fiber_stack *f, size_t size, void (*entry)(void *), void *arg) PD_MUST;
/* Never the one that runs. */
void fiber_stack_release(struct fiber_stack *f);
/* Leaves `from`, which runs now, and enters `to`; returns when `from` is entered again. */
void fiber_switch(struct fiber_stack *from, struct fiber_stack *to);
/* Gives the untouched part of the running stack back to the system: what was used deeper than here
 * costs memory no longer. A system call. */
void fiber_trim(struct fiber_stack *self);

#endif
