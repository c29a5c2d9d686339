/* TLS connections: client certificates, transports that deliver byte by byte, ends, resumption, and
 * peers that speak something else. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/tls_kit.h"

/* With TLS 1.3 the client's side is done before the server has judged its certificate. */
static void test_client_certificates(void **state)
{
	static const struct {
		enum tls_verify mode;
		const char *cert, *subject, *why;
	} rows[] = {
		{TLS_VERIFY_REQUIRED, "client", "client", NULL},
		{TLS_VERIFY_REQUIRED, NULL, "", "the client has no certificate, and one is"},
		{TLS_VERIFY_REQUIRED, "stranger", "", "was issued by an unknown CA 'Other CA'"},
		{TLS_VERIFY_REQUIRED, "oldclient", "", "certificate 'oldclient' has expired on"},
		{TLS_VERIFY_OPTIONAL, "client", "client", NULL},
		{TLS_VERIFY_OPTIONAL, NULL, "", NULL},
		{TLS_VERIFY_OPTIONAL, "stranger", "", "was issued by an unknown CA 'Other CA'"},
		{TLS_VERIFY_NONE, "stranger", "", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_pair own = {kit_path("a.pem"), kit_path("a.key")}, theirs;
		char file[64], key[64], subject[64], byte;
		struct tls_context *s, *c;
		enum tls_want want;
		struct kit_link l;

		(void)snprintf(file, sizeof(file), "%s.pem", rows[i].cert ? rows[i].cert : "");
		(void)snprintf(key, sizeof(key), "%s.key", rows[i].cert ? rows[i].cert : "");
		theirs = (struct tls_pair){kit_path(file), kit_path(key)};
		s = kit_must(&(struct tls_config){.server = true,
						  .pairs = &own,
						  .npairs = 1,
						  .ca = kit_path("ca.pem"),
						  .verify = rows[i].mode});
		c = kit_must(&(struct tls_config){.ca = kit_path("ca.pem"),
						  .pairs = &theirs,
						  .npairs = rows[i].cert ? 1 : 0});
		connect_pair(&l, c, s, NULL, "a.example");
		assert_int_equal(shake(&l), rows[i].why == NULL);
		if (rows[i].why) {
			assert_int_equal(l.server_err, PD_EPROTO);
			SAYS(l.server_why, rows[i].why);
			assert_int_equal(tls_recv(l.client, &byte, 1, &want), PD_EPROTO);
			assert_true(strstr(tls_error(l.client), "alert: ") != NULL);
		} else {
			talks(&l);
			tls_peer_subject(l.server, subject, sizeof(subject));
			assert_string_equal(subject, rows[i].subject);
		}
		cut(&l, true);
		tls_context_free(s);
		tls_context_free(c);
	}
	assert_int_equal(ERR_peek_error(), 0);
}

/* Moves up to `step` bytes per turn from one descriptor to the other. */
static bool carry(int from, int to, size_t step)
{
	char buf[4096];
	ssize_t n = recv(from, buf, step, MSG_DONTWAIT);

	return n > 0 && send(to, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

/* A transport that gives one byte at a time, in both directions, for handshake and data. */
static void test_byte_by_byte(void **state)
{
	struct tls_context *s = kit_server("below"), *c = kit_client("ca.pem");
	struct tls_peer *peer = tls_peer_new("a.example");
	int client_side[2], server_side[2], ce = PD_EAGAIN, se = PD_EAGAIN;
	struct tls *tc, *ts;
	enum tls_want want;
	char got[1000], text[1000];
	size_t n = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, client_side), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, server_side), 0);
	tc = tls_connect_new(c, peer, client_side[0]);
	ts = tls_accept_new(s, server_side[0]);
	for (int i = 0; i < 20000 && (ce || se); i++) {
		ce = ce ? tls_handshake(tc, &want, NULL) : 0;
		se = se ? tls_handshake(ts, &want, NULL) : 0;
		assert_true((ce == 0 || ce == PD_EAGAIN) && (se == 0 || se == PD_EAGAIN));
		(void)carry(client_side[1], server_side[1], 1);
		(void)carry(server_side[1], client_side[1], 1);
	}
	assert_int_equal(ce, 0);
	assert_int_equal(se, 0);
	memset(text, 'x', sizeof(text));
	assert_int_equal(tls_send(tc, &(struct iovec){text, sizeof(text)}, 1, &want), 1000);
	for (int i = 0; i < 20000 && n < sizeof(text); i++) {
		ssize_t r = tls_recv(ts, got + n, sizeof(got) - n, &want);

		assert_true(r > 0 || (r == PD_EAGAIN && want == TLS_WANT_READ));
		n += r > 0 ? (size_t)r : 0;
		(void)carry(client_side[1], server_side[1], 1);
	}
	assert_memory_equal(got, text, sizeof(text));
	assert_int_equal(tls_recv(ts, got, 1, &want), PD_EAGAIN);
	assert_true(tls_drained(ts));
	tls_free(tc);
	tls_free(ts);
	tls_peer_free(peer);
	for (int i = 0; i < 2; i++) {
		(void)close(client_side[i]);
		(void)close(server_side[i]);
	}
	tls_context_free(s);
	tls_context_free(c);
}

