/*
 * The jump: while the batch only decodes and no request can join, step j takes first + j * growth,
 * so the end of k steps is one formula. An arrival that can join cuts the jump at the next step
 * boundary.
 */
#include "sim/engine/vengine.h"

#include <math.h>
#include <stdlib.h>

int vengine_params_check(const struct vengine_params *p, struct pd_msg *msg)
{
	const struct {
		const char *name;
		double value;
	} costs[] = {{"step_ms", p->step_ms},
		     {"prefill_us", p->prefill_us},
		     {"request_us", p->request_us},
		     {"context_us", p->context_us}};

	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		if (!isfinite(costs[i].value) || costs[i].value < 0 || costs[i].value > 1e6)
			return pd_fail(
				msg, PD_EINVAL,
				"engine cost '%s' is %g, expected a number from 0 to 1000000",
				costs[i].name, costs[i].value);
	if (p->step_ms < 0.001)
		return pd_fail(msg, PD_EINVAL,
			       "engine cost 'step_ms' is %g, expected at least 0.001", p->step_ms);
	if (p->max_num_seqs == 0 || p->max_num_seqs > 65536)
		return pd_fail(msg, PD_EINVAL, "'max_num_seqs' is %u, expected 1 to 65536",
			       p->max_num_seqs);
	if (p->max_batched_tokens == 0 || p->max_batched_tokens > 1u << 24)
		return pd_fail(msg, PD_EINVAL, "'max_batched_tokens' is %u, expected 1 to 16777216",
			       p->max_batched_tokens);
	return PD_OK;
}

void vengine_init(struct vengine *e, const struct vengine_params *p)
{
	*e = (struct vengine){.p = *p};
}

void vengine_release(struct vengine *e)
{
	free(e->run);
	free(e->wait);
	free(e->out);
	vengine_init(e, &e->p);
}

/* Makes room for one more running request and for its output. */
static int run_reserve(struct vengine *e)
{
	size_t cap = e->run_cap ? e->run_cap * 2 : 32;
	struct vengine_seq *run;

	if (e->nrun < e->run_cap)
		return PD_OK;
	run = reallocarray(e->run, cap, sizeof(*run));
	if (!run)
		return PD_ENOMEM;
	e->run = run;
	e->run_cap = cap;
	return PD_OK;
}

static int out_reserve(struct vengine *e, size_t n)
{
	struct vengine_output *out;

	if (n <= e->out_cap)
		return PD_OK;
	out = reallocarray(e->out, n * 2, sizeof(*out));
	if (!out)
		return PD_ENOMEM;
	e->out = out;
	e->out_cap = n * 2;
	return PD_OK;
}

static int wait_reserve(struct vengine *e)
{
	size_t cap = e->wait_cap ? e->wait_cap * 2 : 32;
	struct vengine_seq *wait;

	if (e->nwait < e->wait_cap)
		return PD_OK;
	wait = reallocarray(NULL, cap, sizeof(*wait));
	if (!wait)
		return PD_ENOMEM;
	for (size_t i = 0; i < e->nwait && i < e->wait_cap; i++)
		wait[i] = e->wait[(e->wait_head + i) % e->wait_cap];
	free(e->wait);
	e->wait = wait;
	e->wait_cap = cap;
	e->wait_head = 0;
	return PD_OK;
}

static int wait_push(struct vengine *e, const struct vengine_seq *s)
{
	int err = wait_reserve(e);

	if (!err)
		e->wait[(e->wait_head + e->nwait++) % e->wait_cap] = *s;
	return err;
}

/* Preempts the last running request: its room is free, and it will be computed again. */
static int preempt_last(struct vengine *e)
{
	struct vengine_seq *s = &e->run[e->nrun - 1];
	int err = wait_reserve(e);

	if (err)
		return err;
	s->prefill_left = (uint32_t)s->ctx;
	e->wait_head = (e->wait_head ? e->wait_head : e->wait_cap) - 1;
	e->wait[e->wait_head] = *s;
	e->nwait++;
	e->nrun--;
	e->preemptions++;
	return PD_OK;
}

/* Tokens that the running requests hold after the next step, prompts counted whole. */
static uint64_t room_needed(const struct vengine *e)
{
	uint64_t tokens = 0;

	for (size_t i = 0; i < e->nrun; i++)
		tokens += e->run[i].ctx + (e->run[i].prefill_left == 0);
	return tokens;
}

/* Makes the running requests fit; *used is what they need. */
static int make_room(struct vengine *e, uint64_t *used, bool *preempted)
{
	int err = PD_OK;

	*preempted = false;
	*used = room_needed(e);
	while (!err && e->p.kv_tokens > 0 && *used > e->p.kv_tokens && e->nrun > 1) {
		err = preempt_last(e);
		*preempted = true;
		*used = room_needed(e);
	}
	return err;
}

static int64_t jump_end(const struct vengine *e, uint32_t steps)
{
	double k = steps, ms = k * e->first_ms + e->growth_ms * k * (k - 1) / 2;

	return e->start + llround(ms * 1e6);
}

static bool may_join(const struct vengine *e, uint32_t budget, uint64_t used)
{
	if (e->nwait == 0 || e->nrun >= e->p.max_num_seqs || budget == 0)
		return false;
	return e->p.kv_tokens == 0 || e->nrun == 0 ||
	       used + e->wait[e->wait_head].ctx <= e->p.kv_tokens;
}

