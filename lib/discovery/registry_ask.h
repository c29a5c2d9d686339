/*
 * Asks services whether they live: GET /health, all at once. A model server ("metadata.type" is
 * "openai-api") is asked at the port above its own, where InfiniLM-SVC's babysitter answers for it.
 */
#ifndef PD_DISCOVERY_REGISTRY_ASK_H
#define PD_DISCOVERY_REGISTRY_ASK_H

#include <stdbool.h>

#include "lib/discovery/registry.h"
#include "lib/discovery/registry_table.h"

struct registry_probe {
	char name[REGISTRY_NAME_MAX + 1];
	char url[2 * REGISTRY_NAME_MAX + 60];
	bool good; /* it answered 2xx in time */
};

/* Where the service is asked. */
void registry_probe_of(struct registry_probe *p, const struct registry_service *s);
/* Blocks for `timeout_s` at most. What cannot be asked is not good. */
void registry_ask(struct registry_probe *p, size_t n, double timeout_s);

#endif
