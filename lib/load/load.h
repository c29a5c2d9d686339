/*
 * The load engine: sends requests on a schedule over many connections, and measures.
 *
 * What goes when is lib/workload/schedule's business. There are two transports: fibers over
 * lib/http/client on one event loop (the default, and the measured path), and libcurl's multi
 * interface (HTTP/2, proxies, and an independent check of the first). Both fill the same records.
 * The engine retries nothing; a request is repeated only when a kept connection turns out to be
 * dead before one byte of an answer came, and that is counted.
 */
#ifndef PD_LOAD_LOAD_H
#define PD_LOAD_LOAD_H

#include <signal.h>

#include "lib/load/body.h"
#include "lib/load/load_pulse.h"
#include "lib/results/result.h"
#include "lib/workload/schedule.h"
#include "lib/workload/workload.h"

#define LOAD_IN_FLIGHT_MAX 60000 /* 30,000 on fibers: a process has 65,530 mappings */
#define LOAD_TARGETS_MAX   2

/* One request to send. `request` and session are borrowed for the run. */
struct load_item {
	const struct workload_request *request;
	const char *session; /* its session's name for the records, NUL-terminated, or NULL */
	uint32_t key;	/* bytes of that name that are the key on the wire; 0: no key is sent */
	uint8_t target; /* index of options.target */
};

struct load_progress {
	size_t total, sent, done, failed, in_flight;
	int64_t elapsed_ns;
	double ttft_ms; /* mean of the answers since the last look; NaN: none */
};

enum load_transport { LOAD_PDCTL, LOAD_CURL };

struct load_target {
	const char
		*base_url; /* http[s]://host:port[/base]; a /v1 that the path has too counts once */
	const char *unix_socket; /* path of a socket to connect to instead, or NULL */
};

struct load_options {
	struct load_target target[LOAD_TARGETS_MAX];
	size_t ntargets;
	enum load_transport transport;
	const char *ca_file; /* PEM, CAs of an https:// server; NULL: the system's */
	bool insecure;	     /* the certificate is not looked at */
	const char *proxy;   /* libcurl only; NULL: none */
	bool http2;	     /* libcurl only */
	const char *path;    /* /v1/chat/completions */
	struct body_options body;
	const char *const *headers; /* "Name: value" */
	size_t nheaders;
	const char *const *key_headers; /* names of the headers that carry the session key */
	size_t nkey_headers;
	const char *const *echo_headers; /* of an answer, sent with the session's next turn */
	size_t necho_headers;
	const char *request_id_prefix; /* X-Request-Id: PREFIXn; NULL: none */
	const char *api_key;	       /* sent as a bearer token, or NULL */
	int64_t max_concurrency;       /* requests in flight; 0: as many as possible */
	int64_t concurrent_sessions;   /* sessions begun and not ended; 0: no limit */
	int64_t timeout_ns;	       /* of one request, from sending to its last byte */
	int64_t grace_ns;	       /* how long requests may go on after a stop */
	int64_t send_until_ns; /* nothing is sent later than this after the start; 0: no limit */
	const char *salt;      /* put before each prompt, or NULL */
	bool salt_each;	       /* with the number of the request: no two prompts begin alike */
	bool keep_text;
	bool carry_answers; /* a turn's messages carry the real answers of the turns before */
	bool scheduled;	    /* there are times of sending that lag is measured against */
	const volatile sig_atomic_t *stop; /* non-zero: send nothing more; 2 or more: abort what is
					      in flight. May be NULL */
	/* Every 200 ms or so, from the thread of load_run; may be NULL. True: send nothing more. */
	bool (*progress)(void *arg, const struct load_progress *p);
	void *progress_arg;
};

struct load_outcome {
	struct result_request *record; /* owned; one per item, in the items' order */
	size_t n;
	int64_t origin_ns; /* monotonic clock at time 0 of the records */
	int64_t cpu_ns;	   /* processor time the whole process used meanwhile */
	int64_t wall_ns;
	bool stopped;	 /* by options.stop */
	bool saturated;	 /* by options.progress */
	size_t repeated; /* requests that were sent again on a new connection */
	struct pulse pulse;
	char **owned; /* texts the records point to */
	size_t nowned, owned_cap;
};

/*
 * Runs all items in this order, which has as many. PD_OK also when requests fail: the records say
 * so. Errors: PD_EINVAL (URL, options), PD_EIO (name not found), PD_ENOMEM, with a message.
 * curl_global_init must have been called.
 */
int load_run(const struct load_options *o, const struct load_item *items,
	     const struct schedule_input *order, struct load_outcome *out,
	     struct pd_msg *msg) PD_MUST;
void load_outcome_release(struct load_outcome *out);

/* The base URL's own path, and `path` behind it: "/v1" that both have counts once. */
int load_join(const char *base_path, const char *path, struct buf *out) PD_MUST;
/* GET target 0 + path: status and up to 1 MiB of body. For /v1/models. */
int load_get(const struct load_options *o, const char *path, int *status, struct buf *body,
	     struct pd_msg *msg) PD_MUST;
/* POST a JSON body there, for calibration and /tokenize. */
int load_post(const struct load_options *o, const char *path, struct span json, int *status,
	      struct buf *body, struct pd_msg *msg) PD_MUST;

#endif
