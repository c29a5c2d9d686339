/*
 * For the tests of TLS: certificates made on the spot in a folder of their own, contexts from them,
 * and pairs of connections over a socket pair.
 */
#ifndef PD_TESTS_TLS_KIT_H
#define PD_TESTS_TLS_KIT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/net/tls.h"

#define DAY 86400

static char kit_folder[] = "/tmp/test_tls_XXXXXX";

/* Texts live as long as the contexts that borrow them. */
static inline const char *kit_path(const char *name)
{
	static char texts[64][128];
	static unsigned next;
	char *p = texts[next++ % 64];

	(void)snprintf(p, sizeof(texts[0]), "%s/%s", kit_folder, name);
	return p;
}

/* -- certificates -- */

struct kit_cert {
	X509 *x;
	EVP_PKEY *key;
};

static inline void kit_add_ext(X509 *x, const X509 *issuer, int nid, const char *value)
{
	X509V3_CTX c;
	X509_EXTENSION *e;

	X509V3_set_ctx(&c, (X509 *)(uintptr_t)issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
	assert_non_null(e);
	assert_int_equal(X509_add_ext(x, e, -1), 1);
	X509_EXTENSION_free(e);
}

/* `san` "DNS:a,IP:1.2.3.4" or NULL: a CA. The validity begins and ends that many days from now. */
static inline struct kit_cert kit_make(const char *name, const char *san, const struct kit_cert *ca,
				       int from, int to)
{
	struct kit_cert c = {.x = X509_new(), .key = EVP_EC_gen("P-256")};
	static long serial = 1000;
	X509_NAME *n;

	assert_non_null(c.x);
	assert_non_null(c.key);
	(void)X509_set_version(c.x, 2);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(c.x), serial++);
	(void)X509_gmtime_adj(X509_getm_notBefore(c.x), (long)from * DAY);
	(void)X509_gmtime_adj(X509_getm_notAfter(c.x), (long)to * DAY);
	n = X509_get_subject_name(c.x);
	(void)X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
					 0);
	(void)X509_set_issuer_name(c.x, ca ? X509_get_subject_name(ca->x) : n);
	(void)X509_set_pubkey(c.x, c.key);
	kit_add_ext(c.x, ca ? ca->x : c.x, NID_basic_constraints,
		    san ? "critical,CA:FALSE" : "critical,CA:TRUE");
	if (san)
		kit_add_ext(c.x, ca ? ca->x : c.x, NID_subject_alt_name, san);
	assert_true(X509_sign(c.x, ca ? ca->key : c.key, EVP_sha256()) > 0);
	return c;
}

static inline void kit_cert_release(struct kit_cert *c)
{
	X509_free(c->x);
	EVP_PKEY_free(c->key);
}

static inline void kit_save(const char *name, const struct kit_cert *const *chain, size_t n,
			    EVP_PKEY *key, const char *password)
{
	FILE *f = fopen(kit_path(name), "w");

	assert_non_null(f);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(PEM_write_X509(f, chain[i]->x), 1);
	if (key)
		assert_int_equal(PEM_write_PrivateKey(f, key, password ? EVP_aes_128_cbc() : NULL,
						      NULL, 0, NULL, (void *)(uintptr_t)password),
				 1);
	assert_int_equal(fclose(f), 0);
}

/* NAME.pem and NAME.key */
static inline void kit_save_pair(const char *name, const struct kit_cert *c)
{
	char file[64];

	(void)snprintf(file, sizeof(file), "%s.pem", name);
	kit_save(file, &c, 1, NULL, NULL);
	(void)snprintf(file, sizeof(file), "%s.key", name);
	kit_save(file, NULL, 0, c->key, NULL);
}

static inline void kit_make_and_save(const char *name, const char *san, const struct kit_cert *ca,
				     int from, int to)
{
	struct kit_cert c = kit_make(name, san, ca, from, to);

	kit_save_pair(name, &c);
	kit_cert_release(&c);
}

