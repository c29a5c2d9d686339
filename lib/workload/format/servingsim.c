/* LLMServingSim: flat requests, sessions of calls with tools between them, and the timings that it
 * ships as measured. */
#include "lib/workload/format/formats.h"

static bool is_flat(const struct json_object *o)
{
	return json_object_get(o, "input_toks") && json_object_get(o, "output_toks");
}

static bool is_measured(const struct json_object *o)
{
	return is_flat(o) && json_object_get(o, "arrival_time");
}

static bool is_sessions(const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "sub_requests");

	return m && m->type == JSON_ARRAY;
}

static const struct field_rule flat_rules[] = {{"output_tok_ids", FIELD_KNOWN, TO_NOTHING, 0, 0},
					       {NULL, 0, 0, 0, 0}};

const struct workload_format format_servingsim = {
	.name = "servingsim",
	.title = "lengths, or token ids",
	.marks = "`input_toks` and `output_toks`",
	.times = "ns",
	.origin = "casys-kaist/LLMServingSim",
	.shape = FORMAT_JSON,
	.rules = flat_rules,
	.is = is_flat,
	.example = "{\"input_toks\":7,\"output_toks\":8,\"arrival_time_ns\":9000000}\n",
};

static const struct field_rule measured_rules[] = {
	{"arrival_time", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_S},
	{"queued_ts", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"scheduled_ts", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"first_token_ts", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"last_token_ts", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{NULL, 0, 0, 0, 0}};

const struct workload_format format_servingsim_measured = {
	.name = "servingsim-measured",
	.title = "lengths and arrivals of a measured run; its timings are for --calibrate",
	.marks = "`input_toks`, `output_toks` and `arrival_time`",
	.times = "s since 1970",
	.origin = "casys-kaist/LLMServingSim bench/examples",
	.shape = FORMAT_JSON,
	.rules = measured_rules,
	.is = is_measured,
	.example = "{\"request_id\":0,\"input_toks\":30,\"output_toks\":4,\"arrival_time\":"
		   "1757000000.5,\"queued_ts\":1.5,\"scheduled_ts\":1.6,\"first_token_ts\":1.7,"
		   "\"last_token_ts\":1.9}\n",
};

static const struct field_rule call_rules[] = {{"tool_duration_ns", FIELD_KNOWN, TO_NOTHING, 0, 0},
					       {"output_tok_ids", FIELD_KNOWN, TO_NOTHING, 0, 0},
					       {NULL, 0, 0, 0, 0}};

static const struct field_rule session_rules[] = {{"sub_requests", FIELD_KNOWN, TO_NOTHING, 0, 0},
						  {NULL, 0, 0, 0, 0}};

/* The tool of a call runs between its answer and the next call. */
static int read_session(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *calls = json_object_get(o, "sub_requests");
	struct workload_request whole, r;
	struct span call, tool;
	enum json_type type;
	struct json_member m;
	int64_t pause = -1;
	size_t at = 0, n = 0;
	int err;

	format_request(rd, &whole);
	err = format_fields(rd, o, &whole);
	if (!err && whole.session.n == 0)
		err = format_line_session(rd, &whole.session);
	while (!err && json_array_next(calls->value, &at, &call, &type)) {
		size_t inner = 0;

		format_request(rd, &r);
		r.session = whole.session;
		r.key = whole.key;
		r.arrival_ns = whole.arrival_ns;
		r.delay_ns = pause;
		r.turn = (int64_t)n++;
		err = format_fields_of(rd, call_rules, false, call, &r);
		tool = SPAN("");
		while (!err && json_object_next(call, &inner, &m))
			if (m.type == JSON_NUMBER && json_member_is(&m, "tool_duration_ns"))
				tool = m.value;
		pause = -1;
		if (!err && tool.n > 0 && format_pause(tool, WORKLOAD_UNIT_NS, &pause))
			err = format_wrong(rd, tool.p,
					   "member \"tool_duration_ns\": expected a time in "
					   "nanoseconds, 0 or more");
		if (!err)
			err = format_add(rd, &r);
	}
	if (!err && n == 0)
		err = format_wrong(rd, calls->value.p,
				   "\"sub_requests\" is empty: expected a call");
	return err;
}

const struct workload_format format_servingsim_sessions = {
	.name = "servingsim-sessions",
	.title = "sessions of calls, tools run between them",
	.marks = "an array `sub_requests`",
	.times = "ns; `tool_duration_ns` is the think time of the next call",
	.origin = "casys-kaist/LLMServingSim",
	.shape = FORMAT_JSON,
	.rules = session_rules,
	.is = is_sessions,
	.object = read_session,
	.example =
		"{\"session_id\":\"s\",\"arrival_time_ns\":5,\"sub_requests\":[{\"input_toks\":30,"
		"\"output_toks\":4,\"tool_duration_ns\":1000000},{\"input_toks\":40,"
		"\"output_toks\":4,\"tool_duration_ns\":0}]}\n",
};
