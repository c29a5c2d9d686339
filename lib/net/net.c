/* Worker URLs are taken apart strictly: what stands in one goes into Host and the request line. */
#include "lib/net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static int url_fail(struct pd_msg *msg, const char *text, const char *why)
{
	return pd_fail(msg, PD_EINVAL, "URL '%s': %s, expected http[s]://HOST:PORT[/base][@rank]",
		       text, why);
}

static int parse_number(const char *p, size_t n, long max, long *out)
{
	long v = 0;

	if (n == 0 || n > 9)
		return PD_EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return PD_EINVAL;
		v = v * 10 + (p[i] - '0');
	}
	*out = v;
	return v <= max ? PD_OK : PD_EINVAL;
}

static int copy_part(char *out, size_t cap, const char *p, size_t n)
{
	if (n >= cap)
		return PD_ETOOBIG;
	memcpy(out, p, n);
	out[n] = '\0';
	return PD_OK;
}

/* Cuts "@N" from the end of *n characters. */
static int parse_rank(struct net_url *u, const char *p, size_t *n)
{
	const char *at = memrchr(p, '@', *n);
	long rank;

	u->rank = -1;
	if (!at)
		return PD_OK;
	if (parse_number(at + 1, (size_t)(p + *n - at - 1), 65535, &rank))
		return PD_EINVAL;
	u->rank = (int)rank;
	*n = (size_t)(at - p);
	return PD_OK;
}

/* What may stand in Host, so that no worker refuses what goes to it: a name or an IPv4 address, or
 * inside brackets an IPv6 address. */
static bool host_ok(const char *host, bool literal)
{
	static const char name[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				   "0123456789-._~";
	unsigned colons = 0;

	if (!literal)
		return host[0] && host[strspn(host, name)] == '\0';
	for (const char *p = host; *p; p++)
		colons += *p == ':';
	return host[strspn(host, "0123456789abcdefABCDEF:.")] == '\0' && colons >= 2 && colons <= 7;
}

/* "host", "host:port", "[v6]:port" */
static int parse_authority(struct net_url *u, const char *p, size_t n)
{
	const char *end = p + n, *colon;
	size_t host;
	long port = u->tls ? 443 : 80;
	bool literal = n > 0 && *p == '[';

	if (literal) {
		const char *close = memchr(p, ']', n);

		if (!close || copy_part(u->host, sizeof(u->host), p + 1, (size_t)(close - p - 1)))
			return PD_EINVAL;
		colon = close + 1 < end ? close + 1 : NULL;
		if (colon && *colon != ':')
			return PD_EINVAL;
	} else {
		colon = memchr(p, ':', n);
		host = colon ? (size_t)(colon - p) : n;
		if (copy_part(u->host, sizeof(u->host), p, host))
			return PD_EINVAL;
	}
	if (!host_ok(u->host, literal) ||
	    (colon &&
	     (end - colon > 6 || parse_number(colon + 1, (size_t)(end - colon - 1), 65535, &port) ||
	      port == 0)))
		return PD_EINVAL;
	u->port = (uint16_t)port;
	return PD_OK;
}

static void lower(char *p)
{
	for (; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p | 0x20);
}

int net_url_parse(struct net_url *u, const char *text, struct pd_msg *msg)
{
	const char *p = text, *slash;
	size_t n, authority;

	*u = (struct net_url){.rank = -1};
	u->tls = strncasecmp(p, "https://", 8) == 0;
	if (!u->tls && strncasecmp(p, "http://", 7) != 0)
		return url_fail(msg, text, "unknown scheme");
	p += u->tls ? 8 : 7;
	n = strlen(p);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] <= ' ' || (unsigned char)p[i] >= 0x7f)
			return url_fail(msg, text, "found white space or a control character");
	if (p[strcspn(p, "?#")])
		return url_fail(msg, text, "found a query or a fragment");
	if (parse_rank(u, p, &n))
		return url_fail(msg, text, "invalid rank after '@'");
	slash = memchr(p, '/', n);
	authority = slash ? (size_t)(slash - p) : n;
	if (parse_authority(u, p, authority) ||
	    copy_part(u->authority, sizeof(u->authority), p, authority))
		return url_fail(msg, text, "invalid host or port");
	lower(u->host);
	lower(u->authority);
	while (n > authority && p[n - 1] == '/')
		n--;
	if (copy_part(u->base, sizeof(u->base), p + authority, n - authority))
		return url_fail(msg, text, "path too long");
	return PD_OK;
}

void net_url_text(const struct net_url *u, char out[NET_URL_TEXT])
{
	int n = snprintf(out, NET_URL_TEXT, "%s://%s%s", u->tls ? "https" : "http", u->authority,
			 u->base);

	if (u->rank >= 0)
		(void)snprintf(out + n, (size_t)(NET_URL_TEXT - n), "@%d", u->rank);
}

