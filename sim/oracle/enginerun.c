/*
 * The clock of the traces: at one instant ends of transfers come first, then results, then
 * arrivals, then schedule(); of a pair the prefill engine acts first. Transfers do not slow each
 * other.
 */
#include "sim/oracle/enginerun.h"

#include <inttypes.h>
#include <stdlib.h>

#include "lib/base/clock.h"

struct flight {
	struct seq seq;
	const struct enginecase_request *r;
	int64_t first, last, transfer_begin, transfer_end;
	uint32_t held;
};

/* A transfer under way; few at a time, kept in order of (end, id). */
struct transfer {
	int64_t at;
	struct flight *on[2]; /* who is told; NULL: nobody */
};

struct machine {
	const struct enginecase *c;
	struct enginerun_out *out;
	struct stepper engine[2];
	size_t engines;
	struct flight *flight[2];  /* owned; one per request and engine */
	struct transfer *transfer; /* owned */
	size_t ntransfers, transfer_cap;
	int64_t now;
	size_t done;
	int err;
};

void enginerun_out_init(struct enginerun_out *out)
{
	for (size_t i = 0; i < 2; i++) {
		buf_init(&out->steps[i], ENGINERUN_OUT_MAX);
		buf_init(&out->requests[i], ENGINERUN_OUT_MAX);
	}
}

void enginerun_out_release(struct enginerun_out *out)
{
	for (size_t i = 0; i < 2; i++) {
		buf_release(&out->steps[i]);
		buf_release(&out->requests[i]);
	}
}

static void keep(struct machine *m, int err)
{
	if (!m->err)
		m->err = err;
}

static int us(struct buf *b, const char *name, int64_t ns)
{
	return buf_printf(b, ", \"%s\": %" PRId64, name, ns / NS_PER_US);
}

/* ---- rows ---- */

static int entries(struct buf *b, const struct sched_step *s, enum sched_part part, bool starts,
		   bool *any)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < s->n; i++) {
		const struct sched_entry *e = &s->entry[i];

		if (starts && e->part != part)
			continue;
		err = buf_printf(b, "%s\"%" PRIu64 "\": %u", *any ? ", " : "", e->seq->id,
				 starts ? e->start : e->tokens);
		*any = true;
	}
	return err;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = (*(struct seq *const *)a)->id, y = (*(struct seq *const *)b)->id;

	return x < y ? -1 : x > y;
}

static int row(struct buf *b, const struct stepper_step *t, bool remote)
{
	static const enum sched_part order[] = {SCHED_ADMITTED, SCHED_RESUMED, SCHED_RUNNING};
	const struct sched_step *s = &t->s;
	bool any = false;
	int err = buf_printf(b, "{\"scheduled_us\": %" PRId64, t->scheduled / NS_PER_US);

	err = err ? err : us(b, "begin_us", t->begin);
	err = err ? err : us(b, "end_us", t->end);
	err = err ? err : buf_puts(b, ", \"start\": {");
	for (size_t i = 0; !err && i < 3; i++)
		err = entries(b, s, order[i], true, &any);
	any = false;
	err = err ? err : buf_puts(b, "}, \"tokens\": {");
	err = err ? err : entries(b, s, SCHED_RUNNING, false, &any);
	err = err ? err : buf_puts(b, "}, \"preempted\": [");
	if (s->npreempted > 1)
		qsort(s->preempted, s->npreempted, sizeof(struct seq *), by_id);
	for (size_t i = 0; !err && i < s->npreempted; i++)
		err = buf_printf(b, "%s%" PRIu64, i ? ", " : "", s->preempted[i]->id);
	err = err ? err
		  : buf_printf(b, "], \"running\": %zu, \"waiting\": %zu", s->running, s->waiting);
	if (!err && remote)
		err = buf_printf(b, ", \"waiting_remote\": %zu", s->remote);
	return err ? err : buf_printf(b, ", \"free_blocks\": %zu}\n", s->free_blocks);
}

static void scheduled(void *ctx, struct stepper *e, const struct stepper_step *t)
{
	struct machine *m = ctx;

	keep(m, row(&m->out->steps[e - m->engine], t, m->c->role != ENGINECASE_ALONE));
}

static void watched(void *ctx, struct stepper *e, const struct stepper_step *t)
{
	(void)e;
	(void)!row(ctx, t, false);
}

