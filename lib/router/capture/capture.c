/*
 * DESIGN: the writer of a capture
 *
 *	requests (any thread)                         the writer (one thread)
 *	capture_reserve --> ring (bounded) ---------> batch: BEGIN, fleets, availability, records,
 *	     | full: lost[] + 1                              losses, COMMIT
 *	     v                                           | failed: unwritten[] + all of the batch
 *	capture_commit -- a quarter full: wakes it       v
 *	fleet_load ----> incoming (lock) -----------> backlog, until a transaction has it
 *
 * It takes what the queue holds at one moment (the mark), writes it in one transaction and sleeps
 * for the rest of CAPTURE_PERIOD.
 *
 * Guaranteed:
 * - A request never waits for the file: it copies into the ring or counts a loss.
 * - A record is in the file after at most CAPTURE_PERIOD and one transaction, or it is counted as
 *   lost: queue_full (no room) or write_error (its transaction failed). written + lost is what was
 *   offered, also at the end, when a transaction fails with more behind it.
 * - The file knows a fleet before the decisions from it: fleets are collected after the mark.
 * - What the file says is committed as a whole: after kill -9 it has everything up to the last
 *   transaction, and `dropped` for what was lost until then.
 *
 * Not guaranteed:
 * - A failed transaction is not repeated: the disk that is full now will be full for the next
 *   million requests too. While the file fails, one transaction a second tries again and the rest
 *   is dropped.
 * - Losses that happen after the last transaction are in the log and the metrics, not in the file.
 * - The order of two records of different requests is that of their reservations, not of their
 *   times.
 */
#include "lib/router/capture/capture.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/rng.h"
#include "lib/router/capture/capture_db.h"

#define BATCH_MAX   16384 /* records of one transaction */
#define RETRY_AFTER NS_PER_S
#define SAY_AGAIN   (60 * NS_PER_S)
#define QUEUE_MAX   (1u << 24)

/* A set of workers that is not in the file yet. */
struct waiting {
	struct fleet *fleet; /* a reference */
	int64_t at;
	struct waiting *next;
};

struct capture_writer {
	struct capture_db *db;
	pthread_t thread;
	bool started;
	sem_t wake;
	_Atomic bool stop;
	pthread_mutex_t lock; /* incoming */
	struct waiting *incoming, *backlog;
	struct fleet *fleet;	/* the newest in the file; its workers are looked at */
	bool *available[ROLES]; /* as the file says */
	bool known;		/* `available` is valid */
	struct capture_losses in_file;
	int64_t retry_at, said_at, said_full_at;
	uint64_t said_full;
};

void capture_config_default(struct capture_config *c)
{
	*c = (struct capture_config){
		.body_max = 65536,
		.block_tokens = 64,
		.queue = 65536,
		.queue_bytes = 32u << 20,
		.max_bytes = INT64_C(10) << 30,
	};
}

/* -- the queue, seen from requests -- */

uint64_t capture_begin(struct capture *c)
{
	return c ? atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed) + 1 : 0;
}

uint64_t capture_clock(const struct capture *c)
{
	return atomic_load(&c->clock);
}

uint64_t capture_tick(struct capture *c, unsigned n)
{
	return atomic_fetch_add(&c->clock, n) + 1;
}

void *capture_reserve(struct capture *c, enum capture_kind kind, size_t n)
{
	void *record = NULL;

	if (!atomic_load_explicit(&c->closed, memory_order_relaxed))
		record = capture_ring_reserve(&c->ring, n);
	if (!record)
		atomic_fetch_add_explicit(&c->lost[kind], 1, memory_order_relaxed);
	return record;
}

void capture_commit(struct capture *c, void *record)
{
	capture_ring_commit(record);
	if (capture_ring_used(&c->ring) > c->ring.size / 4 &&
	    !atomic_load_explicit(&c->nudged, memory_order_relaxed) &&
	    !atomic_exchange_explicit(&c->nudged, true, memory_order_relaxed))
		(void)sem_post(&c->writer->wake);
}

void capture_fleet(struct capture *c, struct fleet *f)
{
	struct waiting *w = c ? malloc(sizeof(*w)) : NULL, **last;

	if (!w)
		return;
	*w = (struct waiting){fleet_ref(f), clock_now(), NULL};
	(void)pthread_mutex_lock(&c->writer->lock);
	for (last = &c->writer->incoming; *last; last = &(*last)->next)
		;
	*last = w;
	(void)pthread_mutex_unlock(&c->writer->lock);
}

/* -- one transaction -- */

static void collect_fleets(struct capture_writer *w)
{
	struct waiting **last;

	for (last = &w->backlog; *last; last = &(*last)->next)
		;
	(void)pthread_mutex_lock(&w->lock);
	*last = w->incoming;
	w->incoming = NULL;
	(void)pthread_mutex_unlock(&w->lock);
}

