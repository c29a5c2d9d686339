/* Each connector's two requests, byte for byte, and what must hold for every row of the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/pd/parts.h"

#define BODY "{\"prompt\":\"a\",\"max_tokens\":9,\"min_tokens\":1,\"stream\":true}"
#define ONE  "{\"prompt\":\"a\",\"max_tokens\":1,\"min_tokens\":1,\"stream\":false"

static const struct pd_connector *by_name(const char *name)
{
	const struct pd_connector *c = NULL;

	assert_int_equal(pd_connector_find(&c, name, NULL), PD_OK);
	return c;
}

static void pair(struct pd_pair *p)
{
	pd_pair_init(p, PD_PATH_COMPLETIONS, SPAN("req-1"), 42);
	p->prefill = (struct pd_end){.host = SPAN("10.0.0.1"), .port = 8100, .rank = -1};
	p->decode = (struct pd_end){.host = SPAN("10.0.0.2"), .port = 8200, .rank = -1};
}

/* The body and the id that one step makes. */
static int step(const char *body, struct pd_pair *p,
		int (*of)(struct pd_pair *, struct pd_copy *, struct pd_msg *), char *out,
		size_t cap, char *id, struct pd_msg *msg)
{
	struct json_object o;
	struct pd_copy c;
	struct buf text;
	size_t total;
	int err;

	buf_init(&text, 1 << 20);
	assert_int_equal(json_object_scan(&o, body, strlen(body), NULL), PD_OK);
	assert_int_equal(pd_copy_init(&c, &o, p), PD_OK);
	err = of(p, &c, msg);
	if (!err) {
		assert_int_equal(json_edit_finish(&c.body, &total), PD_OK);
		assert_int_equal(json_edit_copy(&c.body, &text), PD_OK);
		assert_int_equal(json_validate(text.data, text.len, NULL), PD_OK);
		assert_true(text.len < cap);
		(void)snprintf(out, cap, "%.*s", (int)text.len, text.data);
		(void)snprintf(id, 400, "%.*s", (int)c.id.n, c.id.p);
	}
	pd_copy_release(&c);
	buf_release(&text);
	json_object_release(&o);
	return err;
}

static int prefill(const struct pd_connector *c, struct pd_pair *p, char *out, char *id)
{
	return step(BODY, p, c->prefill, out, 4096, id, NULL);
}

static void decode(const struct pd_connector *c, struct pd_pair *p, char *out, char *id)
{
	assert_int_equal(step(BODY, p, c->decode, out, 4096, id, NULL), PD_OK);
}

static void test_every_row(void **state)
{
	static const char params[] = "{\"prompt\":\"a\",\"kv_transfer_params\":{\"remote_host\":"
				     "\"evil\"},\"stream\":false}";
	static const char hidden[] = "{\"extra_args\":{\"kv_transfer_params\":{}}}";
	char out[4096], id[400], other[400];
	struct json_object o;
	struct pd_pair p;

	(void)state;
	for (size_t i = 0; pd_connectors[i]; i++) {
		const struct pd_connector *c = pd_connectors[i];

		assert_ptr_equal(by_name(c->name), c);
		assert_true(c->help && c->prefill && c->answered && c->decode);
		assert_true(!c->inquiry || (c->bootstrap_port && (c->flags & PD_KNOWS)));
		pair(&p);
		if (c->inquiry)
			p.known = SPAN("{\"0\":{\"engine_id\":\"e\"}}");
		/* A client never names the host that an engine connects to. */
		assert_int_equal(step(params, &p, c->prefill, out, sizeof(out), id, NULL), PD_OK);
		if (!(c->flags & PD_WHOLE))
			assert_null(strstr(out, "evil"));
		if (!(c->flags & PD_WHOLE)) {
			assert_non_null(strstr(out, "\"max_tokens\":1,\"min_tokens\":1"));
			assert_int_equal(json_object_scan(&o, hidden, strlen(hidden), NULL), PD_OK);
			assert_int_equal(c->check(&o, NULL), PD_EINVAL);
			json_object_release(&o);
		}
		/* Concurrent ones have blocks to fetch from the start; no other one has. */
		assert_int_equal(p.at_once, p.blocks);
		/* Both workers get the same id. */
		p.blocks = true;
		assert_int_equal(step(params, &p, c->decode, out, sizeof(out), other, NULL), PD_OK);
		assert_string_equal(id, other);
		if (!(c->flags & PD_WHOLE))
			assert_null(strstr(out, "evil"));
		pd_pair_release(&p);
		/* An answer that is no JSON object is no answer, unless nothing of it is read. */
		pair(&p);
		if (!(c->flags & PD_WHOLE))
			assert_int_equal(c->answered(&p, SPAN("[]"), NULL), PD_EINVAL);
		/* Without blocks decode gets what the client sent, less what names a host. */
		p.blocks = false;
		decode(c, &p, out, id);
		assert_string_equal(out, BODY);
		assert_string_equal(id, "req-1");
		pd_pair_release(&p);
	}
}