/* 16 MB in pieces of all sizes against a peer that reads slowly: the same bytes, no more, no less;
 * retries begin with the same bytes although the vector is built anew. */
static void test_gather_and_partial_writes(void **state)
{
	enum { TOTAL = 16 << 20, PIECES = 40 };
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem");
	unsigned char *out = malloc(TOTAL), *in = malloc(TOTAL);
	size_t sent = 0, got = 0, blocked = 0;
	enum tls_want want;
	uint32_t seed = 7;
	struct kit_link l;

	(void)state;
	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < TOTAL; i++)
		out[i] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	while (got < TOTAL) {
		struct iovec iov[PIECES];
		size_t at = sent, n = 0;
		ssize_t r;

		for (; n < PIECES && at < TOTAL; n++) {
			size_t len = (size_t)(n * 7919 % 3) == 0 ? 0 : n * n * 37 + 1;

			len = len < TOTAL - at ? len : TOTAL - at;
			iov[n] = (struct iovec){out + at, len};
			at += len;
		}
		r = n > 0 ? tls_send(l.server, iov, n, &want) : PD_EAGAIN;
		assert_true(r > 0 || (r == 0 && at == sent) || r == PD_EAGAIN);
		if (r > 0) {
			sent += (size_t)r;
			continue;
		}
		blocked += n > 0 && want == TLS_WANT_WRITE;
		r = tls_recv(l.client, in + got, TOTAL - got < 50000 ? TOTAL - got : 50000, &want);
		assert_true(r > 0);
		got += (size_t)r;
	}
	assert_true(blocked > 3);
	assert_memory_equal(in, out, TOTAL);
	assert_int_equal(tls_recv(l.client, in, 1, &want), PD_EAGAIN);
	free(in);
	free(out);
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(c);
}

/* A head and a short body share one record: what a packet capture would show as one write. */
static void test_gather_is_one_record(void **state)
{
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem");
	struct iovec iov[3] = {{(void *)(uintptr_t) "head", 4},
			       {(void *)(uintptr_t) "", 0},
			       {(void *)(uintptr_t) "body", 4}};
	unsigned char raw[200];
	enum tls_want want;
	struct kit_link l;
	ssize_t n;

	(void)state;
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	talks(&l);
	assert_int_equal(tls_send(l.server, iov, 3, &want), 8);
	n = recv(l.fd[0], raw, sizeof(raw), MSG_PEEK);
	assert_int_equal(n, 5 + 8 + 1 + 16); /* header, text, content type, tag */
	hears(l.client, "headbody");
	assert_int_equal(tls_send(l.server, iov, 0, &want), 0);
	/* Several records that are there at once come out of one call. */
	assert_int_equal(say(l.server, "one "), 4);
	assert_int_equal(say(l.server, "two "), 4);
	assert_int_equal(say(l.server, "three"), 5);
	hears(l.client, "one two three");
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(c);
}

