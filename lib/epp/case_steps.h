/* Cases of several steps: private to lib/epp. */
#ifndef PD_EPP_CASE_STEPS_H
#define PD_EPP_CASE_STEPS_H

#include "lib/epp/case_kit.h"

/* Requests that begin, answer and end: what is in flight. */
int case_flight(struct epp_case *k) PD_MUST;
/* Stages that remember picks. */
int case_memory(struct epp_case *k) PD_MUST;
/* The header that an answer gets. */
int case_response(struct epp_case *k) PD_MUST;
/* Pages of metrics. */
int case_scrapes(struct epp_case *k) PD_MUST;

#endif
