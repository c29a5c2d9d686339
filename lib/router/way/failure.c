/* Each kind of failure in one place: what the client reads, what is counted, what the worker's
 * breaker hears. */
#include "lib/router/way/failure.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/health.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/retry.h"

#define PAUSE_MAX (60 * NS_PER_S) /* that a worker gets; the client is told what it asked for */

static void append_why(struct failure *f, const char *joint, const char *text)
{
	size_t n = strlen(f->why);

	(void)snprintf(f->why + n, sizeof(f->why) - n, "%s%s", joint, text);
}

void failure_note(struct exchange *x, enum worker_role role, enum metrics_cause cause)
{
	struct worker *w = x->pick[role].worker;

	x->failure.role = role;
	x->failure.cause = cause;
	metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_LEG_FAILURES, role,
		    (unsigned)cause - 1, 1);
	if (role != ROLE_REGULAR && w)
		atomic_fetch_add_explicit(&w->pd_errors, 1, memory_order_relaxed);
}

void failure_tls(struct exchange *x, struct worker *w, const char *why)
{
	char note[200];

	(void)snprintf(x->failure.detail, sizeof(x->failure.detail), "%s", why);
	(void)snprintf(note, sizeof(note), "TLS: %s", why);
	if (worker_note(w, note))
		log_event(x->way->cfg->log, LOG_WARN, "worker_tls",
			  LOG_FIELDS(LOG_TEXT("worker", w->url), LOG_TEXT("error", why)),
			  "worker %s: %s", w->url, note);
}

void failure_of_leg(struct exchange *x, enum worker_role role, enum leg_error e)
{
	static const enum metrics_cause causes[] = {
		[LEG_CONNECT] = CAUSE_CONNECT, [LEG_CLOSED] = CAUSE_CLOSED,
		[LEG_TIMEOUT] = CAUSE_TIMEOUT, [LEG_SILENT] = CAUSE_TIMEOUT,
		[LEG_BROKEN] = CAUSE_BROKEN,   [LEG_LOCAL] = CAUSE_LOCAL,
	};
	static const enum worker_fault faults[] = {
		[LEG_CONNECT] = FAULT_CONNECT, [LEG_CLOSED] = FAULT_CUT,
		[LEG_TIMEOUT] = FAULT_SILENT,  [LEG_SILENT] = FAULT_SILENT,
		[LEG_BROKEN] = FAULT_ANSWER,   [LEG_LOCAL] = FAULT_ANSWER,
	};
	struct worker *w = x->pick[role].worker;
	struct failure *f = &x->failure;
	bool ours = e == LEG_CLIENT_LEFT || e == LEG_LOCAL;

	(void)snprintf(f->why, sizeof(f->why), "%s worker %.150s: %s", worker_role_name(role),
		       w->url, http_call_text((enum http_call_result)e));
	if (e == LEG_BROKEN && !f->detail[0])
		(void)http_fault_text(&x->leg->call.fault, f->detail);
	if (f->detail[0])
		append_why(f, ": ", f->detail);
	f->detail[0] = '\0';
	f->status = e == LEG_TIMEOUT || e == LEG_SILENT ? 504 : e == LEG_LOCAL ? 503 : 502;
	/* A worker that dies loses all that it had at once: no budget of bursts is for that. A
	 * request that kills one worker after the other is not moved for ever. */
	f->moved = e == LEG_SILENT || (e == LEG_TIMEOUT && x->leg->call.use.cut) ||
		   (e == LEG_CLOSED && x->rec.attempt == 0);
	if (!ours)
		worker_blame(w, faults[e], f->why, clock_now());
	if (e == LEG_CONNECT) {
		atomic_fetch_add_explicit(&w->errors, 1, memory_order_relaxed);
		worker_eject(w, clock_now());
		health_nudge(x->way->health);
	}
	f->again = pick_tried(x, role);
	if (e == LEG_CLIENT_LEFT)
		x->rec.client_left = true;
	else
		failure_note(x, role, causes[e]);
	/* Who cannot be reached is out until a probe succeeds: that is not the breaker's. */
	pick_end(x, role, ours || e == LEG_CONNECT ? VERDICT_NONE : VERDICT_FAILURE);
}

