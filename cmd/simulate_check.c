/* A line per file; a wrong one ends it. */
#include "cmd/simulate_check.h"

#include "lib/base/cli.h"
#include "sim/scenario/scenario.h"

#define OUT_MAX ((size_t)1 << 24)

int simulate_check(const struct opt_list *files, struct pd_msg *msg)
{
	struct buf out;
	int err = PD_OK;

	buf_init(&out, OUT_MAX);
	for (size_t i = 0; !err && i < files->n; i++) {
		const struct experiment_spec *spec;
		size_t rows = 0, n;
		struct scenario *c;

		err = scenario_load(&c, files->items[i], msg);
		if (err)
			break;
		spec = scenario_spec(c);
		n = scenario_points(c);
		for (size_t k = 0; !err && k < n; k++) {
			struct arms arms;

			err = plan_arms(&spec[k].plan, &arms, msg);
			rows += err ? 0 : arms.n;
			if (!err)
				arms_release(&arms);
		}
		if (!err)
			err = buf_printf(&out,
					 "%s: ok, %zu rows at %zu %s, %zu replays, %zu "
					 "expectations\n",
					 files->items[i], rows, n, n == 1 ? "point" : "points",
					 rows * (spec->repetitions ? spec->repetitions : 1),
					 spec->nexpect);
		scenario_free(c);
	}
	if (!err)
		cli_print(out.data, out.len);
	buf_release(&out);
	return err;
}
