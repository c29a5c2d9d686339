/*
 * Any bytes as a registry's answer to GET /services: it is read, or refused with a sentence. What
 * is read is in the order of the names, has a name that no URL begins in, and a role only where
 * roles are asked for.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/registry_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(struct span answer, bool pd)
{
	struct discovery_list l = {0};
	struct pd_msg msg = {0};

	if (registry_list_read(&l, answer, pd, &msg) != PD_OK && !msg.text[0])
		abort();
	for (size_t i = 0; i < l.n; i++) {
		const struct discovery_worker *w = &l.worker[i];

		if ((w->role != DISCOVERY_REGULAR) != pd || strchr(w->name, '=') ||
		    w->labels.n > ROUTE_LABELS_MAX)
			abort();
	}
	if (l.n > DISCOVERY_WORKERS_MAX || !discovery_same(&l, &l))
		abort();
	discovery_release(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	look((struct span){(const char *)data, n}, false);
	look((struct span){(const char *)data, n}, true);
	return 0;
}
