/*
 * Tokens of answers, per model and worker. Models are learnt from requests whose answer said its
 * tokens, so a client cannot make labels up; what comes after the first fifteen is "other".
 * Thread-safe; names are never taken back.
 */
#ifndef PD_ROUTER_TOKENS_H
#define PD_ROUTER_TOKENS_H

#include <stdatomic.h>

#include "lib/base/span.h"

#define TOKENS_MODELS	 16 /* places, WORKER_MODELS */
#define TOKENS_MODEL_MAX 128

struct token_models {
	_Atomic unsigned n; /* names that may be read */
	_Atomic bool writing;
	char name[TOKENS_MODELS - 1][TOKENS_MODEL_MAX];
};

/* The place of the model in struct worker's table; 0: another one. */
unsigned tokens_place(struct token_models *m, struct span model);
/* What the place stands for; NULL: nothing yet. */
const char *tokens_model(const struct token_models *m, unsigned place);

struct record;
void tokens_ended(const struct record *r);

#endif
