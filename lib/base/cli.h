/*
 * What every command shares at the edge: exit codes, usage errors, checked standard output, colour.
 * The only file of lib/ that prints, and only when cmd/ asks it to.
 */
#ifndef PD_BASE_CLI_H
#define PD_BASE_CLI_H

#include <stdbool.h>

#include "lib/base/opt.h"

enum exit_code {
	EXIT_OK = 0,
	EXIT_FINDING = 1,      /* verdict failed, expectation missed, regression */
	EXIT_USAGE = 2,	       /* usage or unreadable input */
	EXIT_RUNTIME = 3,      /* run-time failure; for compare: not comparable */
	EXIT_INCONCLUSIVE = 4, /* compare --strict */
	EXIT_INTERRUPTED = 130
};

/* "pdctl serve: <text>" on standard error, and the code to return. */
int cli_usage_error(const struct opt_command *c, const struct pd_msg *msg);
int cli_runtime_error(const struct opt_command *c, const struct pd_msg *msg);
/* Parses; on --help prints the help. Returns -1 to go on, else the exit code to return. */
int cli_parse(const struct opt_command *c, int argc, char **argv, struct opt_list *rest);
/* Writes to standard output; failures are remembered and turn exit code 0 into 3 in cli_finish. */
void cli_print(const char *text, size_t n);
/* Called once by main: flushes standard output and checks that it really was written (a full disk
 * fails the run). */
int cli_finish(int code);
/* Colour on this stream: it is a terminal, TERM is not dumb and NO_COLOR is unset. */
bool cli_colour(int fd);
/* The locale (LC_ALL, LC_CTYPE or LANG, the first that is set) is one of UTF-8. */
bool cli_unicode(void);

#endif
