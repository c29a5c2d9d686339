/* The order of calls at one instant is the order in which vLLM's core loop looks at things. */
#include "sim/engine/stepper.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

int stepper_init(struct stepper *e, const struct stepper_config *cfg, struct pd_msg *msg)
{
	int err;

	*e = (struct stepper){.cfg = *cfg, .free_at = INT64_MIN};
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

void stepper_add(struct stepper *e, struct seq *q)
{
	sched_add(&e->sched, q);
	/* With a step under way the loop waits for its end. */
	e->wants |= e->under_way == 0;
}

void stepper_abort(struct stepper *e, struct seq *q)
{
	size_t kept = 0;

	for (size_t i = 0; i < e->nended; i++)
		if (e->ended[i].seq != q)
			e->ended[kept++] = e->ended[i];
	e->nended = kept;
	sched_abort(&e->sched, q);
	e->wants |= e->under_way == 0;
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
	return e->under_way ? e->step[e->oldest].end : CLOCK_NEVER;
}

int stepper_finish(struct stepper *e)
{
	struct stepper_step *t = &e->step[e->oldest];
	int err;

	PD_CHECK(e->under_way > 0);
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

	t->scheduled = now;
	t->begin = now > e->free_at ? now : e->free_at;
	t->end = t->begin + stepcost_ns(&e->cfg.cost, &load);
	e->busy += t->end - t->begin;
	e->steps++;
	e->free_at = t->end;
	e->sched.under_way[(size_t)(t - e->step)] = &t->s;
	e->under_way++;
}

int stepper_schedule(struct stepper *e, int64_t now)
{
	size_t most = e->cfg.sched.async_scheduling ? 2 : 1;
	int err = PD_OK;

	e->wants = false;
	while (!err && e->under_way < most && sched_unfinished(&e->sched) > 0) {
		struct stepper_step *t = &e->step[(e->oldest + e->under_way) % SCHED_STEPS];

		err = sched_schedule(&e->sched, &t->s);
		if (err)
			break;
		if (t->s.n > 0) {
			run(e, t, now);
			if (e->scheduled)
				e->scheduled(e->ctx, e, t);
		}
		for (size_t i = 0; e->fetch && i < t->s.nfetch; i++)
			e->fetch(e->ctx, e, t->s.fetch[i], now);
		if (t->s.n > 0)
			continue;
		/* Nothing to run: whatever has ended is seen now. */
		if (e->under_way > 0 || e->nended == 0)
			break;
		see_ended(e, now);
		e->wants = false;
	}
	return err;
}
