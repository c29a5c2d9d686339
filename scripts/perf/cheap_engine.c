/*
 * An engine that costs as little as possible, for measuring what stands in front of it.
 *
 *   cheap_engine PORT[,PORT...] EVENTS_PER_S [plain]
 *
 * A request whose body has "stream":true gets `max_tokens` server-sent events of about 250 bytes at
 * the given rate, the last one with a finish_reason, then [DONE]; any other request gets a short
 * JSON answer once its whole body has arrived. One thread, one epoll. All streams have the same
 * interval, so timers are a wheel with one slot per millisecond of it: a stream stays in its slot,
 * and streams are spread evenly over the slots. Each event carries the time of sending ("t",
 * microseconds of the monotonic clock); with `plain` it is as vLLM writes it, without the time, and
 * each has another text.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
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

#define KEEP	  8192 /* of head and body: enough for the fields that are looked at */
#define SLOTS_MAX 60000
#define PORTS_MAX 16
#define FD_MAX	  65536

struct peer {
	int fd; /* -1: gone, freed by its slot */
	struct peer *next;
	bool listener, streaming;
	unsigned left;	    /* events still to be sent */
	uint64_t body_left; /* bytes of the body still to be read */
	bool in_body;
	size_t have;
	char keep[KEEP + 1];
};

static struct {
	int epoll;
	unsigned slots, next_slot;
	struct peer *slot[SLOTS_MAX];
	struct peer *by_fd[FD_MAX];
	uint64_t at; /* milliseconds: the slot of this time has been served */
	bool plain;
} engine;

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

/* Event sources are small and readers quick, so a full socket buffer means that the reader is gone.
 */
