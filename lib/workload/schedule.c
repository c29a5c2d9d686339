/*
 * Requests that follow none ("roots") are taken from a cursor over their order in time, so a trace
 * of millions costs no heap. Only what an end releases goes into the heap, and only first requests
 * of sessions beyond the limit into the line. A child list per request (two numbers) serves
 * conversations and branches alike.
 */
#include "lib/workload/schedule.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"

struct waiting {
	int64_t at_ns;	  /* release */
	int64_t since_ns; /* since when its session has room; at_ns unless it waited for that */
	uint32_t item;
};

struct waiting_list {
	struct waiting *at; /* owned */
	size_t n, cap;
};

struct schedule {
	struct schedule_input in;
	struct schedule_limits limits;
	uint32_t *root; /* owned: roots by time, then number; NULL: they are 0, 1, 2, ... */
	size_t nroots, next_root;
	uint32_t *child, *sibling; /* owned, NULL without `before`: first follower, next follower */
	struct waiting_list heap;  /* released, by time then number */
	struct waiting_list line;  /* sessions without room; [line_at, line.n) */
	size_t line_at;
	uint32_t *session_left; /* owned: requests not yet ended, per session */
	bool *session_open;	/* owned */
	uint64_t sessions_now, in_flight;
	int64_t room_since; /* when the limit of requests was last left; INT64_MIN: never reached */
	size_t taken;
};

/* ---- lists ---- */

static int reserve(struct waiting_list *l)
{
	size_t cap = l->cap ? l->cap * 2 : 64;
	struct waiting *grown;

	if (l->n < l->cap)
		return PD_OK;
	grown = reallocarray(l->at, cap, sizeof(*grown));
	if (!grown)
		return PD_ENOMEM;
	l->at = grown;
	l->cap = cap;
	return PD_OK;
}

static bool earlier(const struct waiting *a, const struct waiting *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->item < b->item);
}

static int push(struct waiting_list *l, struct waiting e)
{
	int err = reserve(l);
	size_t i;

	if (err)
		return err;
	for (i = l->n++; i > 0 && earlier(&e, &l->at[(i - 1) / 2]); i = (i - 1) / 2)
		l->at[i] = l->at[(i - 1) / 2];
	l->at[i] = e;
	return PD_OK;
}

static void pop(struct waiting_list *l)
{
	struct waiting last = l->at[--l->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < l->n) {
		if (child + 1 < l->n && earlier(&l->at[child + 1], &l->at[child]))
			child++;
		if (!earlier(&l->at[child], &last))
			break;
		l->at[i] = l->at[child];
		i = child;
	}
	l->at[i] = last;
}

/* ---- set-up ---- */

static int64_t own_time(const struct schedule *s, uint32_t item)
{
	const char *at = (const char *)s->in.at_ns;
	int64_t own = 0;

	if (at)
		memcpy(&own, at + item * s->in.at_stride, sizeof(own));
	return own + s->limits.origin_ns;
}

static bool is_root(const struct schedule *s, size_t i)
{
	return !s->in.before || s->in.before[i] == SCHEDULE_NONE;
}

static int by_time(const void *a, const void *b, void *arg)
{
	const struct schedule *s = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int64_t tx = own_time(s, x), ty = own_time(s, y);

	return tx != ty ? (tx < ty ? -1 : 1) : x < y ? -1 : x > y;
}

static int order_roots(struct schedule *s)
{
	bool sorted = true;
	int64_t last = INT64_MIN;

	s->nroots = 0;
	for (size_t i = 0; i < s->in.n; i++)
		if (is_root(s, i)) {
			sorted &= own_time(s, (uint32_t)i) >= last;
			last = own_time(s, (uint32_t)i);
			s->nroots++;
		}
	if (sorted && s->nroots == s->in.n)
		return PD_OK;
	s->root = reallocarray(NULL, s->nroots + 1, sizeof(*s->root));
	if (!s->root)
		return PD_ENOMEM;
	for (size_t i = 0, k = 0; i < s->in.n; i++)
		if (is_root(s, i))
			s->root[k++] = (uint32_t)i;
	if (!sorted)
		qsort_r(s->root, s->nroots, sizeof(*s->root), by_time, s);
	return PD_OK;
}

