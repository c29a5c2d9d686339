/*
 * The other side of register.h: a worker that says every 3 s where it is, with the MessagePack map
 * that vLLM's P2P-NCCL and MoRI-IO engines send, from a DEALER whose identity is its KV address. A
 * router that is not there yet, or starts again, hears of it within ANNOUNCE_RETRY_MS of listening;
 * nothing that is out of date waits in a queue. There is no message for an end: routers take the
 * worker out REGISTER_TTL_S after the last one.
 */
#ifndef PD_DISCOVERY_ANNOUNCE_H
#define PD_DISCOVERY_ANNOUNCE_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/log.h"

#define ANNOUNCE_S	  3
#define ANNOUNCE_RETRY_MS 200
#define ANNOUNCE_TO_MAX	  16 /* routers */

/* Texts are borrowed for the call. */
struct announce_config {
	const char *const *to; /* "HOST:PORT" of routers, as register_check takes them */
	size_t n;
	bool prefill;		   /* type "P", else "D" */
	const char *http_address;  /* "host:port" */
	const char *zmq_address;   /* of the KV transfer */
	unsigned tp_size, dp_size; /* sent when transfer_mode is, or when above 1 */
	const char *transfer_mode; /* of MoRI-IO: "READ" or "WRITE"; NULL: none */
	struct log *log;
};

/* The map that is sent. PD_ENOMEM, PD_ETOOBIG. */
int announce_message(const struct announce_config *cfg, struct buf *out) PD_MUST;

struct announce;

/* PD_EINVAL: an address is none; PD_ENOENT: no libzmq; PD_EIO, PD_ENOMEM; with a sentence. */
int announce_start(struct announce **out, const struct announce_config *cfg,
		   struct pd_msg *msg) PD_MUST;
/* Ends the thread. Accepts NULL. */
void announce_stop(struct announce *a);

#endif
