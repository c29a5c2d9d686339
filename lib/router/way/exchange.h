/*
 * One request on its way through the router: its live handles and facts, shared by the files that
 * walk it (the drawing on top of proxy.c). Owner thread: the connection's.
 */
#ifndef PD_ROUTER_EXCHANGE_H
#define PD_ROUTER_EXCHANGE_H

#include "lib/http/server.h"
#include "lib/router/way/failure.h"
#include "lib/router/way/leg.h"
#include "lib/router/way/pick.h"
#include "lib/router/way/render.h"
#include "lib/router/way/way.h"

#define MERGE_EVENT_MAX (1u << 20)
#define PREFILL_MAX	(64u << 20)

/* Working memory of one connection, kept from request to request. */
struct lane {
	struct rng rng;
	unsigned stripe;
	struct buf up;		/* bytes from the worker; lent while there are any */
	struct buf beside;	/* the same of the decode worker that is asked beside prefill */
	struct buf head;	/* the head we are building */
	struct buf side;	/* merged usage, a line of the access log */
	struct buf held;	/* part of an event that is not complete */
	struct buf prefill;	/* the prefill answer, until the decode answer has passed */
	struct buf seen[ROLES]; /* what a captured decision had before it */
	bool begun;		/* the request that comes next owes a flowgate_picked */
	int64_t queued_ns;	/* what the request that comes next waited at the gate */
	int64_t refused; /* the request, by its accepted_ns, that the server answered itself */
	struct record_scratch scratch;
	struct leg *second; /* owned; made when first needed */
};

/* The request has a worker, or will have none: flow control counts it no more. Again: nothing. */
static inline void lane_picked(struct way *w, struct lane *lane)
{
	if (!lane->begun)
		return;
	lane->begun = false;
	flowgate_picked(w->flow);
}

struct exchange {
	struct way *way;
	struct http_conn *conn;
	struct http_request *req;
	struct lane *lane;
	struct fleet *fleet;
	struct buf utf8;	     /* owned; the body, when it came in another encoding */
	struct buf aliased;	     /* owned; the body with another model's name */
	struct span model;	     /* JSON text inside the quotes; n 0: none */
	uint64_t model_hash;	     /* served_hash; 0: none, or not asked for */
	struct served_table *table;  /* a reference; NULL: any worker serves the model */
	const struct served *served; /* what it says of the model */
	uint64_t block_seed; /* of an adapter: its blocks are others than those of its base */
	uint64_t *block;     /* owned; prefix blocks, for policies that want them */
	size_t nblocks;
	uint32_t tokens, output_tokens; /* of the prompt, by its length; of the answer, at most */
	bool tokens_known;
	struct rendered rendered; /* the prompt by the tokens of the engines, where a policy asks */
	uint64_t number;	  /* among the requests that make a decision; from 1, 0: none yet */
	struct trace_context trace;
	char id_text[40];
	int64_t now; /* when the attempt began, or its last wait for a worker ended */
	int64_t deadline;
	enum worker_role role; /* of the pool, without P/D */
	struct pick pick[ROLES];
	bool started;	    /* a byte went to the client */
	bool repeatable;    /* may be sent twice when no byte of an answer came */
	bool follows;	    /* may name or make ids that one worker knows: follow.h */
	bool learns;	    /* the answer has not told its id yet */
	bool seeks;	    /* nobody here knows who made the id `sought`: the workers are asked */
	unsigned sought_at; /* that have said 404 */
	struct span sought;
	bool detached;	       /* goes on although the client left */
	bool unread;	       /* the body begins like an object and the scan refused it */
	bool alone;	       /* P/D: all of it goes to a decode worker */
	bool prefilled;	       /* decode refused: counted when it is repeated */
	bool may_decode_alone; /* without prefill, when no prefill worker is left */
	/* The conversation under way, open after ATTEMPT_REFUSED: `first`, or the lane's `second`,
	 * which is sent and waits for its turn when two workers are asked at once. */
	struct leg *leg;
	struct worker *handing; /* its prefilled blocks wait for the decode worker; counted there */
	struct failure failure; /* the last one; its texts are empty */
	/* -- not cleared with what stands above: who uses them fills them -- */
	struct record rec; /* what observers may know; facts that they read stand only there */
	struct route_key key;
	struct json_object body; /* rec.json, when it is one */
	struct leg first;
};

#endif
