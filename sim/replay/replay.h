/*
 * One replay: a trace, one set of pools, one policy per pool, one cache size. Virtual time, so an
 * hour of traffic takes milliseconds; the decisions come from lib/route, the engines from
 * sim/engine.
 *
 * Order at one instant: transfers that end, results of steps, pool events, arrivals in the order of
 * the trace, then the engines schedule. A request hits the full blocks that are in its engine's
 * memory when it is admitted; they share that memory with the running requests. Blocks of an answer
 * have the names that the next request of the same key gives them, if it continues this one.
 *
 * With two pools the prefill and the decode worker are both chosen at arrival with the same key.
 * The prefill worker is released when the prompt is computed and keeps the blocks; the decode
 * engine takes room for them, fetches those that it misses over links that are shared by the
 * transfers in flight, and decodes. Workers on one host have a link of their own kind.
 *
 * Several routers share the workers: each has its own memories and sees its own requests in flight;
 * what it reads from the engines is as old as its last scrape.
 *
 * Routing only: no engines. A request hits the leading blocks of its worker's cache when it is
 * routed; then all its blocks are inserted or refreshed from the last to the first.
 *
 * The result is what was counted and timed; what follows from it (ratios, balance, percentiles) is
 * in sim/figures. The same trace and configuration give the same result on every machine. The trace
 * is only read.
 */
#ifndef PD_SIM_REPLAY_REPLAY_H
#define PD_SIM_REPLAY_REPLAY_H

#include "lib/route/policy/decider.h"
#include "sim/engine/params.h"
#include "sim/replay/vrouter.h"
#include "sim/trace/trace.h"

#define REPLAY_POOLS	   2
#define REPLAY_ROUTERS_MAX 16
#define REPLAY_ATTEMPTS	   5	    /* as serve: --retry-max-retries */
#define REPLAY_BACKOFF_NS  50000000 /* and its first pause, which grows by half each time */
#define REPLAY_WINDOWS	   16
#define REPLAY_REASONS	   ROUTE_REASONS

enum replay_action {
	REPLAY_JOIN,  /* becomes available */
	REPLAY_LEAVE, /* no new requests; the running ones end */
	REPLAY_FAIL,  /* no new requests; the running ones are lost and so is its cache */
	REPLAY_SLOW   /* its steps take `factor` times as long; 1: as before */
};

struct replay_event {
	bool by_request; /* happens before request `request` is routed, else at at_ns */
	uint64_t request;
	int64_t at_ns;
	enum replay_action action;
	uint32_t pool, worker;
	double factor; /* SLOW */
};

/* What a worker of its own kind is. */
struct replay_node {
	struct engine_params engine;
	uint64_t cache_blocks;
	uint32_t host;		    /* two workers with the same number share one; 0: none */
	struct route_labels labels; /* borrowed texts; with the role, if the pool has one */
};

struct replay_pool {
	const char *const *names;	/* borrowed */
	const bool *absent;		/* borrowed; workers that join later; NULL: none */
	const struct replay_node *node; /* borrowed, n; NULL: all are as the configuration says */
	size_t n;
	struct route_spec policy;
};

/* One decision, for a test or a file. */
struct replay_choice {
	uint32_t worker; /* or VROUTER_REFUSED, VROUTER_LOCAL */
	enum route_reason reason;
};

