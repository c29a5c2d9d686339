/* Plain Monte Carlo: no closed form exists for weighted balls, and the throws cost milliseconds. */
#include "sim/figures/ballsbins.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"

#define THROWS	   2000000u
#define TRIALS_MIN 20u
#define TRIALS_MAX 2000u

int ballsbins_floor(size_t n, const uint32_t *weight, size_t workers, uint64_t seed,
		    struct ballsbins *out)
{
	size_t trials = n > 0 ? THROWS / n : 0;
	struct rng rng;
	uint64_t *load;

	*out = (struct ballsbins){0};
	if (n == 0 || workers == 0)
		return PD_OK;
	load = calloc(workers, sizeof(*load));
	if (!load)
		return PD_ENOMEM;
	rng_seed(&rng, seed);
	out->trials = trials < TRIALS_MIN   ? TRIALS_MIN
		      : trials > TRIALS_MAX ? TRIALS_MAX
					    : (uint32_t)trials;
	for (uint32_t t = 0; t < out->trials; t++) {
		uint64_t peak = 0, total = 0;
		size_t idle = 0;

		memset(load, 0, workers * sizeof(*load));
		for (size_t i = 0; i < n; i++)
			load[rng_below(&rng, workers)] += weight ? weight[i] : 1;
		for (size_t w = 0; w < workers; w++) {
			peak = load[w] > peak ? load[w] : peak;
			idle += load[w] == 0;
			total += load[w];
		}
		out->idle += (double)idle;
		if (total > 0)
			out->peak_to_mean += (double)peak * (double)workers / (double)total;
	}
	out->peak_to_mean /= out->trials;
	out->idle /= out->trials;
	free(load);
	return PD_OK;
}
