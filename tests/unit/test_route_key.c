/* Session keys: what counts, what wins, and what only looks like a key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/route/hash.h"
#include "lib/route/key/key_extract.h"

#define FIELDS_MAX 24

/* "name: value" lines to fields; at most FIELDS_MAX. */
static size_t parse_fields(const char *lines, struct field *f)
{
	size_t n = 0;

	while (*lines) {
		size_t name = strcspn(lines, ":"), line = strcspn(lines, "\n");

		f[n].name = (struct span){lines, name};
		f[n].value = (struct span){lines + name + 1, line - name - 1};
		f[n++].tag = 0;
		lines += line + (lines[line] == '\n');
	}
	return n;
}

static struct route_key extract(const struct route_keyspec *s, const char *headers,
				const char *body)
{
	struct json_object o;
	struct route_key key;
	struct field f[FIELDS_MAX];
	size_t n = parse_fields(headers, f);

	memset(&key, 0x5A, sizeof(key));
	if (!body) {
		route_key_extract(s, f, n, NULL, &key);
		return key;
	}
	assert_int_equal(json_object_scan(&o, body, strlen(body), NULL), PD_OK);
	route_key_extract(s, f, n, &o, &key);
	json_object_release(&o);
	assert_int_equal(key.len, strlen(key.text));
	return key;
}

/* Copies text with its terminator; returns its length. */
static size_t put(char *out, const char *text)
{
	size_t n = strlen(text);

	memcpy(out, text, n + 1);
	return n;
}

struct example {
	const char *headers, *body, *text, *source;
	enum route_key_level level;
};

#define SESSION ROUTE_KEY_SESSION
#define USER	ROUTE_KEY_USER

