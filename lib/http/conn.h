/* Private to the server: what a connection is, shared by server.c (threads), reaper.c and conn.c
 * (one connection). */
#ifndef PD_HTTP_CONN_H
#define PD_HTTP_CONN_H

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "lib/http/chunk.h"
#include "lib/http/server.h"

enum conn_state { CONN_PARKED, CONN_IDLE, CONN_READING, CONN_HANDLING };

/*
 * One connection slot. It belongs to a thread for the thread's life, serves one descriptor after
 * the other and is never freed while the server lives, so that the reaper may look at it through a
 * stale event; `generation` tells a stale event apart.
 *
 * `lock` protects fd (against close), up_fd, generation, woken and the condition. It is held for no
 * blocking call.
 */
struct http_conn {
	struct http_server *server;
	struct http_conn *next; /* parked or free list, under the server's lock */
	unsigned index;		/* place in the server's table */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int fd;
	int up_fd;
	uint32_t generation;
	bool woken;
	bool exit; /* parked thread: end yourself */
	_Atomic bool client_left;
	_Atomic int state;
	struct sockaddr_storage peer;
	char peer_text[64];

	/* The connection thread's own: */
	struct buf in; /* head, body, then bytes of the next request */
	struct http_request req;
	bool started;  /* a response head was sent */
	bool complete; /* the response ended by its framing */
	bool close_after;
	bool chunked_out;
	bool drain_input; /* unread body may be on its way: close lingering */
	void *data;
	void (*data_release)(void *);
};

struct http_server {
	struct http_server_config cfg;
	int listen_fd, wake_fd, epoll_fd, reserve_fd;
	uint16_t port;
	unsigned max_connections;
	pthread_t acceptor, reaper;
	pthread_mutex_t lock; /* table, lists, counts */
	pthread_cond_t changed;
	struct http_conn **table; /* max_connections slots, filled up to ntable */
	unsigned ntable, connections, peak, threads, parked_n;
	struct http_conn *parked, *spare; /* waiting threads; slots without a thread */
	_Atomic bool draining, stopping, cut;
	int64_t last_error_log;
	_Atomic uint64_t accepted, refused, accept_errors, thread_failures, bad_requests, left,
		read_timeouts, write_stalls;
};

/* conn.c: serves c->fd until it ends, without closing it. */
void conn_serve(struct http_conn *c);
void conn_release(struct http_conn *c);

/* reaper.c */
int reaper_start(struct http_server *s) PD_MUST;
void reaper_stop(struct http_server *s);
void reaper_watch(struct http_conn *c);
void reaper_forget(struct http_conn *c);

#endif
