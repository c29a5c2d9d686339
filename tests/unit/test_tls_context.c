/* Certificates: names, CAs, SNI, dates, reload, and files that cannot be used. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "tests/unit/tls_kit.h"

static void test_names(void **state)
{
	static const struct {
		const char *cert, *host, *why; /* why NULL: accepted */
	} rows[] = {
		{"a", "a.example", NULL},
		{"a", "A.EXAMPLE", NULL},
		{"a", "127.0.0.1", NULL},
		{"a", "::1", NULL},
		{"b", "x.b.example", NULL},
		{"a", "b.example",
		 "certificate is for a.example, 127.0.0.1, 0:0:0:0:0:0:0:1, "
		 "expected b.example"},
		{"a", "127.0.0.2", "expected 127.0.0.2"},
		{"b", "x.y.b.example", "expected x.y.b.example"},
		{"b", "127.0.0.1",
		 "certificate is for b.example, x.b.example, *.b.example, expected 127.0.0.1"},
		{"expired", "a.example", "certificate 'expired' has expired on 20"},
		{"future", "a.example", "certificate 'future' is not valid before 20"},
		{"lonely", "a.example", "was issued by an unknown CA 'Intermediate'"},
		{"below", "a.example", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_pair lonely = {kit_path("lonely.pem"), kit_path("below.key")};
		struct tls_context *s =
			strcmp(rows[i].cert, "lonely") == 0
				? kit_must(&(struct tls_config){
					  .server = true, .pairs = &lonely, .npairs = 1})
				: kit_server(rows[i].cert);
		struct tls_context *c = kit_client("ca.pem");
		struct kit_link l;

		connect_pair(&l, c, s, NULL, rows[i].host);
		assert_int_equal(shake(&l), rows[i].why == NULL);
		if (rows[i].why) {
			assert_int_equal(l.client_err, PD_EPROTO);
			SAYS(l.client_why, rows[i].why);
			assert_string_equal(tls_error(l.client), l.client_why.text);
		} else {
			assert_string_equal(tls_version(l.client), "TLSv1.3");
			talks(&l);
		}
		cut(&l, true);
		tls_context_free(s);
		tls_context_free(c);
	}
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_unknown_ca(void **state)
{
	struct tls_context *s = kit_server("a"), *self = kit_server("ca"),
			   *c = kit_client("otherca.pem"), *system_cas = kit_client(NULL),
			   *inter = kit_client("inter.pem"), *below = kit_server("below"),
			   *blind = kit_must(&(struct tls_config){.insecure = true});
	struct kit_link l;

	(void)state;
	connect_pair(&l, c, s, NULL, "a.example");
	assert_false(shake(&l));
	SAYS(l.client_why, "certificate 'a' was issued by an unknown CA 'Test CA'");
	assert_int_equal(l.server_err, PD_EPROTO);
	SAYS(l.server_why, "the client does not trust our certificate's CA");
	cut(&l, true);
	connect_pair(&l, system_cas, s, NULL, "a.example");
	assert_false(shake(&l));
	SAYS(l.client_why, "unknown CA");
	cut(&l, true);
	connect_pair(&l, system_cas, self, NULL, "a.example");
	assert_false(shake(&l));
	SAYS(l.client_why, "is self-signed");
	cut(&l, true);
	connect_pair(&l, inter, below, NULL, "a.example"); /* a trusted intermediate is enough */
	assert_true(shake(&l));
	cut(&l, true);
	connect_pair(&l, blind, s, NULL, "other.example"); /* only on request */
	assert_true(shake(&l));
	talks(&l);
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(self);
	tls_context_free(c);
	tls_context_free(system_cas);
	tls_context_free(inter);
	tls_context_free(below);
	tls_context_free(blind);
}

static void test_sni(void **state)
{
	static const struct {
		const char *host, *served;
	} rows[] = {
		{"a.example", "a"},	 {"b.example", "b"}, {"x.b.example", "b"},
		{"y.b.example", "wild"}, {"elsewhere", "a"}, {"127.0.0.1", "a"},
	};
	struct tls_pair pairs[3] = {{kit_path("a.pem"), kit_path("a.key")},
				    {kit_path("wild.pem"), kit_path("wild.key")},
				    {kit_path("b.pem"), kit_path("b.key")}};
	struct tls_context *s =
		kit_must(&(struct tls_config){.server = true, .pairs = pairs, .npairs = 3});
	struct tls_context *c = kit_must(&(struct tls_config){.insecure = true});
	char name[64];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kit_link l;

		connect_pair(&l, c, s, NULL, rows[i].host);
		assert_true(shake(&l));
		talks(&l);
		tls_peer_certificate(l.client, name, sizeof(name));
		assert_string_equal(name, rows[i].served);
		cut(&l, true);
	}
	tls_context_free(s);
	tls_context_free(c);
}

static void copy(const char *from, const char *to)
{
	struct buf b;

	buf_init(&b, 1 << 20);
	assert_int_equal(file_read(kit_path(from), &b, NULL), PD_OK);
	assert_int_equal(file_write(kit_path(to), b.data, b.len, NULL), PD_OK);
	buf_release(&b);
}

