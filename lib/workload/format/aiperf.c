/* AIPerf's own kinds of data sets, and the questions of SpecBench, whose turns are texts. */
#include "lib/workload/format/talk.h"
#include "lib/workload/format/formats.h"

/* `texts` are the parts of one message. */
static int content_of(struct format_reader *rd, struct span list, struct buf *out)
{
	enum json_type type;
	struct span item;
	size_t at = 0;
	int err;

	buf_clear(out);
	err = buf_putc(out, '[');
	while (!err && json_array_next(list, &at, &item, &type)) {
		if (type != JSON_STRING)
			return format_wrong(rd, item.p, "member \"texts\": expected texts");
		err = buf_printf(out, "%s{\"type\":\"text\",\"text\":", out->len > 1 ? "," : "");
		if (!err)
			err = buf_append(out, item.p, item.n);
		if (!err)
			err = buf_putc(out, '}');
	}
	return err ? err : buf_putc(out, ']');
}

static const struct field_rule rules[] = {{"text", FIELD_TEXT, TO_PROMPT, 0, 0},
					  {"texts", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"type", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"role", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"extra", FIELD_MERGE, TO_NOTHING, 0, 0},
					  {"turns", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"question_id", FIELD_NAME, TO_SESSION, 5, 0},
					  {"category", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {NULL, 0, 0, 0, 0}};

/* The message of a turn: its text, or the parts of its texts. */
static int turn_content(struct format_reader *rd, struct span object, struct span text,
			struct buf *parts, struct span *out)
{
	struct json_member m;
	size_t at = 0;

	*out = text;
	while (text.n == 0 && json_object_next(object, &at, &m))
		if (json_member_is(&m, "texts") && m.type == JSON_ARRAY) {
			int err = content_of(rd, m.value, parts);

			*out = buf_span(parts);
			return err;
		}
	return out->n > 0 ? PD_OK
			  : format_wrong(rd, object.p,
					 "turn without a text: expected \"text\" or \"texts\"");
}

static int read_single(struct format_reader *rd, const struct json_object *o)
{
	struct workload_request r;
	struct span content = SPAN("");
	struct buf parts;
	struct talk t;
	int err;

	buf_init(&parts, WORKLOAD_LINE_MAX * 2);
	format_request(rd, &r);
	err = format_fields(rd, o, &r);
	if (!err)
		err = turn_content(rd, o->text, r.prompt, &parts, &content);
	if (!err && r.prompt.n > 0) {
		err = format_add(rd, &r);
	} else if (!err) {
		err = talk_begin(&t, rd);
		if (!err)
			err = talk_say(&t, "user", content);
		if (!err)
			err = talk_ask(&t, &r);
	}
	buf_release(&parts);
	return err;
}

static bool is_single(const struct json_object *o)
{
	const struct json_member *text = json_object_get(o, "text"),
				 *texts = json_object_get(o, "texts");

	return (text && text->type == JSON_STRING) || (texts && texts->type == JSON_ARRAY);
}

const struct workload_format format_aiperf_single = {
	.name = "aiperf",
	.title = "single turns and random pools of AIPerf: `text` or `texts`, `extra`",
	.marks = "`text` or `texts`",
	.times = "ms; `delay` ms",
	.origin = "AIPerf single_turn, random_pool",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.rules = rules,
	.is = is_single,
	.object = read_single,
	.example = "{\"text\":\"hi\",\"output_length\":4}\n{\"texts\":[\"a\",\"b\"],\"timestamp\":"
		   "5}\n",
};

/* Each turn carries the texts of the turns before it; what was answered is the server's to know. */
static int read_turns(struct format_reader *rd, struct span list, struct workload_request *whole)
{
	struct workload_request r;
	struct span item, content;
	enum json_type type;
	struct buf parts;
	struct talk t;
	size_t at = 0;
	int err = talk_begin(&t, rd);

	buf_init(&parts, WORKLOAD_LINE_MAX * 2);
	while (!err && json_array_next(list, &at, &item, &type)) {
		r = *whole;
		if (t.requests > 0)
			r.delay_ns = -1;
		content = item;
		if (type == JSON_OBJECT) {
			err = format_fields_of(rd, rules, false, item, &r);
			if (!err)
				err = turn_content(rd, item, r.prompt, &parts, &content);
			r.prompt = SPAN("");
		} else if (type != JSON_STRING) {
			err = format_wrong(rd, item.p, "turn: expected an object or a text");
		}
		r.session = whole->session;
		if (!err)
			err = talk_say(&t, "user", content);
		if (!err)
			err = talk_ask(&t, &r);
	}
	buf_release(&parts);
	if (!err && t.requests == 0)
		err = format_wrong(rd, list.p, "\"turns\" is empty: expected a turn");
	return err;
}

static int read_multi(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *turns = json_object_get(o, "turns");
	struct workload_request whole;
	struct span session;
	int err;

	if (!turns || turns->type != JSON_ARRAY)
		return format_wrong(rd, rd->record.p, "record without an array \"turns\"");
	format_request(rd, &whole);
	err = format_fields(rd, o, &whole);
	if (!err && whole.session.n == 0)
		err = format_line_session(rd, &whole.session);
	if (!err)
		err = format_keep(rd, whole.session, &session);
	if (err)
		return err;
	whole.session = session;
	return read_turns(rd, turns->value, &whole);
}

static bool is_multi(const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "turns");

	return m && m->type == JSON_ARRAY;
}

const struct workload_format format_aiperf_multi = {
	.name = "aiperf-multi",
	.title = "sessions of turns; also SpecBench, whose turns are texts",
	.marks = "an array `turns`",
	.times = "ms; `delay` ms before a turn",
	.origin = "AIPerf multi_turn; SpecBench",
	.shape = FORMAT_JSON,
	.own_ms = true,
	.rules = rules,
	.is = is_multi,
	.object = read_multi,
	.example =
		"{\"session_id\":\"u1\",\"turns\":[{\"text\":\"hi\"},{\"text\":\"again\",\"delay\":"
		"10}]}\n{\"question_id\":81,\"category\":\"writing\",\"turns\":[\"a\",\"b\"]}\n",
};
