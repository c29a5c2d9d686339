#include "lib/route/prefix.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t route_block(uint64_t parent, const void *p, size_t n)
{
	return XXH3_64bits_withSeed(p, n, parent);
}

size_t route_blocks(uint64_t parent, const void *p, size_t n, size_t block, uint64_t *out,
		    size_t max)
{
	size_t full = block ? n / block : 0;

	full = full < max ? full : max;
	for (size_t i = 0; i < full; i++)
		out[i] = parent = route_block(parent, (const char *)p + i * block, block);
	return full;
}
