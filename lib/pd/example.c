/*
 * vLLM ExampleConnector (before: SharedStorageConnector): prefill writes the blocks of the whole
 * prompt to a directory that decode reads. The prompt itself says where, so neither request carries
 * anything, and nothing is freed. Source: vLLM's connector of that name and its example proxy.
 */
#include "lib/pd/parts.h"

const struct pd_connector pd_connector_example = {
	.name = "example",
	.also = "ExampleConnector|SharedStorageConnector|filesystem|fs",
	.help = "vLLM ExampleConnector: both workers use one directory",
	.check = pd_check_params,
	.prefill = pd_plain_prefill,
	.answered = pd_plain_answered,
	.decode = pd_plain_decode,
};
