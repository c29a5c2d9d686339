/*
 * From specifications to results, for scenario files and options alike: they differ only in where
 * they are read.
 *
 * Threads take replays from one list, in the order of the workloads, so that few traces are in
 * memory at a time: the first replay of a workload loads it, the last one frees it. Each replay
 * writes to a place of its own. Of several errors the one of the earliest replay is told.
 */
#include "sim/scenario/experiment.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/epp/epp_config.h"

#define GEN_MAX ((size_t)1 << 30)

static int load(const struct experiment_spec *spec, struct experiment_load *l, bool lean,
		struct pd_msg *msg)
{
	struct simload_options opt = spec->load;
	struct generate_options g;
	struct buf text;
	int err;

	opt.seed = l->seed;
	if (spec->workload) {
		struct pd_msg why = {.text = ""};

		err = simload_read(&l->trace, NULL, spec->workload, &opt, &l->facts, &why);
		/* a wrong record has its own place; a file that cannot be read has the scenario's
		 */
		if (err == PD_EIO && spec->workload_place)
			return pd_fail(msg, err, "%s: %.400s", spec->workload_place, why.text);
		return err ? pd_fail(msg, err, "%s", why.text) : PD_OK;
	}
	if (!spec->gen) {
		(void)snprintf(l->facts.key, sizeof(l->facts.key), "%s",
			       shape_key_name(spec->shape));
		(void)snprintf(l->facts.arrivals, sizeof(l->facts.arrivals), "generated");
		return (lean ? shape_make_lean : shape_make)(spec->shape, l->seed, &l->trace, msg);
	}
	g = *spec->gen;
	g.seed = l->seed;
	buf_init(&text, GEN_MAX);
	err = generate(&g, &text, msg);
	if (!err)
		err = simload_read(&l->trace, &text, spec->plan.source, &opt, &l->facts, msg);
	buf_release(&text);
	return err;
}

static void summarise(struct experiment_load *l)
{
	const struct simtrace *t = &l->trace;

	l->first_ns = t->n > 0 ? simtrace_request(t, 0).arrival_ns : 0;
	l->summary = (struct arm_load){.source = l->spec->plan.source,
				       .key = l->facts.key,
				       .format = l->facts.format,
				       .arrivals = l->facts.arrivals,
				       .invented = l->facts.invented,
				       .requests = t->n,
				       .keys = t->nkeys,
				       .picks = t->npicks,
				       .named = t->named,
				       .block_tokens = t->block_tokens};
}

/* An event that comes to no request would be ignored, which nobody means. */
static int check_events(const struct plan *p, size_t requests, struct pd_msg *msg)
{
	for (size_t i = 0; i < p->nevents; i++) {
		const struct plan_event *v = &p->events[i];

		if (v->event.by_request && v->event.request >= requests)
			return pd_fail(msg, PD_EINVAL,
				       "%s%s'at_request' is %" PRIu64
				       ", but the workload has %zu requests: expected a number "
				       "from 0 to %zu",
				       v->place ? v->place : "", v->place ? ": " : "",
				       v->event.request, requests, requests ? requests - 1 : 0);
	}
	return PD_OK;
}

/* Events by time that came when every run of their point had ended: they changed nothing. */
static int note_late_events(struct experiment *e, const struct experiment_spec *spec, size_t first,
			    size_t n)
{
	struct experiment_load *l = &e->load[e->arms.arm[first].load];
	double end = 0;
	bool run = false;

	for (size_t i = first; i < first + n; i++) {
		double seconds = e->arms.arm[i].result.duration_s;

		run |= e->arms.arm[i].done;
		end = seconds > end ? seconds : end;
	}
	end += (double)l->first_ns / 1e9;
	for (size_t i = 0; run && i < spec->plan.nevents; i++) {
		const struct plan_event *v = &spec->plan.events[i];

		if (v->event.by_request || (double)v->event.at_ns / 1e9 <= end)
			continue;
		if (simload_note(
			    &l->facts,
			    "%s%sthe event at %g ms comes after the end of every run (%.0f ms) "
			    "and changes nothing",
			    v->place ? v->place : "", v->place ? ": " : "",
			    (double)v->event.at_ns / 1e6, end * 1e3))
			return PD_ENOMEM;
	}
	return PD_OK;
}

/* ---- arms and workloads ---- */

