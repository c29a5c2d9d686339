/*
 * Bars and sparklines for terminals: a character per value, in blocks of Unicode or, with `ascii`,
 * in signs that every terminal has. Text only; whether a terminal shows Unicode is its user's to
 * know (cli_unicode). Pure.
 */
#ifndef PD_BASE_BARS_H
#define PD_BASE_BARS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

/* A column per value, its height between 0 and `max` (not above 0: the largest value). What is not
 * finite, or below 0, is a blank; any value above 0 shows. */
int bars_spark(const double *v, size_t n, double max, bool ascii, struct buf *out) PD_MUST;

/* A lying bar of share * width columns, padded with blanks to `width`; the share is cut to 0..1,
 * and one that is not finite is 0. */
int bars_bar(double share, unsigned width, bool ascii, struct buf *out) PD_MUST;

/*
 * Counts the values above 0 in `columns` bins that are equally wide on a logarithmic axis from *lo
 * to *hi, which become the smallest and the largest of them. Returns how many there are; with 0
 * nothing is set.
 */
size_t bars_count(const double *v, size_t n, double *count, size_t columns, double *lo, double *hi);

#endif
