/*
 * Who is told of a request, in a table: a further observer is one line in observers.c. Each call is
 * on the connection's thread, between two steps of the request: observers copy and count, they
 * never wait.
 */
#ifndef PD_ROUTER_OBSERVERS_H
#define PD_ROUTER_OBSERVERS_H

#include "lib/router/watch/request_record.h"

/* The picks of an attempt stand; nothing was sent yet. */
void record_decided(const struct record *r);
/* The head of an attempt's answer is here. Another attempt may follow all the same. */
void record_answered(const struct record *r);
/* Everything is over, or went no further than r->stage says. */
void record_ended(const struct record *r);

#endif
