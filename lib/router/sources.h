/*
 * Where workers come from besides flags, the workers file and the admin port: starts the sources of
 * lib/discovery that are configured, and hands each list to the fleet. Every source replaces its
 * own workers only; whom two sources name stays with the first one (fleet.h).
 */
#ifndef PD_ROUTER_SOURCES_H
#define PD_ROUTER_SOURCES_H

#include "lib/discovery/dns_source.h"
#include "lib/discovery/kube_source.h"
#include "lib/router/fleet/changes.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/fleet/health.h"
#include "lib/router/watch/prom.h"

/* All texts are borrowed and outlive the router. */
struct sources_config {
	const char *register_address; /* where workers register by ZeroMQ; NULL: nowhere */
	const char *registry_url;     /* of a service registry; NULL: none */
	double registry_interval_s;
	bool kubernetes;
	struct kube_access access;
	struct kube_source_config pods; /* its `access` is the one above */
	struct dns_wanted dns[DNS_NAMES_MAX];
	size_t ndns;
	const char *dns_server; /* NULL: the system's */
	double dns_interval_s;
};

struct sources;

/* Nothing without c->sources: *out is NULL. What it is given lives until sources_stop. PD_EINVAL,
 * PD_EIO, PD_ENOMEM; the message begins with the flag. */
int sources_start(struct sources **out, const struct router_config *c, struct fleet_holder *fleet,
		  struct changes *changes, struct health *health, struct pd_msg *msg) PD_MUST;
/* Nothing is published afterwards. Accepts NULL. */
void sources_stop(struct sources *s);
/* Thread-safe; NULL: no sources. */
void sources_stats(struct sources *s, struct prom_page *p);

#endif
