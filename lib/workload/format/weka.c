/* Traces of coding agents: one object a conversation. Its hash ids are its own, so they are mixed
 * with its name. What a sub-agent asked stands between the calls around it, one after the other. */
#include "lib/base/rng.h"
#include "lib/workload/format/formats.h"

static const struct field_rule whole_rules[] = {{"id", FIELD_NAME, TO_SESSION, 0, 0},
						{"models", FIELD_KNOWN, TO_NOTHING, 0, 0},
						{"block_size", FIELD_COUNT, TO_BLOCK, 0, 0},
						{"hash_id_scope", FIELD_KNOWN, TO_NOTHING, 0, 0},
						{"requests", FIELD_KNOWN, TO_NOTHING, 0, 0},
						{"totals", FIELD_KNOWN, TO_NOTHING, 0, 0},
						{NULL, 0, 0, 0, 0}};

static const struct field_rule call_rules[] = {
	{"t", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_S},
	{"type", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"in", FIELD_COUNT, TO_INPUT, 0, 0},
	{"out", FIELD_COUNT, TO_OUTPUT, 0, 0},
	{"input_types", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"output_types", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"stop", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"api_time", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"ttft", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"think_time", FIELD_PAUSE, TO_DELAY, 0, WORKLOAD_UNIT_S},
	{NULL, 0, 0, 0, 0}};

#define NESTED_MAX 4 /* sub-agents of sub-agents */

static bool is_weka(const struct json_object *o)
{
	const struct json_member *list = json_object_get(o, "requests");

	return list && list->type == JSON_ARRAY && json_object_get(o, "block_size");
}

static uint64_t salt_of(struct span name)
{
	uint64_t salt = 0;

	for (size_t i = 0; i < name.n; i++) {
		salt ^= (unsigned char)name.p[i];
		(void)rng_splitmix(&salt);
		salt = rng_splitmix(&salt);
	}
	return salt;
}

static int read_calls(struct format_reader *rd, struct span list, struct workload_request *whole,
		      uint64_t salt, int depth)
{
	struct workload_request r;
	struct json_member m;
	struct span item;
	enum json_type type;
	size_t at = 0;
	int err = PD_OK;

	while (!err && json_array_next(list, &at, &item, &type)) {
		struct span nested = SPAN("");
		size_t inner = 0, first = rd->w->nids;

		while (type == JSON_OBJECT && json_object_next(item, &inner, &m))
			if (json_member_is(&m, "requests") && m.type == JSON_ARRAY)
				nested = m.value;
		if (nested.n > 0 && depth < NESTED_MAX) {
			err = format_note(rd, "calls of sub-agents are sent one after the other, "
					      "between those around them");
			if (!err)
				err = read_calls(rd, nested, whole, salt, depth + 1);
			continue;
		}
		format_request(rd, &r);
		r.session = whole->session;
		r.block_tokens = whole->block_tokens;
		err = format_fields_of(rd, call_rules, false, item, &r);
		for (size_t i = first; i < rd->w->nids; i++) {
			uint64_t state = rd->w->ids[i] ^ salt;

			rd->w->ids[i] = rng_splitmix(&state);
		}
		if (!err)
			err = format_add(rd, &r);
	}
	return err;
}

static int read_weka(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *scope = json_object_get(o, "hash_id_scope");
	struct workload_request whole;
	struct span session;
	uint64_t salt;
	int err;

	format_request(rd, &whole);
	err = format_fields(rd, o, &whole);
	if (!err && whole.session.n == 0)
		err = format_line_session(rd, &whole.session);
	if (!err)
		err = format_keep(rd, whole.session, &session);
	if (err)
		return err;
	whole.session = session;
	if (rd->opt.block_tokens)
		whole.block_tokens = rd->opt.block_tokens;
	salt = scope && span_eq(scope->value, SPAN("\"global\"")) ? 0 : salt_of(session);
	return read_calls(rd, json_object_get(o, "requests")->value, &whole, salt, 0);
}

const struct workload_format format_weka = {
	.name = "weka",
	.title = "conversations of coding agents: lengths and hash ids of `block_size` tokens",
	.marks = "`requests` and `block_size`",
	.times = "s; `think_time` s",
	.origin = "callanjfox/agentic-coding-analysis TRACE_FORMAT; AIPerf, guidellm",
	.shape = FORMAT_JSON,
	.block_tokens = 64,
	.rules = whole_rules,
	.is = is_weka,
	.object = read_weka,
	.example = "{\"id\":\"c\",\"models\":[\"m\"],\"block_size\":64,\"hash_id_scope\":\"local\","
		   "\"requests\":[{\"t\":0.5,\"type\":\"n\",\"model\":\"m\",\"in\":130,\"out\":5,"
		   "\"hash_ids\":[1,2]},{\"t\":9.0,\"type\":\"s\",\"model\":\"m\",\"in\":200,"
		   "\"out\":6,\"hash_ids\":[1,2,3],\"think_time\":1.5}]}\n",
};
