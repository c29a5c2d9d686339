/* Seeds from the system: a file of its own, so that libpdroute carries no clock. */
#include <sys/random.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"

void rng_system_bytes(unsigned char *out, size_t n)
{
	uint64_t fallback = (uint64_t)clock_wall() ^ (uint64_t)(uintptr_t)out;
	ssize_t got = getrandom(out, n, 0);

	for (size_t i = got > 0 ? (size_t)got : 0; i < n; i++)
		out[i] = (unsigned char)rng_splitmix(&fallback);
}
