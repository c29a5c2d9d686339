/*
 * One thread for all workers:
 *
 *	run -> attend (each LOOK_NS: who is there; find_source, connect_to)
 *	    -> pump -> receive -> on_batch -> apply -> take_event -> tell
 *	                                   -> ask_replay, when batches are missing
 *	            -> replayed, while a replay runs: the live batches wait in their socket
 */
#include "lib/router/fleet/kvfollow.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/net/zmqlib.h"
#include "lib/route/policy.h"
#include "lib/route/prefix.h"
#include "lib/router/fleet/curl.h"
#include "lib/router/fleet/kvbatch.h"
#include "lib/router/fleet/kvindex.h"

#define LOOK_NS	     (200 * NS_PER_MS)
#define POLL_MS	     10
#define PER_ROUND    64 /* batches of one engine before the next one's turn */
#define ASK_SOON_NS  (3 * NS_PER_S)
#define ASK_LATER_NS (30 * NS_PER_S)
#define ASK_OFTEN    10
#define ASK_LIMIT_NS (2 * NS_PER_S)
#define ANSWER_MAX   (1u << 20)
#define FRAMES_MAX   8
#define ENDPOINT_MAX 400

/* One worker of a pool. */
struct source {
	char url[NET_URL_TEXT];
	uint64_t id;
	enum worker_role role;
	int rank;		   /* -1: not one of several */
	struct route_state *state; /* of its pool; a reference */
	bool seen;		   /* in the round that looks who is there */
	char endpoint[ENDPOINT_MAX], replay[ENDPOINT_MAX];
	void *sub, *dealer; /* NULL: none */
	void *monitor;	    /* tells of the connections of `sub` */
	bool connected;	    /* once */
	int64_t next_ask;
	unsigned asked;
	bool said_missing, said_bad;
	int64_t last; /* sequence of the batch that was taken last; -1: none */
	struct kvindex index;
	/* A replay: the batch that showed the gap waits for its end. */
	bool replaying, any;
	int64_t replay_until;
	bool holds;
	int64_t held_seq;
	struct buf held;
};

struct kvfollow {
	const struct zmqlib *z;
	struct fleet_holder *fleet;
	const struct router_config *cfg;
	struct log *log;
	void *ctx;
	struct source **source; /* owned, and each; in no order */
	size_t n, cap;
	uint64_t monitors; /* makes their names */
	pthread_t thread;
	_Atomic bool stop;
	_Atomic uint32_t block_tokens;
	_Atomic uint64_t count[KVFOLLOW_COUNTS];
};

/* -- telling the policy -- */

static void tell(const struct source *s, enum route_event_kind kind, const uint64_t *block,
		 size_t n, unsigned tier)
{
	route_tell(s->state, &(struct route_event){.kind = kind,
						   .worker = s->id,
						   .at_ns = clock_now(),
						   .block = block,
						   .nblocks = n,
						   .tier = tier});
}

static void forget(struct kvfollow *k, struct source *s)
{
	(void)atomic_fetch_sub(&k->count[KVFOLLOW_BLOCKS], s->index.n);
	kvindex_release(&s->index);
	tell(s, ROUTE_EVICTED, NULL, 0, 0);
}

/* Another policy has the pool: it hears all of it. */
static void tell_all(const struct source *s)
{
	for (size_t i = 0; i < s->index.cap; i++)
		for (unsigned t = 0; t < 8; t++)
			if (s->index.at[i].tiers & (1u << t))
				tell(s, ROUTE_STORED, &s->index.at[i].block, 1, t);
}

/* -- events -- */

struct taking {
	struct kvfollow *k;
	struct source *s;
	bool full;
};

/* One size of blocks for all: that of the flag, or of the first engine that says so. */
static bool size_fits(struct kvfollow *k, struct source *s, uint32_t size)
{
	uint32_t none = 0;

	if (atomic_compare_exchange_strong(&k->block_tokens, &none, size) || none == size)
		return true;
	if (!s->said_bad)
		log_event(k->log, LOG_WARN, "kv_events_block_size",
			  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_NUMBER("found", size),
				     LOG_NUMBER("expected", none)),
			  "worker %s: KV events of blocks of %u tokens, expected %u: they do not "
			  "count",
			  s->url, size, none);
	s->said_bad = true;
	return false;
}

