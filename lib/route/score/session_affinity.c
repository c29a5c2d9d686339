/*
 * Requests of a session stay with a worker: by a token that the answer gave to the client and the
 * next request brings back (the base64 of the worker's name), or by the session's id and a table
 * that remembers. No load is looked at.
 */
#include "lib/route/hash.h"
#include "lib/route/memory/bindings.h"
#include "lib/route/score/session_affinity.h"

#define SESSIONS_MAX 65536

struct source {
	const char *header; /* lower case; NULL: the session key that the router found */
};

struct params {
	const char *strategy, *profile;
	struct yamlnode token, sessions;
	const char *header; /* lower case */
	bool by_id;
	struct source *source;
	size_t nsources;
	int64_t ttl_s;
};

static const struct score_param params[] = {
	{.type = SCORE_PARAM_TEXT,
	 .name = "strategy",
	 .offset = offsetof(struct params, strategy),
	 .text = "encoded_endpoint_header"},
	{.type = SCORE_PARAM_NODE,
	 .name = "encodedEndpointHeaderConfig",
	 .offset = offsetof(struct params, token)},
	{.type = SCORE_PARAM_NODE,
	 .name = "sessionIdConfig",
	 .offset = offsetof(struct params, sessions)},
	{.type = SCORE_PARAM_TEXT,
	 .name = "profileName",
	 .offset = offsetof(struct params, profile)},
	{.type = SCORE_PARAM_END},
};

static int known_keys(struct score_reader *r, struct yamlnode map, const char *const *keys)
{
	if (map.pos && yamlnode_kind(map) != YAMLPOS_MAPPING)
		return yamlnode_fail(map, r->file, r->msg, "expected a mapping of keys");
	for (struct yamlnode n = yamlnode_first(map); n.pos; n = yamlnode_next(n)) {
		size_t i = 0;

		while (keys[i] && strcmp(keys[i], yamlnode_key(n)) != 0)
			i++;
		if (!keys[i])
			return yamlnode_fail_key(n, r->file, r->msg,
						 "unknown key '%.60s', expected %s%s%s",
						 yamlnode_key(n), keys[0], keys[1] ? " or " : "",
						 keys[1] ? keys[1] : "");
	}
	return PD_OK;
}

static struct span trim(const char *text)
{
	return span_trim(span_of(text));
}

static int read_token(struct score_reader *r, struct params *p)
{
	static const char *const keys[] = {"header", NULL};
	struct yamlnode n = yamlnode_get(p->token, "header");
	const char *name = "x-session-token";
	char *copy;
	int err = known_keys(r, p->token, keys);

	if (err)
		return err;
	if (n.pos && yamlnode_string(n, &name))
		return yamlnode_fail(n, r->file, r->msg, "'header': expected a header's name");
	if (trim(name).n == 0)
		name = "x-session-token";
	copy = score_arena_get(r->arena, strlen(name) + 1);
	if (!copy)
		return PD_ENOMEM;
	memcpy(copy, trim(name).p, trim(name).n);
	p->header = score_lower(r->arena, copy);
	return p->header ? PD_OK : PD_ENOMEM;
}

static int read_source(struct score_reader *r, struct yamlnode n, struct source *out)
{
	static const char *const keys[] = {"header", "attribute", NULL};
	struct yamlnode header = yamlnode_get(n, "header"), key = yamlnode_get(n, "attribute");
	const char *text = "";
	int err = known_keys(r, n, keys);

	if (err)
		return err;
	if ((header.pos && yamlnode_string(header, &text)) ||
	    (key.pos && yamlnode_string(key, &text)) || !header.pos == !key.pos ||
	    trim(text).n == 0)
		return yamlnode_fail(n, r->file, r->msg,
				     "'sources': expected either header or attribute, a text");
	if (header.pos) {
		char *copy = score_arena_get(r->arena, strlen(text) + 1);

		if (!copy)
			return PD_ENOMEM;
		memcpy(copy, trim(text).p, trim(text).n);
		out->header = score_lower(r->arena, copy);
		if (!out->header)
			return PD_ENOMEM;
	}
	return PD_OK;
}

