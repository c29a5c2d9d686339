/*
 * Workers by a cost, the cheapest first, equal ones in turns: for policies that compare all of
 * them. Cost, number in flight and place lie in one integer, so that one comparison orders them. A
 * cost is kept as a float: whole numbers up to 2^24 exactly. The first few are sorted while they
 * are added; the rest is searched, which is needed only when those filled up in between.
 */
#ifndef PD_ROUTE_RANKING_H
#define PD_ROUTE_RANKING_H

#include "lib/route/policy.h"

#define RANKING_SORTED 5 /* the chosen one and those that explain it */

struct ranking {
	uint64_t rank[ROUTE_WORKERS_MAX];
	uint64_t best[RANKING_SORTED];
	uint64_t turn, chosen, last;
	uint32_t n, nbest, at, ties;
	bool drawn, begun;
};

/* Turns are kept from try to try (v->tries). */
void ranking_begin(struct ranking *r, const struct route_view *v);
/* A worker, with what is in flight there. cost >= 0. */
void ranking_add(struct ranking *r, uint32_t worker, uint32_t seen, double cost);
/* Adds all workers at what is in flight by weight, those that cannot take a request last: for
 * policies by key, whose order names every worker. */
void ranking_add_all(struct ranking *r, const struct route_view *v);
/* Fills worker, seen, score (the cost) and, for the first, ties. `turns`: of equally cheap ones the
 * one whose turn it is comes first, else the first of the list. False: no other. */
bool ranking_next(struct ranking *r, const struct route_view *v, bool turns,
		  struct route_choice *c);

#endif