static void store(struct taking *t, const struct kvevent *e)
{
	struct source *s = t->s;
	uint64_t block = 0;

	/* Blocks whose beginning is not known, or not by the tokens alone, match no prompt. */
	if (!e->plain || !size_fits(t->k, s, e->block_size) ||
	    (e->has_parent && !kvindex_get(&s->index, e->parent, &block)))
		return;
	for (size_t i = 0; i < e->n && !t->full; i++) {
		size_t before = s->index.n;

		block = route_block(block, e->token + i * e->block_size,
				    e->block_size * sizeof(*e->token));
		t->full = kvindex_put(&s->index, e->hash[i], block, e->tier) != PD_OK;
		(void)atomic_fetch_add(&t->k->count[KVFOLLOW_BLOCKS], s->index.n - before);
		if (!t->full)
			tell(s, ROUTE_STORED, &block, 1, e->tier);
	}
}

static void take_event(void *ctx, const struct kvevent *e)
{
	struct taking *t = ctx;
	uint64_t block;

	switch (e->kind) {
	case KVEVENT_STORED:
		store(t, e);
		break;
	case KVEVENT_REMOVED:
		for (size_t i = 0; i < e->n; i++) {
			size_t before = t->s->index.n;

			if (kvindex_remove(&t->s->index, e->hash[i], e->tier, &block))
				tell(t->s, ROUTE_EVICTED, &block, 1, e->tier);
			(void)atomic_fetch_sub(&t->k->count[KVFOLLOW_BLOCKS],
					       before - t->s->index.n);
		}
		break;
	case KVEVENT_CLEARED:
		forget(t->k, t->s);
		break;
	}
}

/* The batch that follows; what cannot be read may have said anything. */
static void apply(struct kvfollow *k, struct source *s, int64_t seq, struct span text)
{
	struct taking t = {.k = k, .s = s};
	struct pd_msg why = {0};
	int rank, err;

	s->last = seq;
	err = kvbatch_read(text, take_event, &t, &rank, &why);
	(void)atomic_fetch_add(&k->count[KVFOLLOW_BATCHES], 1);
	if (!err && !t.full)
		return;
	(void)atomic_fetch_add(&k->count[err ? KVFOLLOW_UNREADABLE : KVFOLLOW_LOSSES], 1);
	forget(k, s);
	if (!s->said_bad)
		log_event(k->log, LOG_WARN, "kv_events_unreadable",
			  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_NUMBER("sequence", seq),
				     LOG_TEXT("error", err ? why.text : "too many blocks")),
			  "worker %s: KV events %lld: %s: what was known of its cache is forgotten",
			  s->url, (long long)seq, err ? why.text : "too many blocks");
	s->said_bad = true;
}

/* -- replay -- */

static bool ask_replay(struct kvfollow *k, struct source *s, int64_t first)
{
	unsigned char seq[8];

	if (!s->dealer)
		return false;
	for (int i = 0; i < 8; i++)
		seq[i] = (unsigned char)((uint64_t)first >> (56 - 8 * i));
	if (k->z->send_f(s->dealer, "", 0, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 ||
	    k->z->send_f(s->dealer, seq, sizeof(seq), ZMQ_DONTWAIT) < 0)
		return false;
	s->replaying = true;
	s->any = false;
	s->replay_until = clock_now() + KVFOLLOW_REPLAY_NS;
	(void)atomic_fetch_add(&k->count[KVFOLLOW_REPLAYS], 1);
	return true;
}

static void hold(struct source *s, int64_t seq, struct span text)
{
	buf_clear(&s->held);
	s->holds = buf_append(&s->held, text.p, text.n) == PD_OK;
	s->held_seq = seq;
}

/* The replay is over; what waited for it follows, after all of it or after a hole. */
static void end_replay(struct kvfollow *k, struct source *s)
{
	s->replaying = false;
	if (!s->holds)
		return;
	s->holds = false;
	if (s->held_seq > s->last + 1) {
		(void)atomic_fetch_add(&k->count[KVFOLLOW_LOSSES], 1);
		log_event(k->log, LOG_WARN, "kv_events_lost",
			  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_NUMBER("after", s->last),
				     LOG_NUMBER("sequence", s->held_seq)),
			  "worker %s: KV events between %lld and %lld are lost: what was known of "
			  "its cache is forgotten",
			  s->url, (long long)s->last, (long long)s->held_seq);
		forget(k, s);
	}
	if (s->held_seq > s->last)
		apply(k, s, s->held_seq, buf_span(&s->held));
	buf_clear(&s->held);
}

