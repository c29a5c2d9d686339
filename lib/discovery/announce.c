/* One thread and a socket for each router: a message that cannot go out at once is made again a
 * moment later. */
#include "lib/discovery/announce.h"

#include <errno.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/discovery/register.h"
#include "lib/discovery/source_thread.h"
#include "lib/net/zmqlib.h"

struct router {
	void *socket;
	char address[300];
	int64_t due;
	bool heard; /* the last message went out */
	bool said;
};

struct announce {
	const struct zmqlib *z;
	struct log *log;
	void *ctx;
	struct router to[ANNOUNCE_TO_MAX];
	size_t n;
	struct buf message;
	struct source_thread thread;
};

/* -- the message -- */

static void put_text(msgpack_packer *p, const char *text)
{
	(void)msgpack_pack_str(p, strlen(text));
	(void)msgpack_pack_str_body(p, text, strlen(text));
}

static void put_pair(msgpack_packer *p, const char *name, const char *text)
{
	put_text(p, name);
	put_text(p, text);
}

int announce_message(const struct announce_config *cfg, struct buf *out)
{
	bool sizes = cfg->transfer_mode || cfg->tp_size > 1 || cfg->dp_size > 1;
	msgpack_sbuffer s;
	msgpack_packer p;
	int err;

	msgpack_sbuffer_init(&s);
	msgpack_packer_init(&p, &s, msgpack_sbuffer_write);
	(void)msgpack_pack_map(&p, 3u + (sizes ? 2u : 0u) + (cfg->transfer_mode ? 1u : 0u));
	put_pair(&p, "type", cfg->prefill ? "P" : "D");
	put_pair(&p, "http_address", cfg->http_address);
	put_pair(&p, "zmq_address", cfg->zmq_address);
	if (sizes) {
		put_text(&p, "tp_size");
		(void)msgpack_pack_unsigned_int(&p, cfg->tp_size > 0 ? cfg->tp_size : 1);
		put_text(&p, "dp_size");
		(void)msgpack_pack_unsigned_int(&p, cfg->dp_size > 0 ? cfg->dp_size : 1);
	}
	if (cfg->transfer_mode)
		put_pair(&p, "transfer_mode", cfg->transfer_mode);
	err = buf_append(out, s.data, s.size);
	msgpack_sbuffer_destroy(&s);
	return err;
}

/* -- the thread -- */

static void send_to(struct announce *a, struct router *r, int64_t now)
{
	bool sent = a->z->send_f(r->socket, a->message.data, a->message.len, ZMQ_DONTWAIT) >= 0;

	if (sent && !r->heard)
		log_event(a->log, LOG_INFO, "registering", LOG_FIELDS(LOG_TEXT("at", r->address)),
			  "registering at %s every %d s", r->address, ANNOUNCE_S);
	else if (!sent && (r->heard || !r->said))
		log_event(a->log, LOG_WARN, "registration_waits",
			  LOG_FIELDS(LOG_TEXT("at", r->address)),
			  "%s takes no registration yet: trying until it does", r->address);
	r->heard = sent;
	r->said = true;
	r->due = now + (sent ? ANNOUNCE_S * NS_PER_S : ANNOUNCE_RETRY_MS * NS_PER_MS);
}

static void run(void *arg)
{
	struct announce *a = arg;
	int64_t next;

	do {
		int64_t now = clock_now();

		next = CLOCK_NEVER;
		for (size_t i = 0; i < a->n; i++) {
			struct router *r = &a->to[i];

			if (r->due <= now)
				send_to(a, r, now);
			next = r->due < next ? r->due : next;
		}
	} while (source_thread_rest(&a->thread, next));
}

static void free_all(struct announce *a)
{
	for (size_t i = 0; i < a->n; i++)
		(void)a->z->close_f(a->to[i].socket);
	if (a->ctx)
		(void)a->z->ctx_term_f(a->ctx);
	buf_release(&a->message);
	free(a);
}

static int connect_to(struct announce *a, const char *address, const char *identity,
		      struct pd_msg *msg)
{
	int linger = 0, hwm = 1, immediate = 1, ipv6 = address[0] == '[';
	struct router *r = &a->to[a->n];
	char at[320];
	int err = register_check(address, msg);

	if (err)
		return err;
	(void)snprintf(r->address, sizeof(r->address), "%s", address);
	(void)snprintf(at, sizeof(at), "tcp://%s", address);
	r->socket = a->z->socket_f(a->ctx, ZMQ_DEALER);
	if (!r->socket)
		return pd_fail(msg, PD_EIO, "cannot make a socket: %s", a->z->strerror_f(errno));
	a->n++;
	/* A name of at most 255 bytes; a longer address has none, which routers do not look at. */
	if (strlen(identity) > 0 && strlen(identity) < 256)
		(void)a->z->setsockopt_f(r->socket, ZMQ_IDENTITY, identity, strlen(identity));
	(void)a->z->setsockopt_f(r->socket, ZMQ_LINGER, &linger, sizeof(linger));
	(void)a->z->setsockopt_f(r->socket, ZMQ_SNDHWM, &hwm, sizeof(hwm));
	(void)a->z->setsockopt_f(r->socket, ZMQ_IMMEDIATE, &immediate, sizeof(immediate));
	(void)a->z->setsockopt_f(r->socket, ZMQ_IPV6, &ipv6, sizeof(ipv6));
	if (a->z->connect_f(r->socket, at))
		return pd_fail(msg, PD_EINVAL, "cannot connect to '%.200s': %s", address,
			       a->z->strerror_f(errno));
	return PD_OK;
}

int announce_start(struct announce **out, const struct announce_config *cfg, struct pd_msg *msg)
{
	struct announce *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	a->log = cfg->log;
	buf_init(&a->message, REGISTER_MESSAGE_MAX);
	err = cfg->n > ANNOUNCE_TO_MAX
		      ? pd_fail(msg, PD_EINVAL, "found %zu addresses, expected at most %d", cfg->n,
				ANNOUNCE_TO_MAX)
		      : PD_OK;
	err = err ? err : zmqlib_load(&a->z, msg);
	if (!err && announce_message(cfg, &a->message))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err) {
		a->ctx = a->z->ctx_new_f();
		if (!a->ctx)
			err = pd_fail(msg, PD_EIO, "cannot make a ZeroMQ context");
	}
	for (size_t i = 0; !err && i < cfg->n; i++)
		err = connect_to(a, cfg->to[i], cfg->zmq_address, msg);
	if (!err && source_thread_start(&a->thread, "pdctl-announce", run, a))
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread for registrations");
	if (err) {
		free_all(a);
		return err;
	}
	*out = a;
	return PD_OK;
}

void announce_stop(struct announce *a)
{
	if (!a)
		return;
	source_thread_stop(&a->thread, NULL, NULL);
	free_all(a);
}