void enginerun_watch(struct stepper *e, struct buf *rows)
{
	e->scheduled = watched;
	e->scheduled_ctx = rows;
}

static int request_row(struct buf *b, const struct machine *m, const struct flight *f, bool decode,
		       bool prefill)
{
	int err = buf_printf(b, "{\"id\": %" PRId64 ", \"cached\": %u", f->r->id, f->seq.cached);

	if (!err && decode)
		err = buf_printf(b, ", \"fetched_blocks\": %u", f->seq.fetched);
	if (!err && decode && f->transfer_begin >= 0) {
		err = us(b, "transfer_begin_us", f->transfer_begin);
		err = err ? err : us(b, "transfer_end_us", f->transfer_end);
	} else if (!err && decode) {
		err = buf_puts(b, ", \"transfer_begin_us\": null, \"transfer_end_us\": null");
	}
	err = err ? err : buf_printf(b, ", \"preemptions\": %u", f->seq.preemptions);
	err = err ? err : us(b, "first_us", f->first);
	err = err ? err : us(b, "last_us", f->last);
	if (!err && prefill) {
		err = buf_printf(b, ", \"held_blocks\": %u", f->held);
		err = err ? err : us(b, "released_us", f->transfer_end);
	}
	(void)m;
	return err ? err : buf_puts(b, "}\n");
}

/* ---- transfers ---- */

