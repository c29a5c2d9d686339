#include "lib/router/fleet/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/net/errand.h"

#define ROUND_NS   (250 * NS_PER_MS) /* between two looks at who is due */
#define ANSWER_NS  (2 * NS_PER_S)    /* for all answers of a round */
#define FRESH_NS   NS_PER_S	     /* a look that is no older needs no other */
#define NAMES_TEXT 300		     /* of a list of ids, for people */

struct catalog {
	struct fleet_holder *fleet;
	struct asks *asks;
	const struct router_config *cfg;
	struct errands *looks;
	struct swap swap; /* published[] at its current place is the table of now */
	struct served_table *published[2];
	int64_t looked_at; /* the thread's own */
	/* How the thread sleeps while its questions are under way. */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool awake, stop;
};

struct look {
	struct errand errand; /* first member */
};

static void look_free(struct errand *e)
{
	free(e);
}

/* -- sleeping -- */

static bool sleep_here(void *who, int64_t deadline)
{
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	struct catalog *c = who;
	bool stop;
	int rc = 0;

	(void)pthread_mutex_lock(&c->lock);
	while (!c->awake && !c->stop && rc == 0)
		rc = pthread_cond_timedwait(&c->wake, &c->lock, &ts);
	c->awake = false;
	stop = c->stop;
	(void)pthread_mutex_unlock(&c->lock);
	return stop;
}

static void wake_up(void *who)
{
	struct catalog *c = who;

	(void)pthread_mutex_lock(&c->lock);
	c->awake = true;
	(void)pthread_cond_signal(&c->wake);
	(void)pthread_mutex_unlock(&c->lock);
}

/* -- answers -- */

static void names_of(const struct served_list *l, char out[NAMES_TEXT])
{
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < l->n; i++) {
		int more = snprintf(out + len, NAMES_TEXT - len, "%s%.*s", len ? ", " : "",
				    (int)l->model[i].id.n, l->model[i].id.p);

		if (more < 0 || (size_t)more >= NAMES_TEXT - len - 5) {
			(void)snprintf(out + len, NAMES_TEXT - len, ", ...");
			break;
		}
		len += (size_t)more;
	}
}

static void say_list(const struct catalog *c, const struct worker *w, const struct served_list *l)
{
	char names[NAMES_TEXT];

	names_of(l, names);
	log_event(c->cfg->log, LOG_INFO, "models",
		  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_NUMBER("n", l->n),
			     LOG_TEXT("models", names)),
		  "worker %s: serves %zu models now%s%s", w->url, l->n, l->n ? ": " : "", names);
}

static void say_unknown(const struct catalog *c, const struct worker *w, const struct ask_one *one)
{
	char why[WORKER_TEXT];

	if (one->status == 0)
		(void)snprintf(why, sizeof(why), "%s", one->why);
	else if (one->status == 200)
		(void)snprintf(why, sizeof(why), "no list of models");
	else
		(void)snprintf(why, sizeof(why), "status %ld", one->status);
	log_event(c->cfg->log, LOG_INFO, "models_unknown",
		  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("error", why)),
		  "worker %s: GET /v1/models: %s: it may get requests for any model", w->url, why);
}

/* The answer of a server is that of all its ranks and roles. True: the table is old. */
static bool take(struct catalog *c, struct fleet *f, const struct ask_one *one, int64_t now)
{
	struct worker *asked = one->worker;
	struct served_list *l = NULL;
	bool changed = false, refused = one->status > 0, was = asked->models.known;

	if (one->status == 200 &&
	    served_list_read(&l, one->body.data ? one->body.data : "", one->body.len) == PD_OK)
		refused = false;
	if (!l && !was && asked->models.said != (int)one->status + 1)
		say_unknown(c, asked, one);
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];
			bool other;

			if (!worker_same_server(asked, w))
				continue;
			w->models.next = now + (worker_is_fresh(w) && !l ? FRESH_NS
									 : c->cfg->models_interval);
			w->models.said = (int)one->status + 1;
			atomic_store(&w->models.silent, one->status == 0);
			changed |= atomic_exchange(&w->models.refused, refused) != refused;
			/* Silence takes nothing back: the list is the last that is known. */
			if (!l && !refused)
				continue;
			if (l)
				atomic_fetch_add(&l->refs, 1);
			other = served_set(w, l);
			if (other && l && was && w == asked)
				say_list(c, w, l);
			w->models.known = l != NULL;
			changed |= other;
		}
	served_list_put(l);
	return changed;
}

/* -- questions -- */

static bool is_due(struct worker *w, bool silent, bool fresh, int64_t now)
{
	/* One that is out is asked as soon as it is back: it may be another process. One that is
	 * new is asked before it takes requests. */
	if (!atomic_load(&w->slot.available) && !worker_is_fresh(w)) {
		w->models.next = 0;
		return false;
	}
	return atomic_load(&w->models.silent) == silent && (fresh || now >= w->models.next);
}

