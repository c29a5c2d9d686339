#include "lib/discovery/kube_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/discovery/kube_pod.h"
#include "lib/http/client.h"
#include "lib/net/net.h"
#include "lib/net/resolver.h"
#include "lib/net/shelf.h"

#define CONNECT_NS (10 * NS_PER_S)
#define ANSWER_NS  (30 * NS_PER_S) /* to the head of an answer, and between its pieces */
#define WHOLE_NS   (120 * NS_PER_S)
#define IDLE_NS	   (60 * NS_PER_S)
#define ERROR_MAX  (256u << 10) /* bytes of an answer that is no list */
#define WAIT_MAX_S 300		/* of Retry-After */

struct kube_client {
	const struct kube_access *access;
	struct source_thread *thread;
	struct net_url url;
	struct tls_context *tls;
	struct tls_peer *peer;
	struct tls_config files;
	struct tls_pair pair;
	struct resolver *names;
	struct http_pool pool;
	struct buf in, token, head;
	char server[320];
};

static int open_tls(struct kube_client *c, struct pd_msg *msg)
{
	const struct kube_access *a = c->access;

	c->pair = (struct tls_pair){a->cert, a->key};
	c->files = (struct tls_config){.ca = a->ca, .insecure = a->insecure};
	if (a->cert) {
		c->files.pairs = &c->pair;
		c->files.npairs = 1;
	}
	c->peer = tls_peer_new(a->tls_name ? a->tls_name : c->url.host);
	if (!c->peer)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	return tls_context_new(&c->tls, &c->files, msg);
}

int kube_client_new(struct kube_client **out, const struct kube_access *a, struct source_thread *t,
		    struct pd_msg *msg)
{
	struct kube_client *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	c->access = a;
	c->thread = t;
	buf_init(&c->in, KUBE_LINE_MAX);
	buf_init(&c->token, KUBE_TOKEN_MAX);
	buf_init(&c->head, KUBE_TOKEN_MAX + 32768);
	err = http_pool_init(&c->pool, 2, IDLE_NS) || resolver_new(&c->names)
		      ? pd_fail(msg, PD_ENOMEM, "out of memory")
		      : net_url_parse(&c->url, a->server, msg);
	(void)snprintf(c->server, sizeof(c->server), "http%s://%s", c->url.tls ? "s" : "",
		       c->url.authority);
	if (!err && c->url.tls)
		err = open_tls(c, msg);
	if (err) {
		kube_client_free(c);
		return err;
	}
	*out = c;
	return PD_OK;
}

void kube_client_free(struct kube_client *c)
{
	if (!c)
		return;
	http_pool_release(&c->pool);
	resolver_free(c->names);
	tls_peer_free(c->peer);
	tls_context_free(c->tls);
	shelf_give(&c->in);
	buf_release(&c->in);
	if (c->token.data)
		explicit_bzero(c->token.data, c->token.cap);
	buf_release(&c->token);
	if (c->head.data)
		explicit_bzero(c->head.data, c->head.cap);
	buf_release(&c->head);
	free(c);
}

void kube_client_cut(struct kube_client *c)
{
	(void)http_pool_cut(&c->pool, INT64_MAX);
}

const char *kube_client_server(const struct kube_client *c)
{
	return c->server;
}

int kube_escape(struct buf *out, const char *text)
{
	int err = PD_OK;

	for (; !err && *text; text++) {
		unsigned char b = (unsigned char)*text;

		if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') ||
		    strchr("-_.~", b))
			err = buf_putc(out, *text);
		else
			err = buf_printf(out, "%%%02X", b);
	}
	return err;
}

/* -- a request -- */

static int where(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *why)
{
	struct kube_client *c = ctx;
	const struct errand_sleeper who = source_thread_sleeper(c->thread);

	return resolver_find(c->names, c->url.host, c->url.port, &who, deadline, out, why);
}

