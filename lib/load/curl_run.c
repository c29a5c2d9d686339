/*
 * libcurl's socket interface over one epoll set: cost per event does not grow with the number of
 * streams. The loop: send what is due, collect what ended, sleep until the next due time, libcurl's
 * timer or a socket. A server may answer while a request is being sent; so what ended is collected
 * before each sleep, or it would be noticed only at the next event.
 */
#include "lib/load/curl_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/load/curl_slot.h"
#include "lib/net/epoll.h"

#define TICK_NS (50 * NS_PER_MS)
#define SHOW_NS (200 * NS_PER_MS)
#define EVENTS	256
#define BURST	64 /* requests sent in a row before sockets are served again */

struct curl_run {
	struct load_core *core;
	struct slot_common common;
	CURLM *multi;
	int epfd;
	int64_t timer; /* libcurl's deadline, or CLOCK_NEVER */
	int64_t tick, shown, woke;
	struct slot **slot;
	size_t nslots, slots_cap;
	struct slot *free_slots;
};

/* ---- libcurl's sockets and timer ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct curl_run *l = arg;
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
			l->core->err = PD_EIO;
	}
	curl_multi_assign(l->multi, fd, l);
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
	struct curl_run *l = arg;

	(void)multi;
	l->timer = ms < 0 ? CLOCK_NEVER : clock_now() + ms * NS_PER_MS;
	return 0;
}

static void curl_step(struct curl_run *l, curl_socket_t fd, int mask)
{
	int running;

	if (fd == CURL_SOCKET_TIMEOUT)
		l->timer = CLOCK_NEVER;
	if (curl_multi_socket_action(l->multi, fd, mask, &running) != CURLM_OK)
		l->core->err = PD_EIO;
}

/* ---- slots ---- */

static struct slot *slot_get(struct curl_run *l)
{
	size_t cap = l->slots_cap ? l->slots_cap * 2 : 64;
	struct slot *s = l->free_slots, **p;

	if (s) {
		l->free_slots = s->next_free;
		return s;
	}
	if (l->nslots == l->slots_cap) {
		p = realloc(l->slot, cap * sizeof(struct slot *));
		if (!p)
			return NULL;
		l->slot = p;
		l->slots_cap = cap;
	}
	s = slot_new(l->core->o, &l->common, l->core);
	if (s)
		l->slot[l->nslots++] = s;
	return s;
}

static void finish(struct curl_run *l, struct slot *s, const char *label)
{
	(void)curl_multi_remove_handle(l->multi, s->easy);
	load_core_finish(l->core, &s->flight, label);
	s->busy = false;
	s->next_free = l->free_slots;
	l->free_slots = s;
}

static void collect(struct curl_run *l)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(l->multi, &left)) != NULL) {
		CURLcode code = m->data.result;
		struct slot *s = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
		finish(l, s, slot_finish(s, code));
		if (s->flight.first_byte_ns >= 0)
			pulse_event(&l->core->out->pulse, l->woke, s->flight.end_ns);
	}
}

static int start(struct curl_run *l)
{
	struct slot *s = slot_get(l);
	int err = s ? load_core_take(l->core, &s->flight) : PD_ENOMEM;

	err = err ? err : slot_prepare(s, &l->common);
	if (err)
		return err;
	s->busy = true;
	load_core_sent(l->core, &s->flight, clock_now());
	if (curl_multi_add_handle(l->multi, s->easy) != CURLM_OK)
		return PD_EIO;
	curl_step(l, CURL_SOCKET_TIMEOUT, 0);
	return PD_OK;
}

/* ---- the loop ---- */

static void abort_in_flight(struct curl_run *l)
{
	for (size_t i = 0; i < l->nslots; i++) {
		struct slot *s = l->slot[i];

		if (!s->busy)
			continue;
		answer_fail(&s->flight.answer, "interrupted", "stopped while in flight");
		s->flight.end_ns = clock_now();
		finish(l, s, s->flight.answer.failure);
	}
}

static void wait_for_events(struct curl_run *l)
{
	struct epoll_event ev[EVENTS];
	int64_t until = l->tick < l->timer ? l->tick : l->timer, due = load_core_due(l->core), now;
	int n;

	until = due < until ? due : until;
	now = clock_now();
	n = net_epoll_wait(l->epfd, ev, EVENTS, until > now ? until - now : 0);
	l->woke = clock_now();
	if (n < 0 && errno != EINTR)
		l->core->err = PD_EIO;
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

static void tick(struct curl_run *l)
{
	const struct load_options *o = l->core->o;
	struct load_progress p;
	int64_t now = clock_now();

	if (now < l->tick)
		return;
	l->tick = now + TICK_NS;
	pulse_tick(&l->core->out->pulse, now);
	if (!o->progress || now - l->shown < SHOW_NS)
		return;
	l->shown = now;
	p = load_core_look(l->core, now);
	if (o->progress(o->progress_arg, &p))
		l->core->enough = true;
}

static void loop(struct curl_run *l)
{
	struct load_core *c = l->core;

	while (!load_core_over(c)) {
		for (int i = 0; i < BURST && !c->err && load_core_due(c) <= clock_now(); i++)
			c->err = start(l);
		collect(l);
		if (load_core_over(c))
			break;
		if (load_core_due(c) > clock_now())
			wait_for_events(l);
		else
			curl_step(l, CURL_SOCKET_TIMEOUT, 0);
		collect(l);
		tick(l);
		if (load_core_abort(c, clock_now()))
			abort_in_flight(l);
	}
}

static int open_engine(struct curl_run *l, struct pd_msg *msg)
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
	curl_multi_setopt(l->multi, CURLMOPT_PIPELINING,
			  (long)(l->core->o->http2 ? CURLPIPE_MULTIPLEX : CURLPIPE_NOTHING));
	curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)l->core->in_flight_max);
	return slot_common_init(&l->common, l->core->o, l->core->o->path, msg);
}

int curl_run(struct load_core *c, struct pd_msg *msg)
{
	struct curl_run l = {.core = c, .epfd = -1, .timer = CLOCK_NEVER};
	int err = open_engine(&l, msg);

	err = err ? err : load_core_begin(c, msg);
	if (!err) {
		pulse_open(&c->out->pulse);
		loop(&l);
		pulse_close(&c->out->pulse);
		err = c->err;
	}
	for (size_t i = 0; i < l.nslots; i++) {
		if (l.slot[i]->busy)
			(void)curl_multi_remove_handle(l.multi, l.slot[i]->easy);
		slot_free(l.slot[i]);
	}
	free(l.slot);
	if (l.multi)
		(void)curl_multi_cleanup(l.multi);
	if (l.epfd >= 0)
		(void)close(l.epfd);
	slot_common_release(&l.common);
	return err;
}
