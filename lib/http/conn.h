/*
 * Private to the server: connections and threads, shared by server.c (start, accept, stop), ready.c
 * (threads and events), sweeper.c (deadlines) and conn.c (one request after the other).
 *
 * A thread serves a connection while requests keep coming; a silent connection waits in epoll and
 * costs a few hundred bytes. Whoever moves the state word from IDLE to BUSY owns the connection
 * until it moves it back. The word carries the slot's generation, so that an event that was on its
 * way when a connection ended cannot touch the next one.
 */
#ifndef PD_HTTP_CONN_H
#define PD_HTTP_CONN_H

#include <pthread.h>
#include <signal.h>

#include "lib/http/chunk.h"
#include "lib/http/server.h"

enum conn_state {
	CONN_FREE,
	CONN_IDLE,
	CONN_BUSY,
	CONN_PENDING /* busy, and more bytes have arrived */
};

#define CONN_STATE(word)      ((enum conn_state)((word)&3))
#define CONN_GENERATION(word) ((uint32_t)((word) >> 2))
#define CONN_WORD(gen, state) ((uint64_t)(gen) << 2 | (uint64_t)(state))

#define CONN_HOLD_NS (1 * NS_PER_S) /* a thread stays with a silent connection this long */
#define CONN_SIGNAL  SIGUSR2	    /* interrupts the wait for a first byte; has no other effect */

/* What a thread keeps from request to request, whichever connection it serves. */
struct http_thread {
	struct http_server *server;
	pthread_t id;
	struct buf in; /* head, body, then bytes of the next request */
	struct http_request req;
	size_t counted; /* of `kept` */
	void *data;
	void (*data_release)(void *);
};

/*
 * One connection slot, never freed while the server lives. `lock` protects fd (against close),
 * up_fd, woken, timed_out and the condition. It is held for no blocking call.
 */
struct http_conn {
	struct http_server *server;
	struct http_conn *next;	     /* free list, under the server's lock */
	unsigned index;		     /* place in the server's table */
	_Atomic uint64_t word;	     /* generation and state */
	_Atomic int64_t idle_since;  /* when it fell silent; 0 while a request is in work */
	_Atomic bool fresh;	     /* has not had a request yet */
	_Atomic int64_t up_deadline; /* the published leg is shut down after it; 0: none */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int fd;
	int up_fd;
	bool woken;
	_Atomic bool client_left;
	_Atomic bool timed_out;

	struct http_thread *thread; /* the owner, written under lock */

	/* The owner's own: */
	bool started;  /* a response head was sent */
	bool complete; /* the response ended by its framing */
	bool close_after;
	bool chunked_out;
	bool drain_input; /* unread body may be on its way: close lingering */
};

struct http_server {
	struct http_server_config cfg;
	int listen_fd, wake_fd, epoll_fd, stop_fd, reserve_fd;
	uint16_t port;
	unsigned max_connections;
	pthread_t acceptor, sweeper;
	pthread_mutex_t lock; /* table, free list, counts */
	pthread_cond_t changed;
	struct http_conn **table; /* max_connections slots, filled up to ntable */
	_Atomic unsigned ntable;
	unsigned connections, peak, threads;
	_Atomic int waiting; /* threads in epoll_wait */
	_Atomic size_t kept; /* bytes of large input buffers that threads keep */
	struct http_conn *spare;
	_Atomic bool draining, stopping, cut;
	int64_t last_error_log;
	_Atomic uint64_t accepted, refused, accept_errors, thread_failures, bad_requests, left,
		read_timeouts, write_stalls;
};

/* conn.c: serves requests until the connection ends (true: close it) or falls idle (false: it may
 * belong to somebody else already). */
bool conn_serve(struct http_conn *c, struct http_thread *t) PD_MUST;
void conn_free(struct http_conn *c);

/* ready.c */
int ready_start(struct http_server *s) PD_MUST;
/* Tells the threads to end and waits for them; false when some are stuck in a handler. */
bool ready_stop(struct http_server *s);
/* Puts an accepted descriptor under watch. False: no slot could be made. */
bool ready_open(struct http_server *s, int fd) PD_MUST;
/* Gives the connection back to epoll; false when more bytes arrived meanwhile and it is still ours.
 */
bool ready_give_back(struct http_conn *c) PD_MUST;
/* The thread reads the connection itself from now on. */
void ready_own(struct http_conn *c, struct http_thread *t);

/* sweeper.c */
int sweeper_start(struct http_server *s) PD_MUST;
void sweeper_stop(struct http_server *s);

#endif
