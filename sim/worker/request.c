/*
 * Types and limits as vLLM checks them. Sampling
 * parameters that would not change the simulated text (temperature, top_p, tool_choice, ...) are
 * accepted and ignored.
 */
#include "sim/worker/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "sim/worker/prompt.h"

int gen_request_model(struct gen_request *g, const struct worker_config *cfg, struct api_error *e)
{
	const struct json_member *m = json_object_get(&g->body, "model");
	struct buf name;
	int err = PD_ENOENT;

	g->model = span_of(cfg->models[0]);
	if (!m || m->type == JSON_NULL)
		return PD_OK;
	if (m->type != JSON_STRING)
		return api_fail(e, 400, "model", "model: Input should be a valid string");
	buf_init(&name, 4096);
	if (json_string_decode(m->value, &name) == PD_OK)
		for (size_t i = 0; err && i < cfg->nmodels; i++)
			if (span_eq(buf_span(&name), span_of(cfg->models[i]))) {
				g->model = span_of(cfg->models[i]);
				err = PD_OK;
			}
	if (err) {
		err = api_fail(e, 404, "model", "The model `%.*s` does not exist.",
			       (int)(name.len < 200 ? name.len : 200), name.data ? name.data : "");
		e->type = "NotFoundError";
	}
	buf_release(&name);
	return err;
}

/* A member that is present and not null. */
static const struct json_member *given(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type != JSON_NULL ? m : NULL;
}

static int read_bool(const struct json_object *o, const char *name, bool *out, struct api_error *e)
{
	const struct json_member *m = given(o, name);

	if (!m)
		return PD_OK;
	if (m->type != JSON_TRUE && m->type != JSON_FALSE)
		return api_fail(e, 400, name, "%s: Input should be a valid boolean", name);
	*out = m->type == JSON_TRUE;
	return PD_OK;
}

/* An integer of at least `min`; *out stays as it is when the member is absent. */
static int read_count(const struct json_object *o, const char *name, int64_t min, int64_t max,
		      int64_t *out, struct api_error *e)
{
	const struct json_member *m = given(o, name);

	if (!m)
		return PD_OK;
	if (m->type != JSON_NUMBER || json_int(m->value, out) != PD_OK)
		return api_fail(e, 400, name, "%s: Input should be a valid integer", name);
	if (*out < min)
		return api_fail(e, 400, name, "%s must be at least %lld, got %lld.", name,
				(long long)min, (long long)*out);
	if (*out > max)
		return api_fail(e, 400, name, "%s must be at most %lld, got %lld.", name,
				(long long)max, (long long)*out);
	return PD_OK;
}

/* What the fields are called in the form of the request; NULL: it has none. */
static const struct names {
	const char *id; /* of the answer's id */
	const char *max, *completion, *min, *n, *stop;
} names[GEN_KINDS] = {
	[GEN_CHAT] = {"chatcmpl", "max_tokens", "max_completion_tokens", "min_tokens", "n", "stop"},
	[GEN_COMPLETION] = {"cmpl", "max_tokens", NULL, "min_tokens", "n", "stop"},
	[GEN_EMBEDDING] = {.id = "embd"},
	[GEN_MESSAGES] = {"chatcmpl", "max_tokens", NULL, NULL, NULL, "stop_sequences"},
	[GEN_RESPONSES] = {"resp", "max_output_tokens", NULL, NULL, NULL, "stop"},
	[GEN_TOKENS] = {"generate-tokens", "max_tokens", NULL, "min_tokens", "n", NULL},
};

bool gen_has_events(enum gen_kind kind)
{
	return kind == GEN_MESSAGES || kind == GEN_RESPONSES;
}

bool gen_is_chat(enum gen_kind kind)
{
	return kind == GEN_CHAT || gen_has_events(kind);
}

static int count_of(const struct json_object *o, const char *name, int64_t min, int64_t max,
		    int64_t *out, struct api_error *e)
{
	return name ? read_count(o, name, min, max, out, e) : PD_OK;
}

/* `o`: where the sampling parameters are. */
static int read_limits(struct gen_request *g, const struct json_object *o, struct api_error *e)
{
	const struct names *is = &names[g->kind];
	int64_t max = g->echo ? -1 : 0, completion = 0, min = 0, n = 1;
	int err = count_of(o, is->max, g->echo ? 0 : 1, INT32_MAX, &max, e);

	g->only_echo = g->echo && max == 0;
	if (!err)
		err = count_of(o, is->completion, 1, INT32_MAX, &completion, e);
	if (!err)
		err = count_of(o, is->min, 0, INT32_MAX, &min, e);
	if (!err)
		err = count_of(o, is->n, 1, REQUEST_N_MAX, &n, e);
	max = g->only_echo ? 1 : max < 0 ? 0 : max;
	g->max_tokens = (size_t)(completion > 0 ? completion : max);
	g->n = (unsigned)n;
	if (!err && g->max_tokens > 0 && (size_t)min > g->max_tokens)
		err = api_fail(e, 400, "min_tokens",
			       "min_tokens must be less than or equal to max_tokens=%zu, got %lld.",
			       g->max_tokens, (long long)min);
	if (!err && g->kind == GEN_MESSAGES && g->max_tokens == 0)
		err = api_fail(e, 400, "max_tokens", "max_tokens: Field required");
	return err;
}

