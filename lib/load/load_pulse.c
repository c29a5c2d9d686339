/*
 * The kernel counts how long a thread waited for a processor and how often it got one; the mean of
 * a second is what a wake-up of that second was late by. What the loop itself delays is seen in its
 * rounds: an event that was found without sleeping may have been there since the round before
 * began.
 */
#include "lib/load/load_pulse.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define LIMIT_MS    0.2
#define LIMIT_SHARE 0.02
#define RANGES_MAX  8
/* Between two rounds closer than this the loop did not sleep. */
#define NO_SLEEP_NS (3 * NS_PER_US)

void pulse_init(struct pulse *p, int64_t origin)
{
	*p = (struct pulse){.origin = origin, .schedstat = -1};
}

void pulse_release(struct pulse *p)
{
	free(p->second);
	if (p->schedstat >= 0)
		(void)close(p->schedstat);
	*p = (struct pulse){.schedstat = -1};
}

/* "run_ns wait_ns times" of this thread. */
static bool read_queue(const struct pulse *p, int64_t *queue_ns, uint64_t *turns)
{
	char text[96], *end;
	ssize_t n = p->schedstat >= 0 ? pread(p->schedstat, text, sizeof(text) - 1, 0) : -1;

	if (n <= 0)
		return false;
	text[n] = '\0';
	(void)strtoull(text, &end, 10);
	*queue_ns = strtoll(end, &end, 10);
	*turns = strtoull(end, &end, 10);
	return true;
}

void pulse_open(struct pulse *p)
{
	p->woke = p->woke_before = clock_now();
	p->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	if (!read_queue(p, &p->queue_ns, &p->turns) && p->schedstat >= 0) {
		(void)close(p->schedstat);
		p->schedstat = -1;
	}
}

/* The second that `t` lies in; NULL when there is no memory, then it is not judged. */
static struct pulse_second *second_of(struct pulse *p, int64_t t)
{
	size_t i = t > p->origin ? (size_t)((t - p->origin) / NS_PER_S) : 0, cap = p->cap;
	struct pulse_second *s;

	i = i < PULSE_SECONDS_MAX ? i : PULSE_SECONDS_MAX - 1;
	while (i >= cap)
		cap = cap ? cap * 2 : 64;
	if (cap > p->cap) {
		s = realloc(p->second, cap * sizeof(*s));
		if (!s)
			return NULL;
		memset(s + p->cap, 0, (cap - p->cap) * sizeof(*s));
		p->second = s;
		p->cap = cap;
	}
	p->n = i >= p->n ? i + 1 : p->n;
	return &p->second[i];
}

void pulse_tick(struct pulse *p, int64_t now)
{
	int64_t queue_ns;
	uint64_t turns;
	struct pulse_second *s;

	if (!read_queue(p, &queue_ns, &turns) || turns == p->turns)
		return;
	s = second_of(p, now);
	if (s) {
		s->queue_ns += queue_ns - p->queue_ns;
		s->turns += (uint32_t)(turns - p->turns);
	}
	p->queue_ns = queue_ns;
	p->turns = turns;
}

void pulse_close(struct pulse *p)
{
	pulse_tick(p, clock_now());
}

void pulse_event(struct pulse *p, int64_t woke, int64_t now)
{
	struct pulse_second *s = second_of(p, now);
	int64_t ready;

	if (woke != p->woke) {
		p->woke_before = p->woke;
		p->woke = woke;
		/* it slept: nothing was there before it woke */
		if (woke - p->busy_until > NO_SLEEP_NS)
			p->woke_before = woke;
	}
	/* somewhere in the busy time, on average in its middle */
	ready = p->woke_before + (woke - p->woke_before) / 2;
	p->busy_until = now;
	if (!s)
		return;
	s->handling_ns += now - ready;
	s->events++;
}

void pulse_sent(struct pulse *p, int64_t eligible, int64_t now)
{
	struct pulse_second *s = second_of(p, now);

	p->busy_until = now;
	if (!s)
		return;
	s->lag_ns += now > eligible ? now - eligible : 0;
	s->sends++;
}

static double mean_ms(int64_t ns, uint32_t n)
{
	return n > 0 ? (double)ns / 1e6 / n : NAN;
}

static bool is_bad(const struct pulse_second *s, double limit_ms)
{
	return mean_ms(s->queue_ns, s->turns) > limit_ms ||
	       mean_ms(s->handling_ns, s->events) > limit_ms ||
	       mean_ms(s->lag_ns, s->sends) > limit_ms;
}

void pulse_judge(const struct pulse *p, double median_ttft_ms, struct pulse_verdict *out)
{
	*out = (struct pulse_verdict){.limit_ms = LIMIT_MS,
				      .queue_known = p->schedstat >= 0,
				      .queue_ms = NAN,
				      .handling_ms = NAN,
				      .lag_ms = NAN};
	if (median_ttft_ms * LIMIT_SHARE > LIMIT_MS)
		out->limit_ms = median_ttft_ms * LIMIT_SHARE;
	for (size_t i = 0; i < p->n; i++) {
		const struct pulse_second *s = &p->second[i];

		out->queue_ms = fmax(out->queue_ms, mean_ms(s->queue_ns, s->turns));
		out->handling_ms = fmax(out->handling_ms, mean_ms(s->handling_ns, s->events));
		out->lag_ms = fmax(out->lag_ms, mean_ms(s->lag_ns, s->sends));
		out->bad += is_bad(s, out->limit_ms);
	}
	out->ok = out->bad == 0;
}

int pulse_bad_seconds(const struct pulse *p, const struct pulse_verdict *v, struct buf *out)
{
	size_t ranges = 0, i = 0, end;
	int err = PD_OK;

	while (!err && i < p->n) {
		if (!is_bad(&p->second[i], v->limit_ms)) {
			i++;
			continue;
		}
		for (end = i; end < p->n && is_bad(&p->second[end], v->limit_ms);)
			end++;
		if (ranges++ == RANGES_MAX)
			return buf_puts(out, ", ...");
		err = buf_puts(out, ranges > 1 ? ", " : "");
		if (!err)
			err = end == i + 1 ? buf_printf(out, "%zu", i)
					   : buf_printf(out, "%zu-%zu", i, end - 1);
		i = end;
	}
	return err;
}

static int put_ms(struct buf *out, const char *name, double v)
{
	return isnan(v) ? buf_printf(out, ", \"%s\": null", name)
			: buf_printf(out, ", \"%s\": %.6f", name, v);
}

int pulse_json(const struct pulse *p, const struct pulse_verdict *v, struct buf *out)
{
	int err = buf_printf(out, "{\"limit_ms\": %.6f", v->limit_ms);
	size_t shown = 0;

	err = err ? err : put_ms(out, "run_queue_ms", v->queue_known ? v->queue_ms : NAN);
	err = err ? err : put_ms(out, "handling_ms", v->handling_ms);
	err = err ? err : put_ms(out, "lag_ms", v->lag_ms);
	err = err ? err : buf_printf(out, ", \"seconds\": %zu, \"bad_seconds\": [", p->n);
	for (size_t i = 0; !err && i < p->n; i++)
		if (is_bad(&p->second[i], v->limit_ms) && shown < 1000)
			err = buf_printf(out, "%s%zu", shown++ ? ", " : "", i);
	return err ? err : buf_puts(out, "]}");
}
