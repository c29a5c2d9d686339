/* One request after the other to a router's admin port, for `pdctl workers`. Blocks; one thread. */
#ifndef PD_CMD_ADMINCLIENT_H
#define PD_CMD_ADMINCLIENT_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "lib/base/err.h"

struct admin_client;

struct admin_reply {
	long status;
	char *text;  /* owned; the body */
	cJSON *json; /* owned; NULL when the body is no JSON */
};

struct admin_access {
	const char *url;     /* of the router's admin port */
	bool operand;	     /* messages call it URL: it is a word of its own, not --router's */
	const char *ca_file; /* PEM: who may have signed an https:// router; NULL: the system's */
	const char *key;     /* sent as a bearer token; NULL: none. Copied */
};

/* PD_EINVAL when the URL is no http(s) URL or the file cannot be read. The file's name must stay.
 */
int admin_client_new(struct admin_client **out, const struct admin_access *a,
		     struct pd_msg *msg) PD_MUST;
void admin_client_free(struct admin_client *c);
/*
 * Sends the request and reads the whole answer. `id` (may be NULL) is put into the path in place of
 * its "{id}", percent-encoded. `body` (may be NULL) is JSON. PD_ECLOSED: no answer; msg says which
 * URL and what to do.
 */
int admin_client_ask(struct admin_client *c, const char *method, const char *path, const char *id,
		     const char *body, struct admin_reply *r, struct pd_msg *msg) PD_MUST;
void admin_reply_release(struct admin_reply *r);
/* The router's own words about a failure, or what stands in for them. */
void admin_reply_error(const struct admin_client *c, const struct admin_reply *r,
		       struct pd_msg *msg);

#endif
