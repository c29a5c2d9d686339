/*
 * One lock over memory and the list of open questions; it is held for look-ups and list work only.
 * A question is an errand (lib/net/errand.h) for which any number of requests may wait. It leaves
 * the list before it is done, so a request that finds it there gets its verdict. The answers are
 * kept in two tables of small sets: a new one takes the place of the oldest in its set, so a table
 * never grows and needs no list.
 */
#include "lib/router/keys/keyask.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/siphash.h"
#include "lib/router/keys/keys.h"

#define WAYS	   8
#define URL_MAX	   2000
#define ANSWER_MAX 65536 /* bytes of a body that are read and thrown away */
#define POLL_MS	   1000
#define WARN_EVERY NS_PER_S
#define GRACE	   (250 * NS_PER_MS) /* the thread answers within the timeout, nearly always */
#define BEARER	   "Authorization: Bearer "

struct remembered {
	struct sip_tag tag;
	int64_t until; /* monotonic ns */
};

struct memory {
	struct remembered *slot; /* owned: sets of WAYS */
	size_t sets;
};

struct question {
	struct errand errand;  /* first member */
	struct question *next; /* among the open ones; under the lock */
	struct sip_tag tag;
	char *header; /* owned: with the key, wiped when freed */
	int64_t deadline;
	enum key_verdict verdict; /* valid when it is done */
	/* The thread's own: */
	struct question *next_running;
	CURL *easy;
	struct curl_slist *headers;
	size_t url; /* the one that is asked */
	size_t read;
	bool unsure; /* one did not answer */
};

struct keyask {
	struct keyask_config cfg;
	struct sip_key secret;
	struct errands *errands;
	CURLM *multi;
	/* The thread's own: */
	struct question *running;
	unsigned nrunning;
	int64_t last_warning;

	_Atomic uint64_t asked, hits, failed;
	_Atomic unsigned waiting;
	pthread_mutex_t lock;
	struct memory valid, invalid;
	struct question *open;
};

/* -- memory, with the lock held -- */

static int memory_init(struct memory *m, unsigned n)
{
	m->sets = n / WAYS + 1;
	m->slot = calloc(m->sets * WAYS, sizeof(*m->slot));
	return m->slot ? PD_OK : PD_ENOMEM;
}

static struct remembered *set_of(const struct memory *m, struct sip_tag tag)
{
	return m->slot + tag.t[1] % m->sets * WAYS;
}

static bool recall(const struct memory *m, struct sip_tag tag, int64_t now)
{
	const struct remembered *set = set_of(m, tag);

	for (int i = 0; i < WAYS; i++)
		if (set[i].until > now && sip_equal(set[i].tag, tag))
			return true;
	return false;
}

static void remember(struct memory *m, struct sip_tag tag, int64_t until)
{
	struct remembered *set = set_of(m, tag), *oldest = set;

	for (int i = 0; i < WAYS; i++) {
		if (sip_equal(set[i].tag, tag)) {
			oldest = &set[i];
			break;
		}
		if (set[i].until < oldest->until)
			oldest = &set[i];
	}
	*oldest = (struct remembered){tag, until};
}

/* -- questions -- */

static void question_free(struct errand *e)
{
	struct question *q = (struct question *)(void *)e;

	if (q->easy)
		curl_easy_cleanup(q->easy);
	if (q->headers) {
		explicit_bzero(q->headers->data, strlen(q->headers->data));
		curl_slist_free_all(q->headers);
	}
	if (q->header) {
		explicit_bzero(q->header, strlen(q->header));
		free(q->header);
	}
	free(q);
}

static struct question *question_new(struct sip_tag tag, struct span key, int64_t deadline)
{
	struct question *q = calloc(1, sizeof(*q));
	size_t prefix = sizeof(BEARER) - 1;

	if (!q)
		return NULL;
	errand_init(&q->errand, question_free);
	q->tag = tag;
	q->deadline = deadline;
	q->header = malloc(prefix + key.n + 1);
	if (!q->header) {
		free(q);
		return NULL;
	}
	memcpy(q->header, BEARER, prefix);
	memcpy(q->header + prefix, key.p, key.n);
	q->header[prefix + key.n] = '\0';
	return q;
}

/* The question about this key with a reference, a new one if need be; NULL when there are too many.
 * With the lock held. */
static struct question *question_about(struct keyask *a, struct sip_tag tag, struct span key,
				       int64_t now)
{
	struct question *q = a->open;

	PD_CHECK_LOCKED(&a->lock);
	while (q && !sip_equal(q->tag, tag))
		q = q->next;
	if (q) {
		(void)errand_ref(&q->errand);
		return q;
	}
	q = question_new(tag, key, now + a->cfg.timeout);
	if (!q)
		return NULL;
	if (errand_post(a->errands, &q->errand)) {
		errand_drop(&q->errand);
		return NULL;
	}
	q->next = a->open;
	a->open = q;
	return q;
}

