/*
 * The driver of tests/blackbox/test_json_oracle.py: reads cases from standard input, one line each
 * in hexadecimal, and answers each with one line of JSON or `invalid`.
 *
 *   scan TEXT                       every member: name (decoded), type, raw value, in the order of
 * the text edit TEXT NAME VALUE NAME ...   the edited text in hexadecimal; without VALUE ("-") the
 * member is removed
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/json/edit.h"

#define LINE_MAX_BYTES (8u << 20)
#define ARGS_MAX       16

static int nibble(int c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* In place; the text is shorter than its hexadecimal form. */
static struct span unhex(char *text)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++)
		text[i] = (char)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return (struct span){text, n};
}

static void must(int err)
{
	if (err) {
		fprintf(stderr, "json_probe: %s\n", pd_err_text(err));
		exit(3);
	}
}

static void print_members(const struct json_object *o)
{
	struct buf out, name, key;

	buf_init(&out, 8 * LINE_MAX_BYTES);
	buf_init(&name, LINE_MAX_BYTES);
	buf_init(&key, LINE_MAX_BYTES);
	must(buf_putc(&out, '['));
	for (size_t i = 0; i < o->n; i++) {
		const struct json_member *m = &o->member[i];
		struct span quoted = {m->key.p - 1, m->key.n + 2};

		buf_clear(&name);
		must(json_string_decode(quoted, &name));
		must(buf_puts(&out, i ? ",[" : "["));
		must(json_quote(&out, name.data, name.len));
		must(buf_printf(&out, ",%d,", (int)m->type));
		must(json_quote(&out, m->value.p, m->value.n));
		must(buf_putc(&out, ']'));
	}
	printf("%s]\n", out.data);
	buf_release(&out);
	buf_release(&name);
	buf_release(&key);
}

static void print_edited(const struct json_object *o, char **arg, size_t n)
{
	struct json_edit e;
	struct buf out;
	size_t total;

	buf_init(&out, LINE_MAX_BYTES);
	must(json_edit_init(&e, o));
	for (size_t i = 0; i + 1 < n; i += 2) {
		struct span name = unhex(arg[i]);

		arg[i][name.n] = '\0';
		if (strcmp(arg[i + 1], "-") == 0)
			must(json_edit_remove(&e, arg[i]));
		else
			must(json_edit_set(&e, arg[i], unhex(arg[i + 1])));
	}
	must(json_edit_finish(&e, &total));
	must(json_edit_copy(&e, &out));
	for (size_t i = 0; i < out.len; i++)
		printf("%02x", (unsigned)(unsigned char)out.data[i]);
	printf("\n");
	json_edit_release(&e);
	buf_release(&out);
}

static void answer(char *line)
{
	char *arg[ARGS_MAX], *p = line, *word;
	struct json_object o;
	struct pd_msg msg;
	struct span text;
	size_t n = 0;

	line[strcspn(line, "\n")] = '\0';
	while (n < ARGS_MAX && (word = strsep(&p, " ")))
		arg[n++] = word;
	if (n < 2)
		must(PD_EINVAL);
	text = unhex(arg[1]);
	if (json_object_scan(&o, text.p, text.n, &msg)) {
		printf("invalid %s\n", msg.text);
		return;
	}
	if (strcmp(arg[0], "scan") == 0)
		print_members(&o);
	else
		print_edited(&o, arg + 2, n - 2);
	json_object_release(&o);
}

int main(void)
{
	char *line = malloc(LINE_MAX_BYTES);

	if (!line)
		return 3;
	while (fgets(line, LINE_MAX_BYTES, stdin))
		answer(line);
	free(line);
	return 0;
}
