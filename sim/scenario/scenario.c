/* From the schema's structs to an experiment: defaults, ranges, names of policies. Each error names
 * its line and column. */
#include "sim/scenario/scenario.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/epp/epp_config.h"
#include "lib/base/nearest.h"
#include "lib/base/yamlload.h"
#include "sim/engine/kvpool.h"
#include "sim/scenario/schema.h"

#define SEED_MAX ((UINT64_C(1) << 53) - 1) /* a JSON number holds it exactly */

struct scenario {
	char *path;	      /* owned */
	struct y_scenario *y; /* owned by libcyaml */
	struct scenario_schema schema;
	struct yamlpos pos;
	struct experiment_spec spec;
	struct shape shape;
	struct generate_options gen;
	char *workload;		/* owned: path of the workload file */
	struct epp_config *epp; /* owned; NULL: none */
	uint32_t counts[3][64];
	uint64_t *caches;	   /* owned */
	struct plan_event *events; /* owned */
	struct expect *expect;	   /* owned */
	char **place;		   /* owned: texts "FILE:LINE:COLUMN" */
	size_t nplaces;
};

/* "FILE:LINE:COLUMN: text" for the value at this path; a column (from 1) counts inside the value's
 * text, 0 is the value. */
static int at(const struct scenario *s, struct pd_msg *msg, const char *path, size_t column,
	      const char *fmt, ...) PD_PRINTF(5, 6);

static int at(const struct scenario *s, struct pd_msg *msg, const char *path, size_t column,
	      const char *fmt, ...)
{
	const struct yamlpos_entry *e = yamlpos_find(&s->pos, path);
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %s", s->path, e ? e->value_line : 1,
		       e ? (column ? e->text_column + column - 1 : e->value_column) : 1, text);
}

/* "FILE:LINE:COLUMN" of the value at this path, for errors that only a run finds. NULL: out of
 * memory. */
static const char *place_of(struct scenario *s, const char *path)
{
	const struct yamlpos_entry *e = yamlpos_find(&s->pos, path);
	char **grown = reallocarray(s->place, s->nplaces + 1, sizeof(char *));

	if (!grown)
		return NULL;
	s->place = grown;
	if (asprintf(&grown[s->nplaces], "%s:%zu:%zu", s->path, e ? e->value_line : 1,
		     e ? e->value_column : 1) < 0)
		return NULL;
	return grown[s->nplaces++];
}

/* *to = *from when it is stated and within min..max. */
static int whole(const struct scenario *s, const char *path, const uint64_t *from, uint64_t min,
		 uint64_t max, uint64_t *to, struct pd_msg *msg)
{
	if (!from)
		return PD_OK;
	if (*from > INT64_MAX) /* libcyaml accepts a minus sign */
		return at(s, msg, path, 0,
			  "found %" PRId64 ": expected a whole number from %" PRIu64 " to %" PRIu64,
			  (int64_t)*from, min, max);
	if (*from < min || *from > max)
		return at(s, msg, path, 0,
			  "found %" PRIu64 ": expected a whole number from %" PRIu64 " to %" PRIu64,
			  *from, min, max);
	*to = *from;
	return PD_OK;
}

static int real(const struct scenario *s, const char *path, const double *from, double min,
		double max, double *to, struct pd_msg *msg)
{
	if (!from)
		return PD_OK;
	if (!(*from >= min && *from <= max))
		return at(s, msg, path, 0, "found %g: expected a number from %g to %g", *from, min,
			  max);
	*to = *from;
	return PD_OK;
}

/* The index of the word in a NULL-terminated list. */
static int choice(const struct scenario *s, const char *path, const char *word,
		  const char *const *words, int *to, struct pd_msg *msg)
{
	const char *near;

	if (!word)
		return PD_OK;
	for (int i = 0; words[i]; i++) {
		if (strcmp(word, words[i]) != 0)
			continue;
		*to = i;
		return PD_OK;
	}
	near = nearest_word(word, words);
	return at(s, msg, path, 0, "found '%.60s'%s%s%s: expected %s%s%s%s%s", word,
		  near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "", words[0],
		  words[1] ? ", " : "", words[1] ? words[1] : "", words[1] && words[2] ? ", " : "",
		  words[1] && words[2] ? words[2] : "");
}

