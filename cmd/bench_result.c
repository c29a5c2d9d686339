#include "cmd/bench_result.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/bars_opts.h"
#include "cmd/bench_before.h"
#include "cmd/bench_html.h"
#include "cmd/bench_vllm.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/load/hists.h"
#include "lib/load/report.h"
#include "lib/load/shapes.h"
#include "lib/results/result_calc.h"
#include "lib/results/result_opts.h"
#include "lib/results/verify_report.h"

#define o	     bench_options
#define DOCUMENT_MAX ((size_t)4 << 30)
#define CACHED_STEP  0.05 /* a difference of the cached share that is pointed out */

/* ---- one arm ---- */

static const char *backend(const struct bench *b)
{
	static const char *const names[] = {[BODY_CHAT] = "openai-chat",
					    [BODY_COMPLETIONS] = "openai",
					    [BODY_EMBEDDINGS] = "openai-embeddings",
					    [BODY_RESPONSES] = "openai-responses",
					    [BODY_MESSAGES] = "anthropic-messages"};

	return names[b->setup.load.body.endpoint];
}

/* Is this request part of the figures? Not those of the windows at both ends, and not those that a
 * --duration, or a sweep that had seen enough, never sent. */
static bool counts(const struct load_outcome *out, size_t i, int64_t last)
{
	const struct result_request *r = &out->record[i];

	if (r->sent_ns < 0)
		return out->stopped && r->failure && strcmp(r->failure, "not_sent") == 0 &&
		       o.duration_s == 0;
	return (double)r->sent_ns >= o.warmup_s * 1e9 &&
	       (o.cooldown_s == 0 || (double)r->sent_ns < (double)last - o.cooldown_s * 1e9);
}

static bool is_mine(const struct bench *b, size_t i, size_t target)
{
	return o.ab.n == 0 || b->plan.item[i].target == target;
}

static int select_records(struct bench_arm *a, const struct bench *b,
			  const struct load_outcome *out, size_t target)
{
	size_t n = 0, mine = 0;
	int64_t last = 0;

	for (size_t i = 0; i < out->n; i++) {
		last = out->record[i].sent_ns > last ? out->record[i].sent_ns : last;
		mine += is_mine(b, i, target);
	}
	for (size_t i = 0; i < out->n; i++)
		n += is_mine(b, i, target) && counts(out, i, last);
	a->outside = mine - n;
	a->run.req = out->record;
	a->run.n = out->n;
	if (n == out->n)
		return PD_OK;
	a->own = calloc(n + 1, sizeof(*a->own));
	if (!a->own)
		return PD_ENOMEM;
	a->run.req = a->own;
	a->run.n = 0;
	for (size_t i = 0; i < out->n; i++)
		if (is_mine(b, i, target) && counts(out, i, last))
			a->own[a->run.n++] = out->record[i];
	return PD_OK;
}

static int put_text(struct buf *m, const char *name, const char *value)
{
	int err = buf_printf(m, ", \"%s\": ", name);

	if (err || !value)
		return err ? err : buf_puts(m, "null");
	return json_quote(m, value, strlen(value));
}

static int put_real(struct buf *m, const char *name, double value)
{
	int err = buf_printf(m, ", \"%s\": ", name);

	return err ? err : result_put_number(m, value);
}

