/*
 * One table of commands: dispatch, `pdctl help` and the unknown-command hint all read it.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "lib/base/cli.h"
#include "lib/base/nearest.h"

const struct command commands[] = {
	{"serve", cmd_serve, "route requests to workers: plain pools, prefill and decode pools"},
	{"workers", cmd_workers, "list, add, drain and remove the workers of a running router"},
	{"top", cmd_top, "watch a running router in a terminal"},
	{"simulate", cmd_simulate,
	 "replay workloads on virtual workers, before deploying a policy"},
	{"bench", cmd_bench,
	 "load a server with sessions and schedules, and measure what its clients see"},
	{"compare", cmd_compare,
	 "tell whether a new result is worse than an old one, beyond noise"},
	{"results", cmd_results,
	 "the runs that bench and simulate kept: list, read, join, history"},
	{"worker", cmd_worker,
	 "a simulated vLLM engine: OpenAI API, prefix cache, P/D hand-over, faults on request"},
	{"registry", cmd_registry, "where services register: InfiniLM-SVC's registry, durable"},
	{"explain", cmd_explain, "why a request would go to which worker; endpoint picker plugins"},
	{"gen", cmd_gen, "write workload files: shared prefixes and growing conversations"},
	{NULL, NULL, NULL},
};

static int print_usage(void)
{
	struct buf out;
	int err;

	buf_init(&out, 1 << 16);
	err = buf_puts(&out,
		       "pdctl routes, predicts, loads and compares disaggregated LLM serving.\n\n"
		       "usage: pdctl COMMAND [options]     pdctl help COMMAND shows options and "
		       "examples\n\n");
	for (const struct command *c = commands; !err && c->name; c++)
		err = buf_printf(&out, "  %-10s %s\n", c->name, c->summary);
	cli_print(out.data, out.len);
	buf_release(&out);
	return err ? EXIT_RUNTIME : EXIT_OK;
}

static int unknown(const char *word)
{
	const char *names[sizeof(commands) / sizeof(commands[0])];
	const char *near;
	size_t n = 0;

	for (const struct command *c = commands; c->name; c++)
		names[n++] = c->name;
	names[n] = NULL;
	near = nearest_word(word, names);
	(void)fprintf(stderr,
		      "pdctl: unknown command '%s'%s%s%s; `pdctl help` lists the commands\n", word,
		      near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
	return EXIT_USAGE;
}

/* `pdctl help COMMAND` is `pdctl COMMAND --help`. */
static int help(int argc, char **argv)
{
	char *words[] = {argv[argc - 1], (char[]){"--help"}, NULL};

	if (argc == 2)
		return print_usage();
	if (argc > 3) {
		(void)fprintf(stderr, "pdctl help: found '%s', expected one command\n", argv[3]);
		return EXIT_USAGE;
	}
	for (const struct command *c = commands; c->name; c++)
		if (strcmp(argv[2], c->name) == 0)
			return c->run(2, words);
	return unknown(argv[2]);
}

static int dispatch(int argc, char **argv)
{
	if (argc < 2) {
		(void)print_usage();
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
	    strcmp(argv[1], "-h") == 0)
		return help(argc, argv);
	if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
		cli_print("pdctl " PDCTL_VERSION "\n", sizeof("pdctl " PDCTL_VERSION "\n") - 1);
		return EXIT_OK;
	}
	if (strcmp(argv[1], "man") == 0)
		return cmd_man(argc - 1, argv + 1);
	if (strcmp(argv[1], "completion") == 0)
		return cmd_completion(argc - 1, argv + 1);
	for (const struct command *c = commands; c->name; c++)
		if (strcmp(argv[1], c->name) == 0)
			return c->run(argc - 1, argv + 1);
	return unknown(argv[1]);
}

int main(int argc, char **argv)
{
	(void)signal(SIGPIPE, SIG_IGN);
	return cli_finish(dispatch(argc, argv));
}