static int read_generate(struct scenario *s, struct pd_msg *msg)
{
	static const char *const assign[] = {"draw", "round_robin", NULL};
	static const char *const keys[] = {"session", "group", "none", NULL};
	static const char *const orders[] = {"interleaved", "shuffled", NULL};
	const struct y_generate *g = s->y->workload->generate;
	struct shape *to = &s->shape;
	int pick = 0, err;
	const struct {
		const char *path;
		const uint64_t *from;
		uint64_t min, max;
		uint64_t *to;
	} counts[] = {
		{"workload.generate.sessions", g->sessions, 1, 10000000, &to->sessions},
		{"workload.generate.turns", g->turns, 1, 100000, &to->turns},
		{"workload.generate.active", g->active, 1, 10000000, &to->active},
		{"workload.generate.groups", g->groups, 0, 1000000, &to->groups},
		{"workload.generate.prefix_tokens", g->prefix_tokens, 0, 1000000,
		 &to->prefix_tokens},
		{"workload.generate.turn_tokens", g->turn_tokens, 1, 1000000, &to->turn_tokens},
		{"workload.generate.output_tokens", g->output_tokens, 1, 1000000,
		 &to->output_tokens},
		{"workload.generate.block_tokens", g->block_tokens, 1, 65536, &to->block_tokens},
	};

	*to = SHAPE_DEFAULTS;
	err = real(s, "workload.generate.zipf", g->zipf, 0, 10, &to->zipf, msg);
	if (!err)
		err = real(s, "workload.generate.request_rate", g->request_rate, 1e-9, INFINITY,
			   &to->request_rate, msg);
	for (size_t i = 0; !err && i < sizeof(counts) / sizeof(counts[0]); i++)
		err = whole(s, counts[i].path, counts[i].from, counts[i].min, counts[i].max,
			    counts[i].to, msg);
	if (!err)
		err = choice(s, "workload.generate.assign", g->assign, assign, &pick, msg);
	to->round_robin_groups = pick == 1;
	pick = 0;
	if (!err)
		err = choice(s, "workload.generate.key", g->key, keys, &pick, msg);
	to->key = (enum shape_key)pick;
	pick = 0;
	if (!err)
		err = choice(s, "workload.generate.order", g->order, orders, &pick, msg);
	to->order = (enum shape_order)pick;
	if (!err && to->key == SHAPE_KEY_GROUP && to->groups == 0)
		err = at(s, msg, "workload.generate.key", 0,
			 "key 'group' without groups: expected 'groups' of at least 1");
	s->spec.shape = to;
	if (!err) {
		struct pd_msg inner = {.text = ""};

		if (shape_check(to, &inner))
			err = at(s, msg, "workload.generate", 0, "%s", inner.text);
	}
	return err;
}

/* A file is found beside the scenario, not in the current directory. */
static char *beside(const struct scenario *s, const char *file)
{
	const char *slash = strrchr(s->path, '/');
	char *path = NULL;

	if (file[0] == '/' || !slash)
		return strdup(file);
	return asprintf(&path, "%.*s/%s", (int)(slash - s->path), s->path, file) < 0 ? NULL : path;
}

static int workload_path(struct scenario *s, const char *file)
{
	s->workload = beside(s, file);
	s->spec.workload = s->workload;
	s->spec.workload_place = place_of(s, "workload.file");
	return s->workload && s->spec.workload_place ? PD_OK : PD_ENOMEM;
}

static int read_epp(struct scenario *s, struct pd_msg *msg)
{
	char *path = s->y->epp_config ? beside(s, s->y->epp_config) : NULL;
	struct pd_msg inner = {.text = ""};
	int err = PD_OK;

	if (path && epp_config_read(&s->epp, path, &inner))
		err = at(s, msg, "epp_config", 0, "%s", inner.text);
	else if (s->y->epp_config && !path)
		err = PD_ENOMEM;
	free(path);
	s->spec.plan.epp = s->epp;
	return err;
}

