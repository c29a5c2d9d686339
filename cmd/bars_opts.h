/* --bars of commands that draw in the terminal. */
#ifndef PD_CMD_BARS_OPTS_H
#define PD_CMD_BARS_OPTS_H

#include <stdbool.h>

#include "lib/base/opt.h"

/* clang-format off */
#define BARS_OPTION(variable) \
	{OPT_CHOICE, "bars", &(variable), NULL, \
	 "draw bars and sparklines below the tables: auto draws them in a terminal, in the characters that " \
	 "its locale has (auto)", "auto|unicode|ascii|off", 0, 0, NULL}
/* clang-format on */

/* Are they wanted on standard output? NULL is auto. *ascii: without characters beyond ASCII. */
bool bars_wanted(const char *value, bool *ascii);

#endif
