/*
 * A connection: bytes in both directions with deadlines, over TCP or TLS. On a fiber of an event
 * loop a wait suspends the fiber; elsewhere it blocks the thread. With server.c the
 * only place that calls send and recv.
 *
 * One owner at a time: the fiber (or thread) that uses it. Every descriptor is close-on-exec,
 * TCP_NODELAY and, but after stream_may_block, non-blocking; every send uses MSG_NOSIGNAL.
 */
#ifndef PD_NET_STREAM_H
#define PD_NET_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lib/net/loop.h"
#include "lib/net/net.h"
#include "lib/net/tls.h"

struct stream {
	struct loop_watch watch; /* first member */
	int fd;			 /* -1: closed */
	struct loop *loop;	 /* NULL: no loop watches it */
	struct fiber *waiter;
	struct stream *
		guard; /* without a loop: waits for this one end when its peer leaves; NULL: none */
	uint32_t waits_for; /* epoll events, during a wait */
	bool readable;	    /* there may be bytes, or the end */
	bool ended;	    /* the peer has closed its side, or the connection broke */
	bool interrupted;
	bool may_block;		 /* stream_may_block */
	bool patient;		 /* the next receive waits in the kernel */
	int64_t deadline;	 /* of stream_recv; monotonic ns */
	struct tls *tls;	 /* owned; NULL: plain TCP */
	enum tls_want tls_wants; /* what its last call waited for; plain TCP: nothing */
	struct loop_task task;
	/* Called when the peer has closed its side and, while no fiber waits, when bytes come;
	 * may be NULL. */
	void (*on_event)(struct stream *s, uint32_t epoll_events);
};

/* Takes over a connected descriptor. Without a loop (NULL) waits block the
 * thread. */
int stream_open(struct stream *s, int fd, struct loop *l) PD_MUST;
/* A stream of its own memory that is not connected yet. PD_EIO, PD_ENOMEM. */
int stream_new(struct stream **out, const struct net_addr *a) PD_MUST;
/* Connects it within the deadline. PD_ETIMEOUT, PD_ECLOSED (refused, reset, interrupted) or PD_EIO.
 */
int stream_connect(struct stream *s, const struct net_addr *a, int64_t deadline) PD_MUST;
/*
 * Begins TLS, as the server or as a client of `peer`. Returns when the handshake is over: PD_OK,
 * PD_ETIMEOUT, PD_ECLOSED, PD_EPROTO or PD_ENOMEM, and the message says why. After a failure the
 * stream can only be closed; a server may continue to read without TLS, so that its alert arrives,
 * and answer a client that speaks plain HTTP (*plain).
 */
int stream_tls_accept(struct stream *s, struct tls_context *c, int64_t deadline, bool *plain,
		      struct pd_msg *msg) PD_MUST;
int stream_tls_connect(struct stream *s, struct tls_context *c, struct tls_peer *peer,
		       int64_t deadline, struct pd_msg *msg) PD_MUST;
/* Sends close_notify where there is TLS. Does not wait. */
void stream_goodbye(struct stream *s);
/* Why TLS failed, or "". */
const char *stream_why(const struct stream *s);
/* Closes the descriptor; the memory is the caller's. */
void stream_close(struct stream *s);
/* Closes and frees what stream_new made. From any thread, when no thread uses it. Accepts
 * NULL. */
void stream_free(struct stream *s);

/*
 * Without a loop and TLS (else nothing happens): a receive that is `patient` waits in the kernel
 * for up to ns before it is PD_EAGAIN. One system call where poll and receive are two; neither the
 * guard nor an interruption ends it. With a guard each send makes the next receive patient: that is
 * where an answer is to be expected.
 */
void stream_may_block(struct stream *s, int64_t ns);
/* Waits until there may be something to receive: PD_OK, else as stream_recv. */
int stream_await(struct stream *s) PD_MUST;
/* > 0 bytes, 0 end, PD_ETIMEOUT (s->deadline has passed), PD_ECLOSED (broken or interrupted; with
 * TLS also an end that was not announced). */
ssize_t stream_recv(struct stream *s, void *p, size_t n);
/* The same without waiting, but when it is patient: PD_EAGAIN. */
ssize_t stream_recv_now(struct stream *s, void *p, size_t n);

/*
 * Sends all of iov (which is consumed). Once the peer stops taking bytes, every further 64 KiB must
 * go out within stall_ns: then PD_ETIMEOUT. PD_ECLOSED when the peer is gone. *sent (may be NULL)
 * counts bytes.
 */
int stream_send_iov(struct stream *s, struct iovec *iov, size_t n, int64_t stall_ns,
		    size_t *sent) PD_MUST;
int stream_send(struct stream *s, const void *p, size_t n, int64_t stall_ns) PD_MUST;

/* Without a loop: waits until wake_fd (-1: none) is readable, on_event told of the peer's leaving,
 * or the deadline, exact to a fraction of a millisecond. A deadline of 0: a look. */
void stream_rest(struct stream *s, int wake_fd, int64_t deadline);

/* Ends the wait of its user, now and from now on: what has arrived can be received, then
 * PD_ECLOSED; so does sending. On the loop's thread. */
void stream_interrupt(struct stream *s);
/* True when an idle connection can be used again: nothing to read, not closed. */
bool stream_idle_ok(struct stream *s);

#endif
