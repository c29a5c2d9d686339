/*
 * Certificates. One reading of the files gives an immutable set of SSL_CTX; a reload builds a new
 * set and swaps the pointer, so that a handshake sees all of the old files or all of the new ones,
 * and connections keep the set they began with.
 *
 * Sessions are resumed by tickets only: a server-side cache would hold memory per client, and a
 * ticket dies with its set, so that a reload with another client CA resumes nobody.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/http/tls_impl.h"

#define PAIRS_MAX 1024

struct tls_context {
	struct tls_config cfg;
	struct tls_pair *pairs;	 /* owned copy of the array */
	pthread_mutex_t loading; /* one reload at a time */
	pthread_mutex_t lock;
	struct tls_set *set; /* under lock */
};

static _Atomic uint64_t set_numbers;

/* -- sets -- */

struct tls_set *tls_set_ref(struct tls_set *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void tls_set_put(struct tls_set *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < s->n; i++)
		SSL_CTX_free(s->ctx[i]);
	free(s->ctx);
	free(s);
}

struct tls_set *tls_set_get(struct tls_context *c)
{
	struct tls_set *s;

	(void)pthread_mutex_lock(&c->lock);
	s = tls_set_ref(c->set);
	(void)pthread_mutex_unlock(&c->lock);
	return s;
}

/* -- server callbacks -- */

static X509 *leaf(const struct tls_set *s, size_t i)
{
	return SSL_CTX_get0_certificate(s->ctx[i]);
}

/* The context for a name: an exact match before a wildcard. */
static SSL_CTX *find_name(const struct tls_set *s, const char *name)
{
	static const unsigned flags[] = {X509_CHECK_FLAG_NO_WILDCARDS,
					 X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS};

	for (size_t f = 0; f < 2; f++)
		for (size_t i = 0; i < s->n; i++)
			if (X509_check_host(leaf(s, i), name, 0, flags[f], NULL) == 1)
				return s->ctx[i];
	return s->ctx[0];
}

/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's signature */
static int choose_certificate(SSL *ssl, int *alert, void *arg)
{
	const struct tls_set *s = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	if (name && s->n > 1)
		(void)SSL_set_SSL_CTX(ssl, find_name(s, name));
	return SSL_TLSEXT_ERR_OK;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n,
			   const unsigned char *offered, unsigned offered_n, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, n, ours, sizeof(ours) - 1,
				  offered, offered_n) == OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_OK;
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Client: the last session of the server we talk to. 1: we keep the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls *t = SSL_get_app_data(ssl);
	SSL_SESSION *old;

	if (!t || !t->peer)
		return 0;
	(void)pthread_mutex_lock(&t->peer->lock);
	old = t->peer->session;
	t->peer->session = session;
	t->peer->set_number = t->set->number;
	(void)pthread_mutex_unlock(&t->peer->lock);
	SSL_SESSION_free(old);
	return 1;
}

/* -- reading the files -- */

static int use_pair(SSL_CTX *ctx, const struct tls_pair *p, struct pd_msg *msg)
{
	const char *key_file = p->key ? p->key : p->cert;
	STACK_OF(X509) *chain = NULL;
	EVP_PKEY *key = NULL;
	X509 *first;
	int err = tls_pem_certs(p->cert, "certificate", &chain, msg);

	err = err ? err : tls_pem_key(key_file, &key, msg);
	if (!err) {
		first = sk_X509_shift(chain);
		if (X509_check_private_key(first, key) != 1)
			err = pd_fail(msg, PD_EINVAL,
				      "private key '%s' does not belong to the certificate '%s'",
				      key_file, p->cert);
		else if (SSL_CTX_use_cert_and_key(ctx, first, key, chain, 1) != 1)
			err = pd_fail(msg, PD_EINVAL, "certificate '%s' cannot be used: %s",
				      p->cert, tls_why_queue());
		X509_free(first);
	}
	ERR_clear_error();
	EVP_PKEY_free(key);
	sk_X509_pop_free(chain, X509_free);
	return err;
}

