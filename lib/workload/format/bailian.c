/* A row names the chat that it continues: chains and branches become one session of their root, and
 * a row waits for its parent. Times are seconds, blocks have 16 tokens. */
#include <stdlib.h>

#include "lib/workload/format/formats.h"

static const struct field_rule rules[] = {{"timestamp", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_S},
					  {"chat_id", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"parent_chat_id", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {"type", FIELD_KNOWN, TO_NOTHING, 0, 0},
					  {NULL, 0, 0, 0, 0}};

static bool is_bailian(const struct json_object *o)
{
	return json_object_get(o, "chat_id") && json_object_get(o, "parent_chat_id");
}

static int chat_number(struct format_reader *rd, const struct json_member *m, bool add,
		       uint32_t *no)
{
	struct span copy;
	int64_t id;
	int err;

	if (m->type != JSON_NUMBER || json_int(m->value, &id) != PD_OK)
		return format_wrong(rd, m->value.p, "member \"%.*s\": expected a whole number",
				    (int)m->key.n, m->key.p);
	*no = UINT32_MAX;
	if (names_find(&rd->chats, m->value, no) || !add)
		return PD_OK;
	err = format_keep(rd, m->value, &copy);
	return err ? err : names_number(&rd->chats, copy, no);
}

static int read_chat(struct format_reader *rd, const struct json_object *o)
{
	const struct json_member *id = json_object_get(o, "chat_id"),
				 *parent = json_object_get(o, "parent_chat_id");
	uint32_t chat = 0, before = UINT32_MAX;
	struct workload_request r;
	int64_t root;
	int err;

	rd->tree = true;
	format_request(rd, &r);
	err = format_fields(rd, o, &r);
	if (!err)
		err = chat_number(rd, parent, false, &before);
	if (!err)
		err = chat_number(rd, id, true, &chat);
	if (err)
		return err;
	if (before == UINT32_MAX && (json_int(parent->value, &root) || root >= 0))
		err = format_note(rd, "some rows continue a chat that is not in the file: each "
				      "begins a session");
	if (before != UINT32_MAX) {
		r.before = rd->chat_at[before];
		r.session = rd->w->req[r.before].session;
	} else {
		r.session = id->value;
	}
	if (chat >= rd->chat_cap) {
		size_t cap = rd->chat_cap ? rd->chat_cap * 2 : 1024;
		uint32_t *grown = reallocarray(rd->chat_at, cap, sizeof(*grown));

		if (!grown)
			return PD_ENOMEM;
		rd->chat_at = grown;
		rd->chat_cap = cap;
	}
	rd->chat_at[chat] = (uint32_t)rd->w->n;
	if (r.turn > 0)
		r.turn--; /* counted from 1 */
	return err ? err : format_add(rd, &r);
}

const struct workload_format format_bailian = {
	.name = "bailian",
	.title =
		"lengths and hash ids of blocks of 16 tokens; `parent_chat_id` links conversations",
	.marks = "`chat_id` and `parent_chat_id`",
	.times = "s",
	.origin = "alibaba-edu/qwen-bailian-usagetraces-anon",
	.shape = FORMAT_JSON,
	.block_tokens = 16,
	.rules = rules,
	.is = is_bailian,
	.object = read_chat,
	.example =
		"{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":61.114,\"input_length\":40,"
		"\"output_length\":20,\"type\":\"text\",\"turn\":1,\"hash_ids\":[1,2,3]}\n"
		"{\"chat_id\":2,\"parent_chat_id\":1,\"timestamp\":75.5,\"input_length\":100,"
		"\"output_length\":20,\"type\":\"text\",\"turn\":2,\"hash_ids\":[1,2,3,4,5,6,7]}\n",
};