static void test_names(void **state)
{
	const struct pd_connector *c;
	struct pd_msg msg;

	(void)state;
	assert_ptr_equal(by_name("P2pNcclConnector"), by_name("p2p-nccl"));
	assert_ptr_equal(by_name("SharedStorageConnector"), by_name("example"));
	assert_ptr_equal(by_name("NIXL"), by_name("NixlConnector"));
	assert_int_equal(pd_connector_find(&c, "lmcache-proxy", &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "not spoken"));
	assert_int_equal(pd_connector_find(&c, "mooncak", &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "did you mean 'mooncake'?"));
	assert_int_equal(pd_connector_find(&c, "", &msg), PD_EINVAL);
	assert_int_equal(pd_connector_find(&c, "nixl|", &msg), PD_EINVAL);
}

static void test_p2p_nccl(void **state)
{
	const struct pd_connector *c = by_name("p2p_nccl");
	char out[4096], id[400], first[400];
	unsigned hex = 0;
	struct pd_pair p;

	(void)state;
	pair(&p);
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	assert_string_equal(out, ONE "}");
	assert_int_equal(
		strncmp(id, "___prefill_addr_10.0.0.1:8100___decode_addr_10.0.0.2:8200_", 58), 0);
	for (const char *s = id + 58; *s; s++, hex++)
		assert_non_null(strchr("0123456789abcdef", *s));
	assert_int_equal(hex, 32);
	/* The KV addresses when they are known; IPv6 in brackets. */
	(void)snprintf(first, sizeof(first), "%s", id);
	p.prefill.kv = SPAN("10.0.0.1:21001");
	p.decode.host = SPAN("::1");
	p.draw = 43;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	assert_int_equal(
		strncmp(id, "___prefill_addr_10.0.0.1:21001___decode_addr_[::1]:8200_", 56), 0);
	assert_string_not_equal(first + 58, id + 56);
	assert_int_equal(c->answered(&p, SPAN("{\"usage\":{\"prompt_tokens\":7}}"), NULL), PD_OK);
	assert_true(p.blocks && !p.at_once && p.usage.prompt_tokens == 7);
	decode(c, &p, out, first);
	assert_string_equal(out, BODY);
	assert_string_equal(first, id);
	pd_pair_release(&p);
}

