/* Members are one table per object; what is not in it is named, never ignored in silence. */
#include "sim/oracle/enginecase.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/json/scan.h"

#define CONFIG_MAX   ((size_t)1 << 20)
#define WORKLOAD_MAX ((size_t)4 << 30)
#define TOKENS_MAX   100000000
#define US_MAX	     INT64_C(1000000000000000)

enum kind { COUNT, REAL, BOOL, INVERSE };

struct member {
	const char *name;
	enum kind kind;
	size_t at;
	double min, max;
};

#define SCHED(m) offsetof(struct stepper_config, sched.m)
#define COST(m)	 offsetof(struct stepper_config, cost.m)

static const struct member engine_members[] = {
	{"block_size", COUNT, SCHED(block_size), 1, 1 << 20},
	{"num_blocks", COUNT, SCHED(num_blocks), 2, KVPOOL_BLOCKS_MAX},
	{"max_num_seqs", COUNT, SCHED(max_num_seqs), 1, SCHED_SEATS_MAX},
	{"max_num_batched_tokens", COUNT, SCHED(max_num_batched_tokens), 1, SCHED_BUDGET_MAX},
	{"long_prefill_token_threshold", COUNT, SCHED(long_prefill_token_threshold), 0,
	 SCHED_BUDGET_MAX},
	{"max_model_len", COUNT, SCHED(max_model_len), 1, TOKENS_MAX},
	{"watermark", REAL, SCHED(watermark), 0, 0.999},
	{"prefix_caching", BOOL, SCHED(prefix_caching), 0, 0},
	{"async_scheduling", BOOL, SCHED(async_scheduling), 0, 0},
	{"enable_chunked_prefill", INVERSE, SCHED(no_chunked_prefill), 0, 0},
	{"scheduler_reserve_full_isl", INVERSE, SCHED(no_full_sequence_test), 0, 0},
};

static const struct member cost_members[] = {
	{"a", REAL, COST(a), 0, 1e9}, {"b", REAL, COST(b), 0, 1e9}, {"c", REAL, COST(c), 0, 1e9},
	{"d", REAL, COST(d), 0, 1e9}, {"e", REAL, COST(e), 0, 1e9},
};

struct file {
	const char *path;
	const char *text; /* the whole file */
};

/* "FILE:LINE:COLUMN: " of a place in the file, then what is wrong. */
static int wrong(const struct file *f, const char *at, struct pd_msg *msg, struct span name,
		 struct span found, const char *expected)
{
	size_t line = 1;
	const char *begin = f->text;

	for (const char *p = f->text; p < at; p++)
		if (*p == '\n') {
			line++;
			begin = p + 1;
		}
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: '%.*s': found %.*s, expected %s", f->path, line,
		       (size_t)(at - begin) + 1, (int)name.n, name.p,
		       found.n == 0   ? 7
		       : found.n > 40 ? 40
				      : (int)found.n,
		       found.n ? found.p : "nothing", expected);
}

static bool number(struct span v, double *out)
{
	char copy[64];
	char *end;

	if (v.n == 0 || v.n >= sizeof(copy))
		return false;
	memcpy(copy, v.p, v.n);
	copy[v.n] = '\0';
	*out = strtod(copy, &end);
	return *end == '\0' && isfinite(*out);
}

static int set(const struct file *f, const struct member *m, const struct json_member *j, char *to,
	       struct pd_msg *msg)
{
	char expected[96];
	double v;

	to += m->at;
	if (m->kind == BOOL || m->kind == INVERSE) {
		if (j->type != JSON_TRUE && j->type != JSON_FALSE)
			return wrong(f, j->value.p, msg, j->key, j->value, "true or false");
		*(bool *)to = (j->type == JSON_TRUE) == (m->kind == BOOL);
		return PD_OK;
	}
	(void)snprintf(expected, sizeof(expected), "%s from %.17g to %.17g",
		       m->kind == COUNT ? "an integer" : "a number", m->min, m->max);
	if (j->type != JSON_NUMBER || !number(j->value, &v) || v < m->min || v > m->max ||
	    (m->kind == COUNT && v != floor(v)))
		return wrong(f, j->value.p, msg, j->key, j->value, expected);
	if (m->kind == COUNT)
		*(uint32_t *)(void *)to = (uint32_t)v;
	else
		*(double *)(void *)to = v;
	return PD_OK;
}

