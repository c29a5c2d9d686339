/*
 * libcurl's options, set once per handle. Each one that is not obvious guards against a measured
 * trap: an empty Expect header (else bodies over 1 MiB wait a second for "100 Continue"), an empty
 * proxy (else http_proxy applies even to 127.0.0.1), a short life for idle connections (else a
 * server's keep-alive limit shows up as silent second sends), names resolved once (else one thread
 * per look-up).
 */
#include "lib/load/slot.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/base/clock.h"

#define IDLE_CONNECTION_S  4L
#define CONNECT_TIMEOUT_MS 30000L
#define RECEIVE_BUFFER	   8192L

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;
	struct span line = {p, size * n};

	static const struct {
		struct span name;
		enum slot_worker which;
	} names[] = {
		{{"x-worker:", 9}, SLOT_WORKER},
		{{"x-prefill-worker:", 17}, SLOT_PREFILL},
		{{"x-decode-worker:", 16}, SLOT_DECODE},
	};

	while (line.n > 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	if (span_starts(line, SPAN("HTTP/"))) {
		const char *space = memchr(line.p, ' ', line.n);

		s->answer.status = space ? (int)strtol(space + 1, NULL, 10) : 0;
		if (s->answer.status >= 200 && s->first_byte_ns < 0)
			s->first_byte_ns = clock_now();
		return size * n;
	}
	if (line.n > 13 && strncasecmp(line.p, "content-type:", 13) == 0) {
		struct span v = span_trim((struct span){line.p + 13, line.n - 13});

		s->answer.streamed = v.n >= 17 && strncasecmp(v.p, "text/event-stream", 17) == 0;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct span v;

		if (line.n <= names[i].name.n ||
		    strncasecmp(line.p, names[i].name.p, names[i].name.n) != 0)
			continue;
		v = span_trim((struct span){line.p + names[i].name.n, line.n - names[i].name.n});
		v.n = v.n < SLOT_WORKER_MAX ? v.n : SLOT_WORKER_MAX - 1;
		memcpy(s->worker[names[i].which], v.p, v.n);
		s->worker[names[i].which][v.n] = '\0';
	}
	return size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;

	answer_feed(&s->answer, p, size * n, clock_now());
	return size * n;
}

static int add_header(struct curl_slist **list, const char *text)
{
	struct curl_slist *longer = curl_slist_append(*list, text);

	if (!longer)
		return PD_ENOMEM;
	*list = longer;
	return PD_OK;
}

/* Looks the host up once and pins the addresses: "host:port:addr[,addr]". */
static int resolve(struct slot_common *c, const char *host, const char *port, struct pd_msg *msg)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC}, *list = NULL;
	struct buf text;
	int rc = getaddrinfo(host, port, &hints, &list), err;
	bool any = false;

	if (rc != 0)
		return pd_fail(msg, PD_EIO, "cannot resolve '%s': %s", host, gai_strerror(rc));
	buf_init(&text, 65536);
	err = buf_printf(&text, "%s:%s:", host, port);
	for (struct addrinfo *a = list; !err && a; a = a->ai_next) {
		char address[64];

		if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof(address), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		err = buf_printf(&text, "%s%s%s%s", any ? "," : "",
				 a->ai_family == AF_INET6 ? "[" : "", address,
				 a->ai_family == AF_INET6 ? "]" : "");
		any = true;
	}
	freeaddrinfo(list);
	if (!err && any)
		err = add_header(&c->resolve, text.data);
	buf_release(&text);
	return err;
}

static bool is_literal(const char *host)
{
	struct in_addr v4;

	return host[0] == '[' || inet_pton(AF_INET, host, &v4) == 1;
}

