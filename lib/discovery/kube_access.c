#include "lib/discovery/kube_access.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/yamlnode.h"
#include "lib/net/net.h"

#define CONFIG_MAX (4u << 20) /* bytes of a kubeconfig file */

enum { CA, CERT, KEY };

void kube_access_release(struct kube_access *a)
{
	if (a->token)
		explicit_bzero(a->token, strlen(a->token));
	free(a->server);
	free(a->token);
	free(a->token_file);
	free(a->ca);
	free(a->cert);
	free(a->key);
	free(a->tls_name);
	for (int i = CA; i <= KEY; i++)
		if (a->fd[i] >= 0)
			(void)close(a->fd[i]);
	*a = (struct kube_access){.fd = {-1, -1, -1}};
}

static int keep(char **out, const char *text, struct pd_msg *msg)
{
	free(*out);
	*out = text ? strdup(text) : NULL;
	return *out ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");
}

static int check_server(const char *server, struct pd_msg *msg)
{
	struct net_url u;
	int err = net_url_parse(&u, server, msg);

	if (!err && u.rank >= 0)
		err = pd_fail(msg, PD_EINVAL, "found '%.200s', expected http[s]://HOST[:PORT]",
			      server);
	return err;
}

int kube_access_direct(struct kube_access *a, const char *server, const char *token_file,
		       const char *ca_file, struct pd_msg *msg)
{
	int err = check_server(server, msg);

	*a = (struct kube_access){.fd = {-1, -1, -1}};
	err = err ? err : keep(&a->server, server, msg);
	if (!err && token_file)
		err = keep(&a->token_file, token_file, msg);
	if (!err && ca_file)
		err = keep(&a->ca, ca_file, msg);
	if (err)
		kube_access_release(a);
	return err;
}

int kube_access_in_cluster(struct kube_access *a, const char *host, const char *port,
			   struct pd_msg *msg)
{
	bool v6 = strchr(host, ':') != NULL;
	char server[400];

	(void)snprintf(server, sizeof(server), "https://%s%.255s%s:%.5s", v6 ? "[" : "", host,
		       v6 ? "]" : "", port && *port ? port : "443");
	return kube_access_direct(a, server, KUBE_ACCOUNT "/token", KUBE_ACCOUNT "/ca.crt", msg);
}

/* -- kubeconfig -- */

/* The entry of a list whose "name" is this; pos NULL: none. */
static struct yamlnode named(struct yamlnode list, const char *name)
{
	struct yamlnode n;

	for (n = yamlnode_first(list); n.pos; n = yamlnode_next(n)) {
		const char *text = yamlnode_text(yamlnode_get(n, "name"));

		if (text && name && strcmp(text, name) == 0)
			break;
	}
	return n;
}

static int find(struct yamlnode root, const char *list, const char *name, const char *inner,
		struct yamlnode *out, const char *path, struct pd_msg *msg)
{
	struct yamlnode entry = named(yamlnode_get(root, list), name);

	if (!entry.pos)
		return pd_fail(msg, PD_EINVAL, "%.200s: found no entry '%.100s' in %s, expected it",
			       path, name, list);
	*out = yamlnode_get(entry, inner);
	return out->pos ? PD_OK
			: yamlnode_fail(entry, path, msg, "found no \"%s\", expected one", inner);
}

static int text_at(struct yamlnode map, const char *key, const char **out, const char *path,
		   struct pd_msg *msg)
{
	struct yamlnode n = yamlnode_get(map, key);

	*out = NULL;
	if (!n.pos)
		return PD_OK;
	*out = yamlnode_text(n);
	if (!*out || !**out)
		return yamlnode_fail(n, path, msg, "\"%s\": found no text, expected one", key);
	return PD_OK;
}

/* Relative to the folder of the file, as kubectl has it. */
static int keep_path(char **out, const char *name, const char *path, struct pd_msg *msg)
{
	const char *slash = strrchr(path, '/');
	char full[4096];

	if (name[0] == '/' || !slash)
		return keep(out, name, msg);
	if (snprintf(full, sizeof(full), "%.*s%s", (int)(slash + 1 - path), path, name) >=
	    (int)sizeof(full))
		return pd_fail(msg, PD_EINVAL, "%.200s: a file's name is too long", path);
	return keep(out, full, msg);
}

/* Base64 into a file in memory, which the TLS context reads by its path. */
static int keep_data(char **out, int *fd, struct yamlnode n, const char *path, struct pd_msg *msg)
{
	const char *text = yamlnode_text(n);
	size_t len = strlen(text);
	unsigned char *data = malloc(len + 4);
	char name[40];
	int size = -1, err = PD_OK;

	if (!data)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	if (len > 0 && len % 4 == 0 && len < CONFIG_MAX)
		size = EVP_DecodeBlock(data, (const unsigned char *)text, (int)len);
	if (size < 0)
		err = yamlnode_fail(n, path, msg, "found no base64, expected a PEM file in it");
	for (size_t i = 1; !err && i <= 2 && text[len - i] == '='; i++)
		size--;
	if (!err) {
		*fd = memfd_create("kubeconfig", MFD_CLOEXEC);
		if (*fd < 0 || file_write_fd(*fd, data, (size_t)size))
			err = pd_fail(msg, PD_EIO, "%.200s: cannot keep a certificate in memory",
				      path);
	}
	explicit_bzero(data, len + 4);
	free(data);
	if (err)
		return err;
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", *fd);
	return keep(out, name, msg);
}

