/*
 * One line when a request has ended: who served it, what came of it, and with P/D the two texts
 * that people grep for. With --log-format json it has fields only, those of the access log. At
 * debug each decision as well, as one JSON line; where scorers decide, at info. The key itself is
 * never logged, only its hash and where it was found.
 */
#include "lib/router/watch/explain.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/route/hash.h"
#include "lib/router/watch/access.h"

#define LINE_GOAL      3500u /* no further candidate once a line is so long */
#define ROUTE_TEXT     2600  /* four URLs */
#define PATH_SHOWN     1024
#define LINE_MAX_BYTES (1u << 17) /* more than the parts of a line can be together */

static const char *policy_of(const struct record *x, enum worker_role r)
{
	return route_pool_policy(x->fleet->pool[r].ring);
}

/* A line for each decision is for the policies whose scores an operator tunes; those of hash and
 * load policies are for debugging. */
static enum log_level decisions(const struct record *x, enum worker_role r)
{
	unsigned flags = x->fleet->pool[r].ring->state->spec.type->flags;

	return (flags & ROUTE_EXPLAINS) && x->to->cfg->log_requests ? LOG_INFO : LOG_DEBUG;
}

static const char *url_of(const struct record *x, enum worker_role r)
{
	return x->pick[r].worker ? x->pick[r].worker->url : "none";
}

static const char *picked(const struct record *x, enum worker_role r)
{
	return x->pick[r].worker ? x->pick[r].worker->url : "";
}

/* "PD retry attempt 0 using prefill=... decode=..., vLLM policy-based routing: prefill=..." as
 * vllm-router's lines have it; without P/D the worker. Nothing when none was picked. */
static void put_route(const struct record *x, char *out, size_t cap)
{
	enum worker_role r = x->pick[ROLE_REGULAR].worker ? ROLE_REGULAR : ROLE_PREFILL;

	out[0] = '\0';
	if (x->pick[ROLE_DECODE].worker)
		(void)snprintf(out, cap,
			       " PD retry attempt %u using prefill=%s decode=%s, vLLM policy-based "
			       "routing: prefill=%s [policy:%s], decode=%s [policy:%s],",
			       x->attempt, url_of(x, ROLE_PREFILL), url_of(x, ROLE_DECODE),
			       url_of(x, ROLE_PREFILL), policy_of(x, ROLE_PREFILL),
			       url_of(x, ROLE_DECODE), policy_of(x, ROLE_DECODE));
	else if (x->pick[r].worker)
		(void)snprintf(out, cap, " worker=%s [policy:%s]", url_of(x, r), policy_of(x, r));
}

/* Names may be long and workers many: the line is shortened between two of them, and says so. */
static int put_omitted(struct buf *b, const char *what, size_t n)
{
	return n > 0 ? buf_printf(b, ",\"%s_omitted\":%zu", what, n) : PD_OK;
}

/* What was compared, best first. */
static int put_candidates(const struct record *x, enum worker_role r, struct buf *b)
{
	const struct route_decision *d = x->pick[r].decision;
	int err = buf_puts(b, ",\"scores\":{");
	uint32_t i = 0;

	for (; !err && i < d->ncandidates && (i == 0 || b->len < LINE_GOAL); i++) {
		const struct worker *w = x->fleet->pool[r].worker[d->candidate[i].worker];

		err = buf_puts(b, i ? "," : "");
		err = err ? err : json_quote(b, w->name, strlen(w->name));
		err = err ? err : buf_printf(b, ":%.9g", d->candidate[i].score);
	}
	err = err ? err : buf_putc(b, '}');
	return err ? err : put_omitted(b, "scores", d->ncandidates - i);
}

/* One of the three lists of a pipeline: names of candidates, what filtered some, the scores of the
 * others. */
