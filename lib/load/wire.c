/* What is the same for all requests is written once: a request on a warm connection is one gathered
 * write of three parts. */
#include "lib/load/wire.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

static bool has_header(const struct load_options *o, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < o->nheaders; i++)
		if (strncasecmp(o->headers[i], name, n) == 0 && o->headers[i][n] == ':')
			return true;
	return false;
}

int load_join(const char *base_path, const char *path, struct buf *out)
{
	size_t n = strlen(base_path);

	while (n > 0 && base_path[n - 1] == '/')
		n--;
	if (n >= 3 && memcmp(base_path + n - 3, "/v1", 3) == 0 && strncmp(path, "/v1/", 4) == 0)
		n -= 3;
	if (n > 0 && buf_append(out, base_path, n))
		return PD_ENOMEM;
	return buf_puts(out, path);
}

static int put_header(struct wire *w, const struct load_options *o, const char *name,
		      const char *value)
{
	return has_header(o, name) ? PD_OK : buf_printf(&w->head, "%s: %s\r\n", name, value);
}

static int write_head(struct wire *w, const struct load_options *o)
{
	int err = buf_puts(&w->head, "POST ");

	err = err ? err : load_join(w->url.base, o->path, &w->head);
	err = err ? err : buf_puts(&w->head, " HTTP/1.1\r\n");
	err = err ? err : put_header(w, o, "Host", w->url.authority);
	err = err ? err : put_header(w, o, "User-Agent", "pdctl-bench");
	err = err ? err : put_header(w, o, "Accept", o->body.stream ? "text/event-stream" : "*/*");
	err = err ? err : put_header(w, o, "Content-Type", "application/json");
	for (size_t i = 0; !err && i < o->nheaders; i++)
		err = buf_printf(&w->head, "%s\r\n", o->headers[i]);
	if (!err && o->api_key && o->body.endpoint == BODY_MESSAGES)
		err = put_header(w, o, "x-api-key", o->api_key);
	if (!err && o->body.endpoint == BODY_MESSAGES)
		err = put_header(w, o, "anthropic-version", "2023-06-01");
	if (!err && o->api_key && !has_header(o, "Authorization"))
		err = buf_printf(&w->head, "Authorization: Bearer %s\r\n", o->api_key);
	return err;
}

static int find_server(struct wire *w, const struct load_target *t, struct pd_msg *msg)
{
	struct sockaddr_un *un = &w->local;
	size_t n = t->unix_socket ? strlen(t->unix_socket) : 0;

	if (!t->unix_socket)
		return net_resolve_all(&w->addrs, w->url.host, w->url.port, msg);
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (n >= sizeof(un->sun_path))
		return pd_fail(msg, PD_EINVAL,
			       "--unix-socket: path of %zu bytes, expected fewer "
			       "than %zu",
			       n, sizeof(un->sun_path));
	memcpy(un->sun_path, t->unix_socket, n);
	w->addrs.n = 1;
	w->addrs.a[0] = (struct net_addr){.sa.local = un};
	return PD_OK;
}

int wire_init(struct wire *w, const struct load_options *o, size_t target, struct pd_msg *msg)
{
	const struct load_target *t = &o->target[target];
	struct tls_config tls = {.ca = o->ca_file, .insecure = o->insecure};
	struct pd_msg why = {""};
	int err;

	*w = (struct wire){0};
	buf_init(&w->head, 1 << 20);
	err = net_url_parse(&w->url, t->base_url, &why);
	if (err)
		return pd_fail(msg, PD_EINVAL,
			       "--base-url: found '%.200s', expected http[s]://HOST:PORT: %s",
			       t->base_url, why.text);
	err = find_server(w, t, msg);
	if (!err && w->url.tls) {
		err = tls_context_new(&w->tls, &tls, msg);
		w->peer = err ? NULL : tls_peer_new(w->url.host);
		err = err ? err : w->peer ? PD_OK : PD_ENOMEM;
	}
	return err ? err : write_head(w, o);
}

void wire_release(struct wire *w)
{
	buf_release(&w->head);
	tls_peer_free(w->peer);
	tls_context_free(w->tls);
}

int wire_fields(const struct load_core *c, const struct flight *f, struct buf *out)
{
	const struct load_options *o = c->o;
	const struct load_item *item = &c->items[f->item];
	const struct talk *k = NULL;
	int err;

	buf_clear(out);
	err = buf_printf(out, "Content-Length: %zu\r\n", f->body.len);
	for (size_t i = 0; !err && item->key > 0 && i < o->nkey_headers; i++)
		err = buf_printf(out, "%s: %.*s\r\n", o->key_headers[i], (int)item->key,
				 item->session);
	if (!err && o->request_id_prefix)
		err = buf_printf(out, "X-Request-Id: %s%u\r\n", o->request_id_prefix, f->item);
	if (o->necho_headers > 0 && c->order->session)
		k = talks_find(&c->talks, c->order->session[f->item]);
	for (size_t i = 0; !err && k && i < o->necho_headers; i++)
		if (k->header[i])
			err = buf_printf(out, "%s: %s\r\n", o->echo_headers[i], k->header[i]);
	return err ? err : buf_puts(out, "\r\n");
}
