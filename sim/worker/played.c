#include "sim/worker/played.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- members -- */

/* A string that is not empty, decoded; false: it is none, or too long. */
static bool text_of(const struct json_object *o, const char *name, char *out, size_t cap)
{
	const struct json_member *m = json_object_get(o, name);
	struct buf b;
	bool good;

	buf_init(&b, cap - 1);
	good = m && m->type == JSON_STRING && m->value.n > 2 &&
	       json_string_decode(m->value, &b) == PD_OK && b.len > 0;
	if (good) {
		memcpy(out, b.data, b.len);
		out[b.len] = '\0';
	}
	buf_release(&b);
	return good;
}

static bool number_of(const struct json_object *o, const char *name, int64_t min, int64_t max,
		      int64_t *out)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_NUMBER && json_int(m->value, out) == PD_OK && *out >= min &&
	       *out <= max;
}

static bool port_of(const struct json_object *o, const char *name, uint16_t *out)
{
	int64_t port;

	if (!number_of(o, name, 1, UINT16_MAX, &port))
		return false;
	*out = (uint16_t)port;
	return true;
}

static bool is_null(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_NULL;
}

/* "host:port" with brackets around IPv6, or "host:H,handshake:P,notify:N", at the beginning of
 * `text`, which ends there. */
static bool address_of(struct span text, char *host, size_t cap, uint16_t *port)
{
	static const char host_is[] = "host:", port_is[] = ",handshake:";
	const char *h = text.p, *end = text.p + text.n, *at = NULL;
	long n = 0;

	if (span_starts(text, SPAN("host:"))) {
		h += sizeof(host_is) - 1;
		at = memmem(h, (size_t)(end - h), port_is, sizeof(port_is) - 1);
		if (!at)
			return false;
		end = at;
		at += sizeof(port_is) - 1;
	} else {
		for (const char *p = h; p < end; p++)
			at = *p == ':' ? p : at;
		if (!at)
			return false;
		end = at++;
	}
	while (at < text.p + text.n && *at >= '0' && *at <= '9' && n <= UINT16_MAX)
		n = n * 10 + (*at++ - '0');
	if (at < text.p + text.n && *at != ',')
		return false;
	if (end - h > 1 && *h == '[' && end[-1] == ']') {
		h++;
		end--;
	}
	if (end == h || (size_t)(end - h) >= cap || n < 1 || n > UINT16_MAX)
		return false;
	memcpy(host, h, (size_t)(end - h));
	host[end - h] = '\0';
	*port = (uint16_t)n;
	return true;
}

/* -- legs: what all connectors ask of them -- */

/* What an engine would do wrongly or in vain with blocks of another. */
static void check_sampling(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	const char *leg = g->kv.do_remote_decode ? "prefill" : "decode";

	if (g->nprompts != 1 && g->kv.rooms.n == 0)
		(void)nixl_mistake(x, MISTAKE_shared_blocks, g->id, e,
				   "%s: found %zu prompts, expected 1: blocks are of one prompt",
				   leg, g->nprompts);
	if (g->beam_search)
		(void)nixl_mistake(x, MISTAKE_beam_search, g->id, e,
				   "%s: beam search uses no blocks of another engine", leg);
	if (g->kv.do_remote_prefill && g->prompt_logprobs)
		(void)nixl_mistake(x, MISTAKE_prompt_logprobs, g->id, e,
				   "decode: the logprobs of a prompt that was computed elsewhere "
				   "are not known");
}

static void check_prefill(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	g->kv.leg = LEG_PREFILL;
	if (x->cfg->role == WORKER_DECODE)
		(void)nixl_mistake(x, MISTAKE_wrong_role, g->id, e,
				   "do_remote_decode sent to a decode worker");
	if (g->kv.one_token) {
		check_sampling(x, g, e);
		return;
	}
	if (g->max_tokens != 1)
		(void)nixl_mistake(x, MISTAKE_prefill_max_tokens, g->id, e,
				   "prefill: found max_tokens %zu, expected 1", g->max_tokens);
	if (g->stream)
		(void)nixl_mistake(x, MISTAKE_prefill_stream, g->id, e,
				   "prefill: found stream true, expected false");
	check_sampling(x, g, e);
}

