/* What the router adds to answers for session-affinity-scorer and -filter. */
#ifndef PD_ROUTE_SESSION_AFFINITY_H
#define PD_ROUTE_SESSION_AFFINITY_H

#include "lib/base/buf.h"
#include "lib/route/score/stage.h"

extern const struct score_type score_session, score_session_filter;

/* Appends the token that means this worker. */
int score_session_token(const char *name, struct buf *out) PD_MUST;
/* Of the parameters of such a stage: the header that carries the token, NULL: there is none; of
 * which profile's pick it is, NULL: the primary one's. */
const char *score_session_header(const void *params);
const char *score_session_profile(const void *params);

#endif
