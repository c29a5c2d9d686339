#include "lib/router/fleet/kvbatch.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lib/base/msgpackcheck.h"

/* What an event is made of, where a map has names and an array has places. */
struct shape {
	const char *type;
	enum kvevent_kind kind;
	int hashes, parent, tokens, block_size, lora_id, medium, lora_name, extra_keys, group;
};

static const struct shape shapes[] = {
	{"BlockStored", KVEVENT_STORED, 1, 2, 3, 4, 5, 6, 7, 8, 9},
	{"BlockRemoved", KVEVENT_REMOVED, 1, 0, 0, 0, 0, 2, 0, 0, 3},
	{"AllBlocksCleared", KVEVENT_CLEARED, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};

struct reading {
	uint64_t *hash; /* owned, grown */
	size_t hash_cap;
	uint32_t *token; /* owned, grown */
	size_t token_cap;
};

static bool is_text(const msgpack_object *o, const char *text)
{
	size_t n = strlen(text);

	return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size == n &&
	       memcmp(o->via.str.ptr, text, n) == 0;
}

/* NULL: it has none, or nil. */
static const msgpack_object *member(const msgpack_object *o, const char *name, int place)
{
	const msgpack_object *found = NULL;

	if (o->type == MSGPACK_OBJECT_ARRAY && place >= 0 && (uint32_t)place < o->via.array.size)
		found = &o->via.array.ptr[place];
	for (uint32_t i = 0; o->type == MSGPACK_OBJECT_MAP && i < o->via.map.size; i++)
		if (is_text(&o->via.map.ptr[i].key, name))
			found = &o->via.map.ptr[i].val;
	return found && found->type != MSGPACK_OBJECT_NIL ? found : NULL;
}

static bool hash_of(const msgpack_object *o, uint64_t *out)
{
	switch (o->type) {
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		*out = o->via.u64;
		return true;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		*out = (uint64_t)o->via.i64;
		return true;
	case MSGPACK_OBJECT_BIN:
		*out = XXH3_64bits(o->via.bin.ptr, o->via.bin.size);
		return true;
	case MSGPACK_OBJECT_STR:
		*out = XXH3_64bits(o->via.str.ptr, o->via.str.size);
		return true;
	default:
		return false;
	}
}

static int read_hashes(struct reading *r, const msgpack_object *o, struct kvevent *e,
		       struct pd_msg *msg)
{
	if (!o || o->type != MSGPACK_OBJECT_ARRAY)
		return pd_fail(msg, PD_EINVAL, "found an event without block_hashes");
	if (o->via.array.size > r->hash_cap) {
		uint64_t *more = realloc(r->hash, o->via.array.size * sizeof(*more));

		if (!more)
			return PD_ENOMEM;
		r->hash = more;
		r->hash_cap = o->via.array.size;
	}
	for (uint32_t i = 0; i < o->via.array.size; i++)
		if (!hash_of(&o->via.array.ptr[i], &r->hash[i]))
			return pd_fail(msg, PD_EINVAL,
				       "found a block hash that is neither number nor bytes");
	e->hash = r->hash;
	e->n = o->via.array.size;
	return PD_OK;
}

static int read_tokens(struct reading *r, const msgpack_object *o, struct kvevent *e,
		       struct pd_msg *msg)
{
	if (!o || o->type != MSGPACK_OBJECT_ARRAY ||
	    (uint64_t)o->via.array.size != (uint64_t)e->n * e->block_size)
		return pd_fail(msg, PD_EINVAL, "found %u token_ids, expected %zu blocks of %u",
			       o && o->type == MSGPACK_OBJECT_ARRAY ? o->via.array.size : 0, e->n,
			       e->block_size);
	if (o->via.array.size > r->token_cap) {
		uint32_t *more = realloc(r->token, o->via.array.size * sizeof(*more));

		if (!more)
			return PD_ENOMEM;
		r->token = more;
		r->token_cap = o->via.array.size;
	}
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		const msgpack_object *t = &o->via.array.ptr[i];

		if (t->type != MSGPACK_OBJECT_POSITIVE_INTEGER || t->via.u64 > UINT32_MAX)
			return pd_fail(msg, PD_EINVAL, "found a token id that is no 32-bit number");
		r->token[i] = (uint32_t)t->via.u64;
	}
	e->token = r->token;
	return PD_OK;
}

static unsigned tier_of(const msgpack_object *o)
{
	static const struct {
		const char *name;
		unsigned tier;
	} tiers[] = {{"CPU", 1},      {"HOST", 1},    {"HOST_PINNED", 1}, {"cpu", 1},
		     {"EXTERNAL", 2}, {"STORAGE", 3}, {"DISK", 3},	  {"disk", 3}};

	for (size_t i = 0; o && i < sizeof(tiers) / sizeof(tiers[0]); i++)
		if (is_text(o, tiers[i].name))
			return tiers[i].tier;
	return 0;
}

