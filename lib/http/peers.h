/*
 * Counts the connections of each client address, to limit them. An IPv6 client is its /64, of
 * which a host can use every address. Open addressing under a keyed hash (its key is random), at
 * most half full, sized once for the connections that can exist; nothing is allocated later. The
 * caller locks.
 */
#ifndef PD_HTTP_PEERS_H
#define PD_HTTP_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/base/err.h"
#include "lib/base/siphash.h"

struct peers {
	struct sip_key secret;
	struct peer *slot; /* owned; NULL: not limited */
	size_t mask;
	unsigned limit; /* connections per address; 0: no limit */
};

/* `connections`: the most that peers_enter will have let in at once. */
int peers_init(struct peers *p, unsigned limit, unsigned connections) PD_MUST;
void peers_release(struct peers *p);
/* Counts a connection of this address; false: it is at its limit. *id names the address to
 * peers_leave. An address of another family (a UNIX socket) is not limited: *id is 0. */
bool peers_enter(struct peers *p, const struct sockaddr *sa, uint64_t *id);
void peers_leave(struct peers *p, uint64_t id);

#endif
