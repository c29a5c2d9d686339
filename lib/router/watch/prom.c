/*
 * The metrics page: the router's counters, a value per worker, the process. A family is one row of
 * metrics_table.h and, unless it is a striped one, one case here.
 */
#include "lib/router/watch/prom.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/router/fleet/served.h"

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

enum extra {
	EXTRA_NONE,
	EXTRA_POLICY,
	EXTRA_FROM_TO,
	EXTRA_OUTCOME,
	EXTRA_RESULT,
	EXTRA_RANK,
	EXTRA_SHADOW,
	EXTRA_STATUS,
	EXTRA_TOKENS
};
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
	case W_SHADOWS:
		return atomic_load(&w->shadow_picks);
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
	case W_TOKENS:
	case W_CB_MOVES: /* more than one sample */
	case W_CB_OUTCOMES:
	case W_CHECKS:
	case W_REFUSALS:
	case W_SERVED:
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
	uint64_t bad = breaker_of(w).outcomes[VERDICT_FAILURE], neutral = atomic_load(&w->neutral),
		 running = atomic_load(&w->slot.in_flight), all = atomic_load(&w->requests),
		 done = all > running ? all - running : 0;
	int err = sample(b, W_CB_OUTCOMES, w, ",outcome=\"success\"",
			 done > bad + neutral ? done - bad - neutral : 0);

	return err ? err : sample(b, W_CB_OUTCOMES, w, ",outcome=\"failure\"", bad);
}

static int checks_text(struct worker *w, struct buf *b)
{
	int err = sample(b, W_CHECKS, w, ",result=\"ok\"", atomic_load(&w->checks_ok));

	return err ? err
		   : sample(b, W_CHECKS, w, ",result=\"failed\"", atomic_load(&w->checks_failed));
}

static int refusals_text(struct worker *w, struct buf *b)
{
	int err = sample(b, W_REFUSALS, w, ",status=\"503\"",
			 atomic_load(&w->refusals[WORKER_REFUSED_503]));

	return err ? err
		   : sample(b, W_REFUSALS, w, ",status=\"429\"",
			    atomic_load(&w->refusals[WORKER_REFUSED_429]));
}

static int tokens_text(const struct token_models *m, struct worker *w, struct buf *b)
{
	static const char *const kinds[WORKER_TOKENS] = {"prompt", "cached", "completion"};
	struct buf more;
	int err = PD_OK;

	buf_init(&more, 1024);
	for (unsigned place = 0; !err && place < WORKER_MODELS; place++) {
		const char *model = tokens_model(m, place);
		uint64_t all = 0;

		for (int k = 0; k < WORKER_TOKENS; k++)
			all += atomic_load(&w->tokens[place][k]);
		for (int k = 0; !err && model && all > 0 && k < WORKER_TOKENS; k++) {
			buf_clear(&more);
			err = buf_puts(&more, ",model=\"");
			err = err ? err : put_label(&more, model);
			err = err ? err : buf_printf(&more, "\",kind=\"%s\"", kinds[k]);
			err = err ? err
				  : sample(b, W_TOKENS, w, more.data,
					   atomic_load(&w->tokens[place][k]));
		}
	}
	buf_release(&more);
	return err;
}

static int served_text(struct worker *w, struct buf *b)
{
	struct served_list *l = served_of(w);
	int err = l ? sample(b, W_SERVED, w, "", l->n) : PD_OK;

	served_list_put(l);
	return err;
}

static int worker_text(const struct token_models *models, const struct fleet_pool *p,
		       struct worker *w, enum worker_family f, struct buf *b)
{
	char more[80] = "";

