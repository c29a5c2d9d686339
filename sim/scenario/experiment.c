/*
 * From a specification to results, for scenario files and options alike: they differ only in where
 * they are read.
 */
#include "sim/scenario/experiment.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GEN_MAX ((size_t)1 << 30)

static int load(const struct experiment_spec *spec, struct experiment *e, struct pd_msg *msg)
{
	struct generate_options g;
	struct buf text;
	int err;

	if (spec->workload) {
		struct pd_msg why = {.text = ""};

		err = simload_read(&e->trace, NULL, spec->workload, &spec->load, &e->facts, &why);
		/* a wrong record has its own place; a file that cannot be read has the scenario's
		 */
		if (err == PD_EIO && spec->workload_place)
			return pd_fail(msg, err, "%s: %.400s", spec->workload_place, why.text);
		return err ? pd_fail(msg, err, "%s", why.text) : PD_OK;
	}
	if (!spec->gen) {
		(void)snprintf(e->facts.key, sizeof(e->facts.key), "%s",
			       shape_key_name(spec->shape));
		(void)snprintf(e->facts.arrivals, sizeof(e->facts.arrivals), "generated");
		return shape_make(spec->shape, spec->plan.seed, &e->trace, msg);
	}
	g = *spec->gen;
	g.seed = spec->plan.seed;
	buf_init(&text, GEN_MAX);
	err = generate(&g, &text, msg);
	if (!err)
		err = simload_read(&e->trace, &text, spec->plan.source, &spec->load, &e->facts,
				   msg);
	buf_release(&text);
	return err;
}

/* An event that comes to no request would be ignored, which nobody means. */
static int check_events(const struct experiment_spec *spec, const struct experiment *e,
			struct pd_msg *msg)
{
	for (size_t i = 0; i < spec->plan.nevents; i++) {
		const struct plan_event *v = &spec->plan.events[i];

		if (v->event.by_request && v->event.request >= e->trace.n)
			return pd_fail(msg, PD_EINVAL,
				       "%s%s'at_request' is %" PRIu64
				       ", but the workload has %zu requests: expected a number "
				       "from 0 to %zu",
				       v->place ? v->place : "", v->place ? ": " : "",
				       v->event.request, e->trace.n,
				       e->trace.n ? e->trace.n - 1 : 0);
	}
	return PD_OK;
}

/* Events by time that came when every run had ended: they changed nothing. */
static int note_late_events(const struct experiment_spec *spec, struct experiment *e)
{
	double end = 0;

	for (size_t i = 0; i < e->arms.n; i++) {
		double seconds = e->arms.arm[i].result.duration_s;

		end = seconds > end ? seconds : end;
	}
	if (e->trace.n > 0)
		end += (double)e->trace.req[0].arrival_ns / 1e9;
	for (size_t i = 0; i < spec->plan.nevents; i++) {
		const struct plan_event *v = &spec->plan.events[i];

		if (v->event.by_request || (double)v->event.at_ns / 1e9 <= end)
			continue;
		if (simload_note(
			    &e->facts,
			    "%s%sthe event at %g ms comes after the end of every run (%.0f ms) "
			    "and changes nothing",
			    v->place ? v->place : "", v->place ? ": " : "",
			    (double)v->event.at_ns / 1e6, end * 1e3))
			return PD_ENOMEM;
	}
	return PD_OK;
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
	out->plan.key = out->facts.key;
	if (!err)
		err = check_events(spec, out, msg);
	if (!err)
		err = arms_run(&out->arms, &out->trace, msg);
	if (!err && spec->nexpect > 0)
		err = expect_evaluate(spec->expect, spec->nexpect, &out->arms, &out->expected, msg);
	if (!err)
		err = note_late_events(spec, out);
	for (size_t i = 0; !err && i < out->arms.n; i++)
		out->expected.missed += arm_is_dead(&out->arms.arm[i]);
	if (err)
		experiment_release(out);
	return err;
}

void experiment_release(struct experiment *e)
{
	expect_results_release(&e->expected);
	simload_facts_release(&e->facts);
	arms_release(&e->arms);
	simtrace_release(&e->trace);
}

struct simreport experiment_report(const struct experiment *e)
{
	struct simreport r = {.name = e->plan.name,
			      .source = e->plan.source,
			      .key = e->plan.key,
			      .format = e->facts.format,
			      .arrivals = e->facts.arrivals,
			      .invented = e->facts.invented,
			      .note = (const char *const *)e->facts.note,
			      .nnotes = e->facts.nnotes,
			      .seed = e->plan.seed,
			      .trace = &e->trace,
			      .arms = &e->arms,
			      .expected = e->expected.n ? &e->expected : NULL};

	return r;
}