static int read_gen(struct scenario *s, struct pd_msg *msg)
{
	static const char *const kinds[] = {"shared-prefix", "multi-prefix", "conversations", NULL};
	const struct y_gen *g = s->y->workload->gen;
	struct generate_options *to = &s->gen;
	const struct {
		const char *path;
		const uint64_t *from;
		uint64_t min, max;
		int64_t *to;
	} counts[] = {
		{"workload.gen.num_prompts", g->num_prompts, 1, GENERATE_RECORDS_MAX, &to->prompts},
		{"workload.gen.num_prefixes", g->num_prefixes, 1, GENERATE_RECORDS_MAX,
		 &to->prefixes},
		{"workload.gen.prefix_len", g->prefix_len, 0, GENERATE_LENGTH_MAX, &to->prefix_len},
		{"workload.gen.suffix_len", g->suffix_len, 0, GENERATE_LENGTH_MAX, &to->suffix_len},
		{"workload.gen.num_conversations", g->num_conversations, 1, GENERATE_RECORDS_MAX,
		 &to->conversations},
		{"workload.gen.messages_per_conv", g->messages_per_conv, 1, GENERATE_RECORDS_MAX,
		 &to->messages},
		{"workload.gen.context_len", g->context_len, 0, GENERATE_LENGTH_MAX,
		 &to->context_len},
		{"workload.gen.new_msg_len", g->new_msg_len, 1, GENERATE_LENGTH_MAX,
		 &to->new_msg_len},
		{"workload.gen.output_tokens", g->output_tokens, 1, 1000000, &to->output_tokens},
	};
	int kind = 0, err = choice(s, "workload.gen.kind", g->kind, kinds, &kind, msg);

	generate_defaults(to, (enum generate_kind)kind);
	for (size_t i = 0; !err && i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint64_t value = (uint64_t)*counts[i].to;

		err = whole(s, counts[i].path, counts[i].from, counts[i].min, counts[i].max, &value,
			    msg);
		*counts[i].to = (int64_t)value;
	}
	s->spec.gen = to;
	return err;
}

static int read_file_workload(struct scenario *s, struct pd_msg *msg)
{
	const struct y_workload *w = s->y->workload;
	struct simload_options *o = &s->spec.load;
	struct pd_msg inner = {.text = ""};
	uint64_t limit = 0, block = 0, output = 128;
	int err = w->file ? workload_path(s, w->file) : read_gen(s, msg);

	*o = (struct simload_options){.key = w->key,
				      .seed = s->spec.plan.seed,
				      .speedup = 1,
				      .spread = w->spread && *w->spread};
	if (!err && simload_key_check(w->key, &inner))
		err = at(s, msg, "workload.key", 0, "%s", inner.text);
	o->format = w->format;
	o->closed = s->y->max_concurrency || s->y->concurrent_sessions;
	if (w->timestamps)
		o->arrivals = *w->timestamps ? SIMLOAD_STAMPS : SIMLOAD_MADE;
	if (!err && w->timestamp_unit && workload_unit_parse(w->timestamp_unit, &o->unit))
		err = at(s, msg, "workload.timestamp_unit", 0,
			 "found '%.60s': expected auto, s, ms, us or ns", w->timestamp_unit);
	if (!err)
		err = real(s, "workload.request_rate", w->request_rate, 1e-9, INFINITY,
			   &o->request_rate, msg);
	if (!err)
		err = real(s, "workload.speedup", w->speedup, 1e-6, 1e6, &o->speedup, msg);
	if (!err)
		err = whole(s, "workload.requests", w->requests, 1, SIM_REQUESTS_MAX, &limit, msg);
	if (!err)
		err = whole(s, "workload.block_tokens", w->block_tokens, 1, 65536, &block, msg);
	if (!err)
		err = whole(s, "workload.output_tokens", w->output_tokens, 1,
			    (uint64_t)SIM_TOKENS_MAX, &output, msg);
	o->max_requests = (size_t)limit;
	o->block_tokens = (uint32_t)block;
	o->output_tokens = (int64_t)output;
	return err;
}

static int read_workload(struct scenario *s, struct pd_msg *msg)
{
	const struct y_workload *w = s->y->workload;
	static const char *const only_file[] = {
		"workload.key",		  "workload.request_rate", "workload.speedup",
		"workload.spread",	  "workload.requests",	   "workload.block_tokens",
		"workload.output_tokens", "workload.format",	   "workload.timestamp_unit",
		"workload.timestamps"};

	int stated = (w->file != NULL) + (w->gen != NULL) + (w->generate != NULL);

	if (stated != 1)
		return at(s, msg, "workload", 0,
			  "found %d of 'file', 'gen' and 'generate': expected one", stated);
	if (!w->generate)
		return read_file_workload(s, msg);
	for (size_t i = 0; i < sizeof(only_file) / sizeof(only_file[0]); i++)
		if (yamlpos_find(&s->pos, only_file[i]))
			return at(s, msg, only_file[i], 0,
				  "'%s' goes with 'file' or 'gen': expected it inside 'generate', "
				  "if there",
				  only_file[i] + 9);
	return read_generate(s, msg);
}

static int read_pool(struct scenario *s, const char *name, size_t slot, const struct y_pool *y,
		     struct plan_pool *to, struct pd_msg *msg)
{
	char path[64];
	uint64_t n = 0;
	int stated, err = PD_OK;

