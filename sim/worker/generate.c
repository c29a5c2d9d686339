/*
 * Faults, checks, then whole answers or event streams. The prompts of one request run one after the
 * other; the n answers of a prompt run together and are the same text. Counters and the journal are
 * settled before the last byte goes out, so a client that has read the answer finds them.
 *
 *   generate_serve -> faults_next -> handle -> gen_request_parse, nixl_check
 *                                    generate -> one_prompt (each) -> run_prepare, run_prefill
 *                                                                     stream_prompt |
 * collect_prompt run_end finish | give_up
 */
#include "sim/worker/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "sim/worker/named_events.h"
#include "sim/worker/played.h"
#include "sim/worker/run.h"

#define OUT_MAX ((size_t)64 << 20)

/* What one request has come to. */
struct gen_flow {
	const struct generator *gen;
	struct http_conn *c;
	struct http_request *r;
	struct gen_request g;
	struct gen_run run;
	struct journal_entry log;
	struct worker_faults faults; /* as they were when the request came */
	struct api_error error;
	struct jout out;	     /* the whole answer, or one event */
	struct buf text;	     /* of the current prompt */
	struct jout prompt_logprobs; /* of the current prompt */
	char lease_id[NIXL_ID_MAX];
	int64_t arrived, created;
	size_t prompt_tokens, completion_tokens, cached_tokens;
	struct event_flow events; /* of a stream whose events have names */
	struct jout echo;	  /* of the current prompt: JSON text inside the quotes */
	size_t head;		  /* bytes of an event before its choice */
	size_t sent; /* tokens of this request that exist, over all prompts: the faults count them
		      */
	const char *finish;
	bool streaming, held, stalled, cut;
};

static void settle(struct gen_flow *f, const char *outcome, int status)
{
	f->log.outcome = outcome;
	f->log.status = status;
	f->log.prompt_tokens = f->prompt_tokens;
	f->log.cached_tokens = f->cached_tokens;
	f->log.output_tokens = f->completion_tokens;
	journal_update(f->gen->journal, &f->log);
}

/* The engine's wake-ups may end a sleep early, so the clock decides. */
static int sleep_until(struct http_conn *c, int64_t at)
{
	bool left = http_conn_client_left(c);

	while (!left && clock_now() < at)
		left = http_conn_sleep(c, at);
	return left ? PD_ECANCELED : PD_OK;
}

/* Stalls and cuts, before token `sent` goes out. */
static int inject(struct gen_flow *f)
{
	const struct worker_faults *x = &f->faults;
	int64_t until;

	if (x->close_after >= 0 && f->sent >= (size_t)x->close_after) {
		f->cut = true;
		return PD_ECLOSED;
	}
	if (f->stalled || x->stall_after < 0 || f->sent < (size_t)x->stall_after)
		return PD_OK;
	f->stalled = true;
	until = x->stall_s > 0 ? clock_now() + (int64_t)(x->stall_s * (double)NS_PER_S)
			       : CLOCK_NEVER;
	return sleep_until(f->c, until);
}

/* Text of token k of the run, clipped where a stop string cut it. */
static struct span token_text(struct gen_flow *f, size_t k, char piece[TOKEN_TEXT_MAX])
{
	size_t len = tokens_answer(f->run.seed, k, piece, NULL), before = f->text.len;

	if (before >= f->run.cut)
		return (struct span){piece, 0};
	if (f->run.cut - before < len)
		len = f->run.cut - before;
	if (buf_append(&f->text, piece, len) != PD_OK)
		f->out.err = PD_ENOMEM;
	return (struct span){piece, len};
}

/* -- event streams -- */

/* The beginning of an event, up to its choice. */
static int begin_events(struct gen_flow *f)
{
	int err = f->streaming
			  ? PD_OK
			  : http_stream_begin(f->c, 200, "text/event-stream; charset=utf-8", NULL);

	f->streaming = true;
	jout_cut(&f->out, 0);
	jout_put(&f->out, "data: {");
	answer_head(&f->out, &f->g, true, f->created);
	answer_list(&f->out, &f->g);
	f->head = f->out.b.len;
	return err;
}

