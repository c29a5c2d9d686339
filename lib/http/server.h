/*
 * The HTTP/1.1 server: acceptor, keep-alive, admission before memory is spent, clients that leave
 * are noticed. Used by the router, its admin port and the simulated worker. Two forms with the same
 * handlers: an event loop per processor with a fiber per request in flight, or a kernel thread
 * per request in flight.
 *
 * The handler is written as if it blocked, but waits only through streams and http_conn_sleep: on a
 * fiber (loop.h) any other wait would stop all of its loop. It holds no lock while it waits. It
 * answers with exactly one of http_reply(), http_stream_begin/_write/_end, or by writing the whole
 * response to the client's stream itself (the router's relay, which then calls http_conn_wrote).
 * One request is handled at a time per connection.
 */
#ifndef PD_HTTP_SERVER_H
#define PD_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/log.h"
#include "lib/http/head.h"
#include "lib/net/errand.h"
#include "lib/net/net.h"
#include "lib/net/stream.h"

#define HTTP_LOOPS_MAX	     32
#define HTTP_THREADS_MAX     32768
#define HTTP_THREADS_DEFAULT 4096

/* What handlers run on: fibers on event loops, or kernel threads that block. */
enum http_io { HTTP_IO_EVENTS, HTTP_IO_THREADS };

struct http_server;
struct http_conn;

struct http_request {
	struct http_head head; /* spans valid until the handler returns */
	struct span body;      /* whole body, de-chunked; empty when none */
	int64_t accepted_ns;   /* monotonic, when the first byte of this request was read */
	int64_t head_ns;       /* when the head was complete */
	int64_t body_ns;       /* when the body was complete */
};

struct http_server_config {
	const char *host;
	uint16_t port;		  /* 0: a free one */
	int listen_fd;		  /* -1, or an inherited listening socket (socket activation) */
	unsigned max_connections; /* 0: derived from RLIMIT_NOFILE */
	unsigned max_per_address; /* connections of one client address; 0: no limit (peers.h) */
	size_t max_body;	  /* bytes; larger bodies get 413 */
	int64_t head_timeout_ns;  /* whole head, absolute */
	int64_t body_grace_ns;	  /* after this the body must arrive at body_min_rate */
	uint64_t body_min_rate;	  /* bytes per second */
	int64_t idle_timeout_ns;  /* keep-alive idle */
	int64_t write_stall_ns;	  /* a client that takes nothing for so long is dropped */
	int64_t accept_delay_ns;  /* fault injection of the simulated worker: sleep before each
				     accept */
	enum http_io io;
	unsigned threads;   /* event loops, 0: one for each processor; HTTP_IO_THREADS: most
			       threads that serve connections, 0: HTTP_THREADS_DEFAULT */
	size_t stack_bytes; /* of a request's fiber or thread; touched pages only cost memory */
	bool batch_threads; /* SCHED_BATCH for these threads */
	bool half_close_ok; /* do not treat end of input during a response as "client left" */
	struct tls_context *tls; /* borrowed; NULL: plain HTTP */
	struct log *log;
	void *ctx;
	/* Called with the head before the body is read. Return 0 to go on, or answer with
	 * http_reply and return < 0 to refuse (the connection closes after the unread body was
	 * drained within bounds). May be NULL. */
	int (*on_head)(void *ctx, struct http_conn *c, struct http_request *r);
	/* The request. When nothing was answered the server sends 500 and closes. */
	void (*on_request)(void *ctx, struct http_conn *c, struct http_request *r);
	/* on_head returned 0 but on_request was never reached (body timed out, client left); the
	 * head is that of on_head, there is no body. May be NULL. */
	void (*on_abandon)(void *ctx, struct http_conn *c, struct http_request *r);
	/* Lines for answers that the server gives itself before on_head, by what could be read of
	 * the head; valid until the connection's next request. May be NULL. */
	struct span (*own_lines)(void *ctx, const struct http_head *h);
	/* The server answered this status itself: malformed, too large, too slow. r is NULL when
	 * the head could not be read. on_abandon follows when on_head had returned 0. May be NULL.
	 */
	void (*on_refuse)(void *ctx, struct http_conn *c, const struct http_request *r, int status);
};

void http_server_config_default(struct http_server_config *cfg);
/* Binds and starts the threads. */
int http_server_start(struct http_server **out, const struct http_server_config *cfg,
		      struct pd_msg *msg) PD_MUST;
uint16_t http_server_port(const struct http_server *s);
/* Stops accepting; idle connections end; active ones finish with "Connection: close". Returns at
 * once. */
void http_server_drain(struct http_server *s);
/* Waits until all connections ended or the deadline; then cuts the rest. Returns how many were cut.
 */
