/*
 * What is known about one request, as plain data. The way fills it while the request runs; the
 * observers read it at three points (lib/router/way/observers.h) and stand nowhere else in its way.
 * Everything that it points to is lent for the call.
 */
#ifndef PD_ROUTER_REQUEST_RECORD_H
#define PD_ROUTER_REQUEST_RECORD_H

#include "lib/http/server.h"
#include "lib/json/scan.h"
#include "lib/pd/usage.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/watch/metrics.h"
#include "lib/router/watch/traceparent.h"

struct capture;
struct page;
struct spans;

/* Who observes. Borrowed. */
struct watch {
	const struct router_config *cfg;
	struct metrics *metrics;
	struct capture *capture; /* NULL: none */
	struct page *page;	 /* NULL: none */
	struct spans *spans;	 /* NULL: none */
};

/* Memory of a connection that observers may write in, kept from request to request. */
struct record_scratch {
	struct buf *text;
	int64_t stamp_ms; /* the time that `stamp` says */
	char stamp[32];
};

/* How far the request came. */
enum record_stage {
	RECORD_SERVED,	  /* to the workers, or to an answer about them */
	RECORD_REFUSED,	  /* turned away with its head: no key, no place, a loop */
	RECORD_BAD,	  /* the server answered: malformed, too large, too slow */
	RECORD_ABANDONED, /* the client left before its body was complete */
};

/* Monotonic ns; 0: not reached. "last": of the last attempt. */
struct record_times {
	int64_t accepted; /* the first byte */
	int64_t queued;	  /* a duration: the wait at the gate */
	int64_t head, body;
	int64_t decided; /* the first pick; this and the next only with an access log or a capture
			  */
	int64_t picked;	 /* last */
	int64_t dispatched;  /* the first byte to a worker */
	int64_t sent;	     /* last: to prefill, or to the only worker */
	int64_t prefilled;   /* last: the prefill answer was complete */
	int64_t decode_sent; /* last */
	int64_t answered;    /* last: the head of the answer */
	int64_t first, last; /* bytes to the client */
	int64_t ended;
};

struct record_pick {
	const struct worker *worker; /* NULL: none */
	const struct route_decision *decision;
	const struct route_explain *explain; /* not filled: the policy says no more */
	/* Of captured requests: the span of the decision (capture.h), and what there was to be seen
	 * when it began: a bit for each worker that is available, one for each that was tried, one
	 * for each that cannot take it, and the requests in flight of each. */
	uint64_t began, tick;
	uint64_t turn;	/* the policy's counter before */
	uint32_t turns; /* taken from it meanwhile */
	struct span seen;
	bool shadowed;		     /* --shadow-policy decided this attempt too */
	const struct worker *shadow; /* its pick; NULL: none */
};

struct record {
	const struct watch *to;
	unsigned stripe; /* of the metrics */
	enum record_stage stage;
	enum metrics_route route;
	/* the request */
	const struct http_head *head;	/* NULL: it could not be read */
	struct span id, body, peer;	/* peer: the client's address, only for the access log */
	const struct json_object *json; /* the body; NULL: it is no object */
	const struct route_key *key;
	const struct trace_context *trace;
	bool streaming;
	struct span model; /* JSON text inside the quotes; n 0: none */
	/* the decisions; also of attempts that failed */
	const struct fleet *fleet;
	struct record_pick pick[ROLES];
	const char *decider; /* of --pd-decider, when it was asked; NULL: it was not */
	bool local;	     /* it let the decode worker compute the prompt */
	uint32_t missing;   /* prompt tokens that the decode worker did not have, as far as known */
	unsigned attempt;   /* from 0 */
	unsigned decisions; /* picks, in all attempts */
	/* of the prompt, as policies saw it; 0: none asked */
	const uint64_t *block;
	size_t nblocks;
	uint32_t tokens_seen, output_seen;
	uint64_t number; /* in the capture; 0: not captured */
	/* what came of it */
	struct record_times time;
	int status; /* sent to the client; 0: none */
	uint64_t events, bytes;
	struct pd_tokens tokens;
	enum metrics_error error; /* what the client saw; NONE: nothing, or it left */
	bool client_left;
	const char *why;  /* the last failure, "" when there was none */
	const char *who;  /* the name of the client's key; NULL: none */
	const char *told; /* the reason that the client was told, "" when none */
	struct record_scratch *scratch;
};

#endif