static const struct example defaults[] = {
	/* each source alone */
	{"X-Session-Id: s1", NULL, "s1", "header:x-session-id", SESSION},
	{"x-claude-code-session-id:c1", "{}", "c1", "header:x-claude-code-session-id", SESSION},
	{"SESSION-ID: q", "{}", "q", "header:session-id", SESSION},
	{"Session_id: q", "{}", "q", "header:session_id", SESSION},
	{"x-session-affinity: ses_1", NULL, "ses_1", "header:x-session-affinity", SESSION},
	{"X-Opencode-Session: ses_1", NULL, "ses_1", "header:x-opencode-session", SESSION},
	{"X-Amp-Thread-Id: T-1", NULL, "T-1", "header:x-amp-thread-id", SESSION},
	{"X-KiloCode-TaskId: t", NULL, "t", "header:x-kilocode-taskid", SESSION},
	{"X-Hermes-Session-Id: h", NULL, "h", "header:x-hermes-session-id", SESSION},
	{"x-grok-conv-id: g", NULL, "g", "header:x-grok-conv-id", SESSION},
	{"x-litellm-session-id: l", NULL, "l", "header:x-litellm-session-id", SESSION},
	{"X-Dynamo-Session-ID: d", NULL, "d", "header:x-dynamo-session-id", SESSION},
	{"X-OpenWebUI-Chat-Id: o\nX-OpenWebUI-User-Id: u", NULL, "o", "header:x-openwebui-chat-id",
	 SESSION},
	{"X-OpenWebUI-User-Id: u", "{\"user\":\"v\"}", "u", "header:x-openwebui-user-id", USER},
	{"", "{\"safety_identifier\":\"s\"}", "s", "body:safety_identifier", USER},
	/* Claude Code's user id has the session in it; another one is a user */
	{"", "{\"metadata\":{\"user_id\":\"user_ab_account_1_session_5f-6\"}}", "5f-6",
	 "body:metadata.user_id", SESSION},
	{"",
	 "{\"metadata\":{\"user_id\":\"{\\\"device_id\\\":\\\"d\\\",\\\"session_id\\\":\\\"5f\\\"}"
	 "\"}}",
	 "5f", "body:metadata.user_id", SESSION},
	{"", "{\"metadata\":{\"user_id\":\"{\\\"a\\\":\\\"x_session_y\\\"}\"}}",
	 "{\"a\":\"x_session_y\"}", "body:metadata.user_id", USER},
	{"", "{\"metadata\":{\"user_id\":\"user_123\"}}", "user_123", "body:metadata.user_id",
	 USER},
	{"", "{\"metadata\":{\"user_id\":\"a_session_  \"}}", "a_session_", "body:metadata.user_id",
	 USER},
	{"", "{\"user\":\"u\",\"metadata\":{\"user_id\":\"user_1_session_2\"}}", "2",
	 "body:metadata.user_id", SESSION},
	{"", "{\"metadata\":{\"user_id\":7}}", "7", "body:metadata.user_id", USER},
	/* many fields, of which each has the length of a source */
	{"a234567890: 1\nb234567890: 1\nc234567890: 1\nd234567890: 1\ne234567890: 1\n"
	 "f234567890: 1\ng234567890: 1\nh234567890: 1\ni234567890: 1\nj234567890: 1\n"
	 "k234567890: 1\nl234567890: 1\nm234567890: 1\nn234567890: 1\no234567890: 1\n"
	 "p234567890: 1\nq234567890: 1\nsession_id: s",
	 NULL, "s", "header:session_id", SESSION},
	{"X-User-ID: bob", "{}", "bob", "header:x-user-id", USER},
	{"", "{\"session_params\":{\"session_id\":\"p\"}}", "p", "body:session_params.session_id",
	 SESSION},
	{"", "{\"session_id\":\"t\"}", "t", "body:session_id", SESSION},
	{"", "{\"prompt_cache_key\":\"k\"}", "k", "body:prompt_cache_key", SESSION},
	{"", "{\"conversation\":\"conv\"}", "conv", "body:conversation", SESSION},
	{"", "{\"conversation\":{\"id\":\"conv2\"}}", "conv2", "body:conversation.id", SESSION},
	{"", "{\"user\":\"alice\"}", "alice", "body:user", USER},
	{"", "{\"user_id\":\"al\"}", "al", "body:user_id", USER},
	/* agentic context as an object and as text; program before session */
	{"",
	 "{\"vllm_xargs\":{\"agentic_context\":{\"session_id\":\"x\",\"program_id\":\"prog\"}}}",
	 "prog", "body:vllm_xargs.agentic_context.program_id", SESSION},
	{"", "{\"vllm_xargs\":{\"agentic_context\":{\"session_id\":\"x\",\"program_id\":null}}}",
	 "x", "body:vllm_xargs.agentic_context.session_id", SESSION},
	{"", "{\"vllm_xargs\":{\"agentic_context\":\"{\\\"program_id\\\":\\\"a\\\\u0062\\\"}\"}}",
	 "ab", "body:vllm_xargs.agentic_context.program_id", SESSION},
	{"", "{\"vllm_xargs\":{\"agentic_context\":\"{\\\"program_id\\\":7} \"}}", "7",
	 "body:vllm_xargs.agentic_context.program_id", SESSION},
	{"", "{\"vllm_xargs\":{\"agentic_context\":\"not json\"},\"user\":\"u\"}", "u", "body:user",
	 USER},
	{"", "{\"vllm_xargs\":{\"agentic_context\":[1]},\"user\":\"u\"}", "u", "body:user", USER},
	{"", "{\"vllm_xargs\":\"agentic_context\",\"user\":\"u\"}", "u", "body:user", USER},
	/* an agent of a session is a conversation of its own */
	{"x-claude-code-session-id: c\nX-Claude-Code-Agent-Id: a7", "{}", "c:a7",
	 "header:x-claude-code-session-id", SESSION},
	{"x-claude-code-session-id: c\nX-Claude-Code-Agent-Id: ", "{}", "c",
	 "header:x-claude-code-session-id", SESSION},
	{"X-Claude-Code-Agent-Id: a7", "{\"user\":\"u\"}", "u", "body:user", USER},
	/* the order inside a level, and session before user wherever it is found */
	{"session-id: 3\nx-claude-code-session-id: 2\nx-session-id: 1", "{\"session_id\":\"4\"}",
	 "1", "header:x-session-id", SESSION},
	{"x-user-id: u", "{\"session_id\":\"s\",\"user\":\"v\"}", "s", "body:session_id", SESSION},
	{"x-user-id: u", "{\"user\":\"v\"}", "u", "header:x-user-id", USER},
	{"", "{\"session_id\":\"b\",\"session_params\":{\"session_id\":\"a\"}}", "a",
	 "body:session_params.session_id", SESSION},
	/* numbers by their digits, exactly as written */
	{"", "{\"session_id\":12345678901234567890123}", "12345678901234567890123",
	 "body:session_id", SESSION},
	{"", "{\"session_id\":1.50e3}", "1.50e3", "body:session_id", SESSION},
	{"", "{\"session_id\":0}", "0", "body:session_id", SESSION},
	/* null, empty, blank and other types are no values; the next source is asked */
	{"x-session-id:   ",
	 "{\"session_id\":\"\",\"prompt_cache_key\":null,\"conversation\":{},\"user\":\"  \","
	 "\"user_id\":\"last\"}",
	 "last", "body:user_id", USER},
	{"",
	 "{\"session_id\":true,\"prompt_cache_key\":[\"a\"],\"conversation\":{\"id\":{}},\"user\":{"
	 "\"a\":1},"
	 "\"user_id\":false}",
	 "", "", ROUTE_KEY_NONE},
	{"x-session-id:\nx-session-id: second", NULL, "second", "header:x-session-id", SESSION},
	/* the last of doubled members, also when it is null */
	{"", "{\"session_id\":\"a\",\"session_id\":\"b\"}", "b", "body:session_id", SESSION},
	{"", "{\"session_id\":\"a\",\"session_id\":null}", "", "", ROUTE_KEY_NONE},
	{"", "{\"session_params\":{\"session_id\":\"a\",\"session_id\":\"b\"}}", "b",
	 "body:session_params.session_id", SESSION},
	{"", "{\"conversation\":{\"id\":\"a\",\"id\":null}}", "", "", ROUTE_KEY_NONE},
	/* escapes in names and values */
	{"", "{\"session\\u005fid\":\"caf\\u00e9 \\ud83d\\ude00\"}", "caf\xc3\xa9 \xf0\x9f\x98\x80",
	 "body:session_id", SESSION},
	{"", "{\"session_params\":{\"session\\u005Fid\":\"v\"}}", "v",
	 "body:session_params.session_id", SESSION},
	/* what only looks like a key */
	{"",
	 "{\"messages\":[{\"role\":\"user\",\"content\":\"\\\"user\\\": \\\"eve\\\", "
	 "\\\"session_id\\\":1\"}]}",
	 "", "", ROUTE_KEY_NONE},
	{"", "{\"metadata\":{\"session_id\":\"m\",\"user\":\"n\"}}", "", "", ROUTE_KEY_NONE},
	{"x-request-id: 1\nx-correlation-id: 2\nx-trace-id: 3\nx-tenant-id: 4",
	 "{\"previous_response_id\":\"p\"}", "", "", ROUTE_KEY_NONE},
	{"x-session-ids: 1\nx-session-i: 2", NULL, "", "", ROUTE_KEY_NONE},
	{"", "{}", "", "", ROUTE_KEY_NONE},
};

