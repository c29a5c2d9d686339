/* The metrics page: the router's counters, the workers' gauges, the server's threads. */
#include <stdio.h>
#include <sys/resource.h>

#include "lib/base/clock.h"
#include "lib/router/router.h"

/* A label value: backslash, quote and newline escaped. */
static int put_label(struct buf *b, const char *s)
{
	int err = PD_OK;

	for (; !err && *s; s++) {
		if (*s == '\\' || *s == '"')
			err = buf_putc(b, '\\');
		if (!err)
			err = *s == '\n' ? buf_puts(b, "\\n") : buf_putc(b, *s);
	}
	return err;
}

static int head(struct buf *b, const char *name, const char *type, const char *help)
{
	return buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static int sample(struct buf *b, const char *name, const struct worker *w, const char *more,
		  uint64_t value)
{
	int err = buf_printf(b, "%s{worker=\"", name);

	err = err ? err : put_label(b, w->url);
	return err ? err
		   : buf_printf(b, "\",stage=\"%s\"%s} %llu\n", worker_role_name(w->role), more,
				(unsigned long long)value);
}

enum gauge {
	G_HEALTH,
	G_RUNNING,
	G_PROCESSED,
	G_DECISIONS,
	G_ERRORS,
	G_CB_STATE,
	G_CONNECTS,
	G_CONNECT_FAILURES,
	G_REUSED,
	G_STALE,
	G_EJECTIONS,
	G_IDLE,
	GAUGES
};

static const struct {
	const char *name, *type, *help;
} gauge[GAUGES] = {
	{"vllm_router_worker_health", "gauge", "1 when the worker may be picked"},
	{"vllm_router_running_requests", "gauge", "Requests in flight"},
	{"vllm_router_processed_requests_total", "counter", "Requests sent to the worker"},
	{"vllm_router_policy_decisions_total", "counter", "Decisions for the worker"},
	{"pdctl_worker_errors_total", "counter", "Failures that count for the circuit breaker"},
	{"vllm_router_cb_state", "gauge", "Circuit breaker: 0 closed, 1 open, 2 half-open"},
	{"pdctl_upstream_connects_total", "counter", "Connections made"},
	{"pdctl_upstream_connect_failures_total", "counter", "Connections that could not be made"},
	{"pdctl_upstream_reused_total", "counter", "Requests on a pooled connection"},
	{"pdctl_upstream_stale_total", "counter", "Pooled connections that were dead"},
	{"pdctl_worker_ejections_total", "counter",
	 "Times a failed connection took the worker out"},
	{"pdctl_upstream_idle", "gauge", "Pooled connections"},
};

static uint64_t breaker_state(struct worker *w)
{
	enum breaker_state state;

	(void)pthread_mutex_lock(&w->lock);
	state = w->breaker.state;
	(void)pthread_mutex_unlock(&w->lock);
	return (uint64_t)state;
}

static uint64_t gauge_of(struct worker *w, enum gauge g)
{
	switch (g) {
	case G_HEALTH:
		return atomic_load(&w->slot.available);
	case G_RUNNING:
		return atomic_load(&w->slot.in_flight);
	case G_PROCESSED:
		return atomic_load(&w->requests);
	case G_DECISIONS:
		return atomic_load(&w->slot.picks);
	case G_ERRORS:
		return atomic_load(&w->errors);
	case G_CB_STATE:
		return breaker_state(w);
	case G_CONNECTS:
		return atomic_load(&w->connects);
	case G_CONNECT_FAILURES:
		return atomic_load(&w->connect_failures);
	case G_REUSED:
		return atomic_load(&w->reused);
	case G_STALE:
		return atomic_load(&w->stale);
	case G_EJECTIONS:
		return atomic_load(&w->ejections);
	default:
		return http_pool_idle(&w->pool);
	}
}

static int breaker_text(struct worker *w, struct buf *b, bool outcomes)
{
	static const char *const outcome[] = {"success", "failure"};
	struct breaker copy;
	char more[80];
	int err = PD_OK;

	(void)pthread_mutex_lock(&w->lock);
	copy = w->breaker;
	(void)pthread_mutex_unlock(&w->lock);
	if (outcomes) {
		/* Successes on a closed breaker are not counted one by one (that would be a lock
		 * per request): they are the rest. */
		uint64_t done = atomic_load(&w->requests) - atomic_load(&w->slot.in_flight),
			 bad = copy.outcomes[1];

		for (int i = 0; !err && i < 2; i++) {
			(void)snprintf(more, sizeof(more), ",outcome=\"%s\"", outcome[i]);
			err = sample(b, "vllm_router_cb_outcomes_total", w, more,
				     i		  ? bad
				     : done > bad ? done - bad
						  : 0);
		}
		return err;
	}
	for (int from = 0; from < BREAKER_STATES; from++) {
		for (int to = 0; !err && to < BREAKER_STATES; to++) {
			if (from == to || (from == 0 && to == 2) || (from == 1 && to == 0))
				continue;
			(void)snprintf(more, sizeof(more), ",from=\"%s\",to=\"%s\"",
				       breaker_state_name((enum breaker_state)from),
				       breaker_state_name((enum breaker_state)to));
			err = sample(b, "vllm_router_cb_state_transitions_total", w, more,
				     copy.transitions[from][to]);
		}
	}
	return err;
}

static int each_worker(struct fleet *f, struct buf *b, int what)
{
	int err = PD_OK;
	char more[80];

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			struct worker *w = f->pool[r].worker[i];

			more[0] = '\0';
			if (what == G_DECISIONS)
				(void)snprintf(more, sizeof(more), ",policy=\"%s\"",
					       route_policy_name(f->pool[r].policy.kind));
			err = what < GAUGES ? sample(b, gauge[what].name, w, more,
						     gauge_of(w, (enum gauge)what))
					    : breaker_text(w, b, what > GAUGES);
		}
	}
	return err;
}

