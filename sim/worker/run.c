/*
 * Wait for admission, have the prompt computed or fetched, then one sleep per token. The fiber
 * sleeps without any lock, until an absolute time, and wakes when the client leaves. A job that
 * waits for admission sleeps without a time to wake at; the engine wakes it through http_conn_wake.
 */
#include "sim/worker/run.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/route/prefix.h"

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
	if (g->kind == GEN_EMBEDDING)
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
static void wake(struct engine_job *job)
{
	const struct gen_run *run = job->ctx;

	http_conn_wake(run->c);
}

int run_prepare(struct gen_run *run, size_t i, struct api_error *e)
{
	const struct gen_request *g = run->g;
	const struct gen_prompt *p = &g->prompt[i];
	const struct engine_config *cfg = &run->cfg->engine;
	size_t out = answer_limit(run, p->n);

	run->prepared = true;
	run->cut = SIZE_MAX;
	run->kv_fetched = false;
	run->ids = malloc((p->n + out) * sizeof(*run->ids));
	run->hash = malloc(((p->n + out) / cfg->block_size + 1) * sizeof(*run->hash));
	if (!run->ids || !run->hash)
		return api_fail(e, 500, NULL, "out of memory");
	memcpy(run->ids, g->tokens.id + p->from, p->n * sizeof(*run->ids));
	run->seed = tokens_seed(run->ids, p->n);
	if (g->kind != GEN_EMBEDDING)
		out = make_answer(run, run->ids + p->n, out);
	run->job = (struct engine_job){.hash = run->hash,
				       .prompt_tokens = p->n,
				       .output_tokens = out,
				       .copies = g->kind == GEN_EMBEDDING ? 1 : g->n,
				       .remote = g->kv.do_remote_prefill,
				       .wake = wake,
				       .ctx = run};
	run->job.nhash = route_blocks(g->salt, run->ids, (p->n + out - 1) * sizeof(*run->ids),
				      cfg->block_size * sizeof(*run->ids), run->hash, SIZE_MAX);
	return PD_OK;
}

/* Queues the job and waits until it runs. */
static int admit(struct gen_run *run, struct api_error *e)
{
	struct engine *engine = &run->core->engine;
	const struct engine_job *job = &run->job;
	bool left = false;
	enum engine_state state;
	int err;

	(void)pthread_mutex_lock(&run->core->lock);
	err = engine_submit(engine, &run->job, clock_now());
	state = job->state;
	(void)pthread_mutex_unlock(&run->core->lock);
	if (err == PD_ETOOBIG)
		return api_fail(
			e, 400, NULL,
			"the request needs %zu KV blocks of %zu tokens, this worker has %zu",
			engine_blocks(engine, job->prompt_tokens, job->output_tokens, job->copies),
			run->cfg->engine.block_size, run->cfg->engine.num_blocks);
	while (!err && state == ENGINE_WAITING && !left) {
		left = http_conn_sleep(run->c, CLOCK_NEVER);
		(void)pthread_mutex_lock(&run->core->lock);
		state = job->state;
		(void)pthread_mutex_unlock(&run->core->lock);
	}
	if (left)
		return PD_ECANCELED;
	if (err || state == ENGINE_FAILED)
		return api_fail(e, 500, NULL, "out of memory");
	return PD_OK;
}

/* A wake-up meant for the admission may end a sleep early, so the clock decides. */
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
	struct engine *engine = &run->core->engine;
	int err = kvread_fetch(run->nixl, run->c, run->g, run->seed, e);

	run->kv_settled = true;
	(void)pthread_mutex_lock(&run->core->lock);
	if (err == PD_OK) {
		run->kv_fetched = true;
		(void)atomic_fetch_add(&run->stats->kv_blocks_read,
				       engine_blocks(engine, run->job.prompt_tokens, 1, 1) -
					       run->job.pin.hits);
		engine_fetched(engine, &run->job, clock_now());
	} else {
		engine_finish(engine, &run->job, clock_now(), NULL);
	}
	(void)pthread_mutex_unlock(&run->core->lock);
	if (err == PD_OK || e->status)
		return err == PD_OK ? PD_OK : PD_EINVAL;
	run->job.remote = false;
	return admit(run, e);
}

int run_prefill(struct gen_run *run, struct api_error *e)
{
	int err = admit(run, e);

	if (!err && run->job.remote)
		err = fetch(run, e);
	if (!err)
		err = sleep_until(run, run->job.prefill_end);
	if (err)
		return err;
	(void)pthread_mutex_lock(&run->core->lock);
	engine_prefilled(&run->core->engine, &run->job, clock_now());
	(void)pthread_mutex_unlock(&run->core->lock);
	(void)atomic_fetch_add(&run->stats->prompt_tokens, run->job.prompt_tokens);
	stats_observe(&run->stats->queue, run->job.admitted - run->job.submitted);
	stats_observe(&run->stats->prefill, run->job.prefill_end - run->job.admitted);
	return PD_OK;
}

int run_token(struct gen_run *run, size_t k)
{
	return sleep_until(run, engine_token_at(&run->core->engine, &run->job, k));
}

void run_end(struct gen_run *run, struct kvcache_pin *keep)
{
	struct api_error ignored = {0};

	if (!run->prepared)
		return;
	run->prepared = false;
	(void)pthread_mutex_lock(&run->core->lock);
	engine_finish(&run->core->engine, &run->job, clock_now(), keep);
	(void)pthread_mutex_unlock(&run->core->lock);
	/* The client disconnected before the blocks were read: the read frees them on the prefill
	 * worker. */
	if (run->g->kv.do_remote_prefill && !run->kv_settled)
		(void)!kvread_fetch(run->nixl, run->c, run->g, run->seed, &ignored);
	free(run->ids);
	free(run->hash);
	run->ids = NULL;
	run->hash = NULL;
}

size_t run_cached_tokens(const struct gen_run *run)
{
	return run->kv_fetched ? run->job.prompt_tokens : run->job.cached_tokens;
}