static int read_stream(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = given(&g->body, "stream_options");
	struct json_object o;
	int err = read_bool(&g->body, "stream", &g->stream, e);

	if (err || !m || gen_has_events(g->kind))
		return err;
	if (!g->stream)
		return api_fail(e, 400, "stream_options",
				"Stream options can only be defined when `stream=True`.");
	if (m->type != JSON_OBJECT || json_object_scan(&o, m->value.p, m->value.n, NULL) != PD_OK)
		return api_fail(e, 400, "stream_options",
				"stream_options: Input should be a valid dictionary");
	err = read_bool(&o, "include_usage", &g->include_usage, e);
	if (!err)
		err = read_bool(&o, "continuous_usage_stats", &g->continuous_usage, e);
	g->continuous_usage &= g->include_usage;
	json_object_release(&o);
	return err;
}

static int add_stop(struct gen_request *g, struct span text)
{
	size_t before = g->stop_text.len;

	if (g->nstops == REQUEST_STOP_MAX || json_string_decode(text, &g->stop_text) != PD_OK)
		return PD_ETOOBIG;
	if (g->stop_text.len > before)
		g->stop_len[g->nstops++] = g->stop_text.len - before;
	return PD_OK;
}

static int read_stop(struct gen_request *g, struct api_error *e)
{
	const char *name = names[g->kind].stop;
	const struct json_member *m = name ? given(&g->body, name) : NULL;
	enum json_type type;
	struct span value;
	size_t at = 0;
	int err = PD_OK;

	if (!m)
		return PD_OK;
	if (m->type == JSON_STRING)
		err = add_stop(g, m->value);
	else if (m->type != JSON_ARRAY)
		err = PD_EINVAL;
	else
		while (!err && json_array_next(m->value, &at, &value, &type))
			err = type == JSON_STRING ? add_stop(g, value) : PD_EINVAL;
	if (err)
		return api_fail(e, 400, name, "%s: expected a string or at most %d strings", name,
				REQUEST_STOP_MAX);
	return PD_OK;
}

static int read_kv(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = given(&g->body, "kv_transfer_params"), *f;
	struct kv_params *kv = &g->kv;
	struct json_object o;

	if (!m)
		return PD_OK;
	if (m->type != JSON_OBJECT || json_object_scan(&o, m->value.p, m->value.n, NULL) != PD_OK)
		return api_fail(e, 400, "kv_transfer_params",
				"kv_transfer_params: Input should be a valid dictionary");
	kv->object = m->value;
	kv->present = o.n > 0;
	f = json_object_get(&o, "do_remote_decode");
	kv->do_remote_decode = f && f->type == JSON_TRUE;
	f = json_object_get(&o, "do_remote_prefill");
	kv->do_remote_prefill = f && f->type == JSON_TRUE;
	json_object_release(&o);
	return PD_OK;
}

static int read_embedding(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = given(&g->body, "encoding_format");
	int64_t dimensions = 64;
	int err = read_count(&g->body, "dimensions", 1, 8192, &dimensions, e);

	g->dimensions = (size_t)dimensions;
	if (err || !m)
		return err;
	g->base64 = m->type == JSON_STRING && span_eq(m->value, SPAN("\"base64\""));
	if (!g->base64 && !(m->type == JSON_STRING && span_eq(m->value, SPAN("\"float\""))))
		return api_fail(e, 400, "encoding_format",
				"encoding_format: Input should be 'float' or 'base64'");
	return PD_OK;
}

/* Those of the prompt, and beam search, which is answered like n. */
static int read_sampling(struct gen_request *g, const struct json_object *o, struct api_error *e)
{
	int64_t logprobs = -2;
	int err = read_count(o, "prompt_logprobs", -1, INT32_MAX, &logprobs, e);

	if (!err)
		err = read_bool(o, "use_beam_search", &g->beam_search, e);
	g->prompt_logprobs = logprobs > -2;
	if (!err && g->prompt_logprobs && g->stream)
		err = api_fail(e, 400, "prompt_logprobs",
			       "`prompt_logprobs` are not available when `stream=True`.");
	return err;
}

