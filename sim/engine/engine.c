/*
 * Everything happens in pump(): after each event that may free a seat, blocks or the prefill unit,
 * jobs are admitted from the head of the queue until one does not fit.
 */
#include "sim/engine/engine.h"

#include <math.h>
#include <string.h>

#include "lib/base/clock.h"

int engine_init(struct engine *e, const struct engine_config *cfg)
{
	*e = (struct engine){.cfg = *cfg};
	if (cfg->block_size == 0 || cfg->max_num_seqs == 0 || !(cfg->speedup > 0))
		return PD_EINVAL;
	e->cache = kvcache_new(cfg->num_blocks);
	return e->cache ? PD_OK : PD_ENOMEM;
}

void engine_release(struct engine *e)
{
	kvcache_free(e->cache);
	e->cache = NULL;
}

/* The KV of the last output token is never needed, so it takes no room. */
size_t engine_blocks(const struct engine *e, size_t prompt_tokens, size_t output_tokens,
		     size_t copies)
{
	size_t bs = e->cfg.block_size;
	size_t one = (prompt_tokens + output_tokens - 1 + bs - 1) / bs;

	return one + (copies - 1) * (one - prompt_tokens / bs);
}

static int64_t scaled_ns(const struct engine *e, double ns)
{
	ns /= e->cfg.speedup;
	return ns < (double)CLOCK_NEVER ? (int64_t)llround(ns) : CLOCK_NEVER;
}

static int64_t prefill_ns(const struct engine *e, const struct engine_job *job, size_t cached)
{
	if (job->remote || !(e->cfg.prefill_tokens_per_s > 0))
		return 0;
	return scaled_ns(e, (double)(job->prompt_tokens - cached) / e->cfg.prefill_tokens_per_s *
				    (double)NS_PER_S);
}

static void dequeue(struct engine *e, struct engine_job *job)
{
	if (job->prev)
		job->prev->next = job->next;
	else
		e->head = job->next;
	if (job->next)
		job->next->prev = job->prev;
	else
		e->tail = job->prev;
	job->prev = job->next = NULL;
	e->waiting--;
}

/* Admits jobs from the head of the queue until one does not fit. */
static void pump(struct engine *e, int64_t now)
{
	struct engine_job *job;

	while ((job = e->head)) {
		bool seat = e->seats + job->seats <= e->cfg.max_num_seqs;
		bool waited = job->blocked_on_prefill;
		/* As in vLLM one prompt token is computed, whatever the cache holds. */
		size_t hits = (job->prompt_tokens - 1) / e->cfg.block_size;
		int64_t start = now, cost;
		int err;

		job->blocked_on_prefill = seat && e->prefilling && prefill_ns(e, job, 0) > 0;
		if (!seat || job->blocked_on_prefill)
			return;
		err = kvcache_pin(
			e->cache, job->hash, hits < job->nhash ? hits : job->nhash,
			engine_blocks(e, job->prompt_tokens, job->output_tokens, job->copies),
			&job->pin);
		if (err == PD_EBUSY)
			return;
		dequeue(e, job);
		job->state = err ? ENGINE_FAILED : ENGINE_RUNNING;
		if (!err) {
			job->cached_tokens = job->pin.hits * e->cfg.block_size;
			cost = prefill_ns(e, job, job->cached_tokens);
			/* Back to back: the unit was idle only until the thread of the prompt
			 * before had run. */
			if (waited && e->prefill_free < now)
				start = e->prefill_free > job->submitted ? e->prefill_free
									 : job->submitted;
			job->admitted = now;
			job->prefill_end = start + cost;
			if (cost > 0)
				e->prefilling = job;
			e->running++;
			e->seats += job->seats;
			e->queried_tokens += job->prompt_tokens;
			e->hit_tokens += job->cached_tokens;
		}
		if (job->wake)
			job->wake(job);
	}
}

int engine_submit(struct engine *e, struct engine_job *job, int64_t now)
{
	void (*wake)(struct engine_job *) = job->wake;
	size_t blocks = engine_blocks(e, job->prompt_tokens, job->output_tokens, job->copies);

	if (e->cfg.num_blocks && blocks > e->cfg.num_blocks)
		return PD_ETOOBIG;
	job->seats = job->copies < e->cfg.max_num_seqs ? job->copies : e->cfg.max_num_seqs;
	job->submitted = now;
	job->state = ENGINE_WAITING;
	job->blocked_on_prefill = job->prefilled = false;
	job->pin = (struct kvcache_pin){0};
	job->generated = 0;
	job->prev = e->tail;
	job->next = NULL;
	if (e->tail)
		e->tail->next = job;
	else
		e->head = job;
	e->tail = job;
	e->waiting++;
	job->wake = NULL;
	pump(e, now);
	job->wake = wake;
	if (job->state != ENGINE_FAILED)
		return PD_OK;
	job->state = ENGINE_DONE;
	return PD_ENOMEM;
}

static void commit(struct engine *e, struct engine_job *job, size_t tokens)
{
	size_t full = tokens / e->cfg.block_size;

	for (size_t i = 0; i < full && i < job->nhash; i++)
		kvcache_commit(e->cache, &job->pin, i, job->hash[i]);
}

static void leave_prefill(struct engine *e, struct engine_job *job, int64_t at)
{
	if (e->prefilling != job)
		return;
	e->prefilling = NULL;
	e->prefill_free = at;
}

void engine_fetched(const struct engine *e, struct engine_job *job, int64_t now)
{
	job->prefill_end = now + scaled_ns(e, e->cfg.decode_ms_per_token * (double)NS_PER_MS);
}

void engine_prefilled(struct engine *e, struct engine_job *job, int64_t now)
{
	commit(e, job, job->prompt_tokens);
	job->prefilled = true;
	leave_prefill(e, job, job->prefill_end < now ? job->prefill_end : now);
	pump(e, now);
}

void engine_finish(struct engine *e, struct engine_job *job, int64_t now, struct kvcache_pin *keep)
{
	if (job->state == ENGINE_WAITING)
		dequeue(e, job);
	if (job->state == ENGINE_RUNNING) {
		if (job->prefilled && job->generated > 0)
			commit(e, job, job->prompt_tokens + job->generated - 1);
		leave_prefill(e, job, now);
		e->running--;
		e->seats -= job->seats;
		if (keep) {
			*keep = job->pin;
			job->pin = (struct kvcache_pin){0};
		}
		kvcache_unpin(e->cache, &job->pin);
	}
	job->state = ENGINE_DONE;
	pump(e, now);
}

void engine_unpin(struct engine *e, struct kvcache_pin *pin, int64_t now)
{
	kvcache_unpin(e->cache, pin);
	pump(e, now);
}

int64_t engine_token_at(const struct engine *e, const struct engine_job *job, size_t k)
{
	return job->prefill_end +
	       scaled_ns(e, (double)k * e->cfg.decode_ms_per_token * (double)NS_PER_MS);
}
