/*
 * Everything that can be decided before the first request is: order, times, sessions, which turn
 * follows which. The sending loop then only takes the next entry, and a seed gives the same plan.
 */
#include "lib/load/loadplan.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/workload/names.h"
#include "lib/workload/pattern.h"

#define PREFIX_BLOCK 16 /* tokens */

void load_plan_release(struct load_plan *p)
{
	for (size_t i = 0; i < p->nnames; i++)
		free(p->name[i]);
	free(p->name);
	free(p->item);
	schedule_plan_release(&p->schedule);
	*p = (struct load_plan){0};
}

/* One copy of each distinct name, numbered in order, so that equal names are equal pointers. */
static int set_name(struct load_plan *p, struct names *names, size_t i, struct span name, bool sent)
{
	uint32_t before = names->n, number;
	char *copy = strndup(name.p, name.n), **list;
	int err = copy ? names_number(names, (struct span){copy, name.n}, &number) : PD_ENOMEM;

	if (err || number < before)
		free(copy);
	if (err)
		return err;
	if (number == before) {
		if (p->nnames == p->names_cap) {
			size_t cap = p->names_cap ? p->names_cap * 2 : 64;

			list = realloc(p->name, cap * sizeof(char *));
			if (!list) {
				free(copy);
				return PD_ENOMEM;
			}
			p->name = list;
			p->names_cap = cap;
		}
		p->name[p->nnames++] = copy;
	}
	p->item[i].session = p->name[number];
	p->item[i].key = sent ? (uint32_t)name.n : 0;
	return PD_OK;
}

static int check_key(struct span key, uint32_t line, struct pd_msg *msg)
{
	for (size_t i = 0; i < key.n; i++)
		if ((unsigned char)key.p[i] < 0x20 || key.p[i] == 0x7f)
			return pd_fail(msg, PD_EINVAL,
				       "line %u: the session key contains a control character",
				       line);
	if (key.n > 1024)
		return pd_fail(msg, PD_EINVAL,
			       "line %u: session key of %zu bytes, expected at most 1024", line,
			       key.n);
	return PD_OK;
}

static int pattern_key(const struct pattern *pattern, const struct workload_request *r, size_t i,
		       struct buf *out, struct pd_msg *msg)
{
	struct pattern_vars v = {
		.i = (int64_t)i, .turn = r->turn, .prefix = r->group < 0 ? 0 : r->group};
	struct pd_msg why = {""};
	int err;

	v.session = r->session_no == WORKLOAD_NO_SESSION ? 0 : r->session_no;
	buf_clear(out);
	err = pattern_eval(pattern, &v, out, &why);
	return err ? pd_fail(msg, err, "--session-pattern: request %zu: %s", i, why.text) : PD_OK;
}

/* The name of what belongs together: by pattern, the record's own key, session or prefix group. */
static int name_of(const struct load_plan_options *o, const struct pattern *pattern,
		   const struct workload_request *r, size_t i, struct buf *text, struct span *name,
		   struct pd_msg *msg)
{
	int err = PD_OK;

	*name = (struct span){0};
	buf_clear(text);
	if (pattern)
		err = pattern_key(pattern, r, i, text, msg);
	else if (o->affinity == LOAD_AFFINITY_PREFIX && r->group >= 0)
		err = buf_printf(text, "prefix_%" PRId64, r->group);
	else if (o->affinity == LOAD_AFFINITY_SESSION)
		*name = r->session;
	else if (o->affinity != LOAD_AFFINITY_PREFIX)
		*name = r->key;
	if (text->len > 0)
		*name = buf_span(text);
	return err;
}

static int set_names(struct load_plan *p, const struct workload *w,
		     const struct load_plan_options *o, const struct pattern *pattern,
		     struct pd_msg *msg)
{
	struct names names;
	struct buf text;
	int err = PD_OK;

