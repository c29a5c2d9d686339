/* --profile of `worker` and `simulate`: the costs of an engine's step. */
#ifndef PD_CMD_PROFILE_OPTS_H
#define PD_CMD_PROFILE_OPTS_H

#include "lib/base/opt.h"
#include "sim/engine/profile.h"

/* Reads the profile and puts what it says into `e`, which holds what the options came to; costs of
 * a step that were given as options stay. What is doubtful about the profile goes to standard
 * error. Errors as profile_load. */
int profile_opts_read(const struct opt_command *command, int argc, char **argv, const char *path,
		      struct profile *p, struct engine_params *e, struct pd_msg *msg) PD_MUST;

#endif
