/*
 * Many server-sent-event streams at once, read as cheaply as possible and checked to their end.
 *
 *   sse_sink PORT STREAMS EVENTS WINDOW_MS header|body
 *
 * Opens STREAMS connections, asks each for EVENTS events, and counts. Says on standard output
 *   ready N     every stream has had its first event; N events so far
 *   window N    WINDOW_MS later; never when that is 0
 *   end JSON    every stream has ended: how many were complete (all events in order of arrival,
 *               then [DONE], then the last chunk), delays between sending and receiving
 * and then holds all connections open, idle, until standard input ends. `header`: the session id is
 * also sent as X-Session-Id, for proxies that hash a header. One thread, one epoll; the product's
 * own chunk decoder, but an event counter of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/http/chunk.h"
#include "lib/stats/hist.h"

#define HEAD_MAX   4096
#define LINE_KEEP  32
#define BODY_BYTES 1400
#define OPEN_PER_S 2000 /* connections; a burst would only measure backlogs */
#define STALL_US   60000000u

struct stream {
	int fd;
	bool in_body, over;
	size_t have;
	char head[HEAD_MAX + 1];
	struct http_chunked chunks;
	char line[LINE_KEEP]; /* the start of the current line */
	size_t line_len;
	unsigned events;
	bool done_seen;
};

static struct {
	int epoll;
	uint16_t port;
	unsigned streams, events, opened, begun, over, complete, refused;
	uint64_t total, last_us;
	bool header;
	struct stream *all;
	struct hist delay_us;
} sink;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* The stream is over; a connection that broke is closed, a good one is kept. */
static void finish(struct stream *s, bool good)
{
	if (s->over)
		return;
	s->over = true;
	sink.over++;
	sink.begun += s->events == 0; /* it will not begin any more */
	if (good && s->done_seen && s->events == sink.events)
		sink.complete++;
	if (!good) {
		(void)close(s->fd);
		s->fd = -1;
	}
}

static void line_end(struct stream *s)
{
	static const char event[] = "data: {\"t\":", done[] = "data: [DONE]";

	if (s->line_len >= sizeof(event) - 1 && memcmp(s->line, event, sizeof(event) - 1) == 0) {
		uint64_t sent = strtoull(s->line + sizeof(event) - 1, NULL, 10);

		hist_add(&sink.delay_us, sink.last_us > sent ? sink.last_us - sent : 0);
		sink.begun += s->events == 0;
		s->events++;
		sink.total++;
	} else if (s->line_len >= sizeof(done) - 1 &&
		   memcmp(s->line, done, sizeof(done) - 1) == 0) {
		s->done_seen = true;
	}
	s->line_len = 0;
}

static void lines(struct stream *s, struct span text)
{
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] == '\n')
			line_end(s);
		else if (s->line_len < LINE_KEEP - 1)
			s->line[s->line_len++] = text.p[i];
	}
}

static void body(struct stream *s, const char *p, size_t n)
{
	while (n > 0 && !s->over) {
		struct span payload;
		size_t used;

		if (http_chunked_feed(&s->chunks, p, n, &used, &payload) != PD_OK) {
			finish(s, false);
			return;
		}
		lines(s, payload);
		p += used;
		n -= used;
		if (s->chunks.done)
			finish(s, n == 0);
	}
}

/* Collects the head of the answer; it must be a 200 in chunks. */
static void head(struct stream *s, const char *p, size_t n)
{
	size_t old = s->have, take = n < HEAD_MAX - old ? n : HEAD_MAX - old, skip;
	const char *end;

	memcpy(s->head + old, p, take);
	s->have += take;
	s->head[s->have] = '\0';
	end = strstr(s->head, "\r\n\r\n");
	if (end == NULL) {
		if (s->have == HEAD_MAX)
			finish(s, false);
		return;
	}
	skip = (size_t)(end + 4 - s->head) - old;
	if (strncmp(s->head, "HTTP/1.1 200", 12) != 0 || strcasestr(s->head, "chunked") == NULL) {
		sink.refused++;
		if (sink.refused == 1)
			(void)fprintf(stderr, "answer: %.300s\n", s->head);
		finish(s, false);
		return;
	}
	s->in_body = true;
	body(s, p + skip, n - skip);
}

