/*
 * Certificates. One reading of the files gives an immutable set of SSL_CTX; a reload builds a new
 * set and swaps the pointer, so that a handshake sees all of the old files or all of the new ones,
 * and connections keep the set they began with.
 *
 * Sessions are resumed by tickets only: a server-side cache would hold memory per client, and a
 * ticket dies with its set, so that no session is resumed after a reload with another client CA.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/net/tls_impl.h"

#define PAIRS_MAX 1024

struct tls_context {
	struct tls_config cfg;
	struct tls_pair *pairs; /* owned copy of the array */
	pthread_mutex_t lock;
	struct tls_set *set; /* under lock; NULL: without files it is made when first needed,
			      * as OpenSSL costs time and memory */
};

static int load(struct tls_set **out, const struct tls_config *cfg, struct pd_msg *msg);

static _Atomic uint64_t set_numbers;

/* -- sets -- */

struct tls_set *tls_set_ref(struct tls_set *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void tls_set_free(struct tls_set *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < s->n; i++)
		SSL_CTX_free(s->ctx[i]);
	sk_X509_pop_free(s->cas, X509_free);
	free(s->ctx);
	free(s);
}

struct tls_set *tls_set_get(struct tls_context *c)
{
	struct tls_set *s;

	(void)pthread_mutex_lock(&c->lock);
	if (!c->set)
		(void)!load(&c->set, &c->cfg, NULL); /* from no files */
	s = c->set ? tls_set_ref(c->set) : NULL;
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

/* `cas` NULL: what the system trusts. */
static bool fill_store(X509_STORE *store, STACK_OF(X509) * cas)
{
	if (!cas)
		return X509_STORE_set_default_paths(store) == 1;
	for (int i = 0; i < sk_X509_num(cas); i++)
		if (X509_STORE_add_cert(store, sk_X509_value(cas, i)) != 1)
			return false;
	/* What the file lists is trusted, also when it is an intermediate. */
	return X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1;
}

static int trust(SSL_CTX *ctx, const struct tls_config *cfg, const struct tls_set *s,
		 struct pd_msg *msg)
{
	if (cfg->server && !cfg->ca)
		return PD_OK;
	if (!fill_store(SSL_CTX_get_cert_store(ctx), s->cas))
		return pd_fail(msg, PD_EINVAL, "%s%s: %s",
			       cfg->ca ? "CA file " : "the system's CAs", cfg->ca ? cfg->ca : "",
			       tls_why_queue());
	/* Their names tell clients which certificate to send. */
	for (int i = 0; cfg->server && i < sk_X509_num(s->cas); i++)
		if (SSL_CTX_add_client_CA(ctx, sk_X509_value(s->cas, i)) != 1)
			return pd_fail(msg, PD_ENOMEM, "out of memory");
	return PD_OK;
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
	err = err ? err : trust(ctx, cfg, s, msg);
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
		s->ctx = calloc(cfg->npairs ? cfg->npairs : 1, sizeof(SSL_CTX *));
	if (!s || !s->ctx) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	atomic_store(&s->refs, 1);
	s->server = cfg->server;
	s->number = atomic_fetch_add(&set_numbers, 1) + 1;
	if (cfg->ca)
		err = tls_pem_certs(cfg->ca, "CA file", &s->cas, msg);
	if (!err && cfg->npairs == 0)
		err = add_ctx(s, cfg, NULL, msg);
	for (size_t i = 0; !err && i < cfg->npairs; i++)
		err = add_ctx(s, cfg, &cfg->pairs[i], msg);
	if (err) {
		tls_set_free(s);
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
	(void)pthread_mutex_init(&c->lock, NULL);
	c->pairs = calloc(cfg->npairs ? cfg->npairs : 1, sizeof(*c->pairs));
	if (c->pairs && cfg->npairs)
		memcpy(c->pairs, cfg->pairs, cfg->npairs * sizeof(*c->pairs));
	c->cfg.pairs = c->pairs;
	if (!c->pairs)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	else if (tls_context_has_files(c))
		err = load(&c->set, &c->cfg, msg);
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
	tls_set_free(c->set);
	(void)pthread_mutex_destroy(&c->lock);
	free(c->pairs);
	free(c);
}

bool tls_context_has_files(const struct tls_context *c)
{
	return c->cfg.npairs > 0 || c->cfg.ca;
}

int tls_context_read(struct tls_context *c, struct tls_set **out, struct pd_msg *msg)
{
	return load(out, &c->cfg, msg);
}

void tls_context_use(struct tls_context *c, struct tls_set *s)
{
	struct tls_set *old;

	(void)pthread_mutex_lock(&c->lock);
	old = c->set;
	c->set = s;
	(void)pthread_mutex_unlock(&c->lock);
	tls_set_free(old);
}

int tls_context_reload(struct tls_context *c, struct pd_msg *msg)
{
	struct tls_set *fresh;
	int err = tls_context_read(c, &fresh, msg);

	if (!err)
		tls_context_use(c, fresh);
	return err;
}

/* A store of its own: libcurl changes and keeps what it is given. */
int tls_context_lend(struct tls_context *c, void *ssl_ctx, struct tls_lent *lent)
{
	struct tls_set *s = tls_set_get(c);
	SSL_CTX *to = ssl_ctx, *from = s ? s->ctx[0] : NULL;
	X509_STORE *store = X509_STORE_new();
	STACK_OF(X509) *chain = NULL;
	bool ok = from && store && fill_store(store, s->cas);

	if (ok)
		SSL_CTX_set_cert_store(to, store);
	else
		X509_STORE_free(store);
	if (ok && SSL_CTX_get0_certificate(from)) {
		(void)SSL_CTX_get0_chain_certs(from, &chain);
		ok = SSL_CTX_use_cert_and_key(to, SSL_CTX_get0_certificate(from),
					      SSL_CTX_get0_privatekey(from), chain, 1) == 1;
	}
	if (ok && !c->cfg.insecure) {
		lent->why.text[0] = '\0';
		SSL_CTX_set_app_data(to, lent);
		SSL_CTX_set_verify(to, SSL_VERIFY_PEER, tls_why_lent);
		ok = tls_expect_host(SSL_CTX_get0_param(to), lent->host);
	}
	tls_set_free(s);
	ERR_clear_error();
	return ok ? PD_OK : PD_ENOMEM;
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
	struct tls_set *s = c->cfg.npairs ? tls_set_get(c) : NULL;
	bool found = false;

	for (size_t i = 0; s && !found && i < s->n; i++)
		found = judge_dates(c, s, i, wall_ns / NS_PER_S, soon_ns / NS_PER_S, msg);
	tls_set_free(s);
	return found;
}

int64_t tls_context_not_after(struct tls_context *c)
{
	struct tls_set *s = c->cfg.npairs ? tls_set_get(c) : NULL;
	int64_t first = 0, one;

	for (size_t i = 0; s && i < s->n; i++) {
		one = seconds_of(X509_get0_notAfter(leaf(s, i)));
		first = first == 0 || one < first ? one : first;
	}
	tls_set_free(s);
	return first;
}

size_t tls_context_pairs(struct tls_context *c)
{
	return c->cfg.npairs;
}
