/*
 * The way of a request from the entry on: admission with its head, the rest with its body. Called
 * by router.c on the connection's own thread.
 */
#ifndef PD_ROUTER_PROXY_H
#define PD_ROUTER_PROXY_H

#include "lib/router/way/way.h"

/* Before all that looks at the path: the slashes at its end go where an engine would redirect
 * (FastAPI's redirect_slashes): of a POST, and below /v1/. */
void proxy_trim_path(struct http_request *r);
/* The head is here: 0 and a place at the gate, or the client was told why not (or left). */
int proxy_admit(struct way *w, struct http_conn *c, struct http_request *r);
/* The place is free again, at the end of each request that was admitted. */
void proxy_leave(struct way *w);
/* The whole request: answers it. */
void proxy_serve(struct way *w, struct http_conn *c, struct http_request *r);
/* The request does not come: its client left, or proxy_bad_request was called. */
void proxy_abandon(struct way *w, struct http_conn *c, const struct http_request *r);
/* The caller answers the request with this status (0: not at all): the observers are told. */
void proxy_refused(struct way *w, struct http_conn *c, const struct http_request *r, int status,
		   enum metrics_error error);
/* The server answered this status itself; r is NULL when not even the head could be read. */
void proxy_bad_request(struct way *w, struct http_conn *c, const struct http_request *r,
		       int status);

/* GET /health_generate: one real generation on the way that requests take. */
void proxy_generate(struct way *w, struct http_conn *c, struct http_request *r);
/* GET /v1/models, the union over the workers. */
void proxy_models(struct way *w, struct http_conn *c, struct http_request *r);

#endif
