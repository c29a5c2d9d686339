/* One pool of workers: pick, send, pass the answer on; another worker when that fails before the
 * first byte. */
#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"

static enum exchange_result pass_on(struct exchange *x, struct leg *l, enum worker_role role)
{
	enum breaker_verdict v = l->call.head.status >= 500 ? VERDICT_FAILURE : VERDICT_SUCCESS;
	enum relay_end end;

	x->head_ns = l->call.head_ns;
	end = relay_answer(x, l, NULL);
	(void)http_call_end(&l->call);
	if (end == RELAY_RETRY) {
		blame(x, role, x->why_status == 504 ? LEG_TIMEOUT : LEG_BROKEN);
		return RESULT_RETRY;
	}
	if (end == RELAY_CUT) {
		v = VERDICT_FAILURE;
		x->fault = ERROR_STREAM_CUT;
	} else if (end == RELAY_CLIENT_LEFT) {
		v = VERDICT_NONE;
	}
	unchoose(x, role, v);
	return RESULT_DONE;
}

static enum leg_error dispatch(struct exchange *x, struct leg *l, enum worker_role role)
{
	const struct http_request *r = x->req;
	struct iovec iov[2];

	if (head_for_worker(&x->lane->head, x, x->worker[role],
			    r->head.body == HTTP_BODY_NONE ? SIZE_MAX : r->body.n, false, x->id))
		return LEG_LOCAL;
	iov[0] = (struct iovec){.iov_base = x->lane->head.data, .iov_len = x->lane->head.len};
	iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)r->body.p, .iov_len = r->body.n};
	return leg_exchange(l, x, x->worker[role], &x->lane->up, iov, r->body.n > 0 ? 2 : 1,
			    x->streaming ? x->rt->cfg.first_byte_timeout
					 : x->rt->cfg.request_timeout);
}

static enum exchange_result attempt(struct exchange *x, enum worker_role role)
{
	struct leg l = {.worker = NULL};
	enum leg_error e;

	begin_attempt(x);
	explain_decision(x);
	e = dispatch(x, &l, role);
	x->times.sent = l.call.sent_ns;
	if (x->dispatched_ns == 0)
		x->dispatched_ns = l.call.sent_ns;
	if (e != LEG_OK) {
		(void)http_call_end(&l.call);
		blame(x, role, e);
		if (e == LEG_CLIENT_LEFT)
			return RESULT_DONE;
		return e == LEG_CONNECT ? RESULT_RETRY_FREE : RESULT_RETRY;
	}
	metrics_observe_at(&x->rt->metrics, x->lane->stripe, HIST_LEG, role,
			   l.call.head_ns - l.call.sent_ns);
	if (!refused(x, &l))
		return pass_on(x, &l, role);
	return retry_refusal(x, &l, role) ? RESULT_RETRY : RESULT_DONE;
}

void regular_flow(struct exchange *x, enum worker_role role)
{
	enum exchange_result result;
	unsigned before;
	int err;

	for (;;) {
		before = x->attempt;
		err = choose(x, role);
		if (err == PD_ECANCELED) {
			x->client_left = true;
			return;
		}
		if (err) {
			no_worker(x, role, err);
			result = RESULT_RETRY;
		} else {
			result = attempt(x, role);
		}
		if (result == RESULT_DONE)
			return;
		/* A refusal that is retried was counted already. */
		if (x->attempt == before &&
		    ((!x->repeatable && result == RESULT_RETRY && !err) ||
		     !try_again(x, role, result == RESULT_RETRY_FREE || err))) {
			give_up(x);
			return;
		}
	}
}