static void test_mooncake(void **state)
{
	const struct pd_connector *c = by_name("mooncake");
	char out[4096], id[400], uuid[PD_UUID_TEXT], want[1024];
	struct pd_msg msg;
	struct pd_pair p;

	(void)state;
	pair(&p);
	assert_int_equal(step(BODY, &p, c->prefill, out, sizeof(out), id, &msg), PD_ENOENT);
	assert_non_null(strstr(msg.text, "named no engine"));
	p.known = SPAN("{\"0\":{\"engine_id\":\"e0\"},\"1\":{\"engine_id\":\"e1\"}}");
	p.prefill.rank = 1;
	p.prefill.bootstrap = 9001;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	pd_uuid(42, true, uuid);
	assert_true(uuid[14] == '4' && strchr("89ab", uuid[19]));
	(void)snprintf(want, sizeof(want),
		       ONE
		       ",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":"
		       "false,\"transfer_id\":\"xfer-%s\"}}",
		       uuid);
	assert_string_equal(out, want);
	assert_true(p.at_once && p.blocks);
	decode(c, &p, out, id);
	(void)snprintf(
		want, sizeof(want),
		"{\"prompt\":\"a\",\"max_tokens\":9,\"min_tokens\":1,\"stream\":true,"
		"\"kv_transfer_params\":{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
		"\"remote_bootstrap_addr\":\"http://10.0.0.1:9001\",\"remote_engine_id\":\"e1\","
		"\"transfer_id\":\"xfer-%s\"}}",
		uuid);
	assert_string_equal(out, want);
	/* A rank that the server does not name: any engine. Without a port: Mooncake's own. */
	p.prefill.rank = 7;
	p.prefill.bootstrap = 0;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	decode(c, &p, out, id);
	assert_non_null(strstr(out, "http://10.0.0.1:8998\",\"remote_engine_id\":\"e"));
	/* What a bootstrap server should not say. */
	static const char *const bad[] = {"{}",
					  "[]",
					  "{\"0\":1}",
					  "{\"0\":{}}",
					  "{\"0\":{\"engine_id\":7}}",
					  "{\"0\":{\"engine_id\":"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		p.known = span_of(bad[i]);
		assert_int_equal(prefill(c, &p, out, id), PD_ENOENT);
	}
	pd_pair_release(&p);
}

static void test_moriio(void **state)
{
	const struct pd_connector *c = by_name("moriio");
	char out[4096], id[400], uuid[PD_UUID_TEXT], want[1024];
	struct pd_pair p;

	(void)state;
	pair(&p);
	pd_uuid(42, false, uuid);
	p.decode.dp_size = 2;
	p.decode.rank = 1;
	p.decode.tp_size = 4;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	(void)snprintf(want, sizeof(want),
		       ONE
		       ",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":"
		       "false,\"remote_engine_id\":null,\"remote_block_ids\":null,\"transfer_id\":"
		       "\"tx-%s\",\"remote_dp_size\":2}}",
		       uuid);
	assert_string_equal(out, want);
	assert_false(p.at_once);
	assert_int_equal(
		c->answered(&p, SPAN("{\"kv_transfer_params\":{\"remote_host\":\"h\"}}"), NULL),
		PD_OK);
	decode(c, &p, out, id);
	assert_non_null(strstr(
		out, "\"kv_transfer_params\":{\"remote_host\":\"h\",\"remote_dp_size\":1}}"));
	assert_int_equal(c->answered(&p, SPAN("{}"), NULL), PD_OK);
	assert_false(p.blocks);
	/* WRITE */
	p.prefill.writes = true;
	p.prefill.tp_size = 8;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	(void)snprintf(want, sizeof(want),
		       "\"%s\",\"remote_dp_size\":2,\"remote_tp_size\":4,\"remote_dp_rank\":1}}",
		       "");
	assert_non_null(strstr(out, want + 2));
	assert_true(p.at_once && p.blocks);
	assert_int_equal(c->answered(&p, SPAN("{}"), NULL), PD_OK);
	assert_true(p.blocks);
	decode(c, &p, out, id);
	assert_non_null(strstr(out, "\"do_remote_decode\":false,\"do_remote_prefill\":true,"));
	assert_non_null(strstr(out, "\"remote_dp_size\":1,\"remote_tp_size\":8}}"));
	pd_pair_release(&p);
}

