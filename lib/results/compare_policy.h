/*
 * A policy file: the gates and rules of a comparison as YAML, kept beside the code that it guards.
 *
 *   fail-on:
 *     - p99_ttft_ms:+5%
 *     - request_throughput:-3%
 *   warn-on: [mean_tpot_ms:+2%]
 *   require: [failed<=0]
 *   gate-level: 0.1
 *   min-runs: 4
 *
 * The keys are the options of `pdctl compare` without their dashes; single values and lists both
 * do. Options on the command line win; gates of both are judged.
 */
#ifndef PD_RESULTS_COMPARE_POLICY_H
#define PD_RESULTS_COMPARE_POLICY_H

#include "lib/results/compare_gate.h"

#define POLICY_FILE_MAX ((size_t)1 << 20)

struct compare_policy {
	struct compare_rules rules;
	struct gate gate[GATES_MAX];
	char *text[GATES_MAX]; /* owned: what gate[i].text points to */
	size_t ngates;
	char *allow, *metrics, *preset; /* owned; comma-separated lists, or NULL */
};

/* Fills *p from a file, on top of the rules that are in it. PD_EINVAL with "file:line:column: ..."
 * for unknown keys, wrong values and wrong gates; PD_EIO. Released also after an error. */
int compare_policy_read(struct compare_policy *p, const char *path, struct pd_msg *msg) PD_MUST;
/* The same for a text in memory; `name` is for messages. */
int compare_policy_parse(struct compare_policy *p, const char *name, struct span text,
			 struct pd_msg *msg) PD_MUST;
void compare_policy_release(struct compare_policy *p);

#endif
