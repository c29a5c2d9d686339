/*
 * libcurl's options, set once per handle. Each one that is not obvious guards against a measured
 * trap: an empty Expect header (else bodies over 1 MiB wait a second for "100 Continue"), an empty
 * proxy (else http_proxy applies even to 127.0.0.1), a short life for idle connections (else a
 * server's keep-alive limit shows up as silent second sends), names resolved once (else one thread
 * per look-up).
 */
#include "lib/load/curl_slot.h"

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
	const char *mark;

	while (line.n > 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	if (span_starts(line, SPAN("HTTP/"))) {
		mark = memchr(line.p, ' ', line.n);
		s->flight.answer.status = mark ? (int)strtol(mark + 1, NULL, 10) : 0;
		if (s->flight.answer.status >= 200 && s->flight.first_byte_ns < 0)
			s->flight.first_byte_ns = clock_now();
		return size * n;
	}
	mark = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;
	if (mark)
		load_core_field(
			s->core, &s->flight, (struct span){line.p, (size_t)(mark - line.p)},
			span_trim((struct span){mark + 1, line.n - (size_t)(mark + 1 - line.p)}));
	return size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;

	s->flight.end_ns = clock_now();
	answer_feed(&s->flight.answer, p, size * n, s->flight.end_ns);
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

static int check_url(struct slot_common *c, const char *url, bool elsewhere, struct pd_msg *msg)
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
	else if (!elsewhere && !is_literal(host))
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
	if (!err && o->body.endpoint == BODY_MESSAGES)
		err = add_header(&c->headers, "anthropic-version: 2023-06-01");
	if (err || !o->api_key)
		return err;
	buf_init(&auth, 65536);
	err = buf_printf(&auth, "Authorization: Bearer %s", o->api_key);
	if (!err)
		err = add_header(&c->headers, auth.data);
	buf_clear(&auth);
	if (!err && o->body.endpoint == BODY_MESSAGES)
		err = buf_printf(&auth, "x-api-key: %s", o->api_key);
	if (!err && auth.len > 0)
		err = add_header(&c->headers, auth.data);
	buf_release(&auth);
	return err;
}

/* The base URL's own path joined with the path of the requests. */
static int join_url(struct slot_common *c, const char *base, const char *path)
{
	const char *host = strstr(base, "://"), *own = host ? strchr(host + 3, '/') : NULL;
	struct buf url;
	int err;

	buf_init(&url, 65536);
	err = buf_append(&url, base, own ? (size_t)(own - base) : strlen(base));
	if (!err)
		err = load_join(own ? own : "", path, &url);
	c->url = err ? NULL : buf_detach(&url);
	buf_release(&url);
	return c->url ? PD_OK : PD_ENOMEM;
}

int slot_common_init(struct slot_common *c, const struct load_options *o, const char *path,
		     struct pd_msg *msg)
{
	int err;