/* The settings of the load that the keys of vllm bench do not have. */
static int put_settings(struct bench_arm *a, const struct bench *b, size_t target)
{
	const struct bench_setup *s = &b->setup;
	struct buf *m = &a->members;
	int err = buf_printf(m, ", \"warmups\": %lld, \"stream\": %s, \"carry_answers\": %s",
			     (long long)o.warmups, s->load.body.stream ? "true" : "false",
			     o.carry ? "true" : "false");

	err = err ? err : put_text(m, "endpoint", o.endpoint);
	err = err ? err : put_text(m, "target", s->load.target[target].base_url);
	err = err ? err : put_text(m, "transport", o.transport);
	err = err ? err : put_text(m, "affinity", o.affinity);
	err = err ? err
		  : put_text(m, "session_field",
			     o.session_field	  ? o.session_field
			     : o.prompt_cache_key ? "prompt_cache_key"
						  : "header:X-Session-Id,session_params");
	if (!err && s->plan.pattern)
		err = put_text(m, "session_pattern", s->plan.pattern);
	if (!err && s->load.salt)
		err = put_text(m, "salt", s->load.salt);
	if (!err && o.timestamps)
		err = put_real(m, "speedup", o.speedup);
	if (!err && o.session_rate > 0)
		err = put_real(m, "session_rate", o.session_rate);
	if (!err && o.duration_s > 0)
		err = put_real(m, "duration_limit", o.duration_s);
	if (!err && o.concurrent_sessions > 0)
		err = buf_printf(m, ", \"concurrent_sessions\": %lld",
				 (long long)o.concurrent_sessions);
	if (!err && b->token_scale > 0)
		err = put_real(m, "words_per_token", b->token_scale);
	if (!err && o.shard)
		err = put_text(m, "shard", o.shard);
	if (!err && a->name)
		err = put_text(m, "ab", a->name);
	for (size_t i = 0; !err && i < o.phases.n; i++) {
		err = buf_printf(m, "%s", i ? ", " : ", \"phases\": [");
		err = err ? err : json_quote(m, o.phases.items[i], strlen(o.phases.items[i]));
	}
	return !err && o.phases.n > 0 ? buf_puts(m, "]") : err;
}

static int add_members(struct bench_arm *a, const struct bench *b, const struct load_outcome *out,
		       size_t target)
{
	struct buf *m = &a->members;
	int err = buf_printf(m, "\"interrupted\": %s, \"outside\": %zu, \"repeated\": %zu",
			     out->stopped ? "true" : "false", a->outside, out->repeated);

	err = err ? err
		  : put_real(m, "client_cpu_share",
			     out->wall_ns > 0 ? (double)out->cpu_ns / (double)out->wall_ns : NAN);
	err = err ? err : buf_puts(m, ", \"client\": ");
	err = err ? err : pulse_json(&out->pulse, &a->client, m);
	err = err ? err : put_settings(a, b, target);
	err = err ? err : buf_append(m, b->described.data, b->described.len);
	err = err ? err : buf_puts(m, ", ");
	err = err ? err : figures_json(&a->figures, m);
	err = err ? err : buf_puts(m, ", ");
	err = err ? err : hists_json(&a->run, m);
	if (!err && o.verify) {
		err = buf_puts(m, ", \"verify\": ");
		err = err ? err : verify_json(&a->verify, m);
	}
	return err;
}

static int set_label(struct bench_arm *a)
{
	a->run.label = o.label;
	if (!a->name)
		return PD_OK;
	if (asprintf(&a->label, "%s%s%s", o.label ? o.label : "", o.label ? "-" : "", a->name) <
	    0) {
		a->label = NULL;
		return PD_ENOMEM;
	}
	a->run.label = a->label;
	return PD_OK;
}

int bench_arm_make(struct bench_arm *a, const struct bench *b, const struct load_outcome *out,
		   size_t target, struct pd_msg *msg)
{
	static const char *const names[LOAD_TARGETS_MAX] = {"a", "b"};
	time_t now = (time_t)(clock_wall() / NS_PER_S);
	struct tm tm;
	int err;

	*a = (struct bench_arm){.name = o.ab.n > 0 ? names[target] : NULL, .run = b->setup.run};
	buf_init(&a->members, 64 << 20);
	buf_init(&a->doc, DOCUMENT_MAX);
	(void)localtime_r(&now, &tm);
	(void)strftime(a->date, sizeof(a->date), "%Y%m%d-%H%M%S", &tm);
	a->run.date = a->date;
	a->run.backend = backend(b);
	a->run.model = b->setup.load.body.model;
	a->run.metadata = o.metadata.items;
	a->run.nmetadata = o.metadata.n;
	a->run.request_rate = b->step_rate > 0 ? b->step_rate : o.request_rate;
	a->run.burstiness = o.burstiness;
	a->run.max_concurrency = o.max_concurrency;
	a->run.clock_origin_ns = out->origin_ns;
	a->run.detailed = o.detailed;
	a->run.tool = "bench";
	a->run.seed = (uint64_t)o.seed;
	a->run.dataset_hash = b->hash;
	a->run.scheduled = b->plan.scheduled;
	err = set_label(a);
	err = err ? err : select_records(a, b, out, target);
	err = err ? err : figures_make(&a->figures, &a->run);
	if (!err) {
		pulse_judge(&out->pulse, a->figures.ttft.n > 0 ? a->figures.ttft.median : NAN,
			    &a->client);
		a->run.client_ok = a->client.ok;
		err = verify_run(&a->verify, a->run.req, a->run.n);
		a->verified = !err;
	}
	err = err ? err : add_members(a, b, out, target);
	a->run.members = a->members.data;
	err = err ? err : result_write(&a->run, &a->doc);
	for (size_t i = 0; i < a->run.n; i++)
		a->failed += a->run.req[i].failure != NULL;
	return err ? pd_fail(msg, err, "cannot make the document: %s", pd_err_text(err)) : PD_OK;
}