static void check(const struct route_keyspec *s, const struct example *e)
{
	struct route_key k = extract(s, e->headers, e->body);

	if (strcmp(k.text, e->text) != 0 || strcmp(k.source, e->source) != 0 || k.level != e->level)
		fail_msg("headers '%s' body '%s': key '%s' from '%s', expected '%s' from '%s'",
			 e->headers, e->body ? e->body : "", k.text, k.source, e->text, e->source);
}

static void test_default(void **state)
{
	struct route_keyspec s;

	(void)state;
	route_keyspec_default(&s);
	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		check(&s, &defaults[i]);
}

/* vllm-router's prefixes; headers in its order before all bodies; its order of fields. */
static const struct example compat[] = {
	{"X-Session-ID: session-123", "{}", "header:x-session-id:session-123",
	 "header:x-session-id", SESSION},
	{"x-user-id: u\nx-session-id: s", "{}", "header:x-session-id:s", "header:x-session-id",
	 SESSION},
	{"x-tenant-id: t\nx-user-id: u", "{}", "header:x-user-id:u", "header:x-user-id", USER},
	{"x-correlation-id: c\nx-tenant-id: t", "{}", "header:x-tenant-id:t", "header:x-tenant-id",
	 USER},
	{"x-request-id: r\nx-correlation-id: c", "{}", "header:x-correlation-id:c",
	 "header:x-correlation-id", SESSION},
	{"x-trace-id: t\nx-request-id: r", "{}", "header:x-request-id:r", "header:x-request-id",
	 SESSION},
	{"x-trace-id: t", "{\"session_id\":\"s\"}", "header:x-trace-id:t", "header:x-trace-id",
	 SESSION},
	{"x-session-id:", "{\"user\":\"alice\"}", "user:alice", "body:user", USER},
	{"session-id: no", "{\"session_id\":\"abc\"}", "session:abc", "body:session_id", SESSION},
	{"",
	 "{\"session_id\":\"abc\",\"user\":\"alice\",\"session_params\":{\"session_id\":\"x\"}}",
	 "session:x", "body:session_params.session_id", SESSION},
	{"", "{\"session_id\":\"abc\",\"user\":\"alice\",\"user_id\":\"z\"}", "user:alice",
	 "body:user", USER},
	{"", "{\"session_id\":\"abc\",\"user_id\":\"z\"}", "session:abc", "body:session_id",
	 SESSION},
	{"", "{\"user_id\":42}", "user:42", "body:user_id", USER},
	/* a real scan: text is no field, null is no value */
	{"", "{\"messages\":[{\"role\":\"user\",\"content\":\"user: eve\"}],\"user\":\"alice\"}",
	 "user:alice", "body:user", USER},
	{"", "{\"user\":null,\"session_id\":\"s\"}", "session:s", "body:session_id", SESSION},
	{"", "{\"prompt_cache_key\":\"k\"}", "request:{\"prompt_cache_key\":\"k\"}", "request",
	 ROUTE_KEY_PREFIX},
	{"", NULL, "request:", "request", ROUTE_KEY_PREFIX},
};