static int trust(SSL_CTX *ctx, const struct tls_config *cfg, struct pd_msg *msg)
{
	STACK_OF(X509) * list;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	int err;

	if (!cfg->ca)
		return cfg->server || SSL_CTX_set_default_verify_paths(ctx) == 1
			       ? PD_OK
			       : pd_fail(msg, PD_EIO, "cannot read the system's CAs: %s",
					 tls_why_queue());
	err = tls_pem_certs(cfg->ca, "CA file", &list, msg);
	if (err)
		return err;
	for (int i = 0; !err && i < sk_X509_num(list); i++) {
		X509 *x = sk_X509_value(list, i);

		if (X509_STORE_add_cert(store, x) != 1 ||
		    (cfg->server && SSL_CTX_add_client_CA(ctx, x) != 1))
			err = pd_fail(msg, PD_EINVAL, "CA file '%s': certificate %d: %s", cfg->ca,
				      i + 1, tls_why_queue());
	}
	/* What the file lists is trusted, also when it is an intermediate. */
	if (!err)
		(void)X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	sk_X509_pop_free(list, X509_free);
	return err;
}

static void server_options(SSL_CTX *ctx, const struct tls_config *cfg, struct tls_set *s)
{
	int mode = cfg->verify == TLS_VERIFY_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;

	if (cfg->verify == TLS_VERIFY_REQUIRED)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(ctx, mode, tls_why_verify);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"pdctl", 5);
	(void)SSL_CTX_set_tlsext_servername_callback(ctx, choose_certificate);
	(void)SSL_CTX_set_tlsext_servername_arg(ctx, s);
	SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
}

static void client_options(SSL_CTX *ctx, const struct tls_config *cfg)
{
	SSL_CTX_set_verify(ctx, cfg->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, tls_why_verify);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT |
							  SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(ctx, keep_session);
	(void)SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x08http/1.1", 9);
}

