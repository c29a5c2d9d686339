/*
 * Why a handshake failed, as a clause for the person who has to repair it: which certificate, whose
 * date, which name. OpenSSL's own words come only when there is nothing better.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/net/tls_impl.h"

#define NAMES_MAX 8
#define NAME_CAP  128

/* Text from a peer's certificate: printable ASCII only. */
static void put_clean(char *out, size_t cap, const unsigned char *p, size_t n)
{
	size_t i;

	if (n >= cap)
		n = cap - 1;
	for (i = 0; i < n; i++)
		out[i] = p[i] >= ' ' && p[i] < 0x7f && p[i] != '\'' ? (char)p[i] : '?';
	out[i] = '\0';
}

void tls_why_time(const ASN1_TIME *t, char *out, size_t cap)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(t, &tm) != 1)
		(void)snprintf(out, cap, "an unreadable date");
	else
		(void)snprintf(out, cap, "%04d-%02d-%02d %02d:%02d:%02d UTC", tm.tm_year + 1900,
			       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void tls_why_name(const X509_NAME *name, char *out, size_t cap)
{
	static const int ids[] = {NID_commonName, NID_organizationalUnitName, NID_organizationName};
	const ASN1_STRING *s;
	int at;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		at = X509_NAME_get_index_by_NID((X509_NAME *)(uintptr_t)name, ids[i], -1);
		if (at < 0)
			continue;
		s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
		put_clean(out, cap, ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
		return;
	}
	(void)snprintf(out, cap, "unnamed");
}

static void put_general_name(const GENERAL_NAME *g, char *out, size_t cap)
{
	const unsigned char *p = ASN1_STRING_get0_data(g->d.ia5);
	int n = ASN1_STRING_length(g->d.ia5);

	if (g->type == GEN_DNS)
		put_clean(out, cap, p, (size_t)n);
	else if (g->type == GEN_IPADD && n == 4)
		(void)snprintf(out, cap, "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
	else if (g->type == GEN_IPADD && n == 16)
		(void)snprintf(out, cap, "%x:%x:%x:%x:%x:%x:%x:%x", p[0] << 8 | p[1],
			       p[2] << 8 | p[3], p[4] << 8 | p[5], p[6] << 8 | p[7],
			       p[8] << 8 | p[9], p[10] << 8 | p[11], p[12] << 8 | p[13],
			       p[14] << 8 | p[15]);
	else
		out[0] = '\0';
}

/* "a.example, b.example, ..." */
static void put_names(X509 *x, char *out, size_t cap)
{
	GENERAL_NAMES *list = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	int count = list ? sk_GENERAL_NAME_num(list) : 0, shown = 0;
	size_t at = 0;
	char one[NAME_CAP];

	out[0] = '\0';
	for (int i = 0; i < count && shown < NAMES_MAX; i++) {
		put_general_name(sk_GENERAL_NAME_value(list, i), one, sizeof(one));
		if (!one[0] || at + strlen(one) + 8 > cap)
			continue;
		at += (size_t)snprintf(out + at, cap - at, "%s%s", shown++ ? ", " : "", one);
	}
	if (shown > 0 && shown < count)
		(void)snprintf(out + at, cap - at, ", ...");
	GENERAL_NAMES_free(list);
	if (shown == 0)
		tls_why_name(X509_get_subject_name(x), out, cap);
}

static void why_certificate(const char *host, X509_STORE_CTX *store, struct pd_msg *msg)
{
	X509 *x = X509_STORE_CTX_get_current_cert(store);
	int error = X509_STORE_CTX_get_error(store), depth = X509_STORE_CTX_get_error_depth(store);
	char subject[NAME_CAP] = "", issuer[NAME_CAP] = "", date[40] = "", names[256] = "";

	if (x) {
		tls_why_name(X509_get_subject_name(x), subject, sizeof(subject));
		tls_why_name(X509_get_issuer_name(x), issuer, sizeof(issuer));
	}
	switch (x ? error : X509_V_ERR_UNSPECIFIED) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		tls_why_time(X509_get0_notAfter(x), date, sizeof(date));
		(void)pd_fail(msg, PD_EPROTO, "certificate '%s'%s has expired on %s", subject,
			      depth > 0 ? " (an issuer)" : "", date);
		return;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		tls_why_time(X509_get0_notBefore(x), date, sizeof(date));
		(void)pd_fail(msg, PD_EPROTO,
			      "certificate '%s'%s is not valid before %s; is the clock right?",
			      subject, depth > 0 ? " (an issuer)" : "", date);
		return;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		put_names(x, names, sizeof(names));
		(void)pd_fail(msg, PD_EPROTO, "certificate is for %s, expected %s", names, host);
		return;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		(void)pd_fail(msg, PD_EPROTO, "certificate '%s' is self-signed and not trusted",
			      subject);
		return;
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		(void)pd_fail(
			msg, PD_EPROTO,
			"certificate '%s' was issued by an unknown CA '%s' (or an intermediate "
			"certificate is missing)",
			subject, issuer);
		return;
	default:
		(void)pd_fail(msg, PD_EPROTO, "certificate '%s' is refused: %s", subject,
			      X509_verify_cert_error_string(error));
	}
}

int tls_why_verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl;
	struct tls *t;

	if (ok)
		return ok;
	ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	t = ssl ? SSL_get_app_data(ssl) : NULL;
	if (t && !t->why)
		t->why = calloc(1, sizeof(*t->why));
	if (t && t->why && !t->why->text[0])
		why_certificate(t->peer ? t->peer->host : "", store, t->why);
	return 0;
}

