/*
 * One request on its way through the router: its live handles and facts, shared by the files that
 * walk it (the drawing on top of proxy.c). Owner thread: the connection's.
 */
#ifndef PD_ROUTER_EXCHANGE_H
#define PD_ROUTER_EXCHANGE_H

#include "lib/http/server.h"
#include "lib/router/capture/capture.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/router.h"
#include "lib/router/watch/traceparent.h"
#include "lib/router/way/failure.h"
#include "lib/router/way/leg.h"
#include "lib/router/way/pick.h"

#define MERGE_EVENT_MAX (1u << 20)
#define PREFILL_MAX	(64u << 20)

/* Working memory of one connection, kept from request to request. */
struct lane {
	struct rng rng;
	unsigned stripe;
	struct buf up;	    /* bytes from the worker; lent while there are any */
	struct buf head;    /* the head we are building */
	struct buf side;    /* prefill answer, merged usage */
	struct buf held;    /* part of an event that is not complete */
	struct buf prefill; /* the prefill answer, until the decode answer has passed */
	struct rng drawn;   /* rng before the last decision, for the capture */
	int64_t queued_ns;  /* what the request that comes next waited at the gate */
	bool refused;	    /* the server itself answered the request that did not come */
	int64_t stamp_ms;   /* the time that `stamp` says, for the access log */
	char stamp[32];
};

/* When the stages of the last attempt ended; 0: not reached. */
struct exchange_times {
	int64_t first_pick; /* of the first attempt */
	int64_t pick, sent, prefill_end, decode_sent;
};

struct exchange {
	struct router *rt;
	struct http_conn *conn;
	struct http_request *req;
	struct lane *lane;
	struct fleet *fleet;
	enum metrics_route route;
	/* -- not cleared with the rest: whoever uses them fills them -- */
	struct json_object body;
	struct leg leg; /* the conversation under way; open after ATTEMPT_REFUSED */
	/* -- -- */
	bool is_json;	/* body is valid and scanned */
	bool streaming; /* body asks for a stream */
	struct route_key key;
	struct span id; /* request id, echoed to the client */
	char id_text[40];
	int64_t deadline;
	enum worker_role role; /* of the pool, without P/D */
	unsigned attempt;
	struct pick pick[ROLES];
	struct failure failure; /* the last one */
	struct trace_context trace;
	int64_t dispatched_ns, first_ns, last_ns;
	int64_t head_ns; /* the head of the last attempt's answer */
	int64_t queued_ns;
	struct exchange_times times; /* only kept while there is an access log */
	int status;		     /* sent to the client; 0: none yet */
	bool started;		     /* a byte went to the client */
	bool client_left;
	bool repeatable;	/* may be sent twice when no byte of an answer came */
	bool detached;		/* goes on although the client left */
	bool prefilled;		/* decode refused: counted when it is repeated */
	struct worker *handing; /* its prefilled blocks wait for the decode worker; counted there */
	uint64_t events, bytes;
	enum metrics_error fault; /* what the request died of; NONE: its status says it */
	/* for the capture */
	uint64_t capture_id; /* 0: none */
	unsigned capture_decisions;
	int64_t decided_ns, prefilled_ns;
	struct capture_usage usage;
};

/* -- access.c -- */

/* The line of a request that has ended; of one that went no further than its head or body (r NULL:
 * not even that could be read). lane->side is used. */
void access_end(const struct exchange *x, enum metrics_error error);
void access_refused(struct router *rt, struct lane *lane, struct http_conn *c,
		    const struct http_request *r, int status, const char *outcome);

/* -- explain.c -- */

void explain_decision(const struct exchange *x);
void explain_end(const struct exchange *x);

#endif