static void test_ends(void **state)
{
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem");
	enum tls_want want;
	struct kit_link l;
	char byte;

	(void)state;
	/* Said goodbye: the end. */
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	assert_int_equal(say(l.server, "all"), 3);
	assert_int_equal(tls_close_notify(l.server, &want), PD_OK);
	hears(l.client, "all");
	assert_false(tls_drained(l.client)); /* no event of the descriptor will tell of the end */
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), 0);
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), 0);
	assert_false(tls_idle_ok(l.client));
	cut(&l, true);
	/* Cut: an error, after the bytes that came. */
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	assert_int_equal(say(l.server, "part"), 4);
	(void)shutdown(l.fd[1], SHUT_RDWR);
	hears(l.client, "part");
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), PD_ECLOSED);
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), PD_ECLOSED);
	assert_string_equal(tls_error(l.client),
			    "the peer closed the connection without close_notify");
	assert_int_equal(say(l.client, "x"), PD_ECLOSED);
	cut(&l, true);
	/* A forged record. */
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	talks(&l);
	assert_int_equal(send(l.fd[1],
			      "\x17\x03\x03\x00\x20"
			      "0123456789abcdef0123456789abcdef",
			      37, 0),
			 37);
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), PD_EPROTO);
	assert_int_equal(tls_recv(l.client, &byte, 1, &want), PD_EPROTO);
	assert_int_equal(tls_recv(l.server, &byte, 1, &want), PD_EPROTO);
	assert_non_null(strstr(tls_error(l.server), "bad record mac"));
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(c);
}

static void test_idle(void **state)
{
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem");
	struct kit_link l;

	(void)state;
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	assert_true(tls_idle_ok(l.client)); /* although two tickets wait to be read */
	assert_true(tls_idle_ok(l.client));
	talks(&l);
	assert_true(tls_idle_ok(l.client));
	assert_int_equal(say(l.server, "HTTP/1.1 408"), 12);
	assert_false(tls_idle_ok(l.client));
	cut(&l, true);
	connect_pair(&l, c, s, NULL, "a.example");
	assert_true(shake(&l));
	(void)shutdown(l.fd[1], SHUT_RDWR);
	assert_false(tls_idle_ok(l.client));
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(c);
}

