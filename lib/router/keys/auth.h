/*
 * Who may come in: clients that bring a key of --client-api-keys, or one that a validation URL
 * calls valid. Decided with the head, before a body is read or a place is taken. Thread-safe.
 */
#ifndef PD_ROUTER_AUTH_H
#define PD_ROUTER_AUTH_H

#include "lib/router/keys/keyask.h"
#include "lib/router/keys/keys.h"

struct router;
struct router_config;

struct auth {
	bool on;
	struct keys keys;
	struct keyask *ask; /* NULL: no validation URLs */
	_Atomic uint64_t refused;
};

int auth_start(struct auth *a, const struct router_config *c, struct pd_msg *msg) PD_MUST;
void auth_release(struct auth *a);
/* True: the request may go on. False: it was answered (401, 503), or the client left. */
bool auth_admit(struct router *rt, struct http_conn *c, const struct http_request *r);

#endif