/* Up to `max` addresses. 0, or the code of getaddrinfo. */
static int look_up(struct net_addr *a, unsigned max, unsigned *n, const char *host, uint16_t port,
		   int flags)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags},
			*list = NULL;
	char service[8];
	int rc;

	(void)snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc != 0)
		return rc;
	*n = 0;
	for (const struct addrinfo *i = list; i && *n < max; i = i->ai_next) {
		struct net_addr *to = &a[*n];

		if (i->ai_addrlen > sizeof(to->sa))
			continue;
		memset(to, 0, sizeof(*to));
		memcpy(&to->sa, i->ai_addr, i->ai_addrlen);
		to->len = i->ai_addrlen;
		(*n)++;
	}
	freeaddrinfo(list);
	return *n > 0 ? 0 : EAI_NONAME;
}

bool net_addr_same(const struct net_addr *a, const struct net_addr *b)
{
	return a->len == b->len && memcmp(&a->sa, &b->sa, a->len) == 0;
}

bool net_literal(struct net_addr *a, const char *host, uint16_t port)
{
	unsigned n;

	return look_up(a, 1, &n, host, port, AI_NUMERICHOST) == 0;
}

static int resolve(struct net_addr *a, unsigned max, unsigned *n, const char *host, uint16_t port,
		   struct pd_msg *msg)
{
	int rc = look_up(a, max, n, host, port, 0);

	return rc == 0 ? PD_OK
		       : pd_fail(msg, PD_ENOENT, "cannot resolve host '%s': %s", host,
				 gai_strerror(rc));
}

int net_resolve_all(struct net_addrs *out, const char *host, uint16_t port, struct pd_msg *msg)
{
	out->n = 0;
	return resolve(out->a, NET_ADDRS_MAX, &out->n, host, port, msg);
}

int net_resolve(struct net_addr *a, const char *host, uint16_t port, struct pd_msg *msg)
{
	unsigned n;

	return resolve(a, 1, &n, host, port, msg);
}

static uint16_t port_of(const struct sockaddr *sa)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): the kernel filled it */
	return ntohs(sa->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)sa)->sin6_port
					       : ((const struct sockaddr_in *)sa)->sin_port);
}

uint16_t net_bound_port(int fd)
{
	struct net_addr a = {.len = sizeof(a.sa)};

	if (getsockname(fd, &a.sa.any, &a.len) < 0)
		return 0;
	return port_of(&a.sa.any);
}

int net_listen(const char *host, uint16_t *port, int backlog, int *fd, struct pd_msg *msg)
{
	struct net_addr a;
	char text[128];
	int on = 1, err = net_resolve(&a, host, *port, msg);

	if (err)
		return err;
	*fd = socket(a.sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return pd_fail(msg, PD_EIO, "cannot create a socket: %s",
			       pd_errno_text(errno, text, sizeof(text)));
	(void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(*fd, &a.sa.any, a.len) < 0 || listen(*fd, backlog) < 0) {
		(void)pd_fail(msg, PD_EIO, "cannot listen on %s:%u: %s", host, *port,
			      pd_errno_text(errno, text, sizeof(text)));
		(void)close(*fd);
		*fd = -1;
		return PD_EIO;
	}
	*port = net_bound_port(*fd);
	return PD_OK;
}

void net_addr_text(const struct sockaddr *sa, char out[NET_ADDR_TEXT])
{
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)sa)->sin6_addr;
	const void *address = &((const struct sockaddr_in *)sa)->sin_addr;
	int family = sa->sa_family;

	if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6)) {
		family = AF_INET;
		address = &v6->s6_addr[12];
	} else if (family == AF_INET6) {
		address = v6;
	}
	if ((family != AF_INET && family != AF_INET6) ||
	    !inet_ntop(family, address, out, NET_ADDR_TEXT))
		out[0] = '\0';
}

void net_peer_addr(int fd, char out[NET_ADDR_TEXT])
{
	struct net_addr a = {.len = sizeof(a.sa)};

	out[0] = '\0';
	if (getpeername(fd, &a.sa.any, &a.len) == 0)
		net_addr_text(&a.sa.any, out);
}

void net_peer_text(int fd, char *out, size_t cap)
{
	struct net_addr a = {.len = sizeof(a.sa)};
	char host[NET_ADDR_TEXT] = "";

	if (getpeername(fd, &a.sa.any, &a.len) == 0)
		net_addr_text(&a.sa.any, host);
	if (!host[0])
		(void)snprintf(out, cap, "?");
	else
		(void)snprintf(out, cap, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
			       port_of(&a.sa.any));
}
