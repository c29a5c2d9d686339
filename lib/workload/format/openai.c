/*
 * Bodies of requests, alone or in batch files. `messages`, `prompt` or `input` and the length of
 * the output are taken, the model and streaming are the run's, and every other member is sent as it
 * is.
 */
#include "lib/workload/format/formats.h"

static const struct field_rule rules[] = {
	{"input", FIELD_PROMPT, TO_PROMPT, 1, 0},
	{"session_id", FIELD_BODY, TO_NOTHING, 0, 0},
	{"prompt_cache_key", FIELD_NAME, TO_KEY, 0, 0},
	{"turn", FIELD_BODY, TO_NOTHING, 0, 0},
	{"timestamp", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_MS},
	{NULL, 0, 0, 0, 0}};

static bool array_of_objects(struct span list)
{
	enum json_type type;
	struct span item;
	size_t at = 0;

	return list.n > 0 && list.p[0] == '[' && json_array_next(list, &at, &item, &type) &&
	       type == JSON_OBJECT;
}

/* `input` of /v1/responses may be a list of messages. */
static int add_body(struct format_reader *rd, struct workload_request *r)
{
	if (r->messages.n == 0 && array_of_objects(r->prompt)) {
		r->messages = r->prompt;
		r->prompt = SPAN("");
	}
	return format_add(rd, r);
}

static int read_body(struct format_reader *rd, const struct json_object *o)
{
	struct workload_request r;
	int err;

	format_request(rd, &r);
	err = format_fields_of(rd, rules, json_object_get(o, "model") != NULL, o->text, &r);
	return err ? err : add_body(rd, &r);
}

static bool has(const struct json_object *o, const char *name)
{
	return json_object_get(o, name) != NULL;
}

static bool is_openai(const struct json_object *o)
{
	if (has(o, "messages"))
		return true;
	if (has(o, "input"))
		return has(o, "model") || has(o, "instructions") || has(o, "max_output_tokens") ||
		       has(o, "encoding_format");
	return has(o, "prompt") && has(o, "model");
}

