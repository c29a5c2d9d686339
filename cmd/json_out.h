/* A JSON document for a script: to a file, or standard output for "-". */
#ifndef PD_CMD_JSON_OUT_H
#define PD_CMD_JSON_OUT_H

#include <cjson/cJSON.h>

#include "lib/base/err.h"

/* Printed with a line feed at its end. PD_ENOMEM (also for doc NULL), PD_EIO, each with a sentence.
 */
int json_out(const char *path, const cJSON *doc, struct pd_msg *msg) PD_MUST;

#endif
