/*
 * The loop: send what is due, sleep until the next due time, libcurl's timer or a socket, let
 * libcurl work, collect what ended. A request is handed to libcurl and started in the same step, so
 * the time of sending is the time it was decided.
 */
#include "lib/load/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/load/slot.h"
#include "lib/net/epoll.h"
#include "lib/workload/names.h"
#include "lib/workload/schedule.h"

#define TICK_NS	  (200 * NS_PER_MS)
#define EVENTS	  256
#define SPARE_FDS 64

struct load {
	const struct load_options *o;
	const struct load_item *items;
	struct load_outcome *out;
	struct schedule *schedule;
	struct schedule_input order; /* owned arrays */
	struct slot_common common;
	CURLM *multi;
	int epfd;
	int64_t timer; /* libcurl's deadline, or CLOCK_NEVER */
	int64_t origin;
	int64_t stop_at; /* when to abort what is left after a stop, or CLOCK_NEVER */
	int64_t tick;
	struct slot **slot;
	size_t nslots, slots_cap;
	struct slot *free_slots;
	size_t in_flight_max;
	struct load_progress p;
	struct names texts; /* interned labels and worker names */
	size_t *text_at;    /* index in out->owned of each interned text */
	size_t text_cap;
	int err;
};

/* ---- texts that the records keep ---- */

static const char *own(struct load *l, char *text)
{
	struct load_outcome *out = l->out;
	size_t cap = out->owned_cap ? out->owned_cap * 2 : 64;
	char **p;

	if (text && out->nowned == out->owned_cap) {
		p = realloc(out->owned, cap * sizeof(*p));
		if (!p) {
			free(text);
			text = NULL;
		} else {
			out->owned = p;
			out->owned_cap = cap;
		}
	}
	if (!text) {
		l->err = PD_ENOMEM;
		return NULL;
	}
	out->owned[out->nowned++] = text;
	return text;
}

/* One copy of each distinct text. NULL for an empty one. */
static const char *intern(struct load *l, const char *text)
{
	uint32_t before = l->texts.n, number;
	const char *copy;

	if (!text || !text[0])
		return NULL;
	copy = strdup(text);
	if (!copy || names_number(&l->texts, span_of(copy), &number)) {
		free((void *)(uintptr_t)copy);
		l->err = PD_ENOMEM;
		return NULL;
	}
	if (number < before) {
		free((void *)(uintptr_t)copy);
		return l->out->owned[l->text_at[number]];
	}
	if (number >= l->text_cap) {
		size_t cap = l->text_cap ? l->text_cap * 2 : 64,
		       *p = realloc(l->text_at, cap * sizeof(*p));

		if (!p) {
			/* the table would point to freed text: the run ends here, nothing looks it
			 * up again */
			l->err = PD_ENOMEM;
			return own(l, (char *)(uintptr_t)copy);
		}
		l->text_at = p;
		l->text_cap = cap;
	}
	l->text_at[number] = l->out->nowned;
	return own(l, (char *)(uintptr_t)copy);
}

/* ---- libcurl's sockets and timer ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct load *l = arg;
	struct epoll_event e = {.data.fd = fd};

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		(void)epoll_ctl(l->epfd, EPOLL_CTL_DEL, fd, NULL);
		curl_multi_assign(l->multi, fd, NULL);
		return 0;
	}
	e.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
	if (epoll_ctl(l->epfd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) != 0) {
		/* a descriptor number that was reused before its REMOVE was reported, or the
		 * reverse */
		if (epoll_ctl(l->epfd, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &e) != 0)
			l->err = PD_EIO;
	}
	curl_multi_assign(l->multi, fd, l);
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
	struct load *l = arg;

	(void)multi;
	l->timer = ms < 0 ? CLOCK_NEVER : clock_now() + ms * NS_PER_MS;
	return 0;
}

static void curl_step(struct load *l, curl_socket_t fd, int mask)
{
	int running;

	if (fd == CURL_SOCKET_TIMEOUT)
		l->timer = CLOCK_NEVER;
	if (curl_multi_socket_action(l->multi, fd, mask, &running) != CURLM_OK)
		l->err = PD_EIO;
}

/* ---- slots ---- */

static struct slot *slot_get(struct load *l)
{
	size_t cap = l->slots_cap ? l->slots_cap * 2 : 64;
	struct slot *s = l->free_slots, **p;

