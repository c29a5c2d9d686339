/* The request travels as it came; what is ours are the head's fields and the choice of the worker.
 */
#include "lib/router/way/regular.h"

#include "lib/base/clock.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"

static enum leg_error dispatch(struct exchange *x, enum worker_role role)
{
	const struct http_request *r = x->req;
	struct worker *w = x->pick[role].worker;
	struct iovec iov[2];

	leg_init(x->leg, &x->pick[role]);
	if (head_for_worker(&x->lane->head, x, w,
			    r->head.body == HTTP_BODY_NONE ? SIZE_MAX : r->body.n, false, x->rec.id,
			    NULL, 0))
		return LEG_LOCAL;
	iov[0] = (struct iovec){.iov_base = x->lane->head.data, .iov_len = x->lane->head.len};
	iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)r->body.p, .iov_len = r->body.n};
	return leg_exchange(x->leg, x, w, &x->lane->up, iov, r->body.n > 0 ? 2 : 1,
			    x->rec.streaming ? x->way->cfg->first_byte_timeout
					     : x->way->cfg->request_timeout);
}

enum outcome regular_attempt(struct exchange *x)
{
	enum worker_role role = x->role;
	enum leg_error e;
	int err = pick_choose(x, role);

	if (err == PD_ECANCELED) {
		x->rec.client_left = true;
		return ATTEMPT_DONE;
	}
	if (err) {
		failure_no_worker(x, role, err);
		return ATTEMPT_RETRY_FREE;
	}
	attempt_picked(x);
	e = dispatch(x, role);
	x->rec.time.sent = x->leg->call.sent_ns;
	if (x->rec.time.dispatched == 0)
		x->rec.time.dispatched = x->leg->call.sent_ns;
	if (e != LEG_OK) {
		(void)leg_end(x->leg);
		return attempt_failed(x, role, e);
	}
	return attempt_answer(x, role, NULL);
}
