/* The server's own answers: whole responses in one gather-write, and chunked streams with one write
 * per piece. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "lib/json/scan.h"

#define REPLY_HEAD_MAX	8192
#define REPLY_ERROR_MAX 2048

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static void http_date(char *out, size_t cap)
{
	time_t now = (time_t)(clock_wall() / NS_PER_S);
	struct tm tm;

	(void)gmtime_r(&now, &tm);
	(void)strftime(out, cap, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

static int put_head(struct http_conn *c, struct buf *b, int status, const char *ctype,
		    const char *extra)
{
	char date[40];
	int err;

	http_date(date, sizeof(date));
	err = buf_printf(b, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, http_reason(status), date);
	if (!err && ctype)
		err = buf_printf(b, "Content-Type: %s\r\n", ctype);
	if (!err && extra)
		err = buf_puts(b, extra);
	if (!err && c->extra.n > 0)
		err = buf_append(b, c->extra.p, c->extra.n);
	if (!err && http_conn_closing(c))
		err = buf_puts(b, "Connection: close\r\n");
	else if (!err && c->work->req.head.minor == 0)
		err = buf_puts(b, "Connection: keep-alive\r\n");
	return err;
}

static int send_counted(struct http_conn *c, struct iovec *iov, size_t n)
{
	int err = stream_send_iov(&c->io, iov, n, c->server->cfg.write_stall_ns, NULL);

	if (err == PD_ETIMEOUT)
		atomic_fetch_add_explicit(&c->server->write_stalls, 1, memory_order_relaxed);
	return err;
}

int http_reply(struct http_conn *c, int status, const char *ctype, const char *extra,
	       const void *body, size_t n)
{
	bool bodyless = status == 204 || status == 304,
	     is_head = span_eq(c->work->req.head.method, SPAN("HEAD"));
	struct iovec iov[2];
	struct buf b;
	int err;

	buf_init(&b, REPLY_HEAD_MAX);
	err = put_head(c, &b, status, ctype, extra);
	if (!err && !bodyless)
		err = buf_printf(&b, "Content-Length: %zu\r\n", n);
	if (!err)
		err = buf_puts(&b, "\r\n");
	iov[0] = (struct iovec){.iov_base = b.data, .iov_len = b.len};
	iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)body, .iov_len = n};
	if (!err)
		err = send_counted(c, iov, n > 0 && !bodyless && !is_head ? 2 : 1);
	buf_release(&b);
	http_conn_wrote(c, err == PD_OK);
	return err;
}

void http_conn_set_who(struct http_conn *c, const char *name)
{
	c->work->who = name;
}

const char *http_conn_who(const struct http_conn *c)
{
	return c->work->who;
}

const char *http_conn_told(const struct http_conn *c)
{
	return c->work->told;
}

void http_conn_tell(struct http_conn *c, struct span text)
{
	size_t n = text.n < HTTP_TOLD_MAX ? text.n : HTTP_TOLD_MAX - 1;

	memcpy(c->work->told, text.p, n);
	c->work->told[n] = '\0';
}

int http_reply_error(struct http_conn *c, int status, const char *type, const char *extra,
		     const char *fmt, ...)
{
	char text[REPLY_ERROR_MAX];
	struct buf b;
	va_list ap;
	int err;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	http_conn_tell(c, span_of(text));
	buf_init(&b, 8 * REPLY_ERROR_MAX);
	err = buf_puts(&b, "{\"error\":{\"message\":");
	err = err ? err : json_quote(&b, text, strlen(text));
	err = err ? err
		  : buf_printf(&b, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}", type, status);
	err = err ? err : http_reply(c, status, "application/json", extra, b.data, b.len);
	buf_release(&b);
	return err;
}

int http_stream_begin(struct http_conn *c, int status, const char *ctype, const char *extra)
{
	struct buf b;
	int err;

	c->chunked_out = c->work->req.head.minor >= 1;
	if (!c->chunked_out)
		c->close_after = true;
	buf_init(&b, REPLY_HEAD_MAX);
	err = put_head(c, &b, status, ctype, extra);
	err = err ? err
		  : buf_puts(&b, c->chunked_out ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
	if (!err) {
		struct iovec iov = {.iov_base = b.data, .iov_len = b.len};

		err = send_counted(c, &iov, 1);
	}
	buf_release(&b);
	http_conn_wrote(c, false);
	return err;
}

int http_stream_write(struct http_conn *c, const void *p, size_t n)
{
	struct iovec iov[3];
	char size[24];
	int len;

	if (n == 0)
		return PD_OK;
	iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = n};
	if (!c->chunked_out)
		return send_counted(c, iov + 1, 1);
	len = snprintf(size, sizeof(size), "%zx\r\n", n);
	iov[0] = (struct iovec){.iov_base = size, .iov_len = (size_t)len};
	iov[2] = (struct iovec){.iov_base = (void *)(uintptr_t) "\r\n", .iov_len = 2};
	return send_counted(c, iov, 3);
}

int http_stream_end(struct http_conn *c)
{
	int err = c->chunked_out
			  ? stream_send(&c->io, "0\r\n\r\n", 5, c->server->cfg.write_stall_ns)
			  : PD_OK;

	http_conn_wrote(c, err == PD_OK);
	return err;
}
