#include "cmd/bars_opts.h"

#include <string.h>
#include <unistd.h>

#include "lib/base/cli.h"

bool bars_wanted(const char *value, bool *ascii)
{
	if (!value || strcmp(value, "auto") == 0) {
		*ascii = !cli_unicode();
		return isatty(STDOUT_FILENO) == 1;
	}
	*ascii = strcmp(value, "ascii") == 0;
	return strcmp(value, "off") != 0;
}
