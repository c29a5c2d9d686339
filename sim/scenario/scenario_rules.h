/* What a scenario file wants: objective, goals, repetitions; and its decider. */
#ifndef PD_SIM_SCENARIO_SCENARIO_RULES_H
#define PD_SIM_SCENARIO_SCENARIO_RULES_H

#include "sim/scenario/reading.h"

int scn_read_rules(struct scenario *s, struct pd_msg *msg) PD_MUST;
int scn_read_decider(struct scenario *s, struct pd_msg *msg) PD_MUST;

#endif
