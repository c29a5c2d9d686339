/*
 * Generation requests from body to last byte: faults, checks, then whole answers or event streams.
 * The prompts of one request run one after the other; the n answers of a prompt run together and
 * are the same text. Counters and the journal are settled before the last byte goes out, so whoever
 * has read the answer sees them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker/impl.h"

/* What one request has come to. */
struct gen_flow {
	struct worker *w;
	struct http_conn *c;
	struct http_request *r;
	struct gen_request g;
	struct gen_run run;
	struct journal_entry log;
	struct worker_faults faults;
	struct api_error error;
	struct jout out; /* the whole answer, or one event */
	struct buf text; /* of the current prompt */
	int64_t arrived, created;
	size_t prompt_tokens, completion_tokens, cached_tokens;
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
	journal_update(&f->w->journal, &f->log);
}

static void settle_ok(struct gen_flow *f)
{
	enum worker_finish how = strcmp(f->finish, "stop") == 0 ? FINISH_STOP : FINISH_LENGTH;

	(void)atomic_fetch_add(&f->w->stats.finished[how], 1);
	stats_observe(&f->w->stats.e2e, clock_now() - f->arrived);
	settle(f, "ok", 200);
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
	return http_conn_sleep(f->c, until) ? PD_ECANCELED : PD_OK;
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

static int send_event(struct gen_flow *f)
{
	jout_put(&f->out, "}\n\n");
	return f->out.err ? f->out.err : http_stream_write(f->c, f->out.b.data, f->out.b.len);
}

static void start_event(struct gen_flow *f, size_t head)
{
	jout_cut(&f->out, head);
}

static void add_usage(struct gen_flow *f, size_t completion)
{
	jout_put(&f->out, ",");
	answer_usage(&f->out, f->prompt_tokens, completion, f->cached_tokens);
}

static int stream_begin(struct gen_flow *f, size_t *head)
{
	int err = f->streaming
			  ? PD_OK
			  : http_stream_begin(f->c, 200, "text/event-stream; charset=utf-8", NULL);

	f->streaming = true;
	jout_cut(&f->out, 0);
	jout_put(&f->out, "data: {");
	answer_head(&f->out, &f->g, true, f->created);
	jout_put(&f->out, ",\"choices\":[");
	*head = f->out.b.len;
	return err;
}

static int stream_roles(struct gen_flow *f, size_t head)
{
	int err = PD_OK;

	for (size_t j = 0; !err && f->g.kind == GEN_CHAT && j < f->g.n; j++) {
		start_event(f, head);
		jout_put(&f->out, "{\"index\":");
		answer_role(&f->out, j);
		jout_put(&f->out, "]");
		if (f->g.continuous_usage)
			add_usage(f, 0);
		err = send_event(f);
	}
	return err;
}

static int stream_token(struct gen_flow *f, size_t head, size_t prompt, size_t k)
{
	char piece[TOKEN_TEXT_MAX];
	struct span text = token_text(f, k, piece);
	const char *finish = k + 1 == f->run.job.output_tokens ? f->run.finish : NULL;
	int err = PD_OK;

	for (size_t j = 0; !err && j < f->g.n; j++) {
		start_event(f, head);
		jout_put(&f->out, "{\"index\":");
		answer_delta(&f->out, &f->g, prompt * f->g.n + j, text, finish);
		jout_put(&f->out, "]");
		if (f->g.continuous_usage)
			add_usage(f, f->completion_tokens);
		err = send_event(f);
	}
	return err;
}

static int stream_prompt(struct gen_flow *f, size_t prompt)
{
	size_t head, total = f->run.job.output_tokens;
	int err = stream_begin(f, &head);

	if (!err)
		err = stream_roles(f, head);
	for (size_t k = 0; !err && k < total; k++) {
		err = run_token(&f->run, k);
		if (!err)
			err = inject(f);
		if (err)
			break;
		f->run.job.generated = k + 1;
		f->sent += f->g.n;
		f->completion_tokens += f->g.n;
		(void)atomic_fetch_add(&f->w->stats.generation_tokens, f->g.n);
		err = stream_token(f, head, prompt, k);
	}
	return err;
}

static void stream_finish(struct gen_flow *f)
{
	size_t head;

	if (f->g.include_usage && stream_begin(f, &head) == PD_OK) {
		jout_put(&f->out, "]");
		add_usage(f, f->completion_tokens);
		(void)!send_event(f);
	}
	settle_ok(f);
	if (http_stream_write(f->c, "data: [DONE]\n\n", 14) == PD_OK)
		(void)!http_stream_end(f->c);
}

/* -- whole answers -- */

/* How far an answer had come when its client left. */
static size_t tokens_by_now(const struct gen_flow *f)
{
	const struct engine_job *job = &f->run.job;
	int64_t now = clock_now();
	size_t k = 0;

	while (k < job->output_tokens && engine_token_at(&f->w->engine, job, k) <= now)
		k++;
	return k;
}

/* Faults that strike in the middle of a whole answer do so when a stream would have reached that
 * token. */
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
	int err = inject_midway(f, f->faults.stall_after);

	f->sent = before;
	if (!err)
		err = inject_midway(f, f->faults.close_after);
	f->sent = before + total * f->g.n;
	if (!err)
		err = run_token(&f->run, total - 1);
	f->run.job.generated = err ? tokens_by_now(f) : total;
	f->completion_tokens += f->run.job.generated * f->g.n;
	(void)atomic_fetch_add(&f->w->stats.generation_tokens, f->run.job.generated * f->g.n);
	if (err)
		return err;
	for (size_t k = 0; k < total; k++)
		(void)token_text(f, k, piece);
	for (size_t j = 0; j < f->g.n; j++) {
		if (prompt + j > 0)
			jout_put(&f->out, ",");
		answer_choice(&f->out, &f->g, prompt * f->g.n + j, buf_span(&f->text),
			      f->run.finish);
	}
	return PD_OK;
}

