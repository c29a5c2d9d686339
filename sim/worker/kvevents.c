/* Events are packed where they happen, into the batch that is open; a thread closes it every
 * LOOK_MS, sends it and serves replays. */
#include "sim/worker/kvevents.h"

#include <errno.h>
#include <msgpack.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/net/zmqlib.h"

#define LOOK_MS	   5
#define REPLAY_MAX 16 /* requests for a replay that are served at once */

/* A batch that is closed. */
struct batch {
	uint64_t seq;
	char *p; /* owned */
	size_t n;
};

struct ring {
	struct batch *at; /* owned; `cap` of them */
	size_t cap, first, n, bytes;
};

struct kvevents {
	const struct zmqlib *z;
	void *ctx, *pub, *replay;
	char topic[256];
	uint32_t rank, block_size;
	pthread_t thread;
	_Atomic bool stop;
	pthread_mutex_t lock; /* of what follows */
	msgpack_sbuffer open;
	size_t nopen;
	struct ring waiting;
	uint64_t next; /* sequence of the next batch */
	struct kvevents_stats stats;
	/* the thread's own */
	struct ring kept;
};

/* -- rings of batches -- */

static struct batch ring_pop(struct ring *r)
{
	struct batch b = r->at[r->first];

	r->first = (r->first + 1) % r->cap;
	r->n--;
	r->bytes -= b.n;
	return b;
}

/* Takes the batch; the oldest ones make room. Returns how many went. */
static size_t ring_push(struct ring *r, struct batch b, size_t max_bytes)
{
	size_t gone = 0;

	while (r->n == r->cap || (r->n > 0 && r->bytes + b.n > max_bytes)) {
		free(ring_pop(r).p);
		gone++;
	}
	r->at[(r->first + r->n++) % r->cap] = b;
	r->bytes += b.n;
	return gone;
}

static void ring_release(struct ring *r)
{
	while (r->n > 0)
		free(ring_pop(r).p);
	free(r->at);
}

/* -- packing -- */

static void put_text(msgpack_packer *p, const char *text)
{
	(void)msgpack_pack_str(p, strlen(text));
	(void)msgpack_pack_str_body(p, text, strlen(text));
}

static void put_nil(msgpack_packer *p, const char *name)
{
	put_text(p, name);
	(void)msgpack_pack_nil(p);
}

/* The open batch is closed; the caller holds the lock. */
static void close_batch(struct kvevents *k)
{
	struct batch b = {.seq = k->next};
	msgpack_sbuffer s;
	msgpack_packer p;

	if (k->nopen == 0)
		return;
	k->next++;
	msgpack_sbuffer_init(&s);
	msgpack_packer_init(&p, &s, msgpack_sbuffer_write);
	if (!msgpack_pack_array(&p, 3) &&
	    !msgpack_pack_double(&p, (double)clock_wall() / (double)NS_PER_S) &&
	    !msgpack_pack_array(&p, k->nopen) &&
	    !msgpack_sbuffer_write(&s, k->open.data, k->open.size) &&
	    !msgpack_pack_uint32(&p, k->rank)) {
		b.n = s.size;
		b.p = msgpack_sbuffer_release(&s);
		k->stats.dropped += ring_push(&k->waiting, b, SIZE_MAX);
	} else {
		k->stats.dropped++; /* out of memory */
	}
	msgpack_sbuffer_destroy(&s);
	k->nopen = 0;
	msgpack_sbuffer_clear(&k->open);
}

static void begin_event(struct kvevents *k, msgpack_packer *p)
{
	(void)pthread_mutex_lock(&k->lock);
	if (k->nopen == KVEVENTS_BATCH || k->open.size > KVEVENTS_BYTES)
		close_batch(k);
	msgpack_packer_init(p, &k->open, msgpack_sbuffer_write);
}

static void end_event(struct kvevents *k)
{
	k->nopen++;
	k->stats.events++;
	(void)pthread_mutex_unlock(&k->lock);
}

void kvevents_stored(struct kvevents *k, const uint64_t *name, uint32_t from, uint32_t to,
		     const uint32_t *ids)
{
	size_t tokens = (size_t)(to - from) * k->block_size;
	msgpack_packer p;

	begin_event(k, &p);
	(void)msgpack_pack_map(&p, 8);
	put_text(&p, "type");
	put_text(&p, "BlockStored");
	put_text(&p, "block_hashes");
	(void)msgpack_pack_array(&p, to - from);
	for (uint32_t i = from; i < to; i++)
		(void)msgpack_pack_uint64(&p, name[i]);
	put_text(&p, "parent_block_hash");
	if (from > 0)
		(void)msgpack_pack_uint64(&p, name[from - 1]);
	else
		(void)msgpack_pack_nil(&p);
	put_text(&p, "token_ids");
	(void)msgpack_pack_array(&p, tokens);
	for (size_t i = 0; i < tokens; i++)
		(void)msgpack_pack_uint32(&p, ids[(size_t)from * k->block_size + i]);
	put_text(&p, "block_size");
	(void)msgpack_pack_uint32(&p, k->block_size);
	put_nil(&p, "lora_id");
	put_text(&p, "medium");
	put_text(&p, "GPU");
	put_nil(&p, "lora_name");
	end_event(k);
}

