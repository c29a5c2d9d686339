/*
 * Another attempt is made while nothing was sent to the client, the request may be repeated, there
 * is a worker that it was not sent to, its deadline leaves room for the pause, and the budget
 * lasts. The pause grows from attempt to attempt; there is none before another worker when this one
 * could not be reached or is busy. Nobody waits here for a Retry-After: the client gets it.
 */
#include "lib/router/way/attempt.h"

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"
#include "lib/router/way/observers.h"
#include "lib/router/way/relay.h"
#include "lib/router/way/retry.h"

static void count_retry(struct exchange *x, int64_t wait)
{
	struct metrics *m = x->way->watch.metrics;
	unsigned stripe = x->rec.stripe, nth = x->rec.attempt - 1;

	metrics_count(m, stripe, METRIC_RETRIES, x->rec.route, 1);
	if (x->failure.cause != CAUSE_NONE)
		metrics_add(m, stripe, METRIC_RETRY_CAUSES, (unsigned)x->failure.cause - 1, 0, 1);
	metrics_observe_at(m, stripe, HIST_BACKOFF, nth < LABELS_ATTEMPT ? nth : LABELS_ATTEMPT - 1,
			   wait);
}

/* Counts another attempt, spends the budget and waits. False: there is none. */
static bool try_again(struct exchange *x, enum outcome o)
{
	const struct router_config *c = x->way->cfg;
	const struct failure *f = &x->failure;
	bool refused = o == ATTEMPT_REFUSED, busy = refused && failure_is_load(f->status);
	bool other = pick_has_untried(x, f->role), unsent = o == ATTEMPT_RETRY_FREE;
	/* Decode workers do what the prefill workers could not. That multiplies nothing; but who
	 * refuses because he is busy is not relieved by work that is done without him. */
	bool alone = !other && !busy && f->role == ROLE_PREFILL && f->cause != CAUSE_BUSY &&
		     x->may_decode_alone && pick_has_untried(x, ROLE_DECODE);
	int64_t now = clock_now(), wait;

	/* No failure: it asks who knows an id. */
	if (o == ATTEMPT_ELSEWHERE) {
		x->rec.attempt++;
		return !x->rec.client_left && now < x->deadline;
	}
	if (x->rec.client_left || x->started || c->retries_off || f->dropped ||
	    x->rec.attempt + 1 >= c->retry_max || !(x->repeatable || unsent))
		return false;
	/* Never twice to the same worker. */
	if (!other && !unsent && !alone && !f->again)
		return false;
	wait = retry_backoff(c, x->rec.attempt, &x->lane->rng);
	if (alone || (other && (unsent || busy || f->moved)))
		wait = 0;
	if (now + wait >= x->deadline)
		return false;
	/* Spent last: an attempt that is not made costs nothing. */
	if (!unsent && !alone && !f->moved && !retry_budget_spend(&x->way->budget)) {
		metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_BUDGET_EMPTY,
			      x->rec.route, 1);
		return false;
	}
	x->rec.attempt++;
	x->failure.wait = 0;
	count_retry(x, wait);
	/* A wake-up that was meant for a queue may still be there: the pause is kept all the same.
	 */
	while (wait > 0 && !x->rec.client_left && clock_now() < now + wait)
		x->rec.client_left = http_conn_sleep(x->conn, now + wait);
	x->now = now + wait;
	return !x->rec.client_left;
}

static void give_up(struct exchange *x)
{
	struct failure *f = &x->failure;

	if (x->rec.client_left || x->started)
		return;
	if (f->status == 503 && f->wait == 0)
		f->wait = NS_PER_S;
	x->rec.time.answered = 0;
	x->rec.error = f->cause == CAUSE_NO_WORKER || f->cause == CAUSE_BUSY ? ERROR_NO_WORKERS
									     : ERROR_BACKEND;
	answer_error(x, f->status ? f->status : 502, "upstream_error",
		     f->why[0] ? f->why : "no worker could answer");
}

