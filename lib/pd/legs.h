/*
 * Which requests one prefill of one sequence can stand for. The rest goes to a decode worker alone,
 * which does all of it: slower, and right. Judged by vLLM's request classes for each body form. In
 * doubt a request goes alone, so only what is known to be right twice is sent twice. Pure,
 * thread-safe.
 */
#ifndef PD_PD_LEGS_H
#define PD_PD_LEGS_H

#include "lib/pd/path.h"

/* X(name, what a person reads): the reasons, which are labels of a metric too. */
#define PD_ALONE(X)                                                                                \
	X(prompts, "several prompts in one request: each has blocks of its own")                   \
	X(prompt_logprobs, "logprobs of the prompt, which the worker that computes it knows")      \
	X(beam_search, "beam search and best_of: many sequences, none of which is sampled")        \
	X(side_effects, "it answers later, follows up, or calls tools of the server")              \
	X(no_answer, "max_tokens 0 with echo: the prompt alone comes back")                        \
	X(known_id, "it names an id, of a file say, that one worker keeps")                        \
	X(prompt_length, "the length of the answer decides how the prompt is truncated")           \
	X(decider, "--pd-decider: the decode worker computes the prompt itself")                   \
	X(invalid, "a field that the prefill copy overwrites is invalid: decode says so")

enum pd_alone {
	PD_TWO_LEGS,
#define X(name, why) PD_ALONE_##name,
	PD_ALONE(X)
#undef X
		PD_ALONE_COUNT
};

/* Why this body of this path, which is not PD_PATH_OTHER, goes to decode alone; PD_TWO_LEGS: it
 * does not. */
enum pd_alone pd_alone_of(enum pd_path path, const struct json_object *body);
/* The name of the reason, for logs and labels; NULL for PD_TWO_LEGS. */
const char *pd_alone_name(enum pd_alone why);

/* Does the body carry a member of this name at the top level, not null, or hidden? */
bool pd_carries(const struct json_object *body, const char *name);
/* Does the body carry a member of this name where engines look for it besides the top level: in
 * extra_args or vllm_xargs, there or in sampling_params? */
bool pd_hidden(const struct json_object *body, const char *name);

#endif
