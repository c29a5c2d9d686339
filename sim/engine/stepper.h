/*
 * One engine in time: the loop around the scheduler. Synchronous: schedule, run, process the
 * result. Asynchronous: up to two steps are under way, so that a request that arrives during step k
 * first runs in step k + 2.
 *
 * Time is an argument, so the simulator drives it with virtual time and the live worker with the
 * clock. At one instant the owner calls, in this order: stepper_told() for transfers that ended,
 * stepper_finish() while stepper_next() is not later than now, stepper_add() for arrivals, then
 * stepper_schedule() if stepper_wants(). Nothing happens between these calls: the next thing to do
 * is at stepper_next().
 *
 * Between two changes of the batch all steps are of one kind, each a little longer than the one
 * before. With `jump` they are taken at once, in closed form, to the same nanosecond.
 *
 * Ends of transfers are seen by the engine when the result of a step is processed, or at once when
 * nothing is under way. Times are nanoseconds. Not thread-safe: one owner.
 */
#ifndef PD_SIM_ENGINE_STEPPER_H
#define PD_SIM_ENGINE_STEPPER_H

#include "sim/engine/stepcost.h"

#define SCHED_RANKS_MAX 64

struct stepper_config {
	struct sched_config sched;
	struct stepcost cost;
	bool poll_begin; /* a step shows ends until its begin; else until its end */
	bool jump;	 /* take steps between two changes at once; needs a cost without whole_us */
};

struct stepper_step {
	struct sched_step s;
	int64_t scheduled, begin, end;
};

struct stepper_end {
	int64_t at;
	struct seq *seq;
};

struct stepper {
	struct stepper_config cfg;
	struct sched sched;
	struct stepper_step step[SCHED_STEPS]; /* ring; the oldest at `oldest` */
	size_t oldest, under_way;
	int64_t free_at;       /* end of the last step */
	uint32_t fraction;     /* of a nanosecond, that this end is later */
	uint32_t quiet;	       /* rounds that are skipped unless something happens */
	stepcost_time longest; /* duration of the last step */
	stepcost_time growth;  /* how much longer each one behind it is */
	bool wants;
	struct stepper_end *ended; /* owned; told and not yet seen, in order of (at, id) */
	size_t nended, ended_cap;
	/* Called for each step with tokens, when it was scheduled; and for each load that begins.
	 * NULL: not. `scheduled_ctx`, for the others `ctx`,
	 * is passed on. */
	void (*scheduled)(void *ctx, struct stepper *e, const struct stepper_step *step);
	void (*fetch)(void *ctx, struct stepper *e, struct seq *q, int64_t now);
	/* Blocks of a request with SEQ_HOLD are free again: its transfer's end was seen. */
	void (*released)(void *ctx, struct stepper *e, struct seq *q);
	void *ctx, *scheduled_ctx;
	uint64_t steps;
	int64_t busy; /* time spent in steps */
};

int stepper_init(struct stepper *e, const struct stepper_config *cfg, struct pd_msg *msg) PD_MUST;
/* Sequences are not touched: the owner has ended or forgotten them. */
void stepper_release(struct stepper *e);

void stepper_add(struct stepper *e, struct seq *q, int64_t now);
void stepper_abort(struct stepper *e, struct seq *q, int64_t now);

/* Steps that are scheduled from now on cost this; it passed stepcost_check(). */
void stepper_cost(struct stepper *e, const struct stepcost *cost, int64_t now);

/* A transfer from or to this engine has ended at `now`: the blocks of a loading request have
 * arrived, or those of a held one may go. PD_ENOMEM. */
int stepper_told(struct stepper *e, struct seq *q, int64_t now) PD_MUST;

/* When the oldest step under way ends, or the one that a jump leads to; CLOCK_NEVER without one. */
int64_t stepper_next(const struct stepper *e);

/* Processes the result of that step: e->sched.out[0..nout). Tokens of steps that were jumped over
 * are in seq.made and not in the output. */
int stepper_finish(struct stepper *e) PD_MUST;

/* Something changed since the last stepper_schedule(). */
static inline bool stepper_wants(const struct stepper *e)
{
	return e->wants;
}

/* Schedules as many steps as may be under way. */
int stepper_schedule(struct stepper *e, int64_t now) PD_MUST;

/*
 * The same for data-parallel ranks in lockstep (an expert-parallel group): their steps begin
 * together and last as long as the slowest; a rank without work takes an empty one. They have one
 * configuration, without jumps, and are scheduled by this call only.
 */
int stepper_schedule_group(struct stepper *const *e, size_t n, int64_t now) PD_MUST;

#endif