static int transfer_add(struct machine *m, struct transfer t)
{
	size_t cap = m->transfer_cap ? m->transfer_cap * 2 : 64, at = m->ntransfers;
	struct transfer *grown;

	if (m->ntransfers == m->transfer_cap) {
		grown = reallocarray(m->transfer, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		m->transfer = grown;
		m->transfer_cap = cap;
	}
	for (; at > 0 && m->transfer[at - 1].at > t.at; at--)
		m->transfer[at] = m->transfer[at - 1];
	m->transfer[at] = t;
	m->ntransfers++;
	return PD_OK;
}

static int64_t duration(const struct machine *m, uint32_t blocks)
{
	return m->c->transfer_ns + m->c->transfer_block_ns * blocks;
}

static void fetch(void *ctx, struct stepper *e, struct seq *q, int64_t now)
{
	struct machine *m = ctx;
	struct flight *f = q->owner;
	size_t side = (size_t)(e - m->engine);

	f->transfer_begin = now;
	f->transfer_end = now + duration(m, q->fetched);
	keep(m, transfer_add(m, (struct transfer){
					f->transfer_end,
					{side ? m->flight[0] + (f - m->flight[1]) : NULL, f}}));
}

static void released(void *ctx, struct stepper *e, struct seq *q)
{
	struct machine *m = ctx;
	struct flight *f = q->owner;
	int64_t seen = m->now;

	(void)e;
	f->transfer_end = seen;
}

/* ---- the loop ---- */

static void arrive(struct machine *m, size_t side, size_t i)
{
	const struct enginecase_request *r = &m->c->req[i];
	struct flight *f = &m->flight[side][i];
	bool hold = m->c->role == ENGINECASE_PREFILL || (m->engines == 2 && side == 0);
	bool remote = side == 1 || (m->c->role == ENGINECASE_DECODE && r->remote_blocks > 0);

	*f = (struct flight){.r = r, .transfer_begin = -1};
	f->seq = (struct seq){.id = (uint64_t)r->id,
			      .name = m->c->name + r->name,
			      .nnames = r->nnames,
			      .prompt = r->prompt,
			      .output = hold ? 1 : r->output,
			      .kv = hold     ? SEQ_HOLD
				    : remote ? SEQ_FETCH
					     : SEQ_LOCAL,
			      .owner = f};
	stepper_add(&m->engine[side], &f->seq, m->now);
}

static void outputs(struct machine *m, size_t side)
{
	const struct sched *s = &m->engine[side].sched;

	for (size_t i = 0; i < s->nout; i++) {
		const struct sched_output *o = &s->out[i];
		struct flight *f = o->seq->owner;

		if (o->marks & SCHED_FIRST)
			f->first = m->now;
		if (!(o->marks & SCHED_DONE))
			continue;
		f->last = m->now;
		f->held = o->seq->held;
		m->done++;
		if (side == 0 && m->engines == 2)
			arrive(m, 1, (size_t)(f - m->flight[0]));
		else if (o->seq->kv == SEQ_HOLD)
			keep(m, transfer_add(m, (struct transfer){m->now + f->r->hold_ns +
									  duration(m, f->held),
								  {f, NULL}}));
	}
}

static void end_transfers(struct machine *m)
{
	size_t n = 0;

	while (n < m->ntransfers && m->transfer[n].at <= m->now) {
		struct transfer t = m->transfer[n++];
		size_t decode = m->engines - 1;

		if (t.on[0])
			keep(m, stepper_told(&m->engine[0], &t.on[0]->seq, m->now));
		if (t.on[1])
			keep(m, stepper_told(&m->engine[decode], &t.on[1]->seq, m->now));
	}
	for (size_t i = n; i < m->ntransfers; i++)
		m->transfer[i - n] = m->transfer[i];
	m->ntransfers -= n;
}

static int64_t earliest(const struct machine *m, size_t next)
{
	int64_t at = next < m->c->n ? m->c->req[next].arrival_ns : CLOCK_NEVER;

	for (size_t k = 0; k < m->engines; k++) {
		int64_t end = stepper_next(&m->engine[k]);

		at = end < at ? end : at;
	}
	if (m->ntransfers > 0 && m->transfer[0].at < at)
		at = m->transfer[0].at;
	return at;
}

static int loop(struct machine *m, struct pd_msg *msg)
{
	size_t next = 0;

	while (!m->err) {
		int64_t at = earliest(m, next);

		if (at == CLOCK_NEVER)
			break;
		m->now = at;
		end_transfers(m);
		for (size_t k = 0; k < m->engines && !m->err; k++) {
			while (!m->err && stepper_next(&m->engine[k]) <= at) {
				keep(m, stepper_finish(&m->engine[k]));
				outputs(m, k);
			}
		}
		while (next < m->c->n && m->c->req[next].arrival_ns <= at)
			arrive(m, 0, next++);
		for (size_t k = 0; k < m->engines && !m->err; k++)
			if (stepper_wants(&m->engine[k]))
				keep(m, stepper_schedule(&m->engine[k], at));
	}
	if (m->err)
		return pd_fail(msg, m->err, "cannot run the engine: %s", pd_err_text(m->err));
	if (m->done < m->c->n * m->engines)
		return pd_fail(msg, PD_EBUSY, "%zu requests wait for ever: the memory is too small",
			       m->c->n * m->engines - m->done);
	return PD_OK;
}

static int write_requests(struct machine *m)
{
	int err = PD_OK;

	for (size_t k = 0; k < m->engines; k++) {
		bool prefill = m->c->role == ENGINECASE_PREFILL || (m->engines == 2 && k == 0);
		bool decode = m->c->role == ENGINECASE_DECODE || k == 1;

		for (size_t i = 0; !err && i < m->c->n; i++)
			err = request_row(&m->out->requests[k], m, &m->flight[k][i], decode,
					  prefill);
	}
	return err;
}

int enginerun(const struct enginecase *c, struct enginerun_out *out, struct pd_msg *msg)
{
	struct machine m = {.c = c, .out = out, .engines = c->role == ENGINECASE_PAIR ? 2 : 1};
	int err = PD_OK;

	for (size_t k = 0; !err && k < m.engines; k++) {
		err = stepper_init(&m.engine[k], k ? &c->decode : &c->engine, msg);
		m.engine[k].scheduled = scheduled;
		m.engine[k].fetch = fetch;
		m.engine[k].released = released;
		m.engine[k].ctx = m.engine[k].scheduled_ctx = &m;
		m.flight[k] = calloc(c->n, sizeof(*m.flight[k]));
		if (!err && !m.flight[k])
			err = pd_fail(msg, PD_ENOMEM, "out of memory for %zu requests", c->n);
	}
	if (!err)
		err = loop(&m, msg);
	if (!err && write_requests(&m))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t k = 0; k < m.engines; k++) {
		for (size_t i = 0; m.flight[k] && i < c->n; i++)
			free(m.flight[k][i].seq.block);
		stepper_release(&m.engine[k]);
		free(m.flight[k]);
	}
	free(m.transfer);
	return err;
}
