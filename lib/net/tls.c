/*
 * Connections. OpenSSL sits between two callbacks that call recv and send on the descriptor, never
 * waiting; what it wants next goes to the caller, which waits in its own way and calls again.
 *
 * A BIO of our own instead of OpenSSL's socket BIO: sends carry MSG_NOSIGNAL, the descriptor may be
 * a blocking one, and the first bytes of the peer are at hand when it turns out to speak no TLS.
 */
#include "lib/net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/net/shelf.h"
#include "lib/net/tls_impl.h"

_Static_assert(TLS_RECORD_MAX <= SHELF_BYTES, "a record fits a lent buffer");

/* -- transport -- */

static int transport_read(BIO *b, char *p, int n)
{
	struct tls *t = BIO_get_data(b);
	ssize_t got;

	BIO_clear_retry_flags(b);
	do
		got = recv(t->fd, p, (size_t)n, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_read(b);
	t->end = got == 0;
	t->short_read = got != 0 && got < n;
	for (ssize_t i = 0; i < got && t->nfirst < sizeof(t->first); i++)
		t->first[t->nfirst++] = (unsigned char)p[i];
	return (int)got;
}

static int transport_write(BIO *b, const char *p, int n)
{
	struct tls *t = BIO_get_data(b);
	ssize_t sent;

	BIO_clear_retry_flags(b);
	do
		sent = send(t->fd, p, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_write(b);
	return (int)sent;
}

static long transport_ctrl(BIO *b, int what, long n, void *p)
{
	const struct tls *t = BIO_get_data(b);

	(void)n;
	(void)p;
	if (what == BIO_CTRL_EOF)
		return t->end;
	return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *transport;
static pthread_once_t transport_once = PTHREAD_ONCE_INIT;

static void make_transport(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pdctl");

	if (m && BIO_meth_set_read(m, transport_read) == 1 &&
	    BIO_meth_set_write(m, transport_write) == 1 &&
	    BIO_meth_set_ctrl(m, transport_ctrl) == 1)
		transport = m;
	else
		BIO_meth_free(m);
}

/* -- peers -- */

struct tls_peer *tls_peer_new(const char *host)
{
	struct tls_peer *p = calloc(1, sizeof(*p));
	size_t n = strlen(host);

	if (!p || n >= sizeof(p->host)) {
		free(p);
		return NULL;
	}
	memcpy(p->host, host, n + 1);
	(void)pthread_mutex_init(&p->lock, NULL);
	atomic_store(&p->refs, 1);
	return p;
}

void tls_peer_free(struct tls_peer *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_SESSION_free(p->session);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

static void resume(struct tls *t)
{
	struct tls_peer *p = t->peer;
	SSL_SESSION *s = NULL;

	(void)pthread_mutex_lock(&p->lock);
	if (p->session && p->set_number == t->set->number && SSL_SESSION_up_ref(p->session) == 1)
		s = p->session;
	(void)pthread_mutex_unlock(&p->lock);
	if (!s)
		return;
	(void)SSL_set_session(t->ssl, s);
	SSL_SESSION_free(s);
}

static bool is_literal(const char *host)
{
	unsigned char address[16];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

bool tls_expect_host(X509_VERIFY_PARAM *p, const char *host)
{
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return is_literal(host) ? X509_VERIFY_PARAM_set1_ip_asc(p, host) == 1
				: X509_VERIFY_PARAM_set1_host(p, host, 0) == 1;
}

static bool name_peer(struct tls *t)
{
	const char *host = t->peer->host;

	return (is_literal(host) || SSL_set_tlsext_host_name(t->ssl, host) == 1) &&
	       tls_expect_host(SSL_get0_param(t->ssl), host);
}

/* -- life -- */

static struct tls *tls_new(struct tls_context *c, int fd)
{
	struct tls *t = calloc(1, sizeof(*t));
	BIO *b = NULL;

	(void)pthread_once(&transport_once, make_transport);
	if (!t || !transport) {
		free(t);
		return NULL;
	}
	t->fd = fd;
	t->set = tls_set_get(c);
	if (t->set)
		t->ssl = SSL_new(t->set->ctx[0]);
	if (t->ssl)
		b = BIO_new(transport);
	if (!b || SSL_set_app_data(t->ssl, t) != 1) {
		BIO_free(b);
		tls_free(t);
		ERR_clear_error();
		return NULL;
	}
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(t->ssl, b, b);
	return t;
}

struct tls *tls_accept_new(struct tls_context *c, int fd)
{
	struct tls *t = tls_new(c, fd);

	if (t)
		SSL_set_accept_state(t->ssl);
	return t;
}

struct tls *tls_connect_new(struct tls_context *c, struct tls_peer *peer, int fd)
{
	struct tls *t = tls_new(c, fd);

	if (!t)
		return NULL;
	atomic_fetch_add_explicit(&peer->refs, 1, memory_order_relaxed);
	t->peer = peer;
	SSL_set_connect_state(t->ssl);
	if (!name_peer(t)) {
		tls_free(t);
		ERR_clear_error();
		return NULL;
	}
	resume(t);
	return t;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	/* Without this the session of a connection that ended without close_notify could not be
	 * resumed; HTTP has framing of its own, and a cut body is an error all the same. */
	if (t->ssl)
		SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(t->ssl);
	tls_peer_free(t->peer);
	tls_set_free(t->set);
	free(t->why);
	free(t);
}

/* -- calls -- */

static void begin(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
	errno = 0;
}

static void set_want(int ssl_error, enum tls_want *want)
{
	*want = ssl_error == SSL_ERROR_WANT_WRITE ? TLS_WANT_WRITE : TLS_WANT_READ;
}

/* Nothing more can be said; the clause stays in t->why. */
static int broke(struct tls *t, int ssl_error)
{
	struct pd_msg msg = {0};

	t->failed = tls_why_failed(t, ssl_error, &msg);
	if (!t->why)
		t->why = calloc(1, sizeof(*t->why));
	if (t->why)
		*t->why = msg;
	return t->failed;
}

int tls_handshake(struct tls *t, enum tls_want *want, struct pd_msg *msg)
{
	int rc, e;

	*want = TLS_WANT_NOTHING;
	if (t->failed)
		return pd_fail(msg, t->failed, "%s", tls_error(t));
	begin();
	rc = SSL_do_handshake(t->ssl);
	t->ready = rc == 1;
	if (t->ready)
		return PD_OK;
	e = SSL_get_error(t->ssl, rc);
	if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
		set_want(e, want);
		return PD_EAGAIN;
	}
	rc = broke(t, e);
	return pd_fail(msg, rc, "%s", tls_error(t));
}

const char *tls_error(const struct tls *t)
{
	return t->why ? t->why->text : "";
}

bool tls_refused(const struct tls *t)
{
	return t->failed == PD_EPROTO;
}

bool tls_plain_http(const struct tls *t)
{
	return t->plain;
}

bool tls_resumed(const struct tls *t)
{
	return SSL_session_reused(t->ssl) == 1;
}

const char *tls_version(const struct tls *t)
{
	return SSL_get_version(t->ssl);
}

void tls_peer_subject(const struct tls *t, char *out, size_t cap)
{
	const X509 *x = SSL_get0_peer_certificate(t->ssl);

	out[0] = '\0';
	if (x && SSL_get_verify_result(t->ssl) == X509_V_OK)
		tls_why_name(X509_get_subject_name(x), out, cap);
}

void tls_peer_certificate(const struct tls *t, char *out, size_t cap)
{
	const X509 *x = SSL_get0_peer_certificate(t->ssl);

	out[0] = '\0';
	if (x)
		tls_why_name(X509_get_subject_name(x), out, cap);
}

/* What a failed read means once the handshake is over. */
static ssize_t read_failed(struct tls *t, int rc, enum tls_want *want)
{
	int e = SSL_get_error(t->ssl, rc);

	if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
		set_want(e, want);
		return PD_EAGAIN;
	}
	if (e == SSL_ERROR_ZERO_RETURN)
		return 0;
	return broke(t, e);
}

ssize_t tls_recv(struct tls *t, void *p, size_t n, enum tls_want *want)
{
	size_t got = 0, one;
	ssize_t failure;
	int rc;

	*want = TLS_WANT_NOTHING;
	if (t->failed)
		return t->failed;
	begin();
	/* Records that were received together go out together. */
	do {
		rc = SSL_read_ex(t->ssl, (char *)p + got, n - got, &one);
		if (rc == 1)
			got += one;
	} while (rc == 1 && got < n && SSL_has_pending(t->ssl));
	if (rc == 1)
		return (ssize_t)got;
	failure = read_failed(t, rc, want);
	t->over = failure != PD_EAGAIN;
	return got > 0 ? (ssize_t)got : failure; /* which comes again */
}

bool tls_drained(const struct tls *t)
{
	return t->short_read && !t->over && !SSL_has_pending(t->ssl);
}

bool tls_idle_ok(struct tls *t)
{
	enum tls_want want;
	size_t one;
	char byte;
	int rc;

	if (t->failed)
		return false;
	begin();
	rc = SSL_peek_ex(t->ssl, &byte, 1, &one);
	return rc != 1 && read_failed(t, rc, &want) == PD_EAGAIN;
}

/* The front of the vector as one piece: what is small is copied together into a lent buffer, so
 * that a head and a short body share a record. */
static size_t front(const struct iovec *iov, size_t n, size_t skip, struct buf *pack,
		    const void **out)
{
	size_t len = 0, take;

	while (n > 0 && skip >= iov->iov_len)
		skip -= (iov++)->iov_len, n--;
	if (n == 0)
		return 0;
	if (n == 1 || iov->iov_len - skip >= TLS_RECORD_MAX || (!pack->data && shelf_take(pack))) {
		*out = (const char *)iov->iov_base + skip;
		return iov->iov_len - skip;
	}
	for (; n > 0 && len < TLS_RECORD_MAX; iov++, n--, skip = 0) {
		take = iov->iov_len - skip;
		take = take < TLS_RECORD_MAX - len ? take : TLS_RECORD_MAX - len;
		if (take)
			memcpy(pack->data + len, (const char *)iov->iov_base + skip, take);
		len += take;
	}
	*out = pack->data;
	return len;
}

static ssize_t send_records(struct tls *t, const struct iovec *iov, size_t n, struct buf *pack,
			    enum tls_want *want)
{
	size_t sent = 0, len, one;
	const void *p = NULL;
	int rc, e;

	*want = TLS_WANT_NOTHING;
	if (t->failed)
		return PD_ECLOSED;
	begin();
	while (sent < TLS_SEND_MAX && (len = front(iov, n, sent, pack, &p)) > 0) {
		rc = SSL_write_ex(t->ssl, p, len, &one);
		if (rc == 1) {
			sent += one;
			continue;
		}
		if (sent > 0)
			break; /* comes again */
		e = SSL_get_error(t->ssl, rc);
		if (e == SSL_ERROR_SYSCALL) /* what the peer said before it left can be read */
			return PD_ECLOSED;
		if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
			(void)broke(t, e);
			return PD_ECLOSED;
		}
		set_want(e, want);
		return PD_EAGAIN;
	}
	return (ssize_t)sent;
}

ssize_t tls_send(struct tls *t, const struct iovec *iov, size_t n, enum tls_want *want)
{
	struct buf pack;
	ssize_t sent;

	buf_init(&pack, SHELF_BYTES);
	sent = send_records(t, iov, n, &pack, want);
	shelf_give(&pack);
	return sent;
}

int tls_close_notify(struct tls *t, enum tls_want *want)
{
	int rc, e;

	*want = TLS_WANT_NOTHING;
	if (t->failed || !t->ready)
		return PD_OK;
	begin();
	rc = SSL_shutdown(t->ssl);
	if (rc >= 0)
		return PD_OK; /* theirs is not waited for */
	e = SSL_get_error(t->ssl, rc);
	if (e == SSL_ERROR_WANT_WRITE) {
		set_want(e, want);
		return PD_EAGAIN;
	}
	ERR_clear_error();
	t->failed = PD_ECLOSED;
	return PD_ECLOSED;
}
