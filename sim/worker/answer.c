/* Generated text is lower-case letters and spaces: no escapes. The members that differ from form to
 * form stand in tables; what a form has no word for is not there. */
#include "sim/worker/answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"

static void put_text(struct jout *o, struct span text)
{
	jout_put(o, "\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"");
}

/* -- whole answers -- */

static const char *const objects[GEN_KINDS] = {
	[GEN_CHAT] = "chat.completion", [GEN_COMPLETION] = "text_completion",
	[GEN_EMBEDDING] = "list",	[GEN_RESPONSES] = "response",
	[GEN_TOKENS] = "generate",
};

void answer_head(struct jout *o, const struct gen_request *g, bool chunk, int64_t created)
{
	jout_put(o, g->kind == GEN_TOKENS && chunk ? "\"request_id\":" : "\"id\":");
	jout_quote(o, span_of(g->id));
	if (g->kind == GEN_TOKENS && chunk)
		return;
	if (g->kind == GEN_MESSAGES)
		jout_put(o, ",\"type\":\"message\",\"role\":\"assistant\"");
	else
		jout_fmt(o, ",\"object\":\"%s%s\",\"created%s\":%" PRId64, objects[g->kind],
			 chunk && g->kind == GEN_CHAT ? ".chunk" : "",
			 g->kind == GEN_RESPONSES ? "_at" : "", created);
	jout_put(o, ",\"model\":");
	jout_quote(o, g->model);
}

void answer_list(struct jout *o, const struct gen_request *g)
{
	static const char *const list[GEN_KINDS] = {
		[GEN_CHAT] = "choices",	    [GEN_COMPLETION] = "choices", [GEN_EMBEDDING] = "data",
		[GEN_MESSAGES] = "content", [GEN_RESPONSES] = "output",	  [GEN_TOKENS] = "choices",
	};

	jout_fmt(o, ",\"%s\":[", list[g->kind]);
}

void answer_tail(struct jout *o, const struct gen_request *g, const char *finish)
{
	bool length = strcmp(finish, "length") == 0;

	if (g->kind == GEN_MESSAGES)
		jout_fmt(o, "],\"stop_reason\":\"%s\",\"stop_sequence\":null",
			 length ? "max_tokens" : "end_turn");
	else if (g->kind == GEN_RESPONSES)
		jout_fmt(o,
			 "],\"status\":\"%s\",\"incomplete_details\":%s,\"background\":false,"
			 "\"parallel_tool_calls\":true,\"tool_choice\":\"auto\",\"tools\":[],"
			 "\"temperature\":1.0,\"top_p\":1.0,\"service_tier\":\"auto\","
			 "\"truncation\":\"disabled\",\"previous_response_id\":null",
			 length ? "incomplete" : "completed",
			 length ? "{\"reason\":\"max_output_tokens\"}" : "null");
	else if (g->kind == GEN_TOKENS)
		jout_put(o, "]");
	else
		jout_put(o, "],\"service_tier\":null,\"system_fingerprint\":null");
}

static void put_count(struct jout *o, const char *before, size_t n)
{
	jout_put(o, before);
	jout_uint(o, n);
}

void answer_usage(struct jout *o, const struct gen_request *g, size_t prompt, size_t completion,
		  size_t cached)
{
	if (gen_has_events(g->kind)) {
		put_count(o, "\"usage\":{\"input_tokens\":", prompt);
		put_count(o, ",\"output_tokens\":", completion);
	}
	if (g->kind == GEN_MESSAGES) {
		put_count(o, ",\"cache_read_input_tokens\":", cached);
		jout_put(o, "}");
	} else if (g->kind == GEN_RESPONSES) {
		put_count(o, ",\"total_tokens\":", prompt + completion);
		put_count(o, ",\"input_tokens_details\":{\"cached_tokens\":", cached);
		jout_put(o, "},\"output_tokens_details\":{\"reasoning_tokens\":0}}");
	} else {
		put_count(o, "\"usage\":{\"prompt_tokens\":", prompt);
		put_count(o, ",\"total_tokens\":", prompt + completion);
		put_count(o, ",\"completion_tokens\":", completion);
		put_count(o, ",\"prompt_tokens_details\":{\"cached_tokens\":", cached);
		jout_put(o, "}}");
	}
}

/* -- logprobs -- */

/* Of token i, which is not the first. Some are not the likeliest: another one stands beside them.
 */
static void put_logprob(struct jout *o, const uint32_t *id, size_t i)
{
	jout_fmt(o, "-%u.%03u", id[i - 1] % 10, id[i] % 1000);
}

static bool is_likeliest(const uint32_t *id, size_t i)
{
	return id[i] % 4 != 0 || id[i - 1] % 10 == 0;
}

void answer_prompt_logprobs(struct jout *o, const uint32_t *id, size_t n)
{
	jout_put(o, "[null");
	for (size_t i = 1; i < n; i++) {
		jout_fmt(o, ",{\"%u\":{\"logprob\":", id[i]);
		put_logprob(o, id, i);
		jout_fmt(o, ",\"rank\":%d,\"decoded_token\":\"t%u\"}", is_likeliest(id, i) ? 1 : 2,
			 id[i]);
		if (!is_likeliest(id, i))
			jout_fmt(o,
				 ",\"%u\":{\"logprob\":-0.%03u,\"rank\":1,\"decoded_token\":"
				 "\"t%u\"}",
				 id[i] ^ 1, id[i] % 1000, id[i] ^ 1);
		jout_put(o, "}");
	}
	jout_put(o, "]");
}

void answer_ids_text(struct jout *o, const uint32_t *id, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jout_fmt(o, "%st%u", i ? " " : "", id[i]);
}

/* Those of a completion's tokens. Each is called by its id, as with return_tokens_as_token_ids. */
static void put_logprobs(struct jout *o, const struct answer_part *p)
{
	size_t offset = 0;

	jout_put(o, "{\"text_offset\":[");
	for (size_t i = p->from; i < p->to; i++) {
		put_count(o, i > p->from ? "," : "", offset);
		offset += (size_t)snprintf(NULL, 0, "t%u ", p->ids[i]);
	}
	jout_put(o, "],\"token_logprobs\":[");
	for (size_t i = p->from; i < p->to; i++) {
		jout_put(o, i > p->from ? "," : "");
		if (i == 0)
			jout_put(o, "null");
		else
			put_logprob(o, p->ids, i);
	}
	jout_put(o, "],\"tokens\":[");
	for (size_t i = p->from; i < p->to; i++)
		jout_fmt(o, "%s\"token_id:%u\"", i > p->from ? "," : "", p->ids[i]);
	jout_put(o, "],\"top_logprobs\":[");
	for (size_t i = p->from; i < p->to; i++) {
		jout_put(o, i > p->from ? "," : "");
		if (i == 0) {
			jout_put(o, "null");
			continue;
		}
		jout_fmt(o, "{\"token_id:%u\":", p->ids[i]);
		put_logprob(o, p->ids, i);
		if (!is_likeliest(p->ids, i))
			jout_fmt(o, ",\"token_id:%u\":-0.%03u", p->ids[i] ^ 1, p->ids[i] % 1000);
		jout_put(o, "}");
	}
	jout_put(o, "]}");
}

/* -- parts -- */

static void put_ids(struct jout *o, const struct answer_part *p)
{
	jout_put(o, "\"token_ids\":[");
	for (size_t i = p->from; i < p->to; i++)
		put_count(o, i > p->from ? "," : "", p->ids[i]);
	jout_put(o, "]");
}

/* ,"text":...,"logprobs":... */
static void put_completion(struct jout *o, const struct gen_request *g, const struct answer_part *p)
{
	jout_put(o, ",\"text\":\"");
	jout_raw(o, p->echo.p, p->echo.n);
	jout_raw(o, p->text.p, p->text.n);
	jout_put(o, "\",\"logprobs\":");
	if (g->logprobs)
		put_logprobs(o, p);
	else
		jout_put(o, "null");
}

void answer_choice(struct jout *o, const struct gen_request *g, size_t index,
		   const struct answer_part *p)
{
	if (g->kind == GEN_MESSAGES) {
		jout_put(o, "{\"type\":\"text\",\"text\":");
		put_text(o, p->text);
		jout_put(o, "}");
		return;
	}
	if (g->kind == GEN_RESPONSES) {
		jout_fmt(o,
			 "{\"id\":\"msg_%s\",\"type\":\"message\",\"role\":\"assistant\","
			 "\"status\":\"completed\",\"content\":[{\"type\":\"output_text\","
			 "\"annotations\":[],\"logprobs\":null,\"text\":",
			 g->id + 5);
		put_text(o, p->text);
		jout_put(o, "}]}");
		return;
	}
	put_count(o, "{\"index\":", index);
	if (g->kind == GEN_CHAT) {
		jout_put(o, ",\"message\":{\"role\":\"assistant\",\"content\":");
		put_text(o, p->text);
		jout_put(o, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_"
			    "call\":null,"
			    "\"tool_calls\":[],\"reasoning_content\":null},\"logprobs\":null");
	} else if (g->kind == GEN_COMPLETION) {
		put_completion(o, g, p);
	} else {
		jout_put(o, ",\"logprobs\":null,");
		put_ids(o, p);
	}
	jout_fmt(o, ",\"finish_reason\":\"%s\"", p->finish);
	if (g->kind != GEN_TOKENS)
		jout_put(o, ",\"stop_reason\":null");
	if (g->kind == GEN_COMPLETION) {
		jout_put(o, ",\"prompt_logprobs\":");
		jout_raw(o, p->prompt_logprobs.p, p->prompt_logprobs.n);
	}
	jout_put(o, "}");
}

/* -- events -- */

void answer_role(struct jout *o, size_t index)
{
	jout_put(o, "{\"index\":");
	jout_uint(o, index);
	jout_put(o, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
		    "\"finish_reason\":null}");
}

void answer_delta(struct jout *o, const struct gen_request *g, size_t index,
		  const struct answer_part *p)
{
	put_count(o, "{\"index\":", index);
	if (g->kind == GEN_CHAT) {
		jout_put(o, ",\"delta\":{\"content\":");
		put_text(o, p->text);
		jout_put(o, "},\"logprobs\":null");
	} else if (g->kind == GEN_COMPLETION) {
		put_completion(o, g, p);
	} else {
		jout_put(o, ",\"logprobs\":null,");
		put_ids(o, p);
	}
	jout_put(o, ",\"finish_reason\":");
	if (p->finish)
		put_text(o, span_of(p->finish));
	else
		jout_put(o, "null");
	jout_put(o, g->kind != GEN_TOKENS && (p->finish || g->kind != GEN_CHAT)
			    ? ",\"stop_reason\":null}"
			    : "}");
}

/* -- embeddings -- */

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
