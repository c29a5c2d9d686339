/* One request is some ten relaxed additions in its connection's stripe. */
#include "lib/router/watch/metrics_record.h"

void metrics_decided(const struct record *r)
{
	struct metrics *m = r->to->metrics;

	for (unsigned i = 0; i < ROLES; i++) {
		if (!r->pick[i].worker)
			continue;
		metrics_add(m, r->stripe, METRIC_DECISIONS, i, r->pick[i].decision->reason, 1);
		if (r->pick[i].decision->reason == ROUTE_REASON_FAILOVER)
			metrics_count(m, r->stripe, METRIC_FAILOVERS, r->route, 1);
	}
}

void metrics_answered(const struct record *r)
{
	const struct record_times *t = &r->time;

	if (t->decode_sent)
		metrics_observe(r->to->metrics, r->stripe, HIST_HANDOVER_FIRST,
				t->answered - t->prefilled);
}

/* Turned away: the server's own refusals are counted by the server. */
static void refused(const struct record *r)
{
	if (r->stage != RECORD_REFUSED)
		return;
	metrics_code(r->to->metrics, r->stripe, r->route, r->status);
	metrics_error(r->to->metrics, r->stripe, r->route, r->error);
	if (r->route == ROUTE_EMBEDDINGS && r->error != ERROR_UNAUTHORIZED &&
	    r->error != ERROR_KEY_CHECK)
		metrics_embeddings(r->to->metrics, r->stripe, r->status);
}

void metrics_ended(const struct record *r)
{
	struct metrics *m = r->to->metrics;
	const struct record_times *t = &r->time;
	unsigned stripe = r->stripe;
	bool good = r->status >= 200 && r->status < 300, pd = r->to->cfg->pd;

	if (r->stage != RECORD_SERVED) {
		refused(r);
		return;
	}
	if (r->client_left)
		metrics_count(m, stripe, METRIC_CLIENT_LEFT, r->route, 1);
	if (good)
		metrics_count(m, stripe, METRIC_REQUESTS, r->route, 1);
	metrics_code(m, stripe, r->route, r->status);
	metrics_error(m, stripe, r->route, r->error);
	if (r->attempt > 0 && (r->error == ERROR_BACKEND || r->error == ERROR_NO_WORKERS))
		metrics_count(m, stripe, METRIC_RETRIES_EXHAUSTED, r->route, 1);
	if (r->events > 0)
		metrics_count(m, stripe, METRIC_EVENTS, r->route, r->events);
	if (r->bytes > 0)
		metrics_count(m, stripe, METRIC_BYTES, r->route, r->bytes);
	metrics_observe(m, stripe, HIST_OVERHEAD,
			t->dispatched > t->body ? t->dispatched - t->body : 0);
	metrics_observe_at(m, stripe, HIST_DURATION, r->route, t->ended - t->accepted);
	if (good && !pd)
		metrics_observe(m, stripe, HIST_GENERATE,
				(r->streaming && t->answered ? t->answered : t->ended) -
					t->accepted);
	if (r->route == ROUTE_EMBEDDINGS) {
		metrics_embeddings(m, stripe, r->status);
		metrics_observe(m, stripe, HIST_EMBEDDINGS, t->ended - t->accepted);
	} else if (pd) {
		metrics_observe_at(m, stripe, HIST_PD_DURATION, r->route,
				   (t->answered ? t->answered : t->ended) - t->accepted);
	}
}