int tls_why_lent(int ok, X509_STORE_CTX *store)
{
	SSL *ssl =
		ok ? NULL : X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_lent *lent = ssl ? SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)) : NULL;

	if (lent && !lent->why.text[0])
		why_certificate(lent->host, store, &lent->why);
	return ok;
}

const char *tls_why_queue(void)
{
	unsigned long e = ERR_peek_error();
	const char *text = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return text ? text : "unknown reason";
}

/* GET, POST, ...: capital letters, then a space (or as many letters as we have). */
static bool looks_like_http(const struct tls *t)
{
	unsigned n = 0;

	while (n < t->nfirst && t->first[n] >= 'A' && t->first[n] <= 'Z')
		n++;
	return n >= 3 && (n == t->nfirst || t->first[n] == ' ');
}

/* What a peer's alert means here. */
static int why_alert(struct tls *t, int alert, struct pd_msg *msg)
{
	const char *side = t->set->server ? "the client" : "the server";

	switch (alert) {
	case SSL_AD_UNKNOWN_CA:
		return pd_fail(msg, PD_EPROTO,
			       "%s does not trust our certificate's CA (alert: unknown CA)", side);
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_CERTIFICATE_REVOKED:
		return pd_fail(msg, PD_EPROTO, "%s refused our certificate (alert: %s)", side,
			       SSL_alert_desc_string_long(alert));
	case TLS13_AD_CERTIFICATE_REQUIRED:
		return pd_fail(msg, PD_EPROTO,
			       "%s asks for a client certificate (alert: certificate required)",
			       side);
	default:
		return pd_fail(msg, PD_EPROTO, "%s refused the connection (alert: %s)", side,
			       SSL_alert_desc_string_long(alert));
	}
}

static int why_protocol(struct tls *t, struct pd_msg *msg)
{
	unsigned long e = ERR_peek_error();
	int reason = ERR_GET_REASON(e);

	if (t->why && t->why->text[0])
		return pd_fail(msg, PD_EPROTO, "%s", t->why->text);
	if (ERR_GET_LIB(e) != ERR_LIB_SSL)
		return pd_fail(msg, PD_EPROTO, "%s", e ? ERR_reason_error_string(e) : "no reason");
	/* Alerts of the peer: 1000 + the alert's number. */
	if (reason > 1000 && reason < 1256)
		return why_alert(t, reason - 1000, msg);
	switch (reason) {
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_BAD_RECORD_TYPE:
	case SSL_R_UNEXPECTED_MESSAGE:
		t->plain = t->set->server && looks_like_http(t);
		if (t->plain)
			return pd_fail(msg, PD_EPROTO, "the client speaks plain HTTP, not TLS");
		return pd_fail(msg, PD_EPROTO, "the %s does not speak TLS%s",
			       t->set->server ? "client" : "server",
			       t->set->server ? "" : " (is it http:// and not https://?)");
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return pd_fail(msg, PD_EPROTO,
			       "the client has no certificate, and one is required");
	case SSL_R_UNSUPPORTED_PROTOCOL:
		return pd_fail(msg, PD_EPROTO, "no TLS version in common with the peer");
	case SSL_R_NO_SHARED_CIPHER:
		return pd_fail(msg, PD_EPROTO, "no cipher in common with the peer");
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return pd_fail(msg, PD_ECLOSED,
			       t->ready ? "the peer closed the connection without close_notify"
					: "the peer closed the connection "
					  "in the handshake");
	default:
		return pd_fail(msg, PD_EPROTO, "%s", ERR_reason_error_string(e));
	}
}

int tls_why_failed(struct tls *t, int ssl_error, struct pd_msg *msg)
{
	const char *when = t->ready ? "" : " in the handshake";
	char text[128];
	int err;

	if (ssl_error == SSL_ERROR_SYSCALL)
		err = pd_fail(msg, PD_ECLOSED, "the connection broke%s: %s", when,
			      errno ? pd_errno_text(errno, text, sizeof(text)) : "closed");
	else if (ssl_error == SSL_ERROR_ZERO_RETURN)
		err = pd_fail(msg, PD_ECLOSED, "the peer closed the connection%s", when);
	else
		err = why_protocol(t, msg);
	ERR_clear_error();
	return err;
}
