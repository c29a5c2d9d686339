/* Texts of options into what the experiment takes. */
#include "cmd/simulate_way.h"

#include <stdlib.h>

#include "lib/results/result_opts.h"

/* "I/N" */
static int read_shard(struct simulate_way *way, struct pd_msg *msg)
{
	unsigned long i, n;
	char *end;

	if (!way->shard)
		return PD_OK;
	i = strtoul(way->shard, &end, 10);
	n = *end == '/' ? strtoul(end + 1, &end, 10) : 0;
	if (way->shard[0] < '0' || way->shard[0] > '9' || *end != '\0' || i < 1 || i > n ||
	    n > 100000)
		return pd_fail(msg, PD_EINVAL,
			       "--shard: found '%s', expected I/N with 1 <= I <= N, such as 2/8",
			       way->shard);
	way->index = i - 1;
	way->of = n;
	return PD_OK;
}

int simulate_way_read(struct simulate_way *way, struct pd_msg *msg)
{
	struct result_run run = {.ngoals = 0};
	struct pd_msg why = {.text = ""};
	size_t column;
	int err = read_shard(way, msg);

	if (!err && way->objective &&
	    objective_parse(&way->rules.objective, way->objective, &column, &why))
		err = pd_fail(msg, PD_EINVAL, "--objective, column %zu: %.400s", column, why.text);
	for (size_t i = 0; !err && i < way->goals.n; i++)
		if (result_goal_parse(&run, way->goals.items[i], &why))
			err = pd_fail(msg, PD_EINVAL, "--goodput: %.400s", why.text);
	for (size_t i = 0; i < run.ngoals; i++)
		*(run.goal[i].metric == RESULT_TTFT   ? &way->goal.ttft_ms
		  : run.goal[i].metric == RESULT_TPOT ? &way->goal.tpot_ms
						      : &way->goal.e2el_ms) = run.goal[i].limit_ms;
	return err;
}