static int add_due(struct ask *a, struct fleet *f, bool silent, bool fresh)
{
	int64_t now = clock_now();
	int err = PD_OK;

	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; !err && i < f->pool[r].n; i++)
			if (is_due(f->pool[r].worker[i], silent, fresh, now))
				err = ask_worker(a, f->pool[r].worker[i]);
	return err;
}

/* Asks those that are due, of one of the two groups. True: the table is old. */
static bool ask_group(struct catalog *c, struct fleet *f, bool silent, bool fresh)
{
	const struct errand_sleeper who = {sleep_here, wake_up, c};
	struct ask *a = ask_new(f, "GET", "/v1/models", NULL, NULL);
	bool changed = false;

	if (!a)
		return false;
	a->keep_body = true;
	if (add_due(a, f, silent, fresh) == PD_OK && a->n > 0 &&
	    ask_wait(c->asks, &who, a, clock_now() + ANSWER_NS) == PD_OK)
		for (size_t i = 0; i < a->n; i++)
			changed |= take(c, f, &a->one[i], clock_now());
	ask_free(a);
	return changed;
}

/* -- the table -- */

/* On the thread, or before it runs. */
static void publish(struct catalog *c, struct fleet *f, bool changed)
{
	unsigned now = 1 - swap_spare(&c->swap);
	struct served_table *fresh;

	if (!changed && c->published[now] && c->published[now]->version == f->version)
		return;
	if (served_table_new(&fresh, f))
		return; /* the next round tries again: no request relies on it (catalog_table) */
	c->published[swap_spare(&c->swap)] = fresh;
	now = swap_publish(&c->swap);
	served_table_put(c->published[now]);
	c->published[now] = NULL;
}

static void round_of_looks(struct errands *looks, void *ctx)
{
	struct errand *waiting[CATALOG_LOOKS];
	struct catalog *c = ctx;
	struct fleet *f = fleet_get(c->fleet);
	bool fresh, changed;
	size_t n = 0;

	while (n < CATALOG_LOOKS && (waiting[n] = errand_take(looks)))
		n++;
	fresh = n > 0 && clock_now() - c->looked_at >= FRESH_NS;
	changed = ask_group(c, f, false, fresh);
	if (fresh)
		c->looked_at = clock_now();
	publish(c, f, changed);
	for (size_t i = 0; i < n; i++)
		errand_done(waiting[i]);
	publish(c, f, ask_group(c, f, true, false));
	fleet_put(f);
	errands_pause(looks, clock_now() + ROUND_NS);
}

struct served_table *catalog_table(struct catalog *c, struct fleet *f)
{
	struct swap_look look = swap_enter(&c->swap);
	struct served_table *t = c->published[look.place];

	if (t && t->version == f->version) {
		atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
		swap_leave(look);
		return t;
	}
	swap_leave(look);
	/* The fleet of this request is older or newer than the table. */
	return served_table_new(&t, f) ? NULL : t;
}

int catalog_look(struct catalog *c, struct http_conn *conn)
{
	const struct errand_sleeper who = http_conn_sleeper(conn);
	struct look *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return PD_ENOMEM;
	errand_init(&l->errand, look_free);
	/* A round that is under way may have to end first. */
	err = errand_do(c->looks, &l->errand, &who, clock_now() + 3 * ANSWER_NS);
	errand_drop(&l->errand);
	return err;
}

/* -- start and stop -- */

static void release(struct catalog *c)
{
	errands_free(c->looks);
	for (size_t i = 0; i < 2; i++)
		served_table_put(c->published[i]);
	(void)pthread_cond_destroy(&c->wake);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}

int catalog_start(struct catalog **out, struct fleet_holder *fleet, struct asks *asks,
		  const struct router_config *cfg, struct pd_msg *msg)
{
	struct errands_config ec = {
		.name = "pdctl-models", .max = CATALOG_LOOKS, .round = round_of_looks};
	struct catalog *c;
	pthread_condattr_t attr;
	struct fleet *f;

	*out = NULL;
	if (cfg->models_interval == 0)
		return PD_OK;
	c = aligned_alloc(64, (sizeof(*c) + 63) / 64 * 64);
	if (!c)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	memset(c, 0, sizeof(*c));
	c->fleet = fleet;
	c->asks = asks;
	c->cfg = cfg;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&c->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	f = fleet_get(fleet);
	publish(c, f, true);
	fleet_put(f);
	ec.ctx = c;
	if (errands_start(&c->looks, &ec)) {
		release(c);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that learns models");
	}
	*out = c;
	return PD_OK;
}

void catalog_stop(struct catalog *c)
{
	if (!c)
		return;
	(void)pthread_mutex_lock(&c->lock);
	c->stop = true;
	(void)pthread_cond_signal(&c->wake);
	(void)pthread_mutex_unlock(&c->lock);
	(void)errands_stop(c->looks, CLOCK_NEVER); /* its rounds end by themselves */
	release(c);
}
