/*
 * One thread: list, publish, watch, and again.
 *
 *	round -> list -> page, page ... -> publish
 *	      -> watch -> event, event ... -> publish when there is a pause
 *	            ended by the server: watch on from `version`
 *	            410, an event that cannot be read, RELIST_NS: list
 *	            else: back off, watch on
 *
 * The table holds the pods that take requests, in the order of their keys. A list builds a second
 * one and replaces it, so deletions that no watch has seen are seen too.
 */
#include "lib/discovery/kube_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/discovery/kube_client.h"
#include "lib/net/shelf.h"

#define PAGE_PODS   250
#define PAGES_MAX   4096	    /* of one list */
#define WATCH_S	    300		    /* the server ends a watch after this, and up to as much more */
#define QUIET_NS    (90 * NS_PER_S) /* a bookmark comes each minute */
#define RELIST_NS   (600 * NS_PER_S)
#define BACKOFF_MIN (200 * NS_PER_MS)
#define BACKOFF_MAX (30 * NS_PER_S)
#define BRIEF_NS    NS_PER_S /* a watch that ends sooner without an event is a failure */

struct entry {
	char *key, *uid; /* owned */
	struct discovery_worker w;
};

struct table {
	struct entry *entry; /* owned, sorted by key */
	size_t n, cap;
};

struct kube_source {
	struct discovery_sink sink;
	struct kube_source_config cfg;
	struct source_thread thread;
	struct kube_client *client;
	struct rng rng;
	struct table table, fresh; /* fresh: of a list under way */
	struct discovery_list published;
	bool changed; /* the table, since it was published */
	bool relist;  /* the next round begins with a list */
	bool limited; /* lists come in pages */
	bool said_full;
	unsigned failures;     /* since a watch was of use */
	char said[PD_MSG_MAX]; /* the failure that the log has; "": it works */
	bool said_of_watch;    /* which a list that succeeds does not refute */
	char version[KUBE_VERSION_MAX + 1];
	uint64_t events;		       /* of this watch, those that could be read */
	int64_t listed;			       /* 0: not yet */
	struct buf body, path, more, selector; /* selector: escaped */
};

/* -- the table -- */

static void entry_release(struct entry *e)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a table with n > 0 has entries */
	free(e->key);
	free(e->uid);
	route_labels_release(&e->w.labels);
}

static void table_release(struct table *t)
{
	for (size_t i = 0; t->entry && i < t->n; i++)
		entry_release(&t->entry[i]);
	free(t->entry);
	*t = (struct table){0};
}

