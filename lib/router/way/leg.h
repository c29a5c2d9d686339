/*
 * One conversation with a worker: lib/http/client with the limits of the configuration, and what it
 * came to in the metrics. The leg owns its pick: the count in flight goes down when the body has
 * ended by its framing, so that a client that asks again at once finds the worker free. Owner
 * thread: the connection's.
 */
#ifndef PD_ROUTER_LEG_H
#define PD_ROUTER_LEG_H

#include "lib/http/client.h"
#include "lib/router/way/pick.h"

struct exchange;

enum leg_error {
	LEG_OK = HTTP_CALL_OK,
	LEG_CONNECT = HTTP_CALL_CONNECT,
	LEG_CLOSED = HTTP_CALL_CLOSED,
	LEG_TIMEOUT = HTTP_CALL_TIMEOUT,
	LEG_SILENT = HTTP_CALL_CUT, /* the worker stopped responding: nobody waits for it */
	LEG_BROKEN = HTTP_CALL_BROKEN,
	LEG_CLIENT_LEFT = HTTP_CALL_CANCELED,
	LEG_LOCAL = HTTP_CALL_LOCAL
};

struct leg {
	/* The caller's, before leg_exchange. */
	struct pick *pick; /* NULL: nothing is counted */
	bool once; /* never sent twice, not even when a pooled connection was dead: the request may
		      have been read */
	void (*first)(struct exchange *x); /* called at the first byte of the body; NULL: no call */

	struct exchange *x;
	struct worker *worker;
	struct http_call call;
};

/* A leg that was not begun. */
static inline void leg_init(struct leg *l, struct pick *pick)
{
	memset(l, 0, offsetof(struct leg, call.head.few));
	l->pick = pick;
}
/*
 * Sends the request to the worker and reads the answer's head into l->call; what it came to is
 * counted. leg_end follows in any case. `first_byte` limits the wait for the head, ns.
 */
enum leg_error leg_exchange(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			    const struct iovec *iov, size_t n, int64_t first_byte);
/* The same in two steps, for two workers that must be asked at once: sends the request; then its
 * answer's head, for which first_byte begins anew. leg_answer follows a leg_send with LEG_OK. */
enum leg_error leg_send(struct leg *l, struct exchange *x, struct worker *w, struct buf *in,
			const struct iovec *iov, size_t n, int64_t first_byte);
enum leg_error leg_answer(struct leg *l);
/* The parts of leg_exchange, for calls beside each other (models.c): how to reach the worker, and
 * what a call came to in the metrics and the log. */
struct http_target leg_target(const struct router_config *cfg, struct worker *w);
void leg_count(struct exchange *x, struct worker *w, const struct http_call *c,
	       enum http_call_result r, const struct pd_msg *why);
/* As http_call_end; the bytes of the answer and their memory are gone. */
bool leg_end(struct leg *l);

/* As http_call_piece, http_call_more, http_call_collect and http_call_whole. */
bool leg_piece(struct leg *l, struct span *piece, int *err);
ssize_t leg_more(struct leg *l) PD_MUST;
int leg_collect(struct leg *l, struct buf *out) PD_MUST;
int leg_whole(struct leg *l, struct span *body) PD_MUST;

#endif
