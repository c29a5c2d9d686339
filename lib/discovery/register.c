/* One thread: it waits for messages and for the next entry to expire, and publishes what changed.
 */
#include "lib/discovery/register.h"

#include <errno.h>
#include <msgpack.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/msgpackcheck.h"
#include "lib/net/zmqlib.h"

#define LOOK_MS 50 /* between two looks at the clock and at `stop` */

struct register_source {
	const struct zmqlib *z;
	struct discovery_sink sink;
	void *ctx, *socket;
	pthread_t thread;
	_Atomic bool stop;
	struct discovery_list now; /* sorted by role and URL, so that order says nothing */
	int64_t *expires;	   /* of each; owned */
	size_t cap;
	bool said_full, said_bad;
};

/* -- a message -- */

static struct span text_of(const msgpack_object *o)
{
	if (o->type == MSGPACK_OBJECT_STR)
		return (struct span){o->via.str.ptr, o->via.str.size};
	if (o->type == MSGPACK_OBJECT_BIN)
		return (struct span){o->via.bin.ptr, o->via.bin.size};
	return (struct span){0};
}

/* Host and port of "host:port" or "host:port@rank": nothing in it that a URL would read otherwise.
 */
static bool is_address(struct span a)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		".-_:[]@,";

	for (size_t i = 0; i < a.n; i++)
		if (!a.p[i] || !strchr(allowed, a.p[i]))
			return false;
	return a.n > 0 && a.n < DISCOVERY_URL_MAX - 10 && memchr(a.p, ':', a.n);
}

static int number(struct discovery_worker *w, const msgpack_object *v, struct span label)
{
	char text[24];
	int n;

	if (v->type != MSGPACK_OBJECT_POSITIVE_INTEGER || v->via.u64 == 0 || v->via.u64 > 4096)
		return PD_OK;
	n = snprintf(text, sizeof(text), "%llu", (unsigned long long)v->via.u64);
	return route_labels_set(&w->labels, label, (struct span){text, (size_t)n});
}

static int member(struct discovery_worker *w, struct span key, const msgpack_object *v, bool *typed)
{
	struct span text = text_of(v);
	int err = PD_OK;

	if (span_eq(key, SPAN("type"))) {
		*typed = span_eq(text, SPAN("P")) || span_eq(text, SPAN("D"));
		w->role = span_eq(text, SPAN("P")) ? DISCOVERY_PREFILL : DISCOVERY_DECODE;
	} else if (span_eq(key, SPAN("http_address")) && is_address(text)) {
		(void)snprintf(w->url, sizeof(w->url), "http://%.*s", (int)text.n, text.p);
	} else if (span_eq(key, SPAN("zmq_address")) && is_address(text)) {
		err = route_labels_set(&w->labels, SPAN("kv-address"), text);
	} else if (span_eq(key, SPAN("transfer_mode")) &&
		   (span_eq(text, SPAN("READ")) || span_eq(text, SPAN("WRITE")))) {
		err = route_labels_set(&w->labels, SPAN("transfer-mode"), text);
	} else if (span_eq(key, SPAN("tp_size"))) {
		err = number(w, v, SPAN("tp-size"));
	} else if (span_eq(key, SPAN("dp_size"))) {
		err = number(w, v, SPAN("dp-size"));
		w->dp_size = v->type == MSGPACK_OBJECT_POSITIVE_INTEGER && v->via.u64 <= 4096
				     ? (unsigned)v->via.u64
				     : 0;
	}
	return err;
}

int register_read(struct discovery_worker *w, struct span message, struct pd_msg *msg)
{
	msgpack_unpacked u;
	const msgpack_object *o = &u.data;
	bool typed = false;
	size_t at = 0;
	int err = PD_OK;

	msgpack_unpacked_init(&u);
	if (message.n > REGISTER_MESSAGE_MAX || !msgpack_is_bounded(message) ||
	    msgpack_unpack_next(&u, message.p, message.n, &at) != MSGPACK_UNPACK_SUCCESS ||
	    o->type != MSGPACK_OBJECT_MAP) {
		err = pd_fail(msg, PD_EINVAL,
			      "found no MessagePack map, expected one with type, "
			      "http_address and zmq_address");
	} else {
		for (uint32_t i = 0; !err && i < o->via.map.size; i++)
			err = member(w, text_of(&o->via.map.ptr[i].key), &o->via.map.ptr[i].val,
				     &typed);
		if (!err && !typed)
			err = pd_fail(msg, PD_EINVAL,
				      "found no \"type\" that is known, expected P or D");
		else if (!err && !w->url[0])
			err = pd_fail(msg, PD_EINVAL,
				      "found no \"http_address\", expected host:port");
	}
	msgpack_unpacked_destroy(&u);
	return err;
}

