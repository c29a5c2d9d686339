/*
 * One request on its way through the router, shared by the files that walk it: proxy.c (entry),
 * attempt.c (who is asked, and whether again),
 * regular.c and pdflow.c (flows), leg.c (one conversation with a worker), relay.c (the answer to
 * the client), heads.c (the heads we write), explain.c (logs). Owner thread: the connection's.
 */
#ifndef PD_ROUTER_EXCHANGE_H
#define PD_ROUTER_EXCHANGE_H

#include "lib/http/client.h"
#include "lib/http/server.h"
#include "lib/pd/usage.h"
#include "lib/router/capture/capture.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/router.h"
#include "lib/router/watch/traceparent.h"

#define RELAY_HOLD_MAX                                                                             \
	(1u << 20) /* answers up to this length are complete before their first byte is passed on  \
		    */
#define MERGE_JSON_MAX	(8u << 20) /* answers whose usage is merged */
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

enum leg_error {
	LEG_OK = HTTP_CALL_OK,
	LEG_CONNECT = HTTP_CALL_CONNECT,
	LEG_CLOSED = HTTP_CALL_CLOSED,
	LEG_TIMEOUT = HTTP_CALL_TIMEOUT,
	LEG_BROKEN = HTTP_CALL_BROKEN,
	LEG_CLIENT_LEFT = HTTP_CALL_CANCELED,
	LEG_LOCAL = HTTP_CALL_LOCAL
};

struct leg {
	struct worker *worker;
	bool once; /* never sent twice, not even when a pooled connection was dead: the request may
		      have been read */
	struct http_call call;
};

/* What an attempt came to: answered (or the client left), or nothing was sent and another attempt
 * may follow. */
enum exchange_result { RESULT_DONE, RESULT_RETRY, RESULT_RETRY_FREE };

struct exchange {
	struct router *rt;
	struct http_conn *conn;
	struct http_request *req;
	struct lane *lane;
	struct fleet *fleet;
	enum metrics_route route;
	struct json_object body;
	bool is_json;	/* body is valid and scanned */
	bool streaming; /* body asks for a stream */
	struct route_key key;
	struct span id; /* request id, echoed to the client */
	char id_text[40];
	int64_t deadline;
	bool *tried[ROLES]; /* owned, lazily made */
	unsigned attempt;
	struct worker *worker[ROLES]; /* who serves: for headers and logs */
	struct route_decision decision[ROLES];
	bool released[ROLES]; /* the pick is not counted in flight any more */
	bool decoding;	      /* counted among the decode worker's running legs */
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
	struct worker *handing; /* its prefilled blocks wait for the decode worker; counted there */
	uint64_t events, bytes;
	char why[400];	   /* the last failure, for the client and the log */
	char tls_why[160]; /* what TLS had to say about it, or "" */
	int why_status;
	enum metrics_cause cause; /* of the last failed attempt */
	enum metrics_error fault; /* what the request died of; NONE: its status says it */
	int64_t wait_ns;	  /* Retry-After to pass on, or to wait */
	/* for the capture */
	uint64_t capture_id; /* 0: none */
	unsigned capture_decisions;
	int64_t decided_ns, prefilled_ns;
	struct capture_usage usage;
};

/* -- leg.c -- */

/* Sends the request to the worker and reads the answer's head into l->call; what it came to is
 * counted. http_call_end follows in any case. `first_byte` limits the wait for the head. */
enum leg_error leg_exchange(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			    const struct iovec *iov, size_t n, int64_t first_byte);

/* -- heads.c -- */

/* Request head for a worker. Content-Length is `length` unless it is SIZE_MAX (no body). The result
 * is in b. */
int head_for_worker(struct buf *b, const struct exchange *x, const struct worker *w, size_t length,
		    bool pd, struct span id) PD_MUST;
