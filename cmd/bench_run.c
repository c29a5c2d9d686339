#include "cmd/bench_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/bench_vllm.h"
#include "cmd/workload_opts.h"
#include "lib/base/clock.h"
#include "lib/load/answer.h"
#include "lib/workload/synth.h"

#define o	     bench_options
#define BUILTIN_MAX  1000000
#define WARMUP_WORDS 64

volatile sig_atomic_t bench_interrupts;

static void on_interrupt(int sig)
{
	(void)sig;
	bench_interrupts = bench_interrupts + 1;
}

/* ---- workload and plan ---- */

/* How many built-in prompts: what is asked for, else enough for the duration. */
static int64_t builtin_requests(void)
{
	double n = 100;

	if (o.num_prompts > 0)
		return o.num_prompts;
	if (o.duration_s > 0)
		n = isinf(o.request_rate) ? 1e5 : o.request_rate * o.duration_s * 1.5 + 100;
	return n < BUILTIN_MAX ? (int64_t)n : BUILTIN_MAX;
}

static int builtin(struct bench *b, int64_t requests, uint64_t seed, struct pd_msg *msg)
{
	struct load_builtin make = {.requests = requests,
				    .sessions = o.sessions,
				    .turns = o.turns,
				    .input_tokens = o.input_len,
				    .seed = seed};
	struct buf text;
	int err;

	bench_vllm_builtin(&make);
	buf_init(&text, WORKLOAD_FILE_MAX);
	err = load_plan_builtin(&text, &make);
	if (!err)
		err = workload_parse_take(&b->work, &text, "built-in prompts", NULL, msg);
	buf_release(&text);
	return err;
}

/* Records again from the first one on, up to `n`. Not for sessions: a turn sent twice is no turn.
 */
static int oversample(struct bench *b, size_t n, struct pd_msg *msg)
{
	struct workload *w = &b->work;
	struct workload_request *p;
	size_t had = w->n;

	for (size_t i = 0; i < w->n; i++)
		if (w->req[i].ordered)
			return pd_fail(
				msg, PD_EINVAL,
				"--oversample: the data set has sessions, whose turns cannot "
				"be repeated");
	p = realloc(w->req, n * sizeof(*p));
	if (!p)
		return PD_ENOMEM;
	w->req = p;
	for (w->n = had; w->n < n; w->n++)
		p[w->n] = p[w->n % had];
	return PD_OK;
}

static int read_workload(struct bench *b, struct pd_msg *msg)
{
	struct workload_options w = {.max_requests = (size_t)o.num_prompts, .run = o.capture_run};
	int err;

	if (!o.dataset)
		return builtin(b, builtin_requests(), (uint64_t)o.seed, msg);
	workload_opts_take(&w);
	err = workload_read(&b->work, o.dataset, &w, msg);
	if (!err && o.oversample && b->work.n > 0 && (size_t)o.num_prompts > b->work.n)
		err = oversample(b, (size_t)o.num_prompts, msg);
	return err;
}

static int check_bodies(const struct bench *b, struct pd_msg *msg)
{
	struct pd_msg why = {""};

	for (size_t i = 0; i < b->work.n; i++)
		if (body_check(&b->setup.load.body, &b->work.req[i], &why))
			return pd_fail(msg, PD_EINVAL, "%s: %s",
				       o.dataset ? o.dataset : "built-in prompts", why.text);
	return PD_OK;
}