/* One answer of a replay: the next batch, one that is known, or the end. */
static void replayed(struct kvfollow *k, struct source *s, int64_t seq, struct span text)
{
	if (seq < 0) {
		end_replay(k, s);
		return;
	}
	/* An engine keeps so many: the oldest it has may be later than what was asked for. */
	if (!s->any && s->last < 0)
		s->last = seq - 1;
	s->any = true;
	if (seq == s->last + 1) {
		apply(k, s, seq, text);
	} else if (seq > s->last) {
		(void)atomic_fetch_add(&k->count[KVFOLLOW_LOSSES], 1);
		forget(k, s);
		apply(k, s, seq, text);
	}
}

/* -- a batch as it is published -- */

static void on_batch(struct kvfollow *k, struct source *s, int64_t seq, struct span text)
{
	if (s->last >= 0 && seq <= s->last) {
		(void)atomic_fetch_add(&k->count[KVFOLLOW_RESTARTS], 1);
		log_event(k->log, LOG_INFO, "kv_events_restart",
			  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_NUMBER("after", s->last),
				     LOG_NUMBER("sequence", seq)),
			  "worker %s: KV events begin anew at %lld after %lld: the engine has "
			  "restarted",
			  s->url, (long long)seq, (long long)s->last);
		forget(k, s);
		s->last = -1;
	}
	if (seq == s->last + 1) {
		apply(k, s, seq, text);
		return;
	}
	if (s->last >= 0) {
		(void)atomic_fetch_add(&k->count[KVFOLLOW_GAPS], 1);
		log_event(k->log, LOG_WARN, "kv_events_gap",
			  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_NUMBER("after", s->last),
				     LOG_NUMBER("sequence", seq)),
			  "worker %s: KV events %lld to %lld did not come%s", s->url,
			  (long long)s->last + 1, (long long)seq - 1,
			  s->dealer ? ": asking for them again" : "");
	}
	if (ask_replay(k, s, s->last + 1)) {
		hold(s, seq, text);
		return;
	}
	if (s->last >= 0) {
		(void)atomic_fetch_add(&k->count[KVFOLLOW_LOSSES], 1);
		forget(k, s);
	}
	apply(k, s, seq, text);
}

/* One message of so many frames, of which the last two are the sequence and the batch. False: there
 * is none. */
static bool receive(struct kvfollow *k, struct source *s, void *socket,
		    void (*take)(struct kvfollow *, struct source *, int64_t, struct span))
{
	zmq_msg_t frame[FRAMES_MAX];
	const unsigned char *p;
	uint64_t seq = 0;
	size_t n = 0;
	bool more = true;

	while (more && n < FRAMES_MAX) {
		(void)k->z->msg_init_f(&frame[n]);
		if (k->z->msg_recv_f(&frame[n], socket, ZMQ_DONTWAIT) < 0) {
			(void)k->z->msg_close_f(&frame[n]);
			break;
		}
		more = k->z->msg_more_f(&frame[n++]);
	}
	if (n >= 3 && !more && k->z->msg_size_f(&frame[n - 2]) == 8) {
		p = k->z->msg_data_f(&frame[n - 2]);
		for (int i = 0; i < 8; i++)
			seq = seq << 8 | p[i];
		take(k, s, (int64_t)seq,
		     (struct span){k->z->msg_data_f(&frame[n - 1]),
				   k->z->msg_size_f(&frame[n - 1])});
	}
	for (size_t i = 0; i < n; i++)
		(void)k->z->msg_close_f(&frame[i]);
	return n > 0;
}

/* A connection that came back may be that of another process, whose sequence has passed the old
 * one's. */
