/*
 * Private to the TLS files: tls_context.c (certificates), tls_pem.c (PEM files), tls_why.c
 * (sentences), tls.c (connections).
 */
#ifndef PD_NET_TLS_IMPL_H
#define PD_NET_TLS_IMPL_H

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lib/net/tls.h"

#define TLS_HOST_MAX   256
#define TLS_RECORD_MAX 16384

/* What one reading of the files gave: immutable, counted. Server: one SSL_CTX per pair. */
struct tls_set {
	_Atomic unsigned refs;
	bool server;
	uint64_t number; /* no two sets of the process have the same */
	size_t n;
	SSL_CTX **ctx;
	STACK_OF(X509) * cas; /* of the CA file; NULL: none */
};

struct tls_peer {
	_Atomic unsigned refs;
	char host[TLS_HOST_MAX];
	pthread_mutex_t lock;
	SSL_SESSION *session; /* the last one; under lock */
	uint64_t set_number;  /* the set it was made with: other certificates, no resumption */
};

struct tls {
	SSL *ssl;
	struct tls_set *set;
	struct tls_peer *peer;
	struct pd_msg *why; /* owned; what was wrong with the peer's certificate */
	int fd;
	bool end;	 /* the descriptor is at its end */
	bool short_read; /* it gave less than was asked for */
	bool over;	 /* the last word was said: the next tls_recv tells */
	bool ready;	 /* the handshake is over */
	int failed;	 /* an error: nothing more can be said on it */
	bool plain;	 /* the peer speaks plain HTTP */
	unsigned char nfirst;
	unsigned char first[8]; /* first bytes of the peer, as long as the handshake lasts */
};

/* -- tls_context.c -- */

/* NULL when out of memory. */
struct tls_set *tls_set_get(struct tls_context *c);
struct tls_set *tls_set_ref(struct tls_set *s);

/* -- tls_pem.c -- */

/* The certificates of a file, leaf first: at least one. Owned by the caller. */
int tls_pem_certs(const char *path, const char *what, STACK_OF(X509) * *out,
		  struct pd_msg *msg) PD_MUST;
int tls_pem_key(const char *path, EVP_PKEY **out, struct pd_msg *msg) PD_MUST;

/* -- tls_why.c -- */

/* Verification callback of contexts; keeps a clause in the connection. */
int tls_why_verify(int ok, X509_STORE_CTX *store);
/* The same for tls_context_lend: the struct tls_lent is the SSL_CTX's app data. */
int tls_why_lent(int ok, X509_STORE_CTX *store);
/* Makes the verification ask for this name or address. */
bool tls_expect_host(X509_VERIFY_PARAM *p, const char *host);
/* The failure of the last call as an error and a clause. Empties the thread's error queue. */
int tls_why_failed(struct tls *t, int ssl_error, struct pd_msg *msg);
/* The reason text of the oldest error in the queue, which is emptied. */
const char *tls_why_queue(void);
/* "2026-11-21 06:15:00 UTC" */
void tls_why_time(const ASN1_TIME *t, char *out, size_t cap);
/* Subject or issuer for a person: the common name, else organisation, else all of it. */
void tls_why_name(const X509_NAME *name, char *out, size_t cap);

#endif
