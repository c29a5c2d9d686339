/* Names of workers may be long and candidates many: a decision that does not fit is told without
 * its candidates, and says so. */
#include "lib/router/page/page_text.h"

#include <math.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"

#define CANDIDATES_MAX 6

int page_put_number(struct buf *b, const char *name, double v)
{
	return isfinite(v) ? buf_printf(b, ",\"%s\":%.9g", name, v)
			   : buf_printf(b, ",\"%s\":null", name);
}

int page_put_text(struct buf *b, const char *name, struct span text)
{
	int err = buf_printf(b, ",\"%s\":", name);

	return err ? err : json_quote(b, text.p ? text.p : "", text.n);
}

static int put_candidate(struct buf *b, const char *name, double score, const char *filter,
			 bool first)
{
	int err = buf_puts(b, first ? "{\"worker\":" : ",{\"worker\":");

	err = err ? err : json_quote(b, name, strlen(name));
	err = err      ? err
	      : filter ? page_put_text(b, "filter", span_of(filter))
		       : page_put_number(b, "score", score);
	return err ? err : buf_putc(b, '}');
}

/* What a pipeline said about the workers: the chosen one first, then others in the pool's order. */
static int put_verdicts(const struct record *r, unsigned role, struct buf *b)
{
	const struct fleet_pool *p = &r->fleet->pool[role];
	const struct route_verdict *v = r->pick[role].explain->worker;
	const uint32_t chosen = r->pick[role].decision->worker;
	unsigned n = 0;
	int err = PD_OK;

	if (v[chosen].candidate)
		err = put_candidate(b, p->worker[chosen]->name, v[chosen].score, v[chosen].filter,
				    n++ == 0);
	for (size_t i = 0; !err && i < p->n && n < CANDIDATES_MAX; i++)
		if (v[i].candidate && i != chosen)
			err = put_candidate(b, p->worker[i]->name, v[i].score, v[i].filter,
					    n++ == 0);
	return err;
}

static int put_compared(const struct record *r, unsigned role, struct buf *b)
{
	const struct route_decision *d = r->pick[role].decision;
	int err = PD_OK;

	for (uint32_t i = 0; !err && i < d->ncandidates && i < ROUTE_CANDIDATES; i++)
		err = put_candidate(b, r->fleet->pool[role].worker[d->candidate[i].worker]->name,
				    d->candidate[i].score, NULL, i == 0);
	return err;
}

static int put_pick(const struct record *r, unsigned role, bool candidates, struct buf *b)
{
	const struct route_decision *d = r->pick[role].decision;
	const struct fleet_pool *p = &r->fleet->pool[role];
	const struct route_explain *e = r->pick[role].explain;
	int err = buf_printf(b, "{\"role\":\"%s\",\"policy\":\"%s\",\"reason\":\"%s\"",
			     worker_role_name((enum worker_role)role), route_pool_policy(p->ring),
			     route_reason_name(d->reason));

	err = err ? err : page_put_text(b, "worker", span_of(r->pick[role].worker->name));
	err = err ? err : page_put_text(b, "home", span_of(p->worker[d->home]->name));
	err = err ? err : page_put_number(b, "score", d->score);
	err = err ? err : page_put_number(b, "margin", d->margin);
	if (!err && r->pick[role].shadowed && r->pick[role].shadow)
		err = page_put_text(b, "shadow", span_of(r->pick[role].shadow->name));
	else if (!err && r->pick[role].shadowed)
		err = buf_puts(b, ",\"shadow\":null");
	err = err ? err : buf_printf(b, ",\"ties\":%u,\"candidates\":", d->ties);
	if (!err && !candidates)
		return buf_puts(b, "null}");
	err = err ? err : buf_putc(b, '[');
	err = err ? err : e && e->filled ? put_verdicts(r, role, b) : put_compared(r, role, b);
	return err ? err : buf_puts(b, "]}");
}

/* The key; what is text of the user itself (the fallback of another router's order) is not shown.
 */
static struct span key_of(const struct record *r)
{
	if (!r->key || r->key->level == ROUTE_KEY_NONE ||
	    span_starts(span_of(r->key->source), SPAN("request")))
		return (struct span){"", 0};
	return (struct span){r->key->text, r->key->len};
}

static int put_decision(const struct record *r, struct span key, bool candidates, struct buf *b)
{
	bool first = true;
	int err = buf_printf(b, "{\"at\":%lld,\"attempt\":%u",
			     (long long)(clock_wall() / NS_PER_MS), r->attempt);

	err = err ? err : page_put_text(b, "id", r->id);
	err = err ? err : page_put_text(b, "key", key);
	err = err ? err : page_put_text(b, "source", span_of(r->key ? r->key->source : ""));
	if (!err && r->trace && r->trace->id.n > 0)
		err = page_put_text(b, "trace", r->trace->id);
	err = err ? err : buf_puts(b, ",\"picks\":[");
	for (unsigned role = 0; !err && role < ROLES; role++) {
		if (!r->pick[role].worker)
			continue;
		err = first ? PD_OK : buf_putc(b, ',');
		err = err ? err : put_pick(r, role, candidates, b);
		first = false;
	}
	return err ? err : buf_puts(b, "]}");
}

int page_text_decision(const struct record *r, struct buf *out, struct span *key)
{
	int err;

	*key = key_of(r);
	err = put_decision(r, *key, true, out);
	if (err != PD_ETOOBIG)
		return err;
	buf_clear(out);
	return put_decision(r, *key, false, out);
}
