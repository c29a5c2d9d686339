/*
 * Usage of a P/D request, merged as vllm-router 0.1.17 does: prompt_tokens / input_tokens, their
 * details and cached_tokens come from prefill, output tokens from decode, total_tokens recomputed;
 * when prefill names no cached tokens, decode's are removed. Only the bytes of the usage object
 * change. Pure; thread-safe.
 */
#ifndef PD_PD_USAGE_H
#define PD_PD_USAGE_H

#include "lib/json/edit.h"

/* What a prefill answer says of itself. Spans point into the answer. */
struct pd_prefill_usage {
	struct span usage;     /* the usage object; n == 0 when absent */
	int64_t prompt_tokens; /* -1 unknown */
	int64_t cached_tokens; /* -1 unknown */
};
#define PD_PREFILL_UNKNOWN ((struct pd_prefill_usage){.prompt_tokens = -1, .cached_tokens = -1})

/* The value of a top-level member that is an object with members; an empty span otherwise. */
struct span pd_object_at(const struct json_object *o, const char *name);

void pd_usage_of_prefill(struct pd_prefill_usage *u, const struct json_object *answer);

/*
 * Edits a JSON document (a whole response, or the data of one SSE event) whose `usage` is an
 * object, or `response.usage` in events of the responses API, or `message.usage` of the Anthropic
 * form. *changed tells whether anything was edited; when it was, the edited document is appended to
 * `out`. Any other document, also one that is no JSON object ("[DONE]"), is left alone, and so is
 * one that is right already. PD_ENOMEM, or PD_ETOOBIG when `out` cannot hold it (*changed is false
 * then).
 */
int pd_usage_merge(const char *doc, size_t n, const struct pd_prefill_usage *prefill,
		   struct buf *out, bool *changed) PD_MUST;

/* Quick test without scanning: may this text contain a usage object ("usage":null is none)? */
bool pd_usage_maybe(const char *p, size_t n);

/* What an answer says of its tokens; -1: nothing. */
struct pd_tokens {
	int64_t prompt, completion, cached;
};
#define PD_TOKENS_UNKNOWN ((struct pd_tokens){-1, -1, -1})

/* Looks for them in a piece of an answer's body: the last usage object counts, a stream may report
 * its tokens with every event. What is not found there stays as it is. */
void pd_usage_tokens(struct pd_tokens *t, const char *p, size_t n);

#endif
