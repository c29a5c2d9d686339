/*
 * A name service for tests of the program: preloaded (LD_PRELOAD), it answers getaddrinfo from the
 * file that PDCTL_TEST_NAMES names, read at each call: lines "NAME ADDRESS ADDRESS ...", in that
 * order. "NAME hang" is not answered for two seconds. Names that do not stand there do not exist;
 * literals and NULL are the system's business. PDCTL_TEST_NAMES.asked gets one line for each
 * question.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*resolve_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static resolve_fn system_resolve(void)
{
	void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
	resolve_fn f;

	memcpy(&f, &symbol, sizeof(f));
	return f;
}

static void note(const char *file, const char *name)
{
	char path[1024];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s.asked", file);
	f = fopen(path, "a");
	if (!f)
		return;
	(void)fprintf(f, "%s\n", name);
	(void)fclose(f);
}

/* The next word, cut off; "" at the end of the line. */
static char *next_word(char **at)
{
	char *word = *at + strspn(*at, " \n"), *end = word + strcspn(word, " \n");

	*at = *end ? end + 1 : end;
	*end = '\0';
	return word;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **res)
{
	const char *file = getenv("PDCTL_TEST_NAMES");
	struct addrinfo **end = res;
	char line[1024], *word, *rest;
	int rc = EAI_NONAME;
	FILE *f;

	if (!file || !node || (hints && hints->ai_flags & AI_NUMERICHOST))
		return system_resolve()(node, service, hints, res);
	if (system_resolve()(node, service, &(struct addrinfo){.ai_flags = AI_NUMERICHOST}, res) ==
	    0) {
		freeaddrinfo(*res);
		return system_resolve()(node, service, hints, res);
	}
	note(file, node);
	*res = NULL;
	f = fopen(file, "r");
	while (f && fgets(line, sizeof(line), f)) {
		rest = line;
		if (strcmp(next_word(&rest), node) != 0)
			continue;
		while (*(word = next_word(&rest))) {
			if (strcmp(word, "hang") == 0) {
				(void)sleep(2);
				continue;
			}
			/* glibc frees a list node by node, so lists can be joined. */
			if (system_resolve()(word, service, hints, end) != 0)
				continue;
			rc = 0;
			while (*end)
				end = &(*end)->ai_next;
		}
	}
	if (f)
		(void)fclose(f);
	return rc;
}
