/* Sums are kept per step and engine, so that those of a request are one subtraction. */
#include "sim/fit/fitrun.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

const char *const fit_term_names[FIT_TERMS] = {"a", "b", "c", "d", "e"};

/* Sums over all steps so far. */
struct sums {
	double term[FIT_TERMS];
};

struct rank {
	struct stepper e;
	struct sums total; /* of all scheduled steps */
	struct sums
		before[SCHED_STEPS]; /* of a step under way: with it, by its place in the ring */
	struct sums done;	     /* of all finished steps */
	int64_t end[SCHED_STEPS];
};

struct flight {
	struct seq seq;
	struct rank *rank;
	struct sums from, first;
};

struct world {
	const struct fit_engine *cfg;
	const struct fit_request *r;
	struct fit_outcome *out;
	struct rank *rank;
	struct flight *flight;
	size_t n;
};

static void scheduled(void *ctx, struct stepper *e, const struct stepper_step *t)
{
	struct rank *k = ctx;
	struct stepload l = stepcost_load(&t->s);
	const double term[FIT_TERMS] = {1, l.prefill, (double)l.decodes, (double)l.context,
					l.attention};

	for (size_t i = 0; i < FIT_TERMS; i++)
		k->total.term[i] += term[i];
	k->before[t - e->step] = k->total;
}

/* As vLLM's own balancer: the rank with the least of 4 * waiting + running. */
static struct rank *least_loaded(struct world *w)
{
	struct rank *best = w->rank;

	for (uint32_t i = 1; i < w->cfg->ranks; i++) {
		const struct sched *s = &w->rank[i].e.sched, *b = &best->e.sched;

		if (4 * s->wait.n + s->nrun < 4 * b->wait.n + b->nrun)
			best = &w->rank[i];
	}
	return best;
}

static void arrive(struct world *w, size_t i)
{
	struct flight *f = &w->flight[i];
	int64_t next;

	f->rank = least_loaded(w);
	/* What runs now is waited for, not paid for. */
	next = stepper_next(&f->rank->e);
	w->out[i].waited_ms = next == CLOCK_NEVER ? 0 : (double)(next - w->r[i].arrival_ns) / 1e6;
	f->from = next == CLOCK_NEVER ? f->rank->total : f->rank->before[f->rank->e.oldest];
	f->seq = (struct seq){
		.id = i, .prompt = w->r[i].prompt, .output = w->r[i].output, .owner = f};
	stepper_add(&f->rank->e, &f->seq, w->r[i].arrival_ns);
}

static void note(struct world *w, struct rank *k, const struct sums *upto, int64_t now)
{
	for (size_t i = 0; i < k->e.sched.nout; i++) {
		const struct sched_output *o = &k->e.sched.out[i];
		struct flight *f = o->seq->owner;
		size_t n = (size_t)(f - w->flight);
		double ms = (double)(now - w->r[n].arrival_ns) / 1e6;

		if (o->marks & SCHED_FIRST) {
			w->out[n].ttft_ms = ms;
			f->first = *upto;
			for (size_t t = 0; t < FIT_TERMS; t++)
				w->out[n].until_first[t] = upto->term[t] - f->from.term[t];
		}
		if (!(o->marks & SCHED_DONE))
			continue;
		w->out[n].e2e_ms = ms;
		for (size_t t = 0; t < FIT_TERMS; t++)
			w->out[n].until_last[t] = upto->term[t] - f->first.term[t];
	}
}

static int finish(struct world *w, struct rank *k, int64_t now)
{
	struct sums upto = k->before[k->e.oldest];
	int err = stepper_finish(&k->e);

	if (!err)
		note(w, k, &upto, now);
	return err;
}

static int schedule(struct world *w, int64_t now)
{
	int err = PD_OK;

	if (w->cfg->lockstep && w->cfg->ranks > 1) {
		struct stepper *group[SCHED_RANKS_MAX];

		for (uint32_t i = 0; i < w->cfg->ranks; i++)
			group[i] = &w->rank[i].e;
		return stepper_schedule_group(group, w->cfg->ranks, now);
	}
	for (uint32_t i = 0; !err && i < w->cfg->ranks; i++)
		if (stepper_wants(&w->rank[i].e))
			err = stepper_schedule(&w->rank[i].e, now);
	return err;
}

static int loop(struct world *w)
{
	size_t next = 0;
	int err = PD_OK;

	while (!err) {
		int64_t now = next < w->n ? w->r[next].arrival_ns : CLOCK_NEVER;

		for (uint32_t i = 0; i < w->cfg->ranks; i++) {
			int64_t end = stepper_next(&w->rank[i].e);

			now = end < now ? end : now;
		}
		if (now == CLOCK_NEVER)
			break;
		for (uint32_t i = 0; !err && i < w->cfg->ranks; i++)
			if (stepper_next(&w->rank[i].e) <= now)
				err = finish(w, &w->rank[i], now);
		while (next < w->n && w->r[next].arrival_ns <= now)
			arrive(w, next++);
		if (!err)
			err = schedule(w, now);
	}
	return err;
}

int fit_run(const struct fit_engine *engine, const struct stepcost *cost,
	    const struct fit_request *r, size_t n, struct fit_outcome *out, struct pd_msg *msg)
{
	struct stepper_config cfg = {.sched = engine->sched, .cost = *cost};
	struct world w = {.cfg = engine, .r = r, .out = out, .n = n};
	int err = PD_OK;

	memset(out, 0, n * sizeof(*out));
	w.rank = calloc(engine->ranks, sizeof(*w.rank));
	w.flight = calloc(n, sizeof(*w.flight));
	if (!w.rank || !w.flight)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	for (uint32_t i = 0; !err && i < engine->ranks; i++) {
		err = stepper_init(&w.rank[i].e, &cfg, msg);
		w.rank[i].e.scheduled = scheduled;
		w.rank[i].e.scheduled_ctx = &w.rank[i];
		w.rank[i].e.free_at = engine->cold_ns;
	}
	for (size_t i = 0; !err && i < n; i++)
		if (!sched_fits(&w.rank[0].e.sched, r[i].prompt, r[i].output))
			err = pd_fail(
				msg, PD_EINVAL,
				"request %zu: found %" PRIu64
				" tokens, which exceed the engine's memory or length: expected "
				"one that it ran",
				i + 1, (uint64_t)r[i].prompt + r[i].output);
	if (!err) {
		err = loop(&w);
		if (err)
			(void)pd_fail(msg, err, "cannot run the engine: %s", pd_err_text(err));
	}
	for (size_t i = 0; w.flight && i < n; i++) {
		if (!err && w.flight[i].seq.state != SEQ_DONE)
			err = pd_fail(msg, PD_EINVAL, "request %zu waits for ever", i + 1);
		free(w.flight[i].seq.block);
	}
	for (uint32_t i = 0; w.rank && i < engine->ranks; i++)
		stepper_release(&w.rank[i].e);
	free(w.rank);
	free(w.flight);
	return err;
}
