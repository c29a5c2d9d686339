/*
 * A question has two owners, the handler that waits for it and the thread that asks. A handler
 * whose client left gives its half up, and the thread cuts the transfers short.
 */
#include "lib/router/fleet/asks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/curl.h"

#define PARALLEL_MAX 64L /* connections at once; curl queues the rest */
#define POLL_MS	     1000

struct question;

/* One running transfer. */
struct transfer {
	struct question *q;
	struct ask_one *one;
	CURL *easy; /* NULL: not running */
	struct workercurl way;
};

struct question {
	struct ask ask; /* what the handler sees */
	struct question *next;
	struct fleet *fleet;
	struct transfer *transfer; /* ask.n of them */
	size_t running;
	int64_t deadline;
	struct http_conn *conn; /* NULL: given up; under the lock */
	bool done;		/* under the lock */
	_Atomic int owners;
};

struct asks {
	const struct router_config *cfg;
	pthread_t thread;
	CURLM *multi;
	struct curl_slist *fields; /* for workers; NULL: none */
	pthread_mutex_t lock;
	struct question *fresh, *running; /* fresh: under the lock; running: the thread's own */
	size_t n;
	_Atomic bool stop;
};

/* -- the question -- */

struct ask *ask_new(struct fleet *f, const char *method, const char *first, const char *second,
		    const char *third)
{
	struct question *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->ask.method = method;
	q->ask.path[0] = first;
	q->ask.path[1] = second;
	q->ask.path[2] = third;
	q->fleet = fleet_ref(f);
	atomic_store(&q->owners, 1);
	return &q->ask;
}

/* `ask` is the first member. */
static struct question *question_of(struct ask *a)
{
	return (struct question *)(void *)a;
}

static void drop(struct question *q)
{
	if (atomic_fetch_sub(&q->owners, 1) != 1)
		return;
	for (size_t i = 0; i < q->ask.n; i++)
		buf_release(&q->ask.one[i].body);
	free(q->ask.one);
	free(q->transfer);
	fleet_put(q->fleet);
	free(q);
}

void ask_free(struct ask *a)
{
	if (a)
		drop(question_of(a));
}

int ask_worker(struct ask *a, struct worker *w)
{
	struct ask_one *one;

	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->one[i].worker->at.authority, w->at.authority) == 0 &&
		    strcmp(a->one[i].worker->at.base, w->at.base) == 0)
			return PD_OK;
	if (a->n == a->cap) {
		size_t cap = a->cap ? 2 * a->cap : 16;

		one = realloc(a->one, cap * sizeof(*one));
		if (!one)
			return PD_ENOMEM;
		a->one = one;
		a->cap = cap;
	}
	one = &a->one[a->n++];
	*one = (struct ask_one){.worker = w, .why = "was not asked"};
	buf_init(&one->body, ASK_BODY_MAX);
	return PD_OK;
}

bool ask_good(const struct ask_one *one)
{
	return one->status >= 200 && one->status < 300;
}