const struct workload_format format_openai = {
	.name = "openai",
	.title = "bodies of chat, completions, responses, embeddings and Anthropic messages",
	.marks = "`messages`; or `prompt` or `input` with `model`",
	.origin = "OpenAI and Anthropic API references; SGLang openai; AIPerf raw payloads",
	.shape = FORMAT_JSON,
	.rules = rules,
	.is = is_openai,
	.object = read_body,
	.example = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[{\"type\":"
		   "\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],\"temperature\":"
		   "0.2,\"max_tokens\":7}\n",
};

/* ---- batches ---- */

static int set_endpoint(struct format_reader *rd, const struct json_member *url)
{
	struct workload *w = rd->w;
	struct span path;
	int err;

	if (!url)
		return PD_OK;
	if (url->type != JSON_STRING || url->value.n < 3 || url->value.p[1] != '/')
		return format_wrong(
			rd, url->value.p,
			"member \"url\": expected a path such as \"/v1/chat/completions\"");
	path = (struct span){url->value.p + 1, url->value.n - 2};
	if (w->endpoint.n > 0)
		return span_eq(path, w->endpoint)
			       ? PD_OK
			       : format_wrong(rd, url->value.p,
					      "member \"url\": the records before have %.*s: "
					      "expected one endpoint in a file",
					      (int)w->endpoint.n, w->endpoint.p);
	err = format_keep(rd, path, &w->endpoint);
	return err ? err
		   : format_note(rd, "the requests are for %.*s", path.n < 100 ? (int)path.n : 100,
				 path.p);
}

static int read_inner(struct format_reader *rd, const struct json_member *body)
{
	struct workload_request r;
	int err;

	format_request(rd, &r);
	err = format_fields_of(rd, rules, true, body->value, &r);
	return err ? err : add_body(rd, &r);
}

static void note_others(struct format_reader *rd, const struct json_object *o,
			const char *const *known)
{
	for (size_t i = 0; i < o->n; i++) {
		bool found = false;

		for (size_t k = 0; known[k]; k++)
			found |= json_member_is(&o->member[i], known[k]);
		if (!found)
			format_unused_member(rd, o->member[i].key);
	}
}

static bool is_openai_batch(const struct json_object *o)
{
	const struct json_member *body = json_object_get(o, "body");

	return has(o, "custom_id") && body && body->type == JSON_OBJECT;
}

static int read_openai_batch(struct format_reader *rd, const struct json_object *o)
{
	static const char *const known[] = {"custom_id", "method", "url", "body", NULL};
	const struct json_member *body = json_object_get(o, "body");
	int err;

	if (!body)
		return format_wrong(rd, rd->record.p, "record without a \"body\"");
	note_others(rd, o, known);
	err = set_endpoint(rd, json_object_get(o, "url"));
	return err ? err : read_inner(rd, body);
}

const struct workload_format format_openai_batch = {
	.name = "openai-batch",
	.title = "an OpenAI batch file",
	.marks = "`custom_id` and an object `body`",
	.origin = "OpenAI Batch API; vLLM run_batch",
	.shape = FORMAT_JSON,
	.is = is_openai_batch,
	.object = read_openai_batch,
	.example =
		"{\"custom_id\":\"r-1\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\","
		"\"body\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
		"\"max_tokens\":9}}\n",
};

static const struct json_member *array_of(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_ARRAY ? m : NULL;
}

static bool is_anthropic_item(const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "params");

	return has(o, "custom_id") && m && m->type == JSON_OBJECT;
}

static bool is_anthropic_batch(const struct json_object *o)
{
	const struct json_member *list = array_of(o, "requests");
	struct json_object item;
	enum json_type type;
	struct span first;
	size_t at = 0;
	bool is;

	if (is_anthropic_item(o))
		return true;
	if (!list || !json_array_next(list->value, &at, &first, &type) || type != JSON_OBJECT ||
	    json_object_scan(&item, first.p, first.n, NULL))
		return false;
	is = is_anthropic_item(&item);
	json_object_release(&item);
	return is;
}

static int read_anthropic_item(struct format_reader *rd, const struct json_object *o)
{
	static const char *const known[] = {"custom_id", "params", NULL};
	const struct json_member *params = json_object_get(o, "params");

	if (!params)
		return format_wrong(rd, o->text.p, "record without \"params\"");
	note_others(rd, o, known);
	return read_inner(rd, params);
}

/* Each object of an array by itself. */
static int read_items(struct format_reader *rd, const struct json_member *list,
		      int (*read)(struct format_reader *, const struct json_object *))
{
	struct json_object item;
	enum json_type type;
	struct span value;
	size_t at = 0;
	int err = PD_OK;

	while (!err && json_array_next(list->value, &at, &value, &type)) {
		err = type == JSON_OBJECT ? json_object_scan(&item, value.p, value.n, NULL)
					  : PD_EINVAL;
		if (err)
			return err == PD_ENOMEM ? err
						: format_wrong(rd, value.p, "expected an object");
		err = read(rd, &item);
		json_object_release(&item);
	}
	return err;
}

static int read_anthropic_batch(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *list = array_of(o, "requests");

	return list ? read_items(rd, list, read_anthropic_item) : read_anthropic_item(rd, o);
}

const struct workload_format format_anthropic_batch = {
	.name = "anthropic-batch",
	.title = "an Anthropic message batch, whole or its items as lines",
	.marks = "`custom_id` and an object `params`, also in an array `requests`",
	.origin = "Anthropic Message Batches API",
	.shape = FORMAT_JSON,
	.is = is_anthropic_batch,
	.object = read_anthropic_batch,
	.example =
		"{\"requests\":[{\"custom_id\":\"a\",\"params\":{\"model\":\"m\",\"max_tokens\":9,"
		"\"system\":\"be "
		"brief\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}]}\n",
};

/* ---- AIPerf's inputs.json ---- */

static bool is_inputs(const struct json_object *o)
{
	const struct json_member *list = array_of(o, "data");
	struct json_object item;
	enum json_type type;
	struct span first;
	size_t at = 0;
	bool is;

	if (array_of(o, "payloads"))
		return true;
	if (!list || !json_array_next(list->value, &at, &first, &type) || type != JSON_OBJECT ||
	    json_object_scan(&item, first.p, first.n, NULL))
		return false;
	is = array_of(&item, "payloads") != NULL;
	json_object_release(&item);
	return is;
}

static int read_payloads(struct format_reader *rd, const struct json_object *o)
{
	static const char *const known[] = {"session_id", "payloads", NULL};
	const struct json_member *list = array_of(o, "payloads"),
				 *id = json_object_get(o, "session_id");
	struct workload_request r;
	enum json_type type;
	struct span value, session = SPAN("");
	size_t at = 0;
	int64_t turn = 0;
	int err = PD_OK;

	if (!list)
		return format_wrong(rd, o->text.p, "record without an array \"payloads\"");
	note_others(rd, o, known);
	if (id && id->type == JSON_STRING)
		session = (struct span){id->value.p + 1, id->value.n - 2};
	while (!err && json_array_next(list->value, &at, &value, &type)) {
		format_request(rd, &r);
		err = format_fields_of(rd, rules, true, value, &r);
		r.session = session;
		r.turn = session.n > 0 ? turn++ : -1;
		err = err ? err : add_body(rd, &r);
	}
	return err;
}

static int read_inputs(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *list = array_of(o, "data");

	return list ? read_items(rd, list, read_payloads) : read_payloads(rd, o);
}

const struct workload_format format_aiperf_inputs = {
	.name = "aiperf-inputs",
	.title = "the bodies that AIPerf or GenAI-Perf sent, by session",
	.marks = "arrays `payloads`, also in an array `data`",
	.origin = "AIPerf inputs.json",
	.shape = FORMAT_JSON,
	.is = is_inputs,
	.object = read_inputs,
	.example = "{\"data\":[{\"session_id\":\"s\",\"payloads\":[{\"model\":\"m\",\"messages\":[{"
		   "\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":3}]}]}\n",
};
