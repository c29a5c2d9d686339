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

/* I_x(a, b) with y = 1 - x given, which keeps its digits near 1. */
static double beta_regularized(double a, double b, double x, double y)
{
	double front;

	if (x <= 0)
		return 0;
	if (y <= 0)
		return 1;
	front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y));
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
	double x, tail;

	if (isnan(t) || !(df > 0))
		return NAN;
	if (isinf(df) || df > 1e8)
		return normal_upper(t);
	if (isinf(t))
		return t > 0 ? 0 : 1;
	x = df / (df + t * t);
	tail = beta_regularized(df / 2, 0.5, x, t * t / (df + t * t)) / 2;
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