static int write_head(struct kube_client *c, const char *path, struct pd_msg *msg)
{
	int err = kube_access_token(c->access, &c->token, msg);

	if (err)
		return PD_EIO;
	buf_clear(&c->head);
	err = buf_printf(&c->head,
			 "GET %s%s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n"
			 "User-Agent: pdctl\r\n",
			 c->url.base, path, c->url.authority);
	if (!err && c->token.len)
		err = buf_printf(&c->head, "Authorization: Bearer %s\r\n", c->token.data);
	err = err ? err : buf_puts(&c->head, "\r\n");
	return err ? pd_fail(msg, err, "GET: the path or the token is too long") : PD_OK;
}

/* What helps against a status. */
static const char *advice(const struct kube_client *c, int status, char *text, size_t cap)
{
	text[0] = '\0';
	if (status == 403)
		(void)snprintf(text, cap,
			       "; expected a Role (without --service-discovery-namespace a "
			       "ClusterRole) bound to this account with the verbs get, list and "
			       "watch on pods");
	else if (status == 401 && c->access->token_file)
		(void)snprintf(text, cap, "; expected a valid token in %.100s",
			       c->access->token_file);
	else if (status == 401)
		(void)snprintf(text, cap, "; expected a valid token or client certificate");
	return text;
}

/* A status other than 200, with what its body says. */
static int refused(struct kube_client *c, struct http_call *call, struct kube_answer *a,
		   const char *what, struct pd_msg *msg)
{
	const struct field *after = http_field_tag(&call->head, HTTP_RETRY_AFTER);
	/* Now: the head goes with the body. */
	int64_t head_s = after ? http_retry_after(after->value, clock_wall()) / NS_PER_S : 0;
	unsigned wait_s = 0;
	char said[240] = "", help[240];
	struct buf body;
	int code;

	buf_init(&body, ERROR_MAX);
	if (http_call_collect(call, &body) == PD_OK && body.len)
		kube_status_read(buf_span(&body), said, sizeof(said), &code, &wait_s);
	buf_release(&body);
	wait_s = head_s > 0 ? (unsigned)head_s : wait_s;
	a->wait_s = wait_s < WAIT_MAX_S ? wait_s : WAIT_MAX_S;
	return pd_fail(msg, PD_EIO, "%s of %s: found status %d%s%s, expected 200%s", what,
		       c->server, a->status, said[0] ? ": " : "", said,
		       advice(c, a->status, help, sizeof(help)));
}

/* Begins a call; the head of a 200 answer is there afterwards. */
static int begin(struct kube_client *c, struct http_call *call, const char *path, const char *what,
		 struct kube_answer *a, struct pd_msg *msg)
{
	struct pd_msg why = {0};
	enum http_call_result r;
	struct iovec head;
	int err;

	*a = (struct kube_answer){0};
	err = write_head(c, path, msg);
	if (err)
		return err;
	head = (struct iovec){c->head.data, c->head.len};
	r = http_call_begin(call, &head, 1, &why);
	if (source_thread_stopped(c->thread))
		return pd_fail(msg, PD_ECANCELED, "%s: cut", what);
	if (r != HTTP_CALL_OK) {
		char fault[HTTP_FAULT_TEXT];

		(void)http_fault_text(&call->fault, fault);
		/* A CA that was replaced: its file is read again for the next connection, and what
		 * is at hand stays when that fails. */
		if (c->tls && r == HTTP_CALL_CONNECT)
			(void)!tls_context_reload(c->tls, NULL);
		return pd_fail(msg, PD_EIO, "%s of %s: %s%s%s%s%s", what, c->server,
			       http_call_text(r), why.text[0] ? ": " : "", why.text,
			       fault[0] ? ": " : "", fault);
	}
	a->status = call->head.status;
	return a->status == 200 ? PD_OK : refused(c, call, a, what, msg);
}

