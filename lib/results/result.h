/*
 * The result document: what `vllm bench serve --save-result` writes (same keys, order, units and
 * formulas), plus one versioned object "pdctl". bench fills the records from a real run, simulate
 * from a virtual one; compare reads both.
 *
 * Times are ns since the start of the run (any origin, the same for all). Texts are borrowed and
 * must outlive the call. Formulas (vllm bench serve 0.32): TTFT = first token - sent; E2EL = last
 * token - sent; TPOT = (E2EL - TTFT) / (output - 1) for requests with more than one token; means,
 * medians, population deviations and linearly interpolated percentiles over successful requests,
 * ITL over all tokens together; throughput = sums / duration, duration = first send to last end.
 * Three differences, on purpose: max_concurrent_requests is the exact peak
 * (vllm bench 0.32 counts the requests that touch the busiest second); ITL and
 * max_output_tokens_per_s count tokens and not chunks whenever the server stated the tokens; chunk
 * gaps are in pdctl.chunk_gap. A figure without a sample is null, where vllm bench writes 0. Pure:
 * the same records give the same bytes.
 */
#ifndef PD_RESULTS_RESULT_H
#define PD_RESULTS_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define RESULT_PERCENTILES_MAX 16
#define RESULT_GOALS_MAX       3

enum result_metric {
	RESULT_TTFT,
	RESULT_TPOT,
	RESULT_ITL,
	RESULT_E2EL,
	RESULT_CLIENT_QUEUE_TIME,
	RESULT_E2EL_WITH_QUEUE,
	RESULT_METRICS
};

/* A piece of a stream after the first one: when it came and how many tokens it brought. */
struct result_gap {
	int64_t ns;	/* since the piece before */
	int64_t tokens; /* -1: the server did not say */
};

/* How the tokens of an answer were counted. */
enum result_basis {
	RESULT_BASIS_NONE,	 /* no answer, or nothing to count */
	RESULT_BASIS_USAGE,	 /* the server's count, stated with the pieces */
	RESULT_BASIS_USAGE_LAST, /* the server's count, stated once: the pieces share it evenly */
	RESULT_BASIS_CHUNKS	 /* the server stated none: a piece counts as one token */
};

struct result_request {
	int64_t intended_ns; /* when the schedule wanted it sent */
	int64_t eligible_ns; /* when it was free to go: intended, previous turn done, a slot free */
	int64_t sent_ns;     /* -1: never sent (interrupted) */
	int64_t first_byte_ns;	/* -1: none; the response head */
	int64_t first_token_ns; /* -1: none; first piece with text; streams only
				 */
	int64_t last_token_ns;	/* -1: none */
	int64_t end_ns;		/* the end of the exchange, also of a failed one; -1: never ended */
	int64_t input_tokens;
	int64_t output_tokens;
	int64_t cached_tokens;	      /* -1: the server did not say */
	const struct result_gap *gap; /* pieces after the first one */
	size_t ngaps;
	int64_t first_tokens; /* tokens of the first piece; -1: not said */
	enum result_basis basis;
	int64_t prefill_ns, decode_ns; /* stages that the router stated; -1: not stated */
	int status;		       /* HTTP status, 0: no response */
	const char *failure; /* short label ("http_500", "truncated", "timeout"); NULL: success */
	const char *error;   /* a sentence, or NULL */
	const char *text;    /* generated text as the inside of a JSON string, or NULL */
	const char *session; /* name of the session, or NULL */
	const char *worker;  /* X-Worker, or NULL */
	const char *prefill; /* X-Prefill-Worker, or NULL */
	const char *decode;  /* X-Decode-Worker, or NULL */
};

struct result_goal {
	enum result_metric metric; /* RESULT_TTFT, RESULT_TPOT or RESULT_E2EL */
	double limit_ms;
};

struct result_run {
	const char *date;    /* "%Y%m%d-%H%M%S" */
	const char *backend; /* "openai-chat", "openai", "openai-embeddings" */
	const char *label;   /* or NULL */
	const char *model;
	const char *const
		*metadata; /* "KEY=VALUE", nmetadata of them: flat at top level, as strings */
	size_t nmetadata;
	double request_rate; /* INFINITY: "inf" */
	double burstiness;
	int64_t max_concurrency; /* 0: null */
	int64_t clock_origin_ns; /* added to sent_ns for start_times */
	bool pooling;		 /* embeddings: no token metrics */
	bool detailed;		 /* write the per-request lists */
	enum result_metric metric[RESULT_METRICS];
	size_t nmetrics; /* 0: ttft, tpot, itl */
	double percentile[RESULT_PERCENTILES_MAX];
	size_t npercentiles; /* 0: 99 */
	struct result_goal goal[RESULT_GOALS_MAX];
	size_t ngoals;
	const struct result_request *req;
	size_t n;
	/* the object "pdctl" */
	const char *tool; /* "bench", "simulate" */
	bool simulated;
	uint64_t seed;
	const char *dataset_hash; /* hex, or NULL */
	bool client_ok;
	bool scheduled;	     /* there was a schedule to be late for */
	const char *members; /* further members, JSON text without braces ("\"policy\":\"x\""), or
				NULL */
};

/* Appends the document: one JSON object and a line feed. */
int result_write(const struct result_run *run, struct buf *out) PD_MUST;
/* How tokens were counted over the run: "usage", "usage_last", "chunks", "mixed" or "none". */
const char *result_token_basis(const struct result_run *run);
/* Chooses ttft, tpot, itl and p99 where nothing was chosen; e2el only for pooling. */
void result_defaults(struct result_run *run);

#endif
