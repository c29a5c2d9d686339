/*
 * The bound for every hash (balls in bins): the load of the fullest worker when `n` sessions are
 * spread over `workers` workers by a perfect hash. A seeded Monte Carlo. With few sessions the mean
 * of max/mean is far above 1, whatever the ring is.
 */
#ifndef PD_SIM_FIGURES_BALLSBINS_H
#define PD_SIM_FIGURES_BALLSBINS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct ballsbins {
	double peak_to_mean; /* mean over the trials of (largest load / mean load) */
	double idle;	     /* mean number of workers that receive nothing */
	uint32_t trials;
};

/*
 * weight[i] is what ball i carries (NULL: 1 each), sum must be > 0. The trials shrink with n so
 * that about two million throws are made: 20 to 2000 trials. n = 0 or workers = 0 gives zeros.
 * PD_ENOMEM.
 */
int ballsbins_floor(size_t n, const uint32_t *weight, size_t workers, uint64_t seed,
		    struct ballsbins *out) PD_MUST;

#endif
