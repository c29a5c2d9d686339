/*
 * Names to addresses for callers that must not wait in getaddrinfo (a fiber would
 * stop all of its loop): each look-up has a thread of its own for as long as it takes, so that a
 * name server that hangs delays only calls that ask for its names. Thread-safe.
 */
#ifndef PD_NET_RESOLVER_H
#define PD_NET_RESOLVER_H

#include "lib/net/errand.h"
#include "lib/net/net.h"

#define RESOLVER_MAX 16 /* names at once; more are refused */

struct resolver;

/* Starts the thread that hands look-ups out. PD_ENOMEM. */
int resolver_new(struct resolver **out) PD_MUST;
/* No call of resolver_find may be running. A look-up that hangs is not waited for: the last one
 * frees the memory. Accepts NULL. */
void resolver_free(struct resolver *r);
/*
 * The addresses of a name; of a literal at once. The asker sleeps meanwhile (errand.h).
 * PD_ENOENT: no such name. PD_ETIMEOUT: not by the deadline (monotonic ns). PD_ECANCELED: the asker
 * gave up. PD_EBUSY: RESOLVER_MAX look-ups hang. PD_ENOMEM. PD_EINVAL: the name is too long. The
 * message says it in a sentence.
 */
int resolver_find(struct resolver *r, const char *host, uint16_t port,
		  const struct errand_sleeper *who, int64_t deadline, struct net_addrs *out,
		  struct pd_msg *msg) PD_MUST;

/* A look-up for a caller that does something else meanwhile. */
struct look_up;
/* Begins one, or joins one of the same name that is under way. The same errors as above, but for
 * those of the look-up itself. */
int resolver_begin(struct resolver *r, const char *host, uint16_t port, struct look_up **out,
		   struct pd_msg *msg) PD_MUST;
/* PD_EAGAIN: it is under way. Else what came of it. Does not wait. */
int resolver_look(struct look_up *l, struct net_addrs *out, struct pd_msg *msg) PD_MUST;
/* The caller has no use for it any more, also when it is under way. From any thread, also after
 * resolver_free. Accepts NULL. */
void resolver_drop(struct look_up *l);

#endif