static const struct member *member_of(const struct member *table, size_t n,
				      const struct json_member *j)
{
	for (size_t i = 0; i < n; i++)
		if (json_member_is(j, table[i].name))
			return &table[i];
	return NULL;
}

static int read_object(const struct file *f, const struct json_member *in,
		       const struct member *table, size_t n, char *to, struct pd_msg *msg)
{
	struct json_member j;
	size_t at = 0;
	int err = PD_OK;

	if (in->type != JSON_OBJECT)
		return wrong(f, in->value.p, msg, in->key, in->value, "an object");
	while (!err && json_object_next(in->value, &at, &j)) {
		const struct member *m = member_of(table, n, &j);

		err = m ? set(f, m, &j, to, msg)
			: wrong(f, j.key.p, msg, in->key, j.key, "a known member");
	}
	return err;
}

static int read_transfer(const struct file *f, struct enginecase *c, const struct json_member *in,
			 struct pd_msg *msg)
{
	struct {
		double set_up, block;
	} us = {0, 0};
	static const struct member table[] = {{"set_up_us", REAL, 0, 0, 1e12},
					      {"us_per_block", REAL, sizeof(double), 0, 1e9}};
	int err = read_object(f, in, table, 2, (char *)&us, msg);

	c->transfer_ns = llround(us.set_up * 1e3);
	c->transfer_block_ns = llround(us.block * 1e3);
	return err;
}

/* A text member with one of several values; *out is the place in the list. */
static int choice(const struct file *f, const struct json_member *j, const char *const *values,
		  const char *expected, unsigned *out, struct pd_msg *msg)
{
	for (unsigned i = 0; j->type == JSON_STRING && values[i]; i++)
		if (span_eq((struct span){j->value.p + 1, j->value.n - 2}, span_of(values[i]))) {
			*out = i;
			return PD_OK;
		}
	return wrong(f, j->value.p, msg, j->key, j->value, expected);
}

