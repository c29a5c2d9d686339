/* Prompt and cached tokens are the prefill worker's, where there is one: it computed them. */
#include "lib/router/watch/tokens.h"

#include <stdio.h>
#include <string.h>

#include "lib/router/watch/request_record.h"

_Static_assert(TOKENS_MODELS == WORKER_MODELS, "one place for each model");

static unsigned find(const struct token_models *m, struct span model)
{
	unsigned n = atomic_load_explicit(&m->n, memory_order_acquire);

	for (unsigned i = 0; i < n; i++)
		if (span_eq(model, span_of(m->name[i])))
			return i + 1;
	return 0;
}

unsigned tokens_place(struct token_models *m, struct span model)
{
	unsigned place, n;

	if (model.n == 0)
		model = SPAN("none");
	place = find(m, model);
	if (place || model.n >= TOKENS_MODEL_MAX ||
	    atomic_load_explicit(&m->n, memory_order_relaxed) == WORKER_MODELS - 1)
		return place;
	/* Two at once: the second is "other" this one time. */
	if (atomic_exchange(&m->writing, true))
		return 0;
	place = find(m, model);
	n = atomic_load(&m->n);
	if (!place && n < WORKER_MODELS - 1) {
		(void)snprintf(m->name[n], sizeof(m->name[n]), "%.*s", (int)model.n, model.p);
		atomic_store_explicit(&m->n, n + 1, memory_order_release);
		place = n + 1;
	}
	atomic_store(&m->writing, false);
	return place;
}

const char *tokens_model(const struct token_models *m, unsigned place)
{
	if (place == 0)
		return "other";
	return place <= atomic_load_explicit(&m->n, memory_order_acquire) ? m->name[place - 1]
									  : NULL;
}

static void add(const struct worker *w, unsigned place, enum worker_tokens kind, int64_t n)
{
	/* The record lends it for reading; its counters are everybody's. */
	struct worker *counts = (struct worker *)(uintptr_t)w;

	if (w && n > 0)
		atomic_fetch_add_explicit(&counts->tokens[place][kind], (uint64_t)n,
					  memory_order_relaxed);
}

void tokens_ended(const struct record *r)
{
	const struct pd_tokens *t = &r->tokens;
	const struct worker *last, *first;
	unsigned place;

	if (r->stage != RECORD_SERVED || (t->prompt < 0 && t->completion < 0 && t->cached < 0))
		return;
	last = r->pick[ROLE_DECODE].worker ? r->pick[ROLE_DECODE].worker
					   : r->pick[ROLE_REGULAR].worker;
	first = r->pick[ROLE_PREFILL].worker ? r->pick[ROLE_PREFILL].worker : last;
	place = tokens_place(&r->to->metrics->models, r->model);
	add(first, place, TOKENS_PROMPT, t->prompt);
	add(first, place, TOKENS_CACHED, t->cached);
	add(last ? last : first, place, TOKENS_COMPLETION, t->completion);
}