/* Hands out the tokens of the next step to the running requests, then lets waiting ones join. */
static int form_batch(struct vengine *e)
{
	uint32_t budget = e->p.max_batched_tokens;
	uint64_t used;
	bool preempted;
	int err = make_room(e, &used, &preempted);

	for (size_t i = 0; !err && i < e->nrun; i++) {
		struct vengine_seq *s = &e->run[i];
		uint32_t want = s->prefill_left ? s->prefill_left : 1;

		s->chunk = want < budget ? want : budget;
		budget -= s->chunk;
	}
	while (!err && !preempted && may_join(e, budget, used)) {
		struct vengine_seq *s;

		err = run_reserve(e);
		if (err)
			return err;
		s = &e->run[e->nrun++];
		*s = e->wait[e->wait_head];
		e->wait_head = (e->wait_head + 1) % e->wait_cap;
		e->nwait--;
		used += s->ctx;
		s->chunk = s->prefill_left ? s->prefill_left : 1;
		if (s->chunk > budget)
			s->chunk = budget;
		budget -= s->chunk;
	}
	return err;
}

/* How many decode steps fit into the room that is left; at least the one that was made room for. */
static uint32_t steps_that_fit(const struct vengine *e, double decodes, double context)
{
	double steps;

	if (e->p.kv_tokens == 0 || decodes < 1 || e->nrun == 1)
		return UINT32_MAX;
	steps = floor(((double)e->p.kv_tokens - context) / decodes);
	return steps < 1 ? 1 : steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps;
}

/* Sums of the batch that the step time depends on, and how many steps may be taken at once. */
static void time_batch(struct vengine *e)
{
	double prefill = 0, decodes = 0, context = 0;
	uint32_t jump = UINT32_MAX;

	for (size_t i = 0; i < e->nrun; i++) {
		const struct vengine_seq *s = &e->run[i];

		if (s->prefill_left > 0) {
			prefill += s->chunk;
			jump = 1;
			continue;
		}
		if (s->chunk == 0 || s->first)
			jump = 1;
		if (s->chunk > 0) {
			decodes += 1;
			context += (double)s->ctx;
		}
		if (s->out_left < jump)
			jump = s->out_left;
	}
	if (jump > steps_that_fit(e, decodes, context))
		jump = steps_that_fit(e, decodes, context);
	e->steps = jump;
	e->growth_ms = e->p.context_us * decodes / 1e3;
	e->first_ms = e->p.step_ms + (e->p.prefill_us * prefill + e->p.request_us * decodes +
				      e->p.context_us * context) /
					     1e3;
}

static int begin_step(struct vengine *e, int64_t now)
{
	int err;

	e->gen++;
	e->stepping = false;
	if (e->nrun + e->nwait == 0)
		return PD_OK;
	err = form_batch(e);
	if (err)
		return err;
	time_batch(e);
	e->stepping = true;
	e->start = now;
	e->end = jump_end(e, e->steps);
	return PD_OK;
}

/* A request may join: the jump ends at the first step boundary at or after now. */
static void cut_jump(struct vengine *e, int64_t now)
{
	uint32_t lo = 1, hi = e->steps;

	if (e->steps <= 1 || e->nrun >= e->p.max_num_seqs)
		return;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (jump_end(e, mid) >= now)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == e->steps)
		return;
	e->steps = lo;
	e->end = jump_end(e, lo);
	e->gen++;
}

int vengine_submit(struct vengine *e, int64_t now, uint32_t req, uint32_t prefill, uint32_t context,
		   uint32_t output)
{
	struct vengine_seq s = {.req = req,
				.prefill_left = prefill,
				.out_left = output ? output : 1,
				.ctx = context,
				.first = true};
	int err = wait_push(e, &s);

	if (err)
		return err;
	if (!e->stepping)
		return begin_step(e, now);
	cut_jump(e, now);
	return PD_OK;
}

/* Applies the finished step to one request; returns its marks. */
static unsigned advance(struct vengine_seq *s, uint32_t steps)
{
	unsigned marks = 0;
	uint32_t made = steps;

	if (s->chunk == 0)
		return 0;
	if (s->prefill_left > 0) {
		s->prefill_left -= s->chunk;
		if (s->prefill_left > 0)
			return 0;
		made = 1;
	}
	if (s->first)
		marks |= VENGINE_FIRST;
	s->first = false;
	s->ctx += made;
	s->out_left -= made;
	return s->out_left == 0 ? marks | VENGINE_DONE : marks;
}

int vengine_step_end(struct vengine *e, size_t *nout)
{
	size_t kept = 0;
	int err = out_reserve(e, e->nrun);

	*nout = 0;
	if (err)
		return err;
	e->busy += e->end - e->start;
	for (size_t i = 0; i < e->nrun; i++) {
		unsigned marks = advance(&e->run[i], e->steps);

		if (marks)
			e->out[(*nout)++] = (struct vengine_output){e->run[i].req, marks};
		if (!(marks & VENGINE_DONE))
			e->run[kept++] = e->run[i];
	}
	e->nrun = kept;
	return begin_step(e, e->end);
}

int vengine_abort(struct vengine *e, size_t *nout)
{
	int err = out_reserve(e, e->nrun + e->nwait);

	*nout = 0;
	if (err)
		return err;
	for (size_t i = 0; i < e->nrun; i++)
		e->out[(*nout)++] = (struct vengine_output){e->run[i].req, 0};
	for (size_t i = 0; i < e->nwait; i++)
		e->out[(*nout)++] =
			(struct vengine_output){e->wait[(e->wait_head + i) % e->wait_cap].req, 0};
	e->nrun = e->nwait = 0;
	e->stepping = false;
	e->gen++;
	return PD_OK;
}