	if (!y)
		return PD_OK;
	stated = (y->count != NULL) + (y->ncounts > 0) + (y->nnames > 0);
	if (stated != 1)
		return at(s, msg, name, 0,
			  "found %d of 'count', 'counts' and 'names': expected one", stated);
	if (y->ncounts > 1 && slot > 0)
		return at(s, msg, name, 0, "several 'counts' in a P/D pool: expected one 'count'");
	(void)snprintf(path, sizeof(path), "%s.count", name);
	err = whole(s, path, y->count, 1, ROUTE_WORKERS_MAX, &n, msg);
	s->counts[slot][0] = y->nnames ? y->nnames : (uint32_t)n;
	for (size_t i = 0; !err && i < y->ncounts; i++) {
		(void)snprintf(path, sizeof(path), "%s.counts[%zu]", name, i);
		err = whole(s, path, &y->counts[i], 1, ROUTE_WORKERS_MAX, &n, msg);
		s->counts[slot][i] = (uint32_t)n;
	}
	*to = (struct plan_pool){.names = (const char *const *)y->names,
				 .nnames = y->nnames,
				 .pattern = y->pattern,
				 .counts = s->counts[slot],
				 .ncounts = y->ncounts ? y->ncounts : 1};
	return err;
}

static int read_pools(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	const struct y_scenario *y = s->y;
	bool pd = y->prefill || y->decode;
	int err;

	if (pd && (!y->prefill || !y->decode))
		return at(s, msg, y->prefill ? "prefill" : "decode", 0,
			  "a P/D scenario needs both 'prefill' and 'decode'");
	if (pd == (y->workers != NULL))
		return at(s, msg, pd ? "workers" : "name", 0,
			  "expected either 'workers', or 'prefill' and 'decode'");
	err = read_pool(s, "workers", 0, y->workers, &p->workers, msg);
	if (!err)
		err = read_pool(s, "prefill", 1, y->prefill, &p->prefill, msg);
	if (!err)
		err = read_pool(s, "decode", 2, y->decode, &p->decode, msg);
	return err;
}

/* `ring` is the older spelling of two of the parameters. */
static int read_settings(struct scenario *s, struct pd_msg *msg)
{
	struct route_settings *to = &s->spec.plan.settings;
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	struct pd_msg inner = {.text = ""};
	size_t n = route_param_list(list), wrong;
	char path[96];
	bool ring;

	for (size_t i = 0; s->y->parameters && i < n; i++)
		to->value[i] = s->y->parameters->value[i];
	if (s->y->ring && (route_settings_put(to, "ring-hash", s->y->ring->hash) ||
			   route_settings_put(to, "virtual-nodes", s->y->ring->vnodes)))
		return PD_EINVAL;
	if (route_settings_check(to, &wrong, &inner) == PD_OK)
		return PD_OK;
	ring = !s->y->parameters || to->value[wrong] != s->y->parameters->value[wrong];
	(void)snprintf(path, sizeof(path), "%s.%s", ring ? "ring" : "parameters",
		       ring ? strcmp(list[wrong].name, "ring-hash") == 0 ? "hash" : "vnodes"
			    : s->schema.keys.key[wrong]);
	return at(s, msg, path, 0, "%s", inner.text);
}

static int read_policies(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	struct route_spec spec[REPLAY_POOLS];
	struct pd_msg inner = {.text = ""};
	char path[64];
	int err = read_settings(s, msg);

	err = err ? err : read_epp(s, msg);
	if (err)
		return err;
	for (size_t i = 0; i < s->y->npolicies; i++) {
		(void)snprintf(path, sizeof(path), "policies[%zu]", i);
		if (plan_policy_parse(s->y->policies[i], &p->settings, spec, &inner))
			return at(s, msg, path, 0, "%s", inner.text);
		if (strchr(s->y->policies[i], '/') && s->y->workers)
			return at(s, msg, path, 0,
				  "'%s' names two pools: expected prefill and decode pools",
				  s->y->policies[i]);
	}
	p->policies = (const char *const *)s->y->policies;
	p->npolicies = s->y->npolicies;
	return PD_OK;
}