static int send_named(struct gen_flow *f)
{
	int err = f->streaming
			  ? PD_OK
			  : http_stream_begin(f->c, 200, "text/event-stream; charset=utf-8", NULL);

	f->streaming = true;
	err = err ? err : f->out.err;
	return err ? err : http_stream_write(f->c, f->out.b.data, f->out.b.len);
}

/* The next event with a name is written behind this. */
static struct event_flow *next_named(struct gen_flow *f)
{
	jout_cut(&f->out, 0);
	f->events.g = &f->g;
	f->events.created = f->created;
	f->events.prompt = f->prompt_tokens;
	f->events.completion = f->completion_tokens;
	f->events.cached = f->cached_tokens;
	return &f->events;
}

/* Token k of the run, with the prompt in front of the first when it is to be echoed. */
static struct answer_part part_of(const struct gen_flow *f, size_t k, struct span text)
{
	size_t prompt = f->run.job.prompt_tokens;
	bool echo = f->g.echo && k == 0;

	return (struct answer_part){.text = f->g.only_echo ? SPAN("") : text,
				    .echo = echo ? buf_span(&f->echo.b) : SPAN(""),
				    .ids = f->run.ids,
				    .prompt = prompt,
				    .from = echo ? 0 : prompt + k,
				    .to = prompt + (f->g.only_echo ? 0 : k + 1)};
}

/* What echoes prompt i. */
static void make_echo(struct gen_flow *f, size_t i)
{
	const struct gen_prompt *p = &f->g.prompt[i];

	jout_cut(&f->echo, 0);
	if (f->g.echo && p->text.n > 0)
		jout_raw(&f->echo, p->text.p, p->text.n);
	else if (f->g.echo)
		answer_ids_text(&f->echo, f->run.ids, p->n);
	f->out.err = f->out.err ? f->out.err : f->echo.err;
}

static void put_usage(struct gen_flow *f, size_t completion)
{
	jout_put(&f->out, ",");
	answer_usage(&f->out, &f->g, f->prompt_tokens, completion, f->cached_tokens);
}

/* The end of an event, behind its choice. */
static int send_event(struct gen_flow *f, bool usage, size_t completion)
{
	jout_put(&f->out, "]");
	if (usage)
		put_usage(f, completion);
	jout_put(&f->out, "}\n\n");
	return f->out.err ? f->out.err : http_stream_write(f->c, f->out.b.data, f->out.b.len);
}

static int stream_prompt(struct gen_flow *f, size_t prompt)
{
	size_t total = f->run.job.output_tokens;
	bool named = gen_has_events(f->g.kind);
	int err;

	if (named) {
		events_begin(&f->out, next_named(f));
		err = send_named(f);
	} else {
		err = begin_events(f);
	}
	for (size_t j = 0; !err && f->g.kind == GEN_CHAT && j < f->g.n; j++) {
		jout_cut(&f->out, f->head);
		answer_role(&f->out, j);
		err = send_event(f, f->g.continuous_usage, 0);
	}
	for (size_t k = 0; !err && k < total; k++) {
		const char *finish = k + 1 == total ? f->run.finish : NULL;
		char piece[TOKEN_TEXT_MAX];
		struct answer_part part;
		struct span text;

		err = run_token(&f->run, k);
		if (!err)
			err = inject(f);
		if (err)
			break;
		f->run.job.generated = k + 1;
		f->sent += f->g.n;
		f->completion_tokens += f->g.n;
		(void)atomic_fetch_add(&f->gen->stats->generation_tokens, f->g.n);
		text = token_text(f, k, piece);
		if (named && text.n > 0) {
			events_text(&f->out, next_named(f), text);
			err = send_named(f);
		}
		part = part_of(f, k, text);
		part.finish = finish;
		for (size_t j = 0; !named && !err && j < f->g.n; j++) {
			jout_cut(&f->out, f->head);
			answer_delta(&f->out, &f->g, prompt * f->g.n + j, &part);
			err = send_event(f, f->g.continuous_usage, f->completion_tokens);
		}
	}
	return err;
}