static int put_list(const struct record *x, enum worker_role r, struct buf *b, const char *name)
{
	const struct fleet_pool *p = &x->fleet->pool[r];
	const struct route_verdict *v = x->pick[r].explain->worker;
	bool all = name[0] == 'c', filtered = name[0] == 'f', first = true;
	size_t goal = b->len + LINE_GOAL, omitted = 0;
	int err = buf_printf(b, ",\"%s\":%c", name, all ? '[' : '{');

	for (size_t i = 0; !err && i < p->n; i++) {
		if (!v[i].candidate || (!all && filtered != (v[i].filter != NULL)))
			continue;
		if (!first && b->len > goal) {
			omitted++;
			continue;
		}
		err = buf_puts(b, first ? "" : ",");
		err = err ? err : json_quote(b, p->worker[i]->name, strlen(p->worker[i]->name));
		if (!err && filtered)
			err = buf_puts(b, ":");
		if (!err && filtered)
			err = json_quote(b, v[i].filter, strlen(v[i].filter));
		else if (!err && !all)
			err = buf_printf(b, ":%.9g", v[i].score);
		first = false;
	}
	err = err ? err : buf_putc(b, all ? ']' : '}');
	return err ? err : put_omitted(b, name, omitted);
}

static int put_scores(const struct record *x, enum worker_role r, struct buf *b)
{
	int err;

	if (!x->pick[r].explain->filled)
		return put_candidates(x, r, b);
	err = put_list(x, r, b, "candidates");
	err = err ? err : put_list(x, r, b, "filtered");
	return err ? err : put_list(x, r, b, "scores");
}

static int put_decision(const struct record *x, enum worker_role r, struct buf *b)
{
	const struct route_decision *d = x->pick[r].decision;
	const struct worker *w = x->pick[r].worker, *home = x->fleet->pool[r].worker[d->home];
	int err = buf_printf(b, "\"stage\":\"%s\",\"policy\":\"%s\",\"selected\":[",
			     worker_role_name(r), policy_of(x, r));

	err = err ? err : json_quote(b, w->name, strlen(w->name));
	err = err ? err : buf_puts(b, "],\"home\":");
	err = err ? err : json_quote(b, home->name, strlen(home->name));
	err = err ? err : put_scores(x, r, b);
	return err ? err
		   : buf_printf(b,
				",\"margin\":%.9g,\"ties\":%u,\"tie_count\":%u,\"reason\":\"%s\","
				"\"attempt\":%u",
				d->margin, d->ties, d->ties, route_reason_name(d->reason),
				x->attempt);
}

/* What --shadow-policy would have done. */
static int put_shadow(const struct record *x, enum worker_role r, struct buf *b)
{
	const struct record_pick *p = &x->pick[r];
	int err;

	if (!p->shadowed)
		return PD_OK;
	err = buf_printf(b, ",\"shadow\":{\"policy\":\"%s\",\"selected\":",
			 route_pool_policy(x->fleet->pool[r].shadow));
	if (!err && p->shadow)
		err = json_quote(b, p->shadow->name, strlen(p->shadow->name));
	else if (!err)
		err = buf_puts(b, "null");
	return err ? err
		   : buf_printf(b, ",\"same\":%s}", p->shadow == p->worker ? "true" : "false");
}

static void json_line(const struct record *x, enum worker_role r)
{
	struct buf b;
	int err;

	buf_init(&b, LINE_MAX_BYTES);
	err = buf_puts(&b, "\"request_id\":");
	err = err ? err : json_quote(&b, x->id.p, x->id.n);
	err = err ? err : buf_putc(&b, ',');
	err = err ? err : put_decision(x, r, &b);
	err = err ? err : put_shadow(x, r, &b);
	if (!err && x->decider)
		err = buf_printf(&b,
				 ",\"pd_decider\":\"%s\",\"prefill\":\"%s\","
				 "\"missing_tokens\":%u",
				 x->decider, x->local ? "local" : "remote", x->missing);
	if (!err && x->trace->id.n > 0)
		err = buf_printf(&b, ",\"trace_id\":\"%.*s\"", (int)x->trace->id.n, x->trace->id.p);
	if (!err && x->key->level != ROUTE_KEY_NONE)
		err = buf_printf(
			&b, ",\"key_source\":\"%s\",\"key_hash\":\"%016llx\"", x->key->source,
			(unsigned long long)route_hash(ROUTE_HASH_XXH3, x->key->text, x->key->len));
	if (!err)
		log_json(x->to->cfg->log, decisions(x, r), "Scoring decision", b.data);
	else
		log_lost(x->to->cfg->log);
	buf_release(&b);
}

/* A frame of its own: its text would push what a request calls a page down the stack, and each
 * fiber would keep that page. */
