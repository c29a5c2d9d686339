/*
 * Request bodies are built as text around the spans of the data set, which go out as they came in:
 * parsing and printing them again would change numbers and escapes, and with them the tokens that
 * the server counts.
 */
#include "lib/load/body.h"

#include <inttypes.h>
#include <string.h>

#include "lib/workload/synth.h"

struct body {
	const struct body_options *o;
	struct buf *out;
	int err;
};

static void put(struct body *b, const char *text)
{
	if (!b->err)
		b->err = buf_puts(b->out, text);
}

static void put_span(struct body *b, struct span s)
{
	if (!b->err)
		b->err = buf_append(b->out, s.p, s.n);
}

/* Begins a member unless the extra members bring their own. */
static bool member(struct body *b, const char *name)
{
	if (b->o->extra.n > 0 && json_object_get(&b->o->extra, name))
		return false;
	if (!b->err && b->out->data[b->out->len - 1] != '{')
		put(b, ", ");
	if (!b->err)
		b->err = buf_printf(b->out, "\"%s\": ", name);
	return true;
}

static bool is_text(const struct workload_request *r)
{
	return r->prompt.n > 0 && r->prompt.p[0] == '"';
}

int body_check(const struct body_options *o, const struct workload_request *r, struct pd_msg *msg)
{
	if (o->endpoint == BODY_CHAT && r->messages.n == 0 && r->prompt.n > 0 && !is_text(r))
		return pd_fail(msg, PD_EINVAL,
			       "line %u: a prompt that is a list cannot be sent as chat, expected "
			       "a text or messages",
			       r->line);
	if (o->endpoint != BODY_CHAT && r->prompt.n == 0 && r->messages.n > 0)
		return pd_fail(
			msg, PD_EINVAL,
			"line %u: messages without a prompt, which only /v1/chat/completions takes",
			r->line);
	return PD_OK;
}

int64_t body_output_tokens(const struct body_options *o, const struct workload_request *r)
{
	double scaled;

	if (o->output_tokens > 0)
		return o->output_tokens;
	if (r->output_tokens < 0)
		return o->default_output;
	if (r->prompt.n > 0 || r->messages.n > 0)
		return r->output_tokens > 0 ? r->output_tokens : 1;
	scaled = (double)r->output_tokens * o->scale;
	return scaled < 1 ? 1 : (int64_t)(scaled + 0.5);
}

/* The prompt as a JSON value: the record's own, or synthesised (letters and spaces, nothing to
 * escape). */
static void put_prompt(struct body *b, const struct workload_request *r)
{
	if (r->prompt.n > 0) {
		put_span(b, r->prompt);
		return;
	}
	put(b, "\"");
	if (!b->err)
		b->err = synth_prompt(b->out, r, b->o->scale, b->o->seed);
	put(b, "\"");
}

static void put_input(struct body *b, const struct workload_request *r)
{
	if (b->o->endpoint == BODY_CHAT) {
		if (!member(b, "messages"))
			return;
		if (r->messages.n > 0) {
			put_span(b, r->messages);
			return;
		}
		put(b, "[{\"role\": \"user\", \"content\": ");
		put_prompt(b, r);
		put(b, "}]");
	} else if (member(b, b->o->endpoint == BODY_EMBEDDINGS ? "input" : "prompt")) {
		put_prompt(b, r);
	}
}

static void put_generation(struct body *b, const struct workload_request *r)
{
	const struct body_options *o = b->o;

	if (member(b, "max_tokens") && !b->err)
		b->err = buf_printf(b->out, "%" PRId64, body_output_tokens(o, r));
	if (member(b, "temperature"))
		put(b, "0.0");
	if (o->ignore_eos && member(b, "ignore_eos"))
		put(b, "true");
	if (member(b, "stream"))
		put(b, o->stream ? "true" : "false");
	if (o->stream && member(b, "stream_options"))
		put(b, o->continuous_usage
			       ? "{\"include_usage\": true, \"continuous_usage_stats\": true}"
			       : "{\"include_usage\": true}");
}

static void put_key(struct body *b, const char *name, struct span key, const char *before,
		    const char *after)
{
	if (!member(b, name))
		return;
	put(b, before);
	if (!b->err)
		b->err = json_quote(b->out, key.p, key.n);
	put(b, after);
}

static void put_keys(struct body *b, struct span key)
{
	unsigned places = b->o->key_places;

	if (places & BODY_KEY_SESSION_PARAMS)
		put_key(b, "session_params", key, "{\"session_id\": ", "}");
	if (places & BODY_KEY_SESSION_ID)
		put_key(b, "session_id", key, "", "");
	if (places & BODY_KEY_USER)
		put_key(b, "user", key, "", "");
	if (places & BODY_KEY_PROMPT_CACHE_KEY)
		put_key(b, "prompt_cache_key", key, "", "");
}

static void put_extra(struct body *b)
{
	struct span inside = b->o->extra.text;

	if (b->o->extra.n == 0)
		return;
	put(b, ", ");
	put_span(b, (struct span){inside.p + 1, inside.n - 2});
}

int body_build(const struct body_options *o, const struct workload_request *r, struct span key,
	       struct buf *out)
{
	struct body b = {.o = o, .out = out};

	put(&b, "{");
	if (!b.err && member(&b, "model"))
		b.err = json_quote(out, o->model, strlen(o->model));
	if (key.n > 0)
		put_keys(&b, key);
	if (o->endpoint != BODY_EMBEDDINGS)
		put_generation(&b, r);
	if (!b.err)
		put_input(&b, r);
	if (b.err)
		return b.err;
	put_extra(&b);
	put(&b, "}");
	return b.err;
}
