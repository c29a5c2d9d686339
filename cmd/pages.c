/*
 * pdctl man, pdctl completion: the manual pages and the completion scripts that `make install`
 * installs. Both walk the table of commands; what they say of options comes from each command's own
 * table, by --help-man, --help-bash and --help-zsh.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "lib/base/cli.h"

#define PAGE_MAX (1u << 16)

static void print(const char *text)
{
	cli_print(text, strlen(text));
}

/* The command prints one form of its option table. */
static int form(const struct command *c, const char *flag)
{
	char name[32], word[32], *words[] = {name, word, NULL};

	(void)snprintf(name, sizeof(name), "%s", c->name);
	(void)snprintf(word, sizeof(word), "%s", flag);
	return c->run(2, words);
}

static int title(const char *dash, const char *name)
{
	struct buf b;
	int err;

	buf_init(&b, PAGE_MAX);
	err = buf_printf(&b, ".TH \"PDCTL%s%s\" 1 \"%s\" \"pdctl %s\" \"pdctl\"\n", dash, name,
			 PDCTL_DATE, PDCTL_VERSION);
	cli_print(b.data, b.len);
	buf_release(&b);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static const char overview[] =
	".SH NAME\n"
	"pdctl \\- route, predict, load and compare disaggregated LLM serving\n"
	".SH SYNOPSIS\n"
	".B pdctl\n"
	".I COMMAND\n"
	"[\\fIoptions\\fR]\n"
	".PP\n"
	".B pdctl help\n"
	"[\\fICOMMAND\\fR]\n"
	".PP\n"
	".B pdctl completion\n"
	".BR bash | zsh\n"
	".PP\n"
	".B pdctl man\n"
	"[\\fICOMMAND\\fR]\n"
	".SH DESCRIPTION\n"
	"A router for vLLM workers, plain or in prefill and decode pools, and what belongs to its "
	"operation: a simulated worker, a simulator, a load generator, a comparison of results.\n"
	"Each command has a manual page of its own, and explains itself with\n"
	".BR \\-\\-help .\n"
	".SH COMMANDS\n";

static const char ending[] =
	".SH EXIT STATUS\n"
	".TP\n0\nsuccess\n"
	".TP\n1\na finding: a verdict failed, an expectation was missed, a regression\n"
	".TP\n2\nwrong usage or unreadable input; the message names the option, or file, line and "
	"column\n"
	".TP\n3\na failure at run time; of\n.BR \"pdctl compare\" :\nnot comparable\n"
	".TP\n4\ninconclusive\n"
	".TP\n130\ninterrupted\n"
	".SH ENVIRONMENT\n"
	".TP\n.B PDCTL_STORE\nthe SQLite file that keeps the runs of bench and simulate; none: "
	"they are not kept\n"
	".TP\n.B NO_COLOR\nno colour, also on a terminal\n"
	".TP\n.B COLUMNS\nthe width of help texts\n";

static int overview_page(void)
{
	struct buf b;
	int err = title("", "");

	if (err)
		return err;
	buf_init(&b, PAGE_MAX);
	err = buf_puts(&b, overview);
	for (const struct command *c = commands; !err && c->name; c++)
		err = buf_printf(&b, ".TP\n.B %s\n%s\n", c->name, c->summary);
	err = err ? err : buf_puts(&b, ending);
	err = err ? err : buf_puts(&b, ".SH SEE ALSO\n");
	for (const struct command *c = commands; !err && c->name; c++)
		err = buf_printf(&b, ".BR pdctl\\-%s (1)%s\n", c->name, c[1].name ? "," : "");
	cli_print(b.data, b.len);
	buf_release(&b);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int wrong(const char *command, const char *word, const char *expected)
{
	(void)fprintf(stderr, "pdctl %s: found %s%s%s, expected %s\n", command, word ? "'" : "",
		      word ? word : "nothing", word ? "'" : "", expected);
	return EXIT_USAGE;
}

int cmd_man(int argc, char **argv)
{
	if (argc == 1)
		return overview_page();
	for (const struct command *c = commands; argc == 2 && c->name; c++) {
		int rc;

		if (strcmp(c->name, argv[1]) != 0)
			continue;
		rc = title("\\-", c->name);
		rc = rc ? rc : form(c, "--help-man");
		print(".SH EXIT STATUS\nSee\n.BR pdctl (1).\n.SH SEE ALSO\n.BR pdctl (1)\n");
		return rc;
	}
	return wrong("man", argv[argc - 1], "at most one word, a command of `pdctl help`");
}

/* "--name=value" is three words there, for = breaks words. */
static const char bash_script[] =
	"_pdctl() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} "
	"command=${COMP_WORDS[1]} _pdctl_words\n"
	"\tCOMPREPLY=()\n"
	"\tif [ \"$cur\" = = ]; then\n"
	"\t\tcur=\n"
	"\telif [ \"$before\" = = ] && [ \"$COMP_CWORD\" -gt 2 ]; then\n"
	"\t\tbefore=${COMP_WORDS[COMP_CWORD-2]}\n"
	"\tfi\n"
	"\tif [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$command\" = help ] && [ \"$COMP_CWORD\" -eq 2 ]; "
	"}; then\n"
	"\t\t_pdctl_words=$_pdctl_commands\n"
	"\telif declare -F \"_pdctl_$command\" >/dev/null; then\n"
	"\t\tcase $cur in -*) before= ;; esac\n"
	"\t\t\"_pdctl_$command\" \"$before\"\n"
	"\telse\n"
	"\t\treturn 0\n"
	"\tfi\n"
	"\tif [ \"$_pdctl_words\" = @file ]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	"\telif [ -n \"$_pdctl_words\" ]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$_pdctl_words\" -- \"$cur\")\n"
	"\telse\n"
	"\t\tcompopt +o default 2>/dev/null || true\n"
	"\tfi\n"
	"}\n"
	"complete -o default -F _pdctl pdctl\n";

static const char zsh_script[] = "_pdctl() {\n"
				 "\tif (( CURRENT == 2 )); then\n"
				 "\t\t_describe command _pdctl_commands\n"
				 "\telif (( $+functions[_pdctl_$words[2]] )); then\n"
				 "\t\tlocal name=$words[2]\n"
				 "\t\tshift words\n"
				 "\t\t(( CURRENT-- ))\n"
				 "\t\t_pdctl_$name\n"
				 "\tfi\n"
				 "}\n"
				 "_pdctl \"$@\"\n";

static int functions(const char *flag)
{
	int rc = EXIT_OK;

	for (const struct command *c = commands; rc == EXIT_OK && c->name; c++)
		rc = form(c, flag);
	return rc;
}

static int bash(void)
{
	int rc;

	print("# bash completion for pdctl, made from its option tables: pdctl completion bash\n");
	rc = functions("--help-bash");
	print("_pdctl_commands='");
	for (const struct command *c = commands; c->name; c++) {
		print(c->name);
		print(" ");
	}
	print("help version'\n");
	print(bash_script);
	return rc;
}

static int zsh(void)
{
	int rc;

	print("#compdef pdctl\n"
	      "# zsh completion for pdctl, made from its option tables: pdctl completion zsh\n");
	rc = functions("--help-zsh");
	print("_pdctl_commands=(\n");
	for (const struct command *c = commands; c->name; c++) {
		print("\t\"");
		print(c->name);
		print(":");
		print(c->summary);
		print("\"\n");
	}
	print("\t'help:options and examples of a command' 'version:print the version'\n)\n");
	print(zsh_script);
	return rc;
}

int cmd_completion(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "bash") == 0)
		return bash();
	if (argc == 2 && strcmp(argv[1], "zsh") == 0)
		return zsh();
	return wrong("completion", argc > 1 ? argv[argc - 1] : NULL, "bash or zsh");
}