	if (s) {
		l->free_slots = s->next_free;
		return s;
	}
	if (l->nslots == l->slots_cap) {
		/* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
		p = realloc(l->slot, cap * sizeof(*p));
		if (!p)
			return NULL;
		l->slot = p;
		l->slots_cap = cap;
	}
	s = slot_new(l->o, &l->common);
	if (s)
		l->slot[l->nslots++] = s;
	return s;
}

static void slot_put(struct load *l, struct slot *s)
{
	s->busy = false;
	s->next_free = l->free_slots;
	l->free_slots = s;
}

/* ---- the end of a request ---- */

static int64_t relative(const struct load *l, int64_t t)
{
	return t < 0 ? -1 : t - l->origin;
}

static const char *failure_label(struct load *l, const struct slot *s, const char *label)
{
	char text[32];

	if (!label || strcmp(label, "http") != 0)
		return label;
	(void)snprintf(text, sizeof(text), "http_%d", s->answer.status);
	return intern(l, text);
}

static int64_t stated_or(int64_t stated, int64_t other)
{
	return stated >= 0 ? stated : other;
}

static void fill_record(struct load *l, struct slot *s, const char *label, int64_t now)
{
	struct result_request *r = &l->out->record[s->item];
	struct answer *a = &s->answer;
	const struct workload_request *q = l->items[s->item].request;

	r->intended_ns = relative(l, s->intended_ns);
	r->eligible_ns = relative(l, s->eligible_ns);
	r->sent_ns = relative(l, s->sent_ns);
	r->first_byte_ns = relative(l, s->first_byte_ns);
	r->first_token_ns = relative(l, a->first_token_ns);
	r->last_token_ns = relative(l, a->last_token_ns);
	r->end_ns = relative(l, now);
	r->input_tokens = stated_or(a->prompt_tokens, q->input_tokens > 0 ? q->input_tokens : 0);
	r->output_tokens = stated_or(a->completion_tokens, a->pieces);
	r->cached_tokens = a->cached_tokens;
	r->first_tokens = a->first_tokens;
	r->gap = answer_take_gaps(a, &r->ngaps);
	r->status = a->status;
	r->failure = failure_label(l, s, label);
	r->worker = intern(l, s->worker[SLOT_WORKER]);
	r->prefill = intern(l, s->worker[SLOT_PREFILL]);
	r->decode = intern(l, s->worker[SLOT_DECODE]);
	if (label)
		r->error = own(l, strdup(a->error));
	if (l->o->keep_text)
		r->text = own(l, buf_detach(&a->text));
}

static void finish(struct load *l, struct slot *s, const char *label, int64_t now)
{
	uint32_t item = s->item;

	fill_record(l, s, label, now);
	(void)curl_multi_remove_handle(l->multi, s->easy);
	slot_put(l, s);
	l->p.in_flight--;
	l->p.done++;
	l->p.failed += label != NULL;
	if (schedule_ended(l->schedule, item, now))
		l->err = PD_ENOMEM;
}

static void collect(struct load *l)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(l->multi, &left)) != NULL) {
		CURLcode code = m->data.result;
		struct slot *s = NULL;
		int64_t now = clock_now();

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
		finish(l, s, slot_finish(s, code, now, l->o->body.endpoint == BODY_EMBEDDINGS),
		       now);
	}
}

/* ---- the start of a request ---- */

static int start(struct load *l, const struct schedule_entry *e)
{
	struct slot *s = slot_get(l);
	int err = s ? slot_prepare(s, l->o, &l->common, &l->items[e->item]) : PD_ENOMEM;

	if (err)
		return err;
	s->item = e->item;
	s->busy = true;
	s->intended_ns = e->released_ns;
	s->eligible_ns = e->eligible_ns;
	s->sent_ns = clock_now();
	/* without a schedule there is no lag */
	if (!l->o->scheduled && s->eligible_ns == l->origin)
		s->eligible_ns = s->sent_ns;
	if (curl_multi_add_handle(l->multi, s->easy) != CURLM_OK) {
		slot_put(l, s);
		return PD_EIO;
	}
	l->p.in_flight++;
	l->p.sent++;
	curl_step(l, CURL_SOCKET_TIMEOUT, 0);
	return PD_OK;
}

static bool stopping(const struct load *l)
{
	return l->o->stop && *l->o->stop;
}

/* At most this many in a row before sockets are served again. */
#define BURST 64

static void start_due(struct load *l)
{
	for (int i = 0; i < BURST && !l->err && !stopping(l); i++) {
		struct schedule_entry e;

		if (schedule_due(l->schedule) > clock_now())
			return;
		e = schedule_take(l->schedule);
		l->err = start(l, &e);
	}
}