void kvevents_removed(struct kvevents *k, uint64_t name)
{
	msgpack_packer p;

	begin_event(k, &p);
	(void)msgpack_pack_map(&p, 3);
	put_text(&p, "type");
	put_text(&p, "BlockRemoved");
	put_text(&p, "block_hashes");
	(void)msgpack_pack_array(&p, 1);
	(void)msgpack_pack_uint64(&p, name);
	put_text(&p, "medium");
	put_text(&p, "GPU");
	end_event(k);
}

void kvevents_cleared(struct kvevents *k)
{
	msgpack_packer p;

	begin_event(k, &p);
	(void)msgpack_pack_map(&p, 1);
	put_text(&p, "type");
	put_text(&p, "AllBlocksCleared");
	end_event(k);
}

void kvevents_stats(struct kvevents *k, struct kvevents_stats *out)
{
	(void)pthread_mutex_lock(&k->lock);
	*out = k->stats;
	(void)pthread_mutex_unlock(&k->lock);
}

/* -- the thread -- */

static void sequence(uint64_t seq, unsigned char out[8])
{
	for (int i = 0; i < 8; i++)
		out[i] = (unsigned char)(seq >> (56 - 8 * i));
}

static bool send_frame(struct kvevents *k, void *socket, const void *p, size_t n, bool more)
{
	return k->z->send_f(socket, p, n, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0;
}

static void send_waiting(struct kvevents *k)
{
	for (;;) {
		struct batch b = {0};
		unsigned char seq[8];
		bool any;

		(void)pthread_mutex_lock(&k->lock);
		close_batch(k);
		any = k->waiting.n > 0;
		if (any)
			b = ring_pop(&k->waiting);
		k->stats.batches += any;
		(void)pthread_mutex_unlock(&k->lock);
		if (!any)
			return;
		sequence(b.seq, seq);
		/* A PUB socket drops what a slow subscriber does not take. */
		if (send_frame(k, k->pub, k->topic, strlen(k->topic), true) &&
		    send_frame(k, k->pub, seq, sizeof(seq), true))
			(void)send_frame(k, k->pub, b.p, b.n, false);
		(void)ring_push(&k->kept, b, KVEVENTS_KEPT);
	}
}

/* One request of three frames: who asks, nothing, the first sequence. False: there is none. */
static bool receive(struct kvevents *k, char who[256], size_t *nwho, uint64_t *first, bool *good)
{
	bool more = true, got = false;

	*nwho = 0;
	*good = false;
	for (int i = 0; more; i++) {
		zmq_msg_t frame;
		const unsigned char *p;
		size_t n;

		(void)k->z->msg_init_f(&frame);
		if (k->z->msg_recv_f(&frame, k->replay, ZMQ_DONTWAIT) < 0) {
			(void)k->z->msg_close_f(&frame);
			return got;
		}
		got = true;
		p = k->z->msg_data_f(&frame);
		n = k->z->msg_size_f(&frame);
		more = k->z->msg_more_f(&frame);
		if (i == 0 && n <= 255) {
			memcpy(who, p, n);
			*nwho = n;
		}
		*good = i == 2 && !more && n == 8 && *nwho > 0;
		if (*good) {
			*first = 0;
			for (int b = 0; b < 8; b++)
				*first = *first << 8 | p[b];
		}
		(void)k->z->msg_close_f(&frame);
	}
	return got;
}

static void answer(struct kvevents *k, const char *who, size_t nwho, uint64_t first)
{
	unsigned char seq[8];
	bool good = true;

	for (size_t i = 0; good && i < k->kept.n; i++) {
		const struct batch *b = &k->kept.at[(k->kept.first + i) % k->kept.cap];

		if (b->seq < first)
			continue;
		sequence(b->seq, seq);
		good = send_frame(k, k->replay, who, nwho, true) &&
		       send_frame(k, k->replay, "", 0, true) &&
		       send_frame(k, k->replay, k->topic, strlen(k->topic), true) &&
		       send_frame(k, k->replay, seq, sizeof(seq), true) &&
		       send_frame(k, k->replay, b->p, b->n, false);
	}
	sequence(UINT64_MAX, seq);
	if (good && send_frame(k, k->replay, who, nwho, true) &&
	    send_frame(k, k->replay, "", 0, true) && send_frame(k, k->replay, "", 0, true) &&
	    send_frame(k, k->replay, seq, sizeof(seq), true))
		(void)send_frame(k, k->replay, "", 0, false);
	(void)pthread_mutex_lock(&k->lock);
	k->stats.replays++;
	(void)pthread_mutex_unlock(&k->lock);
}

static void serve_replays(struct kvevents *k)
{
	zmq_pollitem_t item = {.socket = k->replay, .events = ZMQ_POLLIN};
	char who[256];
	uint64_t first = 0;
	size_t nwho;
	bool good;

	if (!k->replay) {
		clock_sleep_until(clock_now() + LOOK_MS * NS_PER_MS);
		return;
	}
	(void)k->z->poll_f(&item, 1, LOOK_MS);
	for (int i = 0; i < REPLAY_MAX && receive(k, who, &nwho, &first, &good); i++)
		if (good)
			answer(k, who, nwho, first);
}

static void *run(void *arg)
{
	struct kvevents *k = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-kvevents");
	while (!atomic_load(&k->stop)) {
		send_waiting(k);
		serve_replays(k);
	}
	send_waiting(k);
	return NULL;
}

/* -- life -- */

static void release(struct kvevents *k)
{
	if (k->pub)
		(void)k->z->close_f(k->pub);
	if (k->replay)
		(void)k->z->close_f(k->replay);
	if (k->ctx)
		(void)k->z->ctx_term_f(k->ctx);
	ring_release(&k->waiting);
	ring_release(&k->kept);
	msgpack_sbuffer_destroy(&k->open);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

/* The endpoint of a rank: its port is higher by the rank. */
static int offset(const char *endpoint, uint32_t rank, char out[512], struct pd_msg *msg)
{
	const char *colon = strrchr(endpoint, ':');
	char *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (strlen(endpoint) > 400)
		return pd_fail(msg, PD_EINVAL, "an endpoint of more than 400 bytes");
	if (strncmp(endpoint, "ipc://", 6) == 0 && rank == 0) {
		(void)snprintf(out, 512, "%s", endpoint);
		return PD_OK;
	}
	if (strncmp(endpoint, "tcp://", 6) != 0 || !end || *end || end == colon + 1 ||
	    port + rank > UINT16_MAX)
		return pd_fail(msg, PD_EINVAL, "found '%.200s', expected tcp://HOST:PORT",
			       endpoint);
	(void)snprintf(out, 512, "%.*s:%lu", (int)(colon - endpoint), endpoint,
		       port ? port + rank : 0);
	return PD_OK;
}

static int open_socket(struct kvevents *k, void **socket, int type, const char *endpoint, bool bind,
		       int hwm, struct pd_msg *msg)
{
	int linger = 200, ipv6 = strchr(endpoint, '[') != NULL;
	char at[512];
	int err = offset(endpoint, k->rank, at, msg);

	if (err)
		return err;
	*socket = k->z->socket_f(k->ctx, type);
	if (!*socket)
		return pd_fail(msg, PD_EIO, "cannot make a socket: %s", k->z->strerror_f(errno));
	(void)k->z->setsockopt_f(*socket, ZMQ_LINGER, &linger, sizeof(linger));
	(void)k->z->setsockopt_f(*socket, ZMQ_SNDHWM, &hwm, sizeof(hwm));
	(void)k->z->setsockopt_f(*socket, ZMQ_IPV6, &ipv6, sizeof(ipv6));
	if (bind ? k->z->bind_f(*socket, at) : k->z->connect_f(*socket, at))
		return pd_fail(msg, PD_EIO, "cannot %s '%.200s': %s",
			       bind ? "listen at" : "connect to", at, k->z->strerror_f(errno));
	return PD_OK;
}

int kvevents_start(struct kvevents **out, const struct kvevents_config *cfg, struct pd_msg *msg)
{
	struct kvevents *k = calloc(1, sizeof(*k));
	bool bind = strchr(cfg->endpoint, '*') || strstr(cfg->endpoint, "::") ||
		    strncmp(cfg->endpoint, "ipc://", 6) == 0;
	int err;

	if (!k)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	k->rank = cfg->rank;
	k->block_size = cfg->block_size;
	(void)snprintf(k->topic, sizeof(k->topic), "%s", cfg->topic);
	(void)pthread_mutex_init(&k->lock, NULL);
	msgpack_sbuffer_init(&k->open);
	k->waiting.cap = KVEVENTS_WAITING;
	k->kept.cap = cfg->buffer_steps ? cfg->buffer_steps : 1;
	k->waiting.at = calloc(k->waiting.cap, sizeof(*k->waiting.at));
	k->kept.at = calloc(k->kept.cap, sizeof(*k->kept.at));
	err = k->waiting.at && k->kept.at ? zmqlib_load(&k->z, msg)
					  : pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err) {
		k->ctx = k->z->ctx_new_f();
		err = k->ctx ? PD_OK : pd_fail(msg, PD_EIO, "cannot make a ZeroMQ context");
	}
	err = err ? err : open_socket(k, &k->pub, ZMQ_PUB, cfg->endpoint, bind, cfg->hwm, msg);
	if (!err && cfg->replay_endpoint)
		err = open_socket(k, &k->replay, ZMQ_ROUTER, cfg->replay_endpoint, true, 0, msg);
	if (!err && pthread_create(&k->thread, NULL, run, k) != 0)
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread of KV events");
	if (err) {
		release(k);
		return err;
	}
	*out = k;
	return PD_OK;
}

void kvevents_stop(struct kvevents *k)
{
	if (!k)
		return;
	atomic_store(&k->stop, true);
	(void)pthread_join(k->thread, NULL);
	release(k);
}