static void test_compat(void **state)
{
	struct route_keyspec s;

	(void)state;
	route_keyspec_default(&s);
	s.compat = ROUTE_COMPAT_VLLM_ROUTER;
	for (size_t i = 0; i < sizeof(compat) / sizeof(compat[0]); i++)
		check(&s, &compat[i]);
}

/* With fields_only what is no field gives no key, and what is one gives the same. */
static void test_compat_fields_only(void **state)
{
	struct route_keyspec s;

	(void)state;
	route_keyspec_default(&s);
	s.compat = ROUTE_COMPAT_VLLM_ROUTER;
	s.fields_only = true;
	for (size_t i = 0; i < sizeof(compat) / sizeof(compat[0]); i++) {
		if (compat[i].level != ROUTE_KEY_PREFIX)
			check(&s, &compat[i]);
		else
			assert_int_equal(extract(&s, compat[i].headers, compat[i].body).level,
					 ROUTE_KEY_NONE);
	}
}

static void test_compat_body(void **state)
{
	char body[160], want[200];
	struct route_keyspec s;

	(void)state;
	route_keyspec_default(&s);
	s.compat = ROUTE_COMPAT_VLLM_ROUTER;
	for (unsigned n = 99; n <= 102; n++) {
		(void)snprintf(body, sizeof(body), "{\"p\":\"%0*d\"}", (int)n - 8, 0);
		if (n <= 100)
			(void)snprintf(want, sizeof(want), "request:%s", body);
		else
			(void)snprintf(want, sizeof(want), "request_hash:%016llx",
				       (unsigned long long)route_fbi_hash(body, n));
		assert_int_equal(strlen(body), n);
		assert_string_equal(extract(&s, "", body).text, want);
	}
}

/* Long values: kept up to the limit, hashed above, and the same in a header and in a body with
 * escapes. */
static void test_long_values(void **state)
{
	static const unsigned sizes[] = {500, 509, 510, 511,  512,  513,
					 514, 515, 520, 2047, 5000, 100000};
	struct route_keyspec s;

	(void)state;
	route_keyspec_default(&s);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t n = sizes[i], at = 0;
		char *header = malloc(n + 20), *plain = malloc(n + 40),
		     *escaped = malloc(6 * n + 40);
		struct route_key a, b, c, other;

		assert_true(header && plain && escaped);
		at = put(header, "x-session-id: ");
		memset(header + at, 'x', n);
		header[at + n - 1] = 'y';
		header[at + n] = '\0';
		(void)snprintf(plain, n + 40, "{\"session_id\":\"%s\"}", header + at);
		at = put(escaped, "{\"session_id\":\"");
		for (size_t k = 0; k + 1 < n; k++)
			at += put(escaped + at, "\\u0078");
		(void)snprintf(escaped + at, 10, "\\u0079\"}");
		a = extract(&s, header, NULL);
		b = extract(&s, "", plain);
		c = extract(&s, "", escaped);
		assert_string_equal(a.text, b.text);
		assert_string_equal(a.text, c.text);
		if (n <= ROUTE_KEY_MAX)
			assert_int_equal(a.len, n);
		else
			assert_memory_equal(a.text, "xxh3:", 5);
		header[15] = 'z'; /* another value, another key */
		other = extract(&s, header, NULL);
		assert_string_not_equal(a.text, other.text);
		free(header);
		free(plain);
		free(escaped);
	}
}

