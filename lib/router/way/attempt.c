/*
 * One attempt after the other: which worker is asked next, what its failure says about it, and
 * whether there may be another attempt. The flows (regular.c, pdflow.c) say when.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"

/* -- picking -- */

void mark_tried(struct exchange *x, enum worker_role role)
{
	if (!x->tried[role])
		x->tried[role] = calloc(x->fleet->pool[role].n + 1, sizeof(bool));
	if (x->tried[role])
		x->tried[role][x->decision[role].worker] = true;
}

static void forget_tried(struct exchange *x, enum worker_role role)
{
	if (x->tried[role])
		memset(x->tried[role], 0, x->fleet->pool[role].n * sizeof(bool));
}

static int decide(struct exchange *x, enum worker_role role)
{
	struct fleet_pool *p = &x->fleet->pool[role];
	struct route_input in = {&x->key, x->tried[role], &x->lane->rng};
	int err;

	if (x->capture_id)
		x->lane->drawn = x->lane->rng;
	err = route_decide(&p->policy, p->ring, &in, &x->decision[role]);

	/* All that are left were tried: a second round, from the key's home again. */
	if (err == PD_ENOENT && x->tried[role]) {
		forget_tried(x, role);
		err = route_decide(&p->policy, p->ring, &in, &x->decision[role]);
	}
	return err;
}

void begin_attempt(struct exchange *x)
{
	x->head_ns = 0;
	if (!x->rt->cfg.access_log)
		return;
	x->times = (struct exchange_times){.first_pick = x->times.first_pick, .pick = clock_now()};
	if (x->times.first_pick == 0)
		x->times.first_pick = x->times.pick;
}

int choose(struct exchange *x, enum worker_role role)
{
	int64_t deadline = 0, step = NS_PER_MS, now;
	int err;

	while ((err = decide(x, role)) == PD_EBUSY) {
		now = clock_now();
		deadline = deadline ? deadline : now + x->rt->cfg.queue_timeout;
		if (now >= deadline)
			return PD_EBUSY;
		if (http_conn_sleep(x->conn, now + step < deadline ? now + step : deadline))
			return PD_ECANCELED;
		step = step < 50 * NS_PER_MS ? step * 2 : step;
	}
	if (err) {
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_NO_WORKER, x->route, 1);
		return err;
	}
	x->worker[role] = x->fleet->pool[role].worker[x->decision[role].worker];
	x->released[role] = false;
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_DECISIONS, role,
		    x->decision[role].reason, 1);
	atomic_fetch_add_explicit(&x->worker[role]->requests, 1, memory_order_relaxed);
	if (x->capture_id)
		capture_decided(x, role);
	if (x->decision[role].reason == ROUTE_REASON_FAILOVER)
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_FAILOVERS, x->route, 1);
	return PD_OK;
}

static void append_why(struct exchange *x, const char *joint, const char *text)
{
	size_t n = strlen(x->why);

	(void)snprintf(x->why + n, sizeof(x->why) - n, "%s%s", joint, text);
}

/* What keeps the workers out: the first reason that is known. */
static void append_note(struct exchange *x, const struct fleet_pool *p)
{
	char note[160];

	for (size_t i = 0; i < p->n; i++) {
		worker_note_get(p->worker[i], note, sizeof(note));
		if (!note[0])
			continue;
		append_why(x, "; worker ", p->worker[i]->url);
		append_why(x, ": ", note);
		return;
	}
}

void no_worker(struct exchange *x, enum worker_role role, int err)
{
	const struct fleet_pool *p = &x->fleet->pool[role];
	char before[sizeof(x->why)];

	x->worker[role] = NULL;
	memcpy(before, x->why, sizeof(before));
	note_cause(x, role, err == PD_EBUSY ? CAUSE_BUSY : CAUSE_NO_WORKER);
	if (err == PD_EBUSY)
		(void)snprintf(x->why, sizeof(x->why),
			       "all %s workers are at their limit of %u requests",
			       worker_role_name(role), x->rt->cfg.worker_cap);
	else
		(void)snprintf(x->why, sizeof(x->why),
			       "no available %s worker: %zu configured, %zu available",
			       worker_role_name(role), p->n, fleet_available(p));
	/* What went wrong in this request before is why there is none, or what keeps them out. */
	if (before[0] && !strstr(before, "no available"))
		append_why(x, "; before: ", before);
	else if (err != PD_EBUSY)
		append_note(x, p);
	x->why_status = 503;
}

void note_cause(struct exchange *x, enum worker_role role, enum metrics_cause cause)
{
	x->cause = cause;
	metrics_add(&x->rt->metrics, x->lane->stripe, METRIC_LEG_FAILURES, role,
		    (unsigned)cause - 1, 1);
	if (role != ROLE_REGULAR && x->worker[role])
		atomic_fetch_add_explicit(&x->worker[role]->pd_errors, 1, memory_order_relaxed);
}

static void let_go(struct exchange *x, enum worker_role role)
{
	if (x->released[role])
		return;
	if (role == ROLE_DECODE && x->decoding)
		atomic_fetch_sub_explicit(&x->worker[role]->decoding, 1, memory_order_relaxed);
	x->decoding = x->decoding && role != ROLE_DECODE;
	route_release(&x->worker[role]->slot);
	x->released[role] = true;
}

void release_early(struct exchange *x, const struct worker *w)
{
	for (int r = 0; r < ROLES; r++)
		if (x->worker[r] == w)
			let_go(x, (enum worker_role)r);
}

void unchoose(struct exchange *x, enum worker_role role, enum breaker_verdict v)
{
	struct worker *w = x->worker[role];

	let_go(x, role);
	worker_report(w, &x->rt->cfg, v, x->decision[role].trial, clock_now());
}

