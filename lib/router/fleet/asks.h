/*
 * One question to many workers at once (flush your cache, what are you): all transfers run in
 * parallel on one thread of their own with libcurl's multi interface, each with a deadline, while
 * the handler that asked sleeps. Thread-safe.
 */
#ifndef PD_ROUTER_ASKS_H
#define PD_ROUTER_ASKS_H

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "lib/router/fleet/fleet.h"

#define ASKS_QUEUE   32 /* questions that wait or run; more are refused */
#define ASK_TIMEOUT  (10 * NS_PER_S)
#define ASK_BODY_MAX (4u << 20) /* of one answer; what is longer counts as failed */
#define ASK_PATHS    3

struct asks;

/* One worker's answer. */
struct ask_one {
	struct worker *worker;
	long status;	 /* 0: no answer, `why` says why */
	struct buf body; /* empty unless asked for */
	char ctype[128];
	char why[200];
	unsigned path; /* which of the paths it answered */
};

struct ask {
	const char *method;
	const char *path[ASK_PATHS]; /* the next one is tried after a 404 or 405 */
	bool keep_body;
	struct ask_one *one; /* owned */
	size_t n, cap;
};

/* For workers of this fleet; holds it. NULL when out of memory. */
struct ask *ask_new(struct fleet *f, const char *method, const char *first, const char *second,
		    const char *third);
/* Adds a worker; one server is asked once, whatever number of ranks it has. */
int ask_worker(struct ask *a, struct worker *w) PD_MUST;
/* Asks and sleeps meanwhile; then a->one says what each worker answered. PD_EBUSY: too many ask,
 * PD_ECANCELED: the client left, PD_ETIMEOUT. */
int ask_run(struct asks *s, struct http_conn *c, struct ask *a) PD_MUST;
/* The same for any thread, until the deadline (monotonic ns): who has not answered by then has not
 * answered. */
int ask_wait(struct asks *s, const struct errand_sleeper *who, struct ask *a,
	     int64_t deadline) PD_MUST;
void ask_free(struct ask *a);
bool ask_good(const struct ask_one *one);

/* `c` is borrowed until asks_stop. PD_ENOMEM. */
int asks_start(struct asks **out, const struct router_config *c, struct pd_msg *msg) PD_MUST;
/* After the last handler has ended. Accepts NULL. */
void asks_stop(struct asks *s);

#endif
