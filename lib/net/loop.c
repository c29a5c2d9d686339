/*
 * DESIGN
 *
 * A round of a loop, on its one thread:
 *
 *	wait for events --> tell the watchers --> posted tasks --> timers --> run the ready fibers
 *	     ^ (epoll)       marks fibers ready     loop_post       tick         each one once    |
 *	     +------------------------------------------------------------------------------------+
 *
 * Descriptors are watched edge-triggered from birth to close: a request costs no epoll_ctl. A wait
 * for a peer has a coarse deadline, found by a look at all fibers every 50 ms, so that a request
 * sets no timer; exact sleeps stand in a heap. The tick is a timerfd, an event like the others.
 *
 * Guaranteed: a fiber is left only in loop_wait and at its end, so what it does between two waits
 * no other fiber of its loop sees half done. Events only mark: no fiber runs, and nothing is freed,
 * between the wait and the end of the telling, so an event never meets a watcher that is gone. A
 * fiber that becomes ready while fibers run is run in the next round, after new events: no fiber
 * starves the others. Tasks run in the order of loop_post, each exactly once, also when the loop
 * stops. Only loop_post, loop_stats and loop_stop may be called from other threads.
 * Not guaranteed: an order among fibers that become ready in one round; that a coarse deadline is
 * met to better than 50 ms; any progress while a fiber computes or waits for anything but
 * loop_wait.
 */
#include "lib/net/loop.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/process.h"
#include "lib/net/epoll.h"
#include "lib/net/fiber.h"
#include "lib/net/shelf.h"

#define EVENTS_MAX  256
#define TICK_NS	    (50 * NS_PER_MS)
#define TICK_JITTER (5 * NS_PER_MS)
#define KEEP_IDLE   64 /* fibers kept for the next request */
#define NOT_IN_HEAP SIZE_MAX

struct fiber {
	struct fiber_stack stack;
	struct loop *loop;
	struct fiber *next; /* in the ready queue or among the idle ones */
	void (*fn)(void *);
	void *arg;
	void *local;
	void (*local_release)(void *);
	int64_t deadline; /* while it waits */
	size_t heap_at;
	size_t index; /* in loop->all */
	bool waiting, timed_out;
};

struct loop {
	struct loop_config cfg;
	int epoll_fd, event_fd, tick_fd;
	struct loop_watch tick_watch;
	unsigned index;
	pthread_t thread;
	struct fiber_stack home;
	struct fiber *running;
	struct fiber *ready, **ready_last;
	struct fiber *idle; /* last in, first out: its stack is warm */
	struct fiber **all; /* every fiber */
	size_t nall, all_cap;
	struct fiber **heap; /* sleepers, earliest first */
	size_t nheap, heap_cap;
	int64_t now, last_tick;
	pthread_mutex_t lock; /* posted, ended */
	struct loop_task *posted, **posted_last;
	bool ended; /* the thread takes no more posted work */
	_Atomic bool stopping;
	_Atomic unsigned fibers, idle_fibers;
	_Atomic uint64_t failures;
};

static _Thread_local struct loop *self;
static pthread_mutex_t index_lock = PTHREAD_MUTEX_INITIALIZER;
static bool index_used[LOOPS_MAX];

/* -- ready fibers -- */

static void make_ready(struct fiber *f)
{
	struct loop *l = f->loop;

	f->next = NULL;
	*l->ready_last = f;
	l->ready_last = &f->next;
}

static void enter(struct loop *l, struct fiber *f)
{
	PD_CHECK(!l->running && !f->waiting);
	l->running = f;
	fiber_switch(&l->home, &f->stack);
	l->running = NULL;
}

static void leave(struct fiber *f)
{
	fiber_switch(&f->stack, &f->loop->home);
}

static void fiber_main(void *arg)
{
	struct fiber *f = arg;
	struct loop *l = f->loop;

	for (;;) {
		f->fn(f->arg);
		f->fn = NULL;
		f->next = l->idle;
		l->idle = f;
		atomic_fetch_add_explicit(&l->idle_fibers, 1, memory_order_relaxed);
		leave(f);
	}
}

