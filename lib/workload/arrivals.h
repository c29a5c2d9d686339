/*
 * Arrival processes: when each request is meant to be sent.
 *
 * The schedule is absolute and is never rescaled to hit a round total: a Poisson sample stays a
 * Poisson sample. The first request is at 0. Gaps are Gamma(shape = burstiness, scale = 1 / (rate *
 * burstiness)): burstiness 1 is Poisson, below 1 burstier, above 1 more regular, INFINITY constant.
 * Rate INFINITY: everything at 0. Pure; the same seed gives the same schedule.
 */
#ifndef PD_WORKLOAD_ARRIVALS_H
#define PD_WORKLOAD_ARRIVALS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Fills n times in ns, not decreasing. PD_EINVAL unless rate > 0 (requests per second) and
 * burstiness > 0. */
int arrivals_fill(int64_t *at_ns, size_t n, double rate, double burstiness, uint64_t seed) PD_MUST;

/* A stretch of time in which the rate goes in a straight line from one value to another: equal
 * values are a step, others a ramp. The last rate stays for what comes after the last phase. */
struct arrivals_phase {
	double seconds;	 /* more than 0 */
	double from, to; /* requests per second, 0 or more, finite; the last `to` more than 0 */
};

#define ARRIVALS_PHASES_MAX 1000

/*
 * The same for a rate that changes: a process of mean rate 1 (gaps as above) is stretched by the
 * integral of the rate, so that the gaps keep their shape. With one phase of equal values the times
 * are those of arrivals_fill, but for rounding.
 */
int arrivals_phases_fill(int64_t *at_ns, size_t n, const struct arrivals_phase *phase,
			 size_t nphases, double burstiness, uint64_t seed) PD_MUST;

#endif
