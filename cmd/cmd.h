/* The commands of pdctl. Each takes its own argv (argv[0] is the command's name) and returns an
 * exit code of lib/base/cli.h. */
#ifndef PD_CMD_H
#define PD_CMD_H

/* Both stand in CHANGELOG.md and debian/changelog too (tests/blackbox/test_packaging.py compares).
 */
#define PDCTL_VERSION "0.1.0"
#define PDCTL_DATE    "2026-12-01"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
};

/* All of them, in the order of `pdctl help`; ends with a name that is NULL. */
extern const struct command commands[];

/* `pdctl man [COMMAND]` and `pdctl completion bash|zsh`: what `make install` installs. */
int cmd_man(int argc, char **argv);
int cmd_completion(int argc, char **argv);

int cmd_serve(int argc, char **argv);
int cmd_results(int argc, char **argv);
int cmd_worker(int argc, char **argv);
int cmd_registry(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_simulate(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_gen(int argc, char **argv);
int cmd_workers(int argc, char **argv);
int cmd_top(int argc, char **argv);

#endif
