/*
 * Private to the server: connections and what serves them.
 *
 *	server.c	start, accept, drain, stop
 *	slots.c		connection slots, idle connections, clients that leave
 *	ready.c		the driver --io events: a fiber per request in flight, on event loops
 *	threads.c	the driver --io threads: a kernel thread per request in flight
 *	conn.c		one request after the other; knows neither driver
 *
 * A connection has one owner at a time, and only the owner touches what is not atomic or under a
 * lock: with events always the thread of its loop, with threads the thread that serves it, and
 * while it is parked whoever holds the pool's lock. An idle connection costs a few hundred bytes.
 */
#ifndef PD_HTTP_CONN_H
#define PD_HTTP_CONN_H

#include <pthread.h>

#include "lib/http/chunk.h"
#include "lib/http/peers.h"
#include "lib/http/server.h"
#include "lib/net/stream.h"

/* What a fiber or a thread keeps from request to request, whichever connection it serves. */
struct http_work {
	struct http_server *server;
	struct buf in; /* head, body, then bytes of the next request */
	struct http_request req;
	unsigned lane;		  /* http_conn_lane */
	char told[HTTP_TOLD_MAX]; /* http_conn_told */
	const char *who;	  /* http_conn_set_who */
	void *data;
	void (*data_release)(void *);
};

/* Idle connections, by the time they became idle. */
struct http_idle_list {
	struct http_conn *oldest, *newest;
};

/* One connection slot, never freed while the server lives. */
struct http_conn {
	struct stream io; /* first member */
	struct http_server *server;
	struct http_conn *next;		 /* free list, under the server's lock */
	struct http_conn *older, *newer; /* in an idle list */
	uint64_t peer;			 /* who it is counted for */
	int64_t idle_since;
	bool idle;  /* it is in an idle list */
	bool busy;  /* a handler may run */
	bool fresh; /* has not had a request yet */
	bool client_left;
	bool woken;		/* with threads under `lock` */
	struct stream *up;	/* the published leg */
	struct http_work *work; /* while busy */

	struct span extra; /* http_conn_set_extra */
	bool started;	   /* a response head was sent */
	bool complete;	   /* the response ended by its framing */
	bool close_after;
	bool chunked_out;
	bool drain_input; /* unread body may be on its way: close lingering */

	/* --io events */
	struct http_loop *_Atomic home; /* NULL: a free slot */
	struct fiber *sleeper;		/* in http_conn_sleep */
	struct loop_task open;		/* from the acceptor */
	struct loop_task wake;		/* from other threads */
	_Atomic bool wake_posted;
	bool closed; /* the slot waits for a posted wake-up */

	/* --io threads */
	pthread_mutex_t lock;	    /* woken, asleep, and io.fd against being closed */
	struct http_thread *thread; /* while busy */
	bool asleep;		    /* in http_conn_sleep */
};

/*
 * A form of the server: what waits for bytes, and on what a handler runs. It calls conn_serve when
 * bytes have arrived and keeps the connection while there are none.
 */
struct http_driver {
	int (*start)(struct http_server *s);
	/* Ends its threads; false when a handler does not come back. */
	bool (*stop)(struct http_server *s);
	void (*free)(struct http_server *s);
	/* Takes an accepted descriptor; on the acceptor's thread. False: no slot could be made. */
	bool (*open)(struct http_server *s, int fd, uint64_t peer);
	/* Ends every connection and its upstream leg, soon; s->cut is set. */
	void (*cut)(struct http_server *s);
	/* Its part of the figures. */
	void (*stats)(const struct http_server *s, struct http_server_stats *out);
	/* http_conn_sleep and http_conn_wake */
	void (*sleep)(struct http_conn *c, int64_t deadline);
	void (*wake)(struct http_conn *c);
	/* Looks whether the client has left; NULL: it is told. */
	void (*look)(struct http_conn *c);
	void (*prepare)(struct http_conn *c); /* a new slot, once */
	void (*release)(struct http_conn *c); /* NULL: nothing */
};

extern const struct http_driver http_events, http_threads;

struct http_events;
struct http_threads;

struct http_server {
	struct http_server_config cfg;
	int listen_fd, wake_fd, reserve_fd;
	uint16_t port;
	unsigned max_connections;
	pthread_t acceptor;
	const struct http_driver *driver;
	struct http_events *events; /* owned by its driver, as the next */
	struct http_threads *threads;
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

/* conn.c: serves what has arrived. True: close it; false: nothing is under way. */
bool conn_serve(struct http_conn *c, struct http_work *w) PD_MUST;
void work_init(struct http_work *w, struct http_server *s, unsigned lane);
void work_release(struct http_work *w);

/* server.c: says 503 to a connection that is about to be closed (with TLS: an alert). */
void server_overloaded(const struct http_server *s, int fd);

/* slots.c. A slot for an accepted descriptor, or NULL. Thread-safe. */
struct http_conn *slot_take(struct http_server *s, int fd, uint64_t peer);
/* Gives it back when its descriptor is closed; the connection is not counted any more.
 * Thread-safe. */
void slot_give(struct http_conn *c);
void slots_free(struct http_server *s);
void idle_add(struct http_idle_list *list, struct http_conn *c, int64_t now);
/* Nothing when it is in none. */
void idle_remove(struct http_idle_list *list, struct http_conn *c);
/* Its time is over. A draining server ends idle connections at once, but not one that was accepted
 * a moment ago: its first request may be on the way, and a restart must not lose it. */
bool idle_is_over(const struct http_conn *c, int64_t now);
/* A request has just arrived: a last look before it is closed. */
bool idle_has_bytes(const struct http_conn *c);
/* What an event of its own says about the client; the owner calls it. */
void client_event(struct http_conn *c, uint32_t epoll_events);
/* Sets the flag and ends every wait of the handler but its sleep. */
void client_gone(struct http_conn *c);
/* Ends the handler's sleep at once: the client has left, or all connections are cut. */
bool client_is_gone(const struct http_conn *c);

#endif
