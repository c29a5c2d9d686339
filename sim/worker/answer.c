/* Generated text is lower-case letters and spaces: no escapes. */
#include "sim/worker/answer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"

void answer_head(struct jout *o, const struct gen_request *g, bool chunk, int64_t created)
{
	const char *object = g->kind == GEN_EMBEDDING ? "list"
			     : g->kind == GEN_CHAT    ? "chat.completion"
						      : "text_completion";

	jout_put(o, "\"id\":");
	jout_quote(o, span_of(g->id));
	jout_fmt(o, ",\"object\":\"%s%s\",\"created\":%" PRId64 ",\"model\":", object,
		 chunk && g->kind == GEN_CHAT ? ".chunk" : "", created);
	jout_quote(o, g->model);
}

void answer_usage(struct jout *o, size_t prompt, size_t completion, size_t cached)
{
	jout_put(o, "\"usage\":{\"prompt_tokens\":");
	jout_uint(o, prompt);
	jout_put(o, ",\"total_tokens\":");
	jout_uint(o, prompt + completion);
	jout_put(o, ",\"completion_tokens\":");
	jout_uint(o, completion);
	jout_put(o, ",\"prompt_tokens_details\":{\"cached_tokens\":");
	jout_uint(o, cached);
	jout_put(o, "}}");
}

static void put_text(struct jout *o, struct span text)
{
	jout_put(o, "\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"");
}

void answer_prompt_logprobs(struct jout *o, const uint32_t *id, size_t n)
{
	jout_put(o, "[null");
	for (size_t i = 1; i < n; i++)
		jout_fmt(o, ",{\"%u\":{\"logprob\":-%u.%03u,\"rank\":1,\"decoded_token\":\"t%u\"}}",
			 id[i], id[i - 1] % 10, id[i] % 1000, id[i]);
	jout_put(o, "]");
}

void answer_choice(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		   const char *finish, struct span prompt_logprobs)
{
	jout_put(o, "{\"index\":");
	jout_uint(o, index);
	if (g->kind == GEN_CHAT) {
		jout_put(o, ",\"message\":{\"role\":\"assistant\",\"content\":");
		put_text(o, text);
		jout_put(o, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_"
			    "call\":null,"
			    "\"tool_calls\":[],\"reasoning_content\":null}");
	} else {
		jout_put(o, ",\"text\":");
		put_text(o, text);
	}
	jout_fmt(o, ",\"logprobs\":null,\"finish_reason\":\"%s\",\"stop_reason\":null", finish);
	if (g->kind != GEN_CHAT) {
		jout_put(o, ",\"prompt_logprobs\":");
		jout_raw(o, prompt_logprobs.p, prompt_logprobs.n);
	}
	jout_put(o, "}");
}

void answer_role(struct jout *o, size_t index)
{
	jout_put(o, "{\"index\":");
	jout_uint(o, index);
	jout_put(o, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
		    "\"finish_reason\":null}");
}

void answer_delta(struct jout *o, const struct gen_request *g, size_t index, struct span text,
		  const char *finish)
{
	jout_put(o, "{\"index\":");
	jout_uint(o, index);
	jout_put(o, g->kind == GEN_CHAT ? ",\"delta\":{\"content\":" : ",\"text\":");
	put_text(o, text);
	jout_put(o, g->kind == GEN_CHAT ? "},\"logprobs\":null,\"finish_reason\":"
					: ",\"logprobs\":null,\"finish_reason\":");
	if (finish)
		put_text(o, span_of(finish));
	else
		jout_put(o, "null");
	jout_put(o, finish || g->kind != GEN_CHAT ? ",\"stop_reason\":null}" : "}");
}

static float component(uint64_t *state)
{
	return (float)((double)(rng_splitmix(state) >> 40) * 0x1p-23 - 1.0);
}

static void put_base64(struct jout *o, uint64_t seed, size_t n)
{
	static const char digit[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	float *value = reallocarray(NULL, n, sizeof(*value));
	const unsigned char *p = (const unsigned char *)value;
	size_t bytes = n * sizeof(*value);

	if (!value) {
		o->err = PD_ENOMEM;
		return;
	}
	for (size_t d = 0; d < n; d++)
		value[d] = component(&seed);
	for (size_t i = 0; i < bytes; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < bytes ? (unsigned)p[i + 1] << 8 : 0) |
			     (i + 2 < bytes ? p[i + 2] : 0);
		char out[4] = {digit[v >> 18], digit[v >> 12 & 63],
			       i + 1 < bytes ? digit[v >> 6 & 63] : '=',
			       i + 2 < bytes ? digit[v & 63] : '='};

		jout_raw(o, out, sizeof(out));
	}
	free(value);
}

/* Components lie in [-1, 1) and depend on all tokens of the input; the vector is not normalised. */
void answer_embedding(struct jout *o, const struct gen_request *g, size_t index, uint64_t seed)
{
	jout_fmt(o, "{\"index\":%zu,\"object\":\"embedding\",\"embedding\":%s", index,
		 g->base64 ? "\"" : "[");
	if (g->base64)
		put_base64(o, seed, g->dimensions);
	else
		for (size_t d = 0; d < g->dimensions; d++)
			jout_fmt(o, "%s%.7f", d ? "," : "", (double)component(&seed));
	jout_put(o, g->base64 ? "\"}" : "]}");
}
