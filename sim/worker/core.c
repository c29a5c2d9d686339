/*
 * A step's end is one timer for the whole batch. The thread sleeps until then; whoever changes the
 * next end wakes it.
 */
#include "sim/worker/core.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"

static void scheduled(void *ctx, struct stepper *e, const struct stepper_step *step)
{
	(void)ctx, (void)e;
	for (size_t i = 0; i < step->s.n; i++) {
		struct core_job *job = step->s.entry[i].seq->owner;

		if (step->s.entry[i].part == SCHED_ADMITTED && job->begun == 0)
			job->begun = step->begin;
	}
}

static void wake(const struct core_job *job)
{
	if (job->wake && !job->leased)
		job->wake(job->ctx);
}

static void fetch(void *ctx, struct stepper *e, struct seq *q, int64_t now)
{
	struct core_job *job = q->owner;

	(void)ctx, (void)e, (void)now;
	job->cached_tokens = q->cached;
	job->fetched_blocks = q->fetched;
	atomic_store(&job->loading, true);
	wake(job);
}

static void unlink_job(struct core *k, struct core_job *job)
{
	if (job->prev)
		job->prev->next = job->next;
	else
		k->jobs = job->next;
	if (job->next)
		job->next->prev = job->prev;
}

static void free_job(struct core_job *job)
{
	for (uint32_t i = 0; i < job->copies; i++)
		free(job->seq[i].block);
	free(job->seq);
	free(job->names);
	free(job);
}

static void released(void *ctx, struct stepper *e, struct seq *q)
{
	struct core_job *job = q->owner;

	(void)e;
	if (!job->leased)
		return;
	unlink_job(ctx, job);
	free_job(job);
}

/* -- KV events -- */

static void named(void *ctx, const struct seq *q, uint32_t from, uint32_t to)
{
	struct core *k = ctx;
	const struct core_job *job = q->owner;
	uint32_t known = q->nnames < to ? (uint32_t)q->nnames : to;

	/* A block without a given name can be hit by nobody. */
	if (from < known && job->ids)
		kvevents_stored(k->events, q->name, from, known, job->ids);
}

static void lost(void *ctx, uint64_t name)
{
	struct core *k = ctx;

	kvevents_removed(k->events, name);
}

void core_publish(struct core *k, struct kvevents *events)
{
	k->events = events;
	k->engine.sched.named = named;
	k->engine.sched.ctx = k;
	kvpool_watch(k->engine.sched.kv, lost, k);
}

void core_forget(struct core *k)
{
	struct kvpool_stats kv;

	(void)pthread_mutex_lock(&k->lock);
	kvpool_stats(k->engine.sched.kv, &kv);
	if (k->events && kv.held == 0) {
		kvpool_watch(k->engine.sched.kv, NULL, NULL);
		kvpool_forget(k->engine.sched.kv);
		kvpool_watch(k->engine.sched.kv, lost, k);
		kvevents_cleared(k->events);
	} else {
		kvpool_forget(k->engine.sched.kv);
	}
	(void)pthread_mutex_unlock(&k->lock);
}

