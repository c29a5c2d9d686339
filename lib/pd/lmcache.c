/*
 * LMCache, as vLLM's own example proxy speaks it: prefill of one token, then decode, with nothing
 * in either request; the cache that both engines share moves the blocks. LMCache's own proxy speaks
 * another protocol (tokens, the first token, notices over ZeroMQ), which is refused by name in
 * connectors.c.
 */
#include "lib/pd/parts.h"

const struct pd_connector pd_connector_lmcache = {
	.name = "lmcache",
	.also = "LMCacheConnectorV1|LMCacheConnector",
	.help = "LMCache as in vLLM's example: prefill of one token, then decode, by a shared "
		"cache",
	.check = pd_check_params,
	.prefill = pd_plain_prefill,
	.answered = pd_plain_answered,
	.decode = pd_plain_decode,
};