static inline int kit_setup(void **state)
{
	struct kit_cert ca, other, inter, below;

	(void)state;
	assert_non_null(mkdtemp(kit_folder));
	ca = kit_make("Test CA", NULL, NULL, -10, 100);
	other = kit_make("Other CA", NULL, NULL, -10, 100);
	kit_save_pair("ca", &ca);
	kit_save_pair("otherca", &other);
	kit_make_and_save("a", "DNS:a.example,IP:127.0.0.1,IP:::1", &ca, -1, 50);
	kit_make_and_save("b", "DNS:b.example,DNS:x.b.example,DNS:*.b.example", &ca, -1, 60);
	kit_make_and_save("wild", "DNS:*.b.example", &ca, -1, 60);
	kit_make_and_save("expired", "DNS:a.example", &ca, -9, -2);
	kit_make_and_save("future", "DNS:a.example", &ca, 5, 9);
	kit_make_and_save("client", "email:x@y.example", &ca, -1, 50);
	kit_make_and_save("stranger", "email:x@y.example", &other, -1, 50);
	kit_make_and_save("oldclient", "email:x@y.example", &ca, -9, -2);
	inter = kit_make("Intermediate", NULL, &ca, -1, 50);
	below = kit_make("below", "DNS:a.example", &inter, -1, 50);
	kit_save("below.pem", (const struct kit_cert *[]){&below, &inter}, 2, NULL, NULL);
	kit_save("lonely.pem", (const struct kit_cert *[]){&below}, 1, NULL, NULL);
	kit_save("below.key", NULL, 0, below.key, NULL);
	kit_save("both.pem", (const struct kit_cert *[]){&below, &inter}, 2, below.key, NULL);
	kit_save("locked.key", NULL, 0, below.key, "secret");
	kit_save("inter.pem", (const struct kit_cert *[]){&inter}, 1, NULL, NULL);
	kit_cert_release(&ca);
	kit_cert_release(&other);
	kit_cert_release(&inter);
	kit_cert_release(&below);
	return 0;
}

static inline int kit_teardown(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", kit_folder);
	return system(command); /* NOLINT(cert-env33-c): a test's own folder */
}

/* -- contexts -- */

static inline struct tls_context *kit_must(const struct tls_config *cfg)
{
	struct tls_context *c;
	struct pd_msg msg = {0};

	if (tls_context_new(&c, cfg, &msg) != PD_OK)
		fail_msg("%s", msg.text);
	return c;
}

static inline struct tls_context *kit_server(const char *name)
{
	static char files[32][2][64];
	static unsigned next;
	char(*f)[64] = files[next++ % 32];
	struct tls_pair pair;

	(void)snprintf(f[0], sizeof(f[0]), "%s.pem", name);
	(void)snprintf(f[1], sizeof(f[1]), "%s.key", name);
	pair = (struct tls_pair){kit_path(f[0]), kit_path(f[1])};
	return kit_must(&(struct tls_config){.server = true, .pairs = &pair, .npairs = 1});
}

static inline struct tls_context *kit_client(const char *ca)
{
	return kit_must(&(struct tls_config){.ca = ca ? kit_path(ca) : NULL});
}

/* -- a pair of connections -- */

struct kit_link {
	int fd[2];
	struct tls_peer *peer;
	struct tls *client, *server;
	struct pd_msg client_why, server_why;
	int client_err, server_err;
};

static inline void connect_pair(struct kit_link *l, struct tls_context *c, struct tls_context *s,
				struct tls_peer *peer, const char *host)
{
	*l = (struct kit_link){0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, l->fd), 0);
	l->peer = peer ? peer : tls_peer_new(host);
	l->client = tls_connect_new(c, l->peer, l->fd[0]);
	l->server = tls_accept_new(s, l->fd[1]);
	assert_non_null(l->client);
	assert_non_null(l->server);
}

/* Both sides until they are done or failed; true when both succeeded. */
static inline bool shake(struct kit_link *l)
{
	enum tls_want want;

	l->client_err = l->server_err = PD_EAGAIN;
	for (int i = 0; i < 20; i++) {
		if (l->client_err == PD_EAGAIN)
			l->client_err = tls_handshake(l->client, &want, &l->client_why);
		assert_true(l->client_err != PD_EAGAIN || want == TLS_WANT_READ);
		if (l->server_err == PD_EAGAIN)
			l->server_err = tls_handshake(l->server, &want, &l->server_why);
	}
	return !l->client_err && !l->server_err;
}

static inline void cut(struct kit_link *l, bool own_peer)
{
	tls_free(l->client);
	tls_free(l->server);
	(void)close(l->fd[0]);
	(void)close(l->fd[1]);
	if (own_peer)
		tls_peer_free(l->peer);
}

static inline ssize_t say(struct tls *t, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	enum tls_want want;

	return tls_send(t, &iov, 1, &want);
}

static inline void hears(struct tls *t, const char *text)
{
	char got[256];
	enum tls_want want;
	ssize_t n = tls_recv(t, got, sizeof(got), &want);

	assert_int_equal(n, strlen(text));
	assert_memory_equal(got, text, strlen(text));
}

static inline void talks(struct kit_link *l)
{
	assert_int_equal(say(l->client, "ping"), 4);
	hears(l->server, "ping");
	assert_int_equal(say(l->server, "pong!"), 5);
	hears(l->client, "pong!");
}

#define SAYS(msg, part)                                                                            \
	do {                                                                                       \
		if (!strstr((msg).text, part))                                                     \
			fail_msg("'%s' lacks '%s'", (msg).text, part);                             \
	} while (0)

#endif