static SSL_CTX *new_ctx(const struct tls_config *cfg)
{
	SSL_CTX *ctx = SSL_CTX_new(cfg->server ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		return NULL;
	(void)SSL_CTX_set_min_proto_version(ctx, cfg->min_version == TLS_MIN_1_3 ? TLS1_3_VERSION
										 : TLS1_2_VERSION);
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					    SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(ctx, 1);
	return ctx;
}

static int add_ctx(struct tls_set *s, const struct tls_config *cfg, const struct tls_pair *pair,
		   struct pd_msg *msg)
{
	SSL_CTX *ctx = new_ctx(cfg);
	int err = ctx ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");

	err = err || !pair ? err : use_pair(ctx, pair, msg);
	err = err ? err : trust(ctx, cfg, msg);
	if (err) {
		SSL_CTX_free(ctx);
		return err;
	}
	if (cfg->server)
		server_options(ctx, cfg, s);
	else
		client_options(ctx, cfg);
	s->ctx[s->n++] = ctx;
	return PD_OK;
}

static int load(struct tls_set **out, const struct tls_config *cfg, struct pd_msg *msg)
{
	struct tls_set *s = calloc(1, sizeof(*s));
	int err = PD_OK;

	*out = NULL;
	if (s)
		s->ctx = calloc(cfg->npairs ? cfg->npairs : 1, sizeof(*s->ctx));
	if (!s || !s->ctx) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	atomic_store(&s->refs, 1);
	s->server = cfg->server;
	s->number = atomic_fetch_add(&set_numbers, 1) + 1;
	if (cfg->npairs == 0)
		err = add_ctx(s, cfg, NULL, msg);
	for (size_t i = 0; !err && i < cfg->npairs; i++)
		err = add_ctx(s, cfg, &cfg->pairs[i], msg);
	if (err) {
		tls_set_put(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

static int check(const struct tls_config *cfg, struct pd_msg *msg)
{
	if (cfg->server && cfg->npairs == 0)
		return pd_fail(msg, PD_EINVAL, "TLS needs a certificate");
	if (cfg->npairs > (cfg->server ? PAIRS_MAX : 1))
		return pd_fail(msg, PD_EINVAL, "%zu certificates, expected %d at most", cfg->npairs,
			       cfg->server ? PAIRS_MAX : 1);
	if (cfg->server && cfg->verify != TLS_VERIFY_NONE && !cfg->ca)
		return pd_fail(msg, PD_EINVAL,
			       "client certificates cannot be verified without a "
			       "CA file");
	return PD_OK;
}

int tls_context_new(struct tls_context **out, const struct tls_config *cfg, struct pd_msg *msg)
{
	struct tls_context *c;
	int err = check(cfg, msg);

	*out = NULL;
	if (err)
		return err;
	c = calloc(1, sizeof(*c));
	if (!c)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	c->cfg = *cfg;
	(void)pthread_mutex_init(&c->loading, NULL);
	(void)pthread_mutex_init(&c->lock, NULL);
	c->pairs = calloc(cfg->npairs ? cfg->npairs : 1, sizeof(*c->pairs));
	if (c->pairs && cfg->npairs)
		memcpy(c->pairs, cfg->pairs, cfg->npairs * sizeof(*c->pairs));
	c->cfg.pairs = c->pairs;
	err = c->pairs ? load(&c->set, &c->cfg, msg) : pd_fail(msg, PD_ENOMEM, "out of memory");
	if (err) {
		tls_context_free(c);
		return err;
	}
	*out = c;
	return PD_OK;
}

void tls_context_free(struct tls_context *c)
{
	if (!c)
		return;
	tls_set_put(c->set);
	(void)pthread_mutex_destroy(&c->loading);
	(void)pthread_mutex_destroy(&c->lock);
	free(c->pairs);
	free(c);
}

int tls_context_reload(struct tls_context *c, struct pd_msg *msg)
{
	struct tls_set *fresh, *old;
	int err;

	(void)pthread_mutex_lock(&c->loading);
	err = load(&fresh, &c->cfg, msg);
	if (!err) {
		(void)pthread_mutex_lock(&c->lock);
		old = c->set;
		c->set = fresh;
		(void)pthread_mutex_unlock(&c->lock);
		tls_set_put(old);
	}
	(void)pthread_mutex_unlock(&c->loading);
	return err;
}

/* -- dates -- */

static int64_t seconds_of(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* A sentence about the pair when its leaf is not valid now, or soon. */
static bool judge_dates(const struct tls_context *c, const struct tls_set *s, size_t i,
			int64_t now_s, int64_t soon_s, struct pd_msg *msg)
{
	const X509 *x = leaf(s, i);
	const char *file = c->cfg.pairs[i].cert;
	char date[40];

	if (seconds_of(X509_get0_notBefore(x)) > now_s) {
		tls_why_time(X509_get0_notBefore(x), date, sizeof(date));
		(void)pd_fail(msg, PD_EINVAL, "certificate '%s' is not valid before %s", file,
			      date);
		return true;
	}
	if (seconds_of(X509_get0_notAfter(x)) >= now_s + soon_s)
		return false;
	tls_why_time(X509_get0_notAfter(x), date, sizeof(date));
	(void)pd_fail(msg, PD_EINVAL, "certificate '%s' %s on %s", file,
		      seconds_of(X509_get0_notAfter(x)) < now_s ? "has expired" : "expires", date);
	return true;
}

bool tls_context_expiry(struct tls_context *c, int64_t wall_ns, int64_t soon_ns, struct pd_msg *msg)
{
	struct tls_set *s = tls_set_get(c);
	bool found = false;

	for (size_t i = 0; !found && i < c->cfg.npairs; i++)
		found = judge_dates(c, s, i, wall_ns / NS_PER_S, soon_ns / NS_PER_S, msg);
	tls_set_put(s);
	return found;
}

int64_t tls_context_not_after(struct tls_context *c)
{
	struct tls_set *s = tls_set_get(c);
	int64_t first = 0, one;

	for (size_t i = 0; i < c->cfg.npairs; i++) {
		one = seconds_of(X509_get0_notAfter(leaf(s, i)));
		first = first == 0 || one < first ? one : first;
	}
	tls_set_put(s);
	return first;
}

size_t tls_context_pairs(struct tls_context *c)
{
	return c->cfg.npairs;
}
