/*
 * Why a request went where it went: the line that people grep for, and one JSON line with the whole
 * decision. The key itself is never logged at info, only its hash and where it was found.
 */
#include "lib/router/watch/explain.h"

#include <stdio.h>

#include "lib/base/clock.h"
#include "lib/route/hash.h"

#define LINE_GOAL      3500u	  /* no further candidate once a line is so long */
#define LINE_MAX_BYTES (1u << 17) /* more than the parts of a line can be together */

static const char *policy_of(const struct record *x, enum worker_role r)
{
	return route_pool_policy(x->fleet->pool[r].ring);
}

static const char *url_of(const struct record *x, enum worker_role r)
{
	return x->pick[r].worker ? x->pick[r].worker->url : "none";
}

static void grep_line(const struct record *x)
{
	struct log *log = x->to->cfg->log;

	if (x->attempt > 0 && x->to->cfg->pd)
		log_line(log, LOG_WARN, "PD retry attempt %u using prefill=%s decode=%s",
			 x->attempt, url_of(x, ROLE_PREFILL), url_of(x, ROLE_DECODE));
	else if (x->attempt > 0)
		log_line(log, LOG_WARN, "retry attempt %u using worker=%s", x->attempt,
			 url_of(x, ROLE_REGULAR));
	if (x->pick[ROLE_DECODE].worker)
		log_line(log, LOG_INFO,
			 "vLLM policy-based routing: prefill=%s [policy:%s], decode=%s [policy:%s]",
			 url_of(x, ROLE_PREFILL), policy_of(x, ROLE_PREFILL),
			 url_of(x, ROLE_DECODE), policy_of(x, ROLE_DECODE));
	else
		log_line(log, LOG_INFO, "vLLM policy-based routing: worker=%s [policy:%s]",
			 url_of(x, x->pick[ROLE_REGULAR].worker ? ROLE_REGULAR : ROLE_PREFILL),
			 policy_of(x, x->pick[ROLE_REGULAR].worker ? ROLE_REGULAR : ROLE_PREFILL));
}

/* What was compared, best first. Names may be long and candidates many: the line is shortened
 * between two of them, and says so. */
static int put_scores(const struct record *x, enum worker_role r, struct buf *b)
{
	const struct route_decision *d = x->pick[r].decision;
	int err = buf_puts(b, "\"scores\":{");
	uint32_t i = 0;

	for (; !err && i < d->ncandidates && (i == 0 || b->len < LINE_GOAL); i++) {
		const struct worker *w = x->fleet->pool[r].worker[d->candidate[i].worker];

		err = buf_puts(b, i ? "," : "");
		err = err ? err : json_quote(b, w->name, strlen(w->name));
		err = err ? err : buf_printf(b, ":%.9g", d->candidate[i].score);
	}
	err = err ? err : buf_putc(b, '}');
	return err || i == d->ncandidates
		       ? err
		       : buf_printf(b, ",\"scores_omitted\":%u", d->ncandidates - i);
}

static int put_decision(const struct record *x, enum worker_role r, struct buf *b)
{
	const struct route_decision *d = x->pick[r].decision;
	const struct worker *w = x->pick[r].worker, *home = x->fleet->pool[r].worker[d->home];
	int err = buf_printf(b, "\"stage\":\"%s\",\"policy\":\"%s\",\"selected\":[",
			     worker_role_name(r), policy_of(x, r));

	err = err ? err : json_quote(b, w->url, strlen(w->url));
	err = err ? err : buf_puts(b, "],\"home\":");
	err = err ? err : json_quote(b, home->url, strlen(home->url));
	err = err ? err : buf_putc(b, ',');
	err = err ? err : put_scores(x, r, b);
	return err ? err
		   : buf_printf(b, ",\"margin\":%.9g,\"ties\":%u,\"reason\":\"%s\",\"attempt\":%u",
				d->margin, d->ties, route_reason_name(d->reason), x->attempt);
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
	if (!err && x->trace->id.n > 0)
		err = buf_printf(&b, ",\"trace_id\":\"%.*s\"", (int)x->trace->id.n, x->trace->id.p);
	if (!err && x->key->level != ROUTE_KEY_NONE)
		err = buf_printf(
			&b, ",\"key_source\":\"%s\",\"key_hash\":\"%016llx\"", x->key->source,
			(unsigned long long)route_hash(ROUTE_HASH_XXH3, x->key->text, x->key->len));
	if (!err)
		log_json(x->to->cfg->log, LOG_INFO, "Scoring decision", b.data);
	else
		log_lost(x->to->cfg->log);
	buf_release(&b);
}

void explain_decided(const struct record *x)
{
	if (!log_wants(x->to->cfg->log, LOG_WARN) ||
	    (x->attempt == 0 && !log_wants(x->to->cfg->log, LOG_INFO)))
		return;
	grep_line(x);
	if (!log_wants(x->to->cfg->log, LOG_INFO))
		return;
	for (int r = 0; r < ROLES; r++)
		if (x->pick[r].worker)
			json_line(x, (enum worker_role)r);
}

static double ms(int64_t from, int64_t to)
{
	return to > from && from > 0 ? (double)(to - from) / 1e6 : 0.0;
}

void explain_ended(const struct record *x)
{
	const struct record_times *t = &x->time;
	const struct http_head *h = x->head;
	bool bad = x->status >= 500 || x->status == 0;

	if (x->stage != RECORD_SERVED || !log_wants(x->to->cfg->log, bad ? LOG_WARN : LOG_INFO))
		return;
	log_line(x->to->cfg->log, bad && !x->client_left ? LOG_WARN : LOG_INFO,
		 "request %.*s %.*s %.*s: %d attempts=%u first_ms=%.1f total_ms=%.1f events=%llu "
		 "bytes=%llu%s%.*s%s%s%s",
		 (int)x->id.n, x->id.p, (int)h->method.n, h->method.p, (int)h->path.n, h->path.p,
		 x->status, x->attempt + 1, ms(t->accepted, t->first), ms(t->accepted, t->ended),
		 (unsigned long long)x->events, (unsigned long long)x->bytes,
		 x->trace->id.n > 0 ? " trace_id=" : "", (int)x->trace->id.n,
		 x->trace->id.n > 0 ? x->trace->id.p : "", x->client_left ? " client left" : "",
		 x->why[0] ? " last failure: " : "", x->why);
}
