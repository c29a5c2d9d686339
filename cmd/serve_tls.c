#include "cmd/serve_tls.h"

#include <stdlib.h>
#include <string.h>

struct serve_tls serve_tls;
static struct tls_pair *pairs;

void serve_tls_defaults(void)
{
	serve_tls = (struct serve_tls){.min_version = "1.2"};
}

static int make_pairs(struct pd_msg *msg)
{
	const struct serve_tls *o = &serve_tls;

	if (o->key.n > 0 && o->key.n != o->cert.n)
		return pd_fail(msg, PD_EINVAL,
			       "--tls-key: found %zu, expected one for each of the %zu --tls-cert, "
			       "or none when the certificate files hold the keys too",
			       o->key.n, o->cert.n);
	pairs = calloc(o->cert.n + 1, sizeof(*pairs));
	if (!pairs)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; i < o->cert.n; i++)
		pairs[i] = (struct tls_pair){o->cert.items[i], o->key.n ? o->key.items[i] : NULL};
	return PD_OK;
}

static enum tls_verify verify_mode(void)
{
	const char *mode = serve_tls.client_verify;

	if (!mode)
		return serve_tls.client_ca ? TLS_VERIFY_REQUIRED : TLS_VERIFY_NONE;
	return strcmp(mode, "required") == 0   ? TLS_VERIFY_REQUIRED
	       : strcmp(mode, "optional") == 0 ? TLS_VERIFY_OPTIONAL
					       : TLS_VERIFY_NONE;
}

/* Client options have no effect without a certificate of the router's own. */
static int check_listener(struct pd_msg *msg)
{
	const struct serve_tls *o = &serve_tls;

	if (o->cert.n == 0 && (o->key.n > 0 || o->client_ca || o->client_verify))
		return pd_fail(msg, PD_EINVAL, "%s requires --tls-cert FILE",
			       o->key.n > 0   ? "--tls-key"
			       : o->client_ca ? "--tls-client-ca"
					      : "--tls-client-verify");
	if (verify_mode() != TLS_VERIFY_NONE && !o->client_ca)
		return pd_fail(msg, PD_EINVAL,
			       "--tls-client-verify %s requires --tls-client-ca FILE",
			       o->client_verify);
	return PD_OK;
}

static int open_listener(struct router_config *c, struct pd_msg *msg)
{
	struct tls_config t = {
		.server = true,
		.min_version =
			strcmp(serve_tls.min_version, "1.3") == 0 ? TLS_MIN_1_3 : TLS_MIN_1_2,
		.npairs = serve_tls.cert.n,
		.ca = serve_tls.client_ca,
		.verify = verify_mode(),
	};
	struct pd_msg inner = {0};
	int err = check_listener(msg);

	if (err || serve_tls.cert.n == 0)
		return err;
	err = make_pairs(msg);
	if (err)
		return err;
	t.pairs = pairs;
	if (tls_context_new(&c->tls, &t, &inner))
		return pd_fail(msg, PD_EINVAL, "--tls-cert: %.480s", inner.text);
	return PD_OK;
}

static int open_workers(struct router_config *c, struct pd_msg *msg)
{
	const struct serve_tls *o = &serve_tls;
	struct tls_pair own = {o->worker_cert, o->worker_key};
	struct tls_config t = {
		.pairs = &own,
		.npairs = o->worker_cert ? 1 : 0,
		.ca = o->worker_ca,
		.insecure = o->worker_insecure,
	};
	struct pd_msg inner = {0};

	if (o->worker_key && !o->worker_cert)
		return pd_fail(msg, PD_EINVAL, "--worker-key requires --worker-cert FILE");
	if (o->worker_insecure && o->worker_ca)
		return pd_fail(msg, PD_EINVAL,
			       "--worker-ca and --worker-tls-insecure cannot be combined");
	c->worker_tls_insecure = o->worker_insecure;
	if (tls_context_new(&c->worker_tls, &t, &inner))
		return pd_fail(msg, PD_EINVAL, "--worker-%s: %.480s",
			       o->worker_cert ? "cert, --worker-ca" : "ca", inner.text);
	return PD_OK;
}

int serve_tls_open(struct router_config *c, struct pd_msg *msg)
{
	int err = open_listener(c, msg);

	return err ? err : open_workers(c, msg);
}

void serve_tls_close(struct router_config *c)
{
	tls_context_free(c->tls);
	tls_context_free(c->worker_tls);
	c->tls = c->worker_tls = NULL;
	free(pairs);
	pairs = NULL;
	opt_list_release(&serve_tls.cert);
	opt_list_release(&serve_tls.key);
}
