/*
 * The key texts are those that a router hashes: the session id of the record, or for `prefix` what
 * route_key_prefix makes of the body. So a replay places sessions where the router does.
 */
#include "sim/scenario/load.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"
#include "lib/route/key/key_extract.h"
#include "lib/route/prefix.h"
#include "lib/workload/pattern.h"
#include "lib/workload/schedule_plan.h"

#define OLD_DRAW	   32 /* bytes */
#define FIRST_BLOCKS_LIMIT 1024
#define BODY_MAX	   (WORKLOAD_LINE_MAX + 64)

enum mode {
	KEY_AUTO,
	KEY_SESSION,
	KEY_WIRE,
	KEY_PREFIX,
	KEY_GROUP,
	KEY_NONE,
	KEY_FIRST_BLOCKS,
	KEY_PATTERN
};

static const char *const mode_names[] = {"auto",	   "session",	   "prompt_cache_key",
					 "prefix",	   "group",	   "none",
					 "first-blocks:N", "pattern:TEXT", NULL};

struct key_choice {
	enum mode mode;
	uint32_t blocks;
	struct pattern *pattern; /* owned */
};

struct loader {
	const struct workload *w;
	const struct simload_options *opt;
	struct key_choice choice;
	uint32_t block_tokens;
	struct buf key, body;
	uint64_t *hashes; /* owned scratch */
	size_t hashes_cap;
	struct schedule_plan plan;
	struct simload_facts *facts;
	bool guessed_input, guessed_output;
};

static int parse_first_blocks(const char *text, struct key_choice *out, struct pd_msg *msg)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || n < 1 || n > FIRST_BLOCKS_LIMIT)
		return pd_fail(msg, PD_EINVAL,
			       "'first-blocks:%s': expected a number of blocks from 1 to %d", text,
			       FIRST_BLOCKS_LIMIT);
	out->mode = KEY_FIRST_BLOCKS;
	out->blocks = (uint32_t)n;
	return PD_OK;
}

