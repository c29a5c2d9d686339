#include "lib/load/sweep.h"

#include <math.h>
#include <string.h>

#define SKIP_NS INT64_C(1000000000)
#define LEAST_S 3.0
#define SHARE	0.1 /* of the rate, per second */
#define ERRORS	4.0
#define LOOKS	10

void sweep_begin(struct sweep *s, double rate)
{
	*s = (struct sweep){.rate = rate};
}

bool sweep_next(struct sweep *s, bool saturated)
{
	if (saturated)
		s->bad = s->bad > 0 && s->bad < s->rate ? s->bad : s->rate;
	else
		s->good = s->rate > s->good ? s->rate : s->good;
	if (++s->steps == SWEEP_STEPS_MAX)
		return false;
	if (s->bad == 0)
		s->rate *= 2;
	else if (s->good == 0)
		s->rate /= 2;
	else if (s->bad / s->good <= SWEEP_NARROW)
		return false;
	else
		s->rate = sqrt(s->good * s->bad);
	return s->rate > 1e-4;
}

void sweep_watch_begin(struct sweep_watch *w)
{
	memset(w, 0, sizeof(*w));
}

bool sweep_watch_add(struct sweep_watch *w, int64_t elapsed_ns, size_t in_flight, double rate)
{
	double t = (double)elapsed_ns / 1e9, y = (double)in_flight, sxx, sxy, syy, slope, error;

	if (elapsed_ns < SKIP_NS)
		return false;
	w->since = w->since ? w->since : elapsed_ns;
	w->n++;
	w->t += t;
	w->y += y;
	w->tt += t * t;
	w->ty += t * y;
	w->yy += y * y;
	if (w->n < LOOKS || t - (double)w->since / 1e9 < LEAST_S)
		return false;
	sxx = w->tt - w->t * w->t / w->n;
	sxy = w->ty - w->t * w->y / w->n;
	syy = w->yy - w->y * w->y / w->n;
	slope = sxy / sxx;
	error = sqrt(fmax(0, syy - slope * sxy) / (w->n - 2) / sxx);
	return slope > SHARE * rate && slope > ERRORS * error;
}
