/* Numbers for names in order of appearance (sessions of a workload). Names are borrowed. Not
 * thread-safe: one owner. */
#ifndef PD_WORKLOAD_NAMES_H
#define PD_WORKLOAD_NAMES_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

struct names {
	struct names_slot *slot; /* owned; open addressing, a power of two */
	size_t cap;
	uint32_t n;
};

void names_init(struct names *t);
void names_release(struct names *t);
/* The number of this name, a new one (== the old n) when it is seen for the first time. The bytes
 * must outlive the table. */
int names_number(struct names *t, struct span name, uint32_t *out) PD_MUST;
/* Its number when it was seen before, else false. */
bool names_find(const struct names *t, struct span name, uint32_t *out);

#endif
