/* Counts, times and dates out of text. Decimal fractions are read digit by digit: a time since 1970
 * in nanoseconds needs more digits than a double has. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/workload/format.h"

static const int64_t unit_ns[] = {1, NS_PER_S, NS_PER_MS, 1000, 1};

static double as_double(struct span v)
{
	char text[64];
	char *end;
	double d;

	if (v.n == 0 || v.n >= sizeof(text))
		return (double)NAN;
	memcpy(text, v.p, v.n);
	text[v.n] = '\0';
	d = strtod(text, &end);
	return *end == '\0' && strchr("0123456789-+.", text[0]) ? d : (double)NAN;
}

int format_count(struct span text, int64_t *out)
{
	double d;

	if (json_int(text, out) == PD_OK)
		return *out < 0 ? PD_EINVAL : PD_OK;
	d = as_double(text);
	if (!(d >= 0 && d < 9e15) || d != floor(d))
		return PD_EINVAL;
	*out = (int64_t)d;
	return PD_OK;
}

/* value * unit in ns. */
static int scaled(struct span v, int64_t unit, int64_t *out, bool *fraction)
{
	int64_t whole = 0, part = 0, scale = 1;
	const char *p = v.p, *end = v.p + v.n;
	double d;

	*fraction = memchr(v.p, '.', v.n) != NULL;
	for (; p < end && *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, *p - '0', &whole))
			return PD_EINVAL;
	if (p < end && p > v.p && *p == '.')
		for (p++; p < end && *p >= '0' && *p <= '9'; p++)
			if (scale < unit) {
				scale *= 10;
				part = part * 10 + (*p - '0');
			}
	if (p == end && v.n > 0) {
		if (__builtin_mul_overflow(whole, unit, &whole) ||
		    __builtin_add_overflow(whole, part * (unit / scale), out))
			return PD_EINVAL;
		return PD_OK;
	}
	d = as_double(v) * (double)unit;
	if (!(d >= 0 && d < 4e18))
		return PD_EINVAL;
	*out = llround(d);
	return PD_OK;
}

int format_pause(struct span text, enum workload_unit unit, int64_t *out)
{
	bool fraction;

	return scaled(text, unit_ns[unit], out, &fraction);
}

/* Times since 1970 by their size: the years 1998 to 2128 in one unit lie in no other's. Relative
 * times begin near 0. */
static enum workload_unit unit_by_size(double v)
{
	static const enum workload_unit units[] = {WORKLOAD_UNIT_S, WORKLOAD_UNIT_MS,
						   WORKLOAD_UNIT_US, WORKLOAD_UNIT_NS};

	for (size_t i = 0; i < 4; i++) {
		if (v >= 9e8 && v < 5e9)
			return units[i];
		v /= 1e3;
	}
	return WORKLOAD_UNIT_AUTO;
}

int format_time(struct format_reader *rd, struct span text, enum workload_unit unit, int64_t *out)
{
	static const char *const names[] = {"", "seconds", "milliseconds", "microseconds",
					    "nanoseconds"};
	enum workload_unit *taken = &rd->unit_taken[unit], seen;
	bool fraction;
	int err;

	if (*taken == WORKLOAD_UNIT_AUTO) {
		seen = unit_by_size(as_double(text));
		*taken = rd->opt.unit ? rd->opt.unit : seen ? seen : unit;
		if (seen != WORKLOAD_UNIT_AUTO && seen == *taken) {
			rd->since_1970 = true;
			err = format_note(rd,
					  "time stamps are read as %s since 1970 (the first is "
					  "%.*s); --timestamp-unit says otherwise",
					  names[*taken], text.n < 40 ? (int)text.n : 40, text.p);
			if (err)
				return err;
		}
	}
	err = scaled(text, unit_ns[*taken], out, &fraction);
	rd->fractions |= fraction && *taken == WORKLOAD_UNIT_MS && !rd->format->own_ms;
	return err;
}

/* n digits at *p as a number; false when there are not so many. */
static bool digits(const char **p, const char *end, int n, int *out)
{
	for (*out = 0; n > 0; n--, (*p)++) {
		if (*p == end || **p < '0' || **p > '9')
			return false;
		*out = *out * 10 + (**p - '0');
	}
	return true;
}

static bool literal(const char **p, const char *end, const char *any)
{
	if (*p == end || !strchr(any, **p) || **p == '\0')
		return false;
	(*p)++;
	return true;
}

int format_date(struct span text, int64_t *out)
{
	struct span t = span_trim(text);
	const char *p = t.p, *end = t.p + t.n;
	struct tm tm = {0};
	int64_t fraction = 0, unit = NS_PER_S, seconds;
	int zone_h, zone_m = 0, sign;

	if (!digits(&p, end, 4, &tm.tm_year) || !literal(&p, end, "-/") ||
	    !digits(&p, end, 2, &tm.tm_mon) || !literal(&p, end, "-/") ||
	    !digits(&p, end, 2, &tm.tm_mday) || !literal(&p, end, " T") ||
	    !digits(&p, end, 2, &tm.tm_hour) || !literal(&p, end, ":") ||
	    !digits(&p, end, 2, &tm.tm_min) || !literal(&p, end, ":") ||
	    !digits(&p, end, 2, &tm.tm_sec))
		return PD_EINVAL;
	if (tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
	    tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return PD_EINVAL;
	if (literal(&p, end, "."))
		for (; p < end && *p >= '0' && *p <= '9'; p++)
			if (unit > 1) {
				unit /= 10;
				fraction += unit * (*p - '0');
			}
	tm.tm_year -= 1900;
	tm.tm_mon--;
	seconds = (int64_t)timegm(&tm);
	if (p < end && (*p == '+' || *p == '-')) {
		sign = *p++ == '+' ? 1 : -1;
		if (!digits(&p, end, 2, &zone_h))
			return PD_EINVAL;
		(void)literal(&p, end, ":");
		if (p < end && !digits(&p, end, 2, &zone_m))
			return PD_EINVAL;
		seconds -= sign * (zone_h * 3600 + zone_m * 60);
	} else {
		(void)literal(&p, end, "Z");
	}
	if (p != end || seconds < 0 || seconds > INT64_MAX / NS_PER_S - 1)
		return PD_EINVAL;
	*out = seconds * NS_PER_S + fraction;
	return PD_OK;
}

int workload_unit_parse(const char *text, enum workload_unit *out)
{
	static const char *const names[] = {"auto", "s", "ms", "us", "ns"};

	for (int i = 0; i < 5; i++)
		if (strcmp(text, names[i]) == 0) {
			*out = (enum workload_unit)i;
			return PD_OK;
		}
	return PD_EINVAL;
}