static int workers_text(struct router *rt, struct buf *b)
{
	struct fleet *f = fleet_get(&rt->fleet);
	int err = PD_OK;

	for (int g = 0; !err && g < GAUGES; g++) {
		err = head(b, gauge[g].name, gauge[g].type, gauge[g].help);
		err = err ? err : each_worker(f, b, g);
	}
	err = err ? err
		  : head(b, "vllm_router_cb_state_transitions_total", "counter",
			 "Circuit breaker transitions");
	err = err ? err : each_worker(f, b, GAUGES);
	err = err ? err
		  : head(b, "vllm_router_cb_outcomes_total", "counter",
			 "Outcomes seen by the circuit breaker");
	err = err ? err : each_worker(f, b, GAUGES + 1);
	fleet_put(f);
	return err;
}

static int single(struct buf *b, const char *name, const char *type, const char *help, uint64_t v)
{
	int err = head(b, name, type, help);

	return err ? err : buf_printf(b, "%s %llu\n", name, (unsigned long long)v);
}

static int server_text(struct router *rt, struct buf *b)
{
	struct http_server *server = atomic_load(&rt->server);
	struct http_server_stats s = {0};
	const struct {
		const char *name, *type, *help;
		uint64_t v;
	} rows[] = {
		{"pdctl_connections", "gauge", "Client connections",
		 (server ? http_server_stats(server, &s) : (void)0, s.connections)},
		{"pdctl_connections_peak", "gauge", "Most client connections at once",
		 s.peak_connections},
		{"pdctl_connection_threads", "gauge", "Connection threads, parked ones included",
		 s.threads},
		{"pdctl_connection_threads_parked", "gauge",
		 "Connection threads that wait for a connection", s.parked},
		{"pdctl_connections_accepted_total", "counter", "Connections accepted", s.accepted},
		{"pdctl_connections_refused_total", "counter", "Connections refused at the limit",
		 s.refused},
		{"pdctl_accept_errors_total", "counter",
		 "Times accept ran out of descriptors or memory", s.accept_errors},
		{"pdctl_thread_failures_total", "counter",
		 "Connections refused because no thread could be made", s.thread_failures},
		{"pdctl_bad_requests_total", "counter", "Requests refused by the parser or a limit",
		 s.bad_requests},
		{"pdctl_read_timeouts_total", "counter", "Requests that arrived too slowly",
		 s.read_timeouts},
		{"pdctl_requests_in_work", "gauge", "Requests that hold a place at the gate",
		 atomic_load(&rt->gate.in_work)},
		{"pdctl_requests_waiting", "gauge", "Requests in the queue",
		 atomic_load(&rt->gate.waiting)},
		{"pdctl_requests_queued_total", "counter", "Requests that had to wait",
		 atomic_load(&rt->gate.queued)},
		{"pdctl_queue_full_total", "counter", "Requests refused because the queue was full",
		 atomic_load(&rt->gate.full)},
		{"pdctl_queue_timeouts_total", "counter", "Requests that waited in vain",
		 atomic_load(&rt->gate.timed_out)},
		{"pdctl_loops_total", "counter", "Requests that had passed this router before",
		 atomic_load(&rt->loops)},
		{"pdctl_reloads_total", "counter", "Successful reloads", atomic_load(&rt->reloads)},
		{"pdctl_reload_failures_total", "counter", "Reloads that changed nothing",
		 atomic_load(&rt->reload_failures)},
		{"pdctl_draining", "gauge", "1 while the router drains",
		 atomic_load(&rt->draining)},
		{"pdctl_log_lines_dropped_total", "counter",
		 "Log lines dropped because their reader stalled",
		 rt->cfg.log ? log_dropped(rt->cfg.log) : 0},
	};
	int err = PD_OK;

	for (size_t i = 0; !err && i < sizeof(rows) / sizeof(rows[0]); i++)
		err = single(b, rows[i].name, rows[i].type, rows[i].help, rows[i].v);
	return err;
}

int prom_text(struct router *rt, struct buf *b)
{
	int64_t cpu = clock_cpu();
	int err = metrics_text(&rt->metrics, b);

	err = err ? err : workers_text(rt, b);
	err = err ? err : server_text(rt, b);
	err = err ? err
		  : head(b, "process_cpu_seconds_total", "counter", "CPU time of the process");
	return err ? err
		   : buf_printf(b, "process_cpu_seconds_total %lld.%06lld\n",
				(long long)(cpu / NS_PER_S), (long long)(cpu % NS_PER_S / 1000));
}
