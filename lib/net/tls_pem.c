/*
 * PEM files with positions: OpenSSL's readers skip what they do not know and say "no start line"
 * for every mistake.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/net/tls_impl.h"

#define PEM_FILE_MAX (8u << 20)

struct pem {
	const char *path;
	struct buf text;
	size_t at;
	size_t line; /* of `at`, from 1 */
	struct span label, block;
	size_t block_line;
};

static int open_pem(struct pem *f, const char *path, const char *what, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	int err;

	*f = (struct pem){.path = path, .line = 1};
	buf_init(&f->text, PEM_FILE_MAX);
	err = file_read(path, &f->text, &inner);
	if (err)
		return pd_fail(msg, err == PD_ENOMEM ? err : PD_EINVAL, "%s: %.440s", what,
			       inner.text);
	if (f->text.len > 0 && f->text.data[0] == 0x30)
		return pd_fail(msg, PD_EINVAL,
			       "%s '%s': found DER, expected PEM (openssl x509 or pkey -inform "
			       "DER converts it)",
			       what, path);
	return PD_OK;
}

/* The file may hold a private key: nothing of it stays in freed memory. */
static void close_pem(struct pem *f)
{
	if (f->text.data)
		OPENSSL_cleanse(f->text.data, f->text.len);
	buf_release(&f->text);
}

static struct span next_line(struct pem *f)
{
	const char *p = f->text.data + f->at, *nl = memchr(p, '\n', f->text.len - f->at);
	struct span line = {p, nl ? (size_t)(nl - p) : f->text.len - f->at};

	f->at += line.n + (nl != NULL);
	f->line++;
	while (line.n > 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' '))
		line.n--;
	return line;
}

static bool is_mark(struct span line, const char *word, struct span *label)
{
	struct span begin = span_of(word), end = SPAN("-----");

	if (!span_starts(line, begin) || line.n < begin.n + end.n ||
	    memcmp(line.p + line.n - end.n, end.p, end.n) != 0)
		return false;
	*label = (struct span){line.p + begin.n, line.n - begin.n - end.n};
	return true;
}

/* The next block into f->label and f->block. PD_ENOENT: no more. */
static int next_block(struct pem *f, struct pd_msg *msg)
{
	struct span line, label;

	do {
		if (f->at >= f->text.len)
			return PD_ENOENT;
		f->block_line = f->line;
		line = next_line(f);
	} while (!is_mark(line, "-----BEGIN ", &f->label));
	f->block.p = line.p;
	while (f->at < f->text.len) {
		line = next_line(f);
		if (is_mark(line, "-----BEGIN ", &label))
			break;
		if (is_mark(line, "-----END ", &label) && span_eq(label, f->label)) {
			f->block.n = (size_t)(line.p + line.n - f->block.p);
			return PD_OK;
		}
	}
	return pd_fail(msg, PD_EINVAL, "'%s':%zu: '-----BEGIN %.*s-----' without its END line",
		       f->path, f->block_line, (int)f->label.n, f->label.p);
}

static bool is_cert(struct span label)
{
	return span_eq(label, SPAN("CERTIFICATE")) || span_eq(label, SPAN("X509 CERTIFICATE")) ||
	       span_eq(label, SPAN("TRUSTED CERTIFICATE"));
}

static bool is_key(struct span label)
{
	struct span tail = SPAN("PRIVATE KEY");

	return label.n >= tail.n && memcmp(label.p + label.n - tail.n, tail.p, tail.n) == 0;
}

static int nothing(const struct pem *f, const char *what, const char *found, const char *expected,
		   struct pd_msg *msg)
{
	return pd_fail(msg, PD_EINVAL, "%s '%s': found %s, expected '-----BEGIN %s-----'", what,
		       f->path, found, expected);
}

static int add_cert(struct pem *f, STACK_OF(X509) * list, struct pd_msg *msg)
{
	BIO *b = BIO_new_mem_buf(f->block.p, (int)f->block.n);
	X509 *x = b ? PEM_read_bio_X509_AUX(b, NULL, NULL, NULL) : NULL;

	BIO_free(b);
	if (!x)
		return pd_fail(msg, PD_EINVAL, "'%s':%zu: damaged certificate (%s)", f->path,
			       f->block_line, tls_why_queue());
	if (sk_X509_push(list, x) > 0)
		return PD_OK;
	X509_free(x);
	return pd_fail(msg, PD_ENOMEM, "out of memory");
}

int tls_pem_certs(const char *path, const char *what, STACK_OF(X509) * *out, struct pd_msg *msg)
{
	struct pem f;
	bool key = false;
	int err = open_pem(&f, path, what, msg);

	*out = sk_X509_new_null();
	if (!*out)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	while (!err) {
		err = next_block(&f, msg);
		key |= !err && is_key(f.label);
		if (!err && is_cert(f.label))
			err = add_cert(&f, *out, msg);
	}
	if (err == PD_ENOENT)
		err = PD_OK;
	if (!err && sk_X509_num(*out) == 0)
		err = nothing(&f, what, key ? "only a private key" : "no certificate",
			      "CERTIFICATE", msg);
	close_pem(&f);
	if (err) {
		sk_X509_pop_free(*out, X509_free);
		*out = NULL;
	}
	return err;
}

/* Instead of OpenSSL's own, which would ask on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's signature */
static int no_password(char *out, int cap, int writing, void *asked)
{
	(void)out;
	(void)cap;
	(void)writing;
	*(bool *)asked = true;
	return -1;
}

static int decode_key(const struct pem *f, EVP_PKEY **out, struct pd_msg *msg)
{
	BIO *b = BIO_new_mem_buf(f->block.p, (int)f->block.n);
	bool asked = false;

	*out = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, &asked) : NULL;
	BIO_free(b);
	if (*out)
		return PD_OK;
	if (asked || span_eq(f->label, SPAN("ENCRYPTED PRIVATE KEY"))) {
		ERR_clear_error();
		return pd_fail(msg, PD_EINVAL,
			       "'%s':%zu: the private key is encrypted, expected one without a "
			       "passphrase (openssl pkey removes it)",
			       f->path, f->block_line);
	}
	return pd_fail(msg, PD_EINVAL, "'%s':%zu: damaged private key (%s)", f->path, f->block_line,
		       tls_why_queue());
}

int tls_pem_key(const char *path, EVP_PKEY **out, struct pd_msg *msg)
{
	const char *what = "private key";
	bool cert = false;
	struct pem f;
	int err = open_pem(&f, path, what, msg);

	*out = NULL;
	while (!err) {
		err = next_block(&f, msg);
		cert |= !err && is_cert(f.label);
		if (!err && is_key(f.label))
			break;
	}
	if (err == PD_ENOENT)
		err = nothing(&f, what, cert ? "only certificates" : "no private key",
			      "PRIVATE KEY", msg);
	else if (!err)
		err = decode_key(&f, out, msg);
	close_pem(&f);
	return err;
}
