/* The bytes of answers and events, member by member as vLLM writes them. Those of the events that
 * have names are in named_events.h. */
#ifndef PD_SIM_WORKER_ANSWER_H
#define PD_SIM_WORKER_ANSWER_H

#include "sim/worker/request.h"

/* What an answer, or an event of it, says. */
struct answer_part {
	struct span text;
	const char *finish; /* NULL: more comes */
	struct span echo;   /* the prompt in front of it, JSON text inside the quotes */
	/* Tokens of the prompt and the answer; [from, to) are those of this part. */
	const uint32_t *ids;
	size_t prompt, from, to;
	struct span prompt_logprobs; /* JSON; of a whole completion */
};

/* "id":...,"object":...,"created":...,"model":... */
void answer_head(struct jout *o, const struct gen_request *g, bool chunk, int64_t created);
/* Begins the list of what was generated: ,"choices":[ */
void answer_list(struct jout *o, const struct gen_request *g);
/* What stands between that list and the usage: ],... */
void answer_tail(struct jout *o, const struct gen_request *g, const char *finish);
/* As the form of the request names its tokens. */
void answer_usage(struct jout *o, const struct gen_request *g, size_t prompt, size_t completion,
		  size_t cached);
/* One element of the list of a whole answer. */
void answer_choice(struct jout *o, const struct gen_request *g, size_t index,
		   const struct answer_part *p);
/* The logprobs of a prompt's tokens, made up from the tokens alone: null for the first. */
void answer_prompt_logprobs(struct jout *o, const uint32_t *id, size_t n);
/* One element of "choices" of an event. */
void answer_delta(struct jout *o, const struct gen_request *g, size_t index,
		  const struct answer_part *p);
/* The same of the event that begins a chat answer. */
void answer_role(struct jout *o, size_t index);
/* One element of "data" of an embeddings answer. */
void answer_embedding(struct jout *o, const struct gen_request *g, size_t index, uint64_t seed);
/* Ids of a prompt as text, for its echo. */
void answer_ids_text(struct jout *o, const uint32_t *id, size_t n);

#endif
