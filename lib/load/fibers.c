/*
 * A client is a fiber, and one request is straight-line code: take, send, read, record, and take
 *the next one that is due. One more fiber, the pacer, sleeps until a request is due that no client
 *can take, and gives it a client.
 *
 *	pacer:   sleep until due --> client --> sleep ...
 *	client:  take --> send --> wait --> head --> pieces as they come --> record --+
 *	          ^                                                                  |
 *	          +------------------------------- another one is due ---------------+
 *
 * Everything here runs on the loop's thread but fibers_run, which waits for the end and shows the
 * progress, so that a slow terminal delays no request.
 */
#include "lib/load/fibers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "lib/base/clock.h"
#include "lib/http/client.h"
#include "lib/load/wire.h"
#include "lib/net/loop.h"
#include "lib/net/shelf.h"

#define STACK_BYTES   (256u << 10)
#define CONNECT_NS    (30 * NS_PER_S)
#define SEND_STALL_NS (60 * NS_PER_S)
#define IDLE_NS	      (4 * NS_PER_S) /* servers keep connections for 5 s and more */
#define AFTER_DONE_NS (1 * NS_PER_S) /* a stream that has said all may stay open for so long */
#define TICK_NS	      (50 * NS_PER_MS)
#define SHOW_NS	      (200 * NS_PER_MS)
#define BURST	      64 /* clients started in a row before sockets are served again */
#define STOP_NS	      (10 * NS_PER_S)

struct server {
	struct wire wire;
	struct http_pool pool;
};

struct client {
	struct fibers *f;
	struct client *next, **at; /* among those that are busy, or idle */
	struct flight flight;
	struct http_call call;
	struct buf in, fields;
	bool aborted;
};

struct fibers {
	struct load_core *c;
	struct loop *loop;
	struct loop_task begin;
	struct server server[LOAD_TARGETS_MAX];
	struct client *busy, *idle;
	struct fiber *pacer;
	int64_t pacer_until; /* when it wakes by itself */
	int64_t shown;
	pthread_mutex_t lock; /* the rest */
	pthread_cond_t told;
	struct load_progress p;
	bool fresh, over;
};

/* ---- one request ---- */

static int address(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *why)
{
	const struct server *s = ctx;

	(void)deadline;
	(void)why;
	*out = s->wire.addrs;
	return PD_OK;
}

/* The label of a call that brought no answer. */
static const char *no_answer(struct client *k, const struct wire *w, enum http_call_result r,
			     const struct pd_msg *why)
{
	struct answer *a = &k->flight.answer;
	bool tls = why->text[0] != '\0';

	if (k->aborted)
		answer_fail(a, "interrupted", "stopped while in flight");
	else if (r == HTTP_CALL_CONNECT && tls)
		answer_fail(a, "tls", "%s", why->text);
	else if (r == HTTP_CALL_CONNECT)
		answer_fail(a, "connect", "cannot connect to %s", w->url.authority);
	else if (r == HTTP_CALL_TIMEOUT)
		answer_fail(a, "timeout", "no answer within %.3f s",
			    (double)k->f->c->o->timeout_ns / 1e9);
	else if (r == HTTP_CALL_CLOSED || r == HTTP_CALL_CUT)
		answer_fail(a, tls ? "tls" : "connection_lost", "%s",
			    tls ? why->text : "the server closed the connection without an answer");
	else if (r == HTTP_CALL_BROKEN)
		answer_fail(a, "bad_http", "%s",
			    k->call.head.why ? k->call.head.why : "the head of the answer is cut");
	else
		answer_fail(a, "local", "out of memory, file descriptors or ports here");
	return a->failure;
}

static void read_head(struct client *k)
{
	const struct http_head *h = &k->call.head;

	k->flight.first_byte_ns = k->call.head_ns;
	k->flight.answer.status = h->status;
	for (size_t i = 0; i < h->nfields; i++)
		load_core_field(k->f->c, &k->flight, h->field[i].name, h->field[i].value);
}

/* A stream that has said all: what the server does with the connection is no part of the answer. */
static bool has_said_all(const struct answer *a)
{
	return a->streamed && a->finished != 0 && a->finished == a->begun &&
	       (a->done || a->api == ANSWER_RESPONSES || a->api == ANSWER_MESSAGES);
}