void bench_arm_release(struct bench_arm *a)
{
	if (a->verified)
		verify_release(&a->verify);
	buf_release(&a->members);
	buf_release(&a->doc);
	free(a->own);
	free(a->label);
}

/* ---- text ---- */

static void say(const char *fmt, ...) PD_PRINTF(1, 2);

static void say(const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_print(text, n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

static void rate_text(const struct bench *b, char *out, size_t cap)
{
	if (o.timestamps)
		(void)snprintf(out, cap, "the data set's times / %g", o.speedup);
	else if (b->setup.plan.schedule.nphases > 0)
		(void)snprintf(out, cap, "%zu phases", b->setup.plan.schedule.nphases);
	else if (o.session_rate > 0)
		(void)snprintf(out, cap, "%g/s each session", o.session_rate);
	else if (isinf(b->setup.plan.schedule.request_rate))
		(void)snprintf(out, cap, "as fast as allowed");
	else
		(void)snprintf(out, cap, "%g/s", b->setup.plan.schedule.request_rate);
}

void bench_print_header(const struct bench *b)
{
	const struct load_options *l = &b->setup.load;
	char rate[64], limit[48] = "";

	if (o.json)
		return;
	rate_text(b, rate, sizeof(rate));
	if (o.max_concurrency > 0)
		(void)snprintf(limit, sizeof(limit), ", at most %lld in flight",
			       (long long)o.max_concurrency);
	for (size_t i = 0; i < l->ntargets; i++)
		say("%s%s%s, model %s\n", l->ntargets > 1 ? (i ? "b: " : "a: ") : "",
		    l->target[i].base_url, o.endpoint, l->body.model);
	say("%zu requests of %s, rate: %s%s\n", b->plan.n,
	    o.dataset ? o.dataset : "built-in prompts", rate, limit);
	if (b->plan.keyed > 0)
		say("%zu session keys (%s) in %zu of %zu requests, sent in %s\n", b->plan.nnames,
		    b->setup.plan.pattern ? b->setup.plan.pattern : o.affinity, b->plan.keyed,
		    b->plan.n,
		    o.session_field	 ? o.session_field
		    : o.prompt_cache_key ? "prompt_cache_key"
					 : "header:X-Session-Id,session_params");
	say("\n");
	(void)fflush(stdout);
}

int bench_print(struct bench_arm *a, const struct bench *b, const struct load_outcome *out)
{
	struct buf text;
	bool ascii;
	int err = PD_OK;

	buf_init(&text, 64 << 20);
	if (a->name)
		err = buf_printf(&text, "%s: %s\n", a->name,
				 b->setup.load.target[a->name[0] == 'b'].base_url);
	err = err ? err : report_text(&a->run, &a->figures, &out->pulse, &a->client, &text);
	if (!err && !o.json && bars_wanted(o.bars, &ascii))
		err = shapes_text(&a->run, ascii, &text);
	if (!err && a->outside > 0)
		err = buf_printf(&text, "%zu requests are outside the figures\n", a->outside);
	if (!err && o.verify) {
		err = buf_puts(&text, "\n");
		if (!err && out->stopped)
			err = buf_puts(&text, "verdict: none, the run was interrupted\n");
		else if (!err)
			err = verify_text(&a->verify, &text);
	}
	err = err ? err
		  : asserts_judge(&b->asserts, &a->run, &a->verify, &a->figures, &text,
				  &a->asserts_failed);
	if (!err && o.json)
		cli_print(a->doc.data, a->doc.len);
	else if (!err)
		cli_print(text.data, text.len);
	buf_release(&text);
	(void)fflush(stdout);
	return err;
}

/* ---- files ---- */

/* FILE, or FILE.a.json and FILE.b.json for FILE.json. NULL: out of memory. */
static char *path_of(const struct bench_output *out, size_t arm)
{
	const char *dot = strrchr(out->path, '.'), *slash = strrchr(out->path, '/');
	size_t stem = dot && dot > slash ? (size_t)(dot - out->path) : strlen(out->path);
	char *path;

	if (o.ab.n == 0)
		return strdup(out->path);
	if (asprintf(&path, "%.*s.%c%s", (int)stem, out->path, arm ? 'b' : 'a', out->path + stem) <
	    0)
		return NULL;
	return path;
}

static int try_path(const char *flag, const char *path, struct pd_msg *msg)
{
	struct pd_msg why = {""};
	char *probe, text[128];
	int fd;

	if (strcmp(path, "-") == 0 || strncmp(path, "/dev/", 5) == 0)
		return PD_OK;
	if (asprintf(&probe, "%s.try-%d", path, (int)getpid()) < 0)
		return PD_ENOMEM;
	fd = open(probe, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		(void)pd_fail(&why, PD_EINVAL, "%s", pd_errno_text(errno, text, sizeof(text)));
	if (fd >= 0) {
		(void)close(fd);
		(void)unlink(probe);
	}
	free(probe);
	fd = fd < 0 ? fd : open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && !why.text[0] && errno != ENOENT)
		(void)pd_fail(&why, PD_EINVAL, "%s", pd_errno_text(errno, text, sizeof(text)));
	if (fd >= 0)
		(void)close(fd);
	return why.text[0] ? pd_fail(msg, PD_EINVAL, "--%s: cannot write '%s': %s", flag, path,
				     why.text)
			   : PD_OK;
}

int bench_output_open(struct bench_output *out, const struct bench *b, struct pd_msg *msg)
{
	time_t now = (time_t)(clock_wall() / NS_PER_S);
	struct tm tm;
	char date[20];
	int err;

	*out = (struct bench_output){.cached_before = NAN, .append = bench_vllm_append()};
	for (size_t i = 0; i < LOAD_TARGETS_MAX; i++)
		buf_init(&out->text[i], DOCUMENT_MAX);
	buf_init(&out->html, 64 << 20);
	buf_init(&out->timeline, 8 << 20);
	(void)localtime_r(&now, &tm);
	(void)strftime(date, sizeof(date), "%Y%m%d-%H%M%S", &tm);
	err = bench_vllm_path(&out->path,
			      b->setup.load.body.model ? b->setup.load.body.model : "model", date,
			      msg);
	if (!err && o.output) {
		out->path = strdup(o.output);
		err = out->path ? PD_OK : PD_ENOMEM;
	}
	if (!err && o.html)
		err = try_path("html", o.html, msg);
	for (size_t i = 0; !err && out->path && i < b->setup.load.ntargets; i++) {
		char *path = path_of(out, i);

		err = path ? try_path("output", path, msg) : PD_ENOMEM;
		if (!err && o.ab.n == 0)
			out->cached_before = bench_share_before(path, b->hash);
		free(path);
	}
	return err;
}

void bench_output_release(struct bench_output *out)
{
	for (size_t i = 0; i < LOAD_TARGETS_MAX; i++)
		buf_release(&out->text[i]);
	buf_release(&out->html);
	buf_release(&out->timeline);
	free(out->path);
}

int bench_output_add(struct bench_output *out, struct bench_arm *a, size_t target)
{
	struct buf *text = &out->text[target];

	if (out->n == BENCH_DOCS_MAX)
		return PD_ETOOBIG;
	out->doc[out->n].arm = target;
	out->doc[out->n].at = text->len;
	out->doc[out->n++].size = a->doc.len;
	/* the usual case, one document, is not copied */
	if (text->len == 0) {
		buf_release(text);
		*text = a->doc;
		a->doc = (struct buf){0};
		return PD_OK;
	}
	return buf_append(text, a->doc.data, a->doc.len);
}

static int append(const char *path, const struct buf *text, struct pd_msg *msg)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666), err;
	char why[128];

	if (fd < 0)
		return pd_fail(msg, PD_EIO, "cannot open '%s': %s", path,
			       pd_errno_text(errno, why, sizeof(why)));
	err = file_write_fd(fd, text->data, text->len);
	if (close(fd) < 0)
		err = PD_EIO;
	return err ? pd_fail(msg, PD_EIO, "cannot write '%s': %s", path,
			     pd_errno_text(errno, why, sizeof(why)))
		   : PD_OK;
}

