/*
 * Student's t and the normal distribution: tails and quantiles. Pure functions, thread-safe.
 * Absolute error below 1e-12 for df from 0.5 to 1e8. Sources: Abramowitz and Stegun 26.5, 26.7;
 * the continued fraction of the incomplete beta function by Lentz's method.
 */
#ifndef PD_STATS_STUDENT_H
#define PD_STATS_STUDENT_H

/* P(T > t); df > 0, also infinite (the normal distribution). NaN for NaN. */
double student_upper(double t, double df);
/* The t with P(T > t) = tail, 0 < tail < 1; infinite at the ends. */
double student_quantile(double tail, double df);
/* P(Z > z) and the z with P(Z > z) = tail. */
double normal_upper(double z);
double normal_quantile(double tail);

#endif
