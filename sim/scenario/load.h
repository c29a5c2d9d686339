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

#include "lib/workload/workload.h"
#include "sim/trace/trace.h"

#define SIMLOAD_CHARS_PER_TOKEN 4u
#define SIMLOAD_FIRST_BLOCKS	2 /* of auto: all requests of the published trace share block 0 */

/* Where the arrivals of a file come from. */
enum simload_arrivals {
	SIMLOAD_AUTO,	/* its time stamps when every record has one and no rate is given */
	SIMLOAD_STAMPS, /* its time stamps; an error when one is missing */
	SIMLOAD_MADE	/* never its time stamps */
};

struct simload_options {
	const char *key; /* see above; NULL: auto */
	uint64_t seed;	 /* of arrivals and of the spread */
	enum simload_arrivals arrivals;
	double request_rate;   /* requests/s, Poisson; INFINITY: all at time 0; 0: not given */
	bool closed;	       /* requests or sessions in flight are limited: without a rate all
				  requests are there at time 0, as in bench */
	double speedup;	       /* time stamps and think times are divided by it; 1 */
	bool spread;	       /* see schedule_plan.h */
	size_t max_requests;   /* 0: all */
	uint32_t block_tokens; /* 0: the format's; 16 for text */
	int64_t output_tokens; /* for records that do not say */
	int64_t capture_run;   /* of a capture; 0: the last one */
	const char *format;    /* NULL: recognised */
	enum workload_unit unit;
};

#define SIMLOAD_RATE	  4.0 /* requests/s of files that say nothing about time */
#define SIMLOAD_NOTES_MAX (WORKLOAD_NOTES_MAX + 8)

/* What was read, for reports. */
struct simload_facts {
	char key[80];		       /* the key that was used */
	char format[32];	       /* empty: made, not read */
	char arrivals[80];	       /* "time stamps", or how they were made */
	bool invented;		       /* the arrivals */
	char *note[SIMLOAD_NOTES_MAX]; /* owned sentences */
	size_t nnotes;
};

/* Adds a sentence. PD_ENOMEM. */
int simload_note(struct simload_facts *f, const char *fmt, ...) PD_PRINTF(2, 3);
void simload_facts_release(struct simload_facts *f);

/* Checks the text of a key option without a file. The message starts after the name of the option.
 */
int simload_key_check(const char *key, struct pd_msg *msg) PD_MUST;

/* Reads `text`, which is taken over, or with NULL the file `name` ("-": standard input), into an
 * initialised trace. The facts are to be released also after a failure. */
int simload_read(struct simtrace *t, struct buf *text, const char *name,
		 const struct simload_options *opt, struct simload_facts *facts,
		 struct pd_msg *msg) PD_MUST;

#endif