static int read_caches(struct scenario *s, struct pd_msg *msg)
{
	const struct y_cache *c = s->y->cache;
	char path[64];
	int err = PD_OK;

	if (!c)
		return PD_OK;
	s->caches = calloc(c->nblocks, sizeof(*s->caches));
	if (!s->caches)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < c->nblocks; i++) {
		(void)snprintf(path, sizeof(path), "cache.blocks[%zu]", i);
		err = whole(s, path, &c->blocks[i], 0, KVPOOL_BLOCKS_MAX, &s->caches[i], msg);
	}
	s->spec.plan.caches = s->caches;
	s->spec.plan.ncaches = c->nblocks;
	return err;
}

static int read_engine(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	const struct y_engine *e = s->y->engine;
	uint64_t seqs = p->engine.max_num_seqs, batched = p->engine.max_batched_tokens;
	double rate = 1e6 / p->engine.prefill_us;
	int err;

	if (!e)
		return PD_OK;
	err = real(s, "engine.prefill_tokens_per_s", e->prefill_tokens_per_s, 1, 1e9, &rate, msg);
	if (!err)
		err = real(s, "engine.decode_ms_per_token", e->decode_ms_per_token, 0.001, 1e6,
			   &p->engine.step_ms, msg);
	if (!err)
		err = real(s, "engine.decode_us_per_request", e->decode_us_per_request, 0, 1e6,
			   &p->engine.request_us, msg);
	if (!err)
		err = real(s, "engine.decode_us_per_context_token", e->decode_us_per_context_token,
			   0, 1e6, &p->engine.context_us, msg);
	if (!err)
		err = real(s, "engine.transfer_ms", e->transfer_ms, 0, 1e6, &p->transfer_ms, msg);
	if (!err)
		err = real(s, "engine.transfer_us_per_token", e->transfer_us_per_token, 0, 1e6,
			   &p->transfer_us_token, msg);
	if (!err)
		err = whole(s, "engine.max_num_seqs", e->max_num_seqs, 1, 65536, &seqs, msg);
	if (!err)
		err = whole(s, "engine.max_num_batched_tokens", e->max_num_batched_tokens, 1,
			    1 << 24, &batched, msg);
	if (!err)
		err = whole(s, "engine.kv_tokens", e->kv_tokens, 0, UINT64_C(1) << 50,
			    &p->engine.kv_tokens, msg);
	if (e->prefill_tokens_per_s)
		p->engine.prefill_us = 1e6 / rate;
	p->engine.max_num_seqs = (uint32_t)seqs;
	p->engine.max_batched_tokens = (uint32_t)batched;
	return err;
}

static int read_event(struct scenario *s, size_t i, struct pd_msg *msg)
{
	static const char *const actions[] = {"join", "leave", "fail", NULL};
	const struct y_event *y = &s->y->events[i];
	struct plan_event *to = &s->events[i];
	char path[64], field[96];
	double ms = 0;
	int pick = 0, err;

	(void)snprintf(path, sizeof(path), "events[%zu]", i);
	if ((y->at_request != NULL) == (y->at_ms != NULL))
		return at(s, msg, path, 0, "expected either 'at_request' or 'at_ms'");
	(void)snprintf(field, sizeof(field), "%s.action", path);
	err = choice(s, field, y->action, actions, &pick, msg);
	(void)snprintf(field, sizeof(field), "%s.at_ms", path);
	if (!err)
		err = real(s, field, y->at_ms, 0, 1e12, &ms, msg);
	(void)snprintf(field, sizeof(field), "%s.pool", path);
	if (!err && y->pool && strcmp(y->pool, "prefill") != 0 && strcmp(y->pool, "decode") != 0)
		err = at(s, msg, field, 0, "found '%.60s': expected prefill or decode", y->pool);
	to->event = (struct replay_event){.by_request = y->at_request != NULL,
					  .request = y->at_request ? *y->at_request : 0,
					  .at_ns = llround(ms * 1e6),
					  .action = (enum replay_action)pick};
	to->worker = y->worker;
	to->pool = y->pool;
	(void)snprintf(field, sizeof(field), "%s.%s", path, y->at_request ? "at_request" : "at_ms");
	to->place = place_of(s, field);
	return err || to->place ? err : PD_ENOMEM;
}

static int read_events(struct scenario *s, struct pd_msg *msg)
{
	int err = PD_OK;

	s->events = calloc(s->y->nevents + 1, sizeof(*s->events));
	if (!s->events)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < s->y->nevents; i++)
		err = read_event(s, i, msg);
	s->spec.plan.events = s->events;
	s->spec.plan.nevents = s->y->nevents;
	return err;
}