static void test_strangers(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		bool plain;
		int err;
		const char *why;
	} rows[] = {
		{"GET / HTTP/1.1\r\n\r\n", 18, true, PD_EPROTO, "the client speaks plain HTTP"},
		{"POST /v1/chat/completions HTTP/1.1\r\n", 36, true, PD_EPROTO, "plain HTTP"},
		{"DELETE /x HTTP/1.1\r\n\r\n", 22, true, PD_EPROTO, "plain HTTP"},
		{"OPTIONS * HTTP/1.1\r\n\r\n", 22, true, PD_EPROTO, "plain HTTP"},
		{"CONNECT a:1 HTTP/1.1\r\n\r\n", 24, true, PD_EPROTO, "plain HTTP"},
		{"SSH-2.0-OpenSSH_9.2\r\n", 21, false, PD_EPROTO, "the client does not speak TLS"},
		{"\0\0\0\0\0\0\0\0\0\0\0\0", 12, false, PD_EPROTO, ""},
		{"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff\xff", 11, false, PD_EPROTO, ""},
		{"\x16\x03\x01\xff\xff\x01", 6, false, PD_EPROTO, ""},
		{"\x15\x03\x03\x00\x02\x02\x28", 7, false, PD_EPROTO, ""},
		{"\x16\x03\x01", 3, false, PD_ECLOSED, "closed the connection in the handshake"},
		{"", 0, false, PD_ECLOSED, "closed the connection in the handshake"},
	};
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem");
	enum tls_want want;
	struct pd_msg why;
	struct kit_link l;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		why = (struct pd_msg){0};
		connect_pair(&l, c, s, NULL, "a.example");
		assert_int_equal(tls_handshake(l.server, &want, &why), PD_EAGAIN);
		assert_int_equal(send(l.fd[0], rows[i].bytes, rows[i].n, 0), rows[i].n);
		(void)shutdown(l.fd[0], SHUT_WR);
		assert_int_equal(tls_handshake(l.server, &want, &why), rows[i].err);
		SAYS(why, rows[i].why);
		assert_true(why.text[0] != '\0');
		assert_int_equal(tls_plain_http(l.server), rows[i].plain);
		assert_int_equal(tls_handshake(l.server, &want, &why), rows[i].err);
		cut(&l, true);
	}
	/* The other way round: a worker that speaks plain HTTP. */
	connect_pair(&l, c, s, NULL, "a.example");
	assert_int_equal(tls_handshake(l.client, &want, &why), PD_EAGAIN);
	assert_int_equal(send(l.fd[1], "HTTP/1.1 400 Bad Request\r\n\r\n", 28, 0), 28);
	assert_int_equal(tls_handshake(l.client, &want, &why), PD_EPROTO);
	SAYS(why, "the server does not speak TLS (is it http:// and not https://?)");
	cut(&l, true);
	tls_context_free(s);
	tls_context_free(c);
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_versions(void **state)
{
	struct tls_pair pair = {kit_path("a.pem"), kit_path("a.key")};
	struct tls_context *s13 = kit_must(&(struct tls_config){
		.server = true, .pairs = &pair, .npairs = 1, .min_version = TLS_MIN_1_3});
	struct tls_context *s12 = kit_server("a");
	SSL_CTX *old = SSL_CTX_new(TLS_client_method());
	enum tls_want want;
	struct pd_msg why = {0};

	(void)state;
	(void)SSL_CTX_set_max_proto_version(old, TLS1_2_VERSION);
	for (int i = 0; i < 2; i++) {
		struct tls_context *s = i ? s12 : s13;
		SSL *ssl = SSL_new(old);
		struct tls *t;
		int fd[2], se = PD_EAGAIN;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
		(void)SSL_set_fd(ssl, fd[0]);
		t = tls_accept_new(s, fd[1]);
		for (int k = 0; k < 10 && se == PD_EAGAIN; k++) {
			(void)SSL_connect(ssl);
			ERR_clear_error();
			se = tls_handshake(t, &want, &why);
		}
		assert_int_equal(se, i ? PD_OK : PD_EPROTO);
		if (i)
			assert_string_equal(tls_version(t), "TLSv1.2");
		else
			SAYS(why, "no TLS version in common");
		SSL_free(ssl);
		tls_free(t);
		(void)close(fd[0]);
		(void)close(fd[1]);
	}
	SSL_CTX_free(old);
	tls_context_free(s13);
	tls_context_free(s12);
}

/* The second connection resumes; not with other files, and never past a name that does not fit. */
static void test_resumption(void **state)
{
	struct tls_context *s = kit_server("a"), *c = kit_client("ca.pem"),
			   *strict = kit_client("ca.pem");
	struct tls_peer *peer = tls_peer_new("a.example");
	struct pd_msg msg;
	struct kit_link l;

	(void)state;
	for (int i = 0; i < 4; i++) {
		if (i == 2) /* the client's files were read again */
			assert_int_equal(tls_context_reload(c, &msg), PD_OK);
		if (i == 3) /* another context altogether */
			tls_context_free(c);
		connect_pair(&l, i == 3 ? strict : c, s, peer, NULL);
		assert_true(shake(&l));
		assert_int_equal(tls_resumed(l.client), i == 1);
		assert_int_equal(tls_resumed(l.server), i == 1);
		talks(&l); /* the tickets come with the first bytes */
		cut(&l, false);
	}
	connect_pair(&l, strict, s, peer, NULL);
	assert_true(shake(&l));
	assert_true(tls_resumed(l.client));
	cut(&l, false);
	/* The server's reload ends resumption: its new set knows no old ticket. */
	assert_int_equal(tls_context_reload(s, &msg), PD_OK);
	connect_pair(&l, strict, s, peer, NULL);
	assert_true(shake(&l));
	assert_false(tls_resumed(l.client));
	cut(&l, false);
	tls_peer_free(peer);
	tls_context_free(s);
	tls_context_free(strict);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_gather_and_partial_writes),
		cmocka_unit_test(test_gather_is_one_record),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_resumption),
	};

	return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
