/*
 * A block's name is a hash of what it holds: (group, index) inside the shared prefix, (session,
 * index) behind it. A block that is partly prefix and partly session is a session's block, as it
 * would be in an engine.
 */
#include "sim/trace/shape.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/rng.h"
#include "lib/workload/arrivals.h"

/* More than a turn has: names of blocks of different turns differ. */
#define SHAPE_TURN_BLOCKS (UINT64_C(1) << 21)

#define LEAN_TURNS 254 /* counted in a byte */

struct limit {
	const char *name;
	uint64_t value, min, max;
};

bool shape_is_lean(const struct shape *s)
{
	return s->turns <= LEAN_TURNS && s->session_zipf == 0 && s->system_tokens == 0 &&
	       s->think_ms == 0 && !s->single_turns &&
	       !(s->key == SHAPE_KEY_GROUP && s->groups == 0) &&
	       s->prefix_tokens + s->turns * (s->turn_tokens + s->output_tokens) <=
		       (uint64_t)SIM_TOKENS_MAX;
}

static int check_blocks(const struct shape *s, struct pd_msg *msg)
{
	double blocks = (double)s->sessions * (double)(s->single_turns ? s->turns : 1) *
			((double)(s->system_tokens + s->prefix_tokens) +
			 (double)s->turns * (double)(s->turn_tokens + s->output_tokens)) /
			(double)s->block_tokens;

	if (blocks > (double)SHAPE_BLOCKS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "the workload would have %.3g prefix blocks, expected at most %.3g",
			       blocks, (double)SHAPE_BLOCKS_MAX);
	return PD_OK;
}