#define HEAD_CHUNKED SIZE_MAX	    /* chunked, or until close for an HTTP/1.0 client */
#define HEAD_NO_BODY (SIZE_MAX - 1) /* nothing to say */

/* Response head for the client: the worker's fields without hop-by-hop ones, ours added; without
 * framing and final empty line. */
int head_for_client(struct buf *b, const struct exchange *x, const struct http_head *h) PD_MUST;
/* Content-Length or one of the two above, Connection, and the empty line. */
int head_frame(struct buf *b, const struct exchange *x, size_t length) PD_MUST;
/* The lines that name the workers and the request id ("X-Worker: ...\r\n..."). */
int head_names(struct buf *b, const struct exchange *x) PD_MUST;
/* An error of our own in the OpenAI shape, with those lines. */
void answer_error(struct exchange *x, int status, const char *type, const char *text);

/* -- relay.c -- */

enum relay_end { RELAY_DONE, RELAY_RETRY, RELAY_CUT, RELAY_CLIENT_LEFT };
/* Passes the answer on. RELAY_RETRY: the worker failed before a byte went to the client. `merge`
 * may be NULL. */
enum relay_end relay_answer(struct exchange *x, struct leg *l,
			    const struct pd_prefill_result *merge);

/* -- flows -- */

void regular_flow(struct exchange *x, enum worker_role role);
void pd_flow(struct exchange *x);
/* The decode worker has fetched the blocks (its first byte is here), or never will. */
void pd_handed_over(struct exchange *x);
/* models.c: answers GET /v1/models. */
void models_ask_all(struct exchange *x);
/* The workers of an attempt are picked: its clock starts. */
void begin_attempt(struct exchange *x);
/* Picks a worker of the role into x->worker and x->decision; waits while all are at their cap.
 * PD_ENOENT, PD_EBUSY, PD_ECANCELED. */
int choose(struct exchange *x, enum worker_role role) PD_MUST;
/* The worker has done its part: it is not in flight any more, although the last bytes still go to
 * the client. */
void release_early(struct exchange *x, const struct worker *w);
/* Ends the pick: the count goes down, the breaker hears the verdict. */
void unchoose(struct exchange *x, enum worker_role role, enum breaker_verdict v);
/* What a failed leg says about the worker: breaker, ejection, x->why. */
void blame(struct exchange *x, enum worker_role role, enum leg_error e);
/* A failed exchange, for the metrics and the next attempt. */
void note_cause(struct exchange *x, enum worker_role role, enum metrics_cause cause);
/* No worker could be picked: what to tell the client. */
void no_worker(struct exchange *x, enum worker_role role, int err);
/* Do not pick it again in this request as long as others are left. */
void mark_tried(struct exchange *x, enum worker_role role);
/*
 * May there be another attempt? Counts it, spends the budget (unless nothing was sent to the worker
 * that failed), waits the backoff. False when not, or when the client left meanwhile.
 */
bool try_again(struct exchange *x, enum worker_role failed, bool free_of_charge);
/* A status that another attempt may repair; remembers Retry-After. */
bool refused(struct exchange *x, const struct leg *l);
/* The worker refused: true when another attempt follows, else the refusal itself has become the
 * answer. Ends the leg and the pick. */
bool retry_refusal(struct exchange *x, struct leg *l, enum worker_role role);
/* The final word when attempts are used up. */
void give_up(struct exchange *x);

/* -- access.c -- */

/* The line of a request that has ended; of one that went no further than its head or body (r NULL:
 * not even that could be read). lane->side is used. */
void access_end(const struct exchange *x, enum metrics_error error);
void access_refused(struct router *rt, struct lane *lane, struct http_conn *c,
		    const struct http_request *r, int status, const char *outcome);

/* -- explain.c -- */

void explain_decision(const struct exchange *x);
void explain_end(const struct exchange *x);
/* TLS with a worker failed, and why: for the log, and for the next blame(). */
void explain_tls(struct exchange *x, struct worker *w, const char *why);

#endif
