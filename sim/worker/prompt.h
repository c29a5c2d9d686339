/* Prompts of a request to tokens, within the model's length. */
#ifndef PD_SIM_WORKER_PROMPT_H
#define PD_SIM_WORKER_PROMPT_H

#include "sim/worker/request.h"

/* Fills tokens and prompts of g from its body. PD_EINVAL with *e set. */
int prompt_parse(struct gen_request *g, size_t max_model_len, struct api_error *e) PD_MUST;

#endif
