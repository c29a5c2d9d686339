/*
 * `vllm serve` of a simulated worker: `pdctl worker serve MODEL ...` with vLLM's flags. Those that
 * mean something here are options of pdctl worker; the others are accepted and named once at the
 * start. A flag of vLLM that is not in the table is an unknown option.
 */
#ifndef PD_CMD_WORKER_VLLM_H
#define PD_CMD_WORKER_VLLM_H

#include "lib/base/log.h"
#include "lib/base/opt.h"

extern struct opt worker_vllm_rows[];

/* Fills the rows; before parsing. */
void worker_vllm_defaults(void);

/* The words as options know them: without "serve" in front, with '-' for '_' in names, and long
 * names for vLLM's short ones (-tp, -dp, -pp). *words is owned by the caller, its texts by *texts:
 * free both. PD_ENOMEM. */
int worker_vllm_words(int argc, char **argv, int *n, char ***words, char **texts) PD_MUST;

/* --kv-transfer-config and --kv-events-config: what of them counts here. Texts are owned; free with
 * worker_vllm_release. */
struct worker_vllm_config {
	char *connector; /* kv_connector; NULL: none */
	char *role;	 /* "kv_both", "kv_producer", "kv_consumer"; NULL */
	char *proxy_ip, *shared_path;
	int kv_port, handshake_port, proxy_port, http_port; /* 0: none */
	int read_mode; /* MoRI-IO: 1 READ, 0 WRITE, -1 not said */
	bool push;     /* NIXL */
	/* KV events */
	bool events;
	char *endpoint, *replay_endpoint, *topic;
	int64_t buffer_steps, hwm;
};
/* `transfer` and `events` may be NULL. PD_EINVAL with a sentence that names the flag. */
int worker_vllm_config(const char *transfer, const char *events, struct worker_vllm_config *out,
		       struct pd_msg *msg) PD_MUST;

/* One line when flags without effect were given. */
void worker_vllm_announce(struct log *log);
/* The table for docs/. */
int worker_vllm_markdown(struct buf *out) PD_MUST;
void worker_vllm_release(struct worker_vllm_config *c);

#endif