/* Text that holds an agentic context counts up to 16 KiB. */
static void test_context_limit(void **state)
{
	char *body = malloc(40000);
	struct route_keyspec s;

	(void)state;
	assert_non_null(body);
	route_keyspec_default(&s);
	for (unsigned over = 0; over < 2; over++) {
		(void)snprintf(body, 40000,
			       "{\"vllm_xargs\":{\"agentic_context\":\"{\\\"program_id\\\":"
			       "\\\"p\\\",\\\"x\\\":\\\"%0*d\\\"}\"}}",
			       16384 - 25 + (int)over, 0);
		assert_string_equal(extract(&s, "", body).text, over ? "" : "p");
	}
	free(body);
}

static void test_spec(void **state)
{
	struct route_keyspec s;
	struct pd_msg msg;

	(void)state;
	route_keyspec_default(&s);
	assert_int_equal(route_keyspec_parse(
				 &s,
				 "header:X-Tenant-Id, body:metadata.user_id,body:metadata.thread "
				 ",header:x-request-id",
				 &msg),
			 PD_OK);
	assert_int_equal(s.n, 4);
	assert_string_equal(s.source[0].name, "x-tenant-id");
	assert_true(s.source[0].header);
	assert_int_equal(s.source[0].level, USER);
	assert_int_equal(s.source[1].level, USER);
	assert_string_equal(s.source[2].name, "metadata.thread");
	assert_int_equal(s.source[2].level, SESSION);
	{
		static const struct example custom[] = {
			{"x-tenant-id: t", "{\"metadata\":{\"thread\":9}}", "9",
			 "body:metadata.thread", SESSION},
			{"x-tenant-id: t", "{\"metadata\":{\"user_id\":9}}", "t",
			 "header:x-tenant-id", USER},
			{"x-session-id: t", "{\"session_id\":9}", "", "", ROUTE_KEY_NONE},
			{"x-request-id: t", "{\"metadata\":4}", "t", "header:x-request-id",
			 SESSION},
		};

		for (size_t i = 0; i < sizeof(custom) / sizeof(custom[0]); i++)
			check(&s, &custom[i]);
	}
}

static void test_bad_spec(void **state)
{
	static const struct {
		const char *text, *complaint;
	} bad[] = {
		{"", "item 1 ''"},
		{"header:", "item 1 'header:', expected a header name"},
		{"body:", "item 1 'body:', expected a path"},
		{"x-session-id", "item 1 'x-session-id', expected header:NAME or body:PATH"},
		{"header:a,,body:b", "item 2 ''"},
		{"header:a,body:b,", "item 3 ''"},
		{"header:a b", "item 1 'header:a b'"},
		{"body:a..b", "item 1 'body:a..b'"},
		{"body:.a", "item 1 'body:.a'"},
		{"body:a.", "item 1 'body:a.'"},
		{"Header:a", "item 1 'Header:a'"},
		{"body:0123456789012345678901234567890123456789012345678901234567890123456789aa",
		 "72 bytes"},
	};
	char many[ROUTE_SOURCES_MAX * 10 + 20] = "body:a";
	struct route_keyspec s;
	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		route_keyspec_default(&s);
		assert_int_equal(route_keyspec_parse(&s, bad[i].text, &msg), PD_EINVAL);
		if (!strstr(msg.text, bad[i].complaint))
			fail_msg("'%s': %s", bad[i].text, msg.text);
		assert_int_equal(s.n, 25); /* as it was */
	}
	for (size_t i = 1; i < ROUTE_SOURCES_MAX; i++)
		memcpy(many + 6 + (i - 1) * 7, ",body:a", 8);
	assert_int_equal(route_keyspec_parse(&s, many, &msg), PD_OK);
	assert_int_equal(s.n, ROUTE_SOURCES_MAX);
	memcpy(many + 6 + (ROUTE_SOURCES_MAX - 1) * 7, ",body:a", 8);
	assert_int_equal(route_keyspec_parse(&s, many, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "more than 32"));
}

static struct route_key prefix_of(const char *body)
{
	struct json_object o;
	struct route_key k;

	assert_int_equal(json_object_scan(&o, body, strlen(body), NULL), PD_OK);
	route_key_prefix(&o, &k);
	json_object_release(&o);
	return k;
}

