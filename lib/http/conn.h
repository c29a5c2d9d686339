/*
 * Private to the server: connections and what serves them, shared by server.c (start, accept,
 * stop), ready.c (events, idle connections) and conn.c (one request after the other).
 *
 * A connection belongs to one event loop from accept to close, and only that loop's thread touches
 * it. While a request is in work a fiber serves it; a silent connection has none and costs a few
 * hundred bytes.
 */
#ifndef PD_HTTP_CONN_H
#define PD_HTTP_CONN_H

#include <pthread.h>

#include "lib/http/chunk.h"
#include "lib/http/peers.h"
#include "lib/http/server.h"
#include "lib/net/stream.h"

/* What a fiber keeps from request to request, whichever connection it serves. */
struct http_work {
	struct http_server *server;
	struct buf in; /* head, body, then bytes of the next request */
	struct http_request req;
	void *data;
	void (*data_release)(void *);
};

/* The server's part of one loop. */
struct http_loop {
	struct http_server *server;
	struct loop *loop;
	struct http_conn *oldest, *newest; /* silent connections, by the time they fell silent */
	_Atomic unsigned connections;
	bool starved; /* a request waits for a fiber */
	struct loop_task cut;
};

/* One connection slot, never freed while the server lives. */
struct http_conn {
	struct stream io; /* first member */
	struct http_server *server;
	struct http_loop *_Atomic home;	 /* NULL: a free slot */
	struct http_conn *next;		 /* free list, under the server's lock */
	struct http_conn *older, *newer; /* among the silent ones */
	uint64_t peer;			 /* who it is counted for */
	int64_t idle_since;
	bool idle;   /* it is one of the silent ones */
	bool busy;   /* a fiber serves it */
	bool fresh;  /* has not had a request yet */
	bool closed; /* the slot waits for a posted wake-up */
	bool client_left;
	bool woken;
	struct stream *up;     /* the published leg */
	struct fiber *sleeper; /* in http_conn_sleep */
	struct loop_task open; /* from the acceptor */
	struct loop_task wake; /* from other threads */
	_Atomic bool wake_posted;
	struct http_work *work; /* while busy */

	bool started;  /* a response head was sent */
	bool complete; /* the response ended by its framing */
	bool close_after;
	bool chunked_out;
	bool drain_input; /* unread body may be on its way: close lingering */
};

struct http_server {
	struct http_server_config cfg;
	int listen_fd, wake_fd, reserve_fd;
	uint16_t port;
	unsigned max_connections;
	pthread_t acceptor;
	struct http_loop *loop; /* nloops of them */
	unsigned nloops;
	pthread_mutex_t lock; /* free list, counts */
	pthread_cond_t changed;
	struct http_conn **table; /* max_connections slots, filled up to ntable */
	_Atomic unsigned ntable;
	unsigned connections, peak;
	struct peers peers;
	struct http_conn *spare;
	_Atomic bool draining, cut;
	bool stopped;
	int64_t last_error_log;
	_Atomic int64_t last_tls_log;
	_Atomic uint64_t accepted, refused, refused_address, accept_errors, bad_requests, left,
		read_timeouts, write_stalls, tls_handshakes, tls_resumed, tls_failures;
};

/* conn.c: serves what has arrived, on a fiber. True: close it; false: it is silent. */
bool conn_serve(struct http_conn *c, struct http_work *w) PD_MUST;

/* ready.c */
int ready_start(struct http_server *s) PD_MUST;
/* Ends the loops; false when a handler does not come back. */
bool ready_stop(struct http_server *s);
void ready_free(struct http_server *s);
/* Gives an accepted descriptor to a loop; on the acceptor's thread. False: no slot could be made.
 */
bool ready_open(struct http_server *s, int fd, uint64_t peer) PD_MUST;
/* Ends every connection and its upstream leg, soon. */
void ready_cut(struct http_server *s);

#endif