static void test_reload(void **state)
{
	struct tls_context *s, *c = kit_must(&(struct tls_config){.insecure = true});
	struct kit_link old, between, fresh;
	struct pd_msg msg = {0};
	char name[64];

	(void)state;
	copy("a.pem", "live.pem");
	copy("a.key", "live.key");
	s = kit_server("live");
	connect_pair(&old, c, s, NULL, "a.example");
	assert_true(shake(&old));
	connect_pair(&between, c, s, NULL, "a.example"); /* its handshake has not begun */
	/* Half of a change, and rubbish: nothing changes. */
	copy("b.pem", "live.pem");
	assert_int_equal(tls_context_reload(s, &msg), PD_EINVAL);
	SAYS(msg, "does not belong to the certificate");
	assert_int_equal(file_write(kit_path("live.key"), "x", 1, NULL), PD_OK);
	assert_int_equal(tls_context_reload(s, &msg), PD_EINVAL);
	connect_pair(&fresh, c, s, NULL, "a.example");
	assert_true(shake(&fresh));
	tls_peer_certificate(fresh.client, name, sizeof(name));
	assert_string_equal(name, "a");
	cut(&fresh, true);
	copy("b.key", "live.key");
	assert_int_equal(tls_context_reload(s, &msg), PD_OK);
	connect_pair(&fresh, c, s, NULL, "a.example");
	assert_true(shake(&fresh));
	tls_peer_certificate(fresh.client, name, sizeof(name));
	assert_string_equal(name, "b");
	talks(&old);
	assert_true(shake(&between));
	tls_peer_certificate(between.client, name, sizeof(name));
	assert_string_equal(name, "a");
	tls_context_free(s); /* connections outlive their context */
	tls_context_free(c);
	talks(&old);
	talks(&between);
	talks(&fresh);
	cut(&old, true);
	cut(&between, true);
	cut(&fresh, true);
}

static void test_expiry(void **state)
{
	struct tls_context *good = kit_server("a"), *bad = kit_server("expired"),
			   *early = kit_server("future");
	int64_t now = clock_wall();
	struct pd_msg msg = {0};

	(void)state;
	assert_false(tls_context_expiry(good, now, 0, &msg));
	assert_true(tls_context_expiry(good, now, 60 * DAY * NS_PER_S, &msg));
	SAYS(msg, "a.pem' expires on 20");
	assert_true(tls_context_expiry(bad, now, 0, &msg));
	SAYS(msg, "expired.pem' has expired on 20");
	assert_true(tls_context_expiry(early, now, 0, &msg));
	SAYS(msg, "is not valid before 20");
	assert_in_range(tls_context_not_after(good), now / NS_PER_S + 49 * DAY,
			now / NS_PER_S + 51 * DAY);
	tls_context_free(good);
	tls_context_free(bad);
	tls_context_free(early);
}

static void refuses(const struct tls_config *cfg, const char *why)
{
	struct tls_context *c = NULL;
	struct pd_msg msg = {0};

	assert_int_equal(tls_context_new(&c, cfg, &msg), PD_EINVAL);
	assert_null(c);
	SAYS(msg, why);
}

static void refuses_pair(const char *cert, const char *key, const char *why)
{
	struct tls_pair pair = {kit_path(cert), key ? kit_path(key) : NULL};

	refuses(&(struct tls_config){.server = true, .pairs = &pair, .npairs = 1}, why);
}

static void put(const char *name, const char *text, size_t n)
{
	assert_int_equal(file_write(kit_path(name), text, n, NULL), PD_OK);
}

static void test_files(void **state)
{
	struct tls_pair pair = {kit_path("both.pem"), NULL};
	struct tls_context *c;

	(void)state;
	put("empty.pem", "", 0);
	put("text.pem", "hello\n", 6);
	put("der.pem", "\x30\x82\x01\x02", 4);
	put("cut.pem", "\n\n-----BEGIN CERTIFICATE-----\nAAAA\n", 35);
	put("twice.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", 56);
	put("bad.pem",
	    "# a comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 72);
	put("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 59);
	refuses_pair("missing.pem", "a.key", "certificate: cannot open '");
	refuses_pair("missing.pem", "a.key", "missing.pem': No such file");
	refuses_pair("a.pem", "missing.key", "private key: cannot open '");
	refuses_pair("empty.pem", "a.key", "found no certificate, expected '-----BEGIN CERT");
	refuses_pair("text.pem", "a.key", "found no certificate");
	refuses_pair("a.key", "a.key", "found only a private key, expected '-----BEGIN CERT");
	refuses_pair("a.pem", "a.pem", "found only certificates, expected '-----BEGIN PRIVATE");
	refuses_pair("a.pem", NULL, "found only certificates, expected '-----BEGIN PRIVATE");
	refuses_pair("der.pem", "a.key", "found DER, expected PEM");
	refuses_pair("cut.pem", "a.key", "cut.pem':3: '-----BEGIN CERTIFICATE-----' without");
	refuses_pair("twice.pem", "a.key", "twice.pem':1: '-----BEGIN CERTIFICATE-----' without");
	refuses_pair("bad.pem", "a.key", "bad.pem':2: damaged certificate (");
	refuses_pair("a.pem", "bad.key", "bad.key':1: damaged private key (");
	refuses_pair("below.pem", "locked.key", "locked.key':1: the private key is encrypted");
	refuses_pair("a.pem", "b.key", "b.key' does not belong to the certificate '");
	refuses(&(struct tls_config){.ca = kit_path("text.pem")}, "CA file '");
	refuses(&(struct tls_config){.server = true}, "TLS needs a certificate");
	refuses(
		&(struct tls_config){
			.server = true, .pairs = &pair, .npairs = 1, .verify = TLS_VERIFY_REQUIRED},
		"without a CA file");
	c = kit_must(&(struct tls_config){.server = true, .pairs = &pair, .npairs = 1});
	assert_int_equal(tls_context_pairs(c), 1);
	tls_context_free(c);
	assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),  cmocka_unit_test(test_unknown_ca),
		cmocka_unit_test(test_sni),    cmocka_unit_test(test_reload),
		cmocka_unit_test(test_expiry), cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
