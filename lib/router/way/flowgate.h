/*
 * Flow control as an EndpointPickerConfig states it (featureGates: flowControl): requests begin
 * while the pool is not saturated; else they wait, in bands of priority, in flows within a band,
 * with limits and a time to live for each. It stands before the gate (gate.h), whose cap stays.
 * Rules: docs/epp.md. Thread-safe.
 *
 * Saturation is judged when a request arrives and every millisecond while some wait; each look lets
 * one request begin, as what it does to the load shows a moment later only.
 */
#ifndef PD_ROUTER_FLOWGATE_H
#define PD_ROUTER_FLOWGATE_H

#include <stdatomic.h>

#include "lib/epp/epp_config.h"
#include "lib/http/server.h"
#include "lib/router/fleet/fleet.h"

struct flowgate;

/* What flow control may know of a request: its head. */
struct flow_request {
	int64_t priority; /* of no band of the file: 0 */
	struct span id;	  /* of its flow; n 0: the one of those that name none */
	int64_t bytes;	  /* of its body; 0: not known yet */
	int64_t accepted; /* monotonic ns */
	int64_t slo_ns;	  /* wished time to the first token; -1: none */
	int64_t give_up;  /* the request's own deadline */
};

/* How a wait ended. */
enum flow_end {
	FLOW_BEGINS,
	FLOW_FULL,	 /* a limit of its band, or of all */
	FLOW_EXPIRED,	 /* its time to live is over */
	FLOW_NO_WORKERS, /* one of the two, and no worker is available */
	FLOW_CLIENT_LEFT,
	FLOW_ENDS
};

struct flowgate_stats {
	uint64_t waiting, queued, full, expired, left;
	double saturation; /* at the last look */
};

/* The configuration and the fleet are borrowed until flowgate_free. PD_ENOMEM. */
int flowgate_new(struct flowgate **out, const struct epp_config *epp,
		 struct fleet_holder *fleet) PD_MUST;
void flowgate_free(struct flowgate *g); /* when no request waits; NULL is accepted */

/* Lets it begin, or sleeps until it may. */
enum flow_end flowgate_enter(struct flowgate *g, struct http_conn *c, const struct flow_request *r);
/* Once for each FLOW_BEGINS: the request has a worker, or will never have one. Until then it counts
 * as in flight, so that a burst does not pass a pool that looks idle. */
void flowgate_picked(struct flowgate *g);
void flowgate_stats(struct flowgate *g, struct flowgate_stats *out);

/* The saturation of the fleet's workers by the detector of the file: of those that prefill and of
 * those that decode the larger one. 1 without workers. `begun` requests are in flight at no
 * worker yet. */
double flow_saturation(const struct epp_config *epp, const struct fleet *f, unsigned begun,
		       int64_t now);

#endif
