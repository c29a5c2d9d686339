/*
 * What a finished request leaves for its spans, as plain data of fixed size, and how OTLP's JSON
 * says it: one span of kind SERVER for the request, with children for the admission queue, the
 * picks, and the exchanges of its last attempt. Names of attributes are those of the semantic
 * conventions for HTTP and for generative AI; what only a router knows begins with "pdctl.". The
 * session key is not among them, only its hash. Pure; thread-safe.
 */
#ifndef PD_ROUTER_SPAN_NOTE_H
#define PD_ROUTER_SPAN_NOTE_H

#include "lib/router/watch/request_record.h"

#define SPAN_TEXT     112
#define SPAN_PARTS    5	    /* children of a request, at most */
#define SPAN_JSON_MAX 12288 /* bytes of a note's spans */

struct span_note {
	char trace[33], parent[17], span[17]; /* hex; parent "": none */
	int64_t wall; /* what is added to a monotonic time to make it one of the wall clock, ns */
	struct record_times time;
	enum metrics_route route;
	enum metrics_error error;
	int status;
	bool streaming, client_left, keyed;
	unsigned attempts;
	uint64_t key_hash;
	uint64_t events;
	struct pd_tokens tokens;
	struct {
		char worker[SPAN_TEXT];	     /* its URL; "": none picked */
		const char *policy, *reason; /* static */
	} pick[ROLES];
	char method[16], path[SPAN_TEXT], model[SPAN_TEXT], id[SPAN_TEXT], why[SPAN_TEXT];
};

/* r->trace->recorded is set. `now_mono` and `now_wall` are the same moment. */
void span_note_fill(struct span_note *n, const struct record *r, int64_t now_mono,
		    int64_t now_wall);
/* Its spans: 1 to 1 + SPAN_PARTS. */
unsigned span_note_count(const struct span_note *n);
/* Appends them, "{...},{...}". */
int span_note_put(const struct span_note *n, struct buf *out) PD_MUST;

#endif
