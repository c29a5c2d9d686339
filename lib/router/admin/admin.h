/*
 * The router's own routes: probes, metrics, lists, and everything that changes the fleet while it
 * runs. Handlers answer exactly once, on the connection's own thread; what may block is handed to
 * another thread while they sleep.
 */
#ifndef PD_ROUTER_ADMIN_H
#define PD_ROUTER_ADMIN_H

#include "lib/http/server.h"
#include "lib/router/fleet/asks.h"
#include "lib/router/fleet/changes.h"
#include "lib/router/keys/keys.h"
#include "lib/router/page/page.h"

#define ADMIN_MAX   (8u << 20) /* of an answer */
#define ADMIN_CTYPE "application/json"
#define ADMIN_TEXT  "text/plain; charset=utf-8"

/* What the routes work with; all of it is borrowed and outlives both servers. */
struct admin {
	const struct router_config *cfg;
	struct fleet_holder *fleet;
	struct changes *changes;
	struct asks *asks;
	struct page *page;
	bool keyed;	   /* clients bring keys: the routes open to all name no worker */
	struct keys *keys; /* whose bearer may change something; NULL: everybody who connects */
	_Atomic bool listening; /* the data port answers: set by the owner */
	_Atomic bool draining;	/* likewise */
	_Atomic uint64_t refused;
	/* Routes that others answer; `ctx` is theirs. */
	void (*models)(void *ctx, struct http_conn *c, struct http_request *r);
	/* GET /health_generate: one real generation on the way that requests take. */
	void (*generate)(void *ctx, struct http_conn *c, struct http_request *r);
	int (*metrics)(void *ctx, struct buf *out);
	void *ctx;
};

/* Answers our own routes; false when the request is not for us. The admin port answers every path.
 */
bool admin_answer(struct admin *ad, struct http_conn *c, struct http_request *r, bool admin_port);
/* The request is for one of our own routes: it needs no place at the gate. */
bool admin_route(const struct http_request *r);
/* It changes something: where admin keys are asked for, one of those counts, not a client's. */
bool admin_acts(const struct http_request *r);
/* The port that shows the metrics, to GET and HEAD of any path, and the three probes. */
void admin_scrape(struct admin *ad, struct http_conn *c, struct http_request *r);
/* It asks for /health_generate, which on the data port passes the gate as requests do. */
bool admin_generates(const struct http_request *r);

/* -- for the files of this room -- */

struct admin_call {
	struct admin *admin;
	bool veiled; /* clients ask: no address of a worker in the answer */
	struct http_conn *conn;
	struct http_request *req;
};

/* The buffer as JSON, or 500 when it could not be built. */
void admin_answer_json(struct admin_call *a, int status, const char *extra, struct buf *b, int err);
/* False when the method is none of these, and 405 was sent. `allow` is a list for people and the
 * Allow field: "GET, HEAD". */
bool admin_method(struct admin_call *a, const char *allow);
/* An error whose type says what is wrong, in the OpenAI shape. */
void admin_error(struct admin_call *a, int status, const char *type, const char *fmt, ...)
	PD_PRINTF(4, 5);
/* The decoded value of a query parameter; PD_ENOENT when there is none. */
int admin_query(const struct http_request *r, const char *name, struct buf *out) PD_MUST;
/* %XX decoded. */
int admin_percent_decode(struct span in, bool plus, struct buf *out) PD_MUST;
int admin_put_text(struct buf *b, const char *s) PD_MUST;

#endif