/* ---- the loop ---- */

static void abort_in_flight(struct load *l)
{
	int64_t now = clock_now();

	for (size_t i = 0; i < l->nslots; i++) {
		struct slot *s = l->slot[i];

		if (!s->busy)
			continue;
		(void)snprintf(s->answer.error, sizeof(s->answer.error), "stopped while in flight");
		finish(l, s, "interrupted", now);
	}
}

static void wait_for_events(struct load *l)
{
	struct epoll_event ev[EVENTS];
	int64_t now = clock_now(), until = l->tick < l->timer ? l->tick : l->timer;
	int n;

	if (!stopping(l)) {
		int64_t next = schedule_due(l->schedule);

		until = next < until ? next : until;
	}
	n = net_epoll_wait(l->epfd, ev, EVENTS, until > now ? until - now : 0);
	if (n < 0 && errno != EINTR)
		l->err = PD_EIO;
	for (int i = 0; i < n; i++) {
		unsigned e = ev[i].events;

		curl_step(l, ev[i].data.fd,
			  (e & EPOLLIN ? CURL_CSELECT_IN : 0) |
				  (e & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
				  (e & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
	}
	if (l->timer <= clock_now())
		curl_step(l, CURL_SOCKET_TIMEOUT, 0);
}

static void tick(struct load *l)
{
	int64_t now = clock_now();

	if (stopping(l) && l->stop_at == CLOCK_NEVER)
		l->stop_at = now + l->o->grace_ns;
	if (now < l->tick)
		return;
	l->tick = now + TICK_NS;
	l->p.elapsed_ns = now - l->origin;
	if (l->o->progress)
		l->o->progress(l->o->progress_arg, &l->p);
}

static bool finished(const struct load *l)
{
	return l->p.in_flight == 0 && (stopping(l) || schedule_left(l->schedule) == 0);
}

static void loop(struct load *l)
{
	while (!l->err && !finished(l)) {
		start_due(l);
		wait_for_events(l);
		collect(l);
		tick(l);
		if (l->stop_at <= clock_now() || (stopping(l) && *l->o->stop > 1))
			abort_in_flight(l);
	}
}

/* ---- set-up ---- */

static size_t in_flight_limit(const struct load_options *o)
{
	struct rlimit lim;
	size_t most = LOAD_IN_FLIGHT_MAX;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY &&
	    lim.rlim_cur < most + SPARE_FDS)
		most = lim.rlim_cur > 2 * SPARE_FDS ? (size_t)lim.rlim_cur - SPARE_FDS : SPARE_FDS;
	return o->max_concurrency > 0 && (size_t)o->max_concurrency < most
		       ? (size_t)o->max_concurrency
		       : most;
}

static int set_schedule(struct load *l, size_t n, struct pd_msg *msg)
{
	struct schedule_limits limits = {.in_flight_max = l->in_flight_max,
					 .sessions_max = (uint64_t)l->o->concurrent_sessions,
					 .origin_ns = l->origin};
	int64_t *at = calloc(n + 1, sizeof(*at)), *think = calloc(n + 1, sizeof(*think));
	uint32_t *before = calloc(n + 1, sizeof(*before)),
		 *session = calloc(n + 1, sizeof(*session));

	l->order = (struct schedule_input){
		.n = n, .at_ns = at, .think_ns = think, .before = before, .session = session};
	if (!at || !think || !before || !session)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct load_item *item = &l->items[i];

		at[i] = item->at_ns;
		think[i] = item->request->delay_ns;
		before[i] = item->before;
		session[i] = item->session_no;
		if (item->session_no != SCHEDULE_NONE && item->session_no >= l->order.nsessions)
			l->order.nsessions = item->session_no + 1;
	}
	return schedule_new(&l->schedule, &l->order, &limits, msg);
}

static void release_schedule(struct load *l)
{
	schedule_free(l->schedule);
	free((void *)(uintptr_t)l->order.at_ns);
	free((void *)(uintptr_t)l->order.think_ns);
	free((void *)(uintptr_t)l->order.before);
	free((void *)(uintptr_t)l->order.session);
}

static int prepare_records(struct load *l, size_t n)
{
	struct load_outcome *out = l->out;

	out->record = calloc(n + 1, sizeof(*out->record));
	if (!out->record)
		return PD_ENOMEM;
	out->n = n;
	for (size_t i = 0; i < n; i++)
		out->record[i] = (struct result_request){.intended_ns = l->items[i].at_ns,
							 .eligible_ns = l->items[i].at_ns,
							 .sent_ns = -1,
							 .first_byte_ns = -1,
							 .first_token_ns = -1,
							 .last_token_ns = -1,
							 .end_ns = -1,
							 .cached_tokens = -1,
							 .first_tokens = -1,
							 .session = l->items[i].session,
							 .failure = "not_sent"};
	return PD_OK;
}

static int open_engine(struct load *l, struct pd_msg *msg)
{
	char text[128];

	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0)
		return pd_fail(msg, PD_EIO, "cannot create an epoll instance: %s",
			       pd_errno_text(errno, text, sizeof(text)));
	l->multi = curl_multi_init();
	if (!l->multi)
		return PD_ENOMEM;
	curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
	curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
	curl_multi_setopt(l->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)l->in_flight_max);
	return slot_common_init(&l->common, l->o, l->o->path, msg);
}

