/* Memory that is given back all at once, with the configuration that it belongs to. */
#ifndef PD_ROUTE_SCORE_ARENA_H
#define PD_ROUTE_SCORE_ARENA_H

#include <stddef.h>

struct score_arena {
	struct score_block *last; /* owned */
};

void score_arena_release(struct score_arena *a);

#endif