static int read_expectations(struct scenario *s, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	size_t column;
	char path[64];

	s->expect = calloc(s->y->nexpect + 1, sizeof(*s->expect));
	if (!s->expect)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->y->nexpect; i++) {
		(void)snprintf(path, sizeof(path), "expect[%zu]", i);
		if (expect_parse(&s->expect[i], s->y->expect[i], &column, &inner))
			return at(s, msg, path, column, "%s", inner.text);
		s->expect[i].place = place_of(s, path);
		if (!s->expect[i].place)
			return PD_ENOMEM;
	}
	s->spec.expect = s->expect;
	s->spec.nexpect = s->y->nexpect;
	return PD_OK;
}

/* A worker's name is its identity on the ring. */
static int check_names(const struct scenario *s, const char *pool, const struct y_pool *y,
		       struct pd_msg *msg)
{
	char path[64];

	for (size_t i = 1; y && i < y->nnames; i++)
		for (size_t k = 0; k < i; k++) {
			if (strcmp(y->names[i], y->names[k]) != 0)
				continue;
			(void)snprintf(path, sizeof(path), "%s.names[%zu]", pool, i);
			return at(s, msg, path, 0,
				  "the name '%.60s' is given twice: expected a name of its own for "
				  "each worker",
				  y->names[i]);
		}
	return PD_OK;
}

/* Errors that only building the arms finds (events against pools, too many combinations) get a
 * place in the file as well. */
static int try_arms(const struct scenario *s, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	struct arms arms;
	int err = plan_arms(&s->spec.plan, &arms, &inner);

	if (err == PD_EINVAL)
		return at(s, msg, s->y->nevents ? "events" : "name", 0, "%s", inner.text);
	if (!err)
		arms_release(&arms);
	return err;
}

static int convert(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	uint64_t concurrency = 0, sessions = 0;
	int err;

	*p = (struct plan){.name = s->y->name,
			   .source = s->path,
			   .seed = s->y->seed ? *s->y->seed : 1,
			   .engine = ENGINE_DEFAULTS,
			   .transfer_ms = 1,
			   .transfer_us_token = 5.24,
			   .routing_only = s->y->routing_only && *s->y->routing_only};
	err = whole(s, "seed", s->y->seed, 0, SEED_MAX, &p->seed, msg);
	if (!err)
		err = whole(s, "max_concurrency", s->y->max_concurrency, 1, 1000000000,
			    &concurrency, msg);
	p->max_concurrency = (uint32_t)concurrency;
	if (!err)
		err = whole(s, "concurrent_sessions", s->y->concurrent_sessions, 1, 10000000,
			    &sessions, msg);
	p->concurrent_sessions = (uint32_t)sessions;
	if (!err)
		err = read_workload(s, msg);
	if (!err)
		err = read_pools(s, msg);
	if (!err)
		err = read_policies(s, msg);
	if (!err)
		err = read_caches(s, msg);
	if (!err)
		err = read_engine(s, msg);
	if (!err)
		err = read_events(s, msg);
	if (!err)
		err = read_expectations(s, msg);
	if (!err)
		err = check_names(s, "workers", s->y->workers, msg);
	if (!err)
		err = check_names(s, "prefill", s->y->prefill, msg);
	if (!err)
		err = check_names(s, "decode", s->y->decode, msg);
	return err ? err : try_arms(s, msg);
}

int scenario_parse(struct scenario **out, const char *text, size_t n, const char *path,
		   struct pd_msg *msg)
{
	struct scenario *s = calloc(1, sizeof(*s));
	void *data;
	int err;

	*out = NULL;
	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	scenario_schema_make(&s->schema);
	err = yamlload_read(&s->schema.top, &data, &s->pos, text, n, path, msg);
	s->y = data;
	if (!err)
		err = convert(s, msg);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory");
	if (err)
		scenario_free(s);
	else
		*out = s;
	return err;
}

int scenario_load(struct scenario **out, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	*out = NULL;
	buf_init(&text, SCENARIO_FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = scenario_parse(out, text.data ? text.data : "", text.len, path, msg);
	buf_release(&text);
	return err;
}

void scenario_free(struct scenario *s)
{
	if (!s)
		return;
	yamlload_free(&s->schema.top, s->y);
	yamlpos_release(&s->pos);
	free(s->path);
	epp_config_free(s->epp);
	free(s->workload);
	free(s->caches);
	free(s->events);
	free(s->expect);
	for (size_t i = 0; i < s->nplaces; i++)
		free(s->place[i]);
	free(s->place);
	free(s);
}

const struct experiment_spec *scenario_spec(const struct scenario *s)
{
	return &s->spec;
}
