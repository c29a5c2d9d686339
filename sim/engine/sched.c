/*
 * The letters of the rules: B block size, P prompt, M output, o tokens made, T = P + o (known
 * tokens), c computed tokens (those of steps under way count), h placeholders (outputs that steps
 * under way will make), f tokens of steps under way.
 */
#include "sim/engine/sched.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/rng.h"

int sched_config_check(const struct sched_config *c, struct pd_msg *msg)
{
	if (c->block_size == 0 || c->block_size > 1u << 20)
		return pd_fail(msg, PD_EINVAL, "'block_size': found %u, expected 1 to 1048576",
			       c->block_size);
	if (c->num_blocks == 1 || c->num_blocks > KVPOOL_BLOCKS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "'num_blocks': found %u, expected 2 to %u, or 0 for no limit",
			       c->num_blocks, KVPOOL_BLOCKS_MAX);
	if (c->max_num_seqs == 0 || c->max_num_seqs > SCHED_SEATS_MAX)
		return pd_fail(msg, PD_EINVAL, "'max_num_seqs': found %u, expected 1 to %u",
			       c->max_num_seqs, SCHED_SEATS_MAX);
	if (c->max_num_batched_tokens == 0 || c->max_num_batched_tokens > SCHED_BUDGET_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "'max_num_batched_tokens': found %u, expected 1 to %u",
			       c->max_num_batched_tokens, SCHED_BUDGET_MAX);
	if (!(c->watermark >= 0 && c->watermark < 1))
		return pd_fail(msg, PD_EINVAL,
			       "'watermark': found %g, expected a number from 0 to 1",
			       c->watermark);
	return PD_OK;
}

int sched_init(struct sched *s, const struct sched_config *cfg)
{
	*s = (struct sched){.cfg = *cfg};
	s->kv = kvpool_new(cfg->num_blocks ? cfg->num_blocks - 1 : 0);
	return s->kv ? PD_OK : PD_ENOMEM;
}

void sched_release_all(struct sched *s)
{
	kvpool_free(s->kv);
	free(s->run);
	free(s->out);
	*s = (struct sched){.cfg = s->cfg};
}

void sched_step_release(struct sched_step *step)
{
	free(step->entry);
	free(step->preempted);
	free(step->fetch);
	*step = (struct sched_step){0};
}

static uint32_t blocks_of(const struct sched *s, uint64_t tokens)
{
	return (uint32_t)((tokens + s->cfg.block_size - 1) / s->cfg.block_size);
}

static uint32_t known(const struct seq *q)
{
	return q->prompt + q->made;
}

bool sched_fits(const struct sched *s, uint32_t prompt, uint32_t output)
{
	uint64_t tokens = (uint64_t)prompt + output;
	struct kvpool_stats kv;

	if (s->cfg.max_model_len && tokens > s->cfg.max_model_len)
		return false;
	kvpool_stats(s->kv, &kv);
	/* The last token is never computed and takes no room. */
	return (tokens - 1 + s->cfg.block_size - 1) / s->cfg.block_size <= kv.usable;
}

/* ---- lists ---- */

static void queue_append(struct seq_queue *l, struct seq *q)
{
	q->prev = l->tail;
	q->next = NULL;
	if (l->tail)
		l->tail->next = q;
	else
		l->head = q;
	l->tail = q;
	l->n++;
}

static void queue_prepend(struct seq_queue *l, struct seq *q)
{
	q->prev = NULL;
	q->next = l->head;
	if (l->head)
		l->head->prev = q;
	else
		l->tail = q;
	l->head = q;
	l->n++;
}

static void queue_remove(struct seq_queue *l, struct seq *q)
{
	if (q->prev)
		q->prev->next = q->next;
	else
		l->head = q->next;
	if (q->next)
		q->next->prev = q->prev;
	else
		l->tail = q->prev;
	q->prev = q->next = NULL;
	l->n--;
}

/* Makes room for one more element of an owned array. */
static int more(void *array, size_t n, size_t *cap, size_t size)
{
	void **at = array, *grown;
	size_t want = *cap ? *cap * 2 : 32;

	if (n < *cap)
		return PD_OK;
	grown = reallocarray(*at, want, size);
	if (!grown)
		return PD_ENOMEM;
	*at = grown;
	*cap = want;
	return PD_OK;
}

/* ---- blocks of a request ---- */

static uint64_t name_of(const struct seq *q, size_t i)
{
	uint64_t state = q->id * UINT64_C(0x9e3779b97f4a7c15) + i;

	return i < q->nnames ? q->name[i] : rng_splitmix(&state);
}