static void look_at_connection(struct kvfollow *k, struct source *s)
{
	zmq_msg_t frame;
	uint16_t event;
	int more = 1;

	for (int i = 0; more && s->monitor; i++) {
		(void)k->z->msg_init_f(&frame);
		if (k->z->msg_recv_f(&frame, s->monitor, ZMQ_DONTWAIT) < 0) {
			(void)k->z->msg_close_f(&frame);
			return;
		}
		more = k->z->msg_more_f(&frame);
		if (i == 0 && k->z->msg_size_f(&frame) >= sizeof(event)) {
			memcpy(&event, k->z->msg_data_f(&frame), sizeof(event));
			if (s->connected && event == ZMQ_EVENT_CONNECTED) {
				(void)atomic_fetch_add(&k->count[KVFOLLOW_RESTARTS], 1);
				forget(k, s);
				s->last = -1;
				s->holds = s->replaying = false;
				(void)ask_replay(k, s, 0);
			}
			s->connected |= event == ZMQ_EVENT_CONNECTED;
		}
		(void)k->z->msg_close_f(&frame);
	}
}

static void pump(struct kvfollow *k, struct source *s, int64_t now)
{
	look_at_connection(k, s);
	for (int i = 0; i < PER_ROUND && s->sub; i++) {
		if (s->replaying ? !receive(k, s, s->dealer, replayed)
				 : !receive(k, s, s->sub, on_batch))
			break;
	}
	if (s->replaying && now > s->replay_until)
		end_replay(k, s);
}

/* -- where the events are -- */

/* The N-th endpoint of "URL=EP,EP": that of the rank. */
static bool listed(const char *const *list, size_t n, const struct source *s, const char *url,
		   char out[ENDPOINT_MAX])
{
	size_t len = strcspn(url, "@"), rank = s->rank < 0 ? 0 : (size_t)s->rank;

	for (size_t i = 0; i < n; i++) {
		const char *at = strchr(list[i], '=');
		size_t m = at ? (size_t)(at - list[i]) : 0;

		while (m > 0 && list[i][m - 1] == '/')
			m--;
		if (!at || m != len || strncmp(list[i], url, len) != 0)
			continue;
		at++;
		for (size_t r = 0; r < rank && at; r++) {
			at = strchr(at, ',');
			at = at ? at + 1 : NULL;
		}
		if (!at)
			return false;
		(void)snprintf(out, ENDPOINT_MAX, "%.*s", (int)strcspn(at, ","), at);
		return true;
	}
	return false;
}

/* A wildcard is the worker's host. */
static void reachable(char endpoint[ENDPOINT_MAX], const struct worker *w)
{
	static const char *const any[] = {"tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"};
	bool v6 = strchr(w->at.host, ':') != NULL;
	char text[ENDPOINT_MAX];

	for (size_t i = 0; i < sizeof(any) / sizeof(any[0]); i++) {
		size_t n = strlen(any[i]);

		if (strncmp(endpoint, any[i], n) != 0)
			continue;
		(void)snprintf(text, sizeof(text),
			       v6 ? "tcp://[%.255s]:%.10s" : "tcp://%.255s:%.10s", w->at.host,
			       endpoint + n);
		memcpy(endpoint, text, sizeof(text));
		return;
	}
}

static size_t keep(char *p, size_t size, size_t n, void *arg)
{
	return buf_append(arg, p, size * n) ? 0 : size * n;
}

static void text_at(const struct json_object *o, const char *name, char out[ENDPOINT_MAX])
{
	const struct json_member *m = json_object_get(o, name);
	struct buf b;

	buf_init(&b, ENDPOINT_MAX - 1);
	if (m && m->type == JSON_STRING && json_string_decode(m->value, &b) == PD_OK)
		(void)snprintf(out, ENDPOINT_MAX, "%.*s", (int)b.len, b.len ? b.data : "");
	buf_release(&b);
}

/* {"0":{"endpoint":...,"replay_endpoint":...},...} */
static void read_sources(struct source *s, struct span text)
{
	struct json_object all, one;
	const struct json_member *m;
	char rank[16];

	if (json_object_scan(&all, text.p, text.n, NULL))
		return;
	(void)snprintf(rank, sizeof(rank), "%d", s->rank < 0 ? 0 : s->rank);
	m = json_object_get(&all, rank);
	if (m && m->type == JSON_OBJECT && !json_object_scan(&one, m->value.p, m->value.n, NULL)) {
		text_at(&one, "endpoint", s->endpoint);
		text_at(&one, "replay_endpoint", s->replay);
		json_object_release(&one);
	}
	json_object_release(&all);
}

