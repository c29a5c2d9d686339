/*
 * Wait until the prompt is computed, or fetched, then for each token. The fiber sleeps without any
 * lock and wakes when the client leaves; the engine wakes it through http_conn_wake when the step
 * with its token has ended.
 */
#include "sim/worker/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/route/prefix.h"
#include "sim/worker/kvshare.h"
#include "sim/worker/played.h"

#define DEFAULT_CHAT_TOKENS	  64
#define DEFAULT_COMPLETION_TOKENS 16

/* Position of the first stop string that ends within the last piece of text, or SIZE_MAX. */
static size_t find_stop(const struct gen_request *g, const struct buf *text, size_t piece)
{
	const char *stop = g->stop_text.data;
	size_t best = SIZE_MAX;

	for (size_t i = 0; i < g->nstops; stop += g->stop_len[i], i++) {
		size_t len = g->stop_len[i], from;
		const char *at;

		if (text->len < len)
			continue;
		from = text->len - piece > len ? text->len - piece - len : 0;
		at = memmem(text->data + from, text->len - from, stop, len);
		if (at && (size_t)(at - text->data) < best)
			best = (size_t)(at - text->data);
	}
	return best;
}

/* Writes the ids of the answer behind those of the prompt; stop strings may end it early. Returns
 * its length in tokens. */
static size_t make_answer(struct gen_run *run, uint32_t *id, size_t limit)
{
	const struct gen_request *g = run->g;
	char piece[TOKEN_TEXT_MAX];
	struct buf text;
	size_t k, len;

	buf_init(&text, limit * TOKEN_TEXT_MAX);
	for (k = 0; k < limit && run->cut == SIZE_MAX; k++) {
		len = tokens_answer(run->seed, k, piece, &id[k]);
		if (g->nstops == 0 || buf_append(&text, piece, len) != PD_OK)
			continue;
		run->cut = find_stop(g, &text, len);
	}
	if (run->cut != SIZE_MAX)
		run->finish = "stop";
	buf_release(&text);
	return k;
}

/* How long the answer may be, and how it ends when nothing else ends it first. */
static size_t answer_limit(struct gen_run *run, size_t prompt)
{
	const struct gen_request *g = run->g;
	size_t room = run->cfg->max_model_len - prompt, limit = g->max_tokens;

	run->finish = "length";
	if (g->kind == GEN_EMBEDDING || g->kv.one_token)
		return 1;
	if (limit == 0 && g->kind != GEN_COMPLETION) {
		limit = DEFAULT_CHAT_TOKENS;
		if (limit <= room)
			run->finish = "stop";
	} else if (limit == 0) {
		limit = DEFAULT_COMPLETION_TOKENS;
	}
	return limit < room ? limit : room;
}

/* Called with the engine's lock held, while the job's connection is in its handler. */
static void wake(void *ctx)
{
	const struct gen_run *run = ctx;

	http_conn_wake(run->c);
}

/* Under which name the blocks of prompt i change hands. */
static void set_key(struct gen_run *run, size_t i)
{
	const struct kv_params *kv = &run->g->kv;
	enum json_type type;
	struct span value;
	size_t at = 0;

	(void)snprintf(run->key, sizeof(run->key), "%s",
		       kv->do_remote_prefill ? kv->from.key : kv->key);
	for (size_t k = 0; kv->rooms.n && json_array_next(kv->rooms, &at, &value, &type); k++)
		if (k == i)
			(void)snprintf(run->key, sizeof(run->key), "room-%.*s",
				       (int)(value.n < 40 ? value.n : 40), value.p);
}

static struct kvshare_prompt shared_of(const struct gen_run *run)
{
	return (struct kvshare_prompt){.path = run->cfg->shared_path,
				       .id = run->ids,
				       .n = run->job.prompt_tokens,
				       .salt = run->g->salt,
				       .chunk = played_of(run->cfg)->chunk,
				       .block_size = run->cfg->block_size};
}

