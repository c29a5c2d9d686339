/*
 * An HTTP/1.1 client on lib/net streams: one request, one answer, and the connection is kept for
 * the next call. On a fiber a wait suspends the fiber, elsewhere it blocks the thread.
 *
 *	struct http_call c = {
 *		.to = {.pool = &worker->pool, .address = where_is, .ctx = worker},
 *		.in = &in,
 *		.limit = {.connect = 2 * NS_PER_S, .send = 10 * NS_PER_S,
 *			  .first_byte = 60 * NS_PER_S, .between = 30 * NS_PER_S},
 *		.deadline = clock_now() + 300 * NS_PER_S,
 *		.repeat = true,
 *	};
 *
 *	if (http_call_begin(&c, iov, 2, &why) == HTTP_CALL_OK && c.head.status == 200)
 *		err = http_call_collect(&c, &body);
 *	(void)http_call_end(&c);
 *
 * The body as it arrives, without a copy:
 *
 *	while (!c.ended && !err) {
 *		while (http_call_piece(&c, &piece, &err))
 *			use(piece);
 *		if (!err && !c.ended) {
 *			n = http_call_more(&c);
 *			err = n < 0 ? (int)n : PD_OK;
 *			http_call_heard(&c, clock_now());
 *		}
 *	}
 *
 * The head of the request is the caller's to write. Informational answers are skipped (at most 8),
 * 101 is refused. An answer that comes while the request is still being sent counts. Owner thread
 * only, but for http_call_cancel.
 */
#ifndef PD_HTTP_CLIENT_H
#define PD_HTTP_CLIENT_H

#include "lib/base/buf.h"
#include "lib/http/chunk.h"
#include "lib/http/head.h"
#include "lib/http/server.h"
#include "lib/http/upstream.h"

#define HTTP_CALL_IOV_MAX    48
#define HTTP_CALL_BUFFER     8192   /* room for one receive, at least half of it */
#define HTTP_CALL_BUFFER_MAX 262144 /* the receive buffer grows to this while answers fill it */

/* The server to call. Everything in it is borrowed and outlives the call. */
struct http_target {
	struct http_pool *pool;	 /* its idle connections; NULL: each call opens one and closes it */
	struct tls_context *tls; /* NULL: plain HTTP */
	struct tls_peer *name;	 /* with tls: the name that its certificate must have */
	/* Its addresses, asked before a connection is opened, never for a pooled one: they are
	 * tried in this order until one connects. It waits as the call does (not with getaddrinfo
	 * on a fiber). */
	int (*address)(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *why);
	/* Told when one that is not the first has connected; NULL: nobody. Must not wait. */
	void (*connected)(void *ctx, const struct net_addr *a);
	void *ctx;
};

/* Durations in ns. */
struct http_limits {
	int64_t connect;    /* all addresses and TLS together */
	int64_t send;	    /* the peer takes nothing of the request for so long */
	int64_t first_byte; /* from the begin of sending to the end of the answer's head */
	int64_t between;    /* between two receives of the body */
};

enum http_call_result {
	HTTP_CALL_OK,
	HTTP_CALL_CONNECT,  /* cannot connect: nothing was sent */
	HTTP_CALL_CLOSED,   /* sent, closed before one byte of an answer */
	HTTP_CALL_TIMEOUT,  /* no head within the limit */
	HTTP_CALL_CUT,	    /* no head, and http_pool_cut ended the wait for it */
	HTTP_CALL_BROKEN,   /* the head is malformed or cut */
	HTTP_CALL_CANCELED, /* http_call_cancel, or the client of `of` has left */
	HTTP_CALL_LOCAL,    /* out of memory or descriptors here */
};

/* What was wrong with an answer. Constant texts. */
struct http_fault {
	const char *why;  /* NULL: nothing that has to do with its bytes */
	const char *rule; /* "RFC 9112 7.1" */
	uint64_t at;	  /* from the first byte of the answer */
};

struct http_call {
	/* -- the caller's, before http_call_begin; what is not named is zero -- */
	struct http_target to;
	/* Head, then raw body bytes. Empty, of a maximum of at least SHELF_BYTES. Memory comes from
	 * the thread's shelf (shelf.h) while there are bytes; afterwards shelf_give or buf_release.
	 */
	struct buf *in;
	struct http_conn *of; /* the request of ours that this call is made for: when its client
				 leaves the call ends at once. NULL: none */
	struct http_limits limit;
	int64_t deadline; /* of the whole call, connecting included; monotonic ns */
	bool is_head;	  /* a HEAD request: the answer has no body */
	bool repeat;	  /* may be sent again when a pooled connection turns out dead and not one
			     byte of an answer came: once, on a new connection */
	bool in_two;	  /* http_call_begin ends when the request is sent, so that another call can
			     be sent before http_call_answer waits for this one's answer; it is not
			     repeated */
	bool probe;	  /* ask a pooled connection whether it lives, even one that was in use a
			     moment ago: one system call */
	_Atomic uint64_t *count_sent; /* goes up when sending begins, once a call; NULL: nobody */