	*c = (struct slot_common){0};
	err = join_url(c, o->target[0].base_url, path);
	if (!err)
		err = check_url(c, c->url, o->proxy || o->target[0].unix_socket, msg);
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

/*
 * HTTP/2 is agreed by ALPN with a server of https://, and spoken from the first byte with one of
 * http://. A libcurl before 8.0.0 fails on every such connection that it uses again (curl's pull
 * request 10643), so it gets one for each request.
 */
static void set_version(struct slot *s, const struct load_options *o, const struct slot_common *c)
{
	bool tls = strncmp(c->url, "https:", 6) == 0;

	s->http2 = o->http2;
	curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION,
			 (long)(!o->http2 ? CURL_HTTP_VERSION_1_1
				: tls	  ? CURL_HTTP_VERSION_2TLS
					  : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
	if (o->http2 && !tls && curl_version_info(CURLVERSION_NOW)->version_num < 0x080000) {
		curl_easy_setopt(s->easy, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(s->easy, CURLOPT_FORBID_REUSE, 1L);
	}
}

static void set_options(struct slot *s, const struct load_options *o, const struct slot_common *c)
{
	CURL *e = s->easy;

	curl_easy_setopt(e, CURLOPT_URL, c->url);
	curl_easy_setopt(e, CURLOPT_RESOLVE, c->resolve);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY, o->proxy ? o->proxy : "");
	if (o->target[0].unix_socket)
		curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, o->target[0].unix_socket);
	if (o->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	if (o->ca_file) {
		curl_easy_setopt(e, CURLOPT_CAINFO, o->ca_file);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	set_version(s, o, c);
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

struct slot *slot_new(const struct load_options *o, const struct slot_common *c,
		      struct load_core *core)
{
	struct slot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->core = core;
	buf_init(&s->text, 1 << 20);
	s->easy = curl_easy_init();
	if (!s->easy || flight_init(&s->flight, o)) {
		slot_free(s);
		return NULL;
	}
	set_options(s, o, c);
	return s;
}

static void drop_headers(struct slot *s)
{
	if (s->last)
		s->last->next = NULL; /* the common ones are not ours */
	curl_slist_free_all(s->headers);
	s->headers = s->last = NULL;
}

void slot_free(struct slot *s)
{
	if (!s)
		return;
	drop_headers(s);
	if (s->easy)
		curl_easy_cleanup(s->easy);
	flight_release(&s->flight);
	buf_release(&s->text);
	free(s);
}

static int own_header(struct slot *s, const char *name, struct span value)
{
	int err;

	buf_clear(&s->text);
	err = buf_printf(&s->text, "%s: %.*s", name, (int)value.n, value.p);
	err = err ? err : add_header(&s->headers, s->text.data);
	for (s->last = s->headers; s->last && s->last->next;)
		s->last = s->last->next;
	return err;
}

static int own_headers(struct slot *s)
{
	const struct load_core *c = s->core;
	const struct load_options *o = c->o;
	const struct load_item *item = &c->items[s->flight.item];
	struct span key = {item->session, item->key};
	const struct talk *k = NULL;
	char id[512];
	int err = PD_OK;

	for (size_t i = 0; !err && key.n > 0 && i < o->nkey_headers; i++)
		err = own_header(s, o->key_headers[i], key);
	if (!err && o->request_id_prefix) {
		(void)snprintf(id, sizeof(id), "%s%u", o->request_id_prefix, s->flight.item);
		err = own_header(s, "X-Request-Id", span_of(id));
	}
	if (o->necho_headers > 0 && c->order->session)
		k = talks_find(&c->talks, c->order->session[s->flight.item]);
	for (size_t i = 0; !err && k && i < o->necho_headers; i++)
		if (k->header[i])
			err = own_header(s, o->echo_headers[i], span_of(k->header[i]));
	return err;
}

int slot_prepare(struct slot *s, const struct slot_common *c)
{
	int err;

	drop_headers(s);
	s->why[0] = '\0';
	err = own_headers(s);
	if (err)
		return err;
	if (s->last)
		s->last->next = c->headers;
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers ? s->headers : c->headers);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->flight.body.len);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->flight.body.data);
	return PD_OK;
}

static const char *transport_label(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
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
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_BAD_CONTENT_ENCODING:
		return "bad_http";
	default:
		return "local";
	}
}

const char *slot_finish(struct slot *s, CURLcode code)
{
	struct answer *a = &s->flight.answer;
	const char *why = s->why[0] ? s->why : curl_easy_strerror(code);
	long version = 0;
	size_t n;

	if (s->flight.end_ns < 0 || code != CURLE_OK)
		s->flight.end_ns = clock_now();
	/* a stream that had begun and lost its connection is truncated, unless it had said [DONE]
	 * already */
	if (code != CURLE_OK && a->status == 200 && a->streamed &&
	    code != CURLE_OPERATION_TIMEDOUT && strcmp(transport_label(code), "bad_http") != 0) {
		answer_end(a, s->flight.end_ns, a->done);
		n = strlen(a->error);
		if (a->failure && n < sizeof(a->error))
			(void)snprintf(a->error + n, sizeof(a->error) - n, " (%s)", why);
		return a->failure;
	}
	if (code != CURLE_OK)
		answer_fail(a, transport_label(code), "%s", why);
	else if (s->http2 &&
		 curl_easy_getinfo(s->easy, CURLINFO_HTTP_VERSION, &version) == CURLE_OK &&
		 version != CURL_HTTP_VERSION_2_0)
		answer_fail(a, "bad_http", "the server does not speak HTTP/2");
	else
		answer_end(a, s->flight.end_ns, true);
	return a->failure;
}