int run_prepare(struct gen_run *run, size_t i, struct api_error *e)
{
	const struct gen_request *g = run->g;
	const struct gen_prompt *p = &g->prompt[i];
	size_t block_size = run->cfg->block_size;
	size_t out = answer_limit(run, p->n);

	run->prepared = true;
	run->cut = SIZE_MAX;
	run->kv_fetched = false;
	run->ids = malloc((p->n + out) * sizeof(*run->ids));
	run->hash = malloc(((p->n + out) / block_size + 1) * sizeof(*run->hash));
	if (!run->ids || !run->hash)
		return api_fail(e, 500, NULL, "out of memory");
	memcpy(run->ids, g->tokens.id + p->from, p->n * sizeof(*run->ids));
	run->seed = tokens_seed(run->ids, p->n);
	if (g->kind != GEN_EMBEDDING)
		out = make_answer(run, run->ids + p->n, out);
	run->job = (struct run_job){.prompt_tokens = p->n,
				    .output_tokens = out,
				    .copies = g->kind == GEN_EMBEDDING ? 1 : g->n,
				    .remote = g->kv.do_remote_prefill,
				    .offer = g->kv.do_remote_decode &&
					     (g->kv.one_token || (!g->stream && g->nprompts == 1))};
	set_key(run, i);
	if (g->kv.shared && run->cfg->role != WORKER_PREFILL) {
		struct kvshare_prompt prompt = shared_of(run);

		run->job.remote = run->job.shared = kvshare_has(&prompt);
	}
	run->nhash = route_blocks(g->salt, run->ids, (p->n + out - 1) * sizeof(*run->ids),
				  block_size * sizeof(*run->ids), run->hash, SIZE_MAX);
	return PD_OK;
}

static int submit(struct gen_run *run, struct api_error *e)
{
	struct core_job *job = core_job_new((uint32_t)run->job.copies);
	int err;

	if (!job)
		return api_fail(e, 500, NULL, "out of memory");
	job->hash = run->hash;
	job->nhash = run->nhash;
	job->ids = run->g->salt ? NULL : run->ids; /* what one tenant caches is not told */
	job->prompt_tokens = (uint32_t)run->job.prompt_tokens;
	job->output_tokens = (uint32_t)run->job.output_tokens;
	job->kv = run->job.remote ? SEQ_FETCH : run->job.offer ? SEQ_HOLD : SEQ_LOCAL;
	job->wake = wake;
	job->ctx = run;
	(void)pthread_mutex_lock(&run->core->lock);
	err = core_submit(run->core, job, clock_now());
	if (err)
		core_end(run->core, job, clock_now());
	else
		run->core_job = job;
	(void)pthread_mutex_unlock(&run->core->lock);
	if (err == PD_ETOOBIG)
		return api_fail(
			e, 400, NULL,
			"the request needs %zu KV blocks of %u tokens, this worker has %u",
			core_blocks(run->core, run->job.prompt_tokens, run->job.output_tokens),
			run->cfg->block_size, run->cfg->num_blocks);
	return err ? api_fail(e, 500, NULL, "out of memory") : PD_OK;
}

static void end_job(struct gen_run *run)
{
	if (!run->core_job)
		return;
	(void)pthread_mutex_lock(&run->core->lock);
	core_end(run->core, run->core_job, clock_now());
	(void)pthread_mutex_unlock(&run->core->lock);
	run->core_job = NULL;
}

/* Waits until so many tokens exist. A wake-up may come early, so the count decides. */
static int wait_for(struct gen_run *run, uint32_t tokens)
{
	struct core_job *job = run->core_job;
	bool left = http_conn_client_left(run->c);

	if (!left && atomic_load(&job->made) >= tokens)
		return PD_OK;
	(void)pthread_mutex_lock(&run->core->lock);
	job->want = tokens;
	(void)pthread_mutex_unlock(&run->core->lock);
	while (!left && atomic_load(&job->made) < tokens)
		left = http_conn_sleep(run->c, CLOCK_NEVER);
	return left ? PD_ECANCELED : PD_OK;
}

/* A fetch takes as long as the model says, or longer when the exchange did. */
static int sleep_until(const struct gen_run *run, int64_t at)
{
	bool left = http_conn_client_left(run->c);

	while (!left && clock_now() < at)
		left = http_conn_sleep(run->c, at);
	return left ? PD_ECANCELED : PD_OK;
}

