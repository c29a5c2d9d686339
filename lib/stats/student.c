/* The quantile is found by bisection on the tail: it is asked for a few times per gate, and a
 * bracket cannot run away. */
#include "lib/stats/student.h"

#include <math.h>

#define TERMS_MAX 10000
#define EPSILON	  1e-16
#define TINY	  1e-300

/* The continued fraction of the incomplete beta function, for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x)
{
	double c = 1, d = 1 - (a + b) * x / (a + 1), h;

	d = fabs(d) < TINY ? 1 / TINY : 1 / d;
	h = d;
	for (int m = 1; m < TERMS_MAX; m++) {
		double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
		double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
		const double step[] = {even, odd};

		for (int k = 0; k < 2; k++) {
			d = 1 + step[k] * d;
			d = fabs(d) < TINY ? 1 / TINY : 1 / d;
			c = 1 + step[k] / c;
			c = fabs(c) < TINY ? TINY : c;
			h *= c * d;
		}
		if (fabs(c * d - 1) < EPSILON)
			break;
	}
	return h;
}

/* log(Gamma(a + 1/2) / Gamma(a)). The difference of two large lgammas has no digits left, so from
 * 20 on the series of the ratio is taken (Tricomi and Erdelyi 1951); its next term is below 1e-12.
 */
static double log_gamma_half(double a)
{
	if (a < 20)
		return lgamma(a + 0.5) - lgamma(a);
	return log(a) / 2 - 1 / (8 * a) + 1 / (192 * pow(a, 3)) - 1 / (640 * pow(a, 5));
}

/* I_x(a, 1/2) with y = 1 - x given: each keeps its digits where it is small. */
static double beta_regularized(double a, double x, double y)
{
	const double b = 0.5;
	double front, log_x = y < 0.5 ? log1p(-y) : log(x);

	if (x <= 0)
		return 0;
	if (y <= 0)
		return 1;
	/* Gamma(1/2) is the root of pi */
	front = exp(log_gamma_half(a) - log(M_PI) / 2 + a * log_x + b * log(y));
	if (x < (a + 1) / (a + b + 2))
		return front * beta_fraction(a, b, x) / a;
	return 1 - front * beta_fraction(b, a, y) / b;
}

double normal_upper(double z)
{
	return erfc(z / M_SQRT2) / 2;
}

double student_upper(double t, double df)
{
	double tail;

	if (isnan(t) || !(df > 0))
		return NAN;
	if (isinf(df) || df > 1e8)
		return normal_upper(t);
	if (isinf(t))
		return t > 0 ? 0 : 1;
	tail = beta_regularized(df / 2, df / (df + t * t), t * t / (df + t * t)) / 2;
	return t > 0 ? tail : 1 - tail;
}

double student_quantile(double tail, double df)
{
	double lo = 0, hi = 1, goal = tail < 0.5 ? tail : 1 - tail, mid;

	if (!(tail > 0 && tail < 1))
		return tail <= 0 ? INFINITY : -INFINITY;
	while (student_upper(hi, df) > goal && hi < 1e300)
		hi *= 2;
	for (int i = 0; i < 200 && hi - lo > 0; i++) {
		mid = lo + (hi - lo) / 2;
		if (!(mid > lo && mid < hi))
			break;
		if (student_upper(mid, df) > goal)
			lo = mid;
		else
			hi = mid;
	}
	return tail < 0.5 ? hi : -hi;
}

double normal_quantile(double tail)
{
	return student_quantile(tail, INFINITY);
}