static void readable(struct stream *s)
{
	static char in[64 * 1024];
	ssize_t n = recv(s->fd, in, sizeof(in), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	sink.last_us = now_us();
	if (s->over || n <= 0) {
		(void)epoll_ctl(sink.epoll, EPOLL_CTL_DEL, s->fd, NULL);
		finish(s, false);
		return;
	}
	if (s->in_body)
		body(s, in, (size_t)n);
	else
		head(s, in, (size_t)n);
}

static void request(struct stream *s, unsigned id)
{
	char body_text[BODY_BYTES + 1], out[BODY_BYTES + 512], key[64] = "";
	int tail, n;

	tail = snprintf(body_text, sizeof(body_text),
			"{\"model\":\"m\",\"stream\":true,\"max_tokens\":%u,\"session_params\":{"
			"\"session_id\":"
			"\"session-%06u\"},\"messages\":[{\"role\":\"user\",\"content\":\"",
			sink.events, id);
	memset(body_text + tail, 'x', (size_t)(BODY_BYTES - tail));
	memcpy(body_text + BODY_BYTES - 4, "\"}]}", 5);
	if (sink.header)
		(void)snprintf(key, sizeof(key), "X-Session-Id: session-%06u\r\n", id);
	n = snprintf(out, sizeof(out),
		     "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s"
		     "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		     (unsigned)sink.port, key, BODY_BYTES, body_text);
	if (send(s->fd, out, (size_t)n, MSG_NOSIGNAL) != n)
		fail("send");
}

static void open_one(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(sink.port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct stream *s = &sink.all[sink.opened];
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		fail("connect");
	http_chunked_init(&s->chunks);
	request(s, sink.opened++);
	if (epoll_ctl(sink.epoll, EPOLL_CTL_ADD, s->fd, &e) != 0)
		fail("epoll_ctl");
}

static void wait_events(int ms)
{
	struct epoll_event events[256];
	int n = epoll_wait(sink.epoll, events, 256, ms);

	for (int i = 0; i < n; i++)
		readable(events[i].data.ptr);
}

static void open_all(void)
{
	uint64_t start = now_us();

	while (sink.opened < sink.streams) {
		uint64_t due = (now_us() - start) * OPEN_PER_S / 1000000u + 1;

		while (sink.opened < sink.streams && sink.opened < due)
			open_one();
		wait_events(1);
	}
}

static void say(const char *what)
{
	(void)printf("%s %llu\n", what, (unsigned long long)sink.total);
	(void)fflush(stdout);
}

/* All streams to their end; a minute without an event is the end too. */
static void run(uint64_t window_us)
{
	uint64_t ready = 0, began = now_us();
	bool window = window_us == 0;

	sink.last_us = began;
	while (sink.over < sink.streams && now_us() - sink.last_us < STALL_US) {
		wait_events(10);
		if (ready == 0 && sink.begun >= sink.streams) {
			ready = now_us();
			say("ready");
		}
		if (!window && ready != 0 && now_us() - ready >= window_us) {
			window = true;
			say("window");
		}
	}
}

static void report(void)
{
	(void)printf(
		"end "
		"{\"streams\":%u,\"complete\":%u,\"refused\":%u,\"events\":%llu,\"p50_us\":%llu,"
		"\"p99_us\":%llu,\"max_us\":%llu}\n",
		sink.streams, sink.complete, sink.refused, (unsigned long long)sink.total,
		(unsigned long long)hist_quantile(&sink.delay_us, 0.5),
		(unsigned long long)hist_quantile(&sink.delay_us, 0.99),
		(unsigned long long)sink.delay_us.max);
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	char byte;

	if (argc != 6) {
		(void)fprintf(stderr,
			      "usage: sse_sink PORT STREAMS EVENTS WINDOW_MS header|body\n");
		return 2;
	}
	sink.port = (uint16_t)strtoul(argv[1], NULL, 10);
	sink.streams = (unsigned)strtoul(argv[2], NULL, 10);
	sink.events = (unsigned)strtoul(argv[3], NULL, 10);
	sink.header = strcmp(argv[5], "header") == 0;
	sink.epoll = epoll_create1(EPOLL_CLOEXEC);
	sink.all = calloc(sink.streams, sizeof(*sink.all));
	if (sink.all == NULL || sink.epoll < 0)
		fail("start");
	hist_init(&sink.delay_us);
	open_all();
	run(strtoull(argv[4], NULL, 10) * 1000u);
	report();
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
