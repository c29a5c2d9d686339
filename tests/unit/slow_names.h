/*
 * A name service for tests: this program's own getaddrinfo. Names that begin with "hang" are not
 * answered until names_release, "good.test" is 127.0.0.1, other names do not exist; literals and
 * NULL are the system's business.
 */
#ifndef PD_TESTS_SLOW_NAMES_H
#define PD_TESTS_SLOW_NAMES_H

#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/base/clock.h"

static _Atomic unsigned names_asked, names_hanging;
static _Atomic bool names_released;

static inline void names_release(void)
{
	atomic_store(&names_released, true);
	while (atomic_load(&names_hanging) > 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	atomic_store(&names_released, false);
	atomic_store(&names_asked, 0);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **res)
{
	int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
	int rc;

	memcpy(&next, &symbol, sizeof(next));
	if (!node || (hints && hints->ai_flags & AI_NUMERICHOST))
		return next(node, service, hints, res);
	atomic_fetch_add(&names_asked, 1);
	if (strncmp(node, "hang", 4) == 0) {
		atomic_fetch_add(&names_hanging, 1);
		while (!atomic_load(&names_released))
			clock_sleep_until(clock_now() + NS_PER_MS);
		atomic_fetch_sub(&names_hanging, 1);
		return EAI_AGAIN;
	}
	if (strcmp(node, "good.test") == 0)
		node = "127.0.0.1";
	rc = strspn(node, "0123456789.") == strlen(node) ? next(node, service, hints, res)
							 : EAI_NONAME;
	return rc;
}

#endif
