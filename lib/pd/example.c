/*
 * vLLM ExampleConnector (before: SharedStorageConnector): prefill writes the blocks of the whole
 * prompt to a directory that decode reads. The prompt itself says where, so neither request carries
 * anything, and nothing is freed. Only where both workers have the label kv-address does the id
 * name them, as P2pNcclConnector's does: for people who follow requests of both in one log. Source:
 * vLLM's connector of that name and its example proxy.
 */
#include "lib/pd/parts.h"

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_plain_prefill(p, c, msg);

	if (err || p->prefill.kv.n == 0 || p->decode.kv.n == 0)
		return err;
	err = pd_address_id(p);
	if (!err)
		c->id = buf_span(&p->made_id);
	return err;
}

const struct pd_connector pd_connector_example = {
	.name = "example",
	.also = "ExampleConnector|SharedStorageConnector|filesystem|fs",
	.help = "vLLM ExampleConnector: both workers use one directory",
	.flags = PD_ENDS,
	.check = pd_check_params,
	.prefill = prefill,
	.answered = pd_plain_answered,
	.decode = pd_plain_decode,
};