static int parse_choice(const char *key, struct key_choice *out, struct pd_msg *msg)
{
	const char *near;

	*out = (struct key_choice){.mode = KEY_AUTO};
	if (!key)
		return PD_OK;
	if (strncmp(key, "first-blocks:", 13) == 0)
		return parse_first_blocks(key + 13, out, msg);
	if (strncmp(key, "pattern:", 8) == 0) {
		out->mode = KEY_PATTERN;
		return pattern_new(&out->pattern, key + 8, msg);
	}
	for (int m = KEY_AUTO; m <= KEY_NONE; m++) {
		if (strcmp(key, mode_names[m]) != 0)
			continue;
		out->mode = (enum mode)m;
		return PD_OK;
	}
	near = nearest_word(key, mode_names);
	return pd_fail(msg, PD_EINVAL,
		       "unknown key '%s'%s%s%s: expected auto, session, prompt_cache_key, "
		       "first-blocks:N, prefix, group, pattern:TEXT or none",
		       key, near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
}

int simload_key_check(const char *key, struct pd_msg *msg)
{
	struct key_choice c;
	int err = parse_choice(key, &c, msg);

	pattern_free(c.pattern);
	return err;
}

/* What auto means for this file, and whether the file has what the key needs. */
static int settle(struct loader *l, const char *path, struct pd_msg *msg)
{
	struct key_choice *c = &l->choice;

	if (c->mode == KEY_AUTO) {
		/* A request that the router routed without a key has none here. */
		c->mode = l->w->nsessions > 0 ? KEY_SESSION
			  : l->w->has_picks   ? KEY_NONE
			  : l->w->nids > 0    ? KEY_FIRST_BLOCKS
			  : l->w->has_text    ? KEY_PREFIX
					      : KEY_NONE;
		c->blocks = SIMLOAD_FIRST_BLOCKS;
		return PD_OK;
	}
	if (c->mode == KEY_FIRST_BLOCKS && l->w->nids == 0)
		return pd_fail(msg, PD_EINVAL,
			       "key 'first-blocks' needs hash ids, but '%s' has none: expected "
			       "'session', 'prefix' or 'pattern:TEXT'",
			       path);
	if ((c->mode == KEY_SESSION || c->mode == KEY_WIRE) && l->w->nsessions == 0)
		return pd_fail(msg, PD_EINVAL,
			       "key '%s' needs session ids, but '%s' has none: expected "
			       "'first-blocks:2', 'prefix' or 'pattern:TEXT'",
			       mode_names[c->mode], path);
	if (c->mode == KEY_PREFIX && !l->w->has_text)
		return pd_fail(msg, PD_EINVAL,
			       "key 'prefix' needs prompts, but '%s' has records without text: "
			       "expected 'first-blocks:2' or 'session'",
			       path);
	return PD_OK;
}

static struct span text_of(const struct workload_request *r)
{
	return r->messages.n > 0 ? r->messages : r->prompt;
}

static int prefix_key(struct loader *l, const struct workload_request *r)
{
	struct json_object body;
	struct route_key key;
	int err;

	buf_clear(&l->body);
	err = buf_puts(&l->body, r->messages.n > 0 ? "{\"messages\":" : "{\"prompt\":");
	if (!err)
		err = buf_append(&l->body, text_of(r).p, text_of(r).n);
	if (!err)
		err = buf_putc(&l->body, '}');
	if (err)
		return err;
	err = json_object_scan(&body, l->body.data, l->body.len, NULL);
	if (!err) {
		route_key_prefix(&body, &key);
		err = buf_append(&l->key, key.text, key.len);
	}
	json_object_release(&body);
	return err;
}

static int make_key(struct loader *l, const struct workload_request *r, size_t index,
		    struct pd_msg *msg)
{
	struct pattern_vars v = {.i = (int64_t)index,
				 .session =
					 r->session_no == WORKLOAD_NO_SESSION ? 0 : r->session_no,
				 .turn = r->turn,
				 .prefix = r->group < 0 ? 0 : r->group};
	int err = PD_OK;

	buf_clear(&l->key);
	switch (l->choice.mode) {
	case KEY_SESSION:
		return buf_append(&l->key, r->session.p, r->session.n);
	case KEY_WIRE:
		return buf_append(&l->key, r->key.p, r->key.n);
	case KEY_PREFIX:
		return prefix_key(l, r);
	case KEY_GROUP:
		return r->group < 0 ? PD_OK : buf_printf(&l->key, "group-%" PRId64, r->group);
	case KEY_FIRST_BLOCKS:
		for (uint32_t i = 0; !err && i < l->choice.blocks && i < r->nhash; i++)
			err = buf_printf(&l->key, "%s%" PRIx64,
					 i ? "-" : "blocks:", r->hash_ids[i]);
		return err;
	case KEY_PATTERN:
		return pattern_eval(l->choice.pattern, &v, &l->key, msg);
	case KEY_AUTO:
	case KEY_NONE:
		break;
	}
	return PD_OK;
}

/* Chained hashes of the full blocks of the text; *n receives how many. */
static int text_blocks(struct loader *l, struct span text, size_t *n)
{
	size_t bytes = (size_t)l->block_tokens * SIMLOAD_CHARS_PER_TOKEN;
	uint64_t *grown;

	*n = text.n / bytes;
	if (*n > l->hashes_cap) {
		grown = reallocarray(l->hashes, *n * 2, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		l->hashes = grown;
		l->hashes_cap = *n * 2;
	}
	*n = route_blocks(0, text.p, text.n, bytes, l->hashes, *n);
	return PD_OK;
}

/* The bytes of a number in hexadecimal, as they lie in memory. Draws of older captures are longer
 * and are not used. */
static bool hex_word(const char *p, size_t n, uint64_t *out, bool *known)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bytes[OLD_DRAW] = {0};

	if (n != sizeof(*out) * 2 && n != sizeof(bytes) * 2)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *digit = memchr(digits, p[i], 16);

		if (!digit)
			return false;
		bytes[i / 2] = (unsigned char)(bytes[i / 2] << 4 | (digit - digits));
	}
	*known = n == sizeof(*out) * 2;
	memcpy(out, bytes, sizeof(*out));
	return true;
}

/* The next item of a JSON array of texts, decoded into l->body; *null instead for null. */
static int next_text(struct loader *l, struct span array, size_t *at, bool *more, bool *null)
{
	enum json_type type;
	struct span value;

	buf_clear(&l->body);
	*more = array.n > 0 && json_array_next(array, at, &value, &type);
	*null = *more && type == JSON_NULL;
	if (!*more || *null)
		return PD_OK;
	return type == JSON_STRING ? json_string_decode(value, &l->body) : PD_EINVAL;
}

