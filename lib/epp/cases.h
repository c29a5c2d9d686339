/*
 * Recorded cases of llm-d's endpoint picker, decided again by the router's own plugins: one JSON
 * object, its fields as docs/epp.md names them. Scores are compared to 1e-12, everything else
 * exactly.
 */
#ifndef PD_EPP_CASES_H
#define PD_EPP_CASES_H

#include "lib/base/err.h"

/* PD_OK: the same. PD_EINVAL: the line is no such case; PD_EPROTO: another result; why says what
 * was found and what was expected. */
int epp_case_run(const char *line, size_t n, struct pd_msg *why) PD_MUST;

#endif