	/* -- the answer -- */
	bool ended;	 /* the body ended by its framing */
	bool reused;	 /* on a pooled connection */
	bool stale;	 /* a dead pooled connection was replaced */
	int64_t open_ns; /* what opening the connection took; 0: none was opened */
	int64_t sent_ns; /* when sending began; 0: never */
	int64_t head_ns; /* when the head was complete */

	/* -- the raw body, for a relay that passes it on as it is -- */
	size_t at; /* first byte of `in` that was not handed out */
	struct http_chunked chunked;
	uint64_t left; /* with HTTP_BODY_LENGTH: bytes of the body not handed out */

	struct http_fault fault; /* after HTTP_CALL_BROKEN, PD_EPROTO or PD_ECLOSED */

	/* -- private -- */
	uint64_t passed;     /* bytes of the answer that `in` does not hold any more */
	struct http_use use; /* listed in the pool while `up` is open */
	struct stream *up;   /* NULL: not open */
	bool filled;	     /* the last receive filled the buffer */
	bool unsent;	     /* not all of the request went out: not for the pool */
	bool canceled;

	struct http_head head; /* of the answer; last, because its end needs no zeros (head.h) */
};

/* -- life cycle -- */

/*
 * Takes a connection (pooled, else new), sends the request (iov is copied, so that it can be sent
 * twice; at most HTTP_CALL_IOV_MAX) and receives the head of the answer. `why` (may be NULL) says
 * what TLS or the address had against it, else it is empty. http_call_end follows in any case.
 */
enum http_call_result http_call_begin(struct http_call *c, const struct iovec *iov, size_t n,
				      struct pd_msg *why) PD_MUST;
/* With in_two, after http_call_begin: receives the head. limit.first_byte begins now. Of several
 * calls for one client (`of`) one waits at a time. */
enum http_call_result http_call_answer(struct http_call *c, struct pd_msg *why) PD_MUST;
/* Back to the pool when the answer was complete, else closed. Accepts a call that never began. True
 * when the client of `of` has left. */
bool http_call_end(struct http_call *c);
/* Ends the waits of the call, now and from now on. On the thread of its loop. */
void http_call_cancel(struct http_call *c);
/* "byte 37: a line ends with a bare line feed (RFC 9112 2.2)", or "" when there is no fault. */
#define HTTP_FAULT_TEXT 160
const char *http_fault_text(const struct http_fault *f, char out[HTTP_FAULT_TEXT]);
/* "did not respond in time"; constant text, a clause for the peer. */
const char *http_call_text(enum http_call_result r);

/* -- the body -- */

/*
 * Receives more raw bytes; the spans handed out before are void. > 0; 0: the body that lasts until
 * the connection closes has ended (c->ended); PD_ETIMEOUT (also after http_pool_cut), PD_ECLOSED
 * (cut off), PD_ENOMEM, PD_ETOOBIG.
 */
ssize_t http_call_more(struct http_call *c) PD_MUST;
/* The next piece of the body out of what was received; false: receive more, or the body ended.
 * PD_EPROTO in *err. */
bool http_call_piece(struct http_call *c, struct span *piece, int *err);
/* Bytes came at `now`: the next ones have limit.between, within the deadline. */
void http_call_heard(struct http_call *c, int64_t now);
/* The whole body, appended to `out`. As http_call_more, or PD_EPROTO; PD_ETOOBIG also when it
 * exceeds the maximum of `out`. */
int http_call_collect(struct http_call *c, struct buf *out) PD_MUST;
/* A body of known length of which nothing was handed out yet, as one piece in `in`, whose maximum
 * it must not exceed. */
int http_call_whole(struct http_call *c, struct span *body) PD_MUST;

/* Takes back what http_call_piece handed out since the mark; no http_call_more in between. */
struct http_mark {
	size_t at;
	uint64_t left;
	struct http_chunked chunked;
};
static inline struct http_mark http_call_mark(const struct http_call *c)
{
	return (struct http_mark){c->at, c->left, c->chunked};
}
static inline void http_call_rewind(struct http_call *c, const struct http_mark *m)
{
	c->at = m->at;
	c->left = m->left;
	c->chunked = m->chunked;
	c->ended = false;
}

#endif
