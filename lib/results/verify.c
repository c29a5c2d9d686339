/* Everything is a sort and a walk over runs of equal names: no table, no order that depends on
 * addresses. */
#include "lib/results/verify.h"

#include <stdlib.h>
#include <string.h>

#define PASS_SHARE    0.95
#define PARTIAL_SHARE 0.80

/* One successful request in one role. */
struct use {
	const char *session, *worker;
};

const char *verify_role_name(unsigned role)
{
	static const char *const names[] = {"prefill", "decode", "worker"};

	return role < VERIFY_ROLES ? names[role] : "";
}

const char *verify_verdict_name(enum verify_verdict v)
{
	return v == VERIFY_PASS ? "PASS" : v == VERIFY_PARTIAL ? "PARTIAL PASS" : "FAIL";
}

static const char *worker_of(const struct result_request *r, unsigned role)
{
	return role == VERIFY_PREFILL ? r->prefill : role == VERIFY_DECODE ? r->decode : r->worker;
}

static int by_session_then_worker(const void *a, const void *b)
{
	const struct use *x = a, *y = b;
	int c = strcmp(x->session, y->session);

	return c ? c : strcmp(x->worker, y->worker);
}

static int by_worker_then_session(const void *a, const void *b)
{
	const struct use *x = a, *y = b;
	int c = strcmp(x->worker, y->worker);

	return c ? c : strcmp(x->session, y->session);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct verify_session *)a)->name,
		      ((const struct verify_session *)b)->name);
}

static int make_sessions(struct verify *v, const struct result_request *req, size_t n)
{
	size_t kept = 0;

	v->session = calloc(n + 1, sizeof(*v->session));
	if (!v->session)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!req[i].session)
			continue;
		v->session[v->nsessions++] = (struct verify_session){
			.name = req[i].session, .requests = 1, .completed = req[i].failure == NULL};
		v->requests++;
		v->completed += req[i].failure == NULL;
	}
	if (v->nsessions > 1)
		qsort(v->session, v->nsessions, sizeof(*v->session), by_name);
	for (size_t i = 0; i < v->nsessions; i++) {
		struct verify_session *last = kept > 0 ? &v->session[kept - 1] : NULL;

		if (last && strcmp(last->name, v->session[i].name) == 0) {
			last->requests++;
			last->completed += v->session[i].completed;
		} else {
			v->session[kept++] = v->session[i];
		}
	}
	v->nsessions = kept;
	return PD_OK;
}

/* The uses are sorted by session, like v->session: one walk over both. */
static void judge_sessions(struct verify *v, unsigned role, const struct use *use, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < v->nsessions; i++) {
		struct verify_session *s = &v->session[i];

		while (at < n && strcmp(use[at].session, s->name) == 0) {
			size_t end = at;

			while (end < n && strcmp(use[end].session, s->name) == 0 &&
			       strcmp(use[end].worker, use[at].worker) == 0)
				end++;
			s->workers[role]++;
			if (end - at > s->on_worker[role]) {
				s->on_worker[role] = end - at;
				s->worker[role] = use[at].worker;
			}
			at = end;
		}
		v->role[role].consistent += s->workers[role] == 1;
	}
}

static int count_workers(struct verify_role *r, struct use *use, size_t n)
{
	qsort(use, n, sizeof(*use), by_worker_then_session);
	r->worker = calloc(n, sizeof(*r->worker));
	if (!r->worker)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		bool new_worker = i == 0 || strcmp(use[i].worker, use[i - 1].worker) != 0;
		struct verify_worker *w;

		if (new_worker)
			r->worker[r->nworkers++].name = use[i].worker;
		w = &r->worker[r->nworkers - 1];
		w->requests++;
		w->sessions += new_worker || strcmp(use[i].session, use[i - 1].session) != 0;
	}
	return PD_OK;
}

static int judge_role(struct verify *v, unsigned role, const struct result_request *req, size_t n)
{
	struct use *use = calloc(n + 1, sizeof(*use));
	size_t k = 0;
	int err = PD_OK;

	if (!use)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (req[i].session && !req[i].failure && worker_of(&req[i], role))
			use[k++] = (struct use){req[i].session, worker_of(&req[i], role)};
	if (k > 0) {
		v->role[role].judged = true;
		v->role[role].named = k;
		qsort(use, k, sizeof(*use), by_session_then_worker);
		judge_sessions(v, role, use, k);
		err = count_workers(&v->role[role], use, k);
	}
	free(use);
	return err;
}

static double share(size_t part, size_t whole)
{
	return whole > 0 ? (double)part / (double)whole : 0;
}

static void lower(double *score, double v)
{
	if (v < *score)
		*score = v;
}

static void decide(struct verify *v)
{
	bool any = false;

	v->score = share(v->completed, v->requests);
	for (unsigned r = 0; r < VERIFY_ROLES; r++) {
		if (!v->role[r].judged)
			continue;
		any = true;
		lower(&v->score, share(v->role[r].consistent, v->nsessions));
		lower(&v->score, share(v->role[r].named, v->completed));
	}
	if (v->nsessions == 0)
		v->why = "no request had a session key";
	else if (v->completed == 0)
		v->why = "no request succeeded";
	else if (!any)
		v->why = "no response named its worker (X-Worker, X-Prefill-Worker, "
			 "X-Decode-Worker)";
	if (v->why)
		v->score = 0;
	v->verdict = v->score >= PASS_SHARE	 ? VERIFY_PASS
		     : v->score >= PARTIAL_SHARE ? VERIFY_PARTIAL
						 : VERIFY_FAIL;
}

int verify_run(struct verify *v, const struct result_request *req, size_t n)
{
	int err;

	*v = (struct verify){0};
	err = make_sessions(v, req, n);
	for (unsigned role = 0; !err && role < VERIFY_ROLES; role++)
		err = judge_role(v, role, req, n);
	if (err) {
		verify_release(v);
		return err;
	}
	decide(v);
	return PD_OK;
}

void verify_release(struct verify *v)
{
	for (unsigned r = 0; r < VERIFY_ROLES; r++)
		free(v->role[r].worker);
	free(v->session);
	*v = (struct verify){0};
}
