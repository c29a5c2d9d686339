/* The services of a registry, as they came. Not thread-safe: the registry's lock. */
#ifndef PD_DISCOVERY_REGISTRY_TABLE_H
#define PD_DISCOVERY_REGISTRY_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

/* What the last active probe found. */
enum registry_health { REGISTRY_UNKNOWN, REGISTRY_HEALTHY, REGISTRY_UNHEALTHY };

struct registry_service {
	char *name, *host, *hostname, *url; /* owned */
	char *metadata;			    /* owned; the text of a JSON object */
	char status[64];
	uint16_t port;
	double registered, last_heartbeat; /* seconds since 1970 */
	enum registry_health health;
};

struct registry_table {
	struct registry_service **service; /* in no order */
	size_t n;
};

/*
 * A service as the JSON body says: name, host, port, hostname, url and status, and a metadata
 * object if wanted. With `old` (not NULL) what the body lacks is the old one's, and so are the name
 * and the times. PD_EINVAL names the member, what was found and what was expected; PD_ENOMEM.
 */
int registry_service_read(struct registry_service **out, struct span body,
			  const struct registry_service *old, struct pd_msg *msg) PD_MUST;
/* Accepts NULL. */
void registry_service_free(struct registry_service *s);

#endif
