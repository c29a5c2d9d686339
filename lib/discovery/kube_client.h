/*
 * GET from the API server of Kubernetes over lib/http/client: a whole answer, or the lines of a
 * watch as they arrive. One thread uses it, which a wait blocks; kube_client_cut ends its waits
 * from another one.
 */
#ifndef PD_DISCOVERY_KUBE_CLIENT_H
#define PD_DISCOVERY_KUBE_CLIENT_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/span.h"
#include "lib/discovery/kube_access.h"
#include "lib/discovery/source_thread.h"

#define KUBE_BODY_MAX (64u << 20) /* bytes of a page of a list */
#define KUBE_LINE_MAX (4u << 20)  /* of an event; etcd holds objects of 1.5 MiB at most */

struct kube_client;

/* The access is borrowed; so is the thread that will use it. Reads the certificates. PD_EINVAL,
 * PD_EIO, PD_ENOMEM with a sentence. */
int kube_client_new(struct kube_client **out, const struct kube_access *a, struct source_thread *t,
		    struct pd_msg *msg) PD_MUST;
/* Accepts NULL. */
void kube_client_free(struct kube_client *c);
/* Ends the wait that is under way. From any thread. */
void kube_client_cut(struct kube_client *c);
/* "https://host:port", for messages; lives as long as the client. */
const char *kube_client_server(const struct kube_client *c);

/* What an answer said. */
struct kube_answer {
	int status;	 /* of HTTP; 0: no answer */
	unsigned wait_s; /* Retry-After; 0: none */
};

/*
 * The body of a 200 answer, in `body`. `path` begins with /api. PD_EIO: no answer, another status,
 * a file that cannot be read; PD_ETOOBIG; PD_ECANCELED: cut. The message says what was asked and
 * what came, for 401 and 403 also what is missing.
 */
int kube_client_get(struct kube_client *c, const char *path, struct buf *body,
		    struct kube_answer *a, struct pd_msg *msg) PD_MUST;

struct kube_lines {
	/* A line without its end. Not PD_OK: the watch ends with that. */
	int (*line)(void *ctx, struct span line);
	/* All that has come was handed out, and there may be a pause. */
	void (*idle)(void *ctx);
	void *ctx;
};
/* The same for a watch: PD_OK when the server has ended it after a whole line. `quiet_ns`: it ends
 * with PD_ETIMEOUT when nothing came for so long. */
int kube_client_watch(struct kube_client *c, const char *path, const struct kube_lines *to,
		      int64_t quiet_ns, struct kube_answer *a, struct pd_msg *msg) PD_MUST;

/* Appends it with all but unreserved characters (RFC 3986, 2.3) escaped. */
int kube_escape(struct buf *out, const char *text) PD_MUST;

#endif