/* The decision of the captured router for the request that was added last. */
static int add_pick(struct loader *l, struct simtrace *t, const struct workload_request *r)
{
	struct sim_pick pick = {.worker = {SIM_NO_PICK, SIM_NO_PICK}, .key_hashed = r->key_hashed};
	size_t at = 0;
	bool more, null;
	int err = PD_OK;

	if (r->picked.n == 0)
		return PD_OK;
	for (size_t p = 0; !err && p < SIM_PICKS; p++) {
		err = next_text(l, r->picked, &at, &more, &null);
		if (!err && more && !null)
			err = simtrace_worker(t, buf_span(&l->body), &pick.worker[p]);
	}
	at = 0;
	for (size_t p = 0; !err && p < SIM_PICKS; p++) {
		err = next_text(l, r->draws, &at, &more, &null);
		pick.has_draw[p] = !err && more && !null;
		if (pick.has_draw[p] &&
		    !hex_word(l->body.data, l->body.len, &pick.draw[p], &pick.has_draw[p]))
			err = PD_EINVAL;
	}
	return err ? err : simtrace_pick(t, &pick);
}

static int add_request(struct loader *l, struct simtrace *t, size_t i, const char *path,
		       struct pd_msg *msg)
{
	const struct workload_request *r = &l->w->req[i];
	const uint64_t *blocks = r->hash_ids;
	size_t n = r->nhash, chars = text_of(r).n;
	int64_t tokens = r->input_tokens > 0 ? r->input_tokens
					     : (int64_t)((chars + SIMLOAD_CHARS_PER_TOKEN - 1) /
							 SIMLOAD_CHARS_PER_TOKEN);
	struct route_key key;
	int err = make_key(l, r, i, msg);

	l->guessed_input |= r->input_tokens <= 0 && chars > 0;
	l->guessed_output |= r->output_tokens <= 0;
	route_key_of_text(buf_span(&l->key), &key);
	if (!err && l->w->nids == 0) {
		err = text_blocks(l, text_of(r), &n);
		blocks = l->hashes;
	}
	if (!err && l->w->nids > 0 && n > 0 && r->block_tokens != l->block_tokens)
		return pd_fail(msg, PD_EINVAL,
			       "%s:%u:1: block_tokens is %u, the first record has %u: expected one "
			       "block size in a file",
			       path, r->line, r->block_tokens, l->block_tokens);
	if (!err)
		err = simtrace_add(t, l->plan.at_ns[i], (struct span){key.text, key.len}, tokens,
				   r->output_tokens > 0 ? r->output_tokens : l->opt->output_tokens,
				   blocks, n);
	if (!err) {
		err = add_pick(l, t, r);
		if (err == PD_EINVAL)
			return pd_fail(msg, err,
				       "%s:%u:1: expected names of workers in \"picked\", and 16 "
				       "hexadecimal digits each in \"draws\"",
				       path, r->line);
	}
	if (err == PD_EINVAL && msg && !msg->text[0])
		(void)pd_fail(msg, err, "%s:%u:1: expected 1 to %" PRId64 " tokens in and out",
			      path, r->line, SIM_TOKENS_MAX);
	return err;
}

int simload_note(struct simload_facts *f, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (f->nnotes == SIMLOAD_NOTES_MAX)
		return PD_OK;
	va_start(ap, fmt);
	n = vasprintf(&f->note[f->nnotes], fmt, ap);
	va_end(ap);
	if (n < 0)
		return PD_ENOMEM;
	f->nnotes++;
	return PD_OK;
}

/* When requests arrive and who follows whom, from the one place that bench asks too. */
static int make_plan(struct loader *l, const char *path, struct pd_msg *msg)
{
	const struct simload_options *o = l->opt;
	bool given = o->request_rate > 0;
	struct schedule_options s = {
		.timestamps = o->arrivals == SIMLOAD_STAMPS ||
			      (o->arrivals == SIMLOAD_AUTO && l->w->has_arrivals && !given),
		.speedup = o->speedup,
		.spread = o->spread,
		.request_rate = given	    ? o->request_rate
				: o->closed ? (double)INFINITY
					    : SIMLOAD_RATE,
		.burstiness = 1,
		.seed = o->seed};
	struct simload_facts *f = l->facts;
	struct pd_msg why = {""};
	int err = schedule_plan_make(&l->plan, l->w, &s, &why);

	if (err)
		return pd_fail(msg, err, "%s: %s", path, why.text);
	f->invented = !s.timestamps;
	if (s.timestamps)
		(void)snprintf(f->arrivals, sizeof(f->arrivals), "time stamps of the file");
	else if (isinf(s.request_rate))
		(void)snprintf(f->arrivals, sizeof(f->arrivals), "invented: all at time 0");
	else
		(void)snprintf(f->arrivals, sizeof(f->arrivals),
			       "invented: Poisson, %g requests/s, seed %" PRIu64, s.request_rate,
			       s.seed);
	if (s.timestamps)
		return PD_OK;
	return simload_note(l->facts, "arrivals are %s%s", f->arrivals,
			    l->w->has_arrivals ? "; the time stamps of the file are not used"
					       : "; the file has no time stamps");
}