static void test_nixl_push(void **state)
{
	const struct pd_connector *c = by_name("nixl");
	char out[4096], id[400], known[400];
	struct pd_pair p;

	(void)state;
	pair(&p);
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	assert_false(p.at_once);
	assert_int_equal(c->answered(&p,
				     SPAN("{\"kv_transfer_params\":{\"do_remote_prefill\":true,"
					  "\"transfer_mode\":\"push\",\"remote_engine_id\":\"e\","
					  "\"remote_host\":\"h\",\"remote_port\":5559}}"),
				     NULL),
			 PD_OK);
	assert_true(p.blocks && p.learnt.n > 0);
	(void)snprintf(known, sizeof(known), "%.*s", (int)p.learnt.n, p.learnt.p);
	decode(c, &p, out, id);
	assert_non_null(strstr(out, "\"transfer_mode\":\"push\""));
	pd_pair_release(&p);
	/* From then on at once. */
	pair(&p);
	p.known = span_of(known);
	p.id = SPAN("req \"2\"");
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	assert_true(p.at_once && p.blocks);
	assert_non_null(strstr(out, "\"do_remote_decode\":true"));
	decode(c, &p, out, id);
	assert_non_null(strstr(
		out, "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":"
		     "false,\"remote_engine_id\":\"e\",\"remote_host\":\"h\",\"remote_port\":"
		     "5559,\"tp_size\":1,\"remote_request_id\":\"req \\\"2\\\"\"}}"));
	pd_pair_release(&p);
	/* Half an identity is none, and a pull is no push. */
	pair(&p);
	assert_int_equal(c->answered(&p,
				     SPAN("{\"kv_transfer_params\":{\"do_remote_prefill\":true,"
					  "\"transfer_mode\":\"push\",\"remote_host\":\"h\"}}"),
				     NULL),
			 PD_OK);
	assert_true(p.blocks && p.learnt.n == 0);
	assert_int_equal(c->answered(&p,
				     SPAN("{\"kv_transfer_params\":{\"do_remote_prefill\":true,"
					  "\"remote_engine_id\":\"e\",\"remote_host\":\"h\","
					  "\"remote_port\":1,\"transfer_mode\":\"pull\"}}"),
				     NULL),
			 PD_OK);
	assert_true(p.learnt.n == 0);
	pd_pair_release(&p);
}

static void test_sglang(void **state)
{
	const struct pd_connector *c = by_name("sglang");
	char out[4096], id[400], other[4096];
	struct pd_pair p;

	(void)state;
	pair(&p);
	p.prefill.bootstrap = 8998;
	p.draw = 10;
	assert_int_equal(prefill(c, &p, out, id), PD_OK);
	assert_string_equal(out,
			    "{\"prompt\":\"a\",\"max_tokens\":9,\"min_tokens\":1,\"stream\":true,"
			    "\"bootstrap_host\":\"10.0.0.1\",\"bootstrap_port\":8998,\"bootstrap_"
			    "room\":5}");
	decode(c, &p, other, id);
	assert_string_equal(out, other);
	/* A batch: lists, and a room for each prompt. The tokens of one prompt are one prompt. */
	assert_int_equal(step("{\"prompt\":[\"a\",[1]],\"bootstrap_room\":7}", &p, c->prefill, out,
			      sizeof(out), id, NULL),
			 PD_OK);
	assert_string_equal(out,
			    "{\"prompt\":[\"a\",[1]],\"bootstrap_room\":[5,6],\"bootstrap_host\":"
			    "[\"10.0.0.1\",\"10.0.0.1\"],\"bootstrap_port\":[8998,8998]}");
	p.prefill.bootstrap = 0;
	assert_int_equal(step("{\"prompt\":[1,2,3]}", &p, c->prefill, out, sizeof(out), id, NULL),
			 PD_OK);
	assert_string_equal(
		out, "{\"prompt\":[1,2,3],\"bootstrap_host\":\"10.0.0.1\",\"bootstrap_port\":"
		     "null,\"bootstrap_room\":5}");
	assert_int_equal(step("{\"bootstrap_room\":1,\"bootstrap_room\":2}", &p, c->prefill, out,
			      sizeof(out), id, NULL),
			 PD_EINVAL);
	pd_pair_release(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row), cmocka_unit_test(test_names),
		cmocka_unit_test(test_p2p_nccl),  cmocka_unit_test(test_mooncake),
		cmocka_unit_test(test_moriio),	  cmocka_unit_test(test_nixl_push),
		cmocka_unit_test(test_sglang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
