/*
 * Workers that register themselves by ZeroMQ, as vLLM's P2P-NCCL and MoRI-IO engines do: each sends
 * one MessagePack map every 3 s from a DEALER to our ROUTER socket, and is gone 5 s after the last.
 * Nothing is sent back. Source: vLLM's disagg_proxy_p2p_nccl_xpyd.py, its MoRI-IO toy proxy and
 * vllm-router 0.1.17.
 *
 *	type           "P" or "D"; another one is ignored
 *	http_address   "host:port", also "host:port@rank"
 *	zmq_address    of the KV transfer: label kv-address
 *	tp_size, dp_size, transfer_mode   (MoRI-IO): labels tp-size, dp-size, transfer-mode
 *
 * Further keys and frames are ignored, and so is a message that is no such map.
 */
#ifndef PD_DISCOVERY_REGISTER_H
#define PD_DISCOVERY_REGISTER_H

#include "lib/base/span.h"
#include "lib/discovery/discovery.h"

#define REGISTER_TTL_S	     5
#define REGISTER_MESSAGE_MAX 65536 /* bytes; a longer one ends its peer's connection */

/* Reads one message into an empty entry. PD_EINVAL with a sentence: it says nothing of a worker.
 * PD_ENOMEM. */
int register_read(struct discovery_worker *w, struct span message, struct pd_msg *msg) PD_MUST;

/* Is it "host:port"? PD_EINVAL with a sentence. */
int register_check(const char *address, struct pd_msg *msg) PD_MUST;

struct register_source;

/* Listens at an address that register_check takes; with port 0 at a free one, which *port names.
 * PD_EINVAL, PD_EIO with a sentence; PD_ENOENT: no libzmq. */
int register_start(struct register_source **out, const char *address,
		   const struct discovery_sink *sink, uint16_t *port, struct pd_msg *msg) PD_MUST;
/* Ends the thread; nothing is published afterwards. Accepts NULL. */
void register_stop(struct register_source *s);

#endif
