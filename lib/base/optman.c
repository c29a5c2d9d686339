/* The manual page made from an option table: man(7), which both groff and mandoc read. */
#include <string.h>

#include "lib/base/opt.h"

/* Text as roff shows it unchanged. A hyphen stays one, so that options can be copied; a line that
 * begins with a control character begins with a zero-width one instead. */
static int roff_text(struct buf *out, const char *p, size_t n, bool line_begins)
{
	int err = PD_OK;

	if (n > 0 && line_begins && (*p == '.' || *p == '\''))
		err = buf_puts(out, "\\&");
	for (size_t i = 0; !err && i < n; i++)
		err = p[i] == '\\'   ? buf_puts(out, "\\e")
		      : p[i] == '-'  ? buf_puts(out, "\\-")
		      : p[i] == '~'  ? buf_puts(out, "\\(ti")
		      : p[i] == '^'  ? buf_puts(out, "\\(ha")
		      : p[i] == '`'  ? buf_puts(out, "\\(ga")
		      : p[i] == '\'' ? buf_puts(out, "\\(aq")
		      : p[i] == '"'  ? buf_puts(out, "\\(dq")
				     : buf_putc(out, p[i]);
	return err;
}

static int roff_line(struct buf *out, const char *before, const char *text, const char *after)
{
	int err = buf_puts(out, before);

	err = err ? err : roff_text(out, text, strlen(text), before[0] == '\0');
	return err ? err : buf_puts(out, after);
}

/* Paragraphs that are filled; an empty line separates them. */
static int filled(struct buf *out, const char *text)
{
	const char *end = text + strlen(text);
	int err = PD_OK;

	for (const char *p = text; !err && p < end; p++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p);

		while (n > 0 && *p == ' ') {
			p++;
			n--;
		}
		err = n == 0 ? buf_puts(out, ".PP\n") : roff_text(out, p, n, true);
		if (!err && n > 0)
			err = buf_putc(out, '\n');
		p += n;
	}
	return err;
}

/* Lines as they are. */
static int verbatim(struct buf *out, const char *text)
{
	const char *end = text + strlen(text);
	int err = buf_puts(out, ".nf\n");

	for (const char *p = text; !err && p < end; p++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p);

		err = n == 0 ? buf_putc(out, '\n') : roff_text(out, p, n, true);
		if (!err && n > 0)
			err = buf_putc(out, '\n');
		p += n;
	}
	return err ? err : buf_puts(out, ".fi\n");
}

static int option(struct buf *out, const struct opt *o)
{
	const char *arg = o->type == OPT_CHOICE && !o->arg ? o->choices : o->arg;
	int err = roff_line(out, ".TP\n\\fB", "--", "");

	err = err ? err : roff_line(out, "", o->name, "\\fR");
	if (!err && arg && o->type != OPT_FLAG)
		err = roff_line(out, " \\fI", arg, "\\fR");
	if (!err && o->alias)
		err = roff_line(out, ", \\fB\\-\\-", o->alias, "\\fR");
	err = err ? err : buf_putc(out, '\n');
	err = err ? err : roff_line(out, "", o->help, "");
	if (!err && o->type == OPT_CHOICE && o->arg)
		err = roff_line(out, " (", o->choices, ")");
	return err ? err : buf_putc(out, '\n');
}

int opt_man(const struct opt_command *c, struct buf *out)
{
	struct opt_walk walk = {.at = c->opts};
	int err = roff_line(out, ".SH NAME\npdctl\\-", c->name, " \\- ");

	err = err ? err : roff_line(out, "", c->summary, "\n.SH SYNOPSIS\n");
	err = err ? err : roff_line(out, "", c->usage, "\n");
	if (!err && c->about)
		err = buf_puts(out, ".SH DESCRIPTION\n");
	if (!err && c->about)
		err = filled(out, c->about);
	err = err ? err : buf_puts(out, ".SH OPTIONS\n");
	for (const struct opt *o; !err && (o = opt_next(&walk));)
		err = !o->help		       ? PD_OK
		      : o->type == OPT_HEADING ? roff_line(out, ".SS \"", o->help, "\"\n")
					       : option(out, o);
	if (!err && c->examples)
		err = buf_puts(out, ".SH EXAMPLES\n");
	return err || !c->examples ? err : verbatim(out, c->examples);
}
