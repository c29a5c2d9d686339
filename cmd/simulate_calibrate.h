/* `pdctl simulate --calibrate`: costs of a step from measured times. */
#ifndef PD_CMD_SIMULATE_CALIBRATE_H
#define PD_CMD_SIMULATE_CALIBRATE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

struct simulate_calibrate {
	const char *file, *profile, *profile_out, *json; /* of the command line */
	int64_t fit_first;
	bool prior;
};

int simulate_calibrate_run(const struct simulate_calibrate *o, struct pd_msg *msg) PD_MUST;

#endif
