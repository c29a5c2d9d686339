/* pdctl simulate --check. */
#ifndef PD_CMD_SIMULATE_CHECK_H
#define PD_CMD_SIMULATE_CHECK_H

#include "lib/base/opt.h"

/* Reads the scenario files and prints what would be run. PD_EINVAL: one of them is wrong. */
int simulate_check(const struct opt_list *files, struct pd_msg *msg) PD_MUST;

#endif