/* `complete`: it is known where the blocks are. Otherwise the prompt is computed here. */
static void check_decode(struct nixl *x, struct gen_request *g, bool complete, struct api_error *e)
{
	g->kv.leg = LEG_DECODE;
	if (x->cfg->role == WORKER_PREFILL)
		(void)nixl_mistake(x, MISTAKE_wrong_role, g->id, e,
				   "do_remote_prefill sent to a prefill worker");
	check_sampling(x, g, e);
	if (!complete || (g->nprompts != 1 && g->kv.rooms.n == 0) || g->beam_search ||
	    g->prompt_logprobs)
		g->kv.do_remote_prefill = false;
}

/* For connectors whose parameters have the two flags: false when there is nothing to do. */
static bool check_flags(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_params *kv = &g->kv;

	if (!kv->present)
		return false;
	if (kv->do_remote_decode != kv->do_remote_prefill)
		return true;
	(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
			   "found do_remote_decode and do_remote_prefill both %s, expected "
			   "exactly one to be true",
			   kv->do_remote_decode ? "true" : "false");
	kv->do_remote_decode = kv->do_remote_prefill = false;
	return false;
}

/* The id that both legs have, as the name of the blocks. */
static void key_by_id(const struct gen_request *g, char key[KV_KEY_MAX])
{
	(void)snprintf(key, KV_KEY_MAX, "%.*s", (int)g->xid.n, g->xid.n ? g->xid.p : "");
}

/* -- NIXL -- */

static int nixl_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_source *from = &g->kv.from;
	bool engine, request, host, port, blocks;
	const struct json_member *m;
	struct json_object o;

	if (!check_flags(x, g, e))
		return e->status ? PD_EINVAL : PD_OK;
	if (g->kv.do_remote_decode) {
		if (x->cfg->kv_push)
			key_by_id(g, g->kv.key);
		check_prefill(x, g, e);
		return e->status ? PD_EINVAL : PD_OK;
	}
	if (json_object_scan(&o, g->kv.object.p, g->kv.object.n, NULL) != PD_OK)
		return api_fail(e, 400, "kv_transfer_params", "kv_transfer_params is no object");
	m = json_object_get(&o, "remote_block_ids");
	blocks = m && m->type == JSON_ARRAY;
	if (blocks)
		from->block_ids = m->value;
	/* An engine that pushes names no blocks: it is told where to write them. */
	from->wait = x->cfg->kv_push && !blocks;
	engine = text_of(&o, "remote_engine_id", from->engine, sizeof(from->engine));
	request = text_of(&o, "remote_request_id", from->key, sizeof(from->key));
	host = text_of(&o, "remote_host", from->host, sizeof(from->host));
	port = port_of(&o, "remote_port", &from->port);
	blocks |= x->cfg->kv_push;
	json_object_release(&o);
	if (!(engine && request && host && port && blocks))
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "decode: absent or of the wrong type:%s%s%s%s%s",
				   blocks ? "" : " remote_block_ids",
				   engine ? "" : " remote_engine_id",
				   request ? "" : " remote_request_id", host ? "" : " remote_host",
				   port ? "" : " remote_port");
	check_decode(x, g, engine && request && host && port && blocks, e);
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- ids that carry addresses: P2P-NCCL, MoRI-IO -- */

/* "___prefill_addr_A___decode_addr_B_UUID" */
struct pair_id {
	struct span prefill, decode;
};

static bool parse_id(struct span id, struct pair_id *out)
{
	static const char one[] = "___prefill_addr_", two[] = "___decode_addr_";
	const char *end = id.p + id.n, *a, *b, *c;

	a = id.n ? memmem(id.p, id.n, one, sizeof(one) - 1) : NULL;
	if (!a)
		return false;
	a += sizeof(one) - 1;
	b = memmem(a, (size_t)(end - a), two, sizeof(two) - 1);
	if (!b)
		return false;
	out->prefill = (struct span){a, (size_t)(b - a)};
	b += sizeof(two) - 1;
	for (c = end; c > b && c[-1] != '_'; c--)
		;
	/* The UUID's 32 digits, which end the address. */
	if (c == b || end - c != 32 || strspn(c, "0123456789abcdef") < 32)
		return false;
	out->decode = (struct span){b, (size_t)(c - 1 - b)};
	return true;
}

static void check_own(struct nixl *x, struct gen_request *g, struct span address, const char *what,
		      struct api_error *e)
{
	char host[256];
	uint16_t port = 0;

