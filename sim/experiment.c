#include "sim/experiment.h"

#include <stdio.h>
#include <string.h>

static int load(const struct experiment_spec *spec, struct experiment *e, struct pd_msg *msg)
{
	if (spec->workload)
		return simload_file(&e->trace, spec->workload, &spec->load, e->key, sizeof(e->key),
				    msg);
	(void)snprintf(e->key, sizeof(e->key), "%s", shape_key_name(spec->shape));
	return shape_make(spec->shape, spec->plan.seed, &e->trace, msg);
}

int experiment_run(const struct experiment_spec *spec, struct experiment *out, struct pd_msg *msg)
{
	int err;

	memset(out, 0, sizeof(*out));
	simtrace_init(&out->trace, 0);
	out->plan = spec->plan;
	/* The arms first: a wrong policy should not wait for a large file. */
	err = plan_arms(&spec->plan, &out->arms, msg);
	if (!err)
		err = load(spec, out, msg);
	out->plan.key = out->key;
	if (!err)
		err = arms_run(&out->arms, &out->trace, msg);
	if (!err && spec->nexpect > 0)
		err = expect_evaluate(spec->expect, spec->nexpect, &out->arms, &out->expected, msg);
	if (err)
		experiment_release(out);
	return err;
}

void experiment_release(struct experiment *e)
{
	expect_results_release(&e->expected);
	arms_release(&e->arms);
	simtrace_release(&e->trace);
}

struct simreport experiment_report(const struct experiment *e)
{
	struct simreport r = {.plan = &e->plan,
			      .trace = &e->trace,
			      .arms = &e->arms,
			      .expected = e->expected.n ? &e->expected : NULL};

	return r;
}
