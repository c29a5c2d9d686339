/*
 * vLLM P2pNcclConnector: the request's id tells each engine where the other one is, so both legs
 * carry "___prefill_addr_HOST:PORT___decode_addr_HOST:PORT_UUID". The addresses are those that the
 * workers registered for their KV transfer, else their HTTP addresses. Source: vLLM's
 * disagg_proxy_p2p_nccl_xpyd.py and the connector's parse_request_id.
 */
#include "lib/pd/parts.h"

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_plain_prefill(p, c, msg);

	err = err ? err : pd_address_id(p);
	if (!err)
		c->id = buf_span(&p->made_id);
	return err;
}

const struct pd_connector pd_connector_p2p_nccl = {
	.name = "p2p_nccl",
	.also = "P2pNcclConnector|p2pnccl",
	.help = "vLLM P2pNcclConnector: the request id names both workers' KV addresses",
	.flags = PD_READ_ONCE | PD_ENDS,
	.check = pd_check_params,
	.prefill = prefill,
	.answered = pd_plain_answered,
	.decode = pd_plain_decode,
};