static void finish_answer(struct gen_flow *f, struct kvcache_pin *pin)
{
	jout_put(&f->out, "],\"service_tier\":null,\"system_fingerprint\":null");
	add_usage(f, f->completion_tokens);
	if (f->g.kind == GEN_CHAT)
		jout_put(&f->out, ",\"prompt_logprobs\":null");
	jout_put(&f->out, ",\"kv_transfer_params\":");
	if (pin->block)
		nixl_offer(&f->run, pin, &f->out);
	else
		jout_put(&f->out, "null");
	jout_put(&f->out, "}");
	settle_ok(f);
	if (!f->out.err &&
	    http_reply(f->c, 200, "application/json", NULL, f->out.b.data, f->out.b.len) == PD_OK)
		return;
	nixl_withdraw(&f->run);
}

/* -- both -- */

/* The fault that holds every request for a while before the engine sees it. */
static int hold_back(struct gen_flow *f)
{
	if (f->held || !(f->faults.delay_s > 0))
		return PD_OK;
	f->held = true;
	return http_conn_sleep(f->c, clock_now() + (int64_t)(f->faults.delay_s * (double)NS_PER_S))
		       ? PD_ECANCELED
		       : PD_OK;
}

/* Prompt i through the engine up to its first token. */
static int start_prompt(struct gen_flow *f, size_t i)
{
	int err = run_prepare(&f->run, i, &f->error);

	if (!err)
		err = hold_back(f);
	return err ? err : run_prefill(&f->run, &f->error);
}

static void note_prefilled(struct gen_flow *f)
{
	const struct engine_job *job = &f->run.job;

	f->prompt_tokens += job->prompt_tokens;
	f->cached_tokens += run_cached_tokens(&f->run);
	f->finish = f->run.finish;
	stats_observe(&f->w->stats.ttft, job->prefill_end - f->arrived);
}

static bool offers_blocks(const struct gen_flow *f)
{
	return f->g.kv.do_remote_decode && !f->g.stream && f->g.nprompts == 1;
}

static int one_prompt(struct gen_flow *f, size_t i, struct kvcache_pin *pin)
{
	int err = start_prompt(f, i);

	if (!err) {
		note_prefilled(f);
		buf_clear(&f->text);
		err = f->g.stream ? stream_prompt(f, i) : collect_prompt(f, i);
	}
	run_end(&f->run, !err && offers_blocks(f) ? pin : NULL);
	return err;
}

static void embed_finish(struct gen_flow *f)
{
	jout_fmt(&f->out,
		 "],\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":0,"
		 "\"prompt_tokens_details\":null}}",
		 f->prompt_tokens, f->prompt_tokens);
	settle_ok(f);
	api_reply(f->c, &f->out);
}

static int one_embedding(struct gen_flow *f, size_t i)
{
	int err = start_prompt(f, i);

	if (!err) {
		note_prefilled(f);
		if (i > 0)
			jout_put(&f->out, ",");
		answer_embedding(&f->out, &f->g, i, f->run.seed);
	}
	run_end(&f->run, NULL);
	return err;
}