/* The run is not lost: somewhere else, and the message says where. */
static int rescue(const struct buf *text, size_t arm, struct pd_msg *msg)
{
	const char *folder = getenv("TMPDIR");
	struct pd_msg why = *msg, second = {""};
	char *path;
	int err;

	if (asprintf(&path, "%s/pdctl-bench-%d%s.json", folder && *folder ? folder : "/tmp",
		     (int)getpid(), o.ab.n > 0 ? (arm ? ".b" : ".a") : "") < 0)
		return PD_ENOMEM;
	err = file_write(path, text->data, text->len, &second);
	if (!err)
		(void)pd_fail(msg, PD_EIO, "%.300s; the document is in '%s'", why.text, path);
	else
		(void)pd_fail(msg, PD_EIO, "%.300s; and %.300s", why.text, second.text);
	free(path);
	return PD_EIO;
}

int bench_output_write(struct bench_output *out, const struct bench *b, struct pd_msg *msg)
{
	struct span *each = calloc(out->n + 1, sizeof(*each));
	int err = each ? PD_OK : PD_ENOMEM;

	for (size_t i = 0; out->path && i < b->setup.load.ntargets; i++) {
		char *path = path_of(out, i);
		int failed = PD_ENOMEM;

		if (path)
			failed = out->append ? append(path, &out->text[i], msg)
					     : file_write(path, out->text[i].data, out->text[i].len,
							  msg);
		if (failed)
			err = rescue(&out->text[i], i, msg);
		free(path);
	}
	for (size_t i = 0; each && i < out->n; i++)
		each[i] = (struct span){out->text[out->doc[i].arm].data + out->doc[i].at,
					out->doc[i].size};
	if (each)
		out->stored = store_opts_save(&o.store, "bench", each, out->n);
	free(each);
	return err ? err : bench_html_write(out, msg);
}

