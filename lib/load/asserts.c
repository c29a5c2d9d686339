/* Each judge writes what it found, so that a line says why it failed. */
#include "lib/load/asserts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {[ASSERT_SPLIT] = "split",
				    [ASSERT_STICKY] = "sticky",
				    [ASSERT_NOT_STICKY] = "not-sticky",
				    [ASSERT_HITS_FASTER] = "hits-faster"};

#define KINDS (sizeof(names) / sizeof(names[0]))

static int parse_one(struct asserts *a, struct span word, struct pd_msg *msg)
{
	for (size_t k = 0; k < KINDS; k++) {
		size_t n = strlen(names[k]);
		char *end;

		if (a->n == ASSERTS_MAX || word.n < n || memcmp(word.p, names[k], n) != 0)
			continue;
		a->workers[a->n] = 0;
		if (word.n > n && (k != ASSERT_SPLIT || word.p[n] != '='))
			continue;
		if (word.n > n) {
			a->workers[a->n] = strtoll(word.p + n + 1, &end, 10);
			if (end != word.p + word.n || a->workers[a->n] < 1)
				break;
		}
		a->kind[a->n++] = (enum assert_kind)k;
		return PD_OK;
	}
	return pd_fail(msg, PD_EINVAL,
		       "--assert: found '%.*s', expected split, split=N, sticky, not-sticky or "
		       "hits-faster",
		       (int)word.n, word.p);
}

int asserts_parse(struct asserts *a, const char *list, struct pd_msg *msg)
{
	const char *comma;
	int err = PD_OK;

	*a = (struct asserts){0};
	for (const char *p = list; !err && p; p = comma ? comma + 1 : NULL) {
		comma = strchr(p, ',');
		err = parse_one(
			a, span_trim((struct span){p, comma ? (size_t)(comma - p) : strlen(p)}),
			msg);
	}
	return err;
}

/* ---- split ---- */

#define WORKERS_MAX 256

struct share {
	const char *worker[WORKERS_MAX];
	size_t requests[WORKERS_MAX];
	size_t n, total;
};

static const char *worker_of(const struct result_request *r, unsigned role)
{
	return role == VERIFY_PREFILL ? r->prefill : role == VERIFY_DECODE ? r->decode : r->worker;
}

static void count_shares(struct share *s, const struct result_run *run, unsigned role)
{
	*s = (struct share){.n = 0};
	for (size_t i = 0; i < run->n; i++) {
		const char *w = run->req[i].failure ? NULL : worker_of(&run->req[i], role);
		size_t k = 0;

		if (!w)
			continue;
		while (k < s->n && strcmp(s->worker[k], w) != 0)
			k++;
		if (k == WORKERS_MAX)
			continue;
		if (k == s->n)
			s->worker[s->n++] = w;
		s->requests[k]++;
		s->total++;
	}
}

static int judge_split(const struct result_run *run, int64_t workers, struct buf *out, bool *holds)
{
	struct share s;
	size_t roles = 0;
	int err = PD_OK;

	*holds = true;
	for (unsigned role = 0; !err && role < VERIFY_ROLES; role++) {
		size_t least = SIZE_MAX, want;

		count_shares(&s, run, role);
		if (s.n == 0)
			continue;
		for (size_t k = 0; k < s.n; k++)
			least = s.requests[k] < least ? s.requests[k] : least;
		want = workers > 0 ? (size_t)workers : s.n;
		*holds = *holds && (workers > 0 ? s.n == want : s.n >= 2) &&
			 2 * least * s.n >= s.total;
		err = buf_printf(out, "%s%s: %zu workers, the least used has %zu of %zu requests",
				 roles++ > 0 ? "; " : "", verify_role_name(role), s.n, least,
				 s.total);
	}
	if (!err && roles == 0) {
		*holds = false;
		err = buf_puts(out, "no answer names a worker");
	}
	return err;
}

/* ---- sessions ---- */

static int judge_sticky(const struct verify *v, bool want, struct buf *out, bool *holds)
{
	size_t roles = 0;
	int err = PD_OK;

	*holds = true;
	for (unsigned role = 0; !err && role < VERIFY_ROLES; role++) {
		size_t sessions = 0, stayed = 0;

		if (!v->role[role].judged)
			continue;
		for (size_t i = 0; i < v->nsessions; i++) {
			const struct verify_session *s = &v->session[i];

			if (s->completed < 2 || !s->worker[role])
				continue;
			sessions++;
			stayed += s->workers[role] == 1;
		}
		if (sessions == 0)
			continue;
		*holds = *holds && (want ? stayed == sessions : 2 * stayed <= sessions);
		err = buf_printf(out, "%s%s: %zu of %zu sessions stayed on one worker",
				 roles++ > 0 ? "; " : "", verify_role_name(role), stayed, sessions);
	}
	if (!err && roles == 0) {
		*holds = false;
		err = buf_puts(out, "no session with two answers that name a worker");
	}
	return err;
}

static int judge_hits(const struct figures *f, struct buf *out, bool *holds)
{
	*holds =
		f->ttft_hit.n > 0 && f->ttft_miss.n > 0 && f->ttft_hit.median < f->ttft_miss.median;
	if (f->ttft_hit.n == 0 || f->ttft_miss.n == 0)
		return buf_printf(out, "%zu hits and %zu misses with a TTFT", f->ttft_hit.n,
				  f->ttft_miss.n);
	return buf_printf(out, "median TTFT %.2f ms of %zu hits, %.2f ms of %zu misses",
			  f->ttft_hit.median, f->ttft_hit.n, f->ttft_miss.median, f->ttft_miss.n);
}

int asserts_judge(const struct asserts *a, const struct result_run *run, const struct verify *v,
		  const struct figures *f, struct buf *out, size_t *failed)
{
	int err = PD_OK;

	*failed = 0;
	for (size_t i = 0; !err && i < a->n; i++) {
		struct buf why;
		bool holds = false;

		buf_init(&why, 65536);
		if (a->kind[i] == ASSERT_SPLIT)
			err = judge_split(run, a->workers[i], &why, &holds);
		else if (a->kind[i] == ASSERT_HITS_FASTER)
			err = judge_hits(f, &why, &holds);
		else
			err = judge_sticky(v, a->kind[i] == ASSERT_STICKY, &why, &holds);
		*failed += !holds;
		if (!err)
			err = buf_printf(out, "assert %s: %s (%s)\n", names[a->kind[i]],
					 holds ? "holds" : "FAILED", why.data ? why.data : "");
		buf_release(&why);
	}
	return err;
}
