#include "lib/load/shapes.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/bars.h"
#include "lib/results/result_calc.h"

#define COLUMNS	   48
#define NAME_SHOWN 32

static int line(const struct result_run *run, const char *name, enum result_metric m, bool ascii,
		struct buf *out)
{
	double *v = NULL, count[COLUMNS], lo, hi;
	size_t n = 0, found;
	int err = result_samples(run, m, &v, &n);

	found = err ? 0 : bars_count(v, n, count, COLUMNS, &lo, &hi);
	free(v);
	if (err || found == 0)
		return err;
	err = buf_printf(out, "%-5s", name);
	err = err ? err : bars_spark(count, COLUMNS, 0, ascii, out);
	return err ? err : buf_printf(out, "  %.2f to %.2f ms\n", lo, hi);
}

/* -- workers -- */

struct load {
	const char *name;
	size_t n;
};

static const char *worker_of(const struct result_request *r)
{
	return r->decode ? r->decode : r->worker;
}

/* How many there are; those beyond SHAPES_WORKERS are not told apart. */
static size_t count_workers(const struct result_run *run, struct load *load)
{
	size_t n = 0, k;

	for (size_t i = 0; i < run->n; i++) {
		const char *name = worker_of(&run->req[i]);

		if (!name)
			continue;
		for (k = 0; k < n && strcmp(load[k].name, name) != 0; k++)
			;
		if (k == SHAPES_WORKERS)
			continue;
		if (k == n)
			load[n++] = (struct load){name, 0};
		load[k].n++;
	}
	return n;
}

static int by_name(const void *a, const void *b)
{
	return strverscmp(((const struct load *)a)->name, ((const struct load *)b)->name);
}

static int workers(const struct result_run *run, bool ascii, struct buf *out)
{
	struct load load[SHAPES_WORKERS];
	size_t n = count_workers(run, load), most = 0;
	int err = n > 1 ? buf_puts(out, "requests by worker\n") : PD_OK;

	qsort(load, n, sizeof(load[0]), by_name);
	for (size_t i = 0; i < n; i++)
		most = load[i].n > most ? load[i].n : most;
	for (size_t i = 0; !err && n > 1 && i < n; i++) {
		err = buf_printf(out, "%-*.*s ", NAME_SHOWN, NAME_SHOWN, load[i].name);
		err = err ? err : bars_bar((double)load[i].n / (double)most, COLUMNS, ascii, out);
		err = err ? err : buf_printf(out, " %zu\n", load[i].n);
	}
	return err;
}

int shapes_text(const struct result_run *run, bool ascii, struct buf *out)
{
	int err = buf_putc(out, '\n');

	if (!run->pooling) {
		err = err ? err : line(run, "TTFT", RESULT_TTFT, ascii, out);
		err = err ? err : line(run, "ITL", RESULT_ITL, ascii, out);
	}
	err = err ? err : line(run, "E2E", RESULT_E2EL, ascii, out);
	return err ? err : workers(run, ascii, out);
}