/* GET /kv_event_sources; blocks for ASK_LIMIT_NS at most. */
static void ask_worker_for(struct kvfollow *k, struct source *s, struct worker *w)
{
	struct curl_slist *fields = NULL;
	CURL *easy = curl_easy_init();
	struct workercurl way = {0};
	struct buf answer;
	long status = 0;

	buf_init(&answer, ANSWER_MAX);
	if (easy && workercurl_fields(&fields, k->cfg->api_key) == PD_OK &&
	    workercurl_setup(easy, &way, k->cfg, w, 0, "/kv_event_sources", fields, ASK_LIMIT_NS) &&
	    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer) == CURLE_OK &&
	    curl_easy_perform(easy) == CURLE_OK &&
	    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status == 200)
		read_sources(s, buf_span(&answer));
	if (easy)
		curl_easy_cleanup(easy);
	workercurl_release(&way);
	curl_slist_free_all(fields);
	buf_release(&answer);
}

static void find_source(struct kvfollow *k, struct source *s, struct worker *w,
			const struct route_labels *labels, int64_t now)
{
	const struct router_config *c = k->cfg;
	struct span label = route_label(labels, SPAN("kv-events")),
		    replay = route_label(labels, SPAN("kv-events-replay"));

	s->endpoint[0] = s->replay[0] = '\0';
	if (listed(c->kv_sources, c->kv_sources_n, s, w->url, s->endpoint)) {
		(void)listed(c->kv_replays, c->kv_replays_n, s, w->url, s->replay);
	} else if (label.n > 0 && label.n < ENDPOINT_MAX && replay.n < ENDPOINT_MAX) {
		(void)snprintf(s->endpoint, sizeof(s->endpoint), "%.*s", (int)label.n, label.p);
		(void)snprintf(s->replay, sizeof(s->replay), "%.*s", (int)replay.n,
			       replay.n ? replay.p : "");
	} else if (now >= s->next_ask && atomic_load(&w->slot.available)) {
		ask_worker_for(k, s, w);
		s->next_ask = now + (++s->asked < ASK_OFTEN ? ASK_SOON_NS : ASK_LATER_NS);
		if (!s->endpoint[0] && !s->said_missing)
			log_event(
				k->log, LOG_WARN, "no_kv_events",
				LOG_FIELDS(LOG_TEXT("worker", s->url)),
				"worker %s: no KV events (--kv-event-source, the label kv-events, "
				"GET /kv_event_sources): kv_aware goes by its load",
				s->url);
		s->said_missing |= !s->endpoint[0];
	}
	reachable(s->endpoint, w);
	reachable(s->replay, w);
}

static void *open_monitor(struct kvfollow *k, void *sub)
{
	void *m = k->z->socket_f(k->ctx, ZMQ_PAIR);
	int linger = 0;
	char name[64];

	(void)snprintf(name, sizeof(name), "inproc://kv-%llu", (unsigned long long)k->monitors++);
	if (m && k->z->socket_monitor_f(sub, name, ZMQ_EVENT_CONNECTED) == 0 &&
	    k->z->setsockopt_f(m, ZMQ_LINGER, &linger, sizeof(linger)) == 0 &&
	    k->z->connect_f(m, name) == 0)
		return m;
	if (m)
		(void)k->z->close_f(m);
	return NULL;
}

