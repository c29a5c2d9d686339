/* Who waits: saturationDetector and flowControl of a configuration. Private to lib/epp. */
#ifndef PD_EPP_FLOW_H
#define PD_EPP_FLOW_H

#include "lib/epp/epp_reading.h"

/* Fills config->detector and config->flow, with the defaults where the file says nothing. */
int epp_flow_read(struct epp_reading *r) PD_MUST;

#endif
