/* Traces of lengths and prefix blocks, with the members that AIPerf and Dynamo add. */
#include "lib/workload/format/formats.h"

static const struct field_rule rules[] = {{"text_input", FIELD_TEXT, TO_PROMPT, 1, 0},
					  {"extra", FIELD_MERGE, TO_NOTHING, 0, 0},
					  {"output_token_ids", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"message_mode", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {NULL, 0, 0, 0, 0}};

static bool is_mooncake(const struct json_object *o)
{
	return json_object_get(o, "input_length") || json_object_get(o, "hash_ids") ||
	       json_object_get(o, "text_input");
}

const struct workload_format format_mooncake = {
	.name = "mooncake",
	.title = "lengths and hash ids of blocks of 512 tokens, or texts; also `session_id`, "
		 "`delay`, "
		 "`extra`",
	.marks = "`input_length`, `hash_ids` or `text_input`",
	.times = "ms; `delay` ms",
	.origin = "kvcache-ai/Mooncake; AIPerf mooncake_trace; Dynamo; guidellm trace types",
	.shape = FORMAT_JSON,
	.block_tokens = 512,
	.rules = rules,
	.is = is_mooncake,
	.example =
		"{\"timestamp\":0,\"input_length\":1025,\"output_length\":5,\"hash_ids\":[0,1,2]}\n"
		"{\"timestamp\":3000,\"input_length\":600,\"output_length\":9,\"hash_ids\":[0,3],"
		"\"session_id\":\"s\",\"delay\":100}\n",
};
