/* `workload:` of a scenario. */
#include "sim/scenario/scenario_workload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
		{"workload.generate.system_tokens", g->system_tokens, 0, 1000000,
		 &to->system_tokens},
		{"workload.generate.think_ms", g->think_ms, 0, 100000000, &to->think_ms},
	};

	*to = SHAPE_DEFAULTS;
	err = scn_real(s, "workload.generate.zipf", g->zipf, 0, 10, &to->zipf, msg);
	if (!err)
		err = scn_real(s, "workload.generate.request_rate", g->request_rate, 1e-9, INFINITY,
			       &to->request_rate, msg);
	if (!err)
		err = scn_real(s, "workload.generate.session_zipf", g->session_zipf, 0, 10,
			       &to->session_zipf, msg);
	if (!err)
		err = scn_real(s, "workload.generate.burstiness", g->burstiness, 1e-3, INFINITY,
			       &to->burstiness, msg);
	to->single_turns = g->single_turns && *g->single_turns;
	for (size_t i = 0; !err && i < sizeof(counts) / sizeof(counts[0]); i++)
		err = scn_whole(s, counts[i].path, counts[i].from, counts[i].min, counts[i].max,
				counts[i].to, msg);
	if (!err)
		err = scn_choice(s, "workload.generate.assign", g->assign, assign, &pick, msg);
	to->round_robin_groups = pick == 1;
	pick = 0;
	if (!err)
		err = scn_choice(s, "workload.generate.key", g->key, keys, &pick, msg);
	to->key = (enum shape_key)pick;
	pick = 0;
	if (!err)
		err = scn_choice(s, "workload.generate.order", g->order, orders, &pick, msg);
	to->order = (enum shape_order)pick;
	if (!err && to->key == SHAPE_KEY_GROUP && to->groups == 0)
		err = scn_at(s, msg, "workload.generate.key", 0,
			     "key 'group' without groups: expected 'groups' of at least 1");
	s->spec.shape = to;
	if (!err) {
		struct pd_msg inner = {.text = ""};

		if (shape_check(to, &inner))
			err = scn_at(s, msg, "workload.generate", 0, "%s", inner.text);
	}
	return err;
}

static int workload_path(struct scenario *s, const char *file)
{
	s->workload = scn_beside(s, file);
	s->spec.workload = s->workload;
	s->spec.workload_place = scn_place(s, "workload.file");
	return s->workload && s->spec.workload_place ? PD_OK : PD_ENOMEM;
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
	int kind = 0, err = scn_choice(s, "workload.gen.kind", g->kind, kinds, &kind, msg);

	generate_defaults(to, (enum generate_kind)kind);
	for (size_t i = 0; !err && i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint64_t value = (uint64_t)*counts[i].to;

		err = scn_whole(s, counts[i].path, counts[i].from, counts[i].min, counts[i].max,
				&value, msg);
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
		err = scn_at(s, msg, "workload.key", 0, "%s", inner.text);
	o->format = w->format;
	o->closed = s->y->max_concurrency || s->y->concurrent_sessions;
	if (w->timestamps)
		o->arrivals = *w->timestamps ? SIMLOAD_STAMPS : SIMLOAD_MADE;
	if (!err && w->timestamp_unit && workload_unit_parse(w->timestamp_unit, &o->unit))
		err = scn_at(s, msg, "workload.timestamp_unit", 0,
			     "found '%.60s': expected auto, s, ms, us or ns", w->timestamp_unit);
	if (!err)
		err = scn_real(s, "workload.request_rate", w->request_rate, 1e-9, INFINITY,
			       &o->request_rate, msg);
	if (!err)
		err = scn_real(s, "workload.speedup", w->speedup, 1e-6, 1e6, &o->speedup, msg);
	if (!err)
		err = scn_whole(s, "workload.requests", w->requests, 1, SIM_REQUESTS_MAX, &limit,
				msg);
	if (!err)
		err = scn_whole(s, "workload.block_tokens", w->block_tokens, 1, 65536, &block, msg);
	if (!err)
		err = scn_whole(s, "workload.output_tokens", w->output_tokens, 1,
				(uint64_t)SIM_TOKENS_MAX, &output, msg);
	o->max_requests = (size_t)limit;
	o->block_tokens = (uint32_t)block;
	o->output_tokens = (int64_t)output;
	return err;
}

int scn_read_workload(struct scenario *s, struct pd_msg *msg)
{
	const struct y_workload *w = s->y->workload;
	static const char *const only_file[] = {
		"workload.key",		  "workload.request_rate", "workload.speedup",
		"workload.spread",	  "workload.requests",	   "workload.block_tokens",
		"workload.output_tokens", "workload.format",	   "workload.timestamp_unit",
		"workload.timestamps"};

	int stated = (w->file != NULL) + (w->gen != NULL) + (w->generate != NULL);

	if (stated != 1)
		return scn_at(s, msg, "workload", 0,
			      "found %d of 'file', 'gen' and 'generate': expected one", stated);
	if (!w->generate)
		return read_file_workload(s, msg);
	for (size_t i = 0; i < sizeof(only_file) / sizeof(only_file[0]); i++)
		if (yamlpos_find(&s->pos, only_file[i]))
			return scn_at(
				s, msg, only_file[i], 0,
				"'%s' goes with 'file' or 'gen': expected it inside 'generate', "
				"if there",
				only_file[i] + 9);
	return read_generate(s, msg);
}