static enum key_verdict wait_for(struct keyask *a, struct question *q, struct http_conn *c)
{
	const struct errand_sleeper who = http_conn_sleeper(c);
	enum key_verdict v = KEY_UNKNOWN;
	int err = errand_wait(&q->errand, &who, clock_now() + a->cfg.timeout + GRACE);

	atomic_fetch_sub(&a->waiting, 1);
	if (err == PD_OK)
		v = q->verdict;
	else if (err == PD_ECANCELED)
		v = KEY_CLIENT_LEFT;
	errand_drop(&q->errand);
	return v;
}

enum key_verdict keyask(struct keyask *a, struct http_conn *c, struct span key)
{
	struct sip_tag tag = sip_hash(&a->secret, key.p, key.n);
	int64_t now = clock_now();
	struct question *q = NULL;
	bool valid, invalid;

	(void)pthread_mutex_lock(&a->lock);
	valid = recall(&a->valid, tag, now);
	invalid = !valid && recall(&a->invalid, tag, now);
	if (!valid && !invalid && atomic_load(&a->waiting) < KEYASK_WAITERS_MAX)
		q = question_about(a, tag, key, now);
	if (q)
		atomic_fetch_add(&a->waiting, 1);
	(void)pthread_mutex_unlock(&a->lock);
	if (q)
		return wait_for(a, q, c);
	if (!valid && !invalid)
		return KEY_BUSY;
	atomic_fetch_add_explicit(&a->hits, 1, memory_order_relaxed);
	return valid ? KEY_VALID : KEY_INVALID;
}

void keyask_stats(const struct keyask *a, struct keyask_stats *out)
{
	*out = (struct keyask_stats){atomic_load(&a->asked), atomic_load(&a->hits),
				     atomic_load(&a->failed), atomic_load(&a->waiting)};
}

/* -- the thread -- */

/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static size_t swallow(char *p, size_t size, size_t n, void *arg)
{
	struct question *q = arg;

	(void)p;
	q->read += size * n;
	return q->read <= ANSWER_MAX ? size * n : 0;
}

static bool set_options(struct keyask *a, struct question *q, int64_t left)
{
	long ms = (long)(left / NS_PER_MS);
	CURL *easy = q->easy;

	return curl_easy_setopt(easy, CURLOPT_URL, a->cfg.urls[q->url]) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_HTTPHEADER, q->headers) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) ==
		       CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ms > 0 ? ms : 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_WRITEDATA, q) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PRIVATE, q) == CURLE_OK;
}

/* Asks at q->url. False: it cannot even be tried. */
static bool ask(struct keyask *a, struct question *q)
{
	int64_t left = q->deadline - clock_now();

	if (left <= 0)
		return false;
	q->read = 0;
	if (!q->easy)
		q->easy = curl_easy_init();
	if (!q->headers)
		q->headers = curl_slist_append(NULL, q->header);
	return q->easy && q->headers && set_options(a, q, left) &&
	       curl_multi_add_handle(a->multi, q->easy) == CURLM_OK;
}

static void finish(struct keyask *a, struct question *q, enum key_verdict v)
{
	struct question **at;
	int64_t now = clock_now();

	for (at = &a->running; *at != q; at = &(*at)->next_running)
		PD_CHECK(*at);
	*at = q->next_running;
	a->nrunning--;
	q->verdict = v;
	(void)pthread_mutex_lock(&a->lock);
	for (at = &a->open; *at != q; at = &(*at)->next)
		PD_CHECK(*at);
	*at = q->next;
	if (v == KEY_VALID)
		remember(&a->valid, q->tag, now + a->cfg.valid_ttl);
	else if (v == KEY_INVALID)
		remember(&a->invalid, q->tag, now + a->cfg.invalid_ttl);
	(void)pthread_mutex_unlock(&a->lock);
	if (v == KEY_UNKNOWN)
		atomic_fetch_add(&a->failed, 1);
	errand_done(&q->errand);
}

/* The next URL, or the verdict when there is none. */
static void go_on(struct keyask *a, struct question *q)
{
	while (q->url < a->cfg.nurls) {
		if (ask(a, q))
			return;
		q->unsure = true;
		q->url++;
	}
	finish(a, q, q->unsure ? KEY_UNKNOWN : KEY_INVALID);
}