/* Followers of a request in order of their numbers: the lists are filled from the end. */
static int link_followers(struct schedule *s, struct pd_msg *msg)
{
	size_t reached = 0;
	uint32_t at;

	if (!s->in.before)
		return PD_OK;
	s->child = reallocarray(NULL, s->in.n + 1, sizeof(*s->child));
	s->sibling = reallocarray(NULL, s->in.n + 1, sizeof(*s->sibling));
	if (!s->child || !s->sibling)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->in.n; i++)
		s->child[i] = s->sibling[i] = SCHEDULE_NONE;
	for (size_t i = s->in.n; i-- > 0;) {
		uint32_t before = s->in.before[i];

		if (before == SCHEDULE_NONE)
			continue;
		if (before >= s->in.n)
			return pd_fail(msg, PD_EINVAL,
				       "request %zu follows request %" PRIu32
				       ": expected a number below %zu",
				       i, before, s->in.n);
		s->sibling[i] = s->child[before];
		s->child[before] = (uint32_t)i;
	}
	/* What cannot be reached from a root goes in a circle. */
	for (size_t i = 0; i < s->in.n; i++) {
		if (!is_root(s, i))
			continue;
		for (at = (uint32_t)i; at != SCHEDULE_NONE;) {
			reached++;
			if (s->child[at] != SCHEDULE_NONE) {
				at = s->child[at];
				continue;
			}
			while (at != (uint32_t)i && s->sibling[at] == SCHEDULE_NONE)
				at = s->in.before[at];
			at = at == (uint32_t)i ? SCHEDULE_NONE : s->sibling[at];
		}
	}
	return reached == s->in.n
		       ? PD_OK
		       : pd_fail(msg, PD_EINVAL, "%zu requests follow each other in a circle",
				 s->in.n - reached);
}

static int count_sessions(struct schedule *s, struct pd_msg *msg)
{
	if (!s->in.session)
		return PD_OK;
	s->session_left = calloc((size_t)s->in.nsessions + 1, sizeof(*s->session_left));
	s->session_open = calloc((size_t)s->in.nsessions + 1, sizeof(*s->session_open));
	if (!s->session_left || !s->session_open)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->in.n; i++) {
		uint32_t session = s->in.session[i];

		if (session == SCHEDULE_NONE)
			continue;
		if (session >= s->in.nsessions)
			return pd_fail(msg, PD_EINVAL,
				       "request %zu is of session %" PRIu32
				       ": expected a number below %" PRIu32,
				       i, session, s->in.nsessions);
		s->session_left[session]++;
	}
	return PD_OK;
}

int schedule_new(struct schedule **out, const struct schedule_input *in,
		 const struct schedule_limits *limits, struct pd_msg *msg)
{
	struct schedule *s;
	int err;

	*out = NULL;
	if (in->n > SCHEDULE_REQUESTS)
		return pd_fail(msg, PD_ETOOBIG, "%zu requests: expected at most %zu", in->n,
			       SCHEDULE_REQUESTS);
	s = calloc(1, sizeof(*s));
	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->in = *in;
	if (s->in.at_stride == 0)
		s->in.at_stride = sizeof(*in->at_ns);
	s->limits = *limits;
	s->room_since = INT64_MIN;
	err = order_roots(s);
	if (!err)
		err = link_followers(s, msg);
	if (!err)
		err = count_sessions(s, msg);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory for the schedule of %zu requests", in->n);
	if (err)
		schedule_free(s);
	else
		*out = s;
	return err;
}

void schedule_free(struct schedule *s)
{
	if (!s)
		return;
	free(s->root);
	free(s->child);
	free(s->sibling);
	free(s->heap.at);
	free(s->line.at);
	free(s->session_left);
	free(s->session_open);
	free(s);
}

/* ---- taking ---- */

static uint32_t session_of(const struct schedule *s, uint32_t item)
{
	return s->in.session ? s->in.session[item] : SCHEDULE_NONE;
}

static bool opens_session(const struct schedule *s, uint32_t item)
{
	uint32_t session = session_of(s, item);

	return session != SCHEDULE_NONE && !s->session_open[session];
}

static bool has_room(const struct schedule *s, uint32_t item)
{
	return s->limits.sessions_max == 0 || s->sessions_now < s->limits.sessions_max ||
	       !opens_session(s, item);
}

