/*
 * The load engine: sends requests on a schedule over many connections from one thread, and
 * measures.
 *
 * libcurl's socket interface over one epoll set: cost per event does not grow with the number of
 * streams. Each slot keeps its handle and buffers for the next request. A request is released at
 * its intended time, or when the turn before it in its session has ended and its think time is
 * over, whichever is later; it waits further only for --max-concurrency or for a slot among the
 * concurrent sessions, and both waits are visible in the records. The engine sends nothing twice
 * and retries nothing.
 */
#ifndef PD_LOAD_LOAD_H
#define PD_LOAD_LOAD_H

#include <signal.h>

#include "lib/load/body.h"
#include "lib/results/result.h"
#include "lib/workload/workload.h"

#define LOAD_IN_FLIGHT_MAX 60000
#define LOAD_NO_TURN	   UINT32_MAX

/* One request to send. `request` and key are borrowed for the run. */
struct load_item {
	const struct workload_request *request;
	struct span key;     /* session key for the wire, or empty */
	const char *session; /* its name for the records, NUL-terminated, or NULL */
	int64_t at_ns;	     /* intended time since the start */
	uint32_t before;     /* index of the turn that must end first, or LOAD_NO_TURN */
	uint32_t session_no; /* for the limit of concurrent sessions, or WORKLOAD_NO_SESSION */
};

struct load_progress {
	size_t total, sent, done, failed, in_flight;
	int64_t elapsed_ns;
};

struct load_options {
	const char *base_url; /* http[s]://host:port, without a path */
	const char *ca_file;  /* PEM, CAs of an https:// server; NULL: the system's */
	const char *path;     /* /v1/chat/completions */
	struct body_options body;
	const char *const *headers; /* "Name: value" */
	size_t nheaders;
	const char *key_header;	     /* header that carries the session key, or NULL */
	const char *api_key;	     /* sent as a bearer token, or NULL */
	int64_t max_concurrency;     /* requests in flight; 0: LOAD_IN_FLIGHT_MAX */
	int64_t concurrent_sessions; /* sessions begun and not ended; 0: no limit */
	int64_t timeout_ns;	     /* of one request, from sending to its last byte */
	int64_t grace_ns;	     /* how long requests may go on after a stop */
	bool keep_text;
	bool scheduled;			   /* at_ns is a schedule that lag is measured against */
	const volatile sig_atomic_t *stop; /* non-zero: send nothing more; 2 or more: abort what is
					      in flight. May be NULL */
	void (*progress)(void *arg,
			 const struct load_progress
				 *p); /* every 200 ms at most, from the loop; may be NULL */
	void *progress_arg;
};

struct load_outcome {
	struct result_request *record; /* owned; one per item, in the items' order */
	size_t n;
	int64_t origin_ns; /* monotonic clock at time 0 of the records */
	int64_t cpu_ns;	   /* processor time the whole process used meanwhile */
	int64_t wall_ns;
	bool stopped; /* by options.stop */
	char **owned; /* texts the records point to */
	size_t nowned, owned_cap;
};

/*
 * Runs all items. PD_OK also when requests fail: the records say so. Errors: PD_EINVAL (URL),
 * PD_EIO (no epoll, name not found), PD_ENOMEM, with a message. curl_global_init must have been
 * called.
 */
int load_run(const struct load_options *o, const struct load_item *items, size_t n,
	     struct load_outcome *out, struct pd_msg *msg) PD_MUST;
void load_outcome_release(struct load_outcome *out);

/* GET base_url + path: status and up to 1 MiB of body. For /v1/models. */
int load_get(const struct load_options *o, const char *path, int *status, struct buf *body,
	     struct pd_msg *msg) PD_MUST;

#endif
