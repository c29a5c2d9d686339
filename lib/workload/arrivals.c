#include "lib/workload/arrivals.h"

#include <math.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"

/* Later than this a schedule is not a schedule any more; keeps sums far away from overflow. */
#define ARRIVALS_MAX_S 3.0e9

int arrivals_fill(int64_t *at_ns, size_t n, double rate, double burstiness, uint64_t seed)
{
	struct rng rng;
	double t = 0;

	if (!(rate > 0) || !(burstiness > 0))
		return PD_EINVAL;
	if (isinf(rate)) {
		memset(at_ns, 0, n * sizeof(*at_ns));
		return PD_OK;
	}
	rng_seed(&rng, seed);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			t += isinf(burstiness)
				     ? 1 / rate
				     : rng_gamma(&rng, burstiness, 1 / (rate * burstiness));
		/* constant gaps are multiplied, not summed: no error grows over a long run */
		if (isinf(burstiness))
			t = (double)i / rate;
		if (t > ARRIVALS_MAX_S)
			return PD_ETOOBIG;
		at_ns[i] = llround(t * (double)NS_PER_S);
	}
	return PD_OK;
}

/* Seconds into the phase at which `work` requests have come: the integral of the rate there is
 * from * t + (to - from) / (2 * seconds) * t^2. The form below has no cancellation. */
static double moment_in(const struct arrivals_phase *p, double work)
{
	double slope = (p->to - p->from) / p->seconds;
	double root = sqrt(fmax(0, p->from * p->from + 2 * slope * work));

	return p->from + root > 0 ? 2 * work / (p->from + root) : 0;
}

int arrivals_phases_fill(int64_t *at_ns, size_t n, const struct arrivals_phase *phase,
			 size_t nphases, double burstiness, uint64_t seed)
{
	struct rng rng;
	double work = 0, before = 0, start = 0; /* requests so far; at the start of the phase */
	size_t k = 0;

	if (nphases == 0 || nphases > ARRIVALS_PHASES_MAX || !(burstiness > 0))
		return PD_EINVAL;
	for (size_t i = 0; i < nphases; i++)
		if (!(phase[i].seconds > 0 && phase[i].seconds < ARRIVALS_MAX_S &&
		      phase[i].from >= 0 && phase[i].to >= 0 && isfinite(phase[i].from) &&
		      isfinite(phase[i].to)))
			return PD_EINVAL;
	if (!(phase[nphases - 1].to > 0))
		return PD_EINVAL;
	rng_seed(&rng, seed);
	for (size_t i = 0; i < n; i++) {
		double t;

		if (i > 0)
			work += isinf(burstiness) ? 1 : rng_gamma(&rng, burstiness, 1 / burstiness);
		for (; k < nphases; k++) {
			double whole = (phase[k].from + phase[k].to) / 2 * phase[k].seconds;

			/* a phase at rate 0 is passed, not lived in */
			if (work - before < whole || (i == 0 && whole > 0))
				break;
			before += whole;
			start += phase[k].seconds;
		}
		t = start + (k < nphases ? moment_in(&phase[k], work - before)
					 : (work - before) / phase[nphases - 1].to);
		if (t > ARRIVALS_MAX_S)
			return PD_ETOOBIG;
		at_ns[i] = llround(t * (double)NS_PER_S);
	}
	return PD_OK;
}
