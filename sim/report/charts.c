/* A height is one of eight characters; 0 is the lowest one, the largest value of a chart the
 * highest. */
#include "sim/report/charts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define POINTS	    30 /* of a sparkline */
#define WORKERS_MAX 20
#define NAME_WIDTH  20

static int put_height(struct buf *out, double value, double most, bool ascii)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char marks[] = "_.:-=+*#";
	int h = most > 0 ? (int)floor(value / most * 7.999) : 0;

	if (!isfinite(value))
		return buf_putc(out, ' ');
	h = h < 0 ? 0 : h > 7 ? 7 : h;
	return ascii ? buf_putc(out, marks[h]) : buf_puts(out, blocks[h]);
}

static int put_line(struct buf *out, const double *v, size_t n, bool ascii, double *most)
{
	int err = PD_OK;

	*most = 0;
	for (size_t i = 0; i < n; i++)
		*most = v[i] > *most ? v[i] : *most;
	for (size_t i = 0; !err && i < n; i++)
		err = put_height(out, v[i], *most, ascii);
	return err;
}

static int put_name(struct buf *out, const struct arm *a)
{
	char name[ARM_LABEL_MAX + 32];
	size_t n;

	(void)snprintf(name, sizeof(name), "%s %u", a->policy, a->workers);
	n = strlen(name);
	if (n > NAME_WIDTH)
		return buf_printf(out, "%.*s...%s", NAME_WIDTH - 10, name, name + n - 7);
	return buf_printf(out, "%-*s", NAME_WIDTH, name);
}

/* Requests per worker; of many workers the first ones. */
static int put_bars(struct buf *out, const struct arm *a, bool ascii)
{
	const struct replay_pool_result *p = &a->result.pool[0];
	size_t n = p->nworkers < WORKERS_MAX ? p->nworkers : WORKERS_MAX;
	double v[WORKERS_MAX], most;
	int err;

	for (size_t i = 0; i < n; i++)
		v[i] = (double)p->worker[i].requests;
	err = put_line(out, v, n, ascii, &most);
	for (size_t i = n; !err && i < WORKERS_MAX && a->figures.time.n > 0; i++)
		err = buf_putc(out, ' ');
	return err;
}

/* Pairs of slices, so that 60 become 30. */
static void halve(const struct timeline *l, size_t offset, double v[POINTS])
{
	for (size_t i = 0; i < POINTS; i++) {
		double x, y;

		memcpy(&x, (const char *)&l->slice[2 * i] + offset, sizeof(x));
		memcpy(&y, (const char *)&l->slice[2 * i + 1] + offset, sizeof(y));
		v[i] = !isfinite(x) ? y : !isfinite(y) ? x : (x + y) / 2;
	}
}

static int one_arm(struct buf *out, const struct arm *a, bool ascii)
{
	const struct timeline *l = &a->figures.time;
	double v[POINTS], most;
	int err = put_name(out, a);

	_Static_assert(POINTS * 2 == TIMELINE_SLICES, "two slices a point");
	err = err ? err : buf_putc(out, ' ');
	err = err ? err : put_bars(out, a, ascii);
	if (err || l->n == 0)
		return err ? err : buf_putc(out, '\n');
	halve(l, offsetof(struct timeline_slice, in_flight), v);
	err = buf_putc(out, ' ');
	err = err ? err : put_line(out, v, POINTS, ascii, &most);
	err = err ? err : buf_printf(out, " %-6.4g", most);
	halve(l, offsetof(struct timeline_slice, ttft_ms), v);
	for (size_t i = 0; !err && i < POINTS / 3; i++)
		v[i] = fmax(v[3 * i], fmax(v[3 * i + 1], v[3 * i + 2]));
	err = err ? err : put_line(out, v, POINTS / 3, ascii, &most);
	return err ? err : buf_printf(out, " %.4g%s\n", most, l->saturated ? " !" : "");
}

int simreport_charts(const struct simreport *r, bool ascii, struct buf *out)
{
	size_t drawn = 0, rows = 0;
	int err = PD_OK;

	for (size_t i = 0; !err && i < r->arms->n; i++) {
		const struct arm *a = &r->arms->arm[i];

		rows += a->done;
		if (!a->done || drawn == CHARTS_ROWS_MAX)
			continue;
		if (drawn++ == 0 && a->figures.time.n > 0)
			err = buf_printf(out, "%-*s %-*s %-*s %-6s%s\n", NAME_WIDTH, "",
					 WORKERS_MAX, "requests per worker", POINTS,
					 "in flight over time", "most", "TTFT, most ms");
		err = err ? err : one_arm(out, a, ascii);
	}
	if (!err && rows > drawn)
		err = buf_printf(out, "and %zu more rows\n", rows - drawn);
	return err;
}