static int read_member(const struct file *f, struct enginecase *c, const struct json_member *j,
		       unsigned *kv_role, struct pd_msg *msg)
{
	static const char *const roles[] = {"alone", "prefill", "decode", "pair", NULL};
	static const char *const polls[] = {"end", "begin", NULL};
	static const char *const kv_roles[] = {"none", "kv_both", "kv_consumer", "kv_producer",
					       NULL};
	const size_t n = sizeof(engine_members) / sizeof(engine_members[0]);
	const struct member *m = member_of(engine_members, n, j);
	unsigned got = 0;
	int err;

	if (m)
		return set(f, m, j, (char *)&c->engine, msg);
	if (json_member_is(j, "step_us"))
		return read_object(f, j, cost_members,
				   sizeof(cost_members) / sizeof(cost_members[0]),
				   (char *)&c->engine, msg);
	if (json_member_is(j, "transfer"))
		return read_transfer(f, c, j, msg);
	if (json_member_is(j, "role")) {
		err = choice(f, j, roles, "alone, prefill, decode or pair", &got, msg);
		c->role = (enum enginecase_role)got;
		return err;
	}
	if (json_member_is(j, "poll")) {
		err = choice(f, j, polls, "end or begin", &got, msg);
		c->engine.poll_begin = got == 1;
		return err;
	}
	if (json_member_is(j, "kv_role"))
		return choice(f, j, kv_roles, "none, kv_both, kv_consumer or kv_producer", kv_role,
			      msg);
	if (json_member_is(j, "prefill") || json_member_is(j, "decode") ||
	    json_member_is(j, "vllm"))
		return PD_OK;
	if (c->unused.len > 0 && buf_puts(&c->unused, ", "))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = buf_append(&c->unused, j->key.p, j->key.n);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

static int read_config(struct enginecase *c, const struct file *f, size_t len, struct pd_msg *msg)
{
	static const enum sched_role by_kv_role[] = {SCHED_ALONE, SCHED_BOTH, SCHED_CONSUMER,
						     SCHED_PRODUCER};
	struct pd_msg why = {.text = ""};
	struct json_object o;
	struct json_member j;
	const struct json_member *part;
	const size_t n = sizeof(engine_members) / sizeof(engine_members[0]);
	unsigned kv_role = 0;
	size_t at = 0;
	int err = json_object_scan(&o, f->text, len, &why);

	if (err)
		return pd_fail(msg, err, "%s: %s", f->path, why.text);
	while (!err && json_object_next(o.text, &at, &j))
		err = read_member(f, c, &j, &kv_role, msg);
	c->engine.sched.role = by_kv_role[kv_role];
	if (c->role != ENGINECASE_ALONE && kv_role == 0)
		c->engine.sched.role = SCHED_BOTH;
	c->engine.cost.whole_us = true;
	c->decode = c->engine;
	if (!err && c->role == ENGINECASE_PAIR) {
		part = json_object_get(&o, "prefill");
		if (part)
			err = read_object(f, part, engine_members, n, (char *)&c->engine, msg);
		part = json_object_get(&o, "decode");
		if (!err && part)
			err = read_object(f, part, engine_members, n, (char *)&c->decode, msg);
	}
	json_object_release(&o);
	return err;
}

static int integer(const struct file *f, const struct json_object *o, const char *name, int64_t min,
		   int64_t max, int64_t fallback, int64_t *out, struct pd_msg *msg)
{
	const struct json_member *m = json_object_get(o, name);
	char expected[80];

	*out = fallback;
	if (!m && fallback >= 0)
		return PD_OK;
	if (m && m->type == JSON_NUMBER && json_int(m->value, out) == PD_OK && *out >= min &&
	    *out <= max)
		return PD_OK;
	(void)snprintf(expected, sizeof(expected), "an integer from %" PRId64 " to %" PRId64, min,
		       max);
	return wrong(f, m ? m->value.p : o->text.p, msg, span_of(name),
		     m ? m->value : (struct span){NULL, 0}, expected);
}

/* The names of an array, at most `most` of them. */
static int names(const struct file *f, struct enginecase *c, const struct json_object *o,
		 const char *name, size_t most, struct pd_msg *msg)
{
	const struct json_member *m = json_object_get(o, name);
	enum json_type type;
	struct span v;
	size_t at = 0, got = 0;
	int64_t id;

	if (!m)
		return PD_OK;
	if (m->type != JSON_ARRAY)
		return wrong(f, m->value.p, msg, m->key, m->value, "an array of integers");
	while (got < most && json_array_next(m->value, &at, &v, &type)) {
		size_t cap = c->name_cap ? c->name_cap * 2 : 4096;
		uint64_t *grown;

		if (type != JSON_NUMBER || json_int(v, &id))
			return wrong(f, v.p, msg, m->key, v, "an integer");
		if (c->nnames == c->name_cap) {
			grown = reallocarray(c->name, cap, sizeof(*grown));
			if (!grown)
				return pd_fail(msg, PD_ENOMEM, "out of memory");
			c->name = grown;
			c->name_cap = cap;
		}
		c->name[c->nnames++] = (uint64_t)id;
		got++;
	}
	return PD_OK;
}

static int read_request(struct enginecase *c, const struct file *f, struct span line,
			struct pd_msg *msg)
{
	struct enginecase_request r = {.name = c->nnames};
	size_t cap = c->cap ? c->cap * 2 : 256, block = c->engine.sched.block_size, full;
	struct enginecase_request *grown;
	struct pd_msg why = {.text = ""};
	struct json_object o;
	int64_t prompt, output, remote, arrival, hold;
	int err = json_object_scan(&o, line.p, line.n, &why);

	if (err)
		return wrong(f, line.p, msg, SPAN("request"), SPAN("another line"), why.text);
	err = integer(f, &o, "id", 0, INT64_MAX / 2, -1, &r.id, msg);
	err = err ? err : integer(f, &o, "arrival_us", 0, US_MAX, -1, &arrival, msg);
	err = err ? err : integer(f, &o, "input_length", 1, TOKENS_MAX, -1, &prompt, msg);
	err = err ? err : integer(f, &o, "output_length", 1, TOKENS_MAX, -1, &output, msg);
	err = err ? err : integer(f, &o, "remote_blocks", 0, TOKENS_MAX, 0, &remote, msg);
	err = err ? err : integer(f, &o, "hold_us", 0, US_MAX, 0, &hold, msg);
	full = err ? 0 : (size_t)prompt / block;
	err = err ? err : names(f, c, &o, "hash_ids", full, msg);
	/* Names of the answer continue those of the whole prompt. */
	if (!err && c->nnames - r.name == full)
		err = names(f, c, &o, "output_hash_ids", SIZE_MAX, msg);
	json_object_release(&o);
	if (err)
		return err;
	r.arrival_ns = arrival * NS_PER_US;
	r.hold_ns = hold * NS_PER_US;
	r.prompt = (uint32_t)prompt;
	r.output = (uint32_t)output;
	r.remote_blocks = (uint32_t)remote;
	r.nnames = c->nnames - r.name;
	if (c->n >= ENGINECASE_REQUESTS_MAX)
		return pd_fail(msg, PD_ETOOBIG, "%s: found more than %u requests", f->path,
			       ENGINECASE_REQUESTS_MAX);
	if (c->n == c->cap) {
		grown = reallocarray(c->req, cap, sizeof(*grown));
		if (!grown)
			return pd_fail(msg, PD_ENOMEM, "out of memory");
		c->req = grown;
		c->cap = cap;
	}
	c->req[c->n++] = r;
	return PD_OK;
}

static int by_arrival(const void *a, const void *b)
{
	const struct enginecase_request *x = a, *y = b;

	if (x->arrival_ns != y->arrival_ns)
		return x->arrival_ns < y->arrival_ns ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int read_workload(struct enginecase *c, const struct file *f, size_t len, struct pd_msg *msg)
{
	const char *at = f->text, *end = at + len, *stop;
	int err = PD_OK;

	for (; !err && at < end; at = stop + 1) {
		stop = memchr(at, '\n', (size_t)(end - at));
		if (!stop)
			stop = end;
		if (span_trim((struct span){at, (size_t)(stop - at)}).n > 0)
			err = read_request(c, f, (struct span){at, (size_t)(stop - at)}, msg);
	}
	if (!err && c->n == 0)
		return pd_fail(msg, PD_EINVAL, "%s: found no request, expected at least one",
			       f->path);
	if (!err)
		qsort(c->req, c->n, sizeof(*c->req), by_arrival);
	return err;
}

/* A request that can never fit would wait for ever, and everything behind it. */
static int check_fit(const struct enginecase *c, const char *workload, struct pd_msg *msg)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct enginecase_request *r = &c->req[i];
		bool decode = c->role == ENGINECASE_PAIR;

		for (int side = 0; side <= decode; side++) {
			const struct sched_config *cfg = side ? &c->decode.sched : &c->engine.sched;
			bool one = c->role == ENGINECASE_PREFILL || (decode && !side);
			uint64_t tokens = (uint64_t)r->prompt + (one ? 1 : r->output) - 1;
			uint64_t blocks = (tokens + cfg->block_size - 1) / cfg->block_size;

			if (cfg->num_blocks && blocks > cfg->num_blocks - 1)
				return pd_fail(msg, PD_EINVAL,
					       "%s: request %" PRId64 ": found %" PRIu64
					       " blocks, expected at most %u: it can never fit",
					       workload, r->id, blocks, cfg->num_blocks - 1);
		}
	}
	return PD_OK;
}

int enginecase_load(struct enginecase *c, const char *config, const char *workload,
		    struct pd_msg *msg)
{
	struct buf text;
	int err;

	*c = (struct enginecase){.engine = {.sched = SCHED_DEFAULTS}};
	buf_init(&c->unused, CONFIG_MAX);
	buf_init(&text, CONFIG_MAX);
	err = file_read(config, &text, msg);
	if (!err)
		err = read_config(c, &(struct file){config, text.data ? text.data : ""}, text.len,
				  msg);
	buf_release(&text);
	buf_init(&text, WORKLOAD_MAX);
	if (!err)
		err = file_read(workload, &text, msg);
	if (!err)
		err = read_workload(c, &(struct file){workload, text.data ? text.data : ""},
				    text.len, msg);
	buf_release(&text);
	if (!err)
		err = check_fit(c, workload, msg);
	if (err)
		enginecase_release(c);
	return err;
}

void enginecase_release(struct enginecase *c)
{
	free(c->req);
	free(c->name);
	buf_release(&c->unused);
	*c = (struct enginecase){0};
}
