/*
 * Blocking TCP sockets with deadlines. The only place, with server.c, that calls send and recv.
 * Thread-safe. Every descriptor is close-on-exec; every send uses MSG_NOSIGNAL. TCP_NODELAY on both
 * sides.
 */
#ifndef PD_HTTP_NET_H
#define PD_HTTP_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

struct net_addr {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* "http://host:port[/base]" split; host without brackets. PD_EINVAL with a sentence for anything
 * else. */
struct net_url {
	char host[256];
	uint16_t port;
	char base[256];	     /* path prefix without trailing slash; usually empty */
	char authority[300]; /* "host:port" as it goes into Host */
	int rank;	     /* data-parallel rank from a trailing "@N"; -1 when absent */
};
int net_url_parse(struct net_url *u, const char *text, struct pd_msg *msg) PD_MUST;

/* Name or literal to an address; blocks in getaddrinfo for names: never on the request path. */
int net_resolve(struct net_addr *a, const char *host, uint16_t port, struct pd_msg *msg) PD_MUST;

/* Listening socket; port 0 picks a free one, *port receives the number. SO_REUSEADDR. */
/* Port of a bound socket; 0 when it has none. */
uint16_t net_bound_port(int fd);
int net_listen(const char *host, uint16_t *port, int backlog, int *fd, struct pd_msg *msg) PD_MUST;

/* Connects within the deadline (monotonic ns). PD_ETIMEOUT, PD_ECLOSED (refused, reset) or PD_EIO.
 */
int net_connect(const struct net_addr *a, int64_t deadline, int *fd) PD_MUST;

/* Per-call limits of recv and send; 0 = none. */
void net_set_timeouts(int fd, int64_t recv_ns, int64_t send_ns);

/* One recv: > 0 bytes, 0 end of stream, PD_ETIMEOUT (SO_RCVTIMEO) or PD_ECLOSED. Retries EINTR. */
ssize_t net_recv(int fd, void *p, size_t n);
/* One recv that waits until the absolute deadline at most. */
ssize_t net_recv_by(int fd, void *p, size_t n, int64_t deadline);

/*
 * Sends all of iov (which is consumed). Once the peer stops taking bytes, every further 64 KiB must
 * go out within stall_ns: then PD_ETIMEOUT. The socket's send timeout (net_set_timeouts) bounds the
 * single call. PD_ECLOSED when the peer is gone. *sent (may be NULL) counts bytes.
 */
int net_send_iov(int fd, struct iovec *iov, size_t n, int64_t stall_ns, size_t *sent) PD_MUST;
int net_send(int fd, const void *p, size_t n, int64_t stall_ns) PD_MUST;

/* True when an idle connection can be used again: nothing to read, not closed. */
bool net_idle_ok(int fd);

#endif
