/*
 * The metrics page: the router's counters, a value per worker, the process. A family is one row of
 * metrics_table.h and, unless it is a striped one, one case here.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
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

/* -- workers -- */

enum extra { EXTRA_NONE, EXTRA_POLICY, EXTRA_FROM_TO, EXTRA_OUTCOME, EXTRA_RESULT, EXTRA_RANK };
enum {
	ROLES_ANY = 1 << ROLE_REGULAR | 1 << ROLE_PREFILL | 1 << ROLE_DECODE,
	ROLES_PREFILL = 1 << ROLE_PREFILL,
	ROLES_DECODE = 1 << ROLE_DECODE
};

#define WORKER_ENUM(id, ...) W_##id,
enum worker_family { METRICS_WORKERS(WORKER_ENUM) WORKER_FAMILIES };
#define TYPE_COUNTER "counter"
#define TYPE_GAUGE   "gauge"
#define WORKER_ROW(id, type, extra, roles, name, help, moves)                                      \
	{name, TYPE_##type, help, EXTRA_##extra, ROLES_##roles},
static const struct {
	const char *name, *type, *help;
	enum extra extra;
	unsigned roles;
} families[] = {METRICS_WORKERS(WORKER_ROW)};

/* What is read under the worker's lock, once per worker and family. */
static struct breaker breaker_of(struct worker *w)
{
	struct breaker copy;

	(void)pthread_mutex_lock(&w->lock);
	copy = w->breaker;
	(void)pthread_mutex_unlock(&w->lock);
	return copy;
}

static uint64_t pending(struct worker *w)
{
	unsigned all = atomic_load(&w->slot.in_flight), active = atomic_load(&w->decoding);

	return all > active ? all - active : 0;
}

static uint64_t value_of(struct worker *w, enum worker_family f)
{
	switch (f) {
	case W_HEALTH:
		return atomic_load(&w->slot.available);
	case W_LOAD:
	case W_RUNNING:
	case W_PD_OCCUPANCY:
		return atomic_load(&w->slot.in_flight);
	case W_PROCESSED:
		return atomic_load(&w->requests);
	case W_PICKS:
		return atomic_load(&w->slot.picks);
	case W_FAILURES:
		return atomic_load(&w->errors);
	case W_CB_STATE:
		return (uint64_t)breaker_of(w).state;
	case W_EJECTIONS:
		return atomic_load(&w->ejections);
	case W_CONNECTS:
		return atomic_load(&w->pool.connects);
	case W_CONNECT_FAILURES:
		return atomic_load(&w->pool.connect_failures);
	case W_REUSED:
		return atomic_load(&w->pool.reused);
	case W_CLOSED:
		return atomic_load(&w->pool.ended);
	case W_STALE:
		return atomic_load(&w->pool.stale);
	case W_IDLE:
		return http_pool_idle(&w->pool);
	case W_PD_PREFILLS:
	case W_PD_DECODES:
		return atomic_load(&w->pd_requests);
	case W_PD_PREFILL_ERRORS:
	case W_PD_DECODE_ERRORS:
		return atomic_load(&w->pd_errors);
	case W_PD_STREAM_ERRORS:
		return atomic_load(&w->pd_cut);
	case W_PD_PENDING:
		return pending(w);
	case W_PD_ACTIVE:
		return atomic_load(&w->decoding);
	case W_CB_MOVES: /* more than one sample */
	case W_CB_OUTCOMES:
	case W_CHECKS:
	case WORKER_FAMILIES:
		break;
	}
	return 0;
}

/* `more` is the inside of further labels, with a comma before it. */
static int sample(struct buf *b, enum worker_family f, const struct worker *w, const char *more,
		  uint64_t value)
{
	int err = buf_printf(b, "%s{worker=\"", families[f].name);

	err = err ? err : put_label(b, w->url);
	err = err ? err : buf_printf(b, "\",stage=\"%s\"%s", worker_role_name(w->role), more);
	if (!err && strcmp(w->name, w->url) != 0) {
		err = buf_puts(b, ",name=\"");
		err = err ? err : put_label(b, w->name);
		err = err ? err : buf_putc(b, '"');
	}
	return err ? err : buf_printf(b, "} %llu\n", (unsigned long long)value);
}

static int moves_text(struct worker *w, struct buf *b)
{
	struct breaker copy = breaker_of(w);
	char more[80];
	int err = PD_OK;

	for (int from = 0; from < BREAKER_STATES; from++) {
		for (int to = 0; !err && to < BREAKER_STATES; to++) {
			if (from == to || (from == BREAKER_CLOSED && to == BREAKER_HALF_OPEN) ||
			    (from == BREAKER_OPEN && to == BREAKER_CLOSED))
				continue;
			(void)snprintf(more, sizeof(more), ",from=\"%s\",to=\"%s\"",
				       breaker_state_name((enum breaker_state)from),
				       breaker_state_name((enum breaker_state)to));
			err = sample(b, W_CB_MOVES, w, more, copy.transitions[from][to]);
		}
	}
	return err;
}

/* Successes on a closed breaker are not counted one by one (that would be a lock per request): they
 * are the rest. */
static int outcomes_text(struct worker *w, struct buf *b)
{
	uint64_t bad = breaker_of(w).outcomes[VERDICT_FAILURE],
		 running = atomic_load(&w->slot.in_flight), all = atomic_load(&w->requests),
		 done = all > running ? all - running : 0;
	int err = sample(b, W_CB_OUTCOMES, w, ",outcome=\"success\"", done > bad ? done - bad : 0);

	return err ? err : sample(b, W_CB_OUTCOMES, w, ",outcome=\"failure\"", bad);
}

static int checks_text(struct worker *w, struct buf *b)
{
	int err = sample(b, W_CHECKS, w, ",result=\"ok\"", atomic_load(&w->checks_ok));

	return err ? err
		   : sample(b, W_CHECKS, w, ",result=\"failed\"", atomic_load(&w->checks_failed));
}

static int worker_text(const struct fleet_pool *p, struct worker *w, enum worker_family f,
		       struct buf *b)
{
	char more[80] = "";

	switch (families[f].extra) {
	case EXTRA_FROM_TO:
		return moves_text(w, b);
	case EXTRA_OUTCOME:
		return outcomes_text(w, b);
	case EXTRA_RESULT:
		return checks_text(w, b);
	case EXTRA_POLICY:
		(void)snprintf(more, sizeof(more), ",policy=\"%s\"",
			       route_policy_name(p->policy.kind));
		break;
	case EXTRA_RANK:
		if (w->at.rank >= 0)
			(void)snprintf(more, sizeof(more), ",rank=\"%d\"", w->at.rank);
		else
			(void)snprintf(more, sizeof(more), ",rank=\"aggregate\"");
		break;
	default:
		break;
	}
	return sample(b, f, w, more, value_of(w, f));
}

static int workers_text(struct fleet *fleet, struct buf *b)
{
	int err = PD_OK;

	for (unsigned f = 0; !err && f < WORKER_FAMILIES; f++) {
		err = metrics_head(b, families[f].name, families[f].type, families[f].help);
		for (unsigned r = 0; r < ROLES; r++) {
			const struct fleet_pool *p = &fleet->pool[r];

			for (size_t i = 0; !err && (families[f].roles & 1u << r) != 0 && i < p->n;
			     i++)
				err = worker_text(p, p->worker[i], (enum worker_family)f, b);
		}
	}
	return err;
}

/* -- the process -- */

#define SINGLE_ENUM(id, ...) S_##id,
enum single { METRICS_SINGLES(SINGLE_ENUM) SINGLES };
#define SINGLE_ROW(id, type, labels, name, help, moves) {name, TYPE_##type, help},
static const struct {
	const char *name, *type, *help;
} single[] = {METRICS_SINGLES(SINGLE_ROW)};

struct page {
	struct router *rt;
	struct fleet *fleet;
	struct http_server_stats server;
};

/* Resident memory in bytes; 0 when the system does not say. */
static uint64_t resident(void)
{
	uint64_t pages = 0;
	const char *p;
	struct buf b;

	buf_init(&b, 4096);
	if (file_read("/proc/self/statm", &b, NULL) == PD_OK && (p = strchr(b.data, ' ')))
		for (p++; *p >= '0' && *p <= '9'; p++)
			pages = pages * 10 + (uint64_t)(*p - '0');
	buf_release(&b);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t max_fds(void)
{
	struct rlimit limit = {0};

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

static uint64_t active_workers(const struct fleet *f)
{
	uint64_t n = 0;

	for (int r = 0; r < ROLES; r++)
		n += fleet_available(&f->pool[r]);
	return n;
}

static uint64_t of_keys(const struct router *rt, enum single s)
{
	struct keyask_stats k = {0};

	if (rt->auth.ask)
		keyask_stats(rt->auth.ask, &k);
	switch (s) {
	case S_UNAUTHORIZED:
		return atomic_load(&rt->auth.refused);
	case S_KEY_CHECKS:
		return k.asked;
	case S_KEY_FAILURES:
		return k.failed;
	case S_KEY_HITS:
		return k.hits;
	default:
		return k.waiting;
	}
}

static uint64_t of_router(const struct page *p, enum single s)
{
	struct router *rt = p->rt;

	switch (s) {
	case S_ACTIVE:
		return active_workers(p->fleet);
	case S_UPDATES:
		return atomic_load(&rt->fleet.updates);
	case S_ADDED:
		return atomic_load(&rt->fleet.added);
	case S_REMOVED:
		return atomic_load(&rt->fleet.removed);
	case S_LOOPS:
		return atomic_load(&rt->loops);
	case S_RELOADS:
		return atomic_load(&rt->reloads);
	case S_RELOAD_FAILURES:
		return atomic_load(&rt->reload_failures);
	case S_ADMIN_REFUSED:
		return atomic_load(&rt->admin_refused);
	case S_VERSION:
		return p->fleet->version;
	case S_IN_WORK:
		return atomic_load(&rt->gate.in_work);
	case S_WAITING:
		return atomic_load(&rt->gate.waiting);
	case S_QUEUED:
		return atomic_load(&rt->gate.queued);
	case S_QUEUE_FULL:
		return atomic_load(&rt->gate.full);
	case S_QUEUE_TIMEOUTS:
		return atomic_load(&rt->gate.timed_out);
	case S_QUEUE_LEFT:
		return atomic_load(&rt->gate.left);
	case S_EMBEDDINGS_QUEUE:
		return atomic_load(&rt->embeddings_waiting);
	case S_BUDGET:
		return (uint64_t)atomic_load(&rt->budget.milli) / 1000;
	case S_DRAINING:
		return atomic_load(&rt->draining);
	case S_TLS_EXPIRY:
		return rt->cfg.tls ? (uint64_t)tls_context_not_after(rt->cfg.tls) : 0;
	case S_MAX_FDS:
		return max_fds();
	default:
		return resident();
	}
}

static uint64_t of_server(const struct http_server_stats *s, enum single which)
{
	switch (which) {
	case S_CONNECTIONS:
		return s->connections;
	case S_PEAK:
		return s->peak_connections;
	case S_THREADS:
		return s->threads;
	case S_FIBERS:
		return s->fibers;
	case S_FIBERS_IDLE:
		return s->idle_fibers;
	case S_ACCEPTED:
		return s->accepted;
	case S_REFUSED:
		return s->refused;
	case S_REFUSED_ADDRESS:
		return s->refused_address;
	case S_ACCEPT_ERRORS:
		return s->accept_errors;
	case S_FIBER_FAILURES:
		return s->fiber_failures;
	case S_BAD_REQUESTS:
		return s->bad_requests;
	case S_READ_TIMEOUTS:
		return s->read_timeouts;
	case S_TLS_HANDSHAKES:
		return s->tls_handshakes;
	case S_TLS_RESUMED:
		return s->tls_resumed;
	default:
		return s->tls_failures;
	}
}

static int pool_text(const struct page *p, struct buf *b)
{
	int err = PD_OK;

	for (int r = 0; r < ROLES; r++) {
		const struct fleet_pool *pool = &p->fleet->pool[r];
		unsigned n[WORKER_STATES] = {0};

		for (size_t i = 0; i < pool->n; i++)
			n[worker_state(pool->worker[i])]++;
		for (unsigned s = 0; !err && pool->n > 0 && s < WORKER_STATES; s++)
			err = buf_printf(b, "%s{stage=\"%s\",state=\"%s\"} %u\n",
					 single[S_POOL].name, worker_role_name((enum worker_role)r),
					 worker_state_name((enum worker_state)s), n[s]);
	}
	return err;
}

static int seconds_text(struct buf *b, enum single s, int64_t ns)
{
	return buf_printf(b, "%s %lld.%06lld\n", single[s].name, (long long)(ns / NS_PER_S),
			  (long long)(ns % NS_PER_S / NS_PER_US));
}

static int single_text(const struct page *p, enum single s, struct buf *b)
{
	const struct router_config *c = &p->rt->cfg;
	int err;

	switch (s) {
	case S_POOL:
		return pool_text(p, b);
	case S_LOG_LOST:
		return buf_printf(
			b, "%s{log=\"main\"} %llu\n%s{log=\"access\"} %llu\n", single[s].name,
			(unsigned long long)(c->log ? log_dropped(c->log) : 0), single[s].name,
			(unsigned long long)(c->access_log ? log_dropped(c->access_log) : 0));
	case S_BUILD:
		err = buf_printf(b, "%s{version=\"", single[s].name);
		err = err ? err : put_label(b, c->version);
		return err ? err : buf_puts(b, "\"} 1\n");
	case S_START:
		return seconds_text(b, s, p->rt->started_wall);
	case S_CPU:
		return seconds_text(b, s, clock_cpu());
	case S_CAPTURE_RECORDS ... S_CAPTURE_QUEUE:
		return capture_samples(p->rt->capture, (enum capture_sample)(s - S_CAPTURE_RECORDS),
				       single[s].name, b);
	case S_UNAUTHORIZED ... S_KEY_WAITING:
		return buf_printf(b, "%s %llu\n", single[s].name,
				  (unsigned long long)of_keys(p->rt, s));
	case S_CONNECTIONS ... S_TLS_FAILURES:
		return buf_printf(b, "%s %llu\n", single[s].name,
				  (unsigned long long)of_server(&p->server, s));
	default:
		return buf_printf(b, "%s %llu\n", single[s].name,
				  (unsigned long long)of_router(p, s));
	}
}

int prom_text(struct router *rt, struct buf *b)
{
	struct http_server *server = atomic_load(&rt->server);
	struct page p = {.rt = rt, .fleet = fleet_get(&rt->fleet)};
	int err = metrics_text(&rt->metrics, b);

	if (server)
		http_server_stats(server, &p.server);
	err = err ? err : workers_text(p.fleet, b);
	for (unsigned s = 0; !err && s < SINGLES; s++) {
		err = metrics_head(b, single[s].name, single[s].type, single[s].help);
		err = err ? err : single_text(&p, (enum single)s, b);
	}
	fleet_put(p.fleet);
	return err;
}