/* A completion may begin with its prompt; with logprobs those of the prompt come along. */
static int read_completion(struct gen_request *g, struct api_error *e)
{
	int64_t logprobs = -1;
	int err = read_bool(&g->body, "echo", &g->echo, e);

	if (!err)
		err = read_count(&g->body, "logprobs", 0, INT32_MAX, &logprobs, e);
	g->logprobs = logprobs >= 0;
	return err;
}

/* What a server without a store of responses does not know, and what is not simulated. */
static int read_response(struct gen_request *g, struct api_error *e)
{
	const struct json_member *id = given(&g->body, "previous_response_id");
	bool background = false;
	int err = read_bool(&g->body, "background", &background, e);

	if (!err && background)
		err = api_fail(e, 400, "background", "background is not simulated by this worker");
	if (!err && id)
		err = api_fail(e, 404, "previous_response_id", "Response with id %.*s not found.",
			       (int)(id->value.n < 200 ? id->value.n : 200), id->value.p);
	return err;
}

/* The rest of it: `o` has the sampling parameters. */
static int read_parameters(struct gen_request *g, const struct json_object *o, struct api_error *e)
{
	int err = g->kind == GEN_COMPLETION ? read_completion(g, e) : PD_OK;

	if (!err)
		err = read_limits(g, o, e);
	if (!err)
		err = read_stream(g, e);
	if (!err && !gen_has_events(g->kind))
		err = read_sampling(g, o, e);
	g->prompt_logprobs |= g->echo && g->logprobs;
	return err ? err : read_stop(g, e);
}

/* Those of /inference/v1/generate are an object of their own. */
static int read_nested(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = given(&g->body, "sampling_params");
	struct json_object o;
	int err;

	if (!m)
		return api_fail(e, 400, "sampling_params", "sampling_params: Field required");
	if (m->type != JSON_OBJECT || json_object_scan(&o, m->value.p, m->value.n, NULL) != PD_OK)
		return api_fail(e, 400, "sampling_params",
				"sampling_params: Input should be a valid dictionary");
	err = read_parameters(g, &o, e);
	json_object_release(&o);
	return err;
}

static int read_generation(struct gen_request *g, struct api_error *e)
{
	const struct json_member *m = given(&g->body, "cache_salt");
	int err = g->kind == GEN_TOKENS ? read_nested(g, e) : read_parameters(g, &g->body, e);

	if (!err && g->kind == GEN_RESPONSES)
		err = read_response(g, e);
	if (!err)
		err = read_kv(g, e);
	if (!err && m && (m->type != JSON_STRING || m->value.n == 2))
		err = api_fail(e, 400, "cache_salt",
			       "Parameter 'cache_salt' must be a non-empty string if provided.");
	if (!err && m)
		g->salt = XXH3_64bits(m->value.p, m->value.n);
	return err;
}

/* vLLM's rule: "chatcmpl-" or "cmpl-" and the client's X-Request-Id, or a random id when there is
 * none. */
static void make_id(struct core *ids, const struct http_request *r, struct gen_request *g)
{
	const struct field *f = http_field_tag(&r->head, HTTP_X_REQUEST_ID);
	const char *prefix = names[g->kind].id;

	if (f && f->value.n > 0) {
		g->xid = f->value;
		if (g->xid.n > REQUEST_ID_MAX)
			g->xid.n = REQUEST_ID_MAX;
	}
	/* A response is asked for again by its id, which is new each time. */
	if (g->xid.n > 0 && g->kind != GEN_RESPONSES)
		(void)snprintf(g->id, sizeof(g->id), "%s-%.*s", prefix, (int)g->xid.n, g->xid.p);
	else
		(void)snprintf(g->id, sizeof(g->id), "%s%c%.8s%016llx", prefix,
			       g->kind == GEN_RESPONSES ? '_' : '-', ids->id,
			       (unsigned long long)atomic_fetch_add(&ids->next, 1));
}

int gen_request_parse(struct gen_request *g, const struct worker_config *cfg, struct core *ids,
		      const struct http_request *r, enum gen_kind kind, struct api_error *e)
{
	struct pd_msg msg = {0};
	int err;

	*g = (struct gen_request){.kind = kind, .n = 1};
	buf_init(&g->stop_text, 65536);
	make_id(ids, r, g);
	err = api_check_json(r, e);
	if (err)
		return err;
	err = json_object_scan(&g->body, r->body.p, r->body.n, &msg);
	if (err)
		return api_fail(e, err == PD_ETOOBIG ? 413 : 400, NULL, "JSON decode error: %s",
				msg.text);
	err = gen_request_model(g, cfg, e);
	if (!err)
		err = kind == GEN_EMBEDDING ? read_embedding(g, e) : read_generation(g, e);
	return err ? err : prompt_parse(g, cfg->max_model_len, e);
}

void gen_request_release(struct gen_request *g)
{
	json_object_release(&g->body);
	tokens_release(&g->tokens);
	buf_release(&g->stop_text);
	free(g->prompt);
}