static void close_engine(struct load *l)
{
	for (size_t i = 0; i < l->nslots; i++) {
		if (l->slot[i]->busy)
			(void)curl_multi_remove_handle(l->multi, l->slot[i]->easy);
		slot_free(l->slot[i]);
	}
	free(l->slot);
	if (l->multi)
		(void)curl_multi_cleanup(l->multi);
	if (l->epfd >= 0)
		(void)close(l->epfd);
	slot_common_release(&l->common);
	release_schedule(l);
	names_release(&l->texts);
	free(l->text_at);
}

int load_run(const struct load_options *o, const struct load_item *items, size_t n,
	     struct load_outcome *out, struct pd_msg *msg)
{
	struct load l = {.o = o,
			 .items = items,
			 .out = out,
			 .epfd = -1,
			 .timer = CLOCK_NEVER,
			 .stop_at = CLOCK_NEVER,
			 .p.total = n};
	int64_t cpu = clock_cpu();
	int err;

	*out = (struct load_outcome){0};
	l.in_flight_max = in_flight_limit(o);
	if (o->max_concurrency > 0 && (size_t)o->max_concurrency > l.in_flight_max)
		return pd_fail(msg, PD_EINVAL,
			       "--max-concurrency: found %lld, expected at most %zu at this "
			       "open-file limit (ulimit -n)",
			       (long long)o->max_concurrency, l.in_flight_max);
	err = open_engine(&l, msg);
	l.origin = clock_now();
	if (!err)
		err = prepare_records(&l, n);
	if (!err)
		err = set_schedule(&l, n, msg);
	if (!err) {
		loop(&l);
		err = l.err;
	}
	out->origin_ns = l.origin;
	out->wall_ns = clock_now() - l.origin;
	out->cpu_ns = clock_cpu() - cpu;
	out->stopped = stopping(&l);
	close_engine(&l);
	if (err && msg && !msg->text[0])
		(void)pd_fail(msg, err, "the load engine stopped: %s", pd_err_text(err));
	if (err)
		load_outcome_release(out);
	return err;
}

void load_outcome_release(struct load_outcome *out)
{
	for (size_t i = 0; i < out->n; i++)
		free((void *)(uintptr_t)out->record[i].gap);
	for (size_t i = 0; i < out->nowned; i++)
		free(out->owned[i]);
	free(out->record);
	free(out->owned);
	*out = (struct load_outcome){0};
}

static size_t on_get_body(char *p, size_t size, size_t n, void *arg)
{
	return buf_append(arg, p, size * n) ? 0 : size * n;
}

int load_get(const struct load_options *o, const char *path, int *status, struct buf *body,
	     struct pd_msg *msg)
{
	struct slot_common common;
	struct slot *s;
	CURLcode code;
	long http = 0;
	int err = slot_common_init(&common, o, path, msg);

	if (err)
		return err;
	s = slot_new(o, &common);
	if (!s) {
		slot_common_release(&common);
		return PD_ENOMEM;
	}
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, common.headers);
	curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, 30000L);
	curl_easy_setopt(s->easy, CURLOPT_HEADERFUNCTION, NULL);
	curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, NULL);
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_get_body);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, body);
	code = curl_easy_perform(s->easy);
	if (code != CURLE_OK)
		err = pd_fail(msg, PD_EIO, "cannot get '%s': %s", common.url,
			      s->why[0] ? s->why : curl_easy_strerror(code));
	(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &http);
	*status = (int)http;
	slot_free(s);
	slot_common_release(&common);
	return err;
}
