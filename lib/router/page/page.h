/*
 * The router's page: what a browser, `pdctl top` or any reader of an event stream sees of a running
 * router. Nothing is collected while nobody looks: observers then cost one look at a flag. From the
 * first viewer on, and for a minute after the last one, decisions are kept in a bounded ring and
 *the times of streams are added up per worker.
 *
 * A viewer takes what there is when it is able to: each second it gets the state of now and the
 * decisions since its last turn, of which it misses some when it is slow. Nothing is queued for it,
 * and no request waits for it.
 *
 *	page.c		life, viewers, observers
 *	page_ring.c	the last decisions
 *	page_text.c	a decision as JSON
 *	page_state.c	the state as JSON
 *	page_serve.c	the routes
 */
#ifndef PD_ROUTER_PAGE_H
#define PD_ROUTER_PAGE_H

#include "lib/http/server.h"
#include "lib/router/fleet/fleet.h"
#include "lib/router/page/page_ring.h"
#include "lib/router/watch/pulse.h"
#include "lib/router/watch/request_record.h"

#define PAGE_VIEWERS   16
#define PAGE_PERIOD    (1 * NS_PER_S)
#define PAGE_KEEP      (60 * NS_PER_S) /* collects on after the last viewer has left */
#define PAGE_STATE_MAX (4u << 20)

struct page_config {
	const struct router_config *router; /* borrowed, as the fleet */
	struct fleet_holder *fleet;
	const struct metrics *metrics;
	bool may_act; /* there are admin keys: a browser that has one may act */
	void (*look)(void *ctx, struct pulse_look *out);
	void *ctx;
};

/* How a policy by key spreads keys over the workers of a pool: measured with keys of ours. */
struct page_shares {
	unsigned keys; /* how many; 0: the policy does not go by key */
	unsigned *of;  /* owned; first choices per worker */
};

struct page {
	struct page_config cfg;
	_Atomic bool watched; /* observers collect */
	_Atomic bool ending;
	_Atomic int64_t until; /* collect at least so long, monotonic ns */
	struct page_ring ring;
	pthread_mutex_t lock; /* the rest */
	struct http_conn *viewer[PAGE_VIEWERS];
	unsigned viewers;
	struct buf state; /* made at most twice a second, whoever asks */
	int64_t state_at;
	uint64_t shares_version; /* of the fleet that the shares are of; 0: none */
	struct page_shares shares[ROLES];
};

int page_new(struct page **out, const struct page_config *c) PD_MUST;
/* Ends the streams of all viewers, soon. Thread-safe. Accepts NULL. */
void page_stop(struct page *p);
/* When no handler and no observer uses it any more. Accepts NULL. */
void page_free(struct page *p);
/* Collecting ends when nobody has looked for PAGE_KEEP; to be called now and then. Accepts NULL. */
void page_tick(struct page *p, int64_t now);

/* Somebody looks: collecting goes on until PAGE_KEEP from now. PD_ENOMEM. */
int page_look(struct page *p) PD_MUST;
/* One more viewer of the stream. False: there are PAGE_VIEWERS, or the router ends. */
bool page_enter(struct page *p, struct http_conn *c);
void page_leave(struct page *p, struct http_conn *c);

/* Observers; r->to->page may be NULL. */
void page_decided(const struct record *r);
void page_ended(const struct record *r);

#endif