/* -- whole answers -- */

/* A fault in the middle of a whole answer happens when a stream would have reached that token. */
static int inject_midway(struct gen_flow *f, int64_t at)
{
	int64_t step = (at - (int64_t)f->sent) / f->g.n;
	int err = PD_OK;

	if (at < 0 || step < 0 || (size_t)step >= f->run.job.output_tokens)
		return PD_OK;
	if (step > 0)
		err = run_token(&f->run, (size_t)step - 1);
	f->sent = (size_t)at;
	return err ? err : inject(f);
}

static int collect_prompt(struct gen_flow *f, size_t prompt)
{
	size_t total = f->run.job.output_tokens, before = f->sent;
	char piece[TOKEN_TEXT_MAX];
	struct answer_part part;
	int err = inject_midway(f, f->faults.stall_after);

	f->sent = before;
	if (!err)
		err = inject_midway(f, f->faults.close_after);
	f->sent = before + total * f->g.n;
	if (!err)
		err = run_token(&f->run, total - 1);
	f->run.job.generated = err ? run_made(&f->run) : total;
	f->completion_tokens += f->run.job.generated * f->g.n;
	(void)atomic_fetch_add(&f->gen->stats->generation_tokens, f->run.job.generated * f->g.n);
	if (err)
		return err;
	for (size_t k = 0; k < total; k++)
		(void)token_text(f, k, piece);
	jout_cut(&f->prompt_logprobs, 0);
	if (f->g.prompt_logprobs)
		answer_prompt_logprobs(&f->prompt_logprobs, f->run.ids, f->run.job.prompt_tokens);
	else
		jout_put(&f->prompt_logprobs, "null");
	part = part_of(f, 0, buf_span(&f->text));
	part.finish = f->run.finish;
	part.prompt_logprobs = buf_span(&f->prompt_logprobs.b);
	part.to = f->g.only_echo ? part.to : f->run.job.prompt_tokens + total;
	for (size_t j = 0; j < f->g.n; j++) {
		if (prompt + j > 0)
			jout_put(&f->out, ",");
		answer_choice(&f->out, &f->g, prompt * f->g.n + j, &part);
	}
	return PD_OK;
}

/* -- both -- */

static bool answers_with_coordinates(const struct gen_flow *f)
{
	return (played_of(f->gen->cfg)->flags & PLAYED_ANSWERS) && !f->gen->cfg->kv_writes;
}

/* A job whose blocks nobody took over. */
static void release_kept(const struct gen_flow *f, struct core_job **kept)
{
	struct core *core = f->gen->core;

	if (!*kept)
		return;
	(void)pthread_mutex_lock(&core->lock);
	core_end(core, *kept, clock_now());
	(void)pthread_mutex_unlock(&core->lock);
	*kept = NULL;
}

/* Prompt i through the engine; *kept receives its job when its blocks are to be offered. */
static int one_prompt(struct gen_flow *f, size_t i, struct core_job **kept)
{
	const struct run_job *job = &f->run.job;
	int err = run_prepare(&f->run, i, &f->error);

	/* The fault that holds every request for a while before the engine sees it. */
	if (!err && !f->held && f->faults.delay_s > 0) {
		f->held = true;
		err = sleep_until(f->c,
				  clock_now() + (int64_t)(f->faults.delay_s * (double)NS_PER_S));
	}
	if (!err)
		err = run_prefill(&f->run, &f->error);
	if (!err) {
		f->prompt_tokens += job->prompt_tokens;
		f->cached_tokens += run_cached_tokens(&f->run);
		f->finish = f->run.finish;
		stats_observe(&f->gen->stats->ttft, job->prefill_end - f->arrived);
		buf_clear(&f->text);
		make_echo(f, i);
		if (f->g.kind == GEN_EMBEDDING) {
			if (i > 0)
				jout_put(&f->out, ",");
			answer_embedding(&f->out, &f->g, i, f->run.seed);
		} else {
			err = f->g.stream ? stream_prompt(f, i) : collect_prompt(f, i);
		}
	}
	run_end(&f->run, !err && job->offer ? kept : NULL);
	/* A decode worker that was asked at the same time waits for them. */
	if (*kept && !answers_with_coordinates(f)) {
		nixl_offer(f->gen->nixl, &f->g, f->run.key, f->run.seed, kept, f->lease_id, NULL);
		release_kept(f, kept);
	}
	return err;
}

