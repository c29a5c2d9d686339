/* A router from its start to its last stream: TERM and INT drain, HUP reloads, USR1 reopens the
 * access log. */
#ifndef PD_CMD_SERVE_RUN_H
#define PD_CMD_SERVE_RUN_H

#include <signal.h>

#include "lib/base/opt.h"
#include "lib/router/capture/capture.h"
#include "lib/router/router.h"

/* Before the first thread is started; *set are the signals that serve_run waits for. */
void serve_block_signals(sigset_t *set);
/* The exit code. `announce` is called when it listens. *ended: no thread uses the configuration any
 * more. */
int serve_run(const struct opt_command *command, const struct router_config *c,
	      struct capture *capture, const sigset_t *set, const char *pid_file,
	      void (*announce)(const struct router *rt, const struct router_config *c),
	      bool *ended);

#endif
