/* The commands of pdctl. Each takes its own argv (argv[0] is the command's name) and returns an
 * exit code of lib/base/cli.h. */
#ifndef PD_CMD_H
#define PD_CMD_H

#define PDCTL_VERSION "0.1.0"

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

#endif