/* From now on the workers of this fleet are looked at. */
static void adopt(struct capture_writer *w, struct fleet *f)
{
	struct fleet *before = w->fleet;

	w->fleet = fleet_ref(f);
	fleet_put(before); /* last: it may be the same */
	w->known = true;
	for (int r = 0; r < ROLES; r++) {
		free(w->available[r]);
		w->available[r] = calloc(f->pool[r].n + 1, sizeof(bool));
		w->known = w->known && w->available[r];
	}
}

static int put_fleets(struct capture_writer *w, struct pd_msg *msg)
{
	int err = PD_OK;

	for (struct waiting *p = w->backlog; !err && p; p = p->next) {
		err = capture_db_fleet(w->db, p->fleet, p->at, msg);
		if (!err)
			adopt(w, p->fleet);
	}
	return err;
}

/* A worker that nothing was said about yet counts as not available. */
static int put_available(struct capture_writer *w, int64_t now, struct pd_msg *msg)
{
	int err = PD_OK;

	for (int r = 0; w->known && r < ROLES; r++) {
		for (size_t i = 0; !err && i < w->fleet->pool[r].n; i++) {
			bool is = atomic_load(&w->fleet->pool[r].worker[i]->slot.available);

			if (is == w->available[r][i])
				continue;
			w->available[r][i] = is;
			err = capture_db_available(w->db, w->fleet, now, r, i, is, msg);
		}
	}
	return err;
}

/* Empties the queue up to the mark; after an error the rest is thrown away. */
static int put_records(struct capture *c, uint64_t mark, uint64_t count[CAPTURE_KINDS], bool keep,
		       struct pd_msg *msg)
{
	int err = PD_OK;
	void *record;
	size_t n, done = 0;

	while (done++ < BATCH_MAX && (record = capture_ring_peek(&c->ring, mark, &n)) != NULL) {
		enum capture_kind kind = (enum capture_kind) * (const uint32_t *)record;
		struct capture_db *db = c->writer->db;

		if (keep && !err)
			err = kind == CAPTURE_REQUEST	 ? capture_db_request(db, record, msg)
			      : kind == CAPTURE_DECISION ? capture_db_decision(db, record, msg)
							 : capture_db_release(db, record, msg);
		count[kind]++;
		capture_ring_pop(&c->ring);
	}
	return err;
}

static void losses(const struct capture *c, struct capture_losses *l)
{
	for (int k = 0; k < CAPTURE_KINDS; k++) {
		l->n[LOSS_QUEUE][k] = atomic_load(&c->lost[k]);
		l->n[LOSS_WRITE][k] = atomic_load(&c->unwritten[k]);
	}
}

static int put_losses(struct capture_writer *w, const struct capture_losses *now,
		      struct pd_msg *msg)
{
	struct capture_losses fresh;
	bool any = false;

	for (int l = 0; l < CAPTURE_LOSSES; l++) {
		for (int k = 0; k < CAPTURE_KINDS; k++) {
			fresh.n[l][k] = now->n[l][k] - w->in_file.n[l][k];
			any |= fresh.n[l][k] > 0;
		}
	}
	return any ? capture_db_losses(w->db, &fresh, msg) : PD_OK;
}

static uint64_t sum(const struct capture_losses *l, enum capture_loss reason)
{
	uint64_t n = 0;

	for (int k = 0; k < CAPTURE_KINDS; k++)
		n += l->n[reason][k];
	return n;
}

static void failed(struct capture *c, int64_t now, const struct pd_msg *msg)
{
	struct capture_writer *w = c->writer;
	bool before = atomic_exchange(&c->failing, true);

	atomic_fetch_add(&c->failures, 1);
	w->retry_at = now + RETRY_AFTER;
	w->known = false;
	if (w->fleet)
		adopt(w, w->fleet); /* said again with the next transaction that succeeds */
	if (before && now < w->said_at + SAY_AGAIN)
		return;
	w->said_at = now;
	log_event(c->rc->log, LOG_ERROR, "capture_failed",
		  LOG_FIELDS(LOG_TEXT("file", c->cfg.path), LOG_TEXT("error", msg->text)),
		  "capture: cannot write '%s': %s; requests are served but not recorded "
		  "(pdctl_capture_dropped_total), retrying every second",
		  c->cfg.path, msg->text);
}