static int read_seconds(struct score_reader *r, struct yamlnode map, const char *key,
			int64_t fallback, int64_t *out)
{
	struct yamlnode n = yamlnode_get(map, key);

	*out = 0;
	if (n.pos && (yamlnode_int(n, out) || *out < 0 || *out > 1000000000))
		return yamlnode_fail(n, r->file, r->msg,
				     "'%s': expected a whole number of seconds, at least 0", key);
	*out = *out ? *out : fallback;
	return PD_OK;
}

static int read_sessions(struct score_reader *r, struct params *p)
{
	static const char *const keys[] = {"sources", "evictionTtlSeconds", "evictionSweepSeconds",
					   NULL};
	struct yamlnode list = yamlnode_get(p->sessions, "sources");
	int64_t sweep;
	size_t max = 1;
	int err = known_keys(r, p->sessions, keys);

	for (struct yamlnode n = yamlnode_first(list); n.pos; n = yamlnode_next(n))
		max++;
	p->source = score_arena_get(r->arena, max * sizeof(*p->source));
	if (!p->source)
		return PD_ENOMEM;
	if (!err && list.pos && yamlnode_kind(list) != YAMLPOS_SEQUENCE)
		return yamlnode_fail(list, r->file, r->msg, "'sources': expected a list");
	for (struct yamlnode n = yamlnode_first(list); !err && n.pos; n = yamlnode_next(n))
		err = read_source(r, n, &p->source[p->nsources++]);
	if (p->nsources == 0)
		p->source[p->nsources++].header = "x-session-id";
	err = err ? err : read_seconds(r, p->sessions, "evictionTtlSeconds", 300, &p->ttl_s);
	return err ? err : read_seconds(r, p->sessions, "evictionSweepSeconds", 10, &sweep);
}

static int check(struct score_reader *r, void *given)
{
	struct params *p = given;

	p->by_id = strcmp(p->strategy, "session_id") == 0;
	if (!p->by_id && strcmp(p->strategy, "encoded_endpoint_header") != 0)
		return score_wrong(r, "strategy",
				   "found '%.60s', expected encoded_endpoint_header or session_id",
				   p->strategy);
	return p->by_id ? read_sessions(r, p) : read_token(r, p);
}

/* -- tokens -- */

