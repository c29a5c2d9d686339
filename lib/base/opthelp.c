/* The texts made from an option table: --help for a terminal and the Markdown table of docs/. */
#include <stdio.h>
#include <string.h>

#include "lib/base/opt.h"

#define HELP_COLUMN 34

static void left_side(const struct opt *o, char *out, size_t cap)
{
	const char *arg = o->type == OPT_CHOICE && !o->arg ? o->choices : o->arg;

	(void)snprintf(out, cap, "--%s%s%s", o->name, arg && o->type != OPT_FLAG ? " " : "",
		       arg && o->type != OPT_FLAG ? arg : "");
}

static int option_line(const struct opt *o, struct buf *out)
{
	char left[160];
	int err;

	left_side(o, left, sizeof(left));
	if (strlen(left) + 4 > HELP_COLUMN)
		err = buf_printf(out, "  %s\n  %*s%s", left, HELP_COLUMN, "", o->help);
	else
		err = buf_printf(out, "  %-*s%s", HELP_COLUMN, left, o->help);
	if (!err && o->type == OPT_CHOICE && o->arg)
		err = buf_printf(out, " (%s)", o->choices);
	if (!err && o->alias)
		err = buf_printf(out, " [also --%s]", o->alias);
	return err ? err : buf_putc(out, '\n');
}

int opt_help(const struct opt_command *c, struct buf *out)
{
	int err = buf_printf(out, "%s\n\nusage: %s\n", c->summary, c->usage);
	struct opt_walk walk = {.at = c->opts};

	if (!err && c->about)
		err = buf_printf(out, "\n%s\n", c->about);
	if (!err && c->opts->type != OPT_HEADING)
		err = buf_puts(out, "\noptions:\n");
	for (const struct opt *o; !err && (o = opt_next(&walk));)
		err = !o->help		       ? PD_OK
		      : o->type == OPT_HEADING ? buf_printf(out, "\n%s:\n", o->help)
					       : option_line(o, out);
	if (!err && c->examples)
		err = buf_printf(out, "\nexamples:\n%s", c->examples);
	if (!err && out->data[out->len - 1] != '\n')
		err = buf_putc(out, '\n');
	return err;
}

/* A cell: bars in `s` do not end it. */
static int markdown_text(struct buf *out, const char *before, const char *s, const char *after)
{
	int err = buf_puts(out, before);

	for (; !err && *s; s++)
		err = *s == '|' ? buf_puts(out, "\\|") : buf_putc(out, *s);
	return err ? err : buf_puts(out, after);
}

int opt_markdown(const struct opt_command *c, struct buf *out)
{
	int err = buf_puts(out, "| option | meaning |\n|---|---|\n");
	struct opt_walk walk = {.at = c->opts};
	char left[160];

	for (const struct opt *o; !err && (o = opt_next(&walk));) {
		if (o->type == OPT_HEADING) {
			err = buf_printf(out, "| **%s** | |\n", o->help);
			continue;
		}
		if (!o->help)
			continue;
		left_side(o, left, sizeof(left));
		err = markdown_text(out, "| `", left, "` | ");
		if (!err)
			err = markdown_text(out, "", o->help, " |\n");
	}
	return err;
}
