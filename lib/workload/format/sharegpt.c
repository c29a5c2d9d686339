/* Conversations as they were held: ShareGPT's from and value, SGLang's role and content, and the
 * files of vLLM's multi-turn script. Each message of a user is a request; the answers of the file
 * are the history of the next one, and the length of its output. */
#include "lib/workload/format/talk.h"
#include "lib/workload/format/formats.h"

struct message {
	struct span role, content;
	enum json_type type;
};

static void read_message(struct span object, struct message *m)
{
	struct json_member part;
	size_t at = 0;

	*m = (struct message){0};
	while (object.n > 0 && object.p[0] == '{' && json_object_next(object, &at, &part)) {
		if (json_member_is(&part, "from") || json_member_is(&part, "role"))
			m->role = part.type == JSON_STRING
					  ? (struct span){part.value.p + 1, part.value.n - 2}
					  : SPAN("");
		else if (json_member_is(&part, "value") || json_member_is(&part, "content")) {
			m->content = part.value;
			m->type = part.type;
		}
	}
}

static const char *role_of(struct span name)
{
	static const struct {
		const char *name, *role;
	} roles[] = {{"human", "user"},	       {"user", "user"},
		     {"gpt", "assistant"},     {"assistant", "assistant"},
		     {"chatgpt", "assistant"}, {"bing", "assistant"},
		     {"bard", "assistant"},    {"model", "assistant"},
		     {"system", "system"},     {"tool", "tool"}};

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (span_eq_case(name, span_of(roles[i].name)))
			return roles[i].role;
	return NULL;
}

/* The request waits for the answer behind it, which tells how long it is. */
static int read_talk(struct format_reader *rd, struct span list, struct workload_request *whole)
{
	struct workload_request r;
	struct message m, next;
	struct span item;
	enum json_type type;
	struct talk t;
	size_t at = 0;
	const char *role;
	int err = talk_begin(&t, rd);

	if (!err && whole->session.n == 0)
		err = format_line_session(rd, &whole->session);
	while (!err && json_array_next(list, &at, &item, &type)) {
		size_t ahead = at;

		read_message(item, &m);
		role = role_of(m.role);
		if (!role || (m.type != JSON_STRING && m.type != JSON_ARRAY))
			return format_wrong(
				rd, item.p,
				"message of a conversation: expected from or role "
				"(human, user, gpt, assistant, system, tool) and value or "
				"content");
		err = talk_say(&t, role, m.content);
		if (err || strcmp(role, "user") != 0)
			continue;
		r = *whole;
		if (json_array_next(list, &ahead, &item, &type)) {
			read_message(item, &next);
			role = role_of(next.role);
			/* two messages of a user in a row go together */
			if (role && strcmp(role, "user") == 0)
				continue;
			if (role && strcmp(role, "assistant") == 0 && next.content.n > 0) {
				r.output_tokens = format_estimate(next.content);
				err = format_note(rd, FORMAT_ESTIMATED_OUTPUT);
			}
		}
		if (!err)
			err = talk_ask(&t, &r);
	}
	if (!err && t.requests == 0)
		err = format_note(rd, "conversations without a message of a user are left out");
	return err;
}

static const struct field_rule rules[] = {{"conversations", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"conversation", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"messages", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"id", FIELD_NAME, TO_SESSION, 0, 0},
					  {NULL, 0, 0, 0, 0}};

static const struct json_member *talk_of(const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "conversations");

	return m ? m : json_object_get(o, "conversation");
}

static bool is_sharegpt(const struct json_object *o)
{
	const struct json_member *m = talk_of(o);

	return m && m->type == JSON_ARRAY;
}

static int read_whole(struct format_reader *rd, const struct json_object *o,
		      const struct json_member *list)
{
	struct workload_request whole;
	struct span session;
	int err;

	format_request(rd, &whole);
	err = format_fields(rd, o, &whole);
	if (!err && whole.session.n > 0) {
		/* the name would be overwritten by what is read of the messages */
		err = format_keep(rd, whole.session, &session);
		whole.session = session;
	}
	return err ? err : read_talk(rd, list->value, &whole);
}

static int read_sharegpt(struct format_reader *rd, const struct json_object *o)
{
	return read_whole(rd, o, talk_of(o));
}

const struct workload_format format_sharegpt = {
	.name = "sharegpt",
	.title = "conversations with their answers; each message of a user is a turn",
	.marks = "an array `conversations` or `conversation`",
	.origin = "ShareGPT, SGLang custom",
	.shape = FORMAT_JSON,
	.rules = rules,
	.is = is_sharegpt,
	.object = read_sharegpt,
	.example = "[{\"id\":\"a\",\"conversations\":[{\"from\":\"human\",\"value\":\"hello\"},"
		   "{\"from\":\"gpt\",\"value\":\"hello to you\"},{\"from\":\"human\",\"value\":"
		   "\"more\"}]}]\n",
};

/* With an answer inside, and without what a body of a request has. */
static bool is_conversations(const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "messages");
	struct span item;
	enum json_type type;
	struct message msg;
	size_t at = 0;

	if (!m || m->type != JSON_ARRAY || !json_object_get(o, "id") || json_object_get(o, "model"))
		return false;
	while (json_array_next(m->value, &at, &item, &type)) {
		read_message(item, &msg);
		if (span_eq(msg.role, SPAN("assistant")))
			return true;
	}
	return false;
}

static int read_conversations(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *m = json_object_get(o, "messages");

	if (!m || m->type != JSON_ARRAY)
		return format_wrong(rd, rd->record.p, "expected an array \"messages\"");
	return read_whole(rd, o, m);
}

const struct workload_format format_conversations = {
	.name = "conversations",
	.title =
		"conversations with their answers, as `messages`; each message of a user is a turn",
	.marks = "`id`, and `messages` with an answer inside, without `model`",
	.origin = "vLLM benchmark_serving_multi_turn",
	.shape = FORMAT_JSON,
	.rules = rules,
	.is = is_conversations,
	.object = read_conversations,
	.example = "[{\"id\":\"a\",\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},"
		   "{\"role\":\"user\",\"content\":\"hello\"},{\"role\":\"assistant\",\"content\":"
		   "\"hello to you\"},{\"role\":\"user\",\"content\":\"more\"}]}]\n",
};