/* Where the key is, or belongs. */
static size_t place(const struct table *t, const char *key, bool *there)
{
	size_t lo = 0, hi = t->entry ? t->n : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(t->entry[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*there = t->entry && lo < t->n && strcmp(t->entry[lo].key, key) == 0;
	return lo;
}

static const char *role_of(const struct discovery_worker *w)
{
	return w->role == DISCOVERY_PREFILL  ? "prefill"
	       : w->role == DISCOVERY_DECODE ? "decode"
					     : "regular";
}

static void say_joined(struct kube_source *s, const struct entry *e)
{
	log_event(s->sink.log, LOG_INFO, "pod_joined",
		  LOG_FIELDS(LOG_TEXT("pod", e->key), LOG_TEXT("role", role_of(&e->w)),
			     LOG_TEXT("worker", e->w.url)),
		  "pod %s is ready: %s worker %s", e->key, role_of(&e->w), e->w.url);
}

static void say_left(struct kube_source *s, const struct entry *e, const char *why)
{
	log_event(s->sink.log, LOG_INFO, "pod_left",
		  LOG_FIELDS(LOG_TEXT("pod", e->key), LOG_TEXT("worker", e->w.url),
			     LOG_TEXT("reason", why)),
		  "pod %s %s: worker %s gets no new requests", e->key, why, e->w.url);
}

static void take_out(struct table *t, size_t at)
{
	entry_release(&t->entry[at]);
	t->n--;
	memmove(&t->entry[at], &t->entry[at + 1], (t->n - at) * sizeof(*t->entry));
}

static int make_room(struct table *t)
{
	size_t cap = t->cap ? 2 * t->cap : 32;
	struct entry *more;

	if (t->n < t->cap)
		return t->entry ? PD_OK : PD_ENOMEM;
	more = realloc(t->entry, cap * sizeof(*more));
	if (!more)
		return PD_ENOMEM;
	t->entry = more;
	t->cap = cap;
	return PD_OK;
}

/* Puts the pod in, whose labels it takes over. PD_ETOOBIG: no more workers fit. */
static int put(struct table *t, struct kube_pod *p)
{
	struct entry fresh = {.key = strdup(p->key), .uid = strdup(p->uid), .w = p->w};
	bool there;
	size_t at = place(t, p->key, &there);
	int err = PD_OK;

	if (!fresh.key || !fresh.uid)
		err = PD_ENOMEM;
	else if (!there)
		err = t->n == DISCOVERY_WORKERS_MAX ? PD_ETOOBIG : make_room(t);
	if (err) {
		free(fresh.key);
		free(fresh.uid);
		return err;
	}
	p->w.labels = (struct route_labels){0};
	if (there) {
		entry_release(&t->entry[at]);
	} else {
		memmove(&t->entry[at + 1], &t->entry[at], (t->n - at) * sizeof(*t->entry));
		t->n++;
	}
	t->entry[at] = fresh;
	return PD_OK;
}

static int put_or_say(struct kube_source *s, struct table *t, struct kube_pod *p)
{
	int err = put(t, p);

	if (err == PD_ETOOBIG && !s->said_full)
		log_event(s->sink.log, LOG_WARN, "pods_full",
			  LOG_FIELDS(LOG_NUMBER("workers", t->n), LOG_TEXT("pod", p->key)),
			  "pod %s and further ones are ignored: found more than %d pods that "
			  "match",
			  p->key, DISCOVERY_WORKERS_MAX);
	s->said_full |= err == PD_ETOOBIG;
	return err == PD_ETOOBIG ? PD_OK : err;
}

static void say_port(struct kube_source *s, const struct kube_pod *p)
{
	if (p->bad_port)
		log_event(s->sink.log, LOG_WARN, "pod_annotation",
			  LOG_FIELDS(LOG_TEXT("pod", p->key)),
			  "pod %s: the annotation " KUBE_BOOTSTRAP
			  " is no port from 1 to 65535: it is ignored",
			  p->key);
}

/* -- publishing -- */

static int list_of(const struct table *t, struct discovery_list *out)
{
	for (int role = DISCOVERY_REGULAR; role <= DISCOVERY_DECODE; role++) {
		for (size_t i = 0; i < t->n; i++) {
			const struct discovery_worker *from = &t->entry[i].w;
			struct discovery_worker *w;

			if ((int)from->role != role)
				continue;
			w = discovery_add(out);
			if (!w)
				return PD_ENOMEM;
			*w = *from;
			if (route_labels_copy(&w->labels, &from->labels))
				return PD_ENOMEM;
		}
	}
	return PD_OK;
}

static void publish(struct kube_source *s)
{
	struct discovery_list now = {0};

	if (!s->changed)
		return;
	if (list_of(&s->table, &now)) {
		discovery_release(&now);
		return; /* out of memory: tried again with the next event */
	}
	s->changed = false;
	discovery_publish(&s->sink, &s->published, &now);
}

/* -- failures -- */

/* Says it once, counts it, and rests. */
static void failed(struct kube_source *s, const struct kube_answer *a, const char *why,
		   bool of_watch)
{
	int64_t wait = BACKOFF_MIN << (s->failures < 8 ? s->failures : 8);

	discovery_note(&s->sink, false);
	s->failures++;
	wait = wait < BACKOFF_MAX ? wait : BACKOFF_MAX;
	wait = (int64_t)((double)wait * (0.5 + rng_unit(&s->rng) / 2));
	if (a->wait_s * NS_PER_S > wait)
		wait = a->wait_s * NS_PER_S;
	if (strcmp(s->said, why) != 0)
		log_event(s->sink.log, LOG_WARN, "kubernetes_failed",
			  LOG_FIELDS(LOG_TEXT("server", kube_client_server(s->client)),
				     LOG_TEXT("error", why), LOG_NUMBER("workers", s->table.n)),
			  "kubernetes: %s: the last list of workers stays", why);
	(void)snprintf(s->said, sizeof(s->said), "%s", why);
	s->said_of_watch = of_watch;
	(void)source_thread_rest(&s->thread, clock_now() + wait);
}

/* The server answered as it should. */
static void works(struct kube_source *s, bool watch)
{
	discovery_note(&s->sink, true);
	if (watch)
		s->failures = 0;
	else if (s->said_of_watch)
		return;
	if (s->said[0])
		log_event(s->sink.log, LOG_INFO, "kubernetes_answers",
			  LOG_FIELDS(LOG_TEXT("server", kube_client_server(s->client))),
			  "kubernetes: %s answers again", kube_client_server(s->client));
	s->said[0] = '\0';
	s->said_of_watch = false;
}

/* -- a list -- */

static int base_path(struct kube_source *s)
{
	int err;

	buf_clear(&s->path);
	err = buf_puts(&s->path, "/api/v1/");
	if (!err && s->cfg.space) {
		err = buf_puts(&s->path, "namespaces/");
		err = err ? err : kube_escape(&s->path, s->cfg.space);
		err = err ? err : buf_putc(&s->path, '/');
	}
	err = err ? err : buf_puts(&s->path, "pods?");
	if (!err && s->selector.len)
		err = buf_printf(&s->path, "labelSelector=%s&", s->selector.data);
	return err;
}

static int each_pod(void *ctx, struct kube_pod *p)
{
	struct kube_source *s = ctx;

	if (p->why != KUBE_TAKES)
		return PD_OK;
	say_port(s, p);
	return put_or_say(s, &s->fresh, p);
}

static int get_page(struct kube_source *s, struct kube_answer *a, struct pd_msg *msg)
{
	struct kube_page page = {.more = &s->more, .each = each_pod, .ctx = s};
	struct pd_msg inner = {0};
	int err = base_path(s);

	if (!err && s->limited)
		err = buf_printf(&s->path, "limit=%d", PAGE_PODS);
	if (!err && s->more.len) {
		err = buf_puts(&s->path, "&continue=");
		err = err ? err : kube_escape(&s->path, s->more.data);
	}
	if (err)
		return pd_fail(msg, err, "out of memory");
	err = kube_client_get(s->client, s->path.data, &s->body, a, msg);
	if (err)
		return err;
	err = kube_page_read(&page, buf_span(&s->body), &s->cfg.wanted, &inner);
	memcpy(s->version, page.version, sizeof(s->version));
	return err ? pd_fail(msg, err, "the list of pods of %s: %.400s",
			     kube_client_server(s->client), inner.text)
		   : PD_OK;
}

/* Says who came and who left; what was listed is the table now. */
static void use_list(struct kube_source *s)
{
	struct table old = s->table;
	bool there;

	s->table = s->fresh;
	s->fresh = (struct table){0};
	for (size_t i = 0; i < old.n; i++) {
		(void)place(&s->table, old.entry[i].key, &there);
		if (!there)
			say_left(s, &old.entry[i], "is not listed any more");
	}
	for (size_t i = 0; i < s->table.n; i++) {
		const struct entry *e = &s->table.entry[i];
		size_t at = place(&old, e->key, &there);

		if (!there || !old.entry || strcmp(old.entry[at].w.url, e->w.url) != 0)
			say_joined(s, e);
	}
	table_release(&old);
	s->changed = true;
}

/* PD_EAGAIN: it failed, which was said; after the rest that follows it is tried again. */
static int list(struct kube_source *s)
{
	struct kube_answer a = {0};
	struct pd_msg why = {0};
	int err = PD_OK;

	table_release(&s->fresh);
	buf_clear(&s->more);
	s->said_full = false;
	for (unsigned pages = 0; !err && (pages == 0 || s->more.len); pages++)
		err = pages < PAGES_MAX ? get_page(s, &a, &why)
					: pd_fail(&why, PD_ETOOBIG,
						  "the list of pods: found more "
						  "than %d pages",
						  PAGES_MAX);
	buf_release(&s->body);
	if (err) {
		table_release(&s->fresh);
		if (err != PD_ECANCELED)
			failed(s, &a, why.text, false);
		/* The pages took longer than the server keeps a version: all at once, then. */
		s->limited = a.status != 410;
		return PD_EAGAIN;
	}
	s->limited = true;
	s->relist = false;
	works(s, false);
	log_event(s->sink.log, s->listed ? LOG_DEBUG : LOG_INFO, "kubernetes_listed",
		  LOG_FIELDS(LOG_TEXT("server", kube_client_server(s->client)),
			     LOG_TEXT("namespace", s->cfg.space ? s->cfg.space : ""),
			     LOG_NUMBER("workers", s->fresh.n)),
		  "kubernetes: %s has %zu pods that match and are ready",
		  kube_client_server(s->client), s->fresh.n);
	s->listed = clock_now();
	use_list(s);
	publish(s);
	return PD_OK;
}

/* -- a watch -- */

static int apply(struct kube_source *s, struct kube_pod *p)
{
	bool there, takes = p->why == KUBE_TAKES, moved;
	size_t at = place(&s->table, p->key, &there);
	const struct entry *was = there ? &s->table.entry[at] : NULL;
	int err;

	moved = was && takes &&
		(strcmp(was->uid, p->uid) != 0 || strcmp(was->w.url, p->w.url) != 0);
	if (was && !takes)
		say_left(s, was, kube_why_text(p->why));
	if (moved)
		say_left(s, was, "was replaced");
	s->changed |= was || takes;
	if (!takes && was)
		take_out(&s->table, at);
	if (!takes)
		return PD_OK;
	err = put_or_say(s, &s->table, p);
	at = place(&s->table, p->key, &there);
	if (!err && there && (!was || moved)) {
		say_joined(s, &s->table.entry[at]);
		say_port(s, p);
	}
	return err;
}

struct watching {
	struct kube_source *s;
	struct pd_msg why;
	int status; /* of an ERROR event */
};

static int on_line(void *ctx, struct span line)
{
	struct watching *w = ctx;
	struct kube_source *s = w->s;
	struct kube_event e;
	struct pd_msg inner = {0};
	int err;

	if (source_thread_stopped(&s->thread))
		return PD_ECANCELED;
	err = kube_event_read(&e, line, &s->cfg.wanted, &inner);
	if (err)
		return pd_fail(&w->why, PD_EINVAL, "the watch of pods of %s: event %llu: %.380s",
			       kube_client_server(s->client), (unsigned long long)s->events + 1,
			       inner.text);
	if (e.kind == KUBE_ERROR) {
		w->status = e.status ? e.status : 500;
		return pd_fail(&w->why, PD_EINVAL, "the watch of pods of %s: found status %d: %s",
			       kube_client_server(s->client), e.status, e.reason);
	}
	memcpy(s->version, e.version, sizeof(s->version));
	s->events++;
	works(s, true);
	err = e.kind == KUBE_BOOKMARK ? PD_OK : apply(s, &e.pod);
	kube_event_release(&e);
	return err ? pd_fail(&w->why, PD_ENOMEM, "the watch of pods: out of memory") : PD_OK;
}

static void on_idle(void *ctx)
{
	struct watching *w = ctx;

	publish(w->s);
}

static int watch_path(struct kube_source *s)
{
	int err = base_path(s);

	err = err ? err
		  : buf_printf(
			    &s->path,
			    "watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=",
			    (unsigned)(WATCH_S + rng_below(&s->rng, WATCH_S)));
	return err ? err : kube_escape(&s->path, s->version);
}

/* Until it ends, for whatever reason. */
static void watch(struct kube_source *s)
{
	struct watching w = {.s = s};
	const struct kube_lines to = {on_line, on_idle, &w};
	struct kube_answer a = {0};
	struct pd_msg why = {0};
	int64_t begun = clock_now();
	int err = watch_path(s);
	bool gone;

	s->events = 0;
	if (!err)
		err = kube_client_watch(s->client, s->path.data, &to, QUIET_NS, &a, &why);
	if (source_thread_stopped(&s->thread))
		return;
	if (s->events > 0 || clock_now() - begun > BRIEF_NS)
		s->failures = 0;
	gone = w.status == 410 || a.status == 410;
	/* After 410, and where an event may have been lost. */
	s->relist = gone || s->failures > 3 ||
		    (w.status == 0 && (err == PD_EINVAL || err == PD_ETOOBIG || err == PD_ENOMEM));
	/* The server's limit, a quiet connection; a version that grew too old without an event is
	 * nothing wrong either, unless it happens at once again. */
	if (s->failures == 0 && (gone || !err || (err == PD_ETIMEOUT && a.status == 200))) {
		if (!gone && (s->events > 0 || clock_now() - begun > BRIEF_NS))
			works(s, true);
		else
			s->failures = 1;
		return;
	}
	if (!err)
		(void)pd_fail(&why, PD_EIO, "the watch of pods of %s: ended at once",
			      kube_client_server(s->client));
	failed(s, &a, w.why.text[0] ? w.why.text : why.text, true);
}

static void run(void *arg)
{
	struct kube_source *s = arg;

	while (!source_thread_stopped(&s->thread)) {
		if ((s->relist || clock_now() - s->listed > RELIST_NS) && list(s))
			continue;
		watch(s);
	}
	shelf_clear();
}

static void release(struct kube_source *s)
{
	kube_client_free(s->client);
	table_release(&s->table);
	table_release(&s->fresh);
	discovery_release(&s->published);
	buf_release(&s->body);
	buf_release(&s->path);
	buf_release(&s->more);
	buf_release(&s->selector);
	free(s);
}

static int prepare(struct kube_source *s, struct pd_msg *msg)
{
	struct buf plain;
	uint64_t seed;
	int err;

	rng_system_bytes((unsigned char *)&seed, sizeof(seed));
	rng_seed(&s->rng, seed);
	buf_init(&s->body, KUBE_BODY_MAX);
	buf_init(&s->path, 65536);
	buf_init(&s->more, 16384);
	buf_init(&s->selector, 32768);
	buf_init(&plain, 32768);
	err = kube_wanted_selector(&s->cfg.wanted, &plain);
	if (!err && plain.len)
		err = kube_escape(&s->selector, plain.data);
	buf_release(&plain);
	return err ? pd_fail(msg, err, "the selectors are too long")
		   : kube_client_new(&s->client, s->cfg.access, &s->thread, msg);
}

int kube_source_start(struct kube_source **out, const struct kube_source_config *c,
		      const struct discovery_sink *sink, struct pd_msg *msg)
{
	struct kube_source *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->sink = *sink;
	s->cfg = *c;
	s->relist = s->limited = true;
	err = prepare(s, msg);
	if (!err && source_thread_start(&s->thread, "pdctl-pods", run, s))
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread that watches pods");
	if (err) {
		release(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

static void interrupt(void *arg)
{
	struct kube_source *s = arg;

	kube_client_cut(s->client);
}

void kube_source_stop(struct kube_source *s)
{
	if (!s)
		return;
	source_thread_stop(&s->thread, interrupt, s);
	release(s);
}
