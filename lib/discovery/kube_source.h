/*
 * Workers that are pods of Kubernetes: listed once, then watched, over the API server (kube_pod.h
 * says which pods). A list comes again when the server says that the version is too old (410), when
 * an event cannot be read, and every ten minutes; a watch that ends goes on from its last version,
 * bookmarks included, so that nothing is missed between two. As long as the server does not answer
 * the last list of workers stays. Failures back off from 0.2 s to 30 s, half of it random, or as
 * long as the server says.
 *
 * What it asks for: get, list and watch on pods, in one namespace or in all.
 */
#ifndef PD_DISCOVERY_KUBE_SOURCE_H
#define PD_DISCOVERY_KUBE_SOURCE_H

#include "lib/discovery/discovery.h"
#include "lib/discovery/kube_access.h"
#include "lib/discovery/kube_pod.h"

struct kube_source_config {
	const struct kube_access *access; /* borrowed; outlives the source */
	struct kube_wanted wanted;	  /* its texts are borrowed likewise */
	const char *space;		  /* the namespace; NULL: all; borrowed */
};

struct kube_source;

/* PD_EINVAL, PD_EIO: a certificate cannot be read; PD_ENOMEM. Whether the server answers shows
 * later, in the log. */
int kube_source_start(struct kube_source **out, const struct kube_source_config *c,
		      const struct discovery_sink *sink, struct pd_msg *msg) PD_MUST;
/* Ends the thread, soon whatever it waits for; nothing is published afterwards. Accepts NULL. */
void kube_source_stop(struct kube_source *s);

#endif