static void start_queued(struct keyask *a, struct errands *errands)
{
	struct errand *e;

	while (a->nrunning < KEYASK_TRANSFERS && (e = errand_take(errands))) {
		struct question *q = (struct question *)(void *)e;

		q->next_running = a->running;
		a->running = q;
		a->nrunning++;
		atomic_fetch_add(&a->asked, 1);
		go_on(a, q);
	}
}

/* Which URL failed, and how; never the key, and of the URL only its place in the list, as it may
 * hold secrets too. */
static void warn(struct keyask *a, const struct question *q, CURLcode result, long status)
{
	int64_t now = clock_now();

	if (now - a->last_warning < WARN_EVERY && a->last_warning)
		return;
	a->last_warning = now;
	if (result != CURLE_OK)
		log_event(a->cfg.log, LOG_WARN, "key_validation_failed",
			  LOG_FIELDS(LOG_NUMBER("url", q->url + 1),
				     LOG_TEXT("error", curl_easy_strerror(result))),
			  "key validation URL %zu did not answer: %s", q->url + 1,
			  curl_easy_strerror(result));
	else
		log_event(a->cfg.log, LOG_WARN, "key_validation_failed",
			  LOG_FIELDS(LOG_NUMBER("url", q->url + 1), LOG_NUMBER("status", status)),
			  "key validation URL %zu answered %ld, expected 200, or 4xx for a bad key",
			  q->url + 1, status);
}

static void judge(struct keyask *a, CURL *easy, CURLcode result)
{
	struct question *q = NULL;
	long status = 0;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&q) != CURLE_OK || !q)
		return;
	(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_multi_remove_handle(a->multi, easy);
	/* The status is the answer, whatever the body does. */
	if (status == 200 && (result == CURLE_OK || result == CURLE_WRITE_ERROR)) {
		finish(a, q, KEY_VALID);
		return;
	}
	if ((result != CURLE_OK && result != CURLE_WRITE_ERROR) || status < 400 || status >= 500 ||
	    status == 408 || status == 429) {
		q->unsure = true;
		warn(a, q, result, status);
	}
	q->url++;
	go_on(a, q);
}

static void round_of_keyask(struct errands *errands, void *ctx)
{
	struct keyask *a = ctx;
	CURLMsg *m;
	int n;

	start_queued(a, errands);
	(void)curl_multi_perform(a->multi, &n);
	while ((m = curl_multi_info_read(a->multi, &n)))
		if (m->msg == CURLMSG_DONE)
			judge(a, m->easy_handle, m->data.result);
	start_queued(a, errands); /* in the places of those that have ended */
	(void)curl_multi_poll(a->multi, NULL, 0, POLL_MS, NULL);
}

static void wake_keyask(void *ctx)
{
	struct keyask *a = ctx;

	(void)curl_multi_wakeup(a->multi);
}

/* -- life -- */

int keyask_check_url(const char *url, struct pd_msg *msg)
{
	bool http = strncmp(url, "http://", 7) == 0 && url[7],
	     https = strncmp(url, "https://", 8) == 0 && url[8];

	if ((http || https) && strlen(url) <= URL_MAX && strcspn(url, " \t\r\n") == strlen(url))
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "found no valid URL, expected http://HOST... or https://HOST... of at "
		       "most %d characters",
		       URL_MAX);
}

static void release(struct keyask *a)
{
	errands_free(a->errands);
	if (a->multi)
		(void)curl_multi_cleanup(a->multi);
	free(a->valid.slot);
	free(a->invalid.slot);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}

int keyask_start(struct keyask **out, const struct keyask_config *cfg, struct pd_msg *msg)
{
	struct keyask *a = calloc(1, sizeof(*a));
	const struct errands_config ec = {.name = "pdctl-keys",
					  .max = KEYASK_QUESTIONS,
					  .round = round_of_keyask,
					  .wake = wake_keyask,
					  .ctx = a};

	if (!a)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	a->cfg = *cfg;
	sip_key_new(&a->secret);
	(void)pthread_mutex_init(&a->lock, NULL);
	a->multi = curl_multi_init();
	if (!a->multi || memory_init(&a->valid, cfg->cache) ||
	    memory_init(&a->invalid, cfg->cache) || errands_start(&a->errands, &ec)) {
		release(a);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread that validates keys");
	}
	*out = a;
	return PD_OK;
}

void keyask_stop(struct keyask *a)
{
	if (!a)
		return;
	PD_CHECK(atomic_load(&a->waiting) == 0);
	(void)errands_stop(a->errands, CLOCK_NEVER); /* its rounds end by themselves */
	while (a->running) {
		if (a->running->easy)
			(void)curl_multi_remove_handle(a->multi, a->running->easy);
		finish(a, a->running, KEY_UNKNOWN);
	}
	release(a);
}