static void succeeded(struct capture *c, int64_t now, const struct capture_losses *l)
{
	struct capture_writer *w = c->writer;
	struct waiting *p;

	while ((p = w->backlog) != NULL) {
		w->backlog = p->next;
		fleet_put(p->fleet);
		free(p);
	}
	if (atomic_exchange(&c->failing, false))
		log_event(c->rc->log, LOG_WARN, "capture_resumed",
			  LOG_FIELDS(LOG_TEXT("file", c->cfg.path),
				     LOG_NUMBER("dropped", sum(l, LOSS_WRITE))),
			  "capture: writing to '%s' again; %llu records were dropped", c->cfg.path,
			  (unsigned long long)sum(l, LOSS_WRITE));
	if (sum(l, LOSS_QUEUE) > w->said_full && now >= w->said_full_at + SAY_AGAIN) {
		w->said_full_at = now;
		w->said_full = sum(l, LOSS_QUEUE);
		log_event(c->rc->log, LOG_WARN, "capture_queue_full",
			  LOG_FIELDS(LOG_NUMBER("dropped", w->said_full)),
			  "capture: the queue was full, %llu records were dropped so far; raise "
			  "--capture-queue or --capture-queue-bytes, or use a faster disk",
			  (unsigned long long)w->said_full);
	}
	w->in_file = *l;
}

static uint64_t all_of(const uint64_t count[CAPTURE_KINDS])
{
	return count[CAPTURE_REQUEST] + count[CAPTURE_DECISION] + count[CAPTURE_RELEASE];
}

static bool something_to_write(struct capture *c, const struct capture_losses *l, uint64_t mark)
{
	struct capture_writer *w = c->writer;
	size_t n;

	if (w->backlog || memcmp(l, &w->in_file, sizeof(*l)) != 0 ||
	    capture_ring_peek(&c->ring, mark, &n))
		return true;
	for (int r = 0; w->known && r < ROLES; r++)
		for (size_t i = 0; i < w->fleet->pool[r].n; i++)
			if (w->available[r][i] !=
			    atomic_load(&w->fleet->pool[r].worker[i]->slot.available))
				return true;
	return false;
}

/* False when there was nothing left to do. */
static bool batch(struct capture *c, bool last)
{
	struct capture_writer *w = c->writer;
	uint64_t count[CAPTURE_KINDS] = {0}, mark = capture_ring_mark(&c->ring);
	int64_t now = clock_now();
	struct capture_losses l;
	struct pd_msg msg = {0};
	bool quiet = atomic_load(&c->failing) && now < w->retry_at && !last;
	int err = PD_OK;

	/* After the mark: a request before it has seen no fleet that is not in the list. */
	collect_fleets(w);
	losses(c, &l);
	if (!something_to_write(c, &l, mark))
		return false;
	if (!quiet)
		err = capture_db_begin(w->db, &msg);
	if (!quiet && !err)
		err = put_fleets(w, &msg);
	if (!quiet && !err)
		err = put_available(w, now, &msg);
	if (put_records(c, mark, count, !quiet && !err, err ? NULL : &msg) && !err)
		err = PD_EIO;
	if (!quiet && !err)
		err = put_losses(w, &l, &msg);
	if (!quiet && !err)
		err = capture_db_commit(w->db, &msg);
	for (int k = 0; k < CAPTURE_KINDS; k++)
		atomic_fetch_add(err || quiet ? &c->unwritten[k] : &c->written[k], count[k]);
	if (err) {
		capture_db_cancel(w->db);
		failed(c, now, &msg);
	} else if (!quiet) {
		succeeded(c, now, &l);
	}
	return !err && all_of(count) > 0;
}

/* -- the thread -- */

static void doze(struct capture_writer *w, int64_t until)
{
	struct timespec at = {until / NS_PER_S, until % NS_PER_S};

	while (!atomic_load(&w->stop) && sem_clockwait(&w->wake, CLOCK_MONOTONIC, &at) == -1 &&
	       errno == EINTR)
		;
}

/* A transaction has failed and no other follows: what still waits is lost with it. */
static void discard(struct capture *c)
{
	uint64_t count[CAPTURE_KINDS];

	do {
		memset(count, 0, sizeof(count));
		(void)!put_records(c, capture_ring_mark(&c->ring), count, false, NULL);
		for (int k = 0; k < CAPTURE_KINDS; k++)
			atomic_fetch_add(&c->unwritten[k], count[k]);
	} while (all_of(count) > 0);
}

static void last_words(struct capture *c)
{
	struct capture_losses l;
	struct pd_msg msg = {0};
	uint64_t lacks;
	int err;

	while (batch(c, true))
		;
	discard(c);
	losses(c, &l);
	err = capture_db_begin(c->writer->db, &msg);
	err = err ? err : put_losses(c->writer, &l, &msg);
	err = err ? err : capture_db_ended(c->writer->db, &msg);
	err = err ? err : capture_db_commit(c->writer->db, &msg);
	if (err)
		capture_db_cancel(c->writer->db);
	lacks = sum(&l, LOSS_QUEUE) + sum(&l, LOSS_WRITE);
	if (err || lacks > 0)
		log_event(c->rc->log, LOG_WARN, "capture_incomplete",
			  LOG_FIELDS(LOG_TEXT("file", c->cfg.path), LOG_NUMBER("dropped", lacks),
				     LOG_TEXT("error", err ? msg.text : "")),
			  "capture: '%s' lacks %llu records%s%s", c->cfg.path,
			  (unsigned long long)lacks, err ? ": " : "", err ? msg.text : "");
}

