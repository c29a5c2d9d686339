/*
 * The metrics page: the striped counters, a value per worker, the process. What this room cannot
 * see itself (the gate, keys, the capture) comes in as numbers, read by the owner for each page.
 * Thread-safe.
 */
#ifndef PD_ROUTER_PROM_H
#define PD_ROUTER_PROM_H

#include "lib/http/server.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/watch/metrics.h"

#define PROM_SINGLE_ENUM(id, ...) SINGLE_##id,
enum prom_single { METRICS_SINGLES(PROM_SINGLE_ENUM) PROM_SINGLES };

/* The kinds of records of a capture. */
enum prom_record { PROM_REQUEST, PROM_DECISION, PROM_RELEASE, PROM_RECORDS };

struct prom_capture {
	uint64_t written[PROM_RECORDS], queue_full[PROM_RECORDS], write_error[PROM_RECORDS];
};

/* Requests by the name of their key. */
struct prom_key {
	const char *name;
	uint64_t n;
};

/* One place where workers are discovered. */
struct prom_source {
	bool on;
	uint64_t workers, failures; /* in its last list; answers that could not be had or used */
	int64_t heard;		    /* the last good answer, wall-clock ns; 0: none yet */
};

struct prom_page {
	const struct router_config *cfg;
	const struct metrics *metrics;
	struct fleet_holder *fleet;
	const struct http_server *server; /* of the data port; NULL: not started */
	int64_t started_wall;		  /* the process */
	struct prom_capture capture;
	/* Whatever one number tells; the families of the fields above have none. */
	uint64_t number[PROM_SINGLES];
	const struct prom_key *key;
	size_t nkeys;
	struct prom_source source[WORKER_SOURCES];
};

/* PD_ENOMEM, PD_ETOOBIG. */
int prom_text(const struct prom_page *p, struct buf *out) PD_MUST;

#endif