static void same_prefix(const char *a, const char *b, bool same)
{
	struct route_key x = prefix_of(a), y = prefix_of(b);

	assert_int_equal(x.level, ROUTE_KEY_PREFIX);
	assert_string_equal(x.source, "prefix");
	if ((strcmp(x.text, y.text) == 0) != same)
		fail_msg("%s:\n%s\n%s", same ? "differ" : "equal", a, b);
}

#define CHAT(rest) "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"}," rest "]}"

static void test_prefix(void **state)
{
	(void)state;
	/* a growing conversation keeps its key; another first question has another */
	same_prefix(CHAT("{\"role\":\"user\",\"content\":\"hi\"}"),
		    CHAT("{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","
			 "\"content\":\"yes?\"},"
			 "{\"role\":\"user\",\"content\":\"more\"}"),
		    true);
	same_prefix(CHAT("{\"role\":\"user\",\"content\":\"hi\"}"),
		    CHAT("{\"role\":\"user\",\"content\":\"ho\"}"), false);
	/* spelling does not matter */
	same_prefix(CHAT("{\"role\":\"user\",\"content\":\"h\\u00e9\"}"),
		    CHAT("{ \"content\" : \"h\xc3\xa9\", \"role\":\"user\" }"), true);
	same_prefix(CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}"),
		    CHAT("{\"role\":\"user\",\"content\":[{\"text\":\"hi\",\"type\":\"text\"}]}"),
		    true);
	same_prefix(CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
			 "\"url\":\"a\"}}]}"),
		    CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
			 "\"url\":\"b\"}}]}"),
		    false);
	/* who says it does matter, and where one text ends */
	same_prefix("{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\","
		    "\"content\":\"b\"}]}",
		    "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"},{\"role\":\"user\","
		    "\"content\":\"b\"}]}",
		    false);
	same_prefix("{\"prompt\":[\"ab\",\"c\"]}", "{\"prompt\":[\"a\",\"bc\"]}", false);
	same_prefix("{\"prompt\":[1,23]}", "{\"prompt\":[12,3]}", false);
	same_prefix("{\"prompt\":[1,23]}", "{\"prompt\": [ 1 , 23 ] ,\"max_tokens\":5}", true);
	same_prefix("{\"prompt\":[[1],[2]]}", "{\"prompt\":[[1],[3]]}", false);
	same_prefix("{\"prompt\":\"once\"}", "{\"prompt\":\"twice\"}", false);
	same_prefix("{\"input\":\"once\"}", "{\"input\":\"once\",\"model\":\"m\"}", true);
	same_prefix("{\"instructions\":\"a\",\"input\":\"x\"}",
		    "{\"instructions\":\"b\",\"input\":\"x\"}", false);
}

static void test_no_prefix(void **state)
{
	static const char *const bodies[] = {
		"{}",
		"{\"prompt\":null}",
		"{\"prompt\":\"\"}",
		"{\"messages\":[]}",
		"{\"messages\":{}}",
		"{\"model\":\"m\"}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
		"{\"messages\":[{\"role\":\"user\"}]}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		assert_int_equal(prefix_of(bodies[i]).level, ROUTE_KEY_NONE);
		assert_int_equal(prefix_of(bodies[i]).len, 0);
	}
}

/* Only the first 4096 bytes count, in every spelling. */
static void test_prefix_limit(void **state)
{
	char *a = malloc(60000), *b = malloc(60000);

	(void)state;
	assert_true(a && b);
	for (int n = 4090; n <= 4110; n++) {
		size_t at;

		(void)snprintf(a, 60000, "{\"prompt\":\"%0*dA\"}", n, 0);
		(void)snprintf(b, 60000, "{\"prompt\":\"%0*dB\"}", n, 0);
		same_prefix(a, b, n >= ROUTE_PREFIX_MAX);
		at = put(b, "{\"prompt\":\"");
		for (int i = 0; i < n; i++)
			at += put(b + at, i % 2 ? "0" : "\\u0030");
		(void)snprintf(b + at, 10, "A\"}");
		same_prefix(a, b, true);
	}
	free(a);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_compat),
		cmocka_unit_test(test_compat_fields_only),
		cmocka_unit_test(test_compat_body),
		cmocka_unit_test(test_long_values),
		cmocka_unit_test(test_context_limit),
		cmocka_unit_test(test_spec),
		cmocka_unit_test(test_bad_spec),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_no_prefix),
		cmocka_unit_test(test_prefix_limit),
	};

	return cmocka_run_group_tests_name("route_key", tests, NULL, NULL);
}
