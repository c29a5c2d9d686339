/*
 * The read of KV blocks: POST /pdctl/kv/read, in place of an RDMA read and its notification, or of
 * the write that an engine starts itself. The decode worker sends what the router told it, with its
 * block size and tensor parallel size; the prefill worker answers with the kind of mistake, if the
 * read is one, and frees the blocks. When both engines got the request at once it waits until the
 * blocks are there. Thread-safe.
 */
#ifndef PD_SIM_WORKER_KVREAD_H
#define PD_SIM_WORKER_KVREAD_H

#include "sim/worker/nixl.h"

/* On the prefill worker: of whichever of its n engines has the blocks; the array is borrowed. */
void kvread_serve(struct nixl *const *engine, size_t n, struct http_conn *c,
		  const struct http_request *r);
/* On the decode worker, for the request of `c` with do_remote_prefill, whose blocks are named
 * `key`; prompt_hash of all prompt tokens. PD_OK: fetched; PD_EPROTO: a mistake was counted (*e is
 * set under --strict); PD_EIO: the prefill worker did not answer. */
int kvread_fetch(struct nixl *x, struct http_conn *c, const struct gen_request *g, const char *key,
		 uint64_t prompt_hash, struct api_error *e) PD_MUST;

#endif