/* Every prompt was answered: the rest of the answer. */
static void finish(struct gen_flow *f, struct core_job **kept)
{
	enum worker_finish how = strcmp(f->finish, "stop") == 0 ? FINISH_STOP : FINISH_LENGTH;

	bool named = gen_has_events(f->g.kind);

	if (f->g.stream && named) {
		events_end(&f->out, next_named(f), buf_span(&f->text), f->finish);
		(void)!send_named(f);
	} else if (f->g.stream && f->g.include_usage && begin_events(f) == PD_OK) {
		(void)!send_event(f, true, f->completion_tokens);
	}
	if (!f->g.stream && f->g.kind == GEN_EMBEDDING)
		jout_fmt(&f->out,
			 "],\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,"
			 "\"completion_tokens\":0,\"prompt_tokens_details\":null}}",
			 f->prompt_tokens, f->prompt_tokens);
	if (!f->g.stream && f->g.kind != GEN_EMBEDDING) {
		answer_tail(&f->out, &f->g, f->finish);
		put_usage(f, f->completion_tokens);
		if (f->g.kind == GEN_CHAT || f->g.kind == GEN_TOKENS) {
			jout_put(&f->out, ",\"prompt_logprobs\":");
			jout_raw(&f->out, f->prompt_logprobs.b.data, f->prompt_logprobs.b.len);
		}
		jout_put(&f->out, ",\"kv_transfer_params\":");
		if (*kept)
			nixl_offer(f->gen->nixl, &f->g, f->run.key, f->run.seed, kept, f->lease_id,
				   &f->out);
		else
			jout_put(&f->out, "null");
		jout_put(&f->out, "}");
	}
	(void)atomic_fetch_add(&f->gen->stats->finished[how], 1);
	stats_observe(&f->gen->stats->e2e, clock_now() - f->arrived);
	settle(f, "ok", 200);
	if (f->g.stream) {
		if (named || http_stream_write(f->c, "data: [DONE]\n\n", 14) == PD_OK)
			(void)!http_stream_end(f->c);
	} else if (f->g.kind == GEN_EMBEDDING) {
		api_reply(f->c, &f->out);
	} else if (f->out.err || http_reply(f->c, 200, "application/json", NULL, f->out.b.data,
					    f->out.b.len) != PD_OK) {
		nixl_withdraw(f->gen->nixl, f->lease_id);
	}
}

/* An error answer, a cut, or nothing because the client has disconnected. */
static void give_up(struct gen_flow *f)
{
	struct worker_stats *stats = f->gen->stats;

	if (f->cut) {
		(void)atomic_fetch_add(&stats->faults, 1);
		settle(f, "fault", f->streaming ? 200 : 0);
		http_conn_abort(f->c, false);
		return;
	}
	if (f->error.status && !f->streaming) {
		(void)atomic_fetch_add(&stats->rejected, 1);
		settle(f, "rejected", f->error.status);
		api_reply_error(f->c, &f->error, NULL);
		return;
	}
	(void)atomic_fetch_add(&stats->aborted, 1);
	(void)atomic_fetch_add(&stats->finished[FINISH_ABORT], 1);
	settle(f, "aborted", f->streaming ? 200 : 499);
	log_event(f->gen->cfg->log, LOG_DEBUG, "request_aborted",
		  LOG_FIELDS(LOG_TEXT("request_id", f->g.id),
			     LOG_NUMBER("tokens", f->completion_tokens)),
		  "request %s aborted: client disconnected after %zu tokens", f->g.id,
		  f->completion_tokens);
	http_conn_abort(f->c, false);
}

