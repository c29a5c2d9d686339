/*
 * Between the admin*.c files: the router's own routes. Handlers answer exactly once; what may block
 * is handed to another thread while they sleep.
 */
#ifndef PD_ROUTER_ADMIN_H
#define PD_ROUTER_ADMIN_H

#include "lib/router/router.h"

#define ADMIN_MAX   (8u << 20) /* of an answer */
#define ADMIN_CTYPE "application/json"
#define ADMIN_TEXT  "text/plain; charset=utf-8"

struct admin_call {
	struct router *rt;
	struct http_conn *conn;
	const struct http_request *req;
};

/* -- admin.c -- */

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

/* -- admin_lists.c -- */

int admin_put_worker(struct worker *w, struct buf *b) PD_MUST;
void admin_list_workers(struct admin_call *a);
void admin_get_loads(struct admin_call *a);
void admin_workers_list(struct admin_call *a);

/* -- admin_workers.c -- */

void admin_workers(struct admin_call *a);	/* /workers */
void admin_one_worker(struct admin_call *a);	/* /workers/ID... */
void admin_add_worker(struct admin_call *a);	/* /add_worker?url= */
void admin_remove_worker(struct admin_call *a); /* /remove_worker?url= */

/* -- admin_fanout.c -- */

void admin_flush_cache(struct admin_call *a);
void admin_server_info(struct admin_call *a);
void admin_model_info(struct admin_call *a);
void admin_finish_session(struct admin_call *a);

#endif
