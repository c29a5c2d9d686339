/*
 * Workloads without text: sessions, turns, shared prefixes and lengths, made from a few numbers and
 * a seed. For studies of routing only these matter; `pdctl gen` writes files with text for bench.
 *
 * Every session belongs to one of `groups` prefix groups; its prompt is the system prompt, the
 * group's prefix, then the history of the session, then the new turn. Blocks are named so that
 * equal prefixes, and nothing else, have equal names.
 */
#ifndef PD_SIM_TRACE_SHAPE_H
#define PD_SIM_TRACE_SHAPE_H

#include "sim/trace/trace.h"

enum shape_key {
	SHAPE_KEY_SESSION, /* each session has its own key */
	SHAPE_KEY_GROUP,   /* the key is the prefix group */
	SHAPE_KEY_NONE
};

enum shape_order {
	SHAPE_INTERLEAVED, /* turn 0 of all sessions, then turn 1 ... within each wave of `active`
			      sessions */
	SHAPE_SHUFFLED	   /* a random order that keeps the turns of each session in order */
};

struct shape {
	uint64_t sessions;
	uint64_t turns;		 /* requests per session, on average */
	uint64_t active;	 /* sessions of a wave, running side by side; 0: all */
	uint64_t groups;	 /* prefix groups; 0: no shared prefix */
	double zipf;		 /* popularity of groups ~ 1 / rank^zipf; 0: uniform at random */
	bool round_robin_groups; /* session i has group i mod groups, instead of a draw */
	uint64_t prefix_tokens;	 /* of a group */
	uint64_t turn_tokens;	 /* new prompt tokens of each turn */
	uint64_t output_tokens;	 /* of each answer; part of the next turn's prompt */
	uint64_t block_tokens;
	double request_rate; /* requests/s; INFINITY: all at once. With think times: sessions/s */
	double burstiness;   /* see arrivals.h; 1: Poisson */
	double session_zipf; /* turns of a session ~ 1 / rank^session_zipf; 0: equally many */
	uint64_t system_tokens; /* beginning of all prompts, before the group's prefix */
	uint64_t think_ms; /* mean of the exponential pause between an answer and the next turn of
			      its session; 0: turns come at times of their own */
	bool single_turns; /* no history: a prompt is system, prefix and the turn alone */
	enum shape_key key;
	enum shape_order order;
};

#define SHAPE_DEFAULTS                                                                             \
	((struct shape){.sessions = 64,                                                            \
			.turns = 1,                                                                \
			.prefix_tokens = 2048,                                                     \
			.turn_tokens = 128,                                                        \
			.output_tokens = 128,                                                      \
			.block_tokens = 16,                                                        \
			.request_rate = 4,                                                         \
			.burstiness = 1})

#define SHAPE_BLOCKS_MAX UINT64_C(200000000) /* of all sessions together */

/* Plain sessions of equally many turns (at most 254) at times of their own: shape_make_lean. */
bool shape_is_lean(const struct shape *s);
/* PD_EINVAL names the member and its limits. A lean shape may have more blocks than shape_make
 * takes. */
int shape_check(const struct shape *s, struct pd_msg *msg) PD_MUST;
/* Fills an initialised trace. The same shape and seed give the same trace. */
int shape_make(const struct shape *s, uint64_t seed, struct simtrace *t,
	       struct pd_msg *msg) PD_MUST;
/* The same requests without names of blocks, computed when they are asked for (struct sim_made).
 * Only of a shape that is lean. */
int shape_make_lean(const struct shape *s, uint64_t seed, struct simtrace *t,
		    struct pd_msg *msg) PD_MUST;
const char *shape_key_name(const struct shape *s);

#endif
