/*
 * Scenario files: any bytes are either refused with a place in the file, or give a scenario whose
 * arms can be built; the result is the same the second time. Replays are not run: their size is the
 * user's business.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/scenario/scenario.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_scenario: %s\n", what);
		abort();
	}
}

static int parse(const uint8_t *data, size_t n, struct pd_msg *msg)
{
	struct scenario *s;
	const struct experiment_spec *spec;
	int err = scenario_parse(&s, (const char *)data, n, "f.yaml", msg);

	if (err) {
		expect(s == NULL, "a scenario in spite of an error");
		return err;
	}
	spec = scenario_spec(s);
	expect((spec->workload != NULL) + (spec->shape != NULL) + (spec->gen != NULL) == 1,
	       "one workload");
	expect(spec->plan.npolicies > 0, "a policy");
	if (spec->shape)
		expect(shape_check(spec->shape, NULL) == PD_OK, "an accepted shape is valid");
	scenario_free(s);
	return PD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pd_msg first = {.text = ""}, second = {.text = ""};
	int err = parse(data, n, &first);

	if (err == PD_EINVAL)
		expect(strncmp(first.text, "f.yaml:", 7) == 0, "a message without a place");
	expect(parse(data, n, &second) == err, "another verdict the second time");
	expect(strcmp(first.text, second.text) == 0, "another message the second time");
	return 0;
}
