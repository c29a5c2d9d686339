/*
 * Completion made from an option table: for each command one function of the shell, which the
 * script of cmd/pages.c calls. Nothing is asked of the program while somebody types.
 */
#include <string.h>

#include "lib/base/opt.h"

/* What stands behind an option can be completed: nothing (a flag), one of its choices, a file. */
static bool is_file(const struct opt *o)
{
	return o->arg && (strncmp(o->arg, "FILE", 4) == 0 || strncmp(o->arg, "DIR", 3) == 0);
}

static bool is_shown(const struct opt *o)
{
	return o->type != OPT_HEADING && o->help;
}

/* "a|b" as words. */
static int choices(struct buf *out, const char *list)
{
	int err = PD_OK;

	for (; !err && *list; list++)
		err = buf_putc(out, *list == '|' ? ' ' : *list);
	return err;
}

static int bash_value(struct buf *out, const struct opt *o)
{
	int err = buf_printf(out, "\t--%s%s%s) ", o->name, o->alias ? " | --" : "",
			     o->alias ? o->alias : "");

	if (err)
		return err;
	if (o->type == OPT_CHOICE) {
		err = buf_puts(out, "_pdctl_words='");
		err = err ? err : choices(out, o->choices);
		return err ? err : buf_puts(out, "' ;;\n");
	}
	return buf_puts(out, is_file(o) ? "_pdctl_words=@file ;;\n" : "_pdctl_words= ;;\n");
}

int opt_bash(const struct opt_command *c, struct buf *out)
{
	struct opt_walk values = {.at = c->opts}, names = {.at = c->opts};
	int err = buf_printf(out, "_pdctl_%s() {\n\tcase $1 in\n", c->name);

	for (const struct opt *o; !err && (o = opt_next(&values));)
		if (is_shown(o) && o->type != OPT_FLAG)
			err = bash_value(out, o);
	err = err ? err : buf_puts(out, "\t*) _pdctl_words='");
	for (const struct opt *o; !err && (o = opt_next(&names));)
		if (is_shown(o))
			err = buf_printf(out, "--%s ", o->name);
	return err ? err : buf_puts(out, "--help' ;;\n\tesac\n}\n");
}

/* Help inside '...[...]': quotes, brackets and backslashes would end it, a colon the field. */
static int zsh_text(struct buf *out, const char *s)
{
	int err = PD_OK;

	for (; !err && *s; s++)
		err = *s == '\''		  ? buf_puts(out, "'\\''")
		      : *s && strchr("[]:\\", *s) ? buf_printf(out, "\\%c", *s)
						  : buf_putc(out, *s);
	return err;
}

static int zsh_option(struct buf *out, const struct opt *o, const char *name)
{
	int err = buf_printf(out, "\t\t'%s--%s[", o->type == OPT_LIST ? "*" : "", name);

	err = err ? err : zsh_text(out, o->help);
	err = err ? err : buf_putc(out, ']');
	if (!err && o->type != OPT_FLAG) {
		/* Of a list all words up to the next option. */
		err = buf_puts(out, o->type == OPT_LIST ? ":*--*:" : ":");
		err = err ? err : zsh_text(out, o->type == OPT_CHOICE ? o->name : o->arg);
		err = err ? err : buf_putc(out, ':');
		if (!err && o->type == OPT_CHOICE) {
			err = buf_putc(out, '(');
			err = err ? err : choices(out, o->choices);
			err = err ? err : buf_putc(out, ')');
		} else if (!err && is_file(o)) {
			err = buf_puts(out, "_files");
		}
	}
	return err ? err : buf_puts(out, "' \\\n");
}

int opt_zsh(const struct opt_command *c, struct buf *out)
{
	struct opt_walk walk = {.at = c->opts};
	int err = buf_printf(out, "_pdctl_%s() {\n\t_arguments \\\n", c->name);

	for (const struct opt *o; !err && (o = opt_next(&walk));)
		if (is_shown(o))
			err = zsh_option(out, o, o->name);
	return err ? err
		   : buf_puts(out,
			      "\t\t'--help[print the help and exit]' \\\n\t\t'*:word:_files'\n}\n");
}
