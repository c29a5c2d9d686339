/*
 * Changes of the fleet while the router runs, on a thread of their own: they read files and resolve
 * names, which no request handler may wait for in its thread. A handler hands a change over and
 * sleeps until it is done. The thread also takes out the workers that are leaving. Thread-safe.
 */
#ifndef PD_ROUTER_CHANGES_H
#define PD_ROUTER_CHANGES_H

#include "lib/http/server.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/fleet/health.h"

#define CHANGES_QUEUE 64 /* changes that wait; more are refused */
#define CHANGE_WAIT_S 60 /* a handler waits for its change at most so long */

enum change_kind { CHANGE_RELOAD, CHANGE_ADD };

struct change {
	enum change_kind kind;
	enum worker_role role;	    /* add */
	char text[1024];	    /* add: "[name=]URL" */
	int bootstrap;		    /* add */
	struct route_labels labels; /* add; borrowed by changes_do until it returns */
	int err;		    /* what came of it */
	struct pd_msg msg;
};

struct changes;

/* All of it is borrowed until changes_stop. */
struct changes_config {
	struct fleet_holder *fleet;
	const struct router_config *router;
	struct health *health; /* told when there is a new worker */
	/* What CHANGE_RELOAD does, on the thread of the changes. */
	int (*reload)(void *ctx, struct pd_msg *msg);
	void *ctx;
};

/* PD_ENOMEM. */
int changes_start(struct changes **out, const struct changes_config *c, struct pd_msg *msg) PD_MUST;
/* False: the thread is stuck in a look-up or a file and stays, and so must everything it uses.
 * Accepts NULL. */
bool changes_stop(struct changes *s);
/*
 * Carries the change out and sleeps meanwhile; ch->err and ch->msg say how it went. PD_EBUSY: too
 * many wait, PD_ETIMEOUT: it is still under way, PD_ECANCELED: the client left, PD_ENOMEM.
 */
int changes_do(struct changes *s, struct http_conn *c, struct change *ch) PD_MUST;
/* A reload without a handler that waits: `done` is called on the thread when it has ended, well or
 * not. False: too many wait, or no memory. */
bool changes_reload(struct changes *s, void (*done)(void)) PD_MUST;
/* A worker is leaving: take it out as soon as nothing needs it. */
void changes_reap(struct changes *s);

#endif
