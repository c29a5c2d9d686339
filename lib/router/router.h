/*
 * The serve daemon as an object: cmd/serve.c starts it, waits for signals and stops it. What it is
 * made of knows nothing of it: each room gets a context of its own (router.c). For one thread, but
 * where a function says otherwise.
 */
#ifndef PD_ROUTER_ROUTER_H
#define PD_ROUTER_ROUTER_H

#include "lib/router/config/config.h"

struct router;
struct capture;

/* Resolves the workers, binds the ports, starts all threads. `cfg` is copied; its texts stay
 * borrowed. `capture` (NULL: none) is taken over, also on failure. */
int router_start(struct router **out, const struct router_config *cfg, struct capture *capture,
		 struct pd_msg *msg) PD_MUST;
uint16_t router_port(const struct router *rt);
/* 0 when there is no metrics listener. */
uint16_t router_scrape_port(const struct router *rt);
uint16_t router_metrics_port(const struct router *rt);
/* Reads the workers file, the file of client keys and the certificates again. On failure everything
 * stays as it is. Thread-safe. */
int router_reload(struct router *rt, struct pd_msg *msg) PD_MUST;
/* The same on a thread of the router, so that the caller can go on; `done` is called there at the
 * end, well or not (the log says which). False: it was not begun. */
bool router_reload_begin(struct router *rt, void (*done)(void)) PD_MUST;
/* Readiness turns false; after cfg.drain_delay the listener closes; returns at once after that. */
void router_drain(struct router *rt);
/* Ends a drain at once, from another thread: no more delay, what still runs is cut. Returns how
 * many. */
unsigned router_hurry(struct router *rt);
/* Waits for streams to end, at most until the deadline; returns how many were cut. */
unsigned router_wait(struct router *rt, int64_t deadline);
/* Stops what still runs. False: a handler or a look-up of a name did not end; the router stays, and
 * so must everything that its configuration lends. Accepts NULL. */
bool router_free(struct router *rt);

#endif
