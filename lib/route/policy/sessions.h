/*
 * What the policies that bind sessions share: a memory of bindings whose number per worker is
 * counted, and the rows of these counts that pools hold.
 */
#ifndef PD_ROUTE_SESSIONS_H
#define PD_ROUTE_SESSIONS_H

#include "lib/route/hash.h"
#include "lib/route/memory/bindings.h"
#include "lib/route/policy.h"

/* The first of the parameters of a policy that uses this. */
struct session_params {
	double ttl; /* seconds */
	int64_t max;
};

#define ROUTE_SESSION_PARAMS(STRUCT, MEMBER)                                                       \
	{.type = ROUTE_PARAM_REAL,                                                                 \
	 .name = "session-ttl-secs",                                                               \
	 .arg = "SECS",                                                                            \
	 .help = "a session that sends nothing for so long loses its worker",                      \
	 .offset = offsetof(STRUCT, MEMBER.ttl),                                                   \
	 .min = 1,                                                                                 \
	 .max = 31536000,                                                                          \
	 .fallback = 7200},                                                                        \
	{                                                                                          \
		.type = ROUTE_PARAM_INT, .name = "session-table", .arg = "N",                      \
		.help = "most sessions that are remembered, 24 bytes each",                        \
		.offset = offsetof(STRUCT, MEMBER.max), .min = BINDINGS_MIN, .max = BINDINGS_MAX,  \
		.fallback = 65536                                                                  \
	}

struct sessions {
	struct tally *tally;
	struct bindings *bindings;
};

int sessions_memory_new(const void *params, void **memory) PD_MUST;
void sessions_memory_free(void *memory);
/* The table of a pool is its row of counts. */
int sessions_table_new(const struct route_pool *pool, const void *params, void **table,
		       struct pd_msg *msg) PD_MUST;
void sessions_table_free(void *table);
/* Binds at a pick, forgets finished sessions and workers that left. */
void sessions_learn(void *memory, const struct route_event *e);

/* Does the key name a session? Not the text of the request, which stands in for a key with
 * --key-compat vllm-router. */
bool sessions_named(const struct route_request *rq);
/* The id as the client wrote it: without what --key-compat vllm-router puts in front of a key. */
struct span sessions_raw(const struct route_request *rq);
/* The hash of that. */
uint64_t sessions_id(const struct route_request *rq);
/* Sessions that are bound to a worker of the view's pool. */
int64_t sessions_at(const struct route_view *v, uint32_t worker);
/* The worker that the session is bound to, if it may serve at all; what the request tried does not
 * count. Else ROUTE_NO_WORKER. */
uint32_t sessions_home(const struct route_view *v, uint64_t session);
/* Binds a session without a home, unless another request of it was faster; returns its home. Leaves
 * it at `worker` without binding when the ranking only explains (v->settled). */
uint32_t sessions_claim(const struct route_view *v, uint64_t session, uint32_t worker);

#endif
