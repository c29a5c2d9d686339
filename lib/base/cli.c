/*
 * Standard output is checked once, at the end: a full disk or a closed pipe must not look like
 * success, and no command has to test each print.
 */
#include "lib/base/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HELP_MAX	 (1u << 20)
#define HELP_COLUMNS_MIN 40

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

/* Columns to wrap at; 0: standard output is no terminal and COLUMNS does not say. */
static size_t columns(void)
{
	const char *said = getenv("COLUMNS");
	long n = said ? strtol(said, NULL, 10) : 0;
	struct winsize size;

	if (n <= 0 && isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		n = size.ws_col;
	return n <= 0 ? 0 : n < HELP_COLUMNS_MIN ? HELP_COLUMNS_MIN : (size_t)n;
}

static int print_help(const struct opt_command *c)
{
	size_t width = columns();
	struct buf text, wrapped;
	int err;

	buf_init(&text, HELP_MAX);
	buf_init(&wrapped, HELP_MAX);
	err = opt_help(c, &text);
	if (!err && width > 0)
		err = opt_wrap(text.data, text.len, width, &wrapped);
	if (!err)
		cli_print(width > 0 ? wrapped.data : text.data, width > 0 ? wrapped.len : text.len);
	buf_release(&wrapped);
	buf_release(&text);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

/* What installed files and docs/ are made of (cmd/pages.c, tests/blackbox/test_docs.py). */
static const struct form {
	const char *flag;
	int (*print)(const struct opt_command *c, struct buf *out);
} forms[] = {
	{"--help-markdown", opt_markdown},
	{"--help-man", opt_man},
	{"--help-bash", opt_bash},
	{"--help-zsh", opt_zsh},
};

static const struct form *form_of(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < sizeof(forms) / sizeof(forms[0]); i++)
		if (strcmp(argv[1], forms[i].flag) == 0)
			return &forms[i];
	return NULL;
}

static int print_form(const struct opt_command *c, const struct form *form)
{
	struct buf text;
	int rc;

	buf_init(&text, HELP_MAX);
	rc = form->print(c, &text) ? EXIT_RUNTIME : EXIT_OK;
	cli_print(text.data, text.len);
	buf_release(&text);
	return rc;
}

int cli_parse(const struct opt_command *c, int argc, char **argv, struct opt_list *rest)
{
	const struct form *form = form_of(argc, argv);
	struct pd_msg msg = {0};
	int rc;

	if (form)
		return print_form(c, form);
	rc = opt_parse(c, argc, argv, rest, &msg);
	if (rc == PD_OK)
		return -1;
	if (rc == OPT_HELP)
		return print_help(c);
	(void)report(c, &msg, EXIT_USAGE);
	(void)fprintf(stderr, "try: pdctl %s --help\n", c->name);
	return EXIT_USAGE;
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

bool cli_unicode(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
	const char *value = NULL;

	for (size_t i = 0; i < 3 && (!value || !*value); i++)
		value = getenv(names[i]);
	return value && (strcasestr(value, "UTF-8") || strcasestr(value, "UTF8"));
}