static void name_until(struct sched *s, struct seq *q, uint64_t tokens)
{
	uint32_t full = (uint32_t)(tokens / s->cfg.block_size), before = q->named;

	if (!s->cfg.prefix_caching)
		return;
	for (; q->named < full && q->named < q->nblocks; q->named++)
		kvpool_name(s->kv, q->block[q->named], name_of(q, q->named));
	if (s->named && q->named > before)
		s->named(s->ctx, q, before, q->named);
}

/* Leading blocks in the cache; the last known token is always computed. */
static uint32_t look_up(const struct sched *s, const struct seq *q, size_t *idle)
{
	size_t max = (known(q) - 1) / s->cfg.block_size, given = max < q->nnames ? max : q->nnames,
	       hits, one;

	*idle = 0;
	if (!s->cfg.prefix_caching)
		return 0;
	hits = kvpool_match(s->kv, q->name, given, idle);
	/* Names of its own: nobody has such blocks but a request that ran before. */
	for (; hits >= q->nnames && hits < max && q->preemptions > 0; hits++, *idle += one) {
		uint64_t name = name_of(q, hits);

		if (kvpool_match(s->kv, &name, 1, &one) == 0)
			break;
	}
	return (uint32_t)hits;
}

static int reserve_blocks(struct seq *q, uint32_t n)
{
	uint32_t cap = q->block_cap ? q->block_cap : 8;
	uint32_t *block;

	if (n <= q->block_cap)
		return PD_OK;
	while (cap < n)
		cap *= 2;
	block = reallocarray(q->block, cap, sizeof(*block));
	if (!block)
		return PD_ENOMEM;
	q->block = block;
	q->block_cap = cap;
	return PD_OK;
}

/* `add` blocks from the head of the free queue behind those that it has. */
static int take_blocks(struct sched *s, struct seq *q, uint32_t add)
{
	int err;

	if (add == 0)
		return PD_OK;
	err = reserve_blocks(q, q->nblocks + add);
	if (!err)
		err = kvpool_take(s->kv, q->block + q->nblocks, add);
	if (!err)
		q->nblocks += add;
	return err;
}

static int hold_hits(struct sched *s, struct seq *q, uint32_t hits)
{
	uint32_t given = hits < q->nnames ? hits : (uint32_t)q->nnames;
	int err = reserve_blocks(q, hits);

	if (err)
		return err;
	kvpool_hold(s->kv, q->name, given, q->block);
	for (uint32_t i = given; i < hits; i++) {
		uint64_t name = name_of(q, i);

		kvpool_hold(s->kv, &name, 1, q->block + i);
	}
	q->nblocks = q->named = hits;
	return PD_OK;
}

static void drop_blocks(struct sched *s, struct seq *q)
{
	kvpool_drop(s->kv, q->block, q->nblocks);
	q->nblocks = q->named = 0;
}

static void forget_blocks(struct seq *q)
{
	free(q->block);
	q->block = NULL;
	q->block_cap = 0;
}

/* ---- schedule() ---- */

struct pass {
	struct sched_step *step;
	uint32_t budget, threshold;
	bool preempted;
};

static uint32_t chunk(const struct pass *p, uint32_t n)
{
	if (p->threshold && n > p->threshold)
		n = p->threshold;
	return n < p->budget ? n : p->budget;
}

static int add_entry(struct sched *s, struct pass *p, struct seq *q, uint32_t n,
		     enum sched_part part)
{
	struct sched_step *t = p->step;
	int err = more(&t->entry, t->n, &t->cap, sizeof(*t->entry));

	(void)s;
	if (err)
		return err;
	t->entry[t->n++] =
		(struct sched_entry){.seq = q, .start = q->computed, .tokens = n, .part = part};
	p->budget -= n;
	return PD_OK;
}

static int preempt_last(struct sched *s, struct pass *p)
{
	struct sched_step *t = p->step;
	struct seq *q = s->run[s->nrun - 1];
	int err = more(&t->preempted, t->npreempted, &t->preempted_cap, sizeof(struct seq *));

	if (err)
		return err;
	s->nrun--;
	drop_blocks(s, q);
	q->computed = q->holders = 0;
	q->stale += q->under_way;
	q->under_way = 0;
	q->state = SEQ_WAITING;
	q->kv = q->kv == SEQ_FETCH ? SEQ_LOCAL : q->kv;
	q->preemptions++;
	queue_prepend(&s->wait, q);
	s->preemptions++;
	t->preempted[t->npreempted++] = q;
	p->preempted = true;
	return PD_OK;
}