/* The refusal becomes the answer. */
static void pass_refusal(struct exchange *x)
{
	if (relay_answer(x, x->leg, NULL) == RELAY_RETRY)
		give_up(x);
	(void)leg_end(x->leg);
}

/* A refusal that is here as a whole is consumed, so that its connection can be used again; the next
 * attempt waits for nothing. */
static void drop_refusal(struct exchange *x)
{
	struct http_call *c = &x->leg->call;

	buf_clear(&x->lane->side);
	if (c->head.body == HTTP_BODY_LENGTH && c->head.length <= c->in->len - c->at &&
	    leg_collect(x->leg, &x->lane->side))
		c->ended = false;
	(void)leg_end(x->leg);
}

void attempt_run(struct exchange *x, enum outcome (*one_attempt)(struct exchange *x))
{
	enum outcome o;
	bool again;

	do {
		o = one_attempt(x);
		again = o != ATTEMPT_DONE && try_again(x, o);
		/* The breakers know before the client does. */
		for (int r = 0; r < ROLES && !again; r++)
			pick_judge(x, (enum worker_role)r);
		if ((o == ATTEMPT_REFUSED || o == ATTEMPT_ELSEWHERE) && again)
			drop_refusal(x);
		else if (o == ATTEMPT_REFUSED || o == ATTEMPT_ELSEWHERE)
			pass_refusal(x);
		else if (o != ATTEMPT_DONE && !again)
			give_up(x);
	} while (again);
}

void attempt_picked(struct exchange *x)
{
	struct record_times *t = &x->rec.time;

	t->sent = t->prefilled = t->decode_sent = t->answered = 0;
	if (x->way->cfg->access_log || x->rec.number || x->trace.recorded) {
		t->picked = clock_now();
		t->decided = t->decided ? t->decided : t->picked;
	}
	pick_describe(x);
	record_decided(&x->rec);
}

enum outcome attempt_failed(struct exchange *x, enum worker_role role, enum leg_error e)
{
	failure_of_leg(x, role, e);
	if (e == LEG_CLIENT_LEFT)
		return ATTEMPT_DONE;
	return e == LEG_CONNECT ? ATTEMPT_RETRY_FREE : ATTEMPT_RETRY;
}

enum outcome attempt_answer(struct exchange *x, enum worker_role role,
			    const struct pd_prefill_usage *merge)
{
	struct leg *l = x->leg;
	enum breaker_verdict v = VERDICT_SUCCESS;

	x->rec.time.answered = l->call.head_ns;
	pick_describe(x);
	record_answered(&x->rec);
	if (failure_refused(x, l, role))
		return ATTEMPT_REFUSED;
	if (x->seeks && follow_seek_on(x, l->call.head.status, (int)role)) {
		failure_end_answered(x, role, l->call.head.status);
		return ATTEMPT_ELSEWHERE;
	}
	if (x->seeks)
		follow_found(x, l->call.head.status);
	if (l->call.head.status < 500)
		pick_judge(x, role);
	switch (relay_answer(x, l, merge)) {
	case RELAY_DONE:
		(void)leg_end(l);
		failure_end_answered(x, role, l->call.head.status);
		return ATTEMPT_DONE;
	case RELAY_RETRY:
		(void)leg_end(l);
		return attempt_failed(x, role, x->failure.status == 504 ? LEG_TIMEOUT : LEG_BROKEN);
	case RELAY_CUT:
		v = VERDICT_FAILURE;
		worker_blame(l->worker, x->failure.status == 504 ? FAULT_SILENT : FAULT_CUT,
			     x->failure.why, clock_now());
		x->rec.error = ERROR_STREAM_CUT;
		break;
	case RELAY_CLIENT_LEFT:
		v = VERDICT_NONE;
		break;
	}
	(void)leg_end(l);
	pick_end(x, role, v);
	return ATTEMPT_DONE;
}