static void *writer_main(void *arg)
{
	struct capture *c = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-capture");
	while (!atomic_load(&c->writer->stop)) {
		int64_t until = clock_now() + CAPTURE_PERIOD;

		atomic_store_explicit(&c->nudged, false, memory_order_relaxed);
		while (batch(c, false))
			;
		doze(c->writer, until);
	}
	last_words(c);
	return NULL;
}

/* -- life -- */

static int check(const struct capture_config *c, struct pd_msg *msg)
{
	if (c->queue < 1 || c->queue > QUEUE_MAX)
		return pd_fail(msg, PD_EINVAL, "capture queue: found %u records, expected 1 to %u",
			       c->queue, QUEUE_MAX);
	if (c->prompts && c->body_max > c->queue_bytes / 8)
		return pd_fail(
			msg, PD_EINVAL,
			"capture queue: found %zu bytes, expected at least 8 times the %zu bytes "
			"kept of a body",
			c->queue_bytes, c->body_max);
	return PD_OK;
}

int capture_new(struct capture **out, const struct capture_config *cfg, struct pd_msg *msg)
{
	struct capture *c = NULL;
	struct capture_writer *w = NULL;
	int err = check(cfg, msg);

	*out = NULL;
	if (err)
		return err;
	c = aligned_alloc(64, (sizeof(*c) + 63) / 64 * 64);
	w = calloc(1, sizeof(*w));
	if (!c || !w) {
		free(c);
		free(w);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	memset(c, 0, sizeof(*c));
	c->cfg = *cfg;
	c->writer = w;
	rng_system_bytes((unsigned char *)&c->block_seed, sizeof(c->block_seed));
	(void)sem_init(&w->wake, 0, 0);
	(void)pthread_mutex_init(&w->lock, NULL);
	err = capture_ring_init(&c->ring, cfg->queue_bytes, cfg->queue);
	err = err ? pd_fail(msg, err, "cannot allocate a capture queue of %zu bytes",
			    cfg->queue_bytes)
		  : capture_db_open(&w->db, &c->cfg, msg);
	if (err) {
		capture_free(c);
		return err;
	}
	*out = c;
	return PD_OK;
}

int capture_start(struct capture *c, const struct router_config *rc, struct pd_msg *msg)
{
	c->rc = rc;
	capture_db_describe(c->writer->db, rc);
	c->writer->started = pthread_create(&c->writer->thread, NULL, writer_main, c) == 0;
	return c->writer->started ? PD_OK
				  : pd_fail(msg, PD_ENOMEM, "cannot start the capture thread");
}

void capture_stop(struct capture *c)
{
	struct capture_writer *w = c ? c->writer : NULL;

	if (!w || !w->db)
		return;
	atomic_store(&c->closed, true);
	atomic_store(&w->stop, true);
	if (w->started) {
		(void)sem_post(&w->wake);
		(void)pthread_join(w->thread, NULL);
	}
	w->started = false;
	capture_db_close(w->db);
	w->db = NULL;
}

void capture_free(struct capture *c)
{
	struct capture_writer *w = c ? c->writer : NULL;
	struct waiting *p;

	if (!c)
		return;
	capture_stop(c);
	PD_CHECK(!w->started);
	collect_fleets(w);
	while ((p = w->backlog) != NULL) {
		w->backlog = p->next;
		fleet_put(p->fleet);
		free(p);
	}
	fleet_put(w->fleet);
	for (int r = 0; r < ROLES; r++)
		free(w->available[r]);
	(void)sem_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	capture_ring_release(&c->ring);
	free(w);
	free(c);
}

_Static_assert((int)PROM_RECORDS == (int)CAPTURE_KINDS && (int)PROM_REQUEST == (int)CAPTURE_REQUEST,
	       "the page has the kinds of the capture");

void capture_stats(const struct capture *c, struct prom_page *out)
{
	if (!c)
		return;
	for (int k = 0; k < CAPTURE_KINDS; k++) {
		out->capture.written[k] = atomic_load(&c->written[k]);
		out->capture.queue_full[k] = atomic_load(&c->lost[k]);
		out->capture.write_error[k] = atomic_load(&c->unwritten[k]);
	}
	out->number[SINGLE_CAPTURE_ERRORS] = atomic_load(&c->failures);
	out->number[SINGLE_CAPTURE_FAILING] = atomic_load(&c->failing);
	out->number[SINGLE_CAPTURE_QUEUE] = capture_ring_used(&c->ring);
}
