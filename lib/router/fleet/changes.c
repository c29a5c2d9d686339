/*
 * One thread makes all changes that a request asked for, one after the other. What a handler waits
 * for lives on the heap with two owners, so that a client that leaves takes nothing away from the
 * thread.
 */
#include "lib/router/fleet/changes.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/process.h"

#define RESOLVE_EVERY (30 * NS_PER_S)
#define REAP_EVERY    (25 * NS_PER_MS)
#define STOP_WAIT     NS_PER_S

/* A change and its two owners: the handler, while it waits, and the thread. */
struct pending {
	struct pending *next;
	struct change change;
	struct http_conn *conn; /* NULL when the handler gave up; under the lock */
	void (*after)(void);	/* called when it is done, or NULL */
	bool done;		/* under the lock */
	_Atomic int owners;
};

struct changes {
	struct changes_config cfg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct pending *first, **last;
	size_t waiting;
	bool stop;
	_Atomic bool reap;
	int64_t next_resolve;
};

static void drop(struct pending *p)
{
	if (atomic_fetch_sub(&p->owners, 1) == 1)
		free(p);
}

/* -- the thread -- */

static void carry_out(struct changes *s, struct change *ch)
{
	const struct changes_config *c = &s->cfg;

	if (ch->kind == CHANGE_RELOAD) {
		ch->err = c->reload(c->ctx, &ch->msg);
		return;
	}
	ch->err = fleet_add(c->fleet, c->router, ch->role, ch->text, ch->bootstrap, &ch->msg);
	if (ch->err) {
		log_line(c->router->log, LOG_WARN, "worker not added: %s", ch->msg.text);
		return;
	}
	log_line(c->router->log, LOG_INFO,
		 "%s worker %s added, it gets requests when it is healthy",
		 worker_role_name(ch->role), ch->text);
	health_nudge(c->health);
}

static void finish(struct changes *s, struct pending *p)
{
	if (p->after)
		p->after();
	(void)pthread_mutex_lock(&s->lock);
	p->done = true;
	if (p->conn)
		http_conn_wake(p->conn);
	(void)pthread_mutex_unlock(&s->lock);
	drop(p);
}

static struct pending *take(struct changes *s)
{
	struct pending *p;

	(void)pthread_mutex_lock(&s->lock);
	p = s->first;
	if (p) {
		s->first = p->next;
		if (!s->first)
			s->last = &s->first;
		s->waiting--;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return p;
}

static void carry_out_all(struct changes *s)
{
	struct pending *p;

	while ((p = take(s))) {
		carry_out(s, &p->change);
		finish(s, p);
	}
}

static void reap(struct changes *s)
{
	const struct changes_config *c = &s->cfg;
	size_t gone;

	if (!atomic_exchange(&s->reap, false))
		return;
	if (fleet_reap(c->fleet, c->router, &gone) > 0)
		atomic_store(&s->reap, true);
	if (gone > 0)
		log_line(c->router->log, LOG_INFO, "%zu worker%s removed", gone,
			 gone > 1 ? "s" : "");
}

/* Literals need no look-up. */
static bool is_name(const struct worker *w)
{
	return w->at.host[strspn(w->at.host, "0123456789abcdefABCDEF.:")] != '\0';
}

/* A look-up may take seconds: whoever waits for a change comes first. */
static void resolve_all(struct changes *s)
{
	struct fleet *f = fleet_get(s->cfg.fleet);
	bool stop = false;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !stop && i < f->pool[r].n; i++) {
			if (!is_name(f->pool[r].worker[i]))
				continue;
			worker_resolve(f->pool[r].worker[i]);
			carry_out_all(s);
			reap(s);
			(void)pthread_mutex_lock(&s->lock);
			stop = s->stop;
			(void)pthread_mutex_unlock(&s->lock);
		}
	}
	fleet_put(f);
}

/* Sleeps until there is something to do; false when the thread is to end. */
static bool wait_for_work(struct changes *s)
{
	int64_t until = s->next_resolve;
	struct timespec ts;
	bool go;

	(void)pthread_mutex_lock(&s->lock);
	if (atomic_load(&s->reap) && clock_now() + REAP_EVERY < until)
		until = clock_now() + REAP_EVERY;
	ts = (struct timespec){.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	if (!s->first && !s->stop)
		(void)pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	go = !s->stop;
	(void)pthread_mutex_unlock(&s->lock);
	return go;
}

static void *run(void *arg)
{
	struct changes *s = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-changes");
	while (wait_for_work(s)) {
		carry_out_all(s);
		reap(s);
		if (clock_now() >= s->next_resolve) {
			resolve_all(s);
			s->next_resolve = clock_now() + RESOLVE_EVERY;
		}
	}
	return NULL;
}

/* -- start and stop -- */

int changes_start(struct changes **out, const struct changes_config *c, struct pd_msg *msg)
{
	struct changes *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = *c;
	s->last = &s->first;
	s->next_resolve = clock_now() + RESOLVE_EVERY;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (pthread_create(&s->thread, NULL, run, s) != 0) {
		(void)pthread_cond_destroy(&s->wake);
		(void)pthread_mutex_destroy(&s->lock);
		free(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread for changes");
	}
	*out = s;
	return PD_OK;
}

bool changes_stop(struct changes *s)
{
	struct pending *p;

	if (!s)
		return true;
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	if (!process_join(s->thread, clock_now() + STOP_WAIT))
		return false;
	while ((p = take(s)))
		drop(p);
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
	return true;
}

/* -- for handlers -- */

static bool enqueue(struct changes *s, struct pending *p)
{
	bool room;

	(void)pthread_mutex_lock(&s->lock);
	room = s->waiting < CHANGES_QUEUE && !s->stop;
	if (room) {
		*s->last = p;
		s->last = &p->next;
		s->waiting++;
		(void)pthread_cond_signal(&s->wake);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return room;
}

static int await(struct changes *s, struct pending *p, struct http_conn *c)
{
	int64_t deadline = clock_now() + CHANGE_WAIT_S * NS_PER_S;
	bool left = false, done;

	for (;;) {
		(void)pthread_mutex_lock(&s->lock);
		done = p->done;
		if (done || left || clock_now() >= deadline)
			p->conn = NULL; /* nobody wakes us any more */
		(void)pthread_mutex_unlock(&s->lock);
		if (done)
			return PD_OK;
		if (left)
			return PD_ECANCELED;
		if (!p->conn)
			return PD_ETIMEOUT;
		left = http_conn_sleep(c, deadline);
	}
}

int changes_do(struct changes *s, struct http_conn *c, struct change *ch)
{
	struct pending *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return PD_ENOMEM;
	p->change = *ch;
	p->conn = c;
	atomic_store(&p->owners, 2);
	if (!enqueue(s, p)) {
		free(p);
		return PD_EBUSY;
	}
	err = await(s, p, c);
	if (!err)
		*ch = p->change;
	drop(p);
	return err;
}

bool changes_reload(struct changes *s, void (*done)(void))
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return false;
	p->change.kind = CHANGE_RELOAD;
	p->after = done;
	atomic_store(&p->owners, 1);
	if (enqueue(s, p))
		return true;
	free(p);
	return false;
}

void changes_reap(struct changes *s)
{
	atomic_store(&s->reap, true);
	(void)pthread_mutex_lock(&s->lock);
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}