int core_init(struct core *k, const struct stepper_config *cfg, struct pd_msg *msg)
{
	pthread_condattr_t attr;
	unsigned char b[16];
	int err;

	rng_system_bytes(b, sizeof(b));
	(void)snprintf(k->id, sizeof(k->id),
		       "%02x%02x%02x%02x-%02x%02x-4%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], (b[8] & 0x3f) | 0x80,
		       b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	atomic_init(&k->next, 0);
	(void)pthread_mutex_init(&k->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&k->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	err = stepper_init(&k->engine, cfg, msg);
	k->engine.ctx = k;
	k->engine.scheduled = scheduled;
	k->engine.fetch = fetch;
	k->engine.released = released;
	return err;
}

void core_release(struct core *k)
{
	for (struct core_job *job = k->jobs, *next; job; job = next) {
		next = job->next;
		free_job(job);
	}
	if (k->engine.sched.kv)
		kvpool_watch(k->engine.sched.kv, NULL, NULL);
	stepper_release(&k->engine);
	kvevents_stop(k->events);
	(void)pthread_cond_destroy(&k->changed);
	(void)pthread_mutex_destroy(&k->lock);
}

static void *drive(void *arg)
{
	struct core *k = arg;

	(void)pthread_mutex_lock(&k->lock);
	while (!k->stopping) {
		int64_t next;
		struct timespec ts;

		core_advance(k, clock_now());
		next = stepper_next(&k->engine);
		ts = (struct timespec){.tv_sec = next / NS_PER_S, .tv_nsec = next % NS_PER_S};
		k->slept_until = next;
		if (next >= CLOCK_NEVER)
			(void)pthread_cond_wait(&k->changed, &k->lock);
		else
			(void)pthread_cond_timedwait(&k->changed, &k->lock, &ts);
	}
	(void)pthread_mutex_unlock(&k->lock);
	return NULL;
}

int core_start(struct core *k)
{
	if (pthread_create(&k->thread, NULL, drive, k) != 0)
		return PD_EIO;
	k->running = true;
	return PD_OK;
}

void core_stop(struct core *k)
{
	if (!k->running)
		return;
	(void)pthread_mutex_lock(&k->lock);
	k->stopping = true;
	(void)pthread_cond_signal(&k->changed);
	(void)pthread_mutex_unlock(&k->lock);
	(void)pthread_join(k->thread, NULL);
	k->running = false;
}

struct core_job *core_job_new(uint32_t copies)
{
	struct core_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->copies = copies;
	job->seq = calloc(copies, sizeof(*job->seq));
	if (job->seq)
		return job;
	free(job);
	return NULL;
}

/* Tokens that all answers have. */
static uint32_t made_by_all(const struct core_job *job)
{
	uint32_t made = UINT32_MAX;

	for (uint32_t i = 0; i < job->copies; i++)
		if (job->seq[i].made < made)
			made = job->seq[i].made;
	return made;
}

static void tell(struct core *k, int64_t at)
{
	const struct sched *s = &k->engine.sched;

	for (size_t i = 0; i < s->nout; i++) {
		struct seq *q = s->out[i].seq;
		struct core_job *job = q->owner;
		uint32_t made = made_by_all(job);

		if ((s->out[i].marks & SCHED_FIRST) && q->kv != SEQ_FETCH) {
			k->queried_tokens += q->prompt;
			k->hit_tokens += q->cached;
		}
		if ((s->out[i].marks & SCHED_FIRST) && q == &job->seq[0])
			job->cached_tokens = q->cached;
		if (made == 1 && job->prefill_end == 0)
			job->prefill_end = at;
		if (made == atomic_load(&job->made))
			continue;
		atomic_store(&job->made, made);
		if (made >= job->want)
			wake(job);
	}
}

/* An engine that is out of memory stands still; so does everything else soon. */
static void schedule(struct core *k, int64_t at)
{
	if (stepper_wants(&k->engine))
		(void)!stepper_schedule(&k->engine, at);
}

void core_advance(struct core *k, int64_t now)
{
	int64_t at;

	while ((at = stepper_next(&k->engine)) <= now) {
		if (stepper_finish(&k->engine))
			return;
		tell(k, at);
		schedule(k, at);
	}
}

/* The end that the thread waits for may have changed. */
static void settle(struct core *k, int64_t now)
{
	schedule(k, now);
	/* A step that takes no time has ended already. */
	core_advance(k, now);
	if (stepper_next(&k->engine) != k->slept_until)
		(void)pthread_cond_signal(&k->changed);
}

size_t core_blocks(const struct core *k, size_t prompt_tokens, size_t output_tokens)
{
	size_t b = k->engine.cfg.sched.block_size;

	return (prompt_tokens + output_tokens - 1 + b - 1) / b;
}

int core_submit(struct core *k, struct core_job *job, int64_t now)
{
	if (!sched_fits(&k->engine.sched, job->prompt_tokens, job->output_tokens))
		return PD_ETOOBIG;
	job->names = malloc((job->nhash + 1) * sizeof(*job->names));
	if (!job->names)
		return PD_ENOMEM;
	if (job->nhash > 0)
		memcpy(job->names, job->hash, job->nhash * sizeof(*job->names));
	core_advance(k, now);
	atomic_store(&job->made, 0);
	atomic_store(&job->loading, false);
	job->want = 1;
	job->submitted = now;
	job->begun = job->prefill_end = 0;
	job->prev = NULL;
	job->next = k->jobs;
	if (k->jobs)
		k->jobs->prev = job;
	k->jobs = job;
	for (uint32_t i = 0; i < job->copies; i++) {
		struct seq *q = &job->seq[i];

		*q = (struct seq){.id = atomic_fetch_add(&k->next, 1),
				  .name = job->names,
				  .nnames = job->nhash,
				  .prompt = job->prompt_tokens,
				  .output = job->output_tokens,
				  .kv = i == 0 ? job->kv : SEQ_LOCAL,
				  .owner = job};
		stepper_add(&k->engine, q, now);
	}
	settle(k, now);
	return PD_OK;
}

void core_loaded(struct core *k, struct core_job *job, int64_t now)
{
	core_advance(k, now);
	if (job->seq[0].state != SEQ_LOADING)
		return;
	/* Out of memory: it is told to nobody, and the client's patience ends it. */
	(void)!stepper_told(&k->engine, &job->seq[0], now);
	settle(k, now);
}

void core_end(struct core *k, struct core_job *job, int64_t now)
{
	core_advance(k, now);
	for (uint32_t i = 0; i < job->copies; i++)
		if (job->seq[i].state != SEQ_NEW && job->seq[i].state != SEQ_DONE)
			stepper_abort(&k->engine, &job->seq[i], now);
	settle(k, now);
	if (job->names)
		unlink_job(k, job);
	free_job(job);
}

bool core_lease(struct core *k, struct core_job *job, const uint32_t **block, size_t *n)
{
	(void)k;
	if (job->seq[0].state != SEQ_HELD || job->seq[0].held == 0)
		return false;
	*block = job->seq[0].block;
	*n = job->seq[0].held;
	job->leased = true;
	return true;
}

void core_unhold(struct core *k, struct core_job *job, int64_t now)
{
	core_advance(k, now);
	(void)!stepper_told(&k->engine, &job->seq[0], now);
	settle(k, now);
}
