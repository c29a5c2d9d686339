/*
 * Everything that can be decided before the first request is: order, times, sessions, which turn
 * follows which. The sending loop then only takes the next entry, and a seed gives the same plan.
 */
#include "lib/load/loadplan.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/workload/arrivals.h"
#include "lib/workload/names.h"
#include "lib/workload/pattern.h"

void load_plan_release(struct load_plan *p)
{
	for (size_t i = 0; i < p->nnames; i++)
		free(p->name[i]);
	free(p->name);
	free(p->item);
	free(p->request);
	*p = (struct load_plan){0};
}

static int allocate(struct load_plan *p, const struct workload *w)
{
	p->item = calloc(p->n + 1, sizeof(*p->item));
	p->request = calloc(p->n + 1, sizeof(*p->request));
	p->name = calloc(p->n + 1, sizeof(*p->name));
	if (!p->item || !p->request || !p->name)
		return PD_ENOMEM;
	if (p->n > 0)
		memcpy(p->request, w->req, p->n * sizeof(*p->request));
	return PD_OK;
}

static int set_times(struct load_plan *p, const struct workload *w,
		     const struct load_plan_options *o, struct pd_msg *msg)
{
	int64_t *at;
	int err;

	p->scheduled = o->timestamps || !isinf(o->request_rate);
	if (o->timestamps) {
		if (!w->has_arrivals)
			return pd_fail(
				msg, PD_EINVAL,
				"--timestamps: not every record of the data set has a timestamp");
		for (size_t i = 0; i < p->n; i++)
			p->item[i].at_ns = llround((double)w->req[i].arrival_ns / o->speedup);
		return PD_OK;
	}
	at = calloc(p->n + 1, sizeof(*at));
	if (!at)
		return PD_ENOMEM;
	err = arrivals_fill(at, p->n, o->request_rate, o->burstiness, o->seed);
	for (size_t i = 0; !err && i < p->n; i++)
		p->item[i].at_ns = at[i];
	free(at);
	return err ? pd_fail(msg, PD_EINVAL,
			     "--request-rate: cannot schedule %zu requests at %g per second", p->n,
			     o->request_rate)
		   : PD_OK;
}

/* Turns of a session follow each other; everything else is free. */
static int set_turns(struct load_plan *p, const struct workload *w, double speedup)
{
	uint32_t *last = calloc((size_t)w->nsessions + 1, sizeof(*last));

	if (!last)
		return PD_ENOMEM;
	for (size_t i = 0; i <= w->nsessions; i++)
		last[i] = LOAD_NO_TURN;
	for (size_t i = 0; i < p->n; i++) {
		struct workload_request *r = &p->request[i];

		p->item[i].before = LOAD_NO_TURN;
		p->item[i].session_no = WORKLOAD_NO_SESSION;
		if (!r->ordered)
			continue;
		p->item[i].session_no = r->session_no;
		p->item[i].before = last[r->session_no];
		last[r->session_no] = (uint32_t)i;
		if (r->delay_ns > 0)
			r->delay_ns = llround((double)r->delay_ns / speedup);
	}
	free(last);
	return PD_OK;
}

/* One copy of each distinct key, numbered in order, so that equal keys are equal pointers. */
static int set_key(struct load_plan *p, struct names *names, size_t i, struct span key)
{
	uint32_t before = names->n, number;
	char *copy = strndup(key.p, key.n);
	int err = copy ? names_number(names, (struct span){copy, key.n}, &number) : PD_ENOMEM;

	if (err || number < before)
		free(copy);
	if (err)
		return err;
	if (number == before)
		p->name[p->nnames++] = copy;
	p->item[i].session = p->name[number];
	p->item[i].key = (struct span){p->name[number], key.n};
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

static int set_keys(struct load_plan *p, const struct pattern *pattern, struct pd_msg *msg)
{
	struct names names;
	struct buf text;
	int err = PD_OK;

	names_init(&names);
	buf_init(&text, 65536);
	for (size_t i = 0; !err && i < p->n; i++) {
		struct span key = p->request[i].key;

		if (pattern) {
			err = pattern_key(pattern, &p->request[i], i, &text, msg);
			key = buf_span(&text);
		}
		if (!err)
			err = check_key(key, p->request[i].line, msg);
		if (!err && key.n > 0)
			err = set_key(p, &names, i, key);
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

	*p = (struct load_plan){.n = o->requests > 0 ? o->requests : w->n};
	if (!err && p->n > w->n)
		err = pd_fail(msg, PD_EINVAL,
			      "--num-prompts: found %zu, expected at most %zu, the records of the "
			      "data set",
			      p->n, w->n);
	if (!err)
		err = allocate(p, w);
	if (!err)
		err = set_times(p, w, o, msg);
	if (!err)
		err = set_turns(p, w, o->speedup);
	for (size_t i = 0; !err && i < p->n; i++)
		p->item[i].request = &p->request[i];
	if (!err)
		err = set_keys(p, pattern, msg);
	pattern_free(pattern);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory for %zu requests", p->n);
	if (err)
		load_plan_release(p);
	return err;
}

static uint64_t id_of(uint64_t seed, uint64_t a, uint64_t b)
{
	uint64_t x = seed;

	x = rng_splitmix(&x) ^ a;
	x = rng_splitmix(&x) ^ b;
	return rng_splitmix(&x) | 1;
}

int load_plan_builtin(struct buf *out, int64_t requests, int64_t sessions, int64_t turns,
		      int64_t input_tokens, uint64_t seed)
{
	int64_t own = input_tokens * 3 / 4 > 0 ? input_tokens * 3 / 4 : 1;
	int err = PD_OK;

	for (int64_t i = 0; !err && sessions == 0 && i < requests; i++)
		err = buf_printf(out,
				 "{\"input_length\":%" PRId64 ",\"hash_ids\":[%" PRIu64
				 "],\"block_tokens\":%" PRId64 "}\n",
				 input_tokens, id_of(seed, 0, (uint64_t)i), input_tokens);
	for (int64_t t = 0; !err && t < turns; t++)
		for (int64_t s = 0; !err && s < sessions; s++) {
			err = buf_printf(out,
					 "{\"input_length\":%" PRId64 ",\"block_tokens\":%" PRId64
					 ",\"session_id\":\"session_%03" PRId64
					 "\",\"turn\":%" PRId64 ",\"hash_ids\":[%" PRIu64,
					 input_tokens, own, s, t, id_of(seed, 1, (uint64_t)s));
			/* what is left of the prompt is the turn's own, in at most as many blocks
			 * as it takes */
			for (int64_t left = input_tokens - own, k = 0; !err && left > 0;
			     left -= own, k++)
				err = buf_printf(
					out, ",%" PRIu64,
					id_of(seed, (uint64_t)(2 + s), (uint64_t)(t * 64 + k)));
			if (!err)
				err = buf_puts(out, "]}\n");
		}
	return err;
}