/* Twice the same requests, side by side, the two servers first in turns. */
static int pair_up(struct load_plan *p)
{
	struct schedule_plan *s = &p->schedule;
	size_t n = p->n;
	struct load_item *item = calloc(2 * n + 1, sizeof(*item));
	int64_t *at = calloc(2 * n + 1, sizeof(*at)), *think = NULL;
	uint32_t *before = NULL, *session = NULL;
	bool ok = item && at;

	if (s->think_ns)
		ok = (think = calloc(2 * n + 1, sizeof(*think))) != NULL && ok;
	if (s->before)
		ok = (before = calloc(2 * n + 1, sizeof(*before))) != NULL && ok;
	if (s->session)
		ok = (session = calloc(2 * n + 1, sizeof(*session))) != NULL && ok;
	for (size_t i = 0; ok && i < 2 * n; i++) {
		size_t of = i / 2, arm = (i + of) & 1;

		item[i] = p->item[of];
		item[i].target = (uint8_t)arm;
		at[i] = s->at_ns[of];
		if (think)
			think[i] = s->think_ns[of];
		if (session)
			session[i] = s->session[of] == SCHEDULE_NONE
					     ? SCHEDULE_NONE
					     : 2 * s->session[of] + (uint32_t)arm;
		if (before) {
			uint32_t k = s->before[of];

			before[i] = k == SCHEDULE_NONE ? k : 2 * k + (uint32_t)((arm + k) & 1);
		}
	}
	if (!ok) {
		free(item);
		free(at);
		free(think);
		free(before);
		free(session);
		return PD_ENOMEM;
	}
	free(p->item);
	free(s->at_ns);
	free(s->think_ns);
	free(s->before);
	free(s->session);
	p->item = item;
	s->at_ns = at;
	s->think_ns = think;
	s->before = before;
	s->session = session;
	s->nsessions *= 2;
	p->n = s->n = 2 * n;
	return PD_OK;
}

static int make_plan(struct bench *b, struct pd_msg *msg)
{
	int err;

	load_plan_release(&b->plan);
	err = load_plan_make(&b->plan, &b->work, &b->setup.plan, msg);
	if (!err && b->setup.shards > 1)
		err = load_plan_shard(&b->plan, b->setup.shard, b->setup.shards);
	if (!err && o.ab.n > 0)
		err = pair_up(&b->plan);
	b->setup.load.scheduled = b->plan.scheduled;
	return err;
}

int bench_prepare(struct bench *b, struct pd_msg *msg)
{
	int err = read_workload(b, msg);

	if (!err)
		(void)snprintf(b->hash, sizeof(b->hash), "%016llx",
			       (unsigned long long)b->work.hash);
	if (!err)
		workload_opts_say((const char *const *)b->work.note, b->work.nnotes);
	buf_init(&b->described, 1 << 20);
	err = err ? err : workload_describe(&b->work, &b->described);
	err = err ? err : check_bodies(b, msg);
	err = err ? err : make_plan(b, msg);
	if (!err)
		b->splits = load_plan_splits_groups(&b->plan, &b->groups, &b->split);
	return err;
}

void bench_forget(struct bench *b)
{
	workload_release(&b->work);
	if (o.ab.n > 0)
		return; /* which server a request went to is told by its item */
	free(b->plan.item);
	b->plan.item = NULL;
}

int bench_plan_step(struct bench *b, double rate, double seconds, struct pd_msg *msg)
{
	size_t want = isinf(rate) ? 10 : (size_t)(rate * seconds) + 1;
	int err = PD_OK;

	want = isinf(rate) || want > 20 ? want : 20;
	if (!o.dataset && !o.sessions) {
		workload_release(&b->work);
		err = builtin(b, (int64_t)want, (uint64_t)o.seed, msg);
	} else if (want > b->work.n && o.oversample) {
		err = oversample(b, want, msg);
	}
	b->setup.plan.schedule.requests = want < b->work.n ? want : b->work.n;
	b->setup.plan.schedule.request_rate = rate;
	b->step_rate = rate;
	return err ? err : make_plan(b, msg);
}

void bench_release(struct bench *b)
{
	load_plan_release(&b->plan);
	workload_release(&b->work);
	bench_setup_release(&b->setup);
	buf_release(&b->described);
	free(b->model);
}

/* ---- the server ---- */

static int first_model(struct span list, char **out)
{
	enum json_type type;
	struct span item;
	struct json_member m;
	struct buf text;
	size_t at = 0, k = 0;
	int err = PD_ENOENT;

	buf_init(&text, 65536);
	if (json_array_next(list, &at, &item, &type) && type == JSON_OBJECT)
		while (json_object_next(item, &k, &m))
			if (span_eq(m.key, SPAN("id")) && m.type == JSON_STRING)
				err = json_string_decode(m.value, &text);
	if (!err)
		*out = buf_detach(&text);
	buf_release(&text);
	return err;
}

