/* What a profile handler says: which profile is for which pool, and who decides whether there are
 * two picks. */
#ifndef PD_ROUTE_HANDLERS_H
#define PD_ROUTE_HANDLERS_H

#include <stdbool.h>
#include <stdint.h>

struct score_type;

extern const struct score_type score_single_handler, score_disagg_handler, score_pd_handler;

/* Policies of flow control; what they are not is the other of its kind. */
extern const struct score_type score_turns_fairness, score_slo_ordering;

struct score_handler {
	const char *prefill, *decode; /* names of profiles */
	const char *decider;	      /* a plugin's name; NULL: none */
	bool prefill_first;
	int64_t threshold; /* pd-profile-handler: uncached bytes; 0: always; -1: the decider says */
	int64_t block;	   /* bytes of its hash blocks, with a threshold */
};

/* Of the parameters of one of the last two. */
const struct score_handler *score_handler_of(const void *params);

/* prefix-based-pd-decider's parameters; those of another decider: NULL. */
struct score_decider_params {
	int64_t uncached, prompt; /* nonCachedTokens, promptTokens */
};
const struct score_decider_params *score_decider_params(const struct score_type *t,
							const void *params);

/* The approximate producer's parameters. */
struct score_prefix_producer {
	int64_t block_tokens, max_tokens, max_blocks, capacity;
	bool auto_tune;
};
extern const struct score_type score_prefix_producer, score_flight_producer;
/* What prefix-cache-scorer said itself, in the older form; NULL: nothing. */
const struct score_prefix_producer *score_prefix_own(const void *params);

#endif
