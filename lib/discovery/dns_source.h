/*
 * Workers from DNS: names that stand for several of them, as a headless service of Kubernetes does.
 *
 *	NAME:PORT	each A record is a worker at that port; without any, each AAAA record
 *	_PORT._PROTO.NAME (an underscore first): each SRV record of the lowest priority, with the
 *			port that it names; the worker is called by the record's target, so that it
 *			keeps its sessions when its address changes
 *
 * Asked by the rules of /etc/resolv.conf (search, ndots, timeouts of our own), again when the
 * shortest TTL has run out, at most each second and at least each `interval_s`. An answer without a
 * record, none at all, or a malformed one changes nothing: the last good set of that name stays.
 * Source: RFC 1035, 2181, 2782; the DNS specification of Kubernetes.
 */
#ifndef PD_DISCOVERY_DNS_SOURCE_H
#define PD_DISCOVERY_DNS_SOURCE_H

#include "lib/base/buf.h"
#include "lib/discovery/discovery.h"

#define DNS_NAMES_MAX 64 /* names that are asked for */

struct dns_wanted {
	enum discovery_role role;
	const char *text; /* "NAME:PORT" or "_PORT._PROTO.NAME"; borrowed, outlives the source */
};

/* PD_EINVAL with what was found and expected. */
int dns_wanted_check(const char *text, struct pd_msg *msg) PD_MUST;
/* An IPv4 address with or without a port. */
int dns_server_check(const char *server, struct pd_msg *msg) PD_MUST;

struct dns_source;

/* Texts that the checks take; `server` NULL: those of the system. PD_ENOMEM. */
int dns_source_start(struct dns_source **out, const struct dns_wanted *w, size_t n,
		     const char *server, double interval_s, const struct discovery_sink *sink,
		     struct pd_msg *msg) PD_MUST;
/* Ends the thread, a question to a name server that does not answer after 5 s at most; nothing is
 * published afterwards. Accepts NULL. */
void dns_source_stop(struct dns_source *s);

#endif