int shape_check(const struct shape *s, struct pd_msg *msg)
{
	const struct limit limits[] = {
		{"sessions", s->sessions, 1, 10000000},
		{"turns", s->turns, 1, 100000},
		{"active", s->active, 0, 10000000},
		{"groups", s->groups, 0, 1000000},
		{"prefix_tokens", s->prefix_tokens, 0, 1000000},
		{"turn_tokens", s->turn_tokens, 1, 1000000},
		{"output_tokens", s->output_tokens, 1, 1000000},
		{"block_tokens", s->block_tokens, 1, 65536},
		{"system_tokens", s->system_tokens, 0, 1000000},
		{"think_ms", s->think_ms, 0, 100000000},
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (limits[i].value < limits[i].min || limits[i].value > limits[i].max)
			return pd_fail(msg, PD_EINVAL,
				       "'%s' is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
				       limits[i].name, limits[i].value, limits[i].min,
				       limits[i].max);
	if (!(s->zipf >= 0 && s->zipf <= 10))
		return pd_fail(msg, PD_EINVAL, "'zipf' is %g, expected 0 to 10", s->zipf);
	if (!(s->request_rate > 0))
		return pd_fail(msg, PD_EINVAL, "'request_rate' is %g, expected more than 0",
			       s->request_rate);
	if (!(s->session_zipf >= 0 && s->session_zipf <= 10))
		return pd_fail(msg, PD_EINVAL, "'session_zipf' is %g, expected 0 to 10",
			       s->session_zipf);
	if (!(s->burstiness > 0))
		return pd_fail(msg, PD_EINVAL, "'burstiness' is %g, expected more than 0",
			       s->burstiness);
	if (s->sessions * s->turns > SIM_REQUESTS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "the workload would have %" PRIu64 " requests, expected at most %u",
			       s->sessions * s->turns, SIM_REQUESTS_MAX);
	return shape_is_lean(s) ? PD_OK : check_blocks(s, msg);
}

const char *shape_key_name(const struct shape *s)
{
	static const char *const names[] = {"session", "group", "none"};

	return names[s->key];
}

static int assign_groups(const struct shape *s, struct rng *rng, uint32_t *group)
{
	double *sum = reallocarray(NULL, s->groups + 1, sizeof(*sum)), total = 0;

	if (!sum)
		return PD_ENOMEM;
	/* Cumulative popularity, ending at 1. */
	for (uint64_t g = 0; g < s->groups; g++)
		sum[g] = total += 1.0 / pow((double)(g + 1), s->zipf);
	for (uint64_t g = 0; g < s->groups; g++)
		sum[g] /= total;
	for (uint64_t i = 0; s->groups > 0 && i < s->sessions; i++) {
		uint64_t low = 0, high = s->groups - 1;
		double u;

		if (s->round_robin_groups) {
			group[i] = (uint32_t)(i % s->groups);
			continue;
		}
		for (u = rng_unit(rng); low < high;) {
			uint64_t mid = low + (high - low) / 2;

			if (sum[mid] > u)
				high = mid;
			else
				low = mid + 1;
		}
		group[i] = (uint32_t)low;
	}
	free(sum);
	return PD_OK;
}

/* Turns of each session: all have s->turns, or the shares of Zipf's law with the same sum (largest
 * remainders), at least one. */
static int share_turns(const struct shape *s, uint32_t *turns)
{
	uint64_t total = s->sessions * s->turns, given = 0;
	double sum = 0;

	for (uint64_t i = 0; i < s->sessions; i++)
		sum += pow((double)(i + 1), -s->session_zipf);
	for (uint64_t i = 0; i < s->sessions; i++) {
		double share = (double)(total - s->sessions) *
			       pow((double)(i + 1), -s->session_zipf) / sum;

		turns[i] = 1 + (uint32_t)share;
		given += turns[i];
	}
	/* what rounding down has left goes to the most popular ones, one each */
	for (uint64_t i = 0; given < total; i = (i + 1) % s->sessions, given++)
		turns[i]++;
	return given == total ? PD_OK : PD_EINVAL;
}

/* session[k] of the k-th request; the turn follows from how often the session came before. */
static void order_requests(const struct shape *s, struct rng *rng, const uint32_t *turns,
			   uint32_t *session)
{
	uint64_t wave = s->active && s->active < s->sessions ? s->active : s->sessions, n = 0;

	for (uint64_t from = 0; from < s->sessions; from += wave) {
		uint64_t to = from + wave < s->sessions ? from + wave : s->sessions, first = n;

		/* the first sessions have the most turns */
		for (uint32_t turn = 0; turn < turns[from]; turn++)
			for (uint64_t i = from; i < to && turn < turns[i]; i++)
				session[n++] = (uint32_t)i;
		if (s->order == SHAPE_INTERLEAVED)
			continue;
		for (uint64_t k = n - first; k > 1; k--) {
			uint64_t other = first + rng_below(rng, k);
			uint32_t swap = session[first + k - 1];

			session[first + k - 1] = session[other];
			session[other] = swap;
		}
	}
}

static uint64_t block_name(uint64_t kind, uint64_t owner, uint64_t index)
{
	uint64_t state = kind << 62 ^ owner << 28 ^ index;

	return rng_splitmix(&state);
}

struct maker {
	const struct shape *s;
	uint32_t *group, *session, *turn; /* owned: per session, per request, per session */
	uint32_t *turns;		  /* owned: per session */
	struct sim_order order;		  /* owned until it is the trace's; with think times */
	uint32_t *last;			  /* owned: per session, its request before */
	uint32_t *chain, *key;		  /* owned: per session, per key; see start */
	int64_t *at;			  /* owned: per request */
	uint64_t *block;		  /* owned scratch: all blocks of a session */
};

/* Tokens of the prompt of this turn. */
static uint64_t tokens_of(const struct shape *s, uint64_t turn)
{
	uint64_t history = s->single_turns ? 0 : turn * (s->turn_tokens + s->output_tokens);

	return s->system_tokens + s->prefix_tokens + history + s->turn_tokens;
}

/* Of all chains that start() makes. */
static uint64_t blocks_of(const struct maker *m)
{
	const struct shape *s = m->s;
	uint64_t n = 0;

	for (uint64_t i = 0; i < s->sessions; i++)
		n += tokens_of(s, m->turns[i] - 1) / s->block_tokens *
		     (s->single_turns ? m->turns[i] : 1);
	return n;
}

/* The blocks of a session are those of its last turn; the turns before begin with them. Without
 * history each turn has blocks of its own behind the prefix. */
static int start(struct maker *m, struct simtrace *t, uint32_t session, uint64_t turn)
{
	const struct shape *s = m->s;
	uint64_t system = s->system_tokens / s->block_tokens;
	uint64_t prefix = (s->system_tokens + s->prefix_tokens) / s->block_tokens;
	uint64_t n = tokens_of(s, m->turns[session] - 1) / s->block_tokens;

	for (uint64_t i = 0; i < n; i++)
		m->block[i] = i < system		    ? block_name(3, 0, i)
			      : i < prefix && s->groups > 0 ? block_name(1, m->group[session], i)
			      : i < prefix || !s->single_turns
				      ? block_name(2, session, i)
				      : block_name(2, session, i + (turn + 1) * SHAPE_TURN_BLOCKS);
	return simtrace_chain(t, m->block, n, &m->chain[session]);
}

/* Numbered in order of appearance. */
static int key_of(struct maker *m, struct simtrace *t, uint32_t session, uint32_t *no)
{
	bool by_group = m->s->key == SHAPE_KEY_GROUP;
	uint32_t owner = by_group ? m->group[session] : session;
	char text[SIM_MADE_KEY_MAX];
	size_t len;
	int err = PD_OK;

	*no = SIM_NO_KEY;
	if (m->s->key == SHAPE_KEY_NONE)
		return PD_OK;
	if (m->key[owner] == SIM_NO_KEY) {
		len = sim_made_key(by_group, owner, text);
		err = simtrace_key_new(t, (struct span){text, len}, &m->key[owner]);
	}
	*no = m->key[owner];
	return err;
}

static int add(struct maker *m, struct simtrace *t, uint64_t k)
{
	const struct shape *s = m->s;
	uint32_t session = m->session[k], turn = m->turn[session]++;
	uint64_t tokens = tokens_of(s, turn);
	struct sim_request r = {.arrival_ns = m->at[k],
				.nblocks = (uint32_t)(tokens / s->block_tokens),
				.input_tokens = (uint32_t)tokens,
				.output_tokens = (uint32_t)s->output_tokens,
				.pick = SIM_NO_PICK};
	int err = tokens > (uint64_t)SIM_TOKENS_MAX ? PD_EINVAL
		  : turn == 0 || s->single_turns    ? start(m, t, session, turn)
						    : PD_OK;

	if (!err)
		err = key_of(m, t, session, &r.key);
	r.block = m->chain[session];
	if (m->order.before) {
		m->order.before[k] = m->last[session];
		m->order.session[k] = session;
		m->last[session] = (uint32_t)k;
	}
	return err ? err : simtrace_add_made(t, &r);
}

/* With think times a session comes at a time of its own, and its turns follow their answers. */
static int make_sessions(struct maker *m, uint64_t n, uint64_t seed, struct rng *rng)
{
	const struct shape *s = m->s;
	int64_t *begin = reallocarray(NULL, s->sessions, sizeof(*begin));
	int err = begin ? PD_OK : PD_ENOMEM;

	m->order.before = reallocarray(NULL, n, sizeof(*m->order.before));
	m->order.session = reallocarray(NULL, n, sizeof(*m->order.session));
	m->order.think_ns = reallocarray(NULL, n, sizeof(*m->order.think_ns));
	m->last = reallocarray(NULL, s->sessions, sizeof(*m->last));
	m->order.nsessions = (uint32_t)s->sessions;
	if (!m->order.before || !m->order.session || !m->order.think_ns || !m->last)
		err = PD_ENOMEM;
	if (!err)
		err = arrivals_fill(begin, s->sessions, s->request_rate, s->burstiness, seed);
	for (uint64_t k = 0; !err && k < n; k++) {
		m->at[k] = begin[m->session[k]];
		m->order.think_ns[k] =
			(int64_t)(-log(1 - rng_unit(rng)) * (double)s->think_ms * 1e6);
	}
	if (!err)
		memset(m->last, 0xff, s->sessions * sizeof(*m->last));
	free(begin);
	return err;
}

/* Keys in order of appearance, and how often each is used. */
static int lean_keys(struct maker *m, struct simtrace *t)
{
	const struct shape *s = m->s;
	int err = PD_OK;

	for (uint64_t k = 0; !err && s->key != SHAPE_KEY_NONE && k < t->n; k++) {
		uint32_t no;

		err = key_of(m, t, t->made->session[k], &no);
		if (!err)
			t->key[no].requests++;
	}
	return err;
}

int shape_make_lean(const struct shape *s, uint64_t seed, struct simtrace *t, struct pd_msg *msg)
{
	uint64_t n = s->sessions * s->turns, keys;
	struct maker m = {.s = s};
	struct sim_made *made;
	uint8_t *count;
	struct rng rng;
	int err = shape_check(s, msg);

	if (err)
		return err;
	PD_CHECK(shape_is_lean(s));
	rng_seed(&rng, seed);
	t->block_tokens = (uint32_t)s->block_tokens;
	made = t->made = calloc(1, sizeof(*made));
	count = calloc(s->sessions, 1);
	m.turns = reallocarray(NULL, s->sessions, sizeof(*m.turns));
	keys = s->sessions > s->groups ? s->sessions : s->groups;
	m.key = s->key == SHAPE_KEY_NONE ? NULL : reallocarray(NULL, keys, sizeof(*m.key));
	m.group = s->groups ? calloc(s->sessions, sizeof(*m.group)) : NULL;
	err = !made || !count || !m.turns || (s->key != SHAPE_KEY_NONE && !m.key) ||
			      (s->groups && !m.group)
		      ? PD_ENOMEM
		      : PD_OK;
	if (!err) {
		*made = (struct sim_made){.by_group = s->key == SHAPE_KEY_GROUP,
					  .group = m.group,
					  .key = m.key,
					  .nsessions = (uint32_t)s->sessions,
					  .ngroups = (uint32_t)s->groups,
					  .prefix = (uint32_t)s->prefix_tokens,
					  .fresh = (uint32_t)s->turn_tokens,
					  .output = (uint32_t)s->output_tokens};
		made->session = reallocarray(NULL, n, sizeof(*made->session));
		made->at_ns = reallocarray(NULL, n, sizeof(*made->at_ns));
		made->turn = malloc(n);
		err = made->session && made->at_ns && made->turn ? PD_OK : PD_ENOMEM;
	} else {
		free(m.group);
		free(m.key);
	}
	if (!err && m.key)
		memset(m.key, 0xff, keys * sizeof(*m.key));
	if (!err)
		err = assign_groups(s, &rng, m.group);
	if (!err)
		err = arrivals_fill(made->at_ns, n, s->request_rate, s->burstiness, seed);
	if (!err)
		err = share_turns(s, m.turns);
	if (!err) {
		order_requests(s, &rng, m.turns, made->session);
		for (uint64_t k = 0; k < n; k++) {
			made->turn[k] = count[made->session[k]]++;
			t->named += tokens_of(s, made->turn[k]) / s->block_tokens;
		}
		t->n = n;
		err = lean_keys(&m, t);
	}
	free(count);
	free(m.turns);
	return err ? pd_fail(msg, err, "cannot make the workload: %s", pd_err_text(err)) : PD_OK;
}

int shape_make(const struct shape *s, uint64_t seed, struct simtrace *t, struct pd_msg *msg)
{
	uint64_t n = s->sessions * s->turns, blocks, keys;
	struct maker m = {.s = s};
	struct rng rng;
	int err = shape_check(s, msg);

	if (!err)
		err = check_blocks(s, msg);
	if (err)
		return err;
	rng_seed(&rng, seed);
	t->block_tokens = (uint32_t)s->block_tokens;
	m.group = calloc(s->sessions, sizeof(*m.group));
	m.turn = calloc(s->sessions, sizeof(*m.turn));
	m.session = reallocarray(NULL, n, sizeof(*m.session));
	m.at = reallocarray(NULL, n, sizeof(*m.at));
	m.turns = reallocarray(NULL, s->sessions, sizeof(*m.turns));
	err = m.turns ? share_turns(s, m.turns) : PD_ENOMEM;
	blocks = err ? 0 : tokens_of(s, m.turns[0] - 1) / s->block_tokens;
	m.block = reallocarray(NULL, blocks + 1, sizeof(*m.block));
	m.chain = calloc(s->sessions, sizeof(*m.chain));
	keys = s->sessions > s->groups ? s->sessions : s->groups;
	m.key = reallocarray(NULL, keys, sizeof(*m.key));
	if (!m.group || !m.turn || !m.session || !m.at || !m.block || !m.chain || !m.key)
		err = PD_ENOMEM;
	if (!err)
		memset(m.key, 0xff, keys * sizeof(*m.key));
	if (!err)
		err = simtrace_reserve(t, n, blocks_of(&m));
	if (!err)
		err = assign_groups(s, &rng, m.group);
	if (!err && s->think_ms == 0)
		err = arrivals_fill(m.at, n, s->request_rate, s->burstiness, seed);
	if (!err)
		order_requests(s, &rng, m.turns, m.session);
	if (!err && s->think_ms > 0)
		err = make_sessions(&m, n, seed, &rng);
	for (uint64_t k = 0; !err && k < n; k++)
		err = add(&m, t, k);
	if (!err) {
		t->order = m.order;
		m.order = (struct sim_order){0};
		err = simtrace_finish(t);
	}
	free(m.order.before);
	free(m.order.session);
	free(m.order.think_ns);
	free(m.last);
	free(m.turns);
	free(m.group);
	free(m.turn);
	free(m.session);
	free(m.at);
	free(m.block);
	free(m.chain);
	free(m.key);
	return err ? pd_fail(msg, err, "cannot make the workload: %s", pd_err_text(err)) : PD_OK;
}
