/*
 * Command-line options as one table per command: parsing, --help, "did you mean", the option tables
 * in docs/, manual pages and completion all come from it, so they cannot drift apart.
 *
 * Accepted: --name value, --name=value, --flag, --no-flag, "--" (the rest is positional),
 * -h/--help. A list option takes the words that follow it up to the next option and may be
 * repeated.
 */
#ifndef PD_BASE_OPT_H
#define PD_BASE_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define OPT_LIST_MAX 4096

enum opt_type {
	OPT_END = 0,
	OPT_HEADING, /* `help` is a heading in --help */
	OPT_FLAG,    /* bool * */
	OPT_TEXT,    /* const char ** (borrowed from argv) */
	OPT_INT,     /* int64_t *, within [min, max] when min < max */
	OPT_REAL, /* double *, within [min, max] when min < max; "inf" allowed when max is INFINITY
		   */
	OPT_CHOICE, /* const char **, one of choices "a|b|c" */
	OPT_ROWS,   /* const struct opt *: the rows of that table stand here */
	OPT_LIST /* struct opt_list *; `min`/`max` words per occurrence when min < max or max > 0 */
};

struct opt_list {
	const char **items;   /* owned array of borrowed words */
	unsigned *occurrence; /* owned: which occurrence of the flag (0..) each word came with */
	size_t n;
	unsigned occurrences;
};

struct opt {
	enum opt_type type;
	const char *name; /* without dashes */
	void *value;
	const char *arg;  /* "URL", "N", ... in help; NULL for flags */
	const char *help; /* one line; says the unit and the default. NULL: accepted, not shown */
	const char *choices; /* OPT_CHOICE */
	double min, max;
	const char *alias; /* a second spelling, or NULL; not shown in the usage line */
};

struct opt_command {
	const char *name;     /* "serve" */
	const char *usage;    /* "pdctl serve [options]" */
	const char *summary;  /* one line */
	const char *about;    /* some paragraphs, or NULL */
	const char *examples; /* "  $ pdctl ..." lines with a word of explanation, or NULL */
	const struct opt *opts;
};

/* Goes through a table, OPT_ROWS resolved: for (struct opt_walk w = {c->opts}; (o = opt_next(&w));)
 */
struct opt_walk {
	const struct opt *at, *outer;
};
const struct opt *opt_next(struct opt_walk *w);

#define OPT_HELP 1 /* returned by opt_parse when --help was asked for */

/*
 * Reads argv[1..]. Positional words go to `rest` (NULL: none allowed). Returns PD_OK, OPT_HELP, or
 * PD_EINVAL with a message that names the flag, what was found and what was expected.
 */
int opt_parse(const struct opt_command *c, int argc, char **argv, struct opt_list *rest,
	      struct pd_msg *msg) PD_MUST;
void opt_list_release(struct opt_list *l);

/* True when the option was given on the command line in the last opt_parse of this table. */
bool opt_given(const struct opt_command *c, int argc, char **argv, const char *name);

/* The --help text, and the same options as a Markdown table (used for docs/). */
int opt_help(const struct opt_command *c, struct buf *out) PD_MUST;
int opt_markdown(const struct opt_command *c, struct buf *out) PD_MUST;
/* The same options for installed files: a manual page from .SH NAME on, and a function _pdctl_NAME
 * of the shell (cmd/pages.c puts the rest around them). */
int opt_man(const struct opt_command *c, struct buf *out) PD_MUST;
int opt_bash(const struct opt_command *c, struct buf *out) PD_MUST;
int opt_zsh(const struct opt_command *c, struct buf *out) PD_MUST;
/*
 * The --help text with lines of at most `width` characters: broken between words, and what follows
 * stands below what was broken. Examples stay as they are, for they are copied. A word that is
 * longer than a line stays whole.
 */
int opt_wrap(const char *text, size_t n, size_t width, struct buf *out) PD_MUST;

#endif
