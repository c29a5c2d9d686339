/*
 * Authentication of clients: by a key of --client-api-keys, or one that a validation URL calls
 * valid. Decided with the head, before the body is read and before admission. Thread-safe.
 */
#ifndef PD_ROUTER_AUTH_H
#define PD_ROUTER_AUTH_H

#include "lib/router/keys/keyask.h"
#include "lib/router/keys/keys.h"

struct auth_config {
	const char *keys_file;	  /* NULL: none; borrowed, read again on reload */
	struct keyask_config ask; /* no URLs: only the file counts */
};

struct auth {
	bool on;
	struct keys keys;
	struct keyask *ask; /* NULL: no validation URLs */
	_Atomic uint64_t refused;
};

/* What to answer to a request that may not go on; the texts are constants. */
struct auth_refusal {
	int status; /* 401, 503; 0: the client left, there is nothing to answer */
	const char *type, *extra, *text;
};

/* "Bearer KEY" of Authorization, else X-Api-Key. Empty when there is none. */
struct span auth_key(const struct http_head *h);
/* Reads the file and starts the thread that asks. PD_EINVAL, PD_EIO, PD_ENOMEM. */
int auth_start(struct auth *a, const struct auth_config *c, struct pd_msg *msg) PD_MUST;
/* After the last request; also when auth_start failed. */
void auth_release(struct auth *a);
/* From the connection's own thread, which may sleep. True: the request may go on. False: `no` says
 * what to answer. */
bool auth_admit(struct auth *a, struct http_conn *c, const struct http_request *r,
		struct auth_refusal *no);

#endif