static int note_all(struct loader *l)
{
	int err = PD_OK;

	(void)snprintf(l->facts->format, sizeof(l->facts->format), "%s", l->w->format);
	for (size_t i = 0; !err && i < l->w->nnotes; i++)
		err = simload_note(l->facts, "%s", l->w->note[i]);
	if (!err && l->guessed_input)
		err = simload_note(l->facts, "prompt lengths are not stated: %u bytes a token",
				   SIMLOAD_CHARS_PER_TOKEN);
	if (!err && l->guessed_output)
		err = simload_note(
			l->facts, "output lengths are not stated: %" PRId64 " tokens where none is",
			l->opt->output_tokens);
	return err;
}

/* The arrays of the plan become the trace's. */
static void give_order(struct loader *l, struct simtrace *t)
{
	t->order = (struct sim_order){.before = l->plan.before,
				      .session = l->plan.session,
				      .think_ns = l->plan.think_ns,
				      .nsessions = l->plan.nsessions,
				      .stamped = l->plan.stamped};
	l->plan.before = l->plan.session = NULL;
	l->plan.think_ns = NULL;
}

static int load(struct loader *l, struct simtrace *t, const char *path, struct pd_msg *msg)
{
	int err = settle(l, path, msg);

	if (!err)
		err = make_plan(l, path, msg);
	l->block_tokens = l->w->nids > 0	     ? l->w->req[0].block_tokens
			  : l->opt->block_tokens > 0 ? l->opt->block_tokens
						     : ROUTE_BLOCK_TOKENS;
	t->block_tokens = l->block_tokens;
	for (size_t i = 0; !err && i < l->w->n; i++)
		err = add_request(l, t, i, path, msg);
	if (!err) {
		give_order(l, t);
		err = simtrace_finish(t);
	}
	if (!err)
		err = note_all(l);
	if (err && msg && !msg->text[0])
		(void)pd_fail(msg, err, "cannot prepare '%s': %s", path, pd_err_text(err));
	return err;
}

void simload_facts_release(struct simload_facts *f)
{
	for (size_t i = 0; i < f->nnotes; i++)
		free(f->note[i]);
	*f = (struct simload_facts){0};
}

int simload_read(struct simtrace *t, struct buf *text, const char *name,
		 const struct simload_options *opt, struct simload_facts *facts, struct pd_msg *msg)
{
	struct workload_options wo = {.max_requests = opt->max_requests,
				      .block_tokens = opt->block_tokens,
				      .run = opt->capture_run,
				      .format = opt->format,
				      .unit = opt->unit};
	struct loader l = {.opt = opt, .facts = facts};
	struct workload w;
	int err;

	workload_init(&w);
	l.w = &w;
	buf_init(&l.key, 1 << 20);
	buf_init(&l.body, BODY_MAX);
	err = parse_choice(opt->key, &l.choice, msg);
	if (!err)
		err = text ? workload_parse_take(&w, text, name, &wo, msg)
			   : workload_read(&w, name, &wo, msg);
	if (!err && msg)
		msg->text[0] = '\0';
	if (!err)
		err = load(&l, t, name, msg);
	if (l.choice.mode == KEY_FIRST_BLOCKS)
		(void)snprintf(facts->key, sizeof(facts->key), "first-blocks:%u", l.choice.blocks);
	else
		(void)snprintf(facts->key, sizeof(facts->key), "%s",
			       l.choice.mode == KEY_PATTERN ? opt->key : mode_names[l.choice.mode]);
	pattern_free(l.choice.pattern);
	buf_release(&l.key);
	buf_release(&l.body);
	free(l.hashes);
	schedule_plan_release(&l.plan);
	workload_release(&w);
	return err;
}