/* The body as it comes; every piece has the time of the receive that brought it. */
static const char *read_body(struct client *k)
{
	struct http_call *c = &k->call;
	struct flight *f = &k->flight;
	struct answer *a = &f->answer;
	struct span piece;
	ssize_t n;
	int err = PD_OK;

	f->end_ns = c->head_ns;
	for (;;) {
		while (http_call_piece(c, &piece, &err))
			answer_feed(a, piece.p, piece.n, f->end_ns);
		if (err || c->ended)
			break;
		if (has_said_all(a) && c->limit.between > AFTER_DONE_NS) {
			c->limit.between = AFTER_DONE_NS;
			http_call_heard(c, f->end_ns);
		}
		n = http_call_more(c);
		if (n < 0) {
			err = (int)n;
			break;
		}
		if (n == 0)
			break;
		f->end_ns = clock_now();
		http_call_heard(c, f->end_ns);
		pulse_event(&k->f->c->out->pulse, loop_now(k->f->loop), f->end_ns);
	}
	if (k->aborted)
		answer_fail(a, "interrupted", "stopped while in flight");
	else if (err == PD_EPROTO)
		answer_fail(a, "bad_http", "the body's chunks are malformed");
	else if (err == PD_ETIMEOUT && !has_said_all(a))
		answer_fail(a, "timeout", "not complete within %.3f s, after %lld pieces",
			    (double)k->f->c->o->timeout_ns / 1e9, (long long)a->pieces);
	else if (err && err != PD_ECLOSED && err != PD_ETIMEOUT)
		answer_fail(a, "local", "%s", pd_err_text(err));
	if (err == PD_ETIMEOUT && a->failure)
		f->end_ns = clock_now();
	answer_end(a, f->end_ns, err == PD_OK || has_said_all(a));
	return a->failure;
}

static void one_request(struct client *k)
{
	struct load_core *c = k->f->c;
	const struct load_options *o = c->o;
	struct server *s = &k->f->server[c->items[k->flight.item].target];
	struct iovec iov[3];
	struct pd_msg why = {""};
	enum http_call_result r = HTTP_CALL_LOCAL;
	const char *failure;
	int64_t now;
	int err = wire_fields(c, &k->flight, &k->fields);

	iov[0] = (struct iovec){s->wire.head.data, s->wire.head.len};
	iov[1] = (struct iovec){k->fields.data, k->fields.len};
	iov[2] = (struct iovec){k->flight.body.data, k->flight.body.len};
	now = clock_now();
	k->call = (struct http_call){
		.to = {.pool = &s->pool,
		       .tls = s->wire.tls,
		       .name = s->wire.peer,
		       .address = address,
		       .ctx = s},
		.in = &k->in,
		.limit = {.connect = CONNECT_NS,
			  .send = SEND_STALL_NS,
			  .first_byte = o->timeout_ns,
			  .between = o->timeout_ns},
		.deadline = now + o->timeout_ns,
		.repeat = true,
	};
	load_core_sent(c, &k->flight, now);
	if (!err)
		r = http_call_begin(&k->call, iov, 3, &why);
	c->out->repeated += k->call.stale;
	if (r == HTTP_CALL_OK) {
		pulse_event(&c->out->pulse, loop_now(k->f->loop), k->call.head_ns);
		read_head(k);
		failure = read_body(k);
	} else {
		k->flight.end_ns = clock_now();
		failure = no_answer(k, &s->wire, r, &why);
	}
	if (!err)
		(void)http_call_end(&k->call);
	load_core_finish(c, &k->flight, failure);
}

/* ---- clients ---- */

static void list_add(struct client **list, struct client *k)
{
	k->next = *list;
	k->at = list;
	if (k->next)
		k->next->at = &k->next;
	*list = k;
}

static void list_remove(struct client *k)
{
	*k->at = k->next;
	if (k->next)
		k->next->at = k->at;
}

static struct client *client_get(struct fibers *f)
{
	struct client *k = f->idle;

	if (k) {
		list_remove(k);
	} else {
		k = calloc(1, sizeof(*k));
		if (!k)
			return NULL;
		k->f = f;
		buf_init(&k->in, HTTP_CALL_BUFFER_MAX);
		buf_init(&k->fields, 1 << 20);
		if (flight_init(&k->flight, f->c->o)) {
			free(k);
			return NULL;
		}
	}
	k->aborted = false;
	list_add(&f->busy, k);
	return k;
}

static void client_free(struct client *k)
{
	flight_release(&k->flight);
	buf_release(&k->in);
	buf_release(&k->fields);
	free(k);
}

static void free_clients(struct client *k)
{
	struct client *next;

	for (; k; k = next) {
		next = k->next;
		client_free(k);
	}
}

static void wake_pacer(struct fibers *f)
{
	f->pacer_until = 0;
	loop_wake(f->pacer);
}

/* A fiber: the client that `arg` is, with its first request taken. */
static void client_main(void *arg)
{
	struct client *k = arg;
	struct fibers *f = k->f;
	struct load_core *c = f->c;

	do
		one_request(k);
	while (load_core_due(c) <= clock_now() &&
	       (c->err = load_core_take(c, &k->flight)) == PD_OK);
	buf_clear(&k->in);
	shelf_give(&k->in);
	list_remove(k);
	list_add(&f->idle, k);
	if (load_core_over(c) || load_core_due(c) < f->pacer_until)
		wake_pacer(f);
}

