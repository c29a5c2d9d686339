/*
 * vllm-router's command line: every flag of its release 0.1.17 in one table, with what it does
 * here. Those that pdctl serve has no option for are accepted and named at the start; one that
 * would let a request reach the wrong worker if it were ignored is an error. The table of
 * docs/migration.md comes from here.
 */
#ifndef PD_CMD_SERVE_VLLM_H
#define PD_CMD_SERVE_VLLM_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

/* For OPT_ROWS: the flags without an option of ours, not shown in --help. */
extern struct opt serve_vllm_rows[];

/* Before the options are parsed. */
void serve_vllm_defaults(void);
/* PD_EINVAL: a flag that is not supported and cannot be ignored. With the workers read. */
int serve_vllm_check(struct pd_msg *msg) PD_MUST;
/* What vllm-router's environment and, with --compat, its own rules say of parameters that no flag
 * gave. */
void serve_vllm_settings(bool compat, struct route_settings *s);
/* Warnings: what was accepted without effect, and what is not supported yet. */
void serve_vllm_announce(struct log *log);
int serve_vllm_markdown(struct buf *out) PD_MUST;
void serve_vllm_release(void);

#endif
