/* The options of `vllm bench serve` that pdctl bench takes beside its own: one table, from which
 * the parser's rows and the page of docs/bench.md are made. */
#ifndef PD_CMD_BENCH_VLLM_H
#define PD_CMD_BENCH_VLLM_H

#include "lib/base/opt.h"
#include "lib/load/loadplan.h"

/* For the option table of bench: accepted, and not shown in --help. */
extern struct opt bench_vllm_rows[];

void bench_vllm_defaults(void);
void bench_vllm_release(void);
/* Carries what was given over to bench's own options. PD_EINVAL with a message. */
int bench_vllm_apply(int argc, char **argv, struct pd_msg *msg) PD_MUST;

int64_t bench_vllm_default_output(void);	/* max_tokens when a record states none */
const char *bench_vllm_request_id_prefix(void); /* NULL: none */
double bench_vllm_ready_s(void);		/* how long to wait for the server; 0: not at all */
bool bench_vllm_quiet(void);			/* no progress */
bool bench_vllm_append(void);			/* documents are added to the file */
/* --save-result: where vLLM would write. PD_EINVAL, PD_ENOMEM; the path is NULL when it is not
 * asked for, else owned by the caller. */
int bench_vllm_path(char **path, const char *model, const char *date, struct pd_msg *msg) PD_MUST;
/* --ramp-up-*: its steps, lent; *n 0: none. */
const struct arrivals_phase *bench_vllm_ramp(size_t *n);
/* Built-in prompts as --dataset-name asks for them. */
void bench_vllm_builtin(struct load_builtin *b);
/* The table of docs/bench.md. */
int bench_vllm_markdown(struct buf *out) PD_MUST;

#endif