	names_init(&names);
	buf_init(&text, 65536);
	for (size_t i = 0; !err && i < p->n; i++) {
		const struct workload_request *r = &w->req[i];
		struct span name;

		p->item[i].request = r;
		err = name_of(o, pattern, r, i, &text, &name, msg);
		if (!err)
			err = check_key(name, r->line, msg);
		if (!err && name.n > 0)
			err = set_name(p, &names, i, name, o->affinity != LOAD_AFFINITY_NONE);
		p->keyed += p->item[i].key > 0;
	}
	buf_release(&text);
	names_release(&names);
	return err;
}

static int compile(const struct load_plan_options *o, struct pattern **pattern, struct pd_msg *msg)
{
	struct pd_msg why = {""};
	int err;

	*pattern = NULL;
	if (!o->pattern)
		return PD_OK;
	err = pattern_new(pattern, o->pattern, &why);
	return err ? pd_fail(msg, err, "--session-pattern: '%s', %s", o->pattern, why.text) : PD_OK;
}

int load_plan_make(struct load_plan *p, const struct workload *w, const struct load_plan_options *o,
		   struct pd_msg *msg)
{
	struct pattern *pattern;
	int err = compile(o, &pattern, msg);

	*p = (struct load_plan){0};
	if (!err)
		err = schedule_plan_make(&p->schedule, w, &o->schedule, msg);
	p->n = p->schedule.n;
	p->scheduled = o->schedule.timestamps || o->schedule.nphases > 0 ||
		       o->schedule.session_rate > 0 || !isinf(o->schedule.request_rate);
	if (!err) {
		p->item = calloc(p->n + 1, sizeof(*p->item));
		err = p->item ? set_names(p, w, o, pattern, msg) : PD_ENOMEM;
	}
	pattern_free(pattern);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory for %zu requests", p->n);
	if (err)
		load_plan_release(p);
	return err;
}

bool load_plan_splits_groups(const struct load_plan *p, size_t *groups, size_t *alone)
{
	uint32_t ngroups = 0;
	const char **first;
	bool *split;

	*groups = *alone = 0;
	for (size_t i = 0; i < p->n; i++) {
		int64_t g = p->item[i].request->group;

		if (g >= 0 && g < UINT32_MAX / 2 && g >= ngroups)
			ngroups = (uint32_t)g + 1;
	}
	first = calloc(ngroups + 1, sizeof(*first));
	split = calloc(ngroups + 1, sizeof(*split));
	for (size_t i = 0; first && split && i < p->n; i++) {
		int64_t g = p->item[i].request->group;

		if (g < 0 || g >= ngroups || p->item[i].key == 0)
			continue;
		if (!first[g]) {
			first[g] = p->item[i].session;
			++*groups;
		} else if (first[g] != p->item[i].session && !split[g]) {
			split[g] = true;
			++*alone;
		}
	}
	free(first);
	free(split);
	return *alone > 0;
}

static uint64_t id_of(uint64_t seed, uint64_t a, uint64_t b)
{
	uint64_t x = seed;

	x = rng_splitmix(&x) ^ a;
	x = rng_splitmix(&x) ^ b;
	return rng_splitmix(&x) | 1;
}

/* A length, spread when asked for. */
static int64_t length(const struct load_builtin *b, struct rng *rng, int64_t tokens)
{
	double spread = b->range * (2 * rng_unit(rng) - 1);
	int64_t n = b->range > 0 ? llround((double)tokens * (1 + spread)) : tokens;

	return n > 1 ? n : 1;
}

static int put_output(struct buf *out, const struct load_builtin *b, struct rng *rng)
{
	return b->output_tokens > 0 ? buf_printf(out, ",\"output_length\":%" PRId64,
						 length(b, rng, b->output_tokens))
				    : PD_OK;
}

static int put_ids(struct buf *out, uint64_t seed, uint64_t a, int64_t n, bool first)
{
	int err = PD_OK;

	for (int64_t k = 0; !err && k < n; k++)
		err = buf_printf(out, "%s%" PRIu64, first && k == 0 ? "" : ",",
				 id_of(seed, a, (uint64_t)k));
	return err;
}

