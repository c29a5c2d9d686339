/*
 * Each answer carries a policy for its content: a browser takes scripts and styles from this port
 * only, none that stand in the page, and talks to nobody else. What a client sent reaches the page
 * as JSON and is shown as text.
 */
#include "lib/router/page/page_serve.h"

#include <string.h>

#include "lib/base/clock.h"
#include "lib/page/assets.h"
#include "lib/router/page/page_state.h"

#define LIVE_FIRST 200 /* decisions that a new viewer gets at once */
#define LIVE_EACH  250 /* at most so many each second: more are counted */
#define FOUND_MAX  200
#define JSON	   "application/json"
#define EVENT_MAX  (PAGE_STATE_MAX + (1u << 20))
#define SECURITY                                                                                   \
	"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "       \
	"connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "          \
	"frame-ancestors 'none'\r\n"                                                               \
	"X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n"                             \
	"Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n"            \
	"Cache-Control: no-store\r\n"

static const struct {
	const char *path, *type;
	int first, second; /* assets; second -1: none */
} files[] = {
	{"/dashboard", "text/html; charset=utf-8", ASSET_DASHBOARD_HTML, -1},
	{"/dashboard/dashboard.js", "text/javascript; charset=utf-8", ASSET_DASHBOARD, -1},
	{"/dashboard/charts.js", "text/javascript; charset=utf-8", ASSET_CHARTS, -1},
	{"/dashboard/page.css", "text/css; charset=utf-8", ASSET_STYLE, -1},
	{"/dashboard/d3.js", "text/javascript; charset=utf-8", ASSET_D3_NOTICE, ASSET_D3},
};

bool page_route(const struct http_request *r)
{
	return span_eq(r->head.path, SPAN("/dashboard")) ||
	       span_starts(r->head.path, SPAN("/dashboard/"));
}

static void answer(struct http_conn *c, const struct buf *b, int err)
{
	if (err)
		(void)http_reply_error(c, 503, "server_error", "Retry-After: 1\r\n", "%s",
				       pd_err_text(err));
	else
		(void)http_reply(c, 200, JSON, SECURITY, b->data, b->len);
}

static void send_file(struct http_conn *c, size_t i)
{
	struct span one = page_asset((enum page_asset)files[i].first), two = {"", 0};
	struct buf b;
	int err;

	if (files[i].second < 0) {
		(void)http_reply(c, 200, files[i].type, SECURITY, one.p, one.n);
		return;
	}
	two = page_asset((enum page_asset)files[i].second);
	buf_init(&b, one.n + two.n + 1);
	err = buf_append(&b, one.p, one.n);
	err = err ? err : buf_append(&b, two.p, two.n);
	if (err)
		answer(c, &b, err);
	else
		(void)http_reply(c, 200, files[i].type, SECURITY, b.data, b.len);
	buf_release(&b);
}

/* -- the stream -- */

static int put_events(struct page *p, uint64_t *from, size_t max, struct buf *b)
{
	uint64_t missed = 0;
	int err = buf_puts(b, "event: state\ndata: ");

	err = err ? err : page_state(p, b);
	err = err ? err : buf_puts(b, "\n\nevent: decisions\ndata: {\"decisions\":[");
	err = err ? err : page_ring_read(&p->ring, from, max, &missed, b);
	return err ? err : buf_printf(b, "],\"missed\":%llu}\n\n", (unsigned long long)missed);
}

static void stream(struct page *p, struct http_conn *c)
{
	uint64_t end = page_ring_next(&p->ring), from = end > LIVE_FIRST ? end - LIVE_FIRST : 0;
	size_t max = LIVE_FIRST;
	struct buf b;
	int err;

	buf_init(&b, EVENT_MAX);
	err = http_stream_begin(c, 200, "text/event-stream", SECURITY "X-Accel-Buffering: no\r\n");
	err = err ? err : http_stream_write(c, "retry: 2000\n\n", 13);
	while (!err && !atomic_load(&p->ending)) {
		buf_clear(&b);
		err = page_look(p);
		err = err ? err : put_events(p, &from, max, &b);
		err = err ? err : http_stream_write(c, b.data, b.len);
		max = LIVE_EACH;
		if (err || http_conn_sleep(c, clock_now() + PAGE_PERIOD))
			break;
	}
	if (!err)
		(void)http_stream_end(c);
	buf_release(&b);
}

static void live(struct page *p, struct http_conn *c)
{
	if (page_look(p) || !page_enter(p, c)) {
		(void)http_reply_error(c, 503, "overloaded_error", "Retry-After: 5\r\n",
				       "at capacity: %d viewers of the page", PAGE_VIEWERS);
		return;
	}
	stream(p, c);
	page_leave(p, c);
}

/* -- questions -- */

static void state(struct page *p, struct http_conn *c)
{
	struct buf b;
	int err;

	buf_init(&b, PAGE_STATE_MAX);
	err = page_look(p);
	answer(c, &b, err ? err : page_state(p, &b));
	buf_release(&b);
}

static void decisions(struct page *p, struct http_conn *c, struct span key)
{
	struct buf b;
	size_t n;
	int err;

	buf_init(&b, EVENT_MAX);
	err = page_look(p);
	err = err ? err : buf_puts(&b, "{\"decisions\":[");
	err = err ? err : page_ring_find(&p->ring, key, FOUND_MAX, &b, &n);
	answer(c, &b, err ? err : buf_puts(&b, "]}"));
	buf_release(&b);
}

static void where(struct page *p, struct http_conn *c, struct span key)
{
	struct buf b;
	int err;

	buf_init(&b, 1u << 16);
	err = page_look(p);
	err = err ? err : buf_puts(&b, "{\"pools\":[");
	err = err ? err : page_state_where(p, key, &b);
	answer(c, &b, err ? err : buf_puts(&b, "]}"));
	buf_release(&b);
}

void page_serve(struct page *p, struct http_conn *c, const struct http_request *r, struct span key)
{
	struct span path = r->head.path, asked = {key.p ? key.p : "", key.n};
	bool get = span_eq(r->head.method, SPAN("GET"));

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (span_eq(path, span_of(files[i].path)) &&
		    (get || span_eq(r->head.method, SPAN("HEAD")))) {
			send_file(c, i);
			return;
		}
	}
	if (!get)
		(void)http_reply_error(c, 405, "invalid_request_error", "Allow: GET\r\n",
				       "found method %.*s, expected GET", (int)r->head.method.n,
				       r->head.method.p);
	else if (span_eq(path, SPAN("/dashboard/live")))
		live(p, c);
	else if (span_eq(path, SPAN("/dashboard/state")))
		state(p, c);
	else if (span_eq(path, SPAN("/dashboard/decisions")))
		decisions(p, c, asked);
	else if (span_eq(path, SPAN("/dashboard/where")) && asked.n > 0)
		where(p, c, asked);
	else if (span_eq(path, SPAN("/dashboard/where")))
		(void)http_reply_error(c, 400, "invalid_request_error", NULL,
				       "found no key, expected /dashboard/where?key=TEXT");
	else
		(void)http_reply_error(c, 404, "not_found_error", NULL,
				       "the page has no part of this name");
}