/* What keeps the workers out: the first reason that is known. */
static void append_note(struct failure *f, const struct fleet_pool *p)
{
	char note[160];

	for (size_t i = 0; i < p->n; i++) {
		worker_note_get(p->worker[i], note, sizeof(note));
		if (!note[0])
			continue;
		append_why(f, "; worker ", p->worker[i]->url);
		append_why(f, ": ", note);
		return;
	}
}

void failure_no_worker(struct exchange *x, enum worker_role role, int err)
{
	const struct fleet_pool *p = &x->fleet->pool[role];
	struct failure *f = &x->failure;
	char before[sizeof(f->why)];

	x->pick[role].worker = NULL;
	memcpy(before, f->why, sizeof(before));
	failure_note(x, role, err == PD_EBUSY ? CAUSE_BUSY : CAUSE_NO_WORKER);
	if (err == PD_EBUSY)
		(void)snprintf(f->why, sizeof(f->why),
			       "all %s workers are at their limit of %u requests",
			       worker_role_name(role), x->way->cfg->worker_cap);
	else
		(void)snprintf(f->why, sizeof(f->why),
			       "no %savailable %s worker: %zu configured, %zu available",
			       fleet_available(p) > 0 ? "other " : "", worker_role_name(role), p->n,
			       fleet_available(p));
	/* What went wrong in this request before is why there is none, or what keeps them out. */
	if (before[0] && !strstr(before, "available"))
		append_why(f, "; before: ", before);
	else if (err != PD_EBUSY)
		append_note(f, p);
	f->status = 503;
	if (err == PD_EPROTO) { /* whatever is available */
		(void)snprintf(
			f->why, sizeof(f->why),
			"no endpoints available for the given request: the filters leave none of "
			"%zu %s workers",
			p->n, worker_role_name(role));
		f->status = 429;
		f->dropped = "rejected-saturated";
	}
}

bool failure_is_load(int status)
{
	return status == 429 || status == 503;
}

enum breaker_verdict failure_verdict(int status)
{
	if (failure_is_load(status))
		return VERDICT_NONE;
	/* 501 and 505 are about what was asked for. */
	return status >= 500 && status != 501 && status != 505 ? VERDICT_FAILURE : VERDICT_SUCCESS;
}

void failure_end_answered(struct exchange *x, enum worker_role role, int status)
{
	enum breaker_verdict v = failure_verdict(status);

	if (failure_is_load(status))
		atomic_fetch_add_explicit(
			&x->pick[role].worker->refusals[status == 429 ? WORKER_REFUSED_429
								      : WORKER_REFUSED_503],
			1, memory_order_relaxed);
	if (v == VERDICT_FAILURE)
		pick_end_5xx(x, role);
	else
		pick_end(x, role, v);
}

bool failure_refused(struct exchange *x, const struct leg *l, enum worker_role role)
{
	const struct field *after = http_field_tag(&l->call.head, HTTP_RETRY_AFTER);
	int status = l->call.head.status;
	struct failure *f = &x->failure;

	if (!retry_status(status))
		return false;
	f->wait = after ? http_retry_after(after->value, clock_wall()) : 0;
	f->moved = false;
	f->status = status;
	(void)snprintf(f->why, sizeof(f->why), "%s worker %.150s answered %d",
		       worker_role_name(role), x->pick[role].worker->url, status);
	if (status == 429 || status >= 500) {
		char why[80];

		(void)snprintf(why, sizeof(why), "answered %d", status);
		worker_blame(l->worker, FAULT_ANSWER, why, clock_now());
	}
	if (failure_is_load(status) && f->wait > 0)
		worker_rest(x->pick[role].worker,
			    clock_now() + (f->wait < PAUSE_MAX ? f->wait : PAUSE_MAX));
	f->again = pick_tried(x, role);
	failure_note(x, role, CAUSE_STATUS);
	failure_end_answered(x, role, status);
	return true;
}
