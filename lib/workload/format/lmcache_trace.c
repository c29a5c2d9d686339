/* Agent traces with their real texts: `input` is the whole prompt, `output` the answer, of which
 * only the length is used. */
#include "lib/workload/format/formats.h"

static const struct field_rule rules[] = {
	{"timestamp", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_US},
	{"input", FIELD_TEXT, TO_PROMPT, 0, 0},
	{"output", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{NULL, 0, 0, 0, 0}};

static bool is_lmcache(const struct json_object *o)
{
	const struct json_member *in = json_object_get(o, "input"),
				 *out = json_object_get(o, "output");

	return in && out && in->type == JSON_STRING && out->type == JSON_STRING &&
	       (json_object_get(o, "session_id") || json_object_get(o, "timestamp"));
}

static int read_call(struct format_reader *rd, const struct json_object *o)
{
	struct workload_request r;
	int err;

	format_request(rd, &r);
	err = format_fields(rd, o, &r);
	if (!err && r.output_tokens < 0) {
		r.output_tokens = format_estimate(json_object_get(o, "output")->value);
		err = format_note(rd, FORMAT_ESTIMATED_OUTPUT);
	}
	return err ? err : format_add(rd, &r);
}

const struct workload_format format_lmcache = {
	.name = "lmcache",
	.title = "calls of agents with their texts and sessions",
	.marks = "texts `input` and `output`, with `session_id` or `timestamp`",
	.times = "us",
	.origin = "LMCache agent traces",
	.shape = FORMAT_JSON,
	.rules = rules,
	.is = is_lmcache,
	.object = read_call,
	.example = "{\"timestamp\":1000,\"input\":\"hello world\",\"output\":\"hello\","
		   "\"session_id\":\"ab\"}\n",
};
