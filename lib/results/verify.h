/*
 * Did sessions stay on their workers? The published consistent-hash analysis, from the workers that
 * the response headers name.
 *
 * A role (prefill, decode, or worker when the router has one pool) is judged when any successful
 * request names a worker for it. A session is consistent in a role when all its successful requests
 * name the same worker. The score is the smallest of: share of consistent sessions of each role,
 * share of successful requests that name a worker in each role, share of requests that succeeded.
 * PASS at 95 % and more, PARTIAL PASS at 80 % and more, else FAIL; FAIL also when there is no
 * session or no worker named. Pure; texts are borrowed from the records.
 */
#ifndef PD_RESULTS_VERIFY_H
#define PD_RESULTS_VERIFY_H

#include "lib/results/result.h"

enum verify_verdict { VERIFY_PASS, VERIFY_PARTIAL, VERIFY_FAIL };
enum { VERIFY_PREFILL, VERIFY_DECODE, VERIFY_WORKER, VERIFY_ROLES };

struct verify_worker {
	const char *name;
	size_t requests;
	size_t sessions; /* that used it at least once */
};

struct verify_role {
	bool judged;
	size_t named;		      /* successful requests with a session that name a worker */
	size_t consistent;	      /* sessions with exactly one worker */
	struct verify_worker *worker; /* owned; by name */
	size_t nworkers;
};

struct verify_session {
	const char *name;
	size_t requests, completed;
	const char
		*worker[VERIFY_ROLES]; /* the most used one (first by name among equals), or NULL */
	size_t on_worker[VERIFY_ROLES]; /* requests on it */
	size_t workers[VERIFY_ROLES];	/* different workers used */
};

struct verify {
	size_t requests, completed;	/* of requests with a session */
	struct verify_session *session; /* owned; in order of name */
	size_t nsessions;
	struct verify_role role[VERIFY_ROLES];
	double score; /* 0..1 */
	enum verify_verdict verdict;
	const char *why; /* a sentence for a verdict without figures, or NULL */
};

int verify_run(struct verify *v, const struct result_request *req, size_t n) PD_MUST;
void verify_release(struct verify *v);

const char *verify_role_name(unsigned role);
const char *verify_verdict_name(enum verify_verdict v);

#endif