/* -- the list -- */

static int order(const struct discovery_worker *a, const struct discovery_worker *b)
{
	return a->role != b->role ? (int)a->role - (int)b->role : strcmp(a->url, b->url);
}

static void take_out(struct register_source *s, size_t i)
{
	route_labels_release(&s->now.worker[i].labels);
	s->now.n--;
	memmove(&s->now.worker[i], &s->now.worker[i + 1], (s->now.n - i) * sizeof(*s->now.worker));
	memmove(&s->expires[i], &s->expires[i + 1], (s->now.n - i) * sizeof(*s->expires));
}

static bool expire(struct register_source *s, int64_t now)
{
	bool changed = false;

	for (size_t i = s->now.n; i-- > 0;) {
		if (s->expires[i] > now)
			continue;
		log_event(s->sink.log, LOG_WARN, "registration_ended",
			  LOG_FIELDS(LOG_TEXT("worker", s->now.worker[i].url),
				     LOG_NUMBER("silent_s", REGISTER_TTL_S)),
			  "worker %s: no registration for %d s: it gets no new requests",
			  s->now.worker[i].url, REGISTER_TTL_S);
		take_out(s, i);
		changed = true;
	}
	return changed;
}

/* Room for one more, and its entry in order. */
static bool insert(struct register_source *s, const struct discovery_worker *w, size_t at)
{
	if (s->now.n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		int64_t *more = realloc(s->expires, cap * sizeof(*more));

		if (!more)
			return false;
		s->expires = more;
		s->cap = cap;
	}
	if (!discovery_add(&s->now))
		return false;
	memmove(&s->now.worker[at + 1], &s->now.worker[at],
		(s->now.n - 1 - at) * sizeof(*s->now.worker));
	memmove(&s->expires[at + 1], &s->expires[at], (s->now.n - 1 - at) * sizeof(*s->expires));
	s->now.worker[at] = *w;
	return true;
}

/* True when that changes the list. Takes the labels over. */
static bool note(struct register_source *s, struct discovery_worker *w, int64_t now)
{
	size_t i = 0;
	bool changed = true;

	while (i < s->now.n && order(&s->now.worker[i], w) < 0)
		i++;
	if (i < s->now.n && order(&s->now.worker[i], w) == 0) {
		changed = !route_labels_same(&s->now.worker[i].labels, &w->labels) ||
			  s->now.worker[i].dp_size != w->dp_size;
		route_labels_release(&s->now.worker[i].labels);
		s->now.worker[i] = *w;
	} else if (!insert(s, w, i)) {
		if (!s->said_full)
			log_event(s->sink.log, LOG_WARN, "registrations_full",
				  LOG_FIELDS(LOG_NUMBER("workers", s->now.n)),
				  "registrations: more than %zu workers, or out of memory: further "
				  "ones are ignored",
				  s->now.n);
		s->said_full = true;
		route_labels_release(&w->labels);
		return false;
	} else {
		const char *role = w->role == DISCOVERY_PREFILL ? "prefill" : "decode";

		log_event(s->sink.log, LOG_INFO, "worker_registered",
			  LOG_FIELDS(LOG_TEXT("role", role), LOG_TEXT("worker", w->url)),
			  "%s worker %s registered", role, w->url);
	}
	s->expires[i] = now + REGISTER_TTL_S * NS_PER_S;
	return changed;
}

/* -- the thread -- */

/* One message of several frames: the second is the map. True when that changed the list. */
static bool receive(struct register_source *s)
{
	struct discovery_worker w = {0};
	struct pd_msg why = {0};
	bool changed = false;
	zmq_msg_t frame;
	int more = 1;

	for (unsigned i = 0; more; i++) {
		(void)s->z->msg_init_f(&frame);
		if (s->z->msg_recv_f(&frame, s->socket, ZMQ_DONTWAIT) < 0) {
			(void)s->z->msg_close_f(&frame);
			return changed;
		}
		more = s->z->msg_more_f(&frame);
		if (i == 1) {
			struct span text = {s->z->msg_data_f(&frame), s->z->msg_size_f(&frame)};
			int err = register_read(&w, text, &why);

			if (!err)
				changed = note(s, &w, clock_now());
			else
				route_labels_release(&w.labels);
			if (err && !s->said_bad)
				log_event(s->sink.log, LOG_WARN, "registration_refused",
					  LOG_FIELDS(LOG_TEXT("reason", why.text)),
					  "registration: %s; further ones like it are ignored "
					  "without a line",
					  why.text);
			s->said_bad |= err != PD_OK;
		}
		(void)s->z->msg_close_f(&frame);
	}
	return changed;
}