static void fiber_free(struct fiber *f)
{
	struct loop *l = f->loop;

	if (f->local_release)
		f->local_release(f->local);
	fiber_stack_release(&f->stack);
	l->all[f->index] = l->all[--l->nall];
	l->all[f->index]->index = f->index;
	atomic_fetch_sub_explicit(&l->fibers, 1, memory_order_relaxed);
	free(f);
}

static struct fiber *fiber_new(struct loop *l)
{
	size_t cap = l->all_cap ? l->all_cap * 2 : 16;
	struct fiber **all, *f;

	if (l->nall >= l->cfg.max_fibers)
		return NULL;
	if (l->nall == l->all_cap) {
		all = realloc(l->all, cap * sizeof(struct fiber *));
		if (!all)
			return NULL;
		l->all = all;
		l->all_cap = cap;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->loop = l;
	f->heap_at = NOT_IN_HEAP;
	if (fiber_stack_init(&f->stack, l->cfg.stack_bytes, fiber_main, f)) {
		free(f);
		return NULL;
	}
	f->index = l->nall;
	l->all[l->nall++] = f;
	atomic_fetch_add_explicit(&l->fibers, 1, memory_order_relaxed);
	return f;
}

int loop_spawn(struct loop *l, void (*fn)(void *), void *arg)
{
	struct fiber *f = l->idle;

	PD_CHECK(self == l);
	if (f) {
		l->idle = f->next;
		atomic_fetch_sub_explicit(&l->idle_fibers, 1, memory_order_relaxed);
	} else {
		f = fiber_new(l);
	}
	if (!f) {
		atomic_fetch_add_explicit(&l->failures, 1, memory_order_relaxed);
		return l->nall >= l->cfg.max_fibers ? PD_EBUSY : PD_ENOMEM;
	}
	f->fn = fn;
	f->arg = arg;
	make_ready(f);
	return PD_OK;
}

/* -- the heap of sleepers -- */

static void heap_put(struct loop *l, size_t i, struct fiber *f)
{
	l->heap[i] = f;
	f->heap_at = i;
}

static void sift_up(struct loop *l, size_t i)
{
	struct fiber *f = l->heap[i];

	for (; i > 0 && l->heap[(i - 1) / 2]->deadline > f->deadline; i = (i - 1) / 2)
		heap_put(l, i, l->heap[(i - 1) / 2]);
	heap_put(l, i, f);
}

static void sift_down(struct loop *l, size_t i)
{
	struct fiber *f = l->heap[i];
	size_t child;

	for (; (child = 2 * i + 1) < l->nheap; i = child) {
		if (child + 1 < l->nheap && l->heap[child + 1]->deadline < l->heap[child]->deadline)
			child++;
		if (l->heap[child]->deadline >= f->deadline)
			break;
		heap_put(l, i, l->heap[child]);
	}
	heap_put(l, i, f);
}

/* Without memory the sleep becomes a coarse one. */
static void heap_add(struct loop *l, struct fiber *f)
{
	size_t cap = l->heap_cap ? l->heap_cap * 2 : 16;

	if (l->nheap == l->heap_cap) {
		struct fiber **heap = realloc(l->heap, cap * sizeof(struct fiber *));

		if (!heap)
			return;
		l->heap = heap;
		l->heap_cap = cap;
	}
	heap_put(l, l->nheap++, f);
	sift_up(l, f->heap_at);
}

static void heap_remove(struct loop *l, struct fiber *f)
{
	size_t i = f->heap_at;

	f->heap_at = NOT_IN_HEAP;
	if (i == --l->nheap)
		return;
	heap_put(l, i, l->heap[l->nheap]);
	sift_up(l, i);
	sift_down(l, l->heap[i]->heap_at);
}

/* -- waiting -- */

bool loop_wait(int64_t deadline, bool exact)
{
	struct loop *l = self;
	struct fiber *f = loop_fiber();

	PD_CHECK(f && !f->waiting);
	f->deadline = deadline;
	f->timed_out = false;
	f->waiting = true;
	if (exact && deadline < CLOCK_NEVER)
		heap_add(l, f);
	leave(f);
	return !f->timed_out;
}

static void end_wait(struct fiber *f)
{
	f->waiting = false;
	if (f->heap_at != NOT_IN_HEAP)
		heap_remove(f->loop, f);
	make_ready(f);
}

void loop_wake(struct fiber *f)
{
	PD_CHECK(self == f->loop);
	if (f->waiting)
		end_wait(f);
}

static void expire(struct fiber *f)
{
	f->timed_out = true;
	end_wait(f);
}

/* After a crowd its stacks go back to the system, not all in one moment. */
static void release_idle(struct loop *l)
{
	unsigned n = atomic_load_explicit(&l->idle_fibers, memory_order_relaxed),
		 excess = n > KEEP_IDLE ? (n - KEEP_IDLE + 15) / 16 : 0;

	for (unsigned i = 0; i < excess; i++) {
		struct fiber *f = l->idle;

		l->idle = f->next;
		atomic_fetch_sub_explicit(&l->idle_fibers, 1, memory_order_relaxed);
		fiber_free(f);
	}
}

static void run_timers(struct loop *l)
{
	while (l->nheap > 0 && l->heap[0]->deadline <= l->now)
		expire(l->heap[0]);
	if (l->now - l->last_tick < TICK_NS - TICK_JITTER)
		return;
	l->last_tick = l->now;
	for (size_t i = 0; i < l->nall; i++)
		if (l->all[i]->waiting && l->all[i]->deadline <= l->now)
			expire(l->all[i]);
	if (l->cfg.tick)
		l->cfg.tick(l->cfg.ctx, l->now);
	release_idle(l);
}

/* -- posted work -- */

void loop_post(struct loop *l, struct loop_task *t)
{
	uint64_t one = 1;
	bool first, ended;

	(void)pthread_mutex_lock(&l->lock);
	ended = l->ended;
	first = !l->posted;
	if (!ended) {
		t->next = NULL;
		*l->posted_last = t;
		l->posted_last = &t->next;
	}
	(void)pthread_mutex_unlock(&l->lock);
	if (ended)
		t->run(t);
	else if (first && write(l->event_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is readable already */
}

static void run_posted(struct loop *l, bool last)
{
	struct loop_task *t, *next;

	(void)pthread_mutex_lock(&l->lock);
	t = l->posted;
	l->posted = NULL;
	l->posted_last = &l->posted;
	l->ended = last;
	(void)pthread_mutex_unlock(&l->lock);
	for (; t; t = next) {
		next = t->next;
		t->run(t);
	}
}

/* -- the loop -- */

/* How long nothing can happen by itself, but for the tick, which is an event. */
static int64_t patience(const struct loop *l)
{
	int64_t ns;

	if (l->ready)
		return 0;
	if (l->nheap == 0)
		return CLOCK_NEVER;
	ns = l->heap[0]->deadline - clock_now();
	return ns > 0 ? ns : 0;
}

static void tell(struct loop *l, const struct epoll_event *ev, int n)
{
	bool posted = false;
	uint64_t count;

	for (int i = 0; i < n; i++) {
		struct loop_watch *w = ev[i].data.ptr;

		if (w)
			w->notify(w, ev[i].events);
		else
			posted = true;
	}
	if (posted) {
		if (read(l->event_fd, &count, sizeof(count)) > 0)
			run_posted(l, false);
	}
}

static void run_ready(struct loop *l)
{
	struct fiber *f = l->ready, *next;

	l->ready = NULL;
	l->ready_last = &l->ready;
	for (; f; f = next) {
		next = f->next;
		enter(l, f);
	}
}

static void *run(void *arg)
{
	struct epoll_event ev[EVENTS_MAX];
	struct sched_param zero = {0};
	struct loop *l = arg;
	int n;

	self = l;
	(void)pthread_setname_np(pthread_self(), l->cfg.name);
	if (l->cfg.batch)
		(void)sched_setscheduler(0, SCHED_BATCH, &zero);
	fiber_stack_thread(&l->home);
	l->now = l->last_tick = clock_now();
	while (!atomic_load_explicit(&l->stopping, memory_order_acquire)) {
		n = net_epoll_wait(l->epoll_fd, ev, EVENTS_MAX, patience(l));
		l->now = clock_now();
		tell(l, ev, n);
		run_timers(l);
		run_ready(l);
	}
	run_posted(l, true);
	while (l->nall > 0)
		fiber_free(l->all[l->nall - 1]);
	shelf_clear();
	return NULL;
}

static int take_index(unsigned *out)
{
	int err = PD_EBUSY;

	(void)pthread_mutex_lock(&index_lock);
	for (unsigned i = 0; err && i < LOOPS_MAX; i++)
		if (!index_used[i]) {
			index_used[i] = true;
			*out = i;
			err = PD_OK;
		}
	(void)pthread_mutex_unlock(&index_lock);
	return err;
}

static void give_index(unsigned index)
{
	(void)pthread_mutex_lock(&index_lock);
	index_used[index] = false;
	(void)pthread_mutex_unlock(&index_lock);
}

/* That time has passed is all it says; run_timers looks at the clock. The timer goes on when it is
 * read. */
static void tick_event(struct loop_watch *w, uint32_t events)
{
	struct loop *l = (struct loop *)((char *)w - offsetof(struct loop, tick_watch));
	uint64_t times;

	(void)events;
	(void)!read(l->tick_fd, &times, sizeof(times));
}

static int watch(struct loop *l, int fd, struct loop_watch *w)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				 .data.ptr = w};

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? PD_OK : PD_EIO;
}

/* A wake-up of the kernel's own accord, so that no wait has to set a timer. */
static int start_ticking(struct loop *l)
{
	struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};

