/* Any bytes as a policy file of compare: a refusal names the place; what is accepted has rules
 * within their bounds and gates that say what they were made of. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/results/compare_policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct compare_policy p = {.rules = compare_rules_default()};
	struct pd_msg msg = {""};
	int err = compare_policy_parse(&p, "f", (struct span){(const char *)data, n}, &msg);

	if (err == PD_EINVAL && strncmp(msg.text, "f:", 2) != 0)
		abort();
	if (!err && (!(p.rules.level > 0 && p.rules.level <= 0.5) || p.rules.min_runs < 2 ||
		     !(p.rules.run_spread >= 0 && p.rules.run_spread <= 1) || p.ngates > GATES_MAX))
		abort();
	for (size_t i = 0; !err && i < p.ngates; i++)
		if (!p.gate[i].metric[0] || p.gate[i].text != p.text[i])
			abort();
	compare_policy_release(&p);
	return 0;
}
