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
