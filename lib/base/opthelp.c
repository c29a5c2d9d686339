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

/* Where the text of a line begins: behind the option, else behind the indentation. */
static size_t text_column(const char *line, size_t n)
{
	size_t at = 0;

	if (n > 7 && memcmp(line, "usage: ", 7) == 0)
		return 7;
	while (at < n && line[at] == ' ')
		at++;
	if (at == 2 && n > HELP_COLUMN + 2 && line[at] == '-' && line[HELP_COLUMN + 1] == ' ')
		return HELP_COLUMN + 2;
	return at;
}

/* What does not fit stands below the text, or near the margin when that column is far to the right.
 */
static int wrap_line(const char *p, size_t n, size_t width, struct buf *out)
{
	size_t column = text_column(p, n), indent = column <= width / 2 ? column : 4, used = column,
	       word;
	const char *end = p + n;
	int err;

	if (n <= width)
		return buf_append(out, p, n);
	err = buf_append(out, p, column);
	for (p += column; !err && p < end; p += word) {
		while (p < end && *p == ' ')
			p++;
		for (word = 0; p + word < end && p[word] != ' ';)
			word++;
		if (used > column && used + 1 + word > width) {
			err = buf_printf(out, "\n%*s", (int)indent, "");
			used = column = indent;
		} else if (used > column) {
			err = buf_putc(out, ' ');
			used++;
		}
		err = err ? err : buf_append(out, p, word);
		used += word;
	}
	return err;
}

/* The lines of a paragraph as one: up to a full stop, or before an empty or an indented line.
 */
static size_t join_lines(struct buf *one, const char *p, const char *end)
{
	const char *from = p;
	int err = PD_OK;

	buf_clear(one);
	while (!err) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((eol ? eol : end) - p);

		err = buf_append(one, p, len);
		p += len;
		if (!eol || len == 0 || p[-1] == '.' || p + 1 == end || p[1] == ' ' || p[1] == '\n')
			break;
		err = err ? err : buf_putc(one, ' ');
		p++;
	}
	return err ? SIZE_MAX : (size_t)(p - from);
}

int opt_wrap(const char *text, size_t n, size_t width, struct buf *out)
{
	enum { HEAD, ABOUT, OPTIONS, EXAMPLES } part = HEAD;
	const char *end = text + n;
	struct buf one;
	int err = PD_OK;

	buf_init(&one, n + 1);
	for (const char *p = text; !err && p < end; p++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t len =
			part == ABOUT ? join_lines(&one, p, end) : (size_t)((eol ? eol : end) - p);

		if (len == SIZE_MAX) {
			err = PD_ENOMEM;
			break;
		}
		if (len == 9 && memcmp(p, "examples:", 9) == 0)
			part = EXAMPLES;
		else if (part == HEAD && len > 6 && memcmp(p, "usage:", 6) == 0)
			part = ABOUT;
		else if (part == ABOUT && len > 0 && p[len - 1] == ':' && p + len + 1 < end &&
			 p[len + 1] == ' ')
			part = OPTIONS;
		err = part == EXAMPLES		     ? buf_append(out, p, len)
		      : one.len > 0 && part == ABOUT ? wrap_line(one.data, one.len, width, out)
						     : wrap_line(p, len, width, out);
		p += len;
		if (!err && p < end)
			err = buf_putc(out, '\n');
	}
	buf_release(&one);
	return err;
}