/* A connector that may still write into blocks of a step under way: nobody is preempted then. */
static bool must_defer(const struct sched *s, const struct seq *victim)
{
	return s->cfg.async_scheduling && victim->under_way > 0 &&
	       (s->cfg.role == SCHED_BOTH || s->cfg.role == SCHED_CONSUMER);
}

static int schedule_running(struct sched *s, struct pass *p)
{
	uint32_t max = s->cfg.max_model_len;
	int err = PD_OK;

	for (size_t i = 0; !err && i < s->nrun && p->budget > 0; i++) {
		struct seq *q = s->run[i];
		uint32_t n, need, have;

		/* All outputs that it may make are under way. */
		if (q->holders > 0 && q->made + 1 >= q->output)
			continue;
		n = chunk(p, known(q) + q->holders - q->computed);
		if (max && n > max - 1 - q->computed)
			n = max - 1 - q->computed;
		if (n == 0)
			continue;
		have = q->nblocks;
		need = blocks_of(s, (uint64_t)q->computed + n);
		need = need > have ? need - have : 0;
		while (need > kvpool_available(s->kv)) {
			if (must_defer(s, s->run[s->nrun - 1]))
				return PD_OK;
			err = preempt_last(s, p);
			if (err || i >= s->nrun)
				return err;
		}
		err = take_blocks(s, q, need);
		if (err)
			return err;
		name_until(s, q,
			   (uint64_t)q->computed + n < known(q) ? (uint64_t)q->computed + n
								: known(q));
		if (q->computed + n >= known(q))
			q->prefilling = false;
		err = add_entry(s, p, q, n, SCHED_RUNNING);
	}
	return err;
}

/* Blocks that admitted prompts will still need before they are computed. */
static size_t reserved(const struct sched *s)
{
	size_t blocks = 0;

	for (size_t i = 0; i < s->nrun; i++) {
		const struct seq *q = s->run[i];
		uint32_t all = blocks_of(s, known(q));

		if (q->prefilling && all > q->nblocks)
			blocks += all - q->nblocks;
	}
	return blocks;
}

static int begin_load(struct sched *s, struct pass *p, struct seq *q, uint32_t hits)
{
	struct sched_step *t = p->step;
	int err = more(&t->fetch, t->nfetch, &t->fetch_cap, sizeof(struct seq *));

	if (!err)
		err = hold_hits(s, q, hits);
	if (!err)
		err = take_blocks(s, q, blocks_of(s, q->prompt) - hits);
	if (err)
		return err;
	queue_remove(&s->wait, q);
	q->cached = hits * s->cfg.block_size;
	q->fetched = q->nblocks - hits;
	q->computed = q->prompt;
	q->admitted = true;
	q->state = SEQ_LOADING;
	queue_append(&s->remote, q);
	t->fetch[t->nfetch++] = q;
	return PD_OK;
}

static int join(struct sched *s, struct pass *p, struct seq *q, uint32_t n)
{
	int err = more(&s->run, s->nrun, &s->run_cap, sizeof(struct seq *));

	if (!err)
		err = add_entry(s, p, q, n, q->preemptions > 0 ? SCHED_RESUMED : SCHED_ADMITTED);
	if (err)
		return err;
	q->state = SEQ_RUNNING;
	s->run[s->nrun++] = q;
	return PD_OK;
}

/* The head of the queue; *stop when it cannot join now, which ends the pass. */
static int admit(struct sched *s, struct pass *p, struct seq *q, bool *stop)
{
	uint32_t t = known(q), limit = s->cfg.max_model_len, n, all, chunk_blocks, hits;
	size_t idle, mark, free_blocks = kvpool_available(s->kv), kept;
	int err;

	hits = look_up(s, q, &idle);
	n = t - hits * s->cfg.block_size;
	mark = s->nrun > 0 ? (size_t)(s->cfg.watermark * s->cfg.num_blocks) : 0;
	all = blocks_of(s, limit && t > limit ? limit : t);
	*stop = true;
	if (!s->cfg.no_full_sequence_test &&
	    (all > hits ? all - hits : 0) + idle + mark > free_blocks)
		return PD_OK;
	if (q->kv == SEQ_FETCH) {
		kept = reserved(s);
		if (blocks_of(s, q->prompt) - hits + idle + mark + kept > free_blocks)
			return PD_OK;
		*stop = false;
		return begin_load(s, p, q, hits);
	}
	if (p->threshold && n > p->threshold)
		n = p->threshold;
	if (s->cfg.no_chunked_prefill && n > p->budget)
		return PD_OK;
	n = n < p->budget ? n : p->budget;
	chunk_blocks = blocks_of(s, (uint64_t)hits * s->cfg.block_size + n);
	if (chunk_blocks - hits + idle + mark > free_blocks)
		return PD_OK;
	*stop = false;
	err = hold_hits(s, q, hits);
	if (!err)
		err = take_blocks(s, q, chunk_blocks - hits);
	if (err)
		return err;
	queue_remove(&s->wait, q);
	q->computed = hits * s->cfg.block_size;
	name_until(s, q, (uint64_t)q->computed + n);
	if (!q->admitted)
		q->cached = q->computed;
	q->admitted = true;
	q->prefilling = q->computed + n < t;
	return join(s, p, q, n);
}

