/*
 * From a specification to results, for scenario files and options alike: they differ only in where
 * they are read.
 */
#include "sim/scenario/experiment.h"

#include <stdio.h>
#include <string.h>

#define GEN_MAX ((size_t)1 << 30)

static int load(const struct experiment_spec *spec, struct experiment *e, struct pd_msg *msg)
{
	struct generate_options g;
	struct buf text;
	int err;

	if (spec->workload)
		return simload_read(&e->trace, NULL, spec->workload, &spec->load, e->key,
				    sizeof(e->key), msg);
	if (!spec->gen) {
		(void)snprintf(e->key, sizeof(e->key), "%s", shape_key_name(spec->shape));
		return shape_make(spec->shape, spec->plan.seed, &e->trace, msg);
	}
	g = *spec->gen;
	g.seed = spec->plan.seed;
	buf_init(&text, GEN_MAX);
	err = generate(&g, &text, msg);
	if (!err)
		err = simload_read(&e->trace, &text, spec->plan.source, &spec->load, e->key,
				   sizeof(e->key), msg);
	buf_release(&text);
	return err;
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
	struct simreport r = {.name = e->plan.name,
			      .source = e->plan.source,
			      .key = e->plan.key,
			      .seed = e->plan.seed,
			      .trace = &e->trace,
			      .arms = &e->arms,
			      .expected = e->expected.n ? &e->expected : NULL};

	return r;
}
