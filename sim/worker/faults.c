/* One table gives the JSON names of POST /pdctl/faults: those of the flags, with '_'. */
#include "sim/worker/faults.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/json/scan.h"
#include "sim/worker/api.h"

enum fault_type { FAULT_REAL, FAULT_INT, FAULT_BOOL };

static const struct fault_field {
	const char *name;
	enum fault_type type;
	size_t offset;
	double min, max;
} fields[] = {
	{"fail_rate", FAULT_REAL, offsetof(struct worker_faults, fail_rate), 0, 1},
	{"fail_first", FAULT_INT, offsetof(struct worker_faults, fail_first), 0, 1e15},
	{"fail_status", FAULT_INT, offsetof(struct worker_faults, fail_status), 400, 599},
	{"fail_retry_after", FAULT_REAL, offsetof(struct worker_faults, fail_retry_after_s), -1,
	 86400},
	{"crash_after", FAULT_INT, offsetof(struct worker_faults, crash_after), -1, 1e15},
	{"stall_mid_stream", FAULT_INT, offsetof(struct worker_faults, stall_after), -1, 1e15},
	{"stall_s", FAULT_REAL, offsetof(struct worker_faults, stall_s), 0, 86400},
	{"close_mid_stream", FAULT_INT, offsetof(struct worker_faults, close_after), -1, 1e15},
	{"delay_s", FAULT_REAL, offsetof(struct worker_faults, delay_s), 0, 86400},
	{"unhealthy", FAULT_BOOL, offsetof(struct worker_faults, unhealthy), 0, 1},
};
#define NFIELDS (sizeof(fields) / sizeof(fields[0]))

void faults_init(struct fault_box *b, const struct worker_faults *f, uint64_t seed)
{
	*b = (struct fault_box){.now = *f, .rng = seed};
	(void)pthread_mutex_init(&b->lock, NULL);
}

void faults_release(struct fault_box *b)
{
	(void)pthread_mutex_destroy(&b->lock);
}

struct worker_faults faults_now(struct fault_box *b)
{
	struct worker_faults f;

	(void)pthread_mutex_lock(&b->lock);
	f = b->now;
	(void)pthread_mutex_unlock(&b->lock);
	return f;
}

enum fault_action faults_next(struct fault_box *b, struct worker_faults *f)
{
	uint64_t seen;
	double dice;

	(void)pthread_mutex_lock(&b->lock);
	*f = b->now;
	seen = b->seen++;
	dice = f->fail_rate > 0 ? (double)(rng_splitmix(&b->rng) >> 11) * 0x1.0p-53 : 1.0;
	(void)pthread_mutex_unlock(&b->lock);
	if (f->crash_after >= 0 && seen >= (uint64_t)f->crash_after)
		return FAULT_CRASH;
	return seen < (uint64_t)f->fail_first || dice < f->fail_rate ? FAULT_FAIL : FAULT_NONE;
}

static int read_number(struct span value, double *out)
{
	char text[64], *end;

	if (value.n >= sizeof(text))
		return PD_EINVAL;
	memcpy(text, value.p, value.n);
	text[value.n] = '\0';
	*out = strtod(text, &end);
	return *end == '\0' && isfinite(*out) ? PD_OK : PD_EINVAL;
}

static int set_field(struct worker_faults *f, const struct json_member *m, struct api_error *e)
{
	const struct fault_field *d = fields;
	double value = 0;
	int64_t whole;
	bool flag;

	while (d < fields + NFIELDS && !span_eq(m->key, span_of(d->name)))
		d++;
	if (d == fields + NFIELDS)
		return api_fail(e, 400, NULL, "unknown fault '%.*s'",
				(int)(m->key.n < 64 ? m->key.n : 64), m->key.p);
	if (d->type == FAULT_BOOL) {
		flag = m->type == JSON_TRUE;
		if (!flag && m->type != JSON_FALSE)
			return api_fail(e, 400, d->name, "%s: expected true or false", d->name);
		memcpy((char *)f + d->offset, &flag, sizeof(flag));
		return PD_OK;
	}
	if (m->type != JSON_NUMBER || read_number(m->value, &value) != PD_OK || value < d->min ||
	    value > d->max || (d->type == FAULT_INT && value != floor(value)))
		return api_fail(e, 400, d->name, "%s: expected %s from %g to %g", d->name,
				d->type == FAULT_INT ? "an integer" : "a number", d->min, d->max);
	whole = (int64_t)value;
	if (d->type == FAULT_INT)
		memcpy((char *)f + d->offset, &whole, sizeof(whole));
	else
		memcpy((char *)f + d->offset, &value, sizeof(value));
	return PD_OK;
}

static void write_faults(const struct worker_faults *f, struct jout *o)
{
	for (size_t i = 0; i < NFIELDS; i++) {
		const char *at = (const char *)f + fields[i].offset;
		double real = 0;
		int64_t whole = 0;
		bool flag = false;

		jout_fmt(o, "%s\"%s\":", i ? "," : "{", fields[i].name);
		if (fields[i].type == FAULT_REAL)
			memcpy(&real, at, sizeof(real));
		else if (fields[i].type == FAULT_INT)
			memcpy(&whole, at, sizeof(whole));
		else
			memcpy(&flag, at, sizeof(flag));
		if (fields[i].type == FAULT_REAL)
			jout_fmt(o, "%.17g", real);
		else if (fields[i].type == FAULT_INT)
			jout_fmt(o, "%lld", (long long)whole);
		else
			jout_put(o, flag ? "true" : "false");
	}
	jout_put(o, "}\n");
}

/* Changes the named faults and restarts the counts; PD_EINVAL changes nothing. */
static int change(struct fault_box *b, const struct http_request *r, struct api_error *e)
{
	struct worker_faults f;
	struct json_object o;
	struct pd_msg msg = {0};
	int err = json_object_scan(&o, r->body.p, r->body.n, &msg);

	if (err)
		return api_fail(e, 400, NULL, "JSON decode error: %s", msg.text);
	(void)pthread_mutex_lock(&b->lock);
	f = b->now;
	for (size_t i = 0; !err && i < o.n; i++)
		err = set_field(&f, &o.member[i], e);
	if (!err) {
		b->now = f;
		b->seen = 0;
	}
	(void)pthread_mutex_unlock(&b->lock);
	json_object_release(&o);
	return err;
}

void faults_serve(struct fault_box *b, struct http_conn *c, const struct http_request *r)
{
	struct worker_faults f;
	struct api_error e = {0};
	struct jout o;

	if (span_eq(r->head.method, SPAN("POST")) && change(b, r, &e) != PD_OK) {
		api_reply_error(c, &e, NULL);
		return;
	}
	f = faults_now(b);
	jout_init(&o, 4096);
	write_faults(&f, &o);
	api_reply(c, &o);
	jout_release(&o);
}