static int start_client(struct fibers *f)
{
	struct client *k = client_get(f);
	int err = k ? load_core_take(f->c, &k->flight) : PD_ENOMEM;

	err = err ? err : loop_spawn(f->loop, client_main, k);
	if (err && k) {
		list_remove(k);
		list_add(&f->idle, k);
	}
	return err;
}

static void abort_all(struct fibers *f)
{
	for (struct client *k = f->busy; k; k = k->next) {
		k->aborted = true;
		http_call_cancel(&k->call);
	}
}

/* ---- the pacer ---- */

static void show(struct fibers *f, int64_t now, bool over)
{
	if (!over && now - f->shown < SHOW_NS)
		return;
	f->shown = now;
	(void)pthread_mutex_lock(&f->lock);
	f->p = load_core_look(f->c, now);
	f->fresh = true;
	f->over = over;
	(void)pthread_cond_signal(&f->told);
	(void)pthread_mutex_unlock(&f->lock);
}

static void pacer_main(void *arg)
{
	struct fibers *f = arg;
	struct load_core *c = f->c;
	int64_t now = clock_now(), tick = now, due;

	f->pacer = loop_fiber();
	while (!load_core_over(c)) {
		for (int i = 0; i < BURST && !c->err && load_core_due(c) <= clock_now(); i++)
			c->err = start_client(f);
		now = clock_now();
		if (now >= tick) {
			pulse_tick(&c->out->pulse, now);
			show(f, now, false);
			tick = now + TICK_NS;
		}
		if (load_core_abort(c, now))
			abort_all(f);
		due = load_core_due(c);
		f->pacer_until = due < tick ? due : tick;
		(void)loop_wait(f->pacer_until, true);
	}
	if (c->err) {
		abort_all(f);
		while (f->busy) {
			f->pacer_until = 0;
			(void)loop_wait(clock_now() + TICK_NS, true);
		}
	}
	pulse_close(&c->out->pulse);
	for (size_t i = 0; i < c->o->ntargets; i++)
		http_pool_close(&f->server[i].pool);
	show(f, clock_now(), true);
}

static void begin(struct loop_task *t)
{
	struct fibers *f = (struct fibers *)((char *)t - offsetof(struct fibers, begin));

	(void)prctl(PR_SET_TIMERSLACK, 1UL); /* else the kernel wakes a sleeper 50 us late */
	pulse_open(&f->c->out->pulse);
	f->c->err = loop_spawn(f->loop, pacer_main, f);
	if (f->c->err)
		show(f, clock_now(), true);
}

/* ---- the thread that waits ---- */

static void wait_for_the_end(struct fibers *f)
{
	const struct load_options *o = f->c->o;
	struct load_progress p;
	bool over = false;

	while (!over) {
		(void)pthread_mutex_lock(&f->lock);
		while (!f->fresh)
			(void)pthread_cond_wait(&f->told, &f->lock);
		f->fresh = false;
		p = f->p;
		over = f->over;
		(void)pthread_mutex_unlock(&f->lock);
		if (o->progress && o->progress(o->progress_arg, &p))
			f->c->enough = true;
	}
}

int fibers_run(struct load_core *c, struct pd_msg *msg)
{
	struct loop_config cfg = {.name = "pdctl-bench",
				  .stack_bytes = STACK_BYTES,
				  .max_fibers = (unsigned)c->in_flight_max + 2};
	struct fibers f = {.c = c, .begin.run = begin};
	size_t servers = 0;
	int err = PD_OK;

	(void)pthread_mutex_init(&f.lock, NULL);
	(void)pthread_cond_init(&f.told, NULL);
	for (; !err && servers < c->o->ntargets; servers++) {
		err = wire_init(&f.server[servers].wire, c->o, servers, msg);
		err = err ? err
			  : http_pool_init(&f.server[servers].pool, c->in_flight_max, IDLE_NS);
	}
	err = err ? err : loop_start(&f.loop, &cfg);
	err = err ? err : load_core_begin(c, msg);
	if (!err) {
		loop_post(f.loop, &f.begin);
		wait_for_the_end(&f);
		err = c->err;
	}
	if (f.loop && loop_stop(f.loop, clock_now() + STOP_NS))
		loop_free(f.loop);
	free_clients(f.busy);
	free_clients(f.idle);
	for (size_t i = 0; i < servers; i++) {
		http_pool_release(&f.server[i].pool);
		wire_release(&f.server[i].wire);
	}
	(void)pthread_cond_destroy(&f.told);
	(void)pthread_mutex_destroy(&f.lock);
	return err;
}
