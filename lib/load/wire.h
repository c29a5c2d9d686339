/* The head of a request, and where it goes: for the transport on fibers. Internal to lib/load. */
#ifndef PD_LOAD_WIRE_H
#define PD_LOAD_WIRE_H

#include "lib/load/load_core.h"
#include "lib/net/net.h"
#include "lib/net/tls.h"

/* One server to send to. */
struct wire {
	struct net_url url;
	struct net_addrs addrs;
	struct sockaddr_un local; /* with --unix-socket: what addrs points to */
	struct buf head;	  /* request line and the fields that are always the same */
	struct tls_context *tls;
	struct tls_peer *peer;
};

/* Resolves the name, reads the CAs, writes the head. PD_EINVAL, PD_EIO, PD_ENOMEM. */
int wire_init(struct wire *w, const struct load_options *o, size_t target,
	      struct pd_msg *msg) PD_MUST;
void wire_release(struct wire *w);
/* The rest of the head of this request: length, keys, echoed headers, the empty line. */
int wire_fields(const struct load_core *c, const struct flight *f, struct buf *out) PD_MUST;

#endif
