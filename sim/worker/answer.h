/* The bytes of answers and events, member by member as vLLM writes them. */
#ifndef PD_SIM_WORKER_ANSWER_H
#define PD_SIM_WORKER_ANSWER_H

#include "sim/worker/request.h"

/* "id":...,"object":...,"created":...,"model":... */
void answer_head(struct jout *o, const struct gen_request *g, bool chunk, int64_t created);
void answer_usage(struct jout *o, size_t prompt, size_t completion, size_t cached);
/* One element of "choices" of a whole answer; of a completion with the prompt's logprobs. */
void answer_choice(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		   const char *finish, struct span prompt_logprobs);
/* The logprobs of a prompt's tokens, made up from the tokens alone: null for the first. */
void answer_prompt_logprobs(struct jout *o, const uint32_t *id, size_t n);
/* The same of an event. finish is NULL before the last token. */
void answer_delta(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		  const char *finish);
/* The same of the event that begins a chat answer. */
void answer_role(struct jout *o, size_t index);
/* One element of "data" of an embeddings answer. */
void answer_embedding(struct jout *o, const struct gen_request *g, size_t index, uint64_t seed);

#endif