	if (!address_of(address, host, sizeof(host), &port) || port != x->kv_port)
		(void)nixl_mistake(x, MISTAKE_wrong_address, g->id, e,
				   "found the %s address '%.*s' in the request id, expected one "
				   "with port %u, where this worker transfers KV",
				   what, (int)(address.n < 100 ? address.n : 100), address.p,
				   x->kv_port);
}

/* Whose leg it is tells the role; a worker that is both knows by its own address. */
static bool is_consumer(const struct nixl *x, const struct pair_id *id)
{
	char host[256];
	uint16_t port = 0;

	if (x->cfg->role != WORKER_BOTH)
		return x->cfg->role == WORKER_DECODE;
	return address_of(id->decode, host, sizeof(host), &port) && port == x->kv_port;
}

static int p2p_nccl_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_source *from = &g->kv.from;
	struct pair_id id;
	bool found;

	g->kv.do_remote_decode = g->kv.do_remote_prefill = false;
	if (!parse_id(g->xid, &id)) {
		if (x->cfg->role != WORKER_BOTH)
			(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
					   "request id '%.*s': expected "
					   "___prefill_addr_HOST:PORT___decode_addr_HOST:PORT_UUID",
					   (int)(g->xid.n < 100 ? g->xid.n : 100),
					   g->xid.n ? g->xid.p : "");
		return e->status ? PD_EINVAL : PD_OK;
	}
	if (!is_consumer(x, &id)) {
		g->kv.do_remote_decode = true;
		check_own(x, g, id.prefill, "prefill", e);
		key_by_id(g, g->kv.key);
		check_prefill(x, g, e);
		return e->status ? PD_EINVAL : PD_OK;
	}
	g->kv.do_remote_prefill = true;
	check_own(x, g, id.decode, "decode", e);
	key_by_id(g, from->key);
	found = address_of(id.prefill, from->host, sizeof(from->host), &from->port);
	if (!found)
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "request id: found the prefill address '%.*s', expected "
				   "HOST:PORT",
				   (int)(id.prefill.n < 100 ? id.prefill.n : 100), id.prefill.p);
	check_decode(x, g, found, e);
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- Mooncake -- */

static int mooncake_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_source *from = &g->kv.from;
	bool transfer, engine, address;
	char text[300] = "";
	struct json_object o;

	if (!check_flags(x, g, e))
		return e->status ? PD_EINVAL : PD_OK;
	if (json_object_scan(&o, g->kv.object.p, g->kv.object.n, NULL) != PD_OK)
		return api_fail(e, 400, "kv_transfer_params", "kv_transfer_params is no object");
	transfer = text_of(&o, "transfer_id", from->key, sizeof(from->key));
	engine = text_of(&o, "remote_engine_id", from->engine, sizeof(from->engine));
	address = text_of(&o, "remote_bootstrap_addr", text, sizeof(text)) &&
		  strncmp(text, "http://", 7) == 0 &&
		  address_of(span_of(text + 7), from->host, sizeof(from->host), &from->port);
	json_object_release(&o);
	if (g->kv.do_remote_decode) {
		if (!transfer)
			(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
					   "prefill: absent or of the wrong type: transfer_id");
		memcpy(g->kv.key, from->key, sizeof(g->kv.key));
		check_prefill(x, g, e);
		return e->status ? PD_EINVAL : PD_OK;
	}
	from->wait = true;
	if (!(transfer && engine && address))
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "decode: absent or of the wrong type:%s%s%s",
				   transfer ? "" : " transfer_id",
				   engine ? "" : " remote_engine_id",
				   address ? "" : " remote_bootstrap_addr");
	check_decode(x, g, transfer && engine && address, e);
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- MoRI-IO -- */

