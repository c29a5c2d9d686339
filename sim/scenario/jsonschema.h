/* The form of scenario files as a JSON Schema (draft 2020-12), for editors: made from the tables
 * that read them, so the two cannot differ. */
#ifndef PD_SIM_SCENARIO_JSONSCHEMA_H
#define PD_SIM_SCENARIO_JSONSCHEMA_H

#include "lib/base/err.h"

struct cJSON;

/* NULL when out of memory. The caller frees it with cJSON_Delete. */
struct cJSON *scenario_json_schema(void);

#endif