static bool put(struct peer *p, const char *text, size_t n)
{
	return send(p->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

static void watch(struct peer *p, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	p->fd = fd;
	if (fd < FD_MAX)
		engine.by_fd[fd] = p;
	if (fd >= FD_MAX || epoll_ctl(engine.epoll, EPOLL_CTL_ADD, fd, &e) != 0)
		fail("epoll_ctl");
}

static struct peer *peer_new(void)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (p == NULL)
		fail("calloc");
	return p;
}

static void drop(struct peer *p)
{
	engine.by_fd[p->fd] = NULL;
	(void)close(p->fd);
	p->fd = -1;
	if (!p->streaming)
		free(p);
}

/* -- requests -- */

static const char *field(const char *text, const char *name)
{
	const char *at = strcasestr(text, name);

	return at == NULL ? NULL : at + strlen(name);
}

static void answer_plain(struct peer *p)
{
	static const char body[] =
		"{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1700000000,"
		"\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
		"\"content\":\"yes\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
		"\"completion_tokens\":1,\"total_tokens\":10}}";
	char out[1024];
	int n = snprintf(out, sizeof(out),
			 "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
			 "content-length: %zu\r\n\r\n%s",
			 sizeof(body) - 1, body);

	if (!put(p, out, (size_t)n))
		drop(p);
}

static void answer_stream(struct peer *p)
{
	static const char head[] =
		"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8"
		"\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
	const char *tokens = field(p->keep, "\"max_tokens\":");
	struct peer **slot = &engine.slot[engine.next_slot];

	if (tokens == NULL) /* some routers rename it */
		tokens = field(p->keep, "\"max_completion_tokens\":");
	/* A step that shares no factor with the usual wheels spreads any number of streams. */
	engine.next_slot = (engine.next_slot + 7919u) % engine.slots;
	p->left = tokens == NULL ? 1u : (unsigned)strtoul(tokens, NULL, 10);
	p->streaming = true;
	p->next = *slot;
	*slot = p;
	(void)put(p, head, sizeof(head) - 1);
}

static void request_done(struct peer *p)
{
	p->keep[p->have] = '\0';
	p->have = 0;
	p->in_body = false;
	if (strstr(p->keep, "\"stream\":true") != NULL ||
	    strstr(p->keep, "\"stream\": true") != NULL)
		answer_stream(p);
	else
		answer_plain(p);
}

/* The head may have just become whole: learns the length of the body. */
static void request_head(struct peer *p)
{
	const char *end, *length;
	size_t body;

	p->keep[p->have] = '\0';
	end = strstr(p->keep, "\r\n\r\n");
	if (end == NULL) {
		if (p->have == KEEP)
			drop(p);
		return;
	}
	body = p->have - (size_t)(end + 4 - p->keep);
	length = field(p->keep, "\r\ncontent-length:");
	p->body_left = length != NULL && length < end ? strtoull(length, NULL, 10) : 0;
	p->body_left -= body < p->body_left ? body : p->body_left;
	p->in_body = true;
	if (p->body_left == 0)
		request_done(p);
}

static void peer_readable(struct peer *p)
{
	static char scrap[256 * 1024];
	char *into = p->have < KEEP ? p->keep + p->have : scrap;
	size_t room = p->have < KEEP ? KEEP - p->have : sizeof(scrap);
	ssize_t n = recv(p->fd, into, room, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || p->streaming) { /* nothing may follow while a stream runs */
		drop(p);
		return;
	}
	if (into != scrap)
		p->have += (size_t)n;
	if (!p->in_body) {
		request_head(p);
		return;
	}
	p->body_left -= (uint64_t)n < p->body_left ? (uint64_t)n : p->body_left;
	if (p->body_left == 0)
		request_done(p);
}

/* -- streams -- */

static bool send_event(struct peer *p)
{
	char data[512], out[640], sent[32] = "", number[16] = "";
	int n, all;

	if (p->left == 0)
		return false;
	if (engine.plain)
		(void)snprintf(number, sizeof(number), " %u", p->left);
	else
		(void)snprintf(sent, sizeof(sent), "\"t\":%llu,", (unsigned long long)now_us());
	n = snprintf(
		data, sizeof(data),
		"data: {%s\"id\":\"chatcmpl-4b1c0f6a2d9e4c5f8a7b6c5d4e3f2a1b\","
		"\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\","
		"\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token%s\"},\"logprobs\":null,"
		"\"finish_reason\":%s,\"token_ids\":null}]}\n\n",
		sent, number, p->left == 1 ? "\"stop\"" : "null");
	all = snprintf(out, sizeof(out), "%x\r\n%s\r\n", (unsigned)n, data);
	p->left--;
	return put(p, out, (size_t)all);
}

static bool send_end(struct peer *p)
{
	static const char end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

	return put(p, end, sizeof(end) - 1);
}

static void serve_slot(struct peer **link)
{
	struct peer *p;

	while ((p = *link) != NULL) {
		bool going = p->fd >= 0 && send_event(p);

		if (going) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		p->streaming = false;
		if (p->fd < 0)
			free(p);
		else if (p->left != 0 || !send_end(p))
			drop(p);
	}
}

static void serve_due(void)
{
	uint64_t now = now_us() / 1000u;

	for (; engine.at < now; engine.at++)
		serve_slot(&engine.slot[engine.at % engine.slots]);
}

/* -- listening -- */

static void accept_one(const struct peer *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC), on = 1;

	if (fd < 0)
		return;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	watch(peer_new(), fd);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): epoll holds it */
}

static void listen_on(struct peer *p, unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 4096) != 0)
		fail("listen");
	p->listener = true;
	watch(p, fd);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): epoll holds it */
}

int main(int argc, char **argv)
{
	static struct peer listeners[PORTS_MAX];
	struct epoll_event events[256];
	bool plain = argc == 4 && strcmp(argv[3], "plain") == 0, right = argc == 3 || plain;
	unsigned rate = right ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	char *at = right ? argv[1] : NULL;

	if (rate == 0 || rate > 1000) {
		(void)fprintf(stderr, "usage: cheap_engine PORT[,PORT...] EVENTS_PER_S (1 to "
				      "1000) [plain]\n");
		return 2;
	}
	engine.plain = plain;
	(void)signal(SIGPIPE, SIG_IGN);
	engine.slots = 1000u / rate;
	engine.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < PORTS_MAX && at != NULL && *at != '\0'; i++) {
		listen_on(&listeners[i], (unsigned)strtoul(at, &at, 10));
		at += *at == ',';
	}
	engine.at = now_us() / 1000u;
	for (;;) {
		int n = epoll_wait(engine.epoll, events, 256, 1);

		for (int i = 0; i < n; i++) {
			struct peer *p = engine.by_fd[events[i].data.fd];

			if (p != NULL && p->listener)
				accept_one(p);
			else if (p != NULL)
				peer_readable(p);
		}
		serve_due();
	}
}
