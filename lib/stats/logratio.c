/* What a test can find is planned with central t quantiles on both sides, which is within a few
 * per cent of the noncentral t for 4 runs and more. */
#include "lib/stats/logratio.h"

#include <math.h>
#include <stdint.h>

#include "lib/stats/student.h"

#define RUNS_MAX 1000
#define ROUNDING 1e-13 /* deviations of logs below this come from sums, not from runs */

static int moments(const double *v, size_t n, double *mean, double *sd)
{
	double sum = 0, squares = 0;

	if (n < 2)
		return PD_EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!(v[i] > 0) || !isfinite(v[i]))
			return PD_EINVAL;
		sum += log(v[i]);
	}
	*mean = sum / (double)n;
	for (size_t i = 0; i < n; i++)
		squares += (log(v[i]) - *mean) * (log(v[i]) - *mean);
	*sd = sqrt(squares / (double)(n - 1));
	*sd = *sd > ROUNDING ? *sd : 0;
	return PD_OK;
}

int logratio_welch(const double *a, size_t na, const double *b, size_t nb, struct logratio *out)
{
	double ma, mb, va, vb;
	int err = moments(a, na, &ma, &out->sd[0]);

	if (!err)
		err = moments(b, nb, &mb, &out->sd[1]);
	if (err)
		return err;
	va = out->sd[0] * out->sd[0] / (double)na;
	vb = out->sd[1] * out->sd[1] / (double)nb;
	out->shift = mb - ma;
	out->se = sqrt(va + vb);
	out->df = out->se > 0 ? (va + vb) * (va + vb) /
					(va * va / (double)(na - 1) + vb * vb / (double)(nb - 1))
			      : INFINITY;
	out->n[0] = na;
	out->n[1] = nb;
	out->paired = false;
	return PD_OK;
}

int logratio_paired(const double *a, const double *b, size_t n, struct logratio *out)
{
	double sum = 0, squares = 0;

	if (n < 2)
		return PD_EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!(a[i] > 0 && b[i] > 0) || !isfinite(a[i]) || !isfinite(b[i]))
			return PD_EINVAL;
		sum += log(b[i]) - log(a[i]);
	}
	out->shift = sum / (double)n;
	for (size_t i = 0; i < n; i++) {
		double d = log(b[i]) - log(a[i]) - out->shift;

		squares += d * d;
	}
	out->sd[0] = sqrt(squares / (double)(n - 1));
	out->sd[1] = out->sd[0] = out->sd[0] > ROUNDING ? out->sd[0] : 0;
	out->se = out->sd[0] / sqrt((double)n);
	out->df = out->se > 0 ? (double)(n - 1) : (double)INFINITY;
	out->n[0] = out->n[1] = n;
	out->paired = true;
	return PD_OK;
}

double logratio_p(const struct logratio *r, double limit, int direction)
{
	double far = direction * (r->shift - limit);

	if (!(r->se > 0))
		return far > 0 ? 0 : 1;
	return student_upper(far / r->se, r->df);
}

double logratio_bound(const struct logratio *r, double level, int direction)
{
	return r->se > 0 ? r->shift - direction * student_quantile(level, r->df) * r->se : r->shift;
}

double logratio_detectable(const struct logratio *r, double level, double power)
{
	if (!(r->se > 0))
		return 0;
	return (student_quantile(level, r->df) + student_quantile(1 - power, r->df)) * r->se;
}

size_t logratio_runs_needed(const struct logratio *r, double distance, double level, double power,
			    size_t least)
{
	double variance =
		r->paired ? r->sd[0] * r->sd[0] : r->sd[0] * r->sd[0] + r->sd[1] * r->sd[1];

	for (size_t n = least > 2 ? least : 2; distance > 0 && n <= RUNS_MAX; n++) {
		double df = r->paired ? (double)(n - 1) : 2 * (double)(n - 1);
		double reach = (student_quantile(level, df) + student_quantile(1 - power, df)) *
			       sqrt(variance / (double)n);

		if (reach <= distance)
			return n;
	}
	return 0;
}
