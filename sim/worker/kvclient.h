/* Idle connections to prefill workers, and one POST over them. Thread-safe; on the fiber of a
 * connection. */
#ifndef PD_SIM_WORKER_KVCLIENT_H
#define PD_SIM_WORKER_KVCLIENT_H

#include "lib/base/buf.h"
#include "lib/net/tls.h"

struct kv_pool;

struct kv_pool *kv_pool_new(struct tls_context *tls);
void kv_pool_free(struct kv_pool *p);
/* One POST to another worker: status and body. PD_EIO, PD_ETIMEOUT, PD_ECLOSED, PD_EPROTO. */
int kv_pool_post(struct kv_pool *p, const char *host, uint16_t port, const char *path,
		 struct span body, int64_t deadline, int *status, struct buf *answer) PD_MUST;

#endif