/* With `monitor` also what tells of its connections, before there is one. */
static void *open_socket(struct kvfollow *k, int type, const char *endpoint, void **monitor)
{
	int64_t longest = KVBATCH_MAX;
	int linger = 0, hwm = 10000, ipv6 = strchr(endpoint, '[') != NULL;
	void *socket = k->z->socket_f(k->ctx, type);

	if (!socket)
		return NULL;
	(void)k->z->setsockopt_f(socket, ZMQ_LINGER, &linger, sizeof(linger));
	(void)k->z->setsockopt_f(socket, ZMQ_RCVHWM, &hwm, sizeof(hwm));
	(void)k->z->setsockopt_f(socket, ZMQ_MAXMSGSIZE, &longest, sizeof(longest));
	(void)k->z->setsockopt_f(socket, ZMQ_IPV6, &ipv6, sizeof(ipv6));
	if (type == ZMQ_SUB)
		(void)k->z->setsockopt_f(socket, ZMQ_SUBSCRIBE, "", 0);
	if (monitor)
		*monitor = open_monitor(k, socket);
	if (k->z->connect_f(socket, endpoint) == 0)
		return socket;
	(void)k->z->close_f(socket);
	if (monitor && *monitor)
		(void)k->z->close_f(*monitor);
	return NULL;
}

static void connect_to(struct kvfollow *k, struct source *s)
{
	s->sub = open_socket(k, ZMQ_SUB, s->endpoint, &s->monitor);
	if (!s->sub) {
		s->monitor = NULL;
		if (!s->said_bad)
			log_event(k->log, LOG_WARN, "kv_events_refused",
				  LOG_FIELDS(LOG_TEXT("worker", s->url),
					     LOG_TEXT("endpoint", s->endpoint)),
				  "worker %s: cannot connect to '%s': expected tcp://HOST:PORT",
				  s->url, s->endpoint);
		s->said_bad = true;
		return;
	}
	if (s->replay[0])
		s->dealer = open_socket(k, ZMQ_DEALER, s->replay, NULL);
	(void)atomic_fetch_add(&k->count[KVFOLLOW_SOURCES], 1);
	log_event(k->log, LOG_INFO, "kv_events_followed",
		  LOG_FIELDS(LOG_TEXT("worker", s->url), LOG_TEXT("endpoint", s->endpoint),
			     LOG_TEXT("replay", s->replay)),
		  "worker %s: following its KV events at %s", s->url, s->endpoint);
	(void)ask_replay(k, s, 0);
}

/* -- who is there -- */

static void source_free(struct kvfollow *k, struct source *s)
{
	if (s->monitor)
		(void)k->z->close_f(s->monitor);
	if (s->sub) {
		(void)k->z->close_f(s->sub);
		(void)atomic_fetch_sub(&k->count[KVFOLLOW_SOURCES], 1);
	}
	if (s->dealer)
		(void)k->z->close_f(s->dealer);
	(void)atomic_fetch_sub(&k->count[KVFOLLOW_BLOCKS], s->index.n);
	kvindex_release(&s->index);
	buf_release(&s->held);
	route_state_unref(s->state);
	free(s);
}

static struct source *source_of(struct kvfollow *k, const struct worker *w, uint64_t id)
{
	struct source *s;

	for (size_t i = 0; i < k->n; i++)
		if (k->source[i]->id == id && k->source[i]->role == w->role &&
		    strcmp(k->source[i]->url, w->url) == 0)
			return k->source[i];
	if (k->n == k->cap) {
		size_t cap = k->cap ? 2 * k->cap : 16;
		struct source **more = realloc(k->source, cap * sizeof(struct source *));

		if (!more)
			return NULL;
		k->source = more;
		k->cap = cap;
	}
	s = k->n < KVFOLLOW_WORKERS ? calloc(1, sizeof(*s)) : NULL;
	if (!s)
		return NULL;
	(void)snprintf(s->url, sizeof(s->url), "%s", w->url);
	s->id = id;
	s->role = w->role;
	s->rank = w->at.rank;
	s->last = -1;
	buf_init(&s->held, KVBATCH_MAX);
	k->source[k->n++] = s;
	return s;
}

static bool wants_events(const struct fleet_pool *p)
{
	return p->ring->state->spec.type->flags & ROUTE_WANTS_EVENTS;
}