unsigned http_server_wait(struct http_server *s, int64_t deadline);
/* After wait. Ends the threads. False when a handler did not end: then what the handlers use must
 * stay. Streams that were opened on the server's threads may be freed until http_server_free. */
bool http_server_stop(struct http_server *s);
/* Stops it when that was not done; false as above, and nothing was freed. */
bool http_server_free(struct http_server *s);

/* threads: event loops. fibers: with HTTP_IO_THREADS kernel threads; their failures are 503. */
struct http_server_stats {
	unsigned connections, peak_connections, threads, fibers, idle_fibers;
	uint64_t accepted, refused, refused_address, accept_errors, fiber_failures, bad_requests,
		client_left, read_timeouts, write_stalls, tls_handshakes, tls_resumed, tls_failures;
};
void http_server_stats(const struct http_server *s, struct http_server_stats *out);

/* -- for handlers, on the fiber or thread of the connection -- */

/* A whole response. ctype may be NULL when body is empty. `extra` holds complete header lines
 * ("X-A: b\r\n") or is NULL. */
int http_reply(struct http_conn *c, int status, const char *ctype, const char *extra,
	       const void *body, size_t n);
/* {"error":{"message":...,"type":...,"code":status}} as the OpenAI API does. */
int http_reply_error(struct http_conn *c, int status, const char *type, const char *extra,
		     const char *fmt, ...) PD_PRINTF(5, 6);
/* Who asks, by a name that stays: for this request; NULL: not known. */
void http_conn_set_who(struct http_conn *c, const char *name);
const char *http_conn_who(const struct http_conn *c);
/* The reason that this request's client was told, "" when none: the text of http_reply_error, or
 * what http_conn_tell was given (cut at HTTP_TOLD_MAX). */
#define HTTP_TOLD_MAX 240
const char *http_conn_told(const struct http_conn *c);
void http_conn_tell(struct http_conn *c, struct span text);
/* A chunked (HTTP/1.1) or close-delimited (1.0) response. */
int http_stream_begin(struct http_conn *c, int status, const char *ctype,
		      const char *extra) PD_MUST;
int http_stream_write(struct http_conn *c, const void *p, size_t n) PD_MUST;
int http_stream_end(struct http_conn *c);

/* Complete header lines that every answer to this request gets besides its own; set in on_head.
 * They must stay until the request has ended. A handler that writes to the stream itself adds them
 * itself. */
void http_conn_set_extra(struct http_conn *c, struct span lines);
struct span http_conn_extra(const struct http_conn *c);
/* The client's address, as net_peer_addr has it. */
void http_conn_peer(const struct http_conn *c, char text[NET_ADDR_TEXT]);
/* The client's side, and what the relay reports after writing to it itself. */
struct stream *http_conn_stream(struct http_conn *c);
/* started: a response head went out; complete: the response ended by its framing; otherwise the
 * connection is closed. */
void http_conn_wrote(struct http_conn *c, bool complete);
/* True when the next response on this connection must say "Connection: close". */
bool http_conn_closing(const struct http_conn *c);
/* Cuts the connection without a word (fault injection): RST when hard. */
void http_conn_abort(struct http_conn *c, bool hard);
/* A pointer of the handler's own, kept by the fiber or thread that serves the connection for its
 * life (the next request of this connection may be served by another one); freed by `release`. */
void http_conn_set_data(struct http_conn *c, void *data, void (*release)(void *));
void *http_conn_data(const struct http_conn *c);
/* A small number that differs between the threads that run handlers as far as possible: for
 * counters in stripes. */
unsigned http_conn_lane(const struct http_conn *c);

/*
 * While an upstream leg is active its stream is published; when the client leaves it is
 * interrupted, and the waiting call gives PD_ECLOSED. publish returns false when the client has
 * left already (nothing is published). withdraw must come before the stream is freed or pooled; it
 * returns true when the client had left: the stream cannot be pooled.
 */
bool http_conn_publish(struct http_conn *c, struct stream *up);
bool http_conn_withdraw(struct http_conn *c);
bool http_conn_client_left(struct http_conn *c);
/* Sleeps until the deadline, until the client leaves or until http_conn_wake; true when the client
 * left. */
bool http_conn_sleep(struct http_conn *c, int64_t deadline);
/* Ends the handler's sleep, this one or the next. From any thread, while the connection is known to
 * be handling a request. */
void http_conn_wake(struct http_conn *c);
/* The two of them for an errand; an asker that gives up is a client that left. Valid as long as the
 * request. */
struct errand_sleeper http_conn_sleeper(struct http_conn *c);

#endif