/* The first of the released requests, a root or one from the heap; false when there is none. */
static bool first(const struct schedule *s, struct waiting *out, bool *root)
{
	bool have = s->next_root < s->nroots;

	if (have) {
		out->item = s->root ? s->root[s->next_root] : (uint32_t)s->next_root;
		out->at_ns = out->since_ns = own_time(s, out->item);
	}
	*root = have && !(s->heap.n > 0 && earlier(&s->heap.at[0], out));
	if (!*root && s->heap.n > 0)
		*out = s->heap.at[0];
	return have || s->heap.n > 0;
}

static void drop_first(struct schedule *s, bool root)
{
	if (root)
		s->next_root++;
	else
		pop(&s->heap);
}

/* Whose session has no room goes to the line. Without memory for the line nothing moves: it stays
 * first, which is a limit kept and an order lost. */
static bool first_with_room(struct schedule *s, struct waiting *out, bool *root)
{
	while (first(s, out, root)) {
		if (has_room(s, out->item))
			return true;
		if (reserve(&s->line))
			return false;
		s->line.at[s->line.n++] = *out;
		drop_first(s, *root);
	}
	return false;
}

static bool full(const struct schedule *s)
{
	return s->limits.in_flight_max > 0 && s->in_flight >= s->limits.in_flight_max;
}

int64_t schedule_due(struct schedule *s)
{
	struct waiting w;
	bool root;

	if (full(s) || !first_with_room(s, &w, &root))
		return SCHEDULE_NEVER;
	return w.at_ns;
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

struct schedule_entry schedule_take(struct schedule *s)
{
	struct waiting w = {.item = SCHEDULE_NONE};
	struct schedule_entry e;
	bool root, there = first_with_room(s, &w, &root);

	PD_CHECK(there && !full(s));
	(void)there;
	if (opens_session(s, w.item)) {
		s->session_open[session_of(s, w.item)] = true;
		s->sessions_now++;
	}
	drop_first(s, root);
	e = (struct schedule_entry){.item = w.item,
				    .released_ns = w.at_ns,
				    .intended_ns = s->in.stamped ? own_time(s, w.item) : w.at_ns,
				    .eligible_ns =
					    later(later(w.at_ns, w.since_ns), s->room_since)};
	s->taken++;
	s->in_flight++;
	return e;
}

/* ---- ends ---- */

static int session_ended(struct schedule *s, uint32_t session, int64_t now_ns)
{
	struct waiting w;

	s->session_open[session] = false;
	s->sessions_now--;
	if (s->line_at == s->line.n)
		return PD_OK;
	w = s->line.at[s->line_at++];
	if (s->line_at == s->line.n)
		s->line_at = s->line.n = 0;
	w.since_ns = later(now_ns, w.at_ns);
	return push(&s->heap, w);
}

int schedule_ended(struct schedule *s, uint32_t item, int64_t now_ns)
{
	uint32_t session = session_of(s, item);
	int err = PD_OK;

	PD_CHECK(item < s->in.n && s->in_flight > 0);
	if (full(s))
		s->room_since = now_ns;
	s->in_flight--;
	for (uint32_t next = s->child ? s->child[item] : SCHEDULE_NONE;
	     !err && next != SCHEDULE_NONE; next = s->sibling[next]) {
		int64_t think = s->in.think_ns ? later(s->in.think_ns[next], 0) : 0;
		int64_t at = think > INT64_MAX - now_ns - 1 ? INT64_MAX - 1 : now_ns + think;

		at = later(at, own_time(s, next));
		err = push(&s->heap, (struct waiting){at, at, next});
	}
	if (session == SCHEDULE_NONE)
		return err;
	PD_CHECK(s->session_left[session] > 0);
	if (--s->session_left[session] == 0 && s->session_open[session] && !err)
		err = session_ended(s, session, now_ns);
	return err;
}

bool schedule_finished(const struct schedule *s)
{
	return s->in_flight == 0 && s->taken == s->in.n;
}

uint64_t schedule_in_flight(const struct schedule *s)
{
	return s->in_flight;
}

size_t schedule_left(const struct schedule *s)
{
	return s->in.n - s->taken;
}
