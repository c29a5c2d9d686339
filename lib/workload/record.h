/* One record of a workload file: from a line of JSON to struct workload_request. Used by workload.c
 * only. */
#ifndef PD_WORKLOAD_RECORD_H
#define PD_WORKLOAD_RECORD_H

#include "lib/workload/workload.h"

/* Hash ids of all records one after the other; the owner turns counts into pointers when it stops
 * growing. */
struct record_ids {
	uint64_t *id; /* owned */
	size_t n;
	size_t cap;
};

struct record_error {
	size_t column;	    /* 1-based */
	struct pd_msg text; /* what was found and what was expected */
};

/*
 * Reads the record in line[0..n), which is writable because escaped names are decoded in place.
 * r->hash_ids stays NULL, its ids are appended to ids; session_no and turn are left at "not stated"
 * for the owner to fill.
 */
int record_parse(char *line, size_t n, const struct workload_options *opt,
		 struct workload_request *r, struct record_ids *ids,
		 struct record_error *e) PD_MUST;

#endif