/* ---- hints ---- */

void bench_print_hints(const struct bench_output *out, const struct bench *b,
		       const struct bench_arm *a)
{
	double share = a->figures.cached_share;

	if (o.json)
		return;
	if (b->splits)
		say("keys: %zu of %zu prefix groups have several keys, so a router that keeps keys "
		    "together\ncannot keep their prefixes together; try --session-pattern "
		    "'key_<prefix>'\n",
		    b->split, b->groups);
	if (!isnan(share) && !isnan(out->cached_before) &&
	    fabs(share - out->cached_before) > CACHED_STEP)
		say("cache: %.1f %% of the prompt tokens were cached, %.1f %% in the run before: "
		    "the "
		    "server may have\nseen these prompts; --salt makes new ones of them\n",
		    100 * share, 100 * out->cached_before);
	if (out->path && o.ab.n > 0) {
		char *pa = path_of(out, 0), *pb = path_of(out, 1);

		if (pa && pb)
			say("compare: pdctl compare %s %s\n", pa, pb);
		free(pa);
		free(pb);
	} else if (out->path && o.sweep) {
		say("compare: pdctl compare OTHER.json %s, rate by rate\n", out->path);
	} else if (out->path) {
		say("compare: pdctl compare %s OTHER.json\n", out->path);
	} else if (out->stored > 0) {
		say("kept as run %lld: pdctl results show %lld\n", (long long)out->stored,
		    (long long)out->stored);
	}
}
