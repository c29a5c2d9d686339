/* Any bytes as a result file: a refusal has a line and a column and leaves nothing behind; what is
 * accepted can be asked. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/results/compare_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void ask(const struct result_doc *d)
{
	for (size_t i = 0; i < d->n; i++) {
		if (!result_get(d, d->field[i].name))
			abort();
		(void)result_number(d, d->field[i].name);
	}
	if (d->series[SERIES_TPOT].n > d->series[SERIES_TTFT].n ||
	    d->series[SERIES_OUTPUT].n > d->series[SERIES_GAP].n)
		abort();
	for (int k = 0; k < RESULT_SERIES; k++)
		for (size_t i = 0; i < d->series[k].n; i++)
			if (!isfinite(d->series[k].v[i]))
				abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct result_set s;
	struct pd_msg msg = {""};
	int err;

	result_set_init(&s);
	err = result_parse(&s, "f", (struct span){(const char *)data, n}, &msg);
	if (err == PD_OK ? s.n == 0 : s.n != 0 || !msg.text[0])
		abort();
	if (err == PD_EINVAL && strncmp(msg.text, "f:", 2) != 0)
		abort();
	for (size_t i = 0; i < s.n; i++)
		ask(&s.doc[i]);
	result_set_release(&s);
	return 0;
}