	if (f == W_SERVED)
		return served_text(w, b);
	switch (families[f].extra) {
	case EXTRA_FROM_TO:
		return moves_text(w, b);
	case EXTRA_OUTCOME:
		return outcomes_text(w, b);
	case EXTRA_RESULT:
		return checks_text(w, b);
	case EXTRA_TOKENS:
		return tokens_text(models, w, b);
	case EXTRA_STATUS:
		return refusals_text(w, b);
	case EXTRA_POLICY:
		(void)snprintf(more, sizeof(more), ",policy=\"%s\"", route_pool_policy(p->ring));
		break;
	case EXTRA_SHADOW:
		if (!p->shadow)
			return PD_OK;
		(void)snprintf(more, sizeof(more), ",policy=\"%s\"", route_pool_policy(p->shadow));
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

static int workers_text(const struct token_models *models, struct fleet *fleet, struct buf *b)
{
	int err = PD_OK;

	for (unsigned f = 0; !err && f < WORKER_FAMILIES; f++) {
		err = metrics_head(b, families[f].name, families[f].type, families[f].help);
		for (unsigned r = 0; r < ROLES; r++) {
			const struct fleet_pool *p = &fleet->pool[r];

			for (size_t i = 0; !err && (families[f].roles & 1u << r) != 0 && i < p->n;
			     i++)
				err = worker_text(models, p, p->worker[i], (enum worker_family)f,
						  b);
		}
	}
	return err;
}

/* -- the process -- */

#define SINGLE_ROW(id, type, labels, name, help, moves) {name, TYPE_##type, help},
static const struct {
	const char *name, *type, *help;
} single[] = {METRICS_SINGLES(SINGLE_ROW)};

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

/* Linux 6.2 and later say it in the size of the directory; before one must count. */
static uint64_t open_fds(void)
{
	struct stat st;
	uint64_t n = 0;
	DIR *d;

	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (uint64_t)st.st_size;
	d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		(void)closedir(d);
	return n > 3 ? n - 3 : 0; /* ".", "..", and the directory itself */
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

/* Values that this room reads itself; the others are the owner's. */
static uint64_t of_process(const struct prom_page *p, const struct fleet *f, enum prom_single s)
{
	switch (s) {
	case SINGLE_ACTIVE:
		return active_workers(f);
	case SINGLE_DEGRADED:
		return atomic_load(&p->fleet->rotation[ROLE_PREFILL].degraded);
	case SINGLE_UPDATES:
		return atomic_load(&p->fleet->updates);
	case SINGLE_ADDED:
		return atomic_load(&p->fleet->added);
	case SINGLE_REMOVED:
		return atomic_load(&p->fleet->removed);
	case SINGLE_VERSION:
		return f->version;
	case SINGLE_TLS_EXPIRY:
		return p->cfg->tls ? (uint64_t)tls_context_not_after(p->cfg->tls) : 0;
	case SINGLE_OPEN_FDS:
		return open_fds();
	case SINGLE_MAX_FDS:
		return max_fds();
	case SINGLE_MEMORY:
		return resident();
	default:
		return p->number[s];
	}
}

static uint64_t of_server(const struct http_server_stats *s, enum prom_single which)
{
	switch (which) {
	case SINGLE_CONNECTIONS:
		return s->connections;
	case SINGLE_PEAK:
		return s->peak_connections;
	case SINGLE_THREADS:
		return s->threads;
	case SINGLE_FIBERS:
		return s->fibers;
	case SINGLE_FIBERS_IDLE:
		return s->idle_fibers;
	case SINGLE_ACCEPTED:
		return s->accepted;
	case SINGLE_REFUSED:
		return s->refused;
	case SINGLE_REFUSED_ADDRESS:
		return s->refused_address;
	case SINGLE_ACCEPT_ERRORS:
		return s->accept_errors;
	case SINGLE_FIBER_FAILURES:
		return s->fiber_failures;
	case SINGLE_BAD_REQUESTS:
		return s->bad_requests;
	case SINGLE_READ_TIMEOUTS:
		return s->read_timeouts;
	case SINGLE_TLS_HANDSHAKES:
		return s->tls_handshakes;
	case SINGLE_TLS_RESUMED:
		return s->tls_resumed;
	default:
		return s->tls_failures;
	}
}

static int pool_text(const struct fleet *f, struct buf *b)
{
	int err = PD_OK;

	for (int r = 0; r < ROLES; r++) {
		const struct fleet_pool *pool = &f->pool[r];
		unsigned n[WORKER_STATES] = {0};

		for (size_t i = 0; i < pool->n; i++)
			n[worker_state(pool->worker[i])]++;
		for (unsigned s = 0; !err && pool->n > 0 && s < WORKER_STATES; s++)
			err = buf_printf(b, "%s{stage=\"%s\",state=\"%s\"} %u\n",
					 single[SINGLE_POOL].name,
					 worker_role_name((enum worker_role)r),
					 worker_state_name((enum worker_state)s), n[s]);
	}
	return err;
}

static int panic_text(const struct fleet_holder *h, const struct fleet *f, enum prom_single s,
		      struct buf *b)
{
	int err = PD_OK;

	for (int r = 0; !err && r < ROLES; r++)
		if (f->pool[r].n > 0)
			err = buf_printf(
				b, "%s{stage=\"%s\"} %llu\n", single[s].name,
				worker_role_name((enum worker_role)r),
				s == SINGLE_PANIC
					? (unsigned long long)atomic_load(&h->rotation[r].panic)
					: (unsigned long long)atomic_load(&h->rotation[r].panics));
	return err;
}

static int seconds_text(struct buf *b, enum prom_single s, int64_t ns)
{
	return buf_printf(b, "%s %lld.%06lld\n", single[s].name, (long long)(ns / NS_PER_S),
			  (long long)(ns % NS_PER_S / NS_PER_US));
}

static int captured_text(struct buf *b, const struct prom_capture *c, enum prom_single s)
{
	static const char *const kinds[PROM_RECORDS] = {"request", "decision", "release"};
	const char *name = single[s].name;
	int err = PD_OK;

	for (int k = 0; !err && k < PROM_RECORDS; k++)
		err = s == SINGLE_CAPTURE_RECORDS
			      ? buf_printf(b, "%s{kind=\"%s\"} %llu\n", name, kinds[k],
					   (unsigned long long)c->written[k])
			      : buf_printf(b,
					   "%s{kind=\"%s\",loss=\"queue_full\"} %llu\n"
					   "%s{kind=\"%s\",loss=\"write_error\"} %llu\n",
					   name, kinds[k], (unsigned long long)c->queue_full[k],
					   name, kinds[k], (unsigned long long)c->write_error[k]);
	return err;
}

/* Registrations arrive by themselves: nothing is asked that could fail. */
static int source_text(struct buf *b, const struct prom_source *source, enum prom_single s)
{
	int err = PD_OK;

	for (int k = 0; !err && k < WORKER_SOURCES; k++) {
		const struct prom_source *one = &source[k];
		const char *name = worker_source_name((enum worker_source)k);

		if (!one->on || (s != SINGLE_SOURCE_WORKERS && k == SOURCE_REGISTERED))
			continue;
		if (s == SINGLE_SOURCE_HEARD && one->heard)
			err = buf_printf(b, "%s{source=\"%s\"} %lld.%03lld\n", single[s].name, name,
					 (long long)(one->heard / NS_PER_S),
					 (long long)(one->heard % NS_PER_S / NS_PER_MS));
		else if (s != SINGLE_SOURCE_HEARD)
			err = buf_printf(b, "%s{source=\"%s\"} %llu\n", single[s].name, name,
					 (unsigned long long)(s == SINGLE_SOURCE_WORKERS
								      ? one->workers
								      : one->failures));
	}
	return err;
}

static int single_text(const struct prom_page *p, const struct fleet *f,
		       const struct http_server_stats *server, enum prom_single s, struct buf *b)
{
	const struct router_config *c = p->cfg;
	int err;

	switch (s) {
	case SINGLE_POOL:
		return pool_text(f, b);
	case SINGLE_PANIC:
	case SINGLE_PANICS:
		return panic_text(p->fleet, f, s, b);
	case SINGLE_LOG_LOST:
		return buf_printf(
			b, "%s{log=\"main\"} %llu\n%s{log=\"access\"} %llu\n", single[s].name,
			(unsigned long long)(c->log ? log_dropped(c->log) : 0), single[s].name,
			(unsigned long long)(c->access_log ? log_dropped(c->access_log) : 0));
	case SINGLE_KEY_NAMES:
		err = PD_OK;
		for (size_t i = 0; !err && i < p->nkeys; i++)
			err = buf_printf(b, "%s{api_key_name=\"%s\"} %llu\n", single[s].name,
					 p->key[i].name, (unsigned long long)p->key[i].n);
		return err;
	case SINGLE_BUILD:
		err = buf_printf(b, "%s{version=\"", single[s].name);
		err = err ? err : put_label(b, c->version);
		return err ? err : buf_puts(b, "\"} 1\n");
	case SINGLE_START:
		return seconds_text(b, s, p->started_wall);
	case SINGLE_CPU:
		return seconds_text(b, s, clock_cpu());
	case SINGLE_SOURCE_WORKERS:
	case SINGLE_SOURCE_FAILURES:
	case SINGLE_SOURCE_HEARD:
		return source_text(b, p->source, s);
	case SINGLE_CAPTURE_RECORDS:
	case SINGLE_CAPTURE_DROPPED:
		return captured_text(b, &p->capture, s);
	case SINGLE_CONNECTIONS ... SINGLE_TLS_FAILURES:
		return buf_printf(b, "%s %llu\n", single[s].name,
				  (unsigned long long)of_server(server, s));
	default:
		return buf_printf(b, "%s %llu\n", single[s].name,
				  (unsigned long long)of_process(p, f, s));
	}
}

int prom_text(const struct prom_page *p, struct buf *b)
{
	struct fleet *f = fleet_get(p->fleet);
	struct http_server_stats server = {0};
	int err = metrics_text(p->metrics, b);

	if (p->server)
		http_server_stats(p->server, &server);
	err = err ? err : workers_text(&p->metrics->models, f, b);
	for (unsigned s = 0; !err && s < PROM_SINGLES; s++) {
		err = metrics_head(b, single[s].name, single[s].type, single[s].help);
		err = err ? err : single_text(p, f, &server, (enum prom_single)s, b);
	}
	fleet_put(f);
	return err;
}