/* A loaded request computes the last token of its prompt. */
static int admit_loaded(struct sched *s, struct pass *p, struct seq *q)
{
	queue_remove(&s->remote, q);
	name_until(s, q, q->prompt);
	q->computed = q->prompt - 1;
	return join(s, p, q, 1);
}

static int schedule_waiting(struct sched *s, struct pass *p)
{
	struct seq *loading = s->remote.head, *next;
	bool stop = false;
	int err = PD_OK;

	while (!err && !stop && p->budget > 0 && s->nrun < s->cfg.max_num_seqs) {
		while (loading && loading->state == SEQ_LOADING)
			loading = loading->next;
		if (loading) {
			next = loading->next;
			err = admit_loaded(s, p, loading);
			loading = next;
			continue;
		}
		if (!s->wait.head)
			break;
		err = admit(s, p, s->wait.head, &stop);
	}
	s->stuck = stop;
	return err;
}

int sched_schedule(struct sched *s, struct sched_step *t)
{
	struct pass p = {.step = t, .budget = s->cfg.max_num_batched_tokens};
	int err;

	t->n = t->npreempted = t->nfetch = 0;
	s->stuck = false;
	if (sched_unfinished(s) > 1)
		p.threshold = s->cfg.long_prefill_token_threshold;
	err = schedule_running(s, &p);
	if (!err && !p.preempted)
		err = schedule_waiting(s, &p);
	for (size_t i = 0; i < t->n; i++) {
		struct seq *q = t->entry[i].seq;

		q->computed += t->entry[i].tokens;
		q->under_way += t->entry[i].tokens;
		if (s->cfg.async_scheduling && q->computed >= known(q) + q->holders)
			q->holders++;
	}
	t->running = s->nrun;
	t->waiting = s->wait.n;
	t->remote = s->remote.n;
	t->free_blocks = kvpool_available(s->kv);
	return err;
}

/* ---- results ---- */

static void finish(struct sched *s, struct seq *q)
{
	/* A request that waits (its last token was under way when it was preempted) leaves at
	 * once; running ones leave together, when all have been looked at. */
	if (q->state == SEQ_WAITING)
		queue_remove(&s->wait, q);
	if (q->kv == SEQ_HOLD) {
		q->held = q->nblocks;
		q->state = SEQ_HELD;
		return;
	}
	drop_blocks(s, q);
	forget_blocks(q);
	q->state = SEQ_DONE;
}

int sched_process(struct sched *s, struct sched_step *t)
{
	bool left = false;
	size_t kept = 0;

	s->nout = 0;
	for (size_t i = 0; i < t->n; i++) {
		struct seq *q = t->entry[i].seq;
		uint32_t n = t->entry[i].tokens;
		bool stale, held_place;
		unsigned marks = 0;

		if (!q || q->state == SEQ_DONE || q->state == SEQ_HELD)
			continue;
		stale = q->stale > 0;
		if (stale)
			q->stale -= n;
		else
			q->under_way -= n;
		if (t->entry[i].start + n < known(q) ||
		    (stale && s->cfg.role != SCHED_ALONE)) /* a connector drops it */
			continue;
		if (more(&s->out, s->nout, &s->out_cap, sizeof(*s->out)))
			return PD_ENOMEM;
		marks = q->made == 0 ? SCHED_FIRST : 0;
		q->made++;
		if (q->made >= q->output ||
		    (s->cfg.max_model_len && known(q) >= s->cfg.max_model_len))
			marks |= SCHED_DONE;
		held_place = q->holders > 0;
		if (held_place) {
			q->holders--;
			name_until(s, q, q->computed - q->under_way);
		}
		if (marks & SCHED_DONE) {
			left |= q->state == SEQ_RUNNING;
			finish(s, q);
		}
		s->out[s->nout++] = (struct sched_output){q, 1, marks};
	}
	if (!left)
		return PD_OK;
	for (size_t i = 0; i < s->nrun; i++)
		if (s->run[i]->state == SEQ_RUNNING)
			s->run[kept++] = s->run[i];
	s->nrun = kept;
	return PD_OK;
}

