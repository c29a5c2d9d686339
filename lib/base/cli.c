/*
 * Standard output is checked once, at the end: a full disk or a closed pipe must not look like
 * success, and no command has to test each print.
 */
#include "lib/base/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int report(const struct opt_command *c, const struct pd_msg *msg, int code)
{
	(void)fprintf(stderr, "pdctl %s: %s\n", c->name,
		      msg->text[0] ? msg->text : "unknown error");
	return code;
}

int cli_usage_error(const struct opt_command *c, const struct pd_msg *msg)
{
	return report(c, msg, EXIT_USAGE);
}

int cli_runtime_error(const struct opt_command *c, const struct pd_msg *msg)
{
	return report(c, msg, EXIT_RUNTIME);
}

int cli_parse(const struct opt_command *c, int argc, char **argv, struct opt_list *rest)
{
	struct pd_msg msg = {0};
	struct buf help;
	/* The option tables of docs/ come from here (tests/blackbox/test_docs.py). */
	bool markdown = argc == 2 && strcmp(argv[1], "--help-markdown") == 0;
	int rc = markdown ? OPT_HELP : opt_parse(c, argc, argv, rest, &msg);

	if (rc == PD_OK)
		return -1;
	if (rc != OPT_HELP) {
		(void)report(c, &msg, EXIT_USAGE);
		(void)fprintf(stderr, "try: pdctl %s --help\n", c->name);
		return EXIT_USAGE;
	}
	buf_init(&help, 1 << 20);
	rc = (markdown ? opt_markdown(c, &help) : opt_help(c, &help)) ? EXIT_RUNTIME : EXIT_OK;
	cli_print(help.data, help.len);
	buf_release(&help);
	return rc;
}

void cli_print(const char *text, size_t n)
{
	/* The error indicator of stdout remembers a failure until cli_finish. */
	(void)fwrite(text, 1, n, stdout);
}

int cli_finish(int code)
{
	bool failed = fflush(stdout) != 0 || ferror(stdout);

	if (close(STDOUT_FILENO) != 0)
		failed = true;
	if (!failed)
		return code;
	(void)fputs("pdctl: cannot write to standard output\n", stderr);
	return code == EXIT_OK ? EXIT_RUNTIME : code;
}

bool cli_colour(int fd)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return (!no || !*no) && term && strcmp(term, "dumb") != 0 && isatty(fd);
}
