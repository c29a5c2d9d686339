#include "lib/base/bars.h"

#include <math.h>

static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
static const char *const signs[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
static const char *const eighths[] = {"▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
#define LEVELS 8

static bool shows(double v)
{
	return isfinite(v) && v >= 0;
}

int bars_spark(const double *v, size_t n, double max, bool ascii, struct buf *out)
{
	bool given = max > 0;
	int err = PD_OK;

	for (size_t i = 0; !given && i < n; i++)
		max = shows(v[i]) && !(v[i] <= max) ? v[i] : max;
	for (size_t i = 0; !err && i < n; i++) {
		int level;

		if (!shows(v[i])) {
			err = buf_putc(out, ' ');
			continue;
		}
		level = max > 0 ? (int)fmin(LEVELS - 1, v[i] / max * LEVELS) : 0;
		if (v[i] > 0 && level == 0 && v[i] / max * LEVELS > 0.5)
			level = 1;
		err = buf_puts(out, ascii ? signs[level] : blocks[level]);
	}
	return err;
}

int bars_bar(double share, unsigned width, bool ascii, struct buf *out)
{
	double columns = isfinite(share) && share > 0 ? fmin(share, 1) * width : 0;
	unsigned whole = (unsigned)columns, used = whole;
	int part = (int)((columns - whole) * LEVELS), err = PD_OK;

	for (unsigned i = 0; !err && i < whole; i++)
		err = buf_puts(out, ascii ? "#" : eighths[LEVELS - 1]);
	/* What is above 0 shows, if only as the thinnest bar. */
	if (!err && whole < width && (part > 0 || (whole == 0 && columns > 0))) {
		err = buf_puts(out, ascii ? (part >= LEVELS / 2 ? "=" : "-")
					  : eighths[part > 0 ? part - 1 : 0]);
		used++;
	}
	for (; !err && used < width; used++)
		err = buf_putc(out, ' ');
	return err;
}

size_t bars_count(const double *v, size_t n, double *count, size_t columns, double *lo, double *hi)
{
	double least = INFINITY, most = 0, wide;
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(v[i]) || !(v[i] > 0))
			continue;
		least = fmin(least, v[i]);
		most = fmax(most, v[i]);
		found++;
	}
	if (found == 0)
		return 0;
	for (size_t c = 0; c < columns; c++)
		count[c] = 0;
	wide = log(most) - log(least);
	for (size_t i = 0; i < n; i++) {
		double at;

		if (!isfinite(v[i]) || !(v[i] > 0))
			continue;
		at = wide > 0 ? (log(v[i]) - log(least)) / wide * (double)columns : 0;
		count[at < (double)columns ? (size_t)at : columns - 1] += 1;
	}
	*lo = least;
	*hi = most;
	return found;
}