static int put_single(struct buf *out, const struct load_builtin *b, struct rng *rng, int64_t i)
{
	int64_t shared = b->prefixes > 0 ? (b->prefix_tokens + PREFIX_BLOCK - 1) / PREFIX_BLOCK : 0,
		own = length(b, rng, b->input_tokens - (b->prefixes > 0 ? b->prefix_tokens : 0)),
		blocks = (own + PREFIX_BLOCK - 1) / PREFIX_BLOCK;
	int err;

	if (b->prefixes == 0) {
		err = buf_printf(out,
				 "{\"input_length\":%" PRId64 ",\"hash_ids\":[%" PRIu64
				 "],\"block_tokens\":%" PRId64,
				 own, id_of(b->seed, 0, (uint64_t)i), own);
	} else {
		err = buf_printf(out,
				 "{\"input_length\":%" PRId64 ",\"prefix_group\":%" PRId64
				 ",\"block_tokens\":%d,\"hash_ids\":[",
				 shared * PREFIX_BLOCK + own, i % b->prefixes, PREFIX_BLOCK);
		err = err ? err
			  : put_ids(out, b->seed, 3 + (uint64_t)(i % b->prefixes), shared, true);
		err = err ? err
			  : put_ids(out, b->seed, UINT64_C(1) << 32 | (uint64_t)i, blocks, false);
		err = err ? err : buf_puts(out, "]");
	}
	err = err ? err : put_output(out, b, rng);
	return err ? err : buf_puts(out, "}\n");
}

static int put_turn(struct buf *out, const struct load_builtin *b, int64_t s, int64_t t)
{
	int64_t own = b->input_tokens * 3 / 4 > 0 ? b->input_tokens * 3 / 4 : 1;
	int err = buf_printf(out,
			     "{\"input_length\":%" PRId64 ",\"block_tokens\":%" PRId64
			     ",\"session_id\":\"session_%03" PRId64 "\",\"turn\":%" PRId64
			     ",\"hash_ids\":[%" PRIu64,
			     b->input_tokens, own, s, t, id_of(b->seed, 1, (uint64_t)s));

	/* what is left of the prompt is the turn's own, in at most as many blocks as it takes */
	for (int64_t left = b->input_tokens - own, k = 0; !err && left > 0; left -= own, k++)
		err = buf_printf(out, ",%" PRIu64,
				 id_of(b->seed, (uint64_t)(2 + s), (uint64_t)(t * 64 + k)));
	return err ? err : buf_puts(out, "]}\n");
}

int load_plan_builtin(struct buf *out, const struct load_builtin *b)
{
	struct rng rng;
	int err = PD_OK;

	rng_seed(&rng, b->seed);
	for (int64_t i = 0; !err && b->sessions == 0 && i < b->requests; i++)
		err = put_single(out, b, &rng, i);
	for (int64_t t = 0; !err && t < b->turns; t++)
		for (int64_t s = 0; !err && s < b->sessions; s++)
			err = put_turn(out, b, s, t);
	return err;
}

int load_plan_shard(struct load_plan *p, int64_t part, int64_t parts)
{
	struct schedule_plan *s = &p->schedule;
	uint32_t *now = calloc(p->n + 1, sizeof(*now)); /* the new number of each */
	size_t n = 0;

	if (!now)
		return PD_ENOMEM;
	p->keyed = 0;
	for (size_t i = 0; i < p->n; i++) {
		bool session = s->session && s->session[i] != SCHEDULE_NONE;
		int64_t of = session ? (int64_t)s->session[i] : (int64_t)i;

		now[i] = SCHEDULE_NONE;
		if (of % parts != part - 1)
			continue;
		now[i] = (uint32_t)n;
		p->item[n] = p->item[i];
		p->keyed += p->item[n].key > 0;
		s->at_ns[n] = s->at_ns[i];
		if (s->think_ns)
			s->think_ns[n] = s->think_ns[i];
		if (s->session)
			s->session[n] = s->session[i];
		/* one that another shard sends is not waited for */
		if (s->before)
			s->before[n] =
				s->before[i] == SCHEDULE_NONE ? SCHEDULE_NONE : now[s->before[i]];
		n++;
	}
	p->n = s->n = n;
	free(now);
	return PD_OK;
}