/* The KV of the prompt from the prefill worker, or else the prompt is computed here. */
static int fetch(struct gen_run *run, struct api_error *e)
{
	struct core_job *job = run->core_job;
	const struct worker_config *cfg = run->cfg;
	bool left = http_conn_client_left(run->c);
	double us;
	int64_t begin;
	int err;

	while (!left && !atomic_load(&job->loading))
		left = http_conn_sleep(run->c, CLOCK_NEVER);
	if (left)
		return PD_ECANCELED;
	begin = clock_now();
	us = cfg->transfer_ms * 1e3 +
	     cfg->transfer_us_token * (double)(job->prompt_tokens - job->cached_tokens);
	err = run->job.shared ? PD_OK
			      : kvread_fetch(run->nixl, run->c, run->g, run->key, run->seed, e);
	run->kv_settled = true;
	if (run->job.shared)
		(void)atomic_fetch_add(&run->stats->kv_reads_ok, 1);
	if (err == PD_OK) {
		run->kv_fetched = true;
		(void)atomic_fetch_add(&run->stats->kv_blocks_read, job->fetched_blocks);
		err = sleep_until(run, begin + (int64_t)(us * 1e3 / cfg->speedup));
		if (err)
			return err;
		(void)pthread_mutex_lock(&run->core->lock);
		core_loaded(run->core, job, clock_now());
		(void)pthread_mutex_unlock(&run->core->lock);
		return PD_OK;
	}
	end_job(run);
	if (e->status)
		return PD_EINVAL;
	run->job.remote = false;
	return submit(run, e);
}

/* What another engine may need; what cannot be written is computed there again. */
static void store(struct gen_run *run)
{
	struct kvshare_prompt prompt = shared_of(run);
	size_t stored;
	int err = kvshare_store(&prompt, &stored);
	char why[128];

	(void)atomic_fetch_add(&run->stats->kv_stored, stored);
	if (err && !atomic_exchange(&run->stats->said_kv_store, true))
		log_event(run->cfg->log, LOG_WARN, "kv_store_failed",
			  LOG_FIELDS(LOG_TEXT("path", run->cfg->shared_path)),
			  "cannot store KV in '%s': %s; further failures are not logged",
			  run->cfg->shared_path,
			  err == PD_EIO ? pd_errno_text(errno, why, sizeof(why))
					: pd_err_text(err));
}

int run_prefill(struct gen_run *run, struct api_error *e)
{
	const struct core_job *job;
	int err = submit(run, e);

	if (!err && run->job.remote)
		err = fetch(run, e);
	if (!err)
		err = wait_for(run, 1);
	if (err)
		return err;
	job = run->core_job;
	run->job.prefill_end = job->prefill_end;
	run->job.cached_tokens = job->cached_tokens;
	if (run->g->kv.shared && run->cfg->role != WORKER_DECODE)
		store(run);
	(void)atomic_fetch_add(&run->stats->prompt_tokens, run->job.prompt_tokens);
	stats_observe(&run->stats->queue, job->begun - job->submitted);
	stats_observe(&run->stats->prefill, job->prefill_end - job->begun);
	return PD_OK;
}

int run_token(struct gen_run *run, size_t k)
{
	return wait_for(run, (uint32_t)k + 1);
}

size_t run_made(const struct gen_run *run)
{
	return run->core_job ? atomic_load(&run->core_job->made) : 0;
}

void run_end(struct gen_run *run, struct core_job **keep)
{
	struct api_error ignored = {0};

	if (!run->prepared)
		return;
	run->prepared = false;
	if (keep && run->core_job) {
		(void)pthread_mutex_lock(&run->core->lock);
		run->core_job->wake = NULL; /* the run goes, the job stays */
		(void)pthread_mutex_unlock(&run->core->lock);
		*keep = run->core_job;
		run->core_job = NULL;
	}
	end_job(run);
	/* The client disconnected before the blocks were read: the read frees them on the prefill
	 * worker. */
	if (run->g->kv.do_remote_prefill && !run->kv_settled)
		(void)!kvread_fetch(run->nixl, run->c, run->g, run->key, run->seed, &ignored);
	free(run->ids);
	free(run->hash);
	run->ids = NULL;
	run->hash = NULL;
}

size_t run_cached_tokens(const struct gen_run *run)
{
	return run->kv_fetched ? run->job.prompt_tokens : run->job.cached_tokens;
}