static void generate(struct gen_flow *f)
{
	struct core_job *kept = NULL;
	int err = PD_OK;

	if (!f->g.stream) {
		jout_put(&f->out, "{");
		answer_head(&f->out, &f->g, false, f->created);
		answer_list(&f->out, &f->g);
	}
	for (size_t i = 0; !err && i < f->g.nprompts; i++)
		err = one_prompt(f, i, &kept);
	if (!err && http_conn_client_left(f->c))
		err = PD_ECANCELED;
	if (!err)
		err = inject(f); /* a cut after the last token, before the end of the answer */
	if (!err)
		finish(f, &kept);
	release_kept(f, &kept);
	if (err)
		give_up(f);
}

static void handle(struct gen_flow *f, enum gen_kind kind)
{
	const struct generator *gen = f->gen;
	int err = gen_request_parse(&f->g, gen->cfg, gen->core, f->r, kind, &f->error);
	bool read = err == PD_OK;

	if (read)
		err = nixl_check(gen->nixl, &f->g, &f->error);
	if (f->g.model.n > 0) /* the body was read as an object */
		journal_session(&f->log, &f->g.body);
	f->log.leg = stats_leg_name(f->g.kv.leg);
	journal_add(gen->journal, &f->log);
	if (read)
		(void)atomic_fetch_add(&gen->stats->legs[f->g.kv.leg], 1);
	if (err)
		give_up(f);
	else
		generate(f);
	gen_request_release(&f->g);
}

static void fail_on_purpose(struct gen_flow *f)
{
	char extra[64] = "";

	(void)atomic_fetch_add(&f->gen->stats->faults, 1);
	if (f->faults.fail_retry_after_s >= 0)
		(void)snprintf(extra, sizeof(extra), "Retry-After: %.0f\r\n",
			       f->faults.fail_retry_after_s);
	(void)api_fail(&f->error, (int)f->faults.fail_status, NULL, "injected fault");
	journal_add(f->gen->journal, &f->log);
	settle(f, "fault", f->error.status);
	api_reply_error(f->c, &f->error, extra[0] ? extra : NULL);
}

void generate_serve(const struct generator *gen, struct http_conn *c, struct http_request *r,
		    enum gen_kind kind)
{
	struct gen_flow *f = calloc(1, sizeof(*f)); /* too large for a small stack */

	if (!f) {
		(void)http_reply_error(c, 500, "InternalServerError", NULL, "out of memory");
		return;
	}
	f->gen = gen;
	f->c = c;
	f->r = r;
	f->arrived = r->body_ns > 0 ? r->body_ns : clock_now();
	f->created = clock_wall() / NS_PER_S;
	f->finish = "length";
	f->run = (struct gen_run){.cfg = gen->cfg,
				  .core = gen->core,
				  .nixl = gen->nixl,
				  .stats = gen->stats,
				  .c = c,
				  .g = &f->g};
	jout_init(&f->out, OUT_MAX);
	jout_init(&f->prompt_logprobs, OUT_MAX);
	jout_init(&f->echo, OUT_MAX);
	f->error.form = kind == GEN_MESSAGES ? API_ANTHROPIC : API_OPENAI;
	buf_init(&f->text, OUT_MAX);
	journal_describe(&f->log, &r->head, r->body);
	switch (faults_next(gen->faults, &f->faults)) {
	case FAULT_CRASH:
		gen->cfg->crash(); /* does not come back */
		break;
	case FAULT_FAIL:
		fail_on_purpose(f);
		break;
	case FAULT_NONE:
		handle(f, kind);
	}
	jout_release(&f->out);
	jout_release(&f->prompt_logprobs);
	jout_release(&f->echo);
	buf_release(&f->text);
	free(f->log.text);
	free(f);
}