/* Rounds until a block is taken or named: that happens when c, c - 1 or c + 1 is a multiple of B.
 */
static uint32_t quiet_blocks(const struct sched *s, const struct seq *q)
{
	uint32_t b = s->cfg.block_size, at = q->computed % b;

	return at >= 2 && at + 1 < b ? b - 1 - at : 0;
}

uint32_t sched_quiet(const struct sched *s, struct sched_step *const *step, size_t under_way)
{
	uint32_t rounds = UINT32_MAX, ends = s->cfg.async_scheduling ? 2 : 1,
		 max = s->cfg.max_model_len;
	bool full = s->nrun >= s->cfg.max_num_seqs || s->nrun >= s->cfg.max_num_batched_tokens;

	if (s->nrun == 0 || (!full && !s->stuck && s->wait.n > 0))
		return 0;
	for (const struct seq *q = s->remote.head; q && !full; q = q->next)
		if (q->state == SEQ_LOADED)
			return 0;
	for (size_t k = 0; k < under_way; k++)
		if (step[k]->n != s->nrun)
			return 0;
	for (size_t i = 0; i < s->nrun && rounds > 0; i++) {
		const struct seq *q = s->run[i];
		uint32_t quiet = quiet_blocks(s, q), left = q->output - q->made;

		for (size_t k = 0; k < under_way; k++) {
			const struct sched_entry *e = &step[k]->entry[i];

			if (e->seq != q || e->tokens != 1 || e->start < q->prompt)
				return 0;
		}
		if (max)
			left = max - known(q) < left ? max - known(q) : left;
		left = left > ends ? left - ends : 0;
		quiet = left < quiet ? left : quiet;
		rounds = quiet < rounds ? quiet : rounds;
	}
	return rounds;
}

void sched_jump(struct sched *s, struct sched_step *const *step, size_t under_way, uint32_t rounds)
{
	for (size_t i = 0; i < s->nrun; i++) {
		s->run[i]->computed += rounds;
		s->run[i]->made += rounds;
		for (size_t k = 0; k < under_way; k++)
			step[k]->entry[i].start += rounds;
	}
}

void sched_add(struct sched *s, struct seq *q)
{
	PD_CHECK(q->prompt >= 1 && q->output >= 1);
	q->state = SEQ_WAITING;
	q->made = q->cached = q->fetched = q->held = q->preemptions = 0;
	q->block = NULL;
	q->nblocks = q->block_cap = q->named = 0;
	q->computed = q->holders = q->under_way = q->stale = 0;
	q->admitted = q->prefilling = false;
	queue_append(&s->wait, q);
}

void sched_loaded(struct sched *s, struct seq *q)
{
	(void)s;
	if (q->state == SEQ_LOADING)
		q->state = SEQ_LOADED;
}

void sched_unhold(struct sched *s, struct seq *q)
{
	if (q->state != SEQ_HELD)
		return;
	drop_blocks(s, q);
	forget_blocks(q);
	q->state = SEQ_DONE;
}

void sched_abort(struct sched *s, struct seq *q)
{
	size_t kept = 0;

	for (size_t k = 0; k < SCHED_STEPS; k++)
		for (size_t i = 0; s->under_way[k] && i < s->under_way[k]->n; i++)
			if (s->under_way[k]->entry[i].seq == q)
				s->under_way[k]->entry[i].seq = NULL;
	switch (q->state) {
	case SEQ_NEW:
	case SEQ_DONE:
		return;
	case SEQ_WAITING:
		queue_remove(&s->wait, q);
		break;
	case SEQ_LOADING:
	case SEQ_LOADED:
		queue_remove(&s->remote, q);
		break;
	case SEQ_RUNNING:
		for (size_t i = 0; i < s->nrun; i++)
			if (s->run[i] != q)
				s->run[kept++] = s->run[i];
		s->nrun = kept;
		break;
	case SEQ_HELD:
		break;
	}
	drop_blocks(s, q);
	forget_blocks(q);
	q->state = SEQ_DONE;
}