static void attend(struct kvfollow *k, int64_t now)
{
	struct fleet *f = fleet_get(k->fleet);

	for (size_t i = 0; i < k->n; i++)
		k->source[i]->seen = false;
	for (int r = 0; r < ROLES; r++) {
		const struct fleet_pool *p = &f->pool[r];

		for (size_t i = 0; i < p->n && wants_events(p); i++) {
			struct source *s = source_of(k, p->worker[i], p->ring->worker[i].id);

			if (!s || atomic_load(&k->stop))
				continue;
			s->seen = true;
			if (s->state != p->ring->state) {
				route_state_unref(s->state);
				s->state = route_state_ref(p->ring->state);
				tell_all(s);
			}
			if (!s->sub)
				find_source(k, s, p->worker[i], &p->ring->worker[i].labels, now);
			if (!s->sub && s->endpoint[0])
				connect_to(k, s);
		}
	}
	fleet_put(f);
	for (size_t i = k->n; i-- > 0;)
		if (!k->source[i]->seen) {
			source_free(k, k->source[i]);
			k->source[i] = k->source[--k->n];
		}
}

static void *run(void *arg)
{
	struct kvfollow *k = arg;
	int64_t look = 0;

	(void)pthread_setname_np(pthread_self(), "pdctl-kvfollow");
	while (!atomic_load(&k->stop)) {
		int64_t now = clock_now();

		if (now >= look) {
			attend(k, now);
			look = now + LOOK_NS;
		}
		for (size_t i = 0; i < k->n; i++)
			pump(k, k->source[i], now);
		clock_sleep_until(now + POLL_MS * NS_PER_MS);
	}
	return NULL;
}

/* -- life -- */

int kvfollow_check(const char *source, struct pd_msg *msg)
{
	const char *at = strchr(source, '=');

	while (at && *++at) {
		size_t n = strcspn(at, ",");
		const char *colon = memrchr(at, ':', n);

		if ((strncmp(at, "tcp://", 6) != 0 && strncmp(at, "ipc://", 6) != 0) ||
		    n >= ENDPOINT_MAX || !colon || at[6] == '*')
			break;
		at += n;
		if (!*at)
			return PD_OK;
	}
	return pd_fail(
		msg, PD_EINVAL,
		"found '%.200s', expected URL=tcp://HOST:PORT, with ',' and more of them for "
		"further ranks",
		source);
}

static void release(struct kvfollow *k)
{
	while (k->n > 0)
		source_free(k, k->source[--k->n]);
	free(k->source);
	if (k->ctx)
		(void)k->z->ctx_term_f(k->ctx);
	free(k);
}

int kvfollow_start(struct kvfollow **out, struct fleet_holder *fleet, const struct router_config *c,
		   struct pd_msg *msg)
{
	struct kvfollow *k;
	bool wanted = c->kv_sources_n > 0;
	int err;

	*out = NULL;
	for (int r = 0; r < ROLES; r++)
		wanted |= (c->fleet.policy[r].type->flags & ROUTE_WANTS_EVENTS) &&
			  (r == ROLE_REGULAR) != c->pd;
	if (!wanted)
		return PD_OK;
	k = calloc(1, sizeof(*k));
	if (!k)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	k->fleet = fleet;
	k->cfg = c;
	k->log = c->log;
	atomic_init(&k->block_tokens, c->kv_block_tokens);
	err = zmqlib_load(&k->z, msg);
	if (!err) {
		k->ctx = k->z->ctx_new_f();
		err = k->ctx ? PD_OK : pd_fail(msg, PD_EIO, "cannot make a ZeroMQ context");
	}
	if (!err && pthread_create(&k->thread, NULL, run, k) != 0)
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread that follows KV events");
	if (err) {
		release(k);
		return err;
	}
	*out = k;
	return PD_OK;
}

void kvfollow_stop(struct kvfollow *k)
{
	if (!k)
		return;
	atomic_store(&k->stop, true);
	(void)pthread_join(k->thread, NULL);
	release(k);
}

uint32_t kvfollow_block_tokens(const struct kvfollow *k)
{
	return k && atomic_load_explicit(&k->count[KVFOLLOW_SOURCES], memory_order_relaxed) > 0
		       ? atomic_load_explicit(&k->block_tokens, memory_order_relaxed)
		       : 0;
}

void kvfollow_counts(const struct kvfollow *k, uint64_t out[KVFOLLOW_COUNTS])
{
	for (int i = 0; i < KVFOLLOW_COUNTS; i++)
		out[i] = k ? atomic_load(&k->count[i]) : 0;
}
