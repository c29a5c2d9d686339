#include "sim/worker/core.h"

#include <stdio.h>

#include "lib/base/rng.h"

int core_init(struct core *k, const struct engine_config *cfg)
{
	unsigned char b[16];

	rng_system_bytes(b, sizeof(b));
	(void)snprintf(k->id, sizeof(k->id),
		       "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], (b[8] & 0x3f) | 0x80,
		       b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	atomic_init(&k->next, 0);
	(void)pthread_mutex_init(&k->lock, NULL);
	return engine_init(&k->engine, cfg);
}

void core_release(struct core *k)
{
	engine_release(&k->engine);
	(void)pthread_mutex_destroy(&k->lock);
}