static int check_url(struct slot_common *c, const char *url, struct pd_msg *msg)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL;
	int err = PD_OK;

	if (!u)
		return PD_ENOMEM;
	if (curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
	    (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		err = pd_fail(msg, PD_EINVAL,
			      "found '%s', expected http://HOST:PORT or https://HOST:PORT", url);
	else if (!is_literal(host))
		err = resolve(c, host, port, msg);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return err;
}

static int common_headers(struct slot_common *c, const struct load_options *o)
{
	struct buf auth;
	int err = add_header(&c->headers, "Expect:");

	if (!err)
		err = add_header(&c->headers, "Content-Type: application/json");
	if (!err && o->body.stream)
		err = add_header(&c->headers, "Accept: text/event-stream");
	for (size_t i = 0; !err && i < o->nheaders; i++)
		err = add_header(&c->headers, o->headers[i]);
	if (err || !o->api_key)
		return err;
	buf_init(&auth, 65536);
	err = buf_printf(&auth, "Authorization: Bearer %s", o->api_key);
	if (!err)
		err = add_header(&c->headers, auth.data);
	buf_release(&auth);
	return err;
}

int slot_common_init(struct slot_common *c, const struct load_options *o, const char *path,
		     struct pd_msg *msg)
{
	size_t n = strlen(o->base_url);
	struct buf url;
	int err;

	*c = (struct slot_common){0};
	while (n > 0 && o->base_url[n - 1] == '/')
		n--;
	buf_init(&url, 65536);
	err = buf_append(&url, o->base_url, n);
	if (!err)
		err = buf_puts(&url, path);
	c->url = buf_detach(&url);
	if (!err && !c->url)
		err = PD_ENOMEM;
	if (!err)
		err = check_url(c, c->url, msg);
	if (!err)
		err = common_headers(c, o);
	if (err)
		slot_common_release(c);
	return err;
}

void slot_common_release(struct slot_common *c)
{
	curl_slist_free_all(c->headers);
	curl_slist_free_all(c->resolve);
	free(c->url);
	*c = (struct slot_common){0};
}

static void set_options(struct slot *s, const struct load_options *o, const struct slot_common *c)
{
	CURL *e = s->easy;

	curl_easy_setopt(e, CURLOPT_URL, c->url);
	curl_easy_setopt(e, CURLOPT_RESOLVE, c->resolve);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	if (o->ca_file) {
		curl_easy_setopt(e, CURLOPT_CAINFO, o->ca_file);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_S);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS,
			 o->timeout_ns / NS_PER_MS > 0 ? (long)(o->timeout_ns / NS_PER_MS) : 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "pdctl-bench");
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->why);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, s);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(e, CURLOPT_PRIVATE, s);
}

struct slot *slot_new(const struct load_options *o, const struct slot_common *c)
{
	struct slot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->easy = curl_easy_init();
	if (!s->easy) {
		free(s);
		return NULL;
	}
	buf_init(&s->key_text, 65536);
	buf_init(&s->body, BODY_MAX);
	answer_init(&s->answer, o->keep_text);
	set_options(s, o, c);
	return s;
}

void slot_free(struct slot *s)
{
	if (!s)
		return;
	curl_easy_cleanup(s->easy);
	buf_release(&s->key_text);
	buf_release(&s->body);
	answer_release(&s->answer);
	free(s);
}

static bool has_control(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return true;
	return false;
}

int slot_prepare(struct slot *s, const struct load_options *o, const struct slot_common *c,
		 const struct load_item *item)
{
	struct curl_slist *headers = c->headers;
	int err;

	answer_clear(&s->answer);
	s->first_byte_ns = -1;
	s->why[0] = '\0';
	for (unsigned i = 0; i < SLOT_WORKERS; i++)
		s->worker[i][0] = '\0';
	buf_clear(&s->body);
	err = body_build(&o->body, item->request, item->key, &s->body);
	if (!err && o->key_header && item->key.n > 0) {
		if (has_control(item->key))
			return PD_EINVAL;
		buf_clear(&s->key_text);
		err = buf_printf(&s->key_text, "%s: %.*s", o->key_header, (int)item->key.n,
				 item->key.p);
		s->key_header = (struct curl_slist){s->key_text.data, c->headers};
		headers = &s->key_header;
	}
	if (err)
		return err;
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body.data);
	return PD_OK;
}

static const char *transport_label(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return "connect";
	case CURLE_OPERATION_TIMEDOUT:
		return "timeout";
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return "connection_lost";
	case CURLE_PARTIAL_FILE:
		return "truncated";
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
		return "tls";
	default:
		return "transport";
	}
}

const char *slot_finish(struct slot *s, CURLcode code, int64_t now_ns, bool embeddings)
{
	struct answer *a = &s->answer;
	bool lost = code != CURLE_OK;

	/* a stream that had begun and lost its connection is truncated, unless it had said [DONE]
	 * already */
	if (lost && a->status == 200 && a->streamed && code != CURLE_OPERATION_TIMEDOUT) {
		size_t n;

		answer_end(a, now_ns, a->done, embeddings);
		n = strlen(a->error);
		if (a->failure && n < sizeof(a->error))
			(void)snprintf(a->error + n, sizeof(a->error) - n, " (%s)",
				       s->why[0] ? s->why : curl_easy_strerror(code));
		return a->failure;
	}
	if (lost) {
		if (!a->failure)
			(void)snprintf(a->error, sizeof(a->error), "%s",
				       s->why[0] ? s->why : curl_easy_strerror(code));
		return a->failure ? a->failure : transport_label(code);
	}
	answer_end(a, now_ns, true, embeddings);
	return a->failure;
}