/* -- the thread -- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;

	if (!t->q->ask.keep_body)
		return size * n;
	return buf_append(&t->one->body, p, size * n) ? 0 : size * n;
}

static bool set_options(const struct asks *s, struct transfer *t)
{
	const struct question *q = t->q;
	int64_t left = q->deadline - clock_now();
	bool post = strcmp(q->ask.method, "POST") == 0;

	return left > 0 &&
	       workercurl_setup(t->easy, &t->way, s->cfg, t->one->worker, q->ask.path[t->one->path],
				s->fields, left) &&
	       (!post || (curl_easy_setopt(t->easy, CURLOPT_POST, 1L) == CURLE_OK &&
			  curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, "") == CURLE_OK)) &&
	       curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
	       curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t) == CURLE_OK &&
	       curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) == CURLE_OK;
}

static void begin_transfer(struct asks *s, struct transfer *t)
{
	buf_clear(&t->one->body);
	t->easy = curl_easy_init();
	if (t->easy && set_options(s, t) && curl_multi_add_handle(s->multi, t->easy) == CURLM_OK) {
		t->q->running++;
		return;
	}
	(void)snprintf(t->one->why, sizeof(t->one->why), "out of time or memory");
	if (t->easy)
		curl_easy_cleanup(t->easy);
	t->easy = NULL;
}

static void end_transfer(struct asks *s, struct transfer *t)
{
	if (!t->easy)
		return;
	(void)curl_multi_remove_handle(s->multi, t->easy);
	curl_easy_cleanup(t->easy);
	t->easy = NULL;
	t->q->running--;
}

static void begin_question(struct asks *s, struct question *q)
{
	q->transfer = calloc(q->ask.n + 1, sizeof(*q->transfer));
	for (size_t i = 0; q->transfer && i < q->ask.n; i++) {
		q->transfer[i] = (struct transfer){.q = q, .one = &q->ask.one[i]};
		begin_transfer(s, &q->transfer[i]);
	}
	q->next = s->running;
	s->running = q;
}

static void judge(struct asks *s, CURL *easy, CURLcode result)
{
	struct transfer *t = NULL;
	char *ctype = NULL;
	long status = 0;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t) != CURLE_OK || !t)
		return;
	(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &ctype);
	t->one->status = result == CURLE_OK ? status : 0;
	if (result != CURLE_OK)
		workercurl_why(&t->way, result, t->one->why, sizeof(t->one->why));
	(void)snprintf(t->one->ctype, sizeof(t->one->ctype), "%s",
		       ctype ? ctype : "application/octet-stream");
	end_transfer(s, t);
	if ((status == 404 || status == 405) && t->one->path + 1 < ASK_PATHS &&
	    t->q->ask.path[t->one->path + 1]) {
		t->one->path++;
		begin_transfer(s, t);
	}
}

static bool is_over(struct asks *s, struct question *q)
{
	bool given_up;

	(void)pthread_mutex_lock(&s->lock);
	given_up = !q->conn;
	(void)pthread_mutex_unlock(&s->lock);
	return given_up || q->running == 0 || atomic_load(&s->stop);
}

static void end_question(struct asks *s, struct question *q)
{
	for (size_t i = 0; q->transfer && i < q->ask.n; i++)
		end_transfer(s, &q->transfer[i]);
	(void)pthread_mutex_lock(&s->lock);
	q->done = true;
	s->n--;
	if (q->conn)
		http_conn_wake(q->conn);
	(void)pthread_mutex_unlock(&s->lock);
	drop(q);
}

static void begin_fresh(struct asks *s)
{
	struct question *q;

	for (;;) {
		(void)pthread_mutex_lock(&s->lock);
		q = s->fresh;
		if (q)
			s->fresh = q->next;
		(void)pthread_mutex_unlock(&s->lock);
		if (!q)
			return;
		begin_question(s, q);
	}
}

static void end_finished(struct asks *s)
{
	struct question **at = &s->running;

	while (*at) {
		struct question *q = *at;

		if (is_over(s, q)) {
			*at = q->next;
			end_question(s, q);
		} else {
			at = &q->next;
		}
	}
}

static void *run(void *arg)
{
	struct asks *s = arg;
	CURLMsg *m;
	int n;

	(void)pthread_setname_np(pthread_self(), "pdctl-asks");
	do {
		begin_fresh(s);
		(void)curl_multi_perform(s->multi, &n);
		while ((m = curl_multi_info_read(s->multi, &n)))
			if (m->msg == CURLMSG_DONE)
				judge(s, m->easy_handle, m->data.result);
		end_finished(s);
		/* Without a question it sleeps until somebody wakes it. */
		(void)curl_multi_poll(s->multi, NULL, 0, s->running ? POLL_MS : 60 * POLL_MS, NULL);
	} while (!atomic_load(&s->stop));
	begin_fresh(s);
	end_finished(s);
	return NULL;
}

int asks_start(struct asks **out, const struct router_config *c, struct pd_msg *msg)
{
	struct asks *s = calloc(1, sizeof(*s));

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = c;
	s->multi = curl_multi_init();
	(void)pthread_mutex_init(&s->lock, NULL);
	if (!s->multi || workercurl_fields(&s->fields, c->api_key) ||
	    curl_multi_setopt(s->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, PARALLEL_MAX) != CURLM_OK ||
	    pthread_create(&s->thread, NULL, run, s) != 0) {
		if (s->multi)
			(void)curl_multi_cleanup(s->multi);
		curl_slist_free_all(s->fields);
		(void)pthread_mutex_destroy(&s->lock);
		free(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that asks workers");
	}
	*out = s;
	return PD_OK;
}

void asks_stop(struct asks *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	(void)curl_multi_wakeup(s->multi);
	(void)pthread_join(s->thread, NULL);
	(void)curl_multi_cleanup(s->multi);
	curl_slist_free_all(s->fields);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

/* -- for handlers -- */

static bool enqueue(struct asks *s, struct question *q)
{
	bool room;

	(void)pthread_mutex_lock(&s->lock);
	room = s->n < ASKS_QUEUE;
	if (room) {
		s->n++;
		q->next = s->fresh;
		s->fresh = q;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (room)
		(void)curl_multi_wakeup(s->multi);
	return room;
}

int ask_run(struct asks *s, struct http_conn *c, struct ask *a)
{
	struct question *q = question_of(a);
	bool left = false, done;

	q->deadline = clock_now() + ASK_TIMEOUT;
	q->conn = c;
	atomic_store(&q->owners, 2);
	if (!enqueue(s, q)) {
		atomic_store(&q->owners, 1);
		return PD_EBUSY;
	}
	for (;;) {
		(void)pthread_mutex_lock(&s->lock);
		done = q->done;
		if (done || left)
			q->conn = NULL;
		(void)pthread_mutex_unlock(&s->lock);
		if (done)
			return PD_OK;
		if (left) {
			(void)curl_multi_wakeup(s->multi);
			return PD_ECANCELED;
		}
		/* The transfers have the deadline; this one is in case nobody wakes us. */
		left = http_conn_sleep(c, clock_now() + ASK_TIMEOUT);
	}
}