/* What both legs of both modes carry. */
static void moriio_common(struct nixl *x, struct gen_request *g, const struct json_object *o,
			  char key[KV_KEY_MAX], struct api_error *e)
{
	int64_t dp = 0, tp = 0, rank = 0;
	bool writes = x->cfg->kv_writes;
	bool transfer = text_of(o, "transfer_id", key, KV_KEY_MAX) && strncmp(key, "tx", 2) == 0;
	bool dp_size = number_of(o, "remote_dp_size", 1, 4096, &dp);
	bool tp_size = !writes || number_of(o, "remote_tp_size", 1, 4096, &tp);
	bool dp_rank = !writes || dp <= 1 || number_of(o, "remote_dp_rank", 0, dp - 1, &rank);

	if (!(transfer && dp_size && tp_size && dp_rank))
		(void)nixl_mistake(
			x, MISTAKE_missing_fields, g->id, e,
			"%s: absent or of the wrong type:%s%s%s%s",
			g->kv.do_remote_decode ? "prefill" : "decode",
			transfer ? "" : " transfer_id (tx...)", dp_size ? "" : " remote_dp_size",
			tp_size ? "" : " remote_tp_size", dp_rank ? "" : " remote_dp_rank");
	if ((g->kv.do_remote_decode || writes) &&
	    !(is_null(o, "remote_engine_id") && is_null(o, "remote_block_ids")))
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "%s: expected remote_engine_id and remote_block_ids to be null",
				   g->kv.do_remote_decode ? "prefill" : "decode");
}

/* READ: the coordinates that prefill answered with. */
static bool moriio_coordinates(const struct json_object *o, struct kv_source *from)
{
	const struct json_member *m = json_object_get(o, "remote_block_ids");

	if (m && m->type == JSON_ARRAY)
		from->block_ids = m->value;
	return from->block_ids.n > 0 &&
	       text_of(o, "remote_engine_id", from->engine, sizeof(from->engine)) &&
	       text_of(o, "remote_host", from->host, sizeof(from->host)) &&
	       port_of(o, "remote_port", &from->port);
}

static int moriio_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_source *from = &g->kv.from;
	struct pair_id id;
	struct json_object o;
	bool found;

	if (!check_flags(x, g, e))
		return e->status ? PD_EINVAL : PD_OK;
	found = parse_id(g->xid, &id);
	if (!found)
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "request id '%.*s': expected both workers' KV addresses and 32 "
				   "hexadecimal digits",
				   (int)(g->xid.n < 100 ? g->xid.n : 100),
				   g->xid.n ? g->xid.p : "");
	else
		check_own(x, g, g->kv.do_remote_decode ? id.prefill : id.decode,
			  g->kv.do_remote_decode ? "prefill" : "decode", e);
	if (json_object_scan(&o, g->kv.object.p, g->kv.object.n, NULL) != PD_OK)
		return api_fail(e, 400, "kv_transfer_params", "kv_transfer_params is no object");
	moriio_common(x, g, &o, from->key, e);
	if (g->kv.do_remote_decode) {
		memcpy(g->kv.key, from->key, sizeof(g->kv.key));
		check_prefill(x, g, e);
	} else if (x->cfg->kv_writes) {
		from->wait = true;
		found = found &&
			address_of(id.prefill, from->host, sizeof(from->host), &from->port);
		check_decode(x, g, found && from->key[0], e);
	} else {
		found = moriio_coordinates(&o, from);
		if (!found)
			(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
					   "decode: expected remote_block_ids, remote_engine_id, "
					   "remote_host and remote_port as prefill answered");
		check_decode(x, g, found && from->key[0], e);
	}
	json_object_release(&o);
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- a directory: LMCache, ExampleConnector -- */

/* Which worker stores and which loads is the engine's role; requests say nothing. */
static int shared_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	g->kv.do_remote_decode = g->kv.do_remote_prefill = false;
	g->kv.shared = true;
	g->kv.leg = x->cfg->role == WORKER_PREFILL  ? LEG_PREFILL
		    : x->cfg->role == WORKER_DECODE ? LEG_DECODE
						    : LEG_PLAIN;
	if (x->cfg->role != WORKER_PREFILL)
		return PD_OK;
	if (g->max_tokens != 1)
		(void)nixl_mistake(x, MISTAKE_prefill_max_tokens, g->id, e,
				   "prefill: found max_tokens %zu, expected 1", g->max_tokens);
	if (g->stream)
		(void)nixl_mistake(x, MISTAKE_prefill_stream, g->id, e,
				   "prefill: found stream true, expected false");
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- SGLang -- */

/* A value for one prompt, or a list with one for each. */
static bool one_or_list(const struct json_object *o, const char *name, size_t prompts, bool batch,
			struct span *first, enum json_type *type, struct span *list)
{
	const struct json_member *m = json_object_get(o, name);
	enum json_type t;
	struct span value;
	size_t n = 0, at = 0;

