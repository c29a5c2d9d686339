/* Reads the text of a scenario into the schema's structs; what they mean is in scenario.c. Used by
 * scenario.c only. */
#ifndef PD_SIM_SCENARIOLOAD_H
#define PD_SIM_SCENARIOLOAD_H

#include "lib/base/err.h"
#include "sim/scenarioschema.h"
#include "sim/yamlpos.h"

/* PD_EINVAL: msg begins with "NAME:LINE:COLUMN: ". *out is NULL and *pos released on failure. */
int scenario_read(struct y_scenario **out, struct yamlpos *pos, const char *text, size_t n,
		  const char *name, struct pd_msg *msg) PD_MUST;
void scenario_read_free(struct y_scenario *y);

#endif