	l->tick_watch.notify = tick_event;
	if (timerfd_settime(l->tick_fd, 0, &every, NULL) < 0)
		return PD_EIO;
	return watch(l, l->tick_fd, &l->tick_watch);
}

static int open_descriptors(struct loop *l)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->epoll_fd < 0 || l->event_fd < 0 || l->tick_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->event_fd, &ev) < 0)
		return PD_EIO;
	return start_ticking(l);
}

static void close_descriptors(const struct loop *l)
{
	const int fds[] = {l->epoll_fd, l->event_fd, l->tick_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

int loop_start(struct loop **out, const struct loop_config *cfg)
{
	struct loop *l = calloc(1, sizeof(*l));
	int err;

	*out = NULL;
	if (!l)
		return PD_ENOMEM;
	l->cfg = *cfg;
	l->ready_last = &l->ready;
	l->posted_last = &l->posted;
	(void)pthread_mutex_init(&l->lock, NULL);
	err = open_descriptors(l);
	err = err ? err : take_index(&l->index);
	if (!err && pthread_create(&l->thread, NULL, run, l) != 0) {
		give_index(l->index);
		err = PD_EIO;
	}
	if (!err) {
		*out = l;
		return PD_OK;
	}
	close_descriptors(l);
	(void)pthread_mutex_destroy(&l->lock);
	free(l);
	return err;
}

bool loop_stop(struct loop *l, int64_t deadline)
{
	uint64_t one = 1;

	atomic_store_explicit(&l->stopping, true, memory_order_release);
	/* A write that fails finds the counter full: the loop wakes all the same. */
	(void)!write(l->event_fd, &one, sizeof(one));
	return process_join(l->thread, deadline);
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	give_index(l->index);
	close_descriptors(l);
	(void)pthread_mutex_destroy(&l->lock);
	free(l->all);
	free(l->heap);
	free(l);
}

struct loop *loop_self(void)
{
	return self;
}

unsigned loop_index(const struct loop *l)
{
	return l->index;
}

int64_t loop_now(const struct loop *l)
{
	return l->now;
}

int loop_watch(struct loop *l, int fd, struct loop_watch *w)
{
	PD_CHECK(self == l);
	return watch(l, fd, w);
}

struct fiber *loop_fiber(void)
{
	return self ? self->running : NULL;
}

void *fiber_local(const struct fiber *f)
{
	return f->local;
}

void fiber_set_local(struct fiber *f, void *local, void (*release)(void *))
{
	f->local = local;
	f->local_release = release;
}

void loop_trim_stack(void)
{
	struct fiber *f = loop_fiber();

	if (f)
		fiber_trim(&f->stack);
}

void loop_stats(const struct loop *l, struct loop_stats *out)
{
	*out = (struct loop_stats){
		.fibers = atomic_load_explicit(&l->fibers, memory_order_relaxed),
		.idle = atomic_load_explicit(&l->idle_fibers, memory_order_relaxed),
		.failures = atomic_load_explicit(&l->failures, memory_order_relaxed),
	};
}
