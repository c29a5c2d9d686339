/* Worker URLs, addresses and listening sockets. Connections are stream.h's business. Thread-safe.
 */
#ifndef PD_NET_NET_H
#define PD_NET_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

/* IPv4 or IPv6, or where the address of a Unix socket stands. Not a sockaddr_storage, of which most
 * is never used: lists of these stand on the stacks of requests. */
struct net_addr {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		const struct sockaddr_un *local; /* with len 0; borrowed */
	} sa;
	socklen_t len; /* 0: sa.local */
};

#define NET_ADDRS_MAX 16 /* of one name; more are not used */
/* What a name stands for, in the order of RFC 6724 (that of getaddrinfo). */
struct net_addrs {
	struct net_addr a[NET_ADDRS_MAX];
	unsigned n;
};

/* "http[s]://host[:port][/base]" split; host without brackets. Scheme and host are not
 * case-sensitive (RFC 3986, 6.2.2.1): the host is in lower case here. PD_EINVAL with a sentence
 * for anything else. */
struct net_url {
	bool tls; /* https:// */
	char host[256];
	uint16_t port;	     /* 80 or 443 when the text has none */
	char base[256];	     /* path prefix without trailing slash; usually empty */
	char authority[300]; /* "host:port" as it goes into Host */
	int rank;	     /* data-parallel rank from a trailing "@N"; -1 when absent */
};
int net_url_parse(struct net_url *u, const char *text, struct pd_msg *msg) PD_MUST;
#define NET_URL_TEXT 640
/* The URL in one spelling: scheme and host in lower case, no slash at the end. */
void net_url_text(const struct net_url *u, char out[NET_URL_TEXT]);

/* An IPv4 or IPv6 literal to an address; false when it is none. Does not wait. */
bool net_literal(struct net_addr *a, const char *host, uint16_t port);
/* Name or literal to its addresses, at least one; blocks in getaddrinfo for names: never on the
 * request path (resolver.h). PD_ENOENT. */
int net_resolve_all(struct net_addrs *out, const char *host, uint16_t port,
		    struct pd_msg *msg) PD_MUST;
/* The first of them. */
int net_resolve(struct net_addr *a, const char *host, uint16_t port, struct pd_msg *msg) PD_MUST;
bool net_addr_same(const struct net_addr *a, const struct net_addr *b);

/* Port of a bound socket; 0 when it has none. */
uint16_t net_bound_port(int fd);
/* Listening socket; port 0 picks a free one, *port receives the number. SO_REUSEADDR. */
int net_listen(const char *host, uint16_t *port, int backlog, int *fd, struct pd_msg *msg) PD_MUST;

#define NET_ADDR_TEXT 48
/* An address as text without its port; an IPv4 address that the kernel shows inside IPv6 is an IPv4
 * address. Empty when the family has none (a UNIX socket). */
void net_addr_text(const struct sockaddr *sa, char out[NET_ADDR_TEXT]);
/* That of the other side of a socket. One system call. */
void net_peer_addr(int fd, char out[NET_ADDR_TEXT]);
/* "address:port" of the other side, or "?". */
void net_peer_text(int fd, char *out, size_t cap);

#endif
