/*
 * A service registry with the HTTP API of InfiniLM-SVC's: services register, send heartbeats, are
 * listed and looked at. What differs on purpose: entries survive a restart (SQLite), and a DELETE
 * or the end of a heartbeat is told to those that list at once. Source: the API of
 * InfiniLM-SVC's infini-registry, commit 2a3f570.
 *
 *	GET    /health, /stats
 *	GET    /services?status=S&healthy=true|false
 *	POST   /services			registers or replaces: 201
 *	GET, PUT, DELETE /services/NAME		PUT changes what it names, and is a heartbeat
 *	GET    /services/NAME/health		asks the service
 *	POST   /services/NAME/heartbeat		may carry {"status":"..."}
 *
 * A service is healthy when its status is "running" and its last heartbeat is younger than
 * `healthy_s`; it is removed after `removal_s` without one. Thread-safe.
 */
#ifndef PD_DISCOVERY_REGISTRY_H
#define PD_DISCOVERY_REGISTRY_H

#include <stdint.h>

#include "lib/http/server.h"

#define REGISTRY_SERVICES_MAX 4096
#define REGISTRY_BODY_MAX     (256u << 10) /* of a request; metadata may list models */
#define REGISTRY_NAME_MAX     200	   /* bytes */

struct registry;

struct registry_config {
	const char *file;	  /* an SQLite database, made when missing; NULL: memory only */
	double healthy_s;	  /* default 120 */
	double removal_s;	  /* default 300 */
	double health_interval_s; /* between two rounds of asking all services; 0: never */
	double health_timeout_s;
	double cleanup_s; /* between two looks for old entries */
	struct log *log;  /* borrowed, or NULL */
};

void registry_config_default(struct registry_config *c);
/* Reads the file and starts the thread that asks and cleans up. PD_EINVAL (another kind of file),
 * PD_EIO, PD_ENOMEM with a sentence. */
int registry_start(struct registry **out, const struct registry_config *c,
		   struct pd_msg *msg) PD_MUST;
/* Writes the last heartbeats and ends the thread. No handler runs any more. Accepts NULL. */
void registry_stop(struct registry *r);
/* A handler: answers one request. It may wait for a service, so it runs on a thread that may. */
void registry_request(struct registry *r, struct http_conn *c, struct http_request *rq);

#endif