static struct http_call call_of(struct kube_client *c, int64_t between, int64_t whole)
{
	return (struct http_call){
		.to = {.pool = &c->pool,
		       .tls = c->tls,
		       .name = c->peer,
		       .address = where,
		       .ctx = c},
		.in = &c->in,
		.limit = {.connect = CONNECT_NS,
			  .send = ANSWER_NS,
			  .first_byte = ANSWER_NS,
			  .between = between},
		.deadline = whole == CLOCK_NEVER ? CLOCK_NEVER : clock_now() + whole,
		.repeat = true,
		.probe = true,
	};
}

static void end(struct kube_client *c, struct http_call *call)
{
	(void)http_call_end(call);
	shelf_give(&c->in);
	buf_clear(&c->in);
}

/* A body that did not come whole. */
static int cut(struct kube_client *c, const struct http_call *call, int err, const char *what,
	       struct pd_msg *msg)
{
	char fault[HTTP_FAULT_TEXT];

	if (source_thread_stopped(c->thread))
		return pd_fail(msg, PD_ECANCELED, "%s: cut", what);
	(void)http_fault_text(&call->fault, fault);
	return pd_fail(msg, err, "%s of %s: the answer %s%s%s", what, c->server,
		       err == PD_ETIMEOUT  ? "stopped"
		       : err == PD_ETOOBIG ? "is too long"
					   : "was cut",
		       fault[0] ? ": " : "", fault);
}

int kube_client_get(struct kube_client *c, const char *path, struct buf *body,
		    struct kube_answer *a, struct pd_msg *msg)
{
	struct http_call call = call_of(c, ANSWER_NS, WHOLE_NS);
	int err = begin(c, &call, path, "the list of pods", a, msg);

	buf_clear(body);
	if (!err) {
		err = http_call_collect(&call, body);
		if (err)
			err = cut(c, &call, err == PD_ETOOBIG ? err : PD_EIO, "the list of pods",
				  msg);
	}
	end(c, &call);
	return err;
}

/* -- a watch -- */

/* Hands out the whole lines; what is left stays for the next bytes. */
static int feed(struct buf *line, struct span piece, const struct kube_lines *to)
{
	int err = PD_OK;

	while (!err && piece.n > 0) {
		const char *lf = memchr(piece.p, '\n', piece.n);
		size_t n = lf ? (size_t)(lf - piece.p) : piece.n;

		err = buf_append(line, piece.p, n);
		if (err || !lf)
			break;
		if (line->len > 0)
			err = to->line(to->ctx, buf_span(line));
		buf_clear(line);
		piece.p += n + 1;
		piece.n -= n + 1;
	}
	return err;
}

static int follow(struct http_call *call, struct buf *line, const struct kube_lines *to)
{
	struct span piece;
	ssize_t n;
	int err = PD_OK;

	while (!err && !call->ended) {
		while (!err && http_call_piece(call, &piece, &err))
			err = feed(line, piece, to);
		if (err || call->ended)
			break;
		to->idle(to->ctx);
		n = http_call_more(call);
		err = n < 0 ? (int)n : PD_OK;
		if (n > 0)
			http_call_heard(call, clock_now());
	}
	to->idle(to->ctx);
	return err ? err : line->len > 0 ? PD_ECLOSED : PD_OK;
}

int kube_client_watch(struct kube_client *c, const char *path, const struct kube_lines *to,
		      int64_t quiet_ns, struct kube_answer *a, struct pd_msg *msg)
{
	struct http_call call = call_of(c, quiet_ns, CLOCK_NEVER);
	int err = begin(c, &call, path, "the watch of pods", a, msg);
	struct buf line;

	buf_init(&line, KUBE_LINE_MAX);
	if (!err) {
		if (msg)
			msg->text[0] = '\0';
		err = follow(&call, &line, to);
		/* What the receiver of lines has against one, it says itself. */
		if (err && err != PD_EINVAL && err != PD_ENOMEM)
			err = cut(c, &call, err, "the watch of pods", msg);
	}
	buf_release(&line);
	end(c, &call);
	return err;
}