/* The request did not end well: error answer, cut, or nothing because the client has gone. */
static void give_up(struct gen_flow *f)
{
	if (f->cut) {
		(void)atomic_fetch_add(&f->w->stats.faults, 1);
		settle(f, "fault", f->streaming ? 200 : 0);
		http_conn_abort(f->c, false);
		return;
	}
	if (f->error.status && !f->streaming) {
		(void)atomic_fetch_add(&f->w->stats.rejected, 1);
		settle(f, "rejected", f->error.status);
		api_reply_error(f->c, &f->error, NULL);
		return;
	}
	(void)atomic_fetch_add(&f->w->stats.aborted, 1);
	(void)atomic_fetch_add(&f->w->stats.finished[FINISH_ABORT], 1);
	settle(f, "aborted", f->streaming ? 200 : 499);
	log_line(f->w->cfg.log, LOG_DEBUG, "request %s aborted: the client left after %zu tokens",
		 f->g.id, f->completion_tokens);
	http_conn_abort(f->c, false);
}

static void generate(struct gen_flow *f)
{
	struct kvcache_pin pin = {0};
	int err = PD_OK;

	if (!f->g.stream) {
		jout_put(&f->out, "{");
		answer_head(&f->out, &f->g, false, f->created);
		jout_put(&f->out, f->g.kind == GEN_EMBEDDING ? ",\"data\":[" : ",\"choices\":[");
	}
	for (size_t i = 0; !err && i < f->g.nprompts; i++)
		err = f->g.kind == GEN_EMBEDDING ? one_embedding(f, i) : one_prompt(f, i, &pin);
	if (!err && http_conn_client_left(f->c))
		err = PD_ECANCELED;
	if (!err)
		err = inject(f); /* a cut after the last token, before the end of the answer */
	if (err) {
		(void)pthread_mutex_lock(&f->w->lock);
		engine_unpin(&f->w->engine, &pin, clock_now());
		(void)pthread_mutex_unlock(&f->w->lock);
		give_up(f);
	} else if (f->g.stream) {
		stream_finish(f);
	} else if (f->g.kind == GEN_EMBEDDING) {
		embed_finish(f);
	} else {
		finish_answer(f, &pin);
	}
}

static void fail_on_purpose(struct gen_flow *f)
{
	char extra[64] = "";

	(void)atomic_fetch_add(&f->w->stats.faults, 1);
	if (f->faults.fail_retry_after_s >= 0)
		(void)snprintf(extra, sizeof(extra), "Retry-After: %.0f\r\n",
			       f->faults.fail_retry_after_s);
	(void)api_fail(&f->error, (int)f->faults.fail_status, NULL, "injected fault");
	settle(f, "fault", f->error.status);
	api_reply_error(f->c, &f->error, extra[0] ? extra : NULL);
}

static void handle(struct gen_flow *f, enum gen_kind kind)
{
	int err = gen_request_parse(f->w, f->r, kind, &f->g, &f->error);

	if (f->g.model.n > 0) /* the body was read as an object */
		journal_session(&f->log, &f->g.body);
	f->log.leg = f->g.kv.do_remote_decode	 ? "prefill"
		     : f->g.kv.do_remote_prefill ? "decode"
						 : "plain";
	journal_add(&f->w->journal, &f->log);
	if (!err) {
		(void)atomic_fetch_add(&f->w->stats.legs[f->g.kv.do_remote_decode    ? LEG_PREFILL
							 : f->g.kv.do_remote_prefill ? LEG_DECODE
										     : LEG_PLAIN],
				       1);
		err = nixl_check(f->w, &f->g, &f->error);
	}
	if (err)
		give_up(f);
	else
		generate(f);
	gen_request_release(&f->g);
}

void worker_generate(struct worker *w, struct http_conn *c, struct http_request *r,
		     enum gen_kind kind)
{
	struct gen_flow *f = calloc(1, sizeof(*f)); /* too large for a small stack */
	enum fault_action action;

	if (!f) {
		(void)http_reply_error(c, 500, "InternalServerError", NULL, "out of memory");
		return;
	}
	f->w = w;
	f->c = c;
	f->r = r;
	f->arrived = r->body_ns > 0 ? r->body_ns : clock_now();
	f->created = clock_wall() / NS_PER_S;
	f->finish = "length";
	f->run = (struct gen_run){.w = w, .c = c, .g = &f->g};
	jout_init(&f->out, WORKER_OUT_MAX);
	buf_init(&f->text, WORKER_OUT_MAX);
	journal_describe(&f->log, &r->head, r->body);
	action = faults_next(w, &f->faults);
	if (action == FAULT_CRASH)
		w->cfg.crash();
	if (action == FAULT_NONE) {
		handle(f, kind);
	} else {
		journal_add(&w->journal, &f->log);
		fail_on_purpose(f);
	}
	jout_release(&f->out);
	buf_release(&f->text);
	free(f->log.text);
	free(f);
}