static int digit(char c)
{
	static const char all[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(all, c) : NULL;

	return at ? (int)(at - all) : -1;
}

/* Base64 with padding; line breaks do not count. The text, or 0 bytes when it is none. */
static size_t decode(struct span token, char *out, size_t cap)
{
	uint32_t bits = 0;
	size_t n = 0, len = 0, pad = 0;

	for (size_t i = 0; i < token.n; i++) {
		int d = digit(token.p[i]);

		if (token.p[i] == '\r' || token.p[i] == '\n')
			continue;
		if (token.p[i] == '=') {
			pad++;
			n++;
			continue;
		}
		if (d < 0 || pad > 0 || len + 3 > cap)
			return 0;
		bits = bits << 6 | (uint32_t)d;
		if (++n % 4 == 0) {
			out[len++] = (char)(bits >> 16);
			out[len++] = (char)(bits >> 8);
			out[len++] = (char)bits;
			bits = 0;
		}
	}
	if (n % 4 != 0 || pad > 2)
		return 0;
	if (pad == 2)
		out[len++] = (char)(bits >> 4);
	if (pad == 1) {
		out[len++] = (char)(bits >> 10);
		out[len++] = (char)(bits >> 2);
	}
	return len;
}

int score_session_token(const char *name, struct buf *out)
{
	static const char all[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)name;
	size_t n = strlen(name);
	int err = PD_OK;

	for (size_t i = 0; !err && i < n; i += 3) {
		uint32_t bits = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
				(i + 2 < n ? p[i + 2] : 0);
		const char four[4] = {all[bits >> 18], all[bits >> 12 & 63],
				      i + 1 < n ? all[bits >> 6 & 63] : '=',
				      i + 2 < n ? all[bits & 63] : '='};

		err = buf_append(out, four, 4);
	}
	return err;
}

const char *score_session_header(const void *given)
{
	const struct params *p = given;

	return p->by_id ? NULL : p->header;
}

const char *score_session_profile(const void *given)
{
	const struct params *p = given;

	return p->profile && p->profile[0] ? p->profile : NULL;
}

/* -- the home -- */

/* Which session a request belongs to. False: none. */
static bool session_of(const struct params *p, const struct route_request *rq, uint64_t *out)
{
	for (size_t i = 0; i < p->nsources; i++) {
		struct span id = {NULL, 0};

		if (p->source[i].header)
			id = span_trim(score_header(rq, p->source[i].header));
		else if (rq->key && rq->key->level == ROUTE_KEY_SESSION)
			id = (struct span){rq->key->text, rq->key->len};
		if (id.n > 0) {
			*out = route_hash(ROUTE_HASH_XXH3, id.p, id.n);
			return true;
		}
	}
	return false;
}

/* The worker's id. False: the request has no home. */
static bool home_of(const struct score_call *c, uint64_t *out)
{
	const struct params *p = c->params;
	char name[ROUTE_NAME_MAX + 4];
	uint64_t session;
	size_t n;

	if (p->by_id)
		return session_of(p, c->run->rq, &session) &&
		       bindings_find(c->memory, session, c->run->rq->now_ns, out);
	n = decode(score_header(c->run->rq, p->header), name, sizeof(name));
	*out = route_hash(ROUTE_HASH_XXH3, name, n);
	return n > 0;
}

/* A session whose worker is no candidate any more is free for the one that is picked now. */
static void release_home(const struct score_call *c)
{
	uint64_t session;

	if (((const struct params *)c->params)->by_id &&
	    session_of(c->params, c->run->rq, &session))
		bindings_forget(c->memory, session);
}

static void score(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	uint64_t home = 0;
	bool has = home_of(c, &home), found = false;

	for (size_t i = 0; i < n; i++) {
		out[i] = has && c->run->pool->worker[list[i]].id == home;
		found |= out[i] > 0;
	}
	if (has && !found)
		release_home(c);
}

static size_t filter(const struct score_call *c, uint16_t *list, size_t n)
{
	uint64_t home = 0;

	if (!home_of(c, &home))
		return n;
	for (size_t i = 0; i < n; i++)
		if (c->run->pool->worker[list[i]].id == home) {
			list[0] = list[i];
			return 1;
		}
	release_home(c);
	return n;
}

static int memory_new(const void *given, void **memory)
{
	const struct params *p = given;
	struct bindings *b = NULL;
	int err = p->by_id ? bindings_new(&b, SESSIONS_MAX, p->ttl_s * 1000000000, NULL) : PD_OK;

	*memory = b;
	return err;
}

static void memory_free(void *memory)
{
	bindings_free(memory);
}

static void picked(const struct score_call *c, uint64_t worker, bool cold)
{
	const struct params *p = c->params;
	uint64_t session;

	(void)cold;
	if (!p->by_id || !session_of(p, c->run->rq, &session))
		return;
	bindings_sweep(c->memory, c->run->rq->now_ns);
	(void)bindings_claim(c->memory, session, worker, c->run->rq->now_ns);
}

static void left(void *memory, uint64_t worker)
{
	if (memory)
		bindings_drop_worker(memory, worker);
}

#define AFFINITY                                                                                   \
	.params = params, .params_size = sizeof(struct params), .check = check,                    \
	.memory_new = memory_new, .memory_free = memory_free, .picked = picked, .left = left
const struct score_type score_session = {
	.name = "session-affinity-scorer",
	.kinds = SCORE_SCORER,
	.help = "1 for the worker that the session had before",
	.score = score,
	AFFINITY,
};

const struct score_type score_session_filter = {
	.name = "session-affinity-filter",
	.kinds = SCORE_FILTER,
	.help = "only the worker that the session had before, while it is there",
	.filter = filter,
	AFFINITY,
};