/* The workload of this point: the first of its repetitions. PD_ENOMEM. */
static int load_of(struct experiment *e, const struct experiment_spec *spec, size_t *out)
{
	struct experiment_load *grown;

	for (size_t i = 0; i < e->nloads; i += e->repetitions) {
		const char *same = e->load[i].spec->same;

		if (same == spec->same || (same && spec->same && strcmp(same, spec->same) == 0)) {
			*out = i;
			return PD_OK;
		}
	}
	grown = reallocarray(e->load, e->nloads + e->repetitions, sizeof(*grown));
	if (!grown)
		return PD_ENOMEM;
	e->load = grown;
	*out = e->nloads;
	for (size_t r = 0; r < e->repetitions; r++) {
		struct experiment_load *l = &e->load[e->nloads++];

		*l = (struct experiment_load){.spec = spec, .seed = spec->plan.seed + r};
		simtrace_init(&l->trace, 0);
	}
	return PD_OK;
}

static int add_arms(struct experiment *e, const struct experiment_spec *spec, struct pd_msg *msg)
{
	struct arms more;
	struct arm *grown;
	size_t at = 0;
	int err = plan_arms(&spec->plan, &more, msg);

	if (err)
		return err;
	grown = reallocarray(e->arms.arm, e->arms.n + more.n, sizeof(*grown));
	if (!grown || e->arms.n + more.n > EXPERIMENT_ARMS_MAX) {
		e->arms.arm = grown ? grown : e->arms.arm;
		arms_release(&more);
		return grown ? pd_fail(msg, PD_EINVAL,
				       "the sweep has more than %d combinations of point, policy, "
				       "workers and cache",
				       EXPERIMENT_ARMS_MAX)
			     : pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	e->arms.arm = grown;
	memcpy(grown + e->arms.n, more.arm, more.n * sizeof(*grown));
	err = load_of(e, spec, &at);
	for (size_t i = 0; i < more.n; i++) {
		grown[e->arms.n].load = at;
		if (!err)
			err = arm_reps_new(&grown[e->arms.n], e->repetitions);
		e->arms.n++;
	}
	free(more.arm);
	return err ? pd_fail(msg, PD_ENOMEM, "out of memory") : PD_OK;
}

/* ---- replays ---- */

struct job {
	uint32_t arm, rep;
};

/* A trace and who needs it still. */
struct use {
	pthread_mutex_t lock;
	size_t left;
	bool loaded;
	int err;
	struct pd_msg msg;
};

struct crew {
	struct experiment *e;
	const struct experiment_options *opt;
	const struct plan **plan; /* of each arm */
	struct job *job;
	size_t njobs;
	struct use *use; /* of each load */
	atomic_size_t next;
	atomic_bool stop;
	pthread_mutex_t lock; /* of what follows */
	size_t done, failed;  /* failed: number of the job whose error stands below */
	int err;
	struct pd_msg msg;
};

/* Is nobody interested in the blocks and times of a shape's requests? */
static bool is_lean(const struct experiment *e, const struct experiment_spec *spec, size_t load_at)
{
	if (!spec->shape || !shape_is_lean(spec->shape))
		return false;
	for (size_t i = 0; i < e->arms.n; i++) {
		const struct replay_config *c = &e->arms.arm[i].cfg;
		bool here = e->arms.arm[i].load == load_at - load_at % e->repetitions;

		if (here && (!c->routing_only || c->cache_blocks > 0 || c->nevents > 0 ||
			     c->routers > 1 || c->max_concurrency > 0 ||
			     c->concurrent_sessions > 0 || c->decider.kind != ROUTE_DECIDER_always))
			return false;
		for (size_t p = 0; here && p < c->npools; p++)
			if (c->pool[p].node || (c->pool[p].policy.type->flags & ROUTE_WANTS_BLOCKS))
				return false;
	}
	return true;
}

/* What the file of the endpoint picker says and has no effect, here at least. */
static int note_epp(const struct epp_config *epp, struct simload_facts *f)
{
	int err = PD_OK;

	for (size_t i = 0; epp && !err && i < epp->nnotes; i++)
		err = simload_note(f, "%s", epp->note[i]);
	if (epp && !err && (epp->flow.on || epp->detector_named))
		err = simload_note(f, "flow control of the endpoint picker is not simulated: no "
				      "request waits for a pool that is saturated");
	return err;
}

static int need(struct crew *c, size_t load_at, struct pd_msg *msg)
{
	struct experiment_load *l = &c->e->load[load_at];
	struct use *u = &c->use[load_at];

	(void)pthread_mutex_lock(&u->lock);
	if (!u->loaded) {
		u->err = load(l->spec, l, is_lean(c->e, l->spec, load_at), &u->msg);
		if (!u->err && l->spec->note && simload_note(&l->facts, "%s", l->spec->note))
			u->err = pd_fail(&u->msg, PD_ENOMEM, "out of memory");
		if (!u->err && note_epp(l->spec->plan.epp, &l->facts))
			u->err = pd_fail(&u->msg, PD_ENOMEM, "out of memory");
		u->loaded = true;
		summarise(l);
	}
	(void)pthread_mutex_unlock(&u->lock);
	return u->err ? pd_fail(msg, u->err, "%s", u->msg.text) : PD_OK;
}

static void let_go(struct crew *c, size_t load_at)
{
	struct use *u = &c->use[load_at];

	(void)pthread_mutex_lock(&u->lock);
	if (--u->left == 0 && !c->opt->keep_traces && !c->opt->detailed)
		simtrace_release(&c->e->load[load_at].trace);
	(void)pthread_mutex_unlock(&u->lock);
}

static void run_job(struct crew *c, size_t number)
{
	const struct job *j = &c->job[number];
	struct arm *a = &c->e->arms.arm[j->arm];
	size_t at = a->load + j->rep;
	struct pd_msg msg = {.text = ""};
	int err = need(c, at, &msg);

	if (!err && j->rep == 0)
		err = check_events(c->plan[j->arm], c->e->load[at].trace.n, &msg);
	if (!err)
		err = arm_run(a, j->rep, &c->e->load[at].trace, &msg);
	let_go(c, at);
	(void)pthread_mutex_lock(&c->lock);
	if (err && (!c->err || number < c->failed)) {
		c->err = err;
		c->failed = number;
		c->msg = msg;
		atomic_store(&c->stop, true);
	}
	c->done++;
	if (!err && c->opt->progress)
		c->opt->progress(c->opt->progress_ctx, c->done, c->njobs);
	(void)pthread_mutex_unlock(&c->lock);
}

static void *work(void *ctx)
{
	struct crew *c = ctx;

	while (!atomic_load(&c->stop)) {
		size_t number = atomic_fetch_add(&c->next, 1);

		if (number >= c->njobs)
			break;
		run_job(c, number);
	}
	return NULL;
}

static void list_jobs(struct crew *c)
{
	struct experiment *e = c->e;

	for (size_t l = 0; l < e->nloads; l++) {
		size_t first = l - l % e->repetitions, rep = l - first;

		for (size_t i = 0; i < e->arms.n; i++) {
			if (e->arms.arm[i].load != first || !e->arms.arm[i].done)
				continue;
			c->job[c->njobs++] = (struct job){(uint32_t)i, (uint32_t)rep};
			c->use[l].left++;
		}
	}
}

static int run_crew(struct crew *c, struct pd_msg *msg)
{
	pthread_t thread[EXPERIMENT_THREADS_MAX];
	size_t n = c->opt->threads < 1 ? 1 : c->opt->threads, started = 0;

	n = n > EXPERIMENT_THREADS_MAX ? EXPERIMENT_THREADS_MAX : n;
	n = n > c->njobs ? c->njobs : n;
	/* This thread is one of them; it does alone what no further thread could be made for. */
	while (started + 1 < n && pthread_create(&thread[started], NULL, work, c) == 0)
		started++;
	(void)work(c);
	for (size_t i = 0; i < started; i++)
		(void)pthread_join(thread[i], NULL);
	return c->err ? pd_fail(msg, c->err, "%s", c->msg.text) : PD_OK;
}

static int run_all(struct experiment *e, const struct experiment_options *opt,
		   const struct plan **plan, struct pd_msg *msg)
{
	struct crew c = {.e = e, .opt = opt, .plan = plan};
	int err = PD_ENOMEM;

	for (size_t i = 0; i < e->arms.n; i++)
		e->arms.arm[i].cfg.detailed = opt->detailed && !e->arms.arm[i].cfg.routing_only;
	for (size_t i = 0; i < e->arms.n; i++)
		e->arms.arm[i].done = opt->shards == 0 || i % opt->shards == opt->shard;
	(void)pthread_mutex_init(&c.lock, NULL);
	c.job = calloc(e->arms.n * e->repetitions + 1, sizeof(*c.job));
	c.use = calloc(e->nloads + 1, sizeof(*c.use));
	for (size_t l = 0; c.use && l < e->nloads; l++)
		(void)pthread_mutex_init(&c.use[l].lock, NULL);
	if (c.job && c.use) {
		list_jobs(&c);
		err = run_crew(&c, msg);
	} else {
		(void)pd_fail(msg, err, "out of memory");
	}
	for (size_t l = 0; c.use && l < e->nloads; l++)
		(void)pthread_mutex_destroy(&c.use[l].lock);
	(void)pthread_mutex_destroy(&c.lock);
	free(c.job);
	free(c.use);
	return err;
}

/* What needs all arms: a shard leaves it to the merge. */
static int judge(struct experiment *e, const struct experiment_spec *spec, struct pd_msg *msg)
{
	int err = PD_OK;

	if (e->shards > 0)
		return PD_OK;
	if (spec->nexpect > 0)
		err = expect_evaluate(spec->expect, spec->nexpect, &e->arms, &e->expected, msg);
	for (size_t i = 0; !err && i < e->arms.n; i++)
		e->expected.missed += arm_is_dead(&e->arms.arm[i]);
	return err ? err : verdict_make(&e->verdict, &e->arms, &spec->rules, msg);
}

int experiment_run(const struct experiment_spec *spec, size_t nspecs,
		   const struct experiment_options *opt, struct experiment *out, struct pd_msg *msg)
{
	static const struct experiment_options alone = {.threads = 1};
	const struct plan **plan = NULL;
	size_t *first = calloc(nspecs + 1, sizeof(*first));
	int err = first ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");

	opt = opt ? opt : &alone;
	*out = (struct experiment){.name = spec->plan.name,
				   .spec = spec,
				   .shard = opt->shard,
				   .shards = opt->shards,
				   .repetitions = spec->repetitions ? spec->repetitions : 1};
	/* The arms first: a wrong policy should not wait for a large file. */
	for (size_t i = 0; !err && i < nspecs; i++) {
		first[i] = out->arms.n;
		err = add_arms(out, &spec[i], msg);
		first[i + 1] = out->arms.n;
	}
	plan = calloc(out->arms.n + 1, sizeof(*plan));
	if (!err && !plan)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; !err && i < nspecs; i++)
		for (size_t k = first[i]; k < first[i + 1]; k++)
			plan[k] = &spec[i].plan;
	if (!err)
		err = run_all(out, opt, plan, msg);
	for (size_t i = 0; !err && i < nspecs; i++)
		if (note_late_events(out, &spec[i], first[i], first[i + 1] - first[i]))
			err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err)
		err = judge(out, spec, msg);
	for (size_t l = 0; !err && l < out->nloads; l++) {
		out->load[l].summary.note = (const char *const *)out->load[l].facts.note;
		out->load[l].summary.nnotes = out->load[l].facts.nnotes;
	}
	for (size_t i = 0; !err && i < out->arms.n; i++)
		out->arms.arm[i].workload = &out->load[out->arms.arm[i].load].summary;
	free(plan);
	free(first);
	if (err)
		experiment_release(out);
	return err;
}

void experiment_release(struct experiment *e)
{
	expect_results_release(&e->expected);
	verdict_release(&e->verdict);
	arms_release(&e->arms);
	for (size_t l = 0; l < e->nloads; l++) {
		simload_facts_release(&e->load[l].facts);
		simtrace_release(&e->load[l].trace);
	}
	free(e->load);
	e->load = NULL;
	e->nloads = 0;
}

struct simreport experiment_report(const struct experiment *e)
{
	struct simreport r = {.name = e->name,
			      .source = e->spec->plan.source,
			      .arms = &e->arms,
			      .rules = &e->spec->rules,
			      .expected = e->expected.n ? &e->expected : NULL,
			      .expect = e->spec->expect,
			      .nexpect = e->spec->nexpect,
			      .verdict = e->verdict.known ? &e->verdict : NULL,
			      .shard = e->shard,
			      .shards = e->shards};

	return r;
}