/* KEY names a file, KEY-data holds it; the latter wins, as in kubectl. */
static int pem(struct kube_access *a, int which, struct yamlnode map, const char *key,
	       const char *path, struct pd_msg *msg)
{
	char **out = which == CA ? &a->ca : which == CERT ? &a->cert : &a->key;
	const char *file, *data;
	char data_key[48];
	int err;

	(void)snprintf(data_key, sizeof(data_key), "%s-data", key);
	err = text_at(map, key, &file, path, msg);
	err = err ? err : text_at(map, data_key, &data, path, msg);
	if (err)
		return err;
	if (data)
		return keep_data(out, &a->fd[which], yamlnode_get(map, data_key), path, msg);
	return file ? keep_path(out, file, path, msg) : PD_OK;
}

static int read_cluster(struct kube_access *a, struct yamlnode cluster, const char *path,
			struct pd_msg *msg)
{
	struct yamlnode insecure = yamlnode_get(cluster, "insecure-skip-tls-verify");
	struct pd_msg inner = {0};
	const char *server, *name;
	int err = text_at(cluster, "server", &server, path, msg);

	if (!err && !server)
		err = yamlnode_fail(cluster, path, msg, "found no \"server\", expected one");
	if (!err && check_server(server, &inner))
		err = yamlnode_fail(yamlnode_get(cluster, "server"), path, msg, "%.300s",
				    inner.text);
	err = err ? err : keep(&a->server, server, msg);
	if (!err && insecure.pos && yamlnode_bool(insecure, &a->insecure))
		err = yamlnode_fail(insecure, path, msg, "expected true or false");
	err = err ? err : text_at(cluster, "tls-server-name", &name, path, msg);
	if (!err && name)
		err = keep(&a->tls_name, name, msg);
	return err ? err : pem(a, CA, cluster, "certificate-authority", path, msg);
}

static int read_user(struct kube_access *a, struct yamlnode user, const char *path,
		     struct pd_msg *msg)
{
	static const char *const refused[] = {"exec", "auth-provider", "username", "password", "as",
					      NULL};
	const char *token, *file;
	int err;

	for (size_t i = 0; refused[i]; i++)
		if (yamlnode_get(user, refused[i]).pos)
			return yamlnode_fail_key(
				yamlnode_get(user, refused[i]), path, msg,
				"\"%s\" is not supported, expected token, tokenFile, or "
				"client-certificate and client-key",
				refused[i]);
	err = text_at(user, "token", &token, path, msg);
	err = err ? err : text_at(user, "tokenFile", &file, path, msg);
	if (!err && file)
		err = keep_path(&a->token_file, file, path, msg);
	else if (!err && token)
		err = keep(&a->token, token, msg);
	err = err ? err : pem(a, CERT, user, "client-certificate", path, msg);
	return err ? err : pem(a, KEY, user, "client-key", path, msg);
}

static int read_config(struct kube_access *a, struct yamlnode root, const char *path,
		       struct pd_msg *msg)
{
	struct yamlnode context, cluster, user;
	const char *current, *name;
	int err = text_at(root, "current-context", &current, path, msg);

	if (!err && !current)
		err = pd_fail(msg, PD_EINVAL, "%.200s: found no current-context, expected one",
			      path);
	err = err ? err : find(root, "contexts", current, "context", &context, path, msg);
	err = err ? err : text_at(context, "cluster", &name, path, msg);
	if (!err && !name)
		err = yamlnode_fail(context, path, msg, "found no \"cluster\", expected one");
	err = err ? err : find(root, "clusters", name, "cluster", &cluster, path, msg);
	err = err ? err : read_cluster(a, cluster, path, msg);
	err = err ? err : text_at(context, "user", &name, path, msg);
	if (err || !name)
		return err;
	err = find(root, "users", name, "user", &user, path, msg);
	return err ? err : read_user(a, user, path, msg);
}

int kube_access_kubeconfig(struct kube_access *a, const char *path, struct pd_msg *msg)
{
	struct yamlpos pos = {0};
	struct buf text;
	int err;

	*a = (struct kube_access){.fd = {-1, -1, -1}};
	buf_init(&text, CONFIG_MAX);
	err = file_read(path, &text, msg);
	err = err ? err : yamlpos_scan(&pos, text.data, text.len, path, msg);
	err = err ? err : read_config(a, yamlnode_root(&pos), path, msg);
	yamlpos_release(&pos);
	if (text.data)
		explicit_bzero(text.data, text.len);
	buf_release(&text);
	if (err)
		kube_access_release(a);
	return err;
}

/* -- the token -- */

int kube_access_token(const struct kube_access *a, struct buf *out, struct pd_msg *msg)
{
	int err = PD_OK;

	buf_clear(out);
	if (a->token_file)
		err = file_read(a->token_file, out, msg);
	else if (a->token)
		err = buf_puts(out, a->token);
	if (err)
		return err;
	while (out->len > 0 && strchr(" \t\r\n", out->data[out->len - 1]))
		out->data[--out->len] = '\0';
	for (size_t i = 0; i < out->len; i++)
		if (out->data[i] <= ' ' || out->data[i] >= 0x7f)
			return pd_fail(
				msg, PD_EINVAL,
				"%.200s: found a byte 0x%02x in the token, expected one line "
				"of visible characters",
				a->token_file ? a->token_file : "token",
				(unsigned)(unsigned char)out->data[i]);
	if (a->token_file && out->len == 0)
		return pd_fail(msg, PD_EINVAL, "%.200s: found no token, expected one",
			       a->token_file);
	return PD_OK;
}