static __attribute__((noinline)) void attempt_line(const struct record *x)
{
	struct log *log = x->to->cfg->log;
	char route[ROUTE_TEXT];

	put_route(x, route, sizeof(route));
	log_event(log, LOG_DEBUG, "attempt",
		  LOG_FIELDS(LOG_SPAN("request_id", x->id), LOG_NUMBER("attempt", x->attempt),
			     LOG_TEXT("worker", picked(x, ROLE_REGULAR)),
			     LOG_TEXT("prefill", picked(x, ROLE_PREFILL)),
			     LOG_TEXT("decode", picked(x, ROLE_DECODE))),
		  "request %.*s attempt %u:%s", (int)x->id.n, x->id.p, x->attempt, route);
}

void explain_decided(const struct record *x)
{
	struct log *log = x->to->cfg->log;

	for (int r = 0; r < ROLES; r++)
		if (x->pick[r].worker && log_wants(log, decisions(x, (enum worker_role)r)))
			json_line(x, (enum worker_role)r);
	if (log_wants(log, LOG_DEBUG))
		attempt_line(x);
}

/* -- the line of a request -- */

static double ms(int64_t from, int64_t to)
{
	return to > from && from > 0 ? (double)(to - from) / 1e6 : 0.0;
}

/* Refusals for want of a place are summed up once a second (overload.h). */
static enum log_level level_of(const struct record *x)
{
	if (x->stage != RECORD_SERVED)
		return x->error == ERROR_QUEUE_FULL || x->error == ERROR_QUEUE_TIMEOUT ? LOG_DEBUG
										       : LOG_INFO;
	return (x->status >= 500 || x->status == 0) && !x->client_left ? LOG_WARN : LOG_INFO;
}

static void text_line(const struct record *x, enum log_level level)
{
	const struct record_times *t = &x->time;
	const struct http_head *h = x->head;
	struct span method = h ? h->method : SPAN("-"), path = h ? h->path : SPAN("-");
	char route[ROUTE_TEXT] = "", sizes[120] = "";

	if (x->stage == RECORD_SERVED) {
		put_route(x, route, sizeof(route));
		(void)snprintf(sizes, sizeof(sizes),
			       " attempts=%u first_ms=%.1f total_ms=%.1f events=%llu bytes=%llu",
			       x->attempt + 1, ms(t->accepted, t->first), ms(t->accepted, t->ended),
			       (unsigned long long)x->events, (unsigned long long)x->bytes);
	}
	log_line(x->to->cfg->log, level, "request %.*s%s%.*s %.*s: %d%s%s%s%.*s%s%s%s%s%s",
		 (int)x->id.n, x->id.p ? x->id.p : "", x->id.n > 0 ? " " : "", (int)method.n,
		 method.p, (int)(path.n < PATH_SHOWN ? path.n : PATH_SHOWN), path.p, x->status,
		 route, sizes, x->trace && x->trace->id.n > 0 ? " trace_id=" : "",
		 x->trace ? (int)x->trace->id.n : 0,
		 x->trace && x->trace->id.p ? x->trace->id.p : "",
		 x->client_left || x->stage == RECORD_ABANDONED ? " client left" : "",
		 x->told[0] ? " told: " : "", x->told,
		 x->why[0] && strcmp(x->why, x->told) != 0 ? " last failure: " : "",
		 strcmp(x->why, x->told) != 0 ? x->why : "");
}

static void put_policies(const struct record *x, struct buf *b)
{
	static const char *const names[ROLES] = {"policy", "prefill_policy", "decode_policy"};
	int err = PD_OK;

	b->len--; /* the NUL */
	for (int r = 0; !err && r < ROLES; r++)
		if (x->pick[r].worker)
			err = buf_printf(b, ",\"%s\":\"%s\"", names[r],
					 policy_of(x, (enum worker_role)r));
	(void)!err;
}

static void fields_line(const struct record *x, enum log_level level)
{
	struct buf mine, *b;

	buf_init(&mine, LINE_MAX_BYTES);
	b = x->scratch ? x->scratch->text : &mine;
	if (access_members(x, b)) {
		log_lost(x->to->cfg->log);
	} else {
		put_policies(x, b);
		log_json(x->to->cfg->log, level, "request", b->data + 1);
	}
	buf_release(&mine);
}

void explain_ended(const struct record *x)
{
	const struct router_config *c = x->to->cfg;
	enum log_level level = level_of(x);

	if (!c->log_requests || !log_wants(c->log, level))
		return;
	if (log_is_json(c->log))
		fields_line(x, level);
	else
		text_line(x, level);
}
