/*
 * The read of KV blocks: POST /pdctl/kv/read, in place of NIXL's RDMA read and its notification.
 * The decode worker sends what the router passed on; the prefill worker answers with the kind of
 * mistake, if the read is one, and frees the blocks. Thread-safe.
 */
#ifndef PD_SIM_WORKER_KVREAD_H
#define PD_SIM_WORKER_KVREAD_H

#include "sim/worker/nixl.h"

/* On the prefill worker. */
void kvread_serve(struct nixl *x, struct http_conn *c, const struct http_request *r);
/* On the decode worker, for the request of `c` with do_remote_prefill; prompt_hash of all prompt
 * tokens. PD_OK: fetched; PD_EPROTO: a mistake was counted (*e is set under --strict); PD_EIO: the
 * prefill worker did not answer. */
int kvread_fetch(struct nixl *x, struct http_conn *c, const struct gen_request *g,
		 uint64_t prompt_hash, struct api_error *e) PD_MUST;

#endif