void blame(struct exchange *x, enum worker_role role, enum leg_error e)
{
	static const enum metrics_cause causes[] = {
		[LEG_CONNECT] = CAUSE_CONNECT, [LEG_CLOSED] = CAUSE_CLOSED,
		[LEG_TIMEOUT] = CAUSE_TIMEOUT, [LEG_BROKEN] = CAUSE_BROKEN,
		[LEG_LOCAL] = CAUSE_LOCAL,
	};
	struct worker *w = x->worker[role];
	bool ours = e == LEG_CLIENT_LEFT || e == LEG_LOCAL;

	(void)snprintf(x->why, sizeof(x->why), "%s worker %.150s: %s", worker_role_name(role),
		       w->url, http_call_text((enum http_call_result)e));
	if (x->tls_why[0])
		append_why(x, ": ", x->tls_why);
	x->tls_why[0] = '\0';
	x->why_status = e == LEG_TIMEOUT ? 504 : e == LEG_LOCAL ? 503 : 502;
	if (e == LEG_CONNECT) {
		worker_eject(w, &x->rt->cfg, clock_now());
		health_nudge(x->rt->health);
	}
	mark_tried(x, role);
	if (e == LEG_CLIENT_LEFT)
		x->client_left = true;
	else
		note_cause(x, role, causes[e]);
	unchoose(x, role, ours ? VERDICT_NONE : VERDICT_FAILURE);
}

/* -- trying again -- */

static bool has_untried(struct exchange *x, enum worker_role role)
{
	struct fleet_pool *p = &x->fleet->pool[role];

	for (size_t i = 0; i < p->n; i++)
		if (atomic_load(&p->worker[i]->slot.available) &&
		    !(x->tried[role] && x->tried[role][i]))
			return true;
	return false;
}

static void count_retry(struct exchange *x, int64_t wait)
{
	struct metrics *m = &x->rt->metrics;
	unsigned stripe = x->lane->stripe, nth = x->attempt - 1;

	metrics_count(m, stripe, METRIC_RETRIES, x->route, 1);
	if (x->cause != CAUSE_NONE)
		metrics_add(m, stripe, METRIC_RETRY_CAUSES, (unsigned)x->cause - 1, 0, 1);
	metrics_observe_at(m, stripe, HIST_BACKOFF, nth < LABELS_ATTEMPT ? nth : LABELS_ATTEMPT - 1,
			   wait);
}

bool try_again(struct exchange *x, enum worker_role failed, bool free_of_charge)
{
	const struct router_config *c = &x->rt->cfg;
	int64_t now = clock_now(), wait;
	bool other = has_untried(x, failed);

	if (x->client_left || x->started || c->retries_off || x->attempt + 1 >= c->retry_max)
		return false;
	wait = retry_backoff(c, x->attempt, &x->lane->rng);
	/* Another worker need not wait for what this one asked for; the same one does. */
	if (!other && x->wait_ns > wait)
		wait = x->wait_ns;
	if (wait > c->retry_cap || now + wait >= x->deadline)
		return false;
	/* Spent last: an attempt that is not made costs nothing. */
	if (!free_of_charge && !retry_budget_spend(&x->rt->budget)) {
		metrics_count(&x->rt->metrics, x->lane->stripe, METRIC_BUDGET_EMPTY, x->route, 1);
		return false;
	}
	if (other && free_of_charge)
		wait = 0;
	x->attempt++;
	x->wait_ns = 0;
	count_retry(x, wait);
	/* A wake-up that was meant for the queue may still be there: the pause is kept all the
	 * same. */
	while (wait > 0 && !x->client_left && clock_now() < now + wait)
		x->client_left = http_conn_sleep(x->conn, now + wait);
	return !x->client_left;
}

bool refused(struct exchange *x, const struct leg *l)
{
	const struct field *after = http_field_tag(&l->call.head, HTTP_RETRY_AFTER);

	if (!retry_status(l->call.head.status))
		return false;
	x->wait_ns = after ? retry_after(after->value) : 0;
	return true;
}

/* An answer that is here as a whole is consumed, so that the connection can be used again; the next
 * attempt waits for nothing. */
static void drop_answer(struct exchange *x, struct leg *l)
{
	buf_clear(&x->lane->side);
	if (l->call.head.body == HTTP_BODY_LENGTH &&
	    l->call.head.length <= l->call.in->len - l->call.at &&
	    http_call_collect(&l->call, &x->lane->side))
		l->call.ended = false;
	(void)http_call_end(&l->call);
}

bool retry_refusal(struct exchange *x, struct leg *l, enum worker_role role)
{
	mark_tried(x, role);
	note_cause(x, role, CAUSE_STATUS);
	unchoose(x, role, l->call.head.status >= 500 ? VERDICT_FAILURE : VERDICT_SUCCESS);
	if (x->repeatable && try_again(x, role, false)) {
		drop_answer(x, l);
		return true;
	}
	x->head_ns = l->call.head_ns;
	if (relay_answer(x, l, NULL) == RELAY_RETRY)
		give_up(x);
	(void)http_call_end(&l->call);
	return false;
}

void give_up(struct exchange *x)
{
	if (x->client_left || x->started)
		return;
	if (x->why_status == 503 && x->wait_ns == 0)
		x->wait_ns = NS_PER_S;
	x->head_ns = 0;
	x->fault = x->cause == CAUSE_NO_WORKER || x->cause == CAUSE_BUSY ? ERROR_NO_WORKERS
									 : ERROR_BACKEND;
	answer_error(x, x->why_status ? x->why_status : 502, "upstream_error",
		     x->why[0] ? x->why : "no worker could answer");
}