static int ask_model(struct bench *b, struct pd_msg *msg)
{
	const struct json_member *data = NULL;
	const char *url = b->setup.load.target[0].base_url;
	struct json_object doc;
	struct buf body;
	int status = 0, err;
	bool parsed = false;

	buf_init(&body, 1 << 20);
	err = load_get(&b->setup.load, "/v1/models", &status, &body, msg);
	if (!err) {
		parsed = status == 200 && json_object_scan(&doc, body.data ? body.data : "",
							   body.len, NULL) == PD_OK;
		data = parsed ? json_object_get(&doc, "data") : NULL;
		if (status == 401 || status == 403)
			err = pd_fail(
				msg, PD_EPROTO,
				"GET /v1/models of %s: status %d: a key is needed (--api-key or "
				"OPENAI_API_KEY)",
				url, status);
		else if (status != 200)
			err = pd_fail(msg, PD_EPROTO,
				      "GET /v1/models of %s: status %d; name a model with --model",
				      url, status);
		else if (!data || data->type != JSON_ARRAY || first_model(data->value, &b->model))
			err = pd_fail(msg, PD_EPROTO,
				      "GET /v1/models of %s: status 200 without a model; name one "
				      "with --model",
				      url);
		if (parsed)
			json_object_release(&doc);
	}
	buf_release(&body);
	return err;
}

/* vLLM's --ready-check-timeout-sec. */
static int await_server(struct bench *b, struct pd_msg *msg)
{
	int64_t deadline = clock_now() + (int64_t)(bench_vllm_ready_s() * 1e9);
	struct buf body;
	int status = 0, err;

	if (bench_vllm_ready_s() <= 0)
		return PD_OK;
	buf_init(&body, 1 << 20);
	do {
		buf_clear(&body);
		err = load_get(&b->setup.load, "/v1/models", &status, &body, msg);
		if (err || status >= 500)
			clock_sleep_until(clock_now() + 200 * NS_PER_MS);
	} while ((err || status >= 500) && clock_now() < deadline && !bench_interrupts);
	buf_release(&body);
	return err;
}

/* The prompt tokens that the server counts for so many words of made text; -1: it does not say. */
static int count_tokens(struct bench *b, uint64_t words, int64_t *tokens, struct pd_msg *msg)
{
	struct workload_request r = {.input_tokens = (int64_t)words,
				     .output_tokens = 1,
				     .line = 1,
				     .session_no = WORKLOAD_NO_SESSION,
				     .block_tokens = (uint32_t)words};
	struct body_options body = b->setup.load.body;
	const struct body_turn turn = {.salt = SPAN("calibration")};
	struct answer a;
	struct buf text, reply;
	int status = 0, err;

	body.stream = false;
	body.output_tokens = 1;
	body.scale = 1;
	buf_init(&text, BODY_MAX);
	buf_init(&reply, 1 << 20);
	answer_init(&a, ANSWER_CHOICES, false);
	err = body_build(&body, &r, &turn, &text);
	err = err ? err
		  : load_post(&b->setup.load, b->setup.load.path, buf_span(&text), &status, &reply,
			      msg);
	if (!err) {
		a.api = body.endpoint == BODY_EMBEDDINGS  ? ANSWER_EMBEDDINGS
			: body.endpoint == BODY_RESPONSES ? ANSWER_RESPONSES
			: body.endpoint == BODY_MESSAGES  ? ANSWER_MESSAGES
							  : ANSWER_CHOICES;
		a.status = status;
		answer_feed(&a, reply.data ? reply.data : "", reply.len, 0);
		answer_end(&a, 0, true);
		*tokens = a.prompt_tokens;
		if (status != 200 || a.prompt_tokens < 0)
			err = pd_fail(msg, PD_EPROTO,
				      "--calibrate: the server states no "
				      "usage.prompt_tokens (status %d)",
				      status);
	}
	answer_release(&a);
	buf_release(&text);
	buf_release(&reply);
	return err;
}