static bool all_nil(const msgpack_object *o)
{
	if (!o)
		return true;
	for (uint32_t i = 0; o->type == MSGPACK_OBJECT_ARRAY && i < o->via.array.size; i++)
		if (o->via.array.ptr[i].type != MSGPACK_OBJECT_NIL)
			return false;
	return o->type == MSGPACK_OBJECT_ARRAY;
}

/* By the tokens alone? */
static bool is_plain(const msgpack_object *o, const struct shape *s)
{
	const msgpack_object *group = member(o, "group_idx", s->group ? s->group : -1),
			     *kind = member(o, "kv_cache_spec_kind", -1);

	return !member(o, "lora_id", s->lora_id) && !member(o, "lora_name", s->lora_name) &&
	       all_nil(member(o, "extra_keys", s->extra_keys)) &&
	       (!group ||
		(group->type == MSGPACK_OBJECT_POSITIVE_INTEGER && group->via.u64 == 0)) &&
	       (!kind || is_text(kind, "full_attention"));
}

static int read_event(struct reading *r, const msgpack_object *o, struct kvevent *e, bool *known,
		      struct pd_msg *msg)
{
	const msgpack_object *type = member(o, "type", 0), *size, *parent;
	const struct shape *s = NULL;
	int err;

	*known = false;
	for (size_t i = 0; type && i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (is_text(type, shapes[i].type))
			s = &shapes[i];
	if (!type)
		return pd_fail(msg, PD_EINVAL, "found an event without a type");
	if (!s) /* of a later version */
		return PD_OK;
	*known = true;
	*e = (struct kvevent){.kind = s->kind};
	if (s->kind == KVEVENT_CLEARED)
		return PD_OK;
	err = read_hashes(r, member(o, "block_hashes", s->hashes), e, msg);
	if (err)
		return err;
	e->tier = tier_of(member(o, "medium", s->medium));
	if (s->kind == KVEVENT_REMOVED)
		return PD_OK;
	e->plain = is_plain(o, s);
	parent = member(o, "parent_block_hash", s->parent);
	e->has_parent = parent != NULL;
	if (parent && !hash_of(parent, &e->parent))
		return pd_fail(msg, PD_EINVAL,
			       "found a parent_block_hash that is neither number nor bytes");
	size = member(o, "block_size", s->block_size);
	if (!size || size->type != MSGPACK_OBJECT_POSITIVE_INTEGER || size->via.u64 == 0 ||
	    size->via.u64 > KVBATCH_BLOCK_SIZE)
		return pd_fail(msg, PD_EINVAL, "found no block_size of 1 to %d",
			       KVBATCH_BLOCK_SIZE);
	e->block_size = (uint32_t)size->via.u64;
	return read_tokens(r, member(o, "token_ids", s->tokens), e, msg);
}

static int read_batch(const msgpack_object *o, void (*take)(void *ctx, const struct kvevent *e),
		      void *ctx, int *rank, struct pd_msg *msg)
{
	const msgpack_object *events = member(o, "events", 1),
			     *dp = member(o, "data_parallel_rank", 2);
	struct reading r = {0};
	int err = PD_OK;

	*rank = -1;
	if (dp && dp->type == MSGPACK_OBJECT_POSITIVE_INTEGER && dp->via.u64 < 65536)
		*rank = (int)dp->via.u64;
	if (!events || events->type != MSGPACK_OBJECT_ARRAY ||
	    events->via.array.size > KVBATCH_EVENTS)
		return pd_fail(msg, PD_EINVAL, "found no list of at most %d events",
			       KVBATCH_EVENTS);
	for (uint32_t i = 0; !err && i < events->via.array.size; i++) {
		struct kvevent e;
		bool known;

		err = read_event(&r, &events->via.array.ptr[i], &e, &known, msg);
		if (!err && known)
			take(ctx, &e);
	}
	free(r.hash);
	free(r.token);
	return err;
}

int kvbatch_read(struct span text, void (*take)(void *ctx, const struct kvevent *e), void *ctx,
		 int *rank, struct pd_msg *msg)
{
	msgpack_unpacked u;
	size_t at = 0;
	int err;

	*rank = -1;
	if (text.n > KVBATCH_MAX || !msgpack_is_bounded(text))
		return pd_fail(msg, PD_EINVAL, "found no MessagePack object of at most %u bytes",
			       KVBATCH_MAX);
	msgpack_unpacked_init(&u);
	if (msgpack_unpack_next(&u, text.p, text.n, &at) == MSGPACK_UNPACK_SUCCESS)
		err = read_batch(&u.data, take, ctx, rank, msg);
	else
		err = pd_fail(msg, PD_EINVAL, "found no MessagePack object");
	msgpack_unpacked_destroy(&u);
	return err;
}
