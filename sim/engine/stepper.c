/* The order of calls at one instant is the order in which vLLM's core loop looks at things. */
#include "sim/engine/stepper.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

int stepper_init(struct stepper *e, const struct stepper_config *cfg, struct pd_msg *msg)
{
	int err;

	*e = (struct stepper){.cfg = *cfg, .free_at = INT64_MIN};
	e->cfg.jump = cfg->jump && !cfg->cost.whole_us;
	err = sched_config_check(&cfg->sched, msg);
	if (!err)
		err = stepcost_check(&cfg->cost, msg);
	if (err)
		return err;
	err = sched_init(&e->sched, &cfg->sched);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

void stepper_release(struct stepper *e)
{
	for (size_t i = 0; i < SCHED_STEPS; i++)
		sched_step_release(&e->step[i].s);
	sched_release_all(&e->sched);
	free(e->ended);
	e->ended = NULL;
	e->nended = e->ended_cap = 0;
}

/* Steps under way in order, the oldest first. */
static void under_way(struct stepper *e, struct sched_step *step[SCHED_STEPS])
{
	for (size_t k = 0; k < e->under_way; k++)
		step[k] = &e->step[(e->oldest + k) % SCHED_STEPS].s;
}

/* The end of the n-th step from now, counted from 1: one under way, or one of a jump. */
static int64_t end_of(const struct stepper *e, uint32_t n, uint32_t *fraction)
{
	stepcost_time m, sum;

	if (n <= e->under_way) {
		*fraction = n == e->under_way ? e->fraction : 0;
		return e->step[(e->oldest + n - 1) % SCHED_STEPS].end;
	}
	m = n - (uint32_t)e->under_way;
	sum = e->fraction + m * e->longest + e->growth * (m * (m + 1) / 2);
	*fraction = (uint32_t)(sum & ((1 << STEPCOST_FRACTION) - 1));
	return e->free_at + (int64_t)(sum >> STEPCOST_FRACTION);
}

/* Takes the first rounds of a jump; the rest of it is off. */
static void take_rounds(struct stepper *e, uint32_t rounds)
{
	struct sched_step *step[SCHED_STEPS] = {NULL};
	int64_t end[SCHED_STEPS] = {0}, scheduled[SCHED_STEPS] = {0}, before;
	uint32_t fraction = 0, n = (uint32_t)e->under_way, unused;

	e->quiet = 0;
	if (rounds == 0)
		return;
	before = end_of(e, rounds, &unused);
	for (uint32_t k = 0; k < n; k++) {
		end[k] = end_of(e, rounds + 1 + k, &fraction);
		/* A step is scheduled when the result before those under way is processed. */
		scheduled[k] = rounds + k < n
				       ? e->step[(e->oldest + rounds + k) % SCHED_STEPS].scheduled
				       : end_of(e, rounds + 1 + k - n, &unused);
	}
	under_way(e, step);
	sched_jump(&e->sched, step, n, rounds);
	for (uint32_t k = 0; k < n; k++) {
		struct stepper_step *t = &e->step[(e->oldest + k) % SCHED_STEPS];

		t->scheduled = scheduled[k];
		t->begin = k ? end[k - 1] : before;
		t->end = end[k];
	}
	e->busy += end[n - 1] - e->free_at;
	e->steps += rounds;
	e->free_at = end[n - 1];
	e->fraction = fraction;
	e->longest += e->growth * rounds;
}

/* Something happens at `now`: the loop notices at the first end that is not before it. */
static void interrupt(struct stepper *e, int64_t now)
{
	uint32_t lo = 1, hi = e->quiet + 1, unused;

	while (e->quiet && lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (end_of(e, mid, &unused) >= now)
			hi = mid;
		else
			lo = mid + 1;
	}
	take_rounds(e, e->quiet ? lo - 1 : 0);
}

void stepper_add(struct stepper *e, struct seq *q, int64_t now)
{
	/* Behind full seats or a head of line without room nobody is looked at. */
	if (e->sched.nrun < e->cfg.sched.max_num_seqs && !e->sched.stuck)
		interrupt(e, now);
	sched_add(&e->sched, q);
	/* With a step under way the loop waits for its end. */
	e->wants |= e->under_way == 0;
}

void stepper_abort(struct stepper *e, struct seq *q, int64_t now)
{
	size_t kept = 0;

	interrupt(e, now);
	for (size_t i = 0; i < e->nended; i++)
		if (e->ended[i].seq != q)
			e->ended[kept++] = e->ended[i];
	e->nended = kept;
	sched_abort(&e->sched, q);
	e->wants |= e->under_way == 0;
}

void stepper_cost(struct stepper *e, const struct stepcost *cost, int64_t now)
{
	interrupt(e, now);
	e->cfg.cost = *cost;
}

static void see(struct stepper *e, struct seq *q)
{
	if (q->state == SEQ_HELD) {
		sched_unhold(&e->sched, q);
		if (e->released)
			e->released(e->ctx, e, q);
	} else {
		sched_loaded(&e->sched, q);
	}
	e->wants = true;
}

/* Ends until `until` are seen, in order. */
static void see_ended(struct stepper *e, int64_t until)
{
	size_t seen = 0;

	while (seen < e->nended && e->ended[seen].at <= until)
		see(e, e->ended[seen++].seq);
	for (size_t i = seen; i < e->nended; i++)
		e->ended[i - seen] = e->ended[i];
	e->nended -= seen;
}

int stepper_told(struct stepper *e, struct seq *q, int64_t now)
{
	size_t cap = e->ended_cap ? e->ended_cap * 2 : 16, at = e->nended;
	struct stepper_end *grown;

	interrupt(e, now);
	if (e->under_way == 0) {
		see(e, q);
		return PD_OK;
	}
	if (e->nended == e->ended_cap) {
		grown = reallocarray(e->ended, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		e->ended = grown;
		e->ended_cap = cap;
	}
	for (; at > 0 && e->ended[at - 1].at == now && e->ended[at - 1].seq->id > q->id; at--)
		e->ended[at] = e->ended[at - 1];
	e->ended[at] = (struct stepper_end){now, q};
	e->nended++;
	return PD_OK;
}

int64_t stepper_next(const struct stepper *e)
{
	uint32_t unused;

	return e->under_way ? end_of(e, e->quiet + 1, &unused) : CLOCK_NEVER;
}

int stepper_finish(struct stepper *e)
{
	struct stepper_step *t;
	int err;

	PD_CHECK(e->under_way > 0);
	take_rounds(e, e->quiet);
	t = &e->step[e->oldest];
	err = sched_process(&e->sched, &t->s);
	t->s.n = 0;
	e->sched.under_way[e->oldest] = NULL;
	e->oldest = (e->oldest + 1) % SCHED_STEPS;
	e->under_way--;
	e->wants = true;
	if (!err)
		see_ended(e, e->cfg.poll_begin ? t->begin : t->end);
	return err;
}

static void run(struct stepper *e, struct stepper_step *t, int64_t now)
{
	struct stepload load = stepcost_load(&t->s);
	stepcost_time sum;

	if (now > e->free_at) {
		e->free_at = now;
		e->fraction = 0;
	}
	e->longest = stepcost_step(&e->cfg.cost, &load);
	e->growth = stepcost_growth(&e->cfg.cost, load.decodes);
	sum = e->fraction + e->longest;
	t->scheduled = now;
	t->begin = e->free_at;
	t->end = t->begin + (int64_t)(sum >> STEPCOST_FRACTION);
	e->fraction = (uint32_t)(sum & ((1 << STEPCOST_FRACTION) - 1));
	e->busy += t->end - t->begin;
	e->steps++;
	e->free_at = t->end;
	e->sched.under_way[(size_t)(t - e->step)] = &t->s;
	e->under_way++;
}

static void plan_jump(struct stepper *e, size_t most)
{
	struct sched_step *step[SCHED_STEPS] = {NULL};
	uint32_t rounds;

	if (!e->cfg.jump || e->under_way < most || e->nended > 0)
		return;
	under_way(e, step);
	rounds = sched_quiet(&e->sched, step, e->under_way);
	e->quiet = rounds >= 2 ? rounds : 0;
}

int stepper_schedule(struct stepper *e, int64_t now)
{
	size_t most = e->cfg.sched.async_scheduling ? 2 : 1;
	int err = PD_OK;

	e->wants = false;
	e->quiet = 0;
	while (!err && e->under_way < most &&
	       (sched_unfinished(&e->sched) > 0 || (e->under_way == 0 && e->nended > 0))) {
		struct stepper_step *t = &e->step[(e->oldest + e->under_way) % SCHED_STEPS];

		err = sched_schedule(&e->sched, &t->s);
		if (err)
			break;
		if (t->s.n > 0) {
			run(e, t, now);
			if (e->scheduled)
				e->scheduled(e->scheduled_ctx, e, t);
		}
		for (size_t i = 0; e->fetch && i < t->s.nfetch; i++)
			e->fetch(e->ctx, e, t->s.fetch[i], now);
		if (t->s.n > 0)
			continue;
		/* Nothing to run: whatever has ended is seen now. A pass that only preempted is
		 * followed by one that admits. */
		if (e->under_way > 0 || (e->nended == 0 && t->s.npreempted == 0))
			break;
		see_ended(e, now);
		e->wants = false;
	}
	if (!err)
		plan_jump(e, most);
	return err;
}

/* Makes the step that all have just scheduled last until the slowest ends. */
static void run_together(struct stepper *const *e, size_t n, int64_t now, size_t slot)
{
	int64_t end = INT64_MIN;
	uint32_t fraction = 0;

	for (size_t i = 0; i < n; i++) {
		run(e[i], &e[i]->step[(e[i]->oldest + slot) % SCHED_STEPS], now);
		if (e[i]->free_at > end || (e[i]->free_at == end && e[i]->fraction > fraction)) {
			end = e[i]->free_at;
			fraction = e[i]->fraction;
		}
	}
	for (size_t i = 0; i < n; i++) {
		struct stepper_step *t = &e[i]->step[(e[i]->oldest + slot) % SCHED_STEPS];

		t->end = e[i]->free_at = end;
		e[i]->fraction = fraction;
		if (e[i]->scheduled)
			e[i]->scheduled(e[i]->scheduled_ctx, e[i], t);
	}
}

int stepper_schedule_group(struct stepper *const *e, size_t n, int64_t now)
{
	size_t most = e[0]->cfg.sched.async_scheduling ? 2 : 1;
	int err = PD_OK;

	while (!err && e[0]->under_way < most) {
		size_t slot = e[0]->under_way;
		bool any = false, again = false;

		for (size_t i = 0; !err && i < n; i++) {
			struct stepper_step *t = &e[i]->step[(e[i]->oldest + slot) % SCHED_STEPS];

			PD_CHECK(e[i]->under_way == slot);
			e[i]->wants = false;
			t->s.n = t->s.npreempted = t->s.nfetch = 0;
			if (sched_unfinished(&e[i]->sched) > 0)
				err = sched_schedule(&e[i]->sched, &t->s);
			any |= t->s.n > 0;
			again |= t->s.npreempted > 0;
		}
		if (!err && any)
			run_together(e, n, now, slot);
		else if (slot > 0 || !again)
			break;
	}
	return err;
}
