#include "lib/results/compare_bars.h"

#include <math.h>

#include "lib/base/bars.h"

#define HALF	   16 /* columns on each side of the axis */
#define NAME_SHOWN 32
#define RUNS_SHOWN 16
#define SCALE_MAX  1.0 /* of a change: more fills its half */

static double largest(const struct compare *c, size_t side)
{
	double most = 0;

	for (size_t i = 0; i < c->nrows; i++) {
		double size = fabs(c->row[i].change[side].change);

		most = isfinite(size) && size > most ? size : most;
	}
	return most > SCALE_MAX ? SCALE_MAX : most;
}

/* To the left bars grow from the axis, so they are whole columns behind blanks. */
static int change(double v, double scale, bool ascii, struct buf *out)
{
	double share = scale > 0 && isfinite(v) ? fmin(fabs(v) / scale, 1) : 0;
	int filled = (int)lrint(share * HALF), err = PD_OK;

	if (v < 0 && filled == 0 && share > 0)
		filled = 1;
	for (int i = HALF; !err && i > 0; i--)
		err = buf_puts(out, v < 0 && i <= filled ? ascii ? "#" : "█" : " ");
	err = err ? err : buf_puts(out, ascii ? "|" : "│");
	return err ? err : bars_bar(v > 0 ? share : 0, HALF, ascii, out);
}

static int runs(const struct compare *c, const struct compare_row *row, size_t side, bool ascii,
		struct buf *out)
{
	const struct compare_cell *cell[2] = {&row->cell[0], &row->cell[side]};
	double most = 0;
	int err = PD_OK;

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < cell[k]->n; i++)
			most = isfinite(cell[k]->v[i]) && cell[k]->v[i] > most ? cell[k]->v[i]
									       : most;
	if (!(most > 0) || (cell[0]->n < 2 && cell[1]->n < 2))
		return PD_OK;
	for (size_t k = 0; !err && k < 2; k++) {
		err = buf_printf(out, "  %.16s ", c->side[k ? side : 0].label);
		err = err ? err
			  : bars_spark(cell[k]->v,
				       cell[k]->n < RUNS_SHOWN ? cell[k]->n : RUNS_SHOWN, most,
				       ascii, out);
	}
	return err;
}

static int part(const struct compare *c, bool ascii, struct buf *out)
{
	int err = PD_OK;

	for (size_t side = 1; side < c->nsides; side++) {
		double scale = largest(c, side);

		err = err ? err
			  : buf_printf(out, "\n%s%schange of %s, the scale ends at %.3g %%\n",
				       c->setting, c->setting[0] ? ": " : "", c->side[side].label,
				       100 * scale);
		for (size_t i = 0; !err && i < c->nrows; i++) {
			const struct compare_row *row = &c->row[i];

			err = buf_printf(out, "%-*.*s ", NAME_SHOWN, NAME_SHOWN, row->name);
			err = err ? err : change(row->change[side].change, scale, ascii, out);
			err = err ? err : runs(c, row, side, ascii, out);
			err = err ? err : buf_putc(out, '\n');
		}
	}
	return err;
}

int compare_bars_text(const struct compare_report *r, bool ascii, struct buf *out)
{
	int err = PD_OK;

	for (size_t p = 0; !err && p < r->nparts; p++)
		err = part(&r->part[p], ascii, out);
	return err;
}
