/*
 * What many threads look at and one replaces now and then (the workers, the keys of clients): two
 * places, one of them current. A reader takes no lock and never waits for a writer; a writer waits
 * for the readers that are looking at what it has just replaced.
 *
 *	struct swap_look look = swap_enter(&s);		place[1 - current] = fresh;
 *	take what is needed from place[look.place];	old = swap_publish(&s);
 *	swap_leave(look);				release place[old], no reader is there
 *
 * A look must be short, a few instructions: what is needed for longer has a count of references,
 * which is taken within the look. Writers exclude each other by a lock of their own. All zeros:
 * place 0 is current.
 */
#ifndef PD_BASE_SWAP_H
#define PD_BASE_SWAP_H

#include <stdatomic.h>

#define SWAP_STRIPES 16 /* threads count themselves in where few others do */

struct swap {
	_Atomic unsigned current;
	struct swap_readers {
		_Atomic unsigned n;
	} __attribute__((aligned(64))) readers[2][SWAP_STRIPES];
};

struct swap_look {
	unsigned place;
	_Atomic unsigned *counted; /* where this reader was counted in */
};

struct swap_look swap_enter(struct swap *s);
void swap_leave(struct swap_look look);
/* For the writer: the place to fill. */
unsigned swap_spare(const struct swap *s);
/* Makes the spare place current and waits until no reader is at the other one, which it returns. */
unsigned swap_publish(struct swap *s);

#endif
