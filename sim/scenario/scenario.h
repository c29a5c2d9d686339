/*
 * Scenario files: YAML, read through a schema. Unknown and double keys, wrong types, missing fields
 * and values out of range are errors with file, line and column; anchors, aliases and a second
 * document are refused. docs/scenarios.md describes the form.
 */
#ifndef PD_SIM_SCENARIO_SCENARIO_H
#define PD_SIM_SCENARIO_SCENARIO_H

#include "sim/scenario/experiment.h"

#define SCENARIO_FILE_MAX ((size_t)1 << 20)

struct scenario;

/* The message begins with "FILE:LINE:COLUMN: " when the content is wrong. *out is NULL on failure.
 */
int scenario_load(struct scenario **out, const char *path, struct pd_msg *msg) PD_MUST;
/* The same from memory; `path` is used in messages and to find the workload file beside it. */
int scenario_parse(struct scenario **out, const char *text, size_t n, const char *path,
		   struct pd_msg *msg) PD_MUST;
void scenario_free(struct scenario *s);

/* What to run: without a sweep one specification, else one per point. Borrowed, valid as long as s.
 */
const struct experiment_spec *scenario_spec(const struct scenario *s);
size_t scenario_points(const struct scenario *s);

#endif