/* Two prompts, so that what the chat template adds does not count. */
static int calibrate(struct bench *b, struct pd_msg *msg)
{
	const uint64_t few = 64, many = 576;
	int64_t a = 0, z = 0;
	int err = count_tokens(b, few, &a, msg);

	err = err ? err : count_tokens(b, many, &z, msg);
	if (err)
		return err;
	if (z <= a)
		return pd_fail(msg, PD_EPROTO,
			       "--calibrate: the server counts %lld tokens for %llu words and %lld "
			       "for %llu",
			       (long long)a, (unsigned long long)few, (long long)z,
			       (unsigned long long)many);
	b->token_scale = b->setup.load.body.token_scale = (double)(many - few) / (double)(z - a);
	return PD_OK;
}

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
}

int bench_connect(struct bench *b, struct pd_msg *msg)
{
	struct sigaction act = {.sa_handler = on_interrupt};
	int err;

	raise_descriptor_limit();
	(void)sigaction(SIGINT, &act, NULL);
	(void)sigaction(SIGTERM, &act, NULL);
	b->setup.load.stop = &bench_interrupts;
	b->setup.load.body.model = o.model;
	err = await_server(b, msg);
	if (!err && !o.model) {
		err = ask_model(b, msg);
		b->setup.load.body.model = b->model;
	}
	if (!err && o.calibrate)
		err = calibrate(b, msg);
	return err;
}

/* ---- progress ---- */

static bool on_progress(void *arg, const struct load_progress *p)
{
	struct bench *b = arg;
	double s = (double)p->elapsed_ns / 1e9, rate = s > 0 ? (double)p->done / s : 0;
	char ttft[32] = "", left[32] = "";

	if (b->terminal) {
		if (!isnan(p->ttft_ms))
			(void)snprintf(ttft, sizeof(ttft), ", TTFT %.1f ms", p->ttft_ms);
		if (rate > 0 && p->done < p->total)
			(void)snprintf(left, sizeof(left), ", %.0f s left",
				       (double)(p->total - p->done) / rate);
		(void)fprintf(stderr,
			      "\r%.0f s: %zu/%zu done, %.1f/s, %zu in flight, %zu failed%s%s\033[K",
			      s, p->done, p->total, rate, p->in_flight, p->failed, ttft, left);
		(void)fflush(stderr);
	}
	return b->watching && sweep_watch_add(&b->watch, p->elapsed_ns, p->in_flight, b->step_rate);
}

static void end_progress(const struct bench *b)
{
	if (b->terminal)
		(void)fputs("\r\033[K", stderr);
}

/* ---- runs ---- */

/* Their prompts begin with words that no measured prompt has, so they leave nothing in a prefix
 * cache that a measured request could find. */
int bench_warm_up(struct bench *b, struct pd_msg *msg)
{
	struct load_options l = b->setup.load;
	struct schedule_input order = {.n = (size_t)o.warmups};
	struct load_outcome outcome;
	struct load_item *item;
	char salt[64];
	int err;

	if (o.warmups == 0 || b->plan.n == 0)
		return PD_OK;
	item = calloc((size_t)o.warmups, sizeof(*item));
	if (!item)
		return PD_ENOMEM;
	for (size_t i = 0; i < (size_t)o.warmups; i++)
		item[i] = b->plan.item[i % b->plan.n];
	(void)snprintf(salt, sizeof(salt), "warmup %llx ",
		       (unsigned long long)(clock_wall() / NS_PER_MS));
	l.salt = salt;
	l.salt_each = true;
	l.scheduled = false;
	l.send_until_ns = 0;
	l.keep_text = l.carry_answers = false;
	l.request_id_prefix = NULL;
	err = load_run(&l, item, &order, &outcome, msg);
	if (!err)
		load_outcome_release(&outcome);
	free(item);
	return err;
}

int bench_once(struct bench *b, struct load_outcome *out, struct pd_msg *msg)
{
	const struct schedule_input order = schedule_plan_input(&b->plan.schedule);
	int err;

	b->setup.load.progress = b->terminal || b->watching ? on_progress : NULL;
	b->setup.load.progress_arg = b;
	err = load_run(&b->setup.load, b->plan.item, &order, out, msg);
	end_progress(b);
	return err;
}