	if (!m)
		return false;
	*list = (struct span){0};
	if (!batch || m->type != JSON_ARRAY) {
		*first = m->value;
		*type = m->type;
		return !batch;
	}
	*list = m->value;
	while (json_array_next(m->value, &at, &value, &t))
		if (n++ == 0) {
			*first = value;
			*type = t;
		}
	return n == prompts && n > 0;
}

static int sglang_read(struct nixl *x, struct gen_request *g, struct api_error *e)
{
	struct kv_source *from = &g->kv.from;
	const struct json_member *prompt = json_object_get(&g->body, "prompt");
	bool decodes = x->cfg->role == WORKER_DECODE, host, port, room, batch;
	struct span value = {0}, list = {0}, rooms = {0};
	enum json_type type = JSON_NONE;
	int64_t n = 0;
	size_t at = 0;
	struct buf b;

	g->kv.do_remote_decode = g->kv.do_remote_prefill = false;
	if (!json_object_get(&g->body, "bootstrap_room")) {
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "absent: bootstrap_room, bootstrap_host, bootstrap_port");
		return e->status ? PD_EINVAL : PD_OK;
	}
	/* A list of prompts, which token ids are not. */
	batch = g->kind == GEN_COMPLETION && prompt && prompt->type == JSON_ARRAY &&
		json_array_next(prompt->value, &at, &value, &type) && type != JSON_NUMBER;
	host = one_or_list(&g->body, "bootstrap_host", g->nprompts, batch, &value, &type, &list);
	buf_init(&b, sizeof(from->host) - 1);
	host = host && type == JSON_STRING && json_string_decode(value, &b) == PD_OK && b.len > 0;
	if (host) {
		memcpy(from->host, b.data, b.len);
		from->host[b.len] = '\0';
	}
	buf_release(&b);
	port = one_or_list(&g->body, "bootstrap_port", g->nprompts, batch, &value, &type, &list);
	from->port = 8998;
	if (port && type != JSON_NULL) {
		port = type == JSON_NUMBER && json_int(value, &n) == PD_OK && n > 0 &&
		       n <= UINT16_MAX;
		from->port = (uint16_t)n;
	}
	room = one_or_list(&g->body, "bootstrap_room", g->nprompts, batch, &value, &type, &rooms) &&
	       type == JSON_NUMBER && json_int(value, &n) == PD_OK && n >= 0;
	if (!(host && port && room))
		(void)nixl_mistake(x, MISTAKE_missing_fields, g->id, e,
				   "absent, of the wrong type, or not one for each prompt:%s%s%s",
				   host ? "" : " bootstrap_host", port ? "" : " bootstrap_port",
				   room ? "" : " bootstrap_room");
	if (!(host && port && room))
		return e->status ? PD_EINVAL : PD_OK;
	g->kv.rooms = rooms;
	(void)snprintf(from->key, sizeof(from->key), "room-%lld", (long long)n);
	if (!decodes && from->port != x->bootstrap_port)
		(void)nixl_mistake(x, MISTAKE_wrong_address, g->id, e,
				   "found bootstrap_port %u, expected %u, where this worker's "
				   "bootstrap server is",
				   from->port, x->bootstrap_port);
	g->kv.do_remote_decode = g->kv.one_token = !decodes;
	g->kv.do_remote_prefill = from->wait = decodes;
	memcpy(g->kv.key, from->key, sizeof(g->kv.key));
	if (decodes)
		check_decode(x, g, true, e);
	else
		check_prefill(x, g, e);
	return e->status ? PD_EINVAL : PD_OK;
}

/* -- the table -- */

static const struct played table[] = {
	{"nixl", PLAYED_ANSWERS, 0, nixl_read},
	{"p2p_nccl", PLAYED_SAME_TP, 0, p2p_nccl_read},
	{"mooncake", PLAYED_BOOTSTRAP, 0, mooncake_read},
	{"moriio", PLAYED_ANSWERS, 0, moriio_read},
	{"lmcache", PLAYED_SHARED, 256, shared_read},
	{"example", PLAYED_SHARED, 0, shared_read},
	{"sglang", PLAYED_BOOTSTRAP | PLAYED_OTHER_ID | PLAYED_ROLE, 0, sglang_read},
};

const struct played *played_find(const char *name)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

const struct played *played_of(const struct worker_config *cfg)
{
	return cfg->connector ? cfg->connector : &table[0];
}
