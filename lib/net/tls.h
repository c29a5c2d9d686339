/*
 * TLS 1.2 and 1.3 over a non-blocking descriptor (OpenSSL).
 *
 * Nothing here waits. A call that cannot go on returns PD_EAGAIN and says in *want what must be
 * waited for; the caller waits and repeats the call with the same arguments. OpenSSL keeps its
 * errors per thread, so a call is begun and finished on one thread, and no other fiber runs on that
 * thread meanwhile.
 *
 * Contexts are thread-safe. A connection (`struct tls`) belongs to one owner at a time; it borrows
 * its descriptor, keeps its own reference to the certificates it began with, and costs about 14 KiB
 * while it is idle.
 */
#ifndef PD_NET_TLS_H
#define PD_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lib/base/err.h"

enum tls_verify { TLS_VERIFY_NONE, TLS_VERIFY_OPTIONAL, TLS_VERIFY_REQUIRED };
enum tls_version { TLS_MIN_1_2, TLS_MIN_1_3 };
enum tls_want { TLS_WANT_NOTHING, TLS_WANT_READ, TLS_WANT_WRITE };

/* A certificate with its chain, leaf first, and its private key; PEM. `key` NULL: in the same file.
 */
struct tls_pair {
	const char *cert, *key;
};

/* All texts are borrowed and outlive the context: a reload reads the files again. */
struct tls_config {
	bool server;
	enum tls_version min_version;
	/* The server's certificates, chosen by the name the client asks for (SNI): an exact name
	 * wins over a wildcard, the first pair is the default. Client: none or one. */
	const struct tls_pair *pairs;
	size_t npairs;
	/* PEM file with the CAs that the peer's certificate must come from. Server: needed with a
	 * verify mode other than none. Client: NULL means the system's. */
	const char *ca;
	enum tls_verify verify; /* server: of client certificates */
	bool insecure;		/* client: the server's certificate is not looked at */
};

struct tls_context;

/* Reads all files. PD_EINVAL, PD_EIO or PD_ENOMEM with a sentence that names file, line and reason.
 */
int tls_context_new(struct tls_context **out, const struct tls_config *cfg,
		    struct pd_msg *msg) PD_MUST;
/* Accepts NULL. Connections that still live keep what they need. */
void tls_context_free(struct tls_context *c);
/* Reads the files again. New connections use the new certificates, existing ones go on with theirs.
 * On failure nothing changes. */
int tls_context_reload(struct tls_context *c, struct pd_msg *msg) PD_MUST;
/* The same in two steps, so that several things change together or not at all: what was read is
 * used, or freed. */
struct tls_set;
int tls_context_read(struct tls_context *c, struct tls_set **out, struct pd_msg *msg) PD_MUST;
void tls_context_use(struct tls_context *c, struct tls_set *s);
void tls_set_free(struct tls_set *s);
/* There are files to read again. */
bool tls_context_has_files(const struct tls_context *c);
/*
 * Gives CAs and certificate to another owner's SSL_CTX (libcurl's), which verifies then as our
 * connections do: for `lent->host`, and what is wrong with the certificate stands in lent->why.
 * `lent` outlives the SSL_CTX. PD_ENOMEM.
 */
struct tls_lent {
	const char *host;
	struct pd_msg why;
};
int tls_context_lend(struct tls_context *c, void *ssl_ctx, struct tls_lent *lent) PD_MUST;
/* A sentence for the first own certificate that is not valid at this wall-clock time (ns), or -
 * within `soon_ns` - will not be; false when there is none. */
bool tls_context_expiry(struct tls_context *c, int64_t wall_ns, int64_t soon_ns,
			struct pd_msg *msg);
/* The earliest end of validity of the own certificates, in seconds since 1970; 0: none. */
int64_t tls_context_not_after(struct tls_context *c);
size_t tls_context_pairs(struct tls_context *c);

/* A server we connect to: its name, for SNI and verification, and the session to resume. Counted:
 * connections hold it too. `host` is a name or an IP literal without brackets. */
struct tls_peer;
struct tls_peer *tls_peer_new(const char *host);
void tls_peer_free(struct tls_peer *p);

struct tls;

/* NULL when out of memory. The descriptor stays the caller's. */
struct tls *tls_accept_new(struct tls_context *c, int fd);
struct tls *tls_connect_new(struct tls_context *c, struct tls_peer *peer, int fd);
/* Frees without a close_notify. Accepts NULL. */
void tls_free(struct tls *t);

/*
 * Must have returned PD_OK before anything else is done. PD_EAGAIN, PD_ECLOSED (the peer is gone)
 * or PD_EPROTO: the message names the reason as a clause ("certificate has expired on ...").
 */
int tls_handshake(struct tls *t, enum tls_want *want, struct pd_msg *msg) PD_MUST;
/* The clause of the last failure of any call; "" before. Valid until the next call. */
const char *tls_error(const struct tls *t);
/* That failure was the peer's word or a broken protocol, not just a closed connection. */
bool tls_refused(const struct tls *t);
/* The handshake failed because the client speaks plain HTTP: a plain response can be read by it. */
bool tls_plain_http(const struct tls *t);
bool tls_resumed(const struct tls *t);
/* "TLSv1.3"; constant text. */
const char *tls_version(const struct tls *t);
/* The verified client certificate's subject, or "" without one. */
void tls_peer_subject(const struct tls *t, char *out, size_t cap);
/* The subject of the peer's certificate, verified or not, or "" without one. */
void tls_peer_certificate(const struct tls *t, char *out, size_t cap);

/*
 * > 0 bytes; 0: the peer said that this was all (close_notify); PD_ECLOSED: the connection ended
 * without that, so what came may be cut; PD_EPROTO: a forged or broken record; PD_EAGAIN. As long
 * as it was not PD_EAGAIN there may be bytes here that no poll of the descriptor shows.
 */
ssize_t tls_recv(struct tls *t, void *p, size_t n, enum tls_want *want);
/* Nothing is left to hand out, neither here nor - when it was asked last - in the descriptor. */
bool tls_drained(const struct tls *t);
/* An idle connection can be used again: nothing to read, not closed. Takes in tickets that came
 * late. */
bool tls_idle_ok(struct tls *t);

/*
 * Sends from the front of the vector, in as few records as possible; returns how many bytes went
 * out (> 0, at most TLS_SEND_MAX), PD_EAGAIN or PD_ECLOSED. After PD_EAGAIN the next call must
 * begin with the same bytes.
 */
#define TLS_SEND_MAX 262144
ssize_t tls_send(struct tls *t, const struct iovec *iov, size_t n, enum tls_want *want);
/* Says that nothing follows (close_notify). PD_OK, PD_EAGAIN or PD_ECLOSED. After a failure of any
 * other call it does nothing. */
int tls_close_notify(struct tls *t, enum tls_want *want) PD_MUST;

#endif
