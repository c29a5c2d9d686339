/* The page's routes, all of them GET and all of them for the admin port:
 *
 *	/dashboard			the page; its scripts and its style stand below it
 *	/dashboard/live			Server-Sent Events: `state` each second, `decisions` with it
 *	/dashboard/state		one such state
 *	/dashboard/decisions?key=TEXT	the last decisions whose key has this text, newest first
 *	/dashboard/where?key=TEXT	where a session of this key goes
 */
#ifndef PD_ROUTER_PAGE_SERVE_H
#define PD_ROUTER_PAGE_SERVE_H

#include "lib/router/page/page.h"

/* The path is the page's: to be asked on the admin port only. */
bool page_route(const struct http_request *r);
/* Answers exactly once. `key` is the decoded query parameter of that name; p NULL: there was none.
 */
void page_serve(struct page *p, struct http_conn *c, const struct http_request *r, struct span key);

#endif
