/*
 * From a workload file to a trace: which text is the session key, which blocks are the prefix, when
 * requests arrive.
 *
 * Keys (`key` of struct simload_options):
 *   auto            session keys when the file has them; else first-blocks:2 when it has hash ids;
 * else prefix session         the record's session (session_id, conversation_id, prompt_cache_key,
 * chat_id) prompt_cache_key  what bench sends as key: prompt_cache_key, else the session
 *   first-blocks:N  the first N hash ids
 *   prefix          the beginning of the prompt, as the router does for requests without a key
 *   group           the record's prefix group
 *   pattern:TEXT    a session pattern over the request number ("key_<i%4>")
 *   none            no key
 * Blocks: the hash ids of the record, else chained hashes over the text, four characters per token,
 * full blocks only.
 */
#ifndef PD_SIM_SCENARIO_LOAD_H
#define PD_SIM_SCENARIO_LOAD_H

#include "sim/trace/trace.h"

#define SIMLOAD_CHARS_PER_TOKEN 4u
#define SIMLOAD_FIRST_BLOCKS	2 /* of auto: all requests of the published trace share block 0 */

struct simload_options {
	const char *key;     /* see above; NULL: auto */
	uint64_t seed;	     /* of arrivals and of the spread */
	double request_rate; /* for files without time stamps: Poisson, requests/s; INFINITY: all at
				time 0 */
	double speedup;	     /* time stamps are divided by it; 1 */
	bool spread;	     /* see simtrace_spread */
	size_t max_requests; /* 0: all */
	uint32_t block_tokens; /* 0: 512 with hash ids, 16 for text */
	int64_t output_tokens; /* for records that do not say */
	int64_t capture_run;   /* of a capture; 0: the last one */
};

/* Checks the text of a key option without a file. The message starts after the name of the option.
 */
int simload_key_check(const char *key, struct pd_msg *msg) PD_MUST;

/* Reads `text`, which is taken over, or with NULL the file `name` ("-": standard input), into an
 * initialised trace; *key_used (cap bytes) receives the key that was chosen. */
int simload_read(struct simtrace *t, struct buf *text, const char *name,
		 const struct simload_options *opt, char *key_used, size_t cap,
		 struct pd_msg *msg) PD_MUST;

#endif