struct replay_config {
	struct replay_pool pool[REPLAY_POOLS]; /* one: a plain pool; two: prefill, then decode */
	size_t npools;
	uint64_t seed;
	size_t cache_blocks; /* memory of a worker; 0: engine.kv_tokens says it, or no limit */
	struct engine_params engine;
	struct route_decider_spec decider; /* P/D; zero: always remote */
	bool prefill_first;		   /* P/D: pick the prefill worker first */
	double transfer_ms;		   /* P/D: set-up of a hand-over */
	double transfer_us_token;	   /* P/D: per token that the decode worker misses */
	bool host_link;			   /* P/D: these two for workers on one host */
	double host_transfer_ms, host_transfer_us_token;
	uint32_t routers;	  /* 0: one */
	bool routers_by_session;  /* a session goes through one router; else requests in turn */
	int64_t scrape_ns;	  /* period at which routers read the engines; 0: always current */
	int64_t scrape_delay_ns;  /* until what was read is known; at most the period */
	uint32_t attempts;	  /* of a request whose worker failed; 0: REPLAY_ATTEMPTS */
	int64_t backoff_ns;	  /* before the second one; 0: REPLAY_BACKOFF_NS */
	uint32_t max_concurrency; /* requests in the system; 0: no limit */
	uint32_t concurrent_sessions;	   /* sessions begun and not ended; 0: no limit */
	const struct replay_event *events; /* borrowed */
	size_t nevents;
	bool force; /* the first decision of forced_request is forced_worker; plain pools */
	uint32_t forced_request, forced_worker;
	bool hide_keys;	    /* policies see no session keys; figures know them */
	bool routing_only;  /* no engines: every request ends before the next one begins; no
			       latencies */
	bool detailed;	    /* keeps the time of each token; engines do not jump over steps then */
	uint64_t *happened; /* nevents, filled when not NULL: how many requests were routed before
			       each event; UINT64_MAX: it did not happen */
	uint32_t *sequence; /* trace.n, filled when not NULL: the requests in the order in which
			       they were routed */
	struct replay_choice *choices; /* trace.n * npools, filled when not NULL; pools of a request
					  side by side */
};

enum replay_fate { REPLAY_LEFT_OVER, REPLAY_COMPLETED, REPLAY_LOST, REPLAY_REFUSED };

/* One request; times are simulated, -1: it did not come to that. */
struct replay_request {
	int64_t issued_ns;  /* routed for the first time */
	int64_t started_ns; /* begin of the first step that computes it */
	int64_t first_ns, done_ns;
	uint32_t worker[REPLAY_POOLS]; /* of the last attempt; or VROUTER_REFUSED, VROUTER_LOCAL */
	uint32_t cached;	       /* prompt tokens found where the prompt was computed */
	uint8_t fate;		       /* enum replay_fate */
	uint8_t attempts;
};

struct replay_token {
	int64_t at_ns;
	uint32_t req;
};

struct replay_worker {
	uint64_t requests, keys; /* keys: those whose first request came here */
	uint64_t input_tokens, uncached_tokens;
	uint64_t blocks, hit_blocks, hit_tokens;
	uint32_t peak_in_flight;
	uint64_t preemptions;
	double busy_s; /* simulated time spent in steps */
};

struct replay_pool_result {
	size_t nworkers;
	struct replay_worker *worker; /* owned */
	struct route_spec policy;
	uint64_t keys, multi_keys;	/* keys seen; with at least two requests */
	uint64_t kept_keys;		/* multi_keys with all requests on one worker */
	uint64_t follow_ups, moves;	/* moves: follow-ups that changed the worker */
	uint64_t moved[REPLAY_REASONS]; /* moves by the reason of the decision ... */
	uint64_t moved_gone;		/* ... but those whose worker was not available any more */
	uint64_t compared, agreed;	/* decisions of a capture: compared, and equal */
	uint64_t reasons[REPLAY_REASONS];
};

struct replay_result {
	struct replay_pool_result pool[REPLAY_POOLS];
	size_t npools;
	uint64_t requests, completed, lost; /* lost: on a worker that failed */
	uint64_t
		retried; /* further attempts of requests whose worker failed before they answered */
	uint64_t local;	 /* P/D: the decode worker computed the prompt, as the decider said */
	uint64_t refused; /* no worker, or it could never fit into an engine's memory */
	uint64_t input_tokens, output_tokens; /* of completed requests */
	double duration_s;		      /* first arrival to last completion, simulated */
	uint32_t peak_in_flight;
	struct replay_request *request; /* of each request of the trace; owned; NULL: computed
					   requests have no records, but these sums */
	/* Prompt tokens, and those that were found, of REPLAY_WINDOWS equal parts of the requests
	 * in the order in which they were routed. */
	double window_tokens[REPLAY_WINDOWS], window_hits[REPLAY_WINDOWS];
	struct replay_token *token; /* owned; detailed: what clients get, in order of time */
	size_t ntokens, token_cap;
};

/* "join", "leave", ... */
const char *replay_action_name(enum replay_action a);

int replay_run(const struct simtrace *t, const struct replay_config *cfg, struct replay_result *out,
	       struct pd_msg *msg) PD_MUST;
void replay_result_release(struct replay_result *r);

#endif
