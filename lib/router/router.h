/*
 * The serve daemon as an object: server, fleet, health, metrics, admin. cmd/serve.c starts it,
 * waits for signals and stops it. Thread-safe where it says so.
 */
#ifndef PD_ROUTER_ROUTER_H
#define PD_ROUTER_ROUTER_H

#include "lib/http/server.h"
#include "lib/router/admin/admin.h"
#include "lib/router/capture/capture.h"
#include "lib/router/config/config.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/keys/auth.h"
#include "lib/router/way/gate.h"
#include "lib/router/watch/metrics.h"
#include "lib/router/way/retry.h"

struct router {
	struct router_config cfg;
	struct fleet_holder fleet;
	struct gate gate;
	struct retry_budget budget;
	struct auth auth;
	struct metrics metrics;
	struct capture *capture;	    /* owned; NULL: none */
	struct http_server *_Atomic server; /* NULL until it listens: admin answers earlier */
	struct http_server *admin_server;
	struct admin admin;
	struct health *health;
	struct changes *changes;
	struct asks *asks;
	_Atomic bool hurry;
	pthread_mutex_t reloading; /* one reload at a time */
	_Atomic unsigned lanes;
	_Atomic uint64_t reloads, reload_failures;
	_Atomic unsigned embeddings_waiting; /* in the queue */
	int64_t started_wall;
	uint64_t seed;
	struct buf own;		/* memory of own_lines */
	struct span own_lines;	/* what we add to every request for a worker: Via, Authorization */
	struct span via;	/* our name in Via; lies in own_lines */
	bool drop_credentials;	/* the client's Authorization and X-Api-Key end here */
	_Atomic uint64_t loops; /* requests that had passed this router before */
};

/* Resolves the workers, binds the ports, starts all threads. `cfg` is copied; its texts stay
 * borrowed. `capture` (NULL: none) is taken over, also on failure. */
int router_start(struct router **out, const struct router_config *cfg, struct capture *capture,
		 struct pd_msg *msg) PD_MUST;
uint16_t router_port(const struct router *rt);
/* 0 when there is no metrics listener. */
uint16_t router_metrics_port(const struct router *rt);
/* Reads the workers file, the file of client keys and the certificates again. On failure everything
 * stays as it is. Thread-safe. */
int router_reload(struct router *rt, struct pd_msg *msg) PD_MUST;
/* The same on a thread of the router, so that the caller can go on; `done` is called there at the
 * end, well or not (the log says which). False: it was not begun. */
bool router_reload_begin(struct router *rt, void (*done)(void)) PD_MUST;
/* Readiness turns false; after cfg.drain_delay the listener closes; returns at once after that. */
void router_drain(struct router *rt);
/* Ends a drain at once, from another thread: no more delay, what still runs is cut. Returns how
 * many. */
unsigned router_hurry(struct router *rt);
/* Waits for streams to end, at most until the deadline; returns how many were cut. */
unsigned router_wait(struct router *rt, int64_t deadline);
void router_free(struct router *rt);

/* -- between the files of the room -- */

/* proxy.c: callbacks of the data server. */
int proxy_on_head(void *ctx, struct http_conn *c, struct http_request *r);
void proxy_on_request(void *ctx, struct http_conn *c, struct http_request *r);
void proxy_on_abandon(void *ctx, struct http_conn *c, struct http_request *r);
void proxy_on_refuse(void *ctx, struct http_conn *c, const struct http_request *r, int status);
/* A request was answered before it came to a worker: metrics and access log. */
void proxy_refused(struct router *rt, struct http_conn *c, const struct http_request *r, int status,
		   enum metrics_error error);
/* The route of a path, for metrics. */
enum metrics_route proxy_route(struct span path);
/* proxy.c: GET /health_generate, one real generation on the way that requests take, and GET
 * /v1/models, the union over the workers. `ctx` is the router. */
void proxy_generate(void *ctx, struct http_conn *c, struct http_request *r);
void models_answer(void *ctx, struct http_conn *c, struct http_request *r);

#endif
