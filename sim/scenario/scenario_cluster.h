/* Pools, caches, engines and events of a scenario file. */
#ifndef PD_SIM_SCENARIO_SCENARIO_CLUSTER_H
#define PD_SIM_SCENARIO_SCENARIO_CLUSTER_H

#include "sim/scenario/reading.h"

int scn_read_pools(struct scenario *s, struct pd_msg *msg) PD_MUST;
int scn_read_caches(struct scenario *s, struct pd_msg *msg) PD_MUST;
int scn_read_engine(struct scenario *s, struct pd_msg *msg) PD_MUST;
/* Links, routers, signals, retries. */
int scn_read_network(struct scenario *s, struct pd_msg *msg) PD_MUST;
int scn_read_events(struct scenario *s, struct pd_msg *msg) PD_MUST;
/* Each name of a pool is there once. */
int scn_check_names(const struct scenario *s, const char *pool, const struct y_pool *y,
		    struct pd_msg *msg) PD_MUST;

#endif