static void *run(void *arg)
{
	struct register_source *s = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-register");
	while (!atomic_load(&s->stop)) {
		zmq_pollitem_t item = {.socket = s->socket, .events = ZMQ_POLLIN};
		bool changed = false;

		(void)s->z->poll_f(&item, 1, LOOK_MS);
		for (unsigned i = 0; i < 256 && (item.revents & ZMQ_POLLIN); i++) {
			uint32_t events = 0;
			size_t n = sizeof(events);

			changed |= receive(s);
			if (s->z->getsockopt_f(s->socket, ZMQ_EVENTS, &events, &n) ||
			    !(events & ZMQ_POLLIN))
				break;
		}
		changed |= expire(s, clock_now());
		if (changed)
			s->sink.publish(s->sink.ctx, &s->now);
	}
	return NULL;
}

static void free_source(struct register_source *s)
{
	if (s->socket)
		(void)s->z->close_f(s->socket);
	if (s->ctx)
		(void)s->z->ctx_term_f(s->ctx);
	discovery_release(&s->now);
	free(s->expires);
	free(s);
}

/* libzmq takes a port that is too large for another one. */
int register_check(const char *address, struct pd_msg *msg)
{
	const char *colon = strrchr(address, ':');

	if (!colon || colon == address || !is_address(span_of(address)) || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon) > 6 ||
	    strtoul(colon + 1, NULL, 10) > UINT16_MAX)
		return pd_fail(msg, PD_EINVAL, "found '%.200s', expected HOST:PORT", address);
	return PD_OK;
}

static int listen_at(struct register_source *s, const char *address, uint16_t *port,
		     struct pd_msg *msg)
{
	int64_t longest = REGISTER_MESSAGE_MAX;
	int linger = 0, backlog = 128, ipv6 = address[0] == '[';
	char at[300], bound[300] = "";
	size_t n = sizeof(bound) - 1;
	const char *colon;

	s->ctx = s->z->ctx_new_f();
	s->socket = s->ctx ? s->z->socket_f(s->ctx, ZMQ_ROUTER) : NULL;
	if (!s->socket)
		return pd_fail(msg, PD_EIO, "cannot make a socket: %s", s->z->strerror_f(errno));
	(void)s->z->setsockopt_f(s->socket, ZMQ_MAXMSGSIZE, &longest, sizeof(longest));
	(void)s->z->setsockopt_f(s->socket, ZMQ_LINGER, &linger, sizeof(linger));
	(void)s->z->setsockopt_f(s->socket, ZMQ_BACKLOG, &backlog, sizeof(backlog));
	(void)s->z->setsockopt_f(s->socket, ZMQ_IPV6, &ipv6, sizeof(ipv6));
	(void)snprintf(at, sizeof(at), "tcp://%s", address);
	if (s->z->bind_f(s->socket, at))
		return pd_fail(msg, errno == EINVAL ? PD_EINVAL : PD_EIO,
			       "cannot listen at '%.200s': %s, expected a HOST:PORT that is free",
			       address, s->z->strerror_f(errno));
	(void)s->z->getsockopt_f(s->socket, ZMQ_LAST_ENDPOINT, bound, &n);
	colon = strrchr(bound, ':');
	*port = colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 0;
	return PD_OK;
}

int register_start(struct register_source **out, const char *address,
		   const struct discovery_sink *sink, uint16_t *port, struct pd_msg *msg)
{
	struct register_source *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->sink = *sink;
	err = zmqlib_load(&s->z, msg);
	err = err ? err : listen_at(s, address, port, msg);
	if (!err && pthread_create(&s->thread, NULL, run, s) != 0)
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread for registrations");
	if (err) {
		free_source(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

void register_stop(struct register_source *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	(void)pthread_join(s->thread, NULL);
	free_source(s);
}
