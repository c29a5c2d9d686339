#include "cmd/simulate_print.h"

#include <string.h>

#include "lib/base/cli.h"
#include "sim/report/table.h"

void simulate_print(const char *text, size_t n)
{
	const size_t len = sizeof(SIMREPORT_MARK) - 1;
	const char *end = text + n, *at, *stop;

	while ((at = memmem(text, (size_t)(end - text), SIMREPORT_MARK, len)) != NULL) {
		cli_print(text, (size_t)(at - text));
		at += len;
		for (stop = at; stop < end && *stop != ' ' && *stop != '\n';)
			stop++;
		cli_print(" \033[1;32m", 8);
		cli_print(at, (size_t)(stop - at));
		cli_print("\033[0m", 4);
		text = stop;
	}
	cli_print(text, (size_t)(end - text));
}

void simulate_file_name(char *name)
{
	for (; *name; name++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
			    *name))
			*name = '-';
}
