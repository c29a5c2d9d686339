/* `workload:` of a scenario file. */
#ifndef PD_SIM_SCENARIO_SCENARIO_WORKLOAD_H
#define PD_SIM_SCENARIO_SCENARIO_WORKLOAD_H

#include "sim/scenario/reading.h"

int scn_read_workload(struct scenario *s, struct pd_msg *msg) PD_MUST;

#endif
