/*
 * A question is an errand (lib/net/errand.h): when the client of the handler that waits for it has
 * left it is not wanted any more, and the thread cuts the transfers short.
 */
#include "lib/router/fleet/asks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/curl.h"

#define PARALLEL_MAX 64L /* connections at once; curl queues the rest */
#define POLL_MS	     1000
#define GRACE	     NS_PER_S /* the transfers have the deadline; this is for their thread */

struct question;

/* One running transfer. */
struct transfer {
	struct question *q;
	struct ask_one *one;
	CURL *easy; /* NULL: not running */
	struct workercurl way;
};

struct question {
	struct errand errand; /* first member */
	struct ask ask;	      /* what the handler sees */
	struct fleet *fleet;
	int64_t deadline;
	/* The thread's own: */
	struct question *next;
	struct transfer *transfer; /* ask.n of them */
	size_t running;
};

struct asks {
	const struct router_config *cfg;
	struct errands *errands;
	CURLM *multi;
	struct curl_slist *fields; /* for workers; NULL: none */
	struct question *running;  /* the thread's own */
};

/* -- the question -- */

static void question_free(struct errand *e)
{
	struct question *q = (struct question *)(void *)e;

	for (size_t i = 0; i < q->ask.n; i++)
		buf_release(&q->ask.one[i].body);
	free(q->ask.one);
	free(q->transfer);
	fleet_put(q->fleet);
	free(q);
}

struct ask *ask_new(struct fleet *f, const char *method, const char *first, const char *second,
		    const char *third)
{
	struct question *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	errand_init(&q->errand, question_free);
	q->ask.method = method;
	q->ask.path[0] = first;
	q->ask.path[1] = second;
	q->ask.path[2] = third;
	q->fleet = fleet_ref(f);
	return &q->ask;
}

static struct question *question_of(struct ask *a)
{
	return (struct question *)(void *)((char *)a - offsetof(struct question, ask));
}

void ask_free(struct ask *a)
{
	if (a)
		errand_drop(&question_of(a)->errand);
}

int ask_worker(struct ask *a, struct worker *w)
{
	struct ask_one *one;

	for (size_t i = 0; i < a->n; i++)
		if (worker_same_server(a->one[i].worker, w))
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
	*one = (struct ask_one){.worker = w, .why = "not asked"};
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
	       workercurl_setup(t->easy, &t->way, s->cfg, t->one->worker, 0,
				q->ask.path[t->one->path], s->fields, left) &&
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
	(void)snprintf(t->one->why, sizeof(t->one->why), "timed out, or out of memory");
	if (t->easy)
		curl_easy_cleanup(t->easy);
	t->easy = NULL;
	workercurl_release(&t->way);
}

static void end_transfer(struct asks *s, struct transfer *t)
{
	if (!t->easy)
		return;
	(void)curl_multi_remove_handle(s->multi, t->easy);
	curl_easy_cleanup(t->easy);
	t->easy = NULL;
	workercurl_release(&t->way);
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

static void end_question(struct asks *s, struct question *q)
{
	for (size_t i = 0; q->transfer && i < q->ask.n; i++)
		end_transfer(s, &q->transfer[i]);
	errand_done(&q->errand);
}

static void end_finished(struct asks *s)
{
	struct question **at = &s->running;

	while (*at) {
		struct question *q = *at;

		if (q->running == 0 || !errand_wanted(&q->errand)) {
			*at = q->next;
			end_question(s, q);
		} else {
			at = &q->next;
		}
	}
}

static void round_of_asks(struct errands *errands, void *ctx)
{
	struct asks *s = ctx;
	struct errand *e;
	CURLMsg *m;
	int n;

	while ((e = errand_take(errands)))
		begin_question(s, (struct question *)(void *)e);
	(void)curl_multi_perform(s->multi, &n);
	while ((m = curl_multi_info_read(s->multi, &n)))
		if (m->msg == CURLMSG_DONE)
			judge(s, m->easy_handle, m->data.result);
	end_finished(s);
	/* Without a question it sleeps until one comes. */
	(void)curl_multi_poll(s->multi, NULL, 0, s->running ? POLL_MS : 60 * POLL_MS, NULL);
}

static void wake_asks(void *ctx)
{
	struct asks *s = ctx;

	(void)curl_multi_wakeup(s->multi);
}

/* -- start and stop -- */

static void release(struct asks *s)
{
	errands_free(s->errands);
	if (s->multi)
		(void)curl_multi_cleanup(s->multi);
	curl_slist_free_all(s->fields);
	free(s);
}

int asks_start(struct asks **out, const struct router_config *c, struct pd_msg *msg)
{
	struct asks *s = calloc(1, sizeof(*s));
	const struct errands_config ec = {.name = "pdctl-asks",
					  .max = ASKS_QUEUE,
					  .round = round_of_asks,
					  .wake = wake_asks,
					  .ctx = s};

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = c;
	s->multi = curl_multi_init();
	if (!s->multi || workercurl_fields(&s->fields, c->api_key) ||
	    curl_multi_setopt(s->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, PARALLEL_MAX) != CURLM_OK ||
	    errands_start(&s->errands, &ec)) {
		release(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that asks workers");
	}
	*out = s;
	return PD_OK;
}

void asks_stop(struct asks *s)
{
	struct question *q;

	if (!s)
		return;
	(void)errands_stop(s->errands, CLOCK_NEVER); /* its rounds end by themselves */
	while ((q = s->running)) {
		s->running = q->next;
		end_question(s, q);
	}
	release(s);
}

/* -- for handlers -- */

int ask_wait(struct asks *s, const struct errand_sleeper *who, struct ask *a, int64_t deadline)
{
	struct question *q = question_of(a);

	q->deadline = deadline;
	return errand_do(s->errands, &q->errand, who, q->deadline + GRACE);
}

int ask_run(struct asks *s, struct http_conn *c, struct ask *a)
{
	const struct errand_sleeper who = http_conn_sleeper(c);

	return ask_wait(s, &who, a, clock_now() + ASK_TIMEOUT);
}
