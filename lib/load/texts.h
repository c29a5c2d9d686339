/* Texts that the records of a run point to: owned by its outcome, equal ones kept once. Internal to
 * lib/load. Owner thread only. */
#ifndef PD_LOAD_TEXTS_H
#define PD_LOAD_TEXTS_H

#include "lib/load/load.h"
#include "lib/workload/names.h"

struct texts {
	struct load_outcome *out;
	struct names names;
	size_t *at; /* owned: index in out->owned of each interned text */
	size_t cap;
	const char *last; /* the one that was asked for last: workers repeat */
	int err;	  /* PD_ENOMEM once memory is out */
};

void texts_init(struct texts *t, struct load_outcome *out);
void texts_release(struct texts *t);
/* Takes over an allocated text; NULL (out of memory) is noted in err. */
const char *texts_own(struct texts *t, char *text);
/* One copy of each distinct text; NULL for an empty one. */
const char *texts_intern(struct texts *t, const char *text);

#endif
