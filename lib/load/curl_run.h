/* The transport with libcurl's multi interface, on the calling thread. Internal to lib/load. */
#ifndef PD_LOAD_CURL_RUN_H
#define PD_LOAD_CURL_RUN_H

#include "lib/load/load_core.h"

/* Runs what core was set up with, against target 0. */
int curl_run(struct load_core *c, struct pd_msg *msg) PD_MUST;

#endif
