/*
 * The decode worker's HTTP client: POSTs to prefill workers over kept connections, so that
 * thousands of hand-overs per second do not use up the ports. Thread-safe; on the fiber or thread
 * of a request.
 */
#ifndef PD_SIM_WORKER_KVCLIENT_H
#define PD_SIM_WORKER_KVCLIENT_H

#include "lib/base/buf.h"
#include "lib/http/server.h"

struct kv_client;

struct kv_client *kv_client_new(struct tls_context *tls);
/* Accepts NULL. */
void kv_client_free(struct kv_client *k);
/*
 * One POST to another worker: status and body. It goes on although the client of the request `c`
 * has left: the read is also what frees the blocks. A connection that turns out to be closed before
 * any answer is replaced once: reading twice is safe only because a closed connection has not read
 * anything (the server answers before it closes). PD_EIO, PD_ETIMEOUT, PD_ECLOSED, PD_EPROTO,
 * PD_ENOMEM, PD_ETOOBIG with a sentence.
 */
int kv_client_post(struct kv_client *k, struct http_conn *c, const char *host, uint16_t port,
		   const char *path, struct span body, int64_t deadline, int *status,
		   struct buf *answer, struct pd_msg *msg) PD_MUST;

#endif
