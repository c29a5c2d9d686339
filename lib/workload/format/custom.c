/* Prompts with or without more: vLLM's custom data set, InfiniLM's generators, and files of data
 * sets whose columns have the usual names. */
#include "lib/workload/format/formats.h"

static bool is_custom(const struct json_object *o)
{
	return json_object_get(o, "prompt") || json_object_get(o, "prompt_token_ids") ||
	       json_object_get(o, "input_ids");
}

const struct workload_format format_custom = {
	.name = "custom",
	.title = "`prompt` or token ids, `output_tokens`, members of request bodies",
	.marks = "`prompt`, `prompt_token_ids` or `input_ids`",
	.times = "ms",
	.origin = "`vllm bench serve --dataset-name custom`, guidellm",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.is = is_custom,
	.example = "{\"prompt\":\"hello one\",\"output_tokens\":5.0}\n"
		   "{\"prompt\":[1,2,3],\"output_tokens\":7,\"temperature\":0.7}\n",
};

static bool is_infinilm(const struct json_object *o)
{
	return (json_object_get(o, "prompt") || json_object_get(o, "messages")) &&
	       (json_object_get(o, "conversation_id") || json_object_get(o, "message_index") ||
		(json_object_get(o, "prompt_cache_key") && !json_object_get(o, "model")));
}

const struct workload_format format_infinilm = {
	.name = "infinilm",
	.title = "InfiniLM-SVC's generators: `prompt`, `messages`, a key, conversations",
	.marks = "`conversation_id`, `message_index` or `prompt_cache_key`",
	.times = "ms",
	.origin = "InfiniLM-SVC",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.is = is_infinilm,
	.example = "{\"prompt\":\"p\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
		   "\"prompt_cache_key\":\"conv_0\",\"conversation_id\":0,\"message_index\":0}\n",
};

static const struct field_rule columns[] = {
	{"question", FIELD_TEXT, TO_PROMPT, 1, 0},
	{"instruction", FIELD_TEXT, TO_PROMPT, 2, 0},
	{"input", FIELD_TEXT, TO_PROMPT, 3, 0},
	{"context", FIELD_TEXT, TO_PROMPT, 4, 0},
	{"content", FIELD_TEXT, TO_PROMPT, 5, 0},
	{"prompt_tokens_count", FIELD_COUNT, TO_INPUT, 3, 0},
	{"input_tokens_count", FIELD_COUNT, TO_INPUT, 4, 0},
	{"output_tokens_count", FIELD_COUNT, TO_OUTPUT, 6, 0},
	{"completion_tokens_count", FIELD_COUNT, TO_OUTPUT, 7, 0},
	{NULL, 0, 0, 0, 0}};

/* The first of the usual names is the prompt; the others are named as not used. */
static int read_columns(struct format_reader *rd, const struct json_object *o)
{
	struct workload_request r;
	bool taken = false;
	int err;

	format_request(rd, &r);
	err = format_fields(rd, o, &r);
	for (size_t i = 0; i < 5; i++)
		if (json_object_get(o, columns[i].name)) {
			if (taken)
				format_unused_member(rd, span_of(columns[i].name));
			taken = true;
		}
	return err ? err : format_add(rd, &r);
}

static bool is_columns(const struct json_object *o)
{
	for (size_t i = 0; i < 5; i++) {
		const struct json_member *m = json_object_get(o, columns[i].name);

		if (m && m->type == JSON_STRING)
			return true;
	}
	return false;
}

const struct workload_format format_columns = {
	.name = "columns",
	.title = "records of a data set; the first of these members is the prompt",
	.marks = "`question`, `instruction`, `input`, `context` or `content`, as a text",
	.origin = "guidellm's column names",
	.shape = FORMAT_JSON,
	.rules = columns,
	.is = is_columns,
	.object = read_columns,
	.example = "{\"question\":\"why?\",\"answer\":\"so\",\"output_tokens_count\":9}\n",
};
