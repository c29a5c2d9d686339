/*
 * The entry builds what the rooms work with and hands each its context; no room knows the router.
 *
 *   start                              stop
 *   capture  (the file is open)        admin port  it reads everything else
 *   fleet    told to the capture       data port   its handlers use all that follows
 *   health   of the fleet              changes     may be stuck: then the rest stays as well
 *   changes  fleet, health, reload     asks
 *   asks                               health
 *   auth     keys                      capture     it holds fleets
 *   way      fleet, health, watch      fleet       it holds connections of the servers' loops
 *   admin    its port and all above    servers     with their loops
 *   server   the data port             way, auth
 *   sources  of workers                (before the changes)
 *   pulse    reads counts of all       (first of all)
 */
#include "lib/router/fleet/catalog.h"
#include "lib/router/fleet/kvfollow.h"
#include "lib/router/fleet/scrape.h"
#include "lib/router/router.h"
#include "lib/router/sources.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "lib/router/admin/admin.h"
#include "lib/router/capture/capture.h"
#include "lib/router/config/workersfile.h"
#include "lib/router/keys/auth.h"
#include "lib/router/keys/cors.h"
#include "lib/router/keys/keys.h"
#include "lib/router/page/page.h"
#include "lib/router/watch/prom.h"
#include "lib/router/watch/pulse.h"
#include "lib/router/watch/spans.h"
#include "lib/router/way/proxy.h"

#define ADMIN_CONNECTIONS 64
#define HURRY_STEP	  (20 * NS_PER_MS) /* a drain delay notices a second signal */
#define ADMIN_BODY_MAX	  65536
#define EXPIRY_WARN_NS	  (7 * 86400 * NS_PER_S)

struct router {
	struct router_config cfg;
	struct fleet_holder fleet;
	struct auth auth;
	struct cors cors;
	struct metrics metrics;
	struct way way;
	struct capture *capture;	    /* owned; NULL: none */
	struct http_server *_Atomic server; /* NULL until it listens: admin answers earlier */
	struct http_server *admin_server, *scrape_server;
	struct keys admin_keys;
	struct admin admin;
	struct health *health;
	struct scrape *scrape;
	struct kvfollow *events;
	struct changes *changes;
	struct sources *_Atomic sources; /* NULL: none, or not yet */
	struct asks *asks;
	struct catalog *catalog; /* NULL: models are not learnt */
	struct pulse *pulse;
	struct page *page;
	struct spans *spans; /* NULL: none */
	_Atomic bool hurry;
	pthread_mutex_t reloading;    /* one reload at a time */
	size_t keys_now, keys_before; /* of clients, in the file */
	_Atomic uint64_t reloads, reload_failures;
	int64_t started_wall;
};

/* What the page shows of the rooms that it cannot see. */
static int metrics_page(void *ctx, struct buf *out)
{
	struct router *rt = ctx;
	const struct way_queues q = way_queues(&rt->way);
	struct prom_page p = {
		.cfg = &rt->cfg,
		.metrics = &rt->metrics,
		.fleet = &rt->fleet,
		.server = atomic_load(&rt->server),
		.started_wall = rt->started_wall,
		.number = {[SINGLE_LOOPS] = atomic_load(&rt->way.loops),
			   [SINGLE_RELOADS] = atomic_load(&rt->reloads),
			   [SINGLE_RELOAD_FAILURES] = atomic_load(&rt->reload_failures),
			   [SINGLE_ADMIN_REFUSED] = atomic_load(&rt->admin.refused),
			   [SINGLE_IN_WORK] = atomic_load(&rt->way.gate.in_work),
			   [SINGLE_WAITING] = q.waiting,
			   [SINGLE_QUEUED] = q.queued,
			   [SINGLE_QUEUE_FULL] = q.full,
			   [SINGLE_QUEUE_TIMEOUTS] = q.timed_out,
			   [SINGLE_QUEUE_LEFT] = q.left,
			   [SINGLE_SATURATION] = q.saturation,
			   [SINGLE_EMBEDDINGS_QUEUE] = atomic_load(&rt->way.embeddings_waiting),
			   [SINGLE_BUDGET] = (uint64_t)atomic_load(&rt->way.budget.milli) / 1000,
			   [SINGLE_UNAUTHORIZED] = atomic_load(&rt->auth.refused),
			   [SINGLE_DRAINING] = atomic_load(&rt->admin.draining)},
	};
	struct prom_key named[KEY_NAMES_MAX];
	struct keyask_stats k = {0};
	struct spans_stats spans;

	if (rt->auth.ask)
		keyask_stats(rt->auth.ask, &k);
	kvfollow_counts(rt->events, &p.number[SINGLE_KV_SOURCES]);
	spans_stats(rt->spans, &spans);
	p.number[SINGLE_SPANS_SENT] = spans.sent;
	p.number[SINGLE_SPANS_DROPPED] = spans.dropped;
	p.number[SINGLE_SPANS_FAILED] = spans.failed;
	p.number[SINGLE_KEY_CHECKS] = k.asked;
	p.number[SINGLE_KEY_FAILURES] = k.failed;
	p.number[SINGLE_KEY_HITS] = k.hits;
	p.number[SINGLE_KEY_WAITING] = k.waiting;
	p.key = named;
	p.nkeys = atomic_load(&rt->auth.keys.nnames);
	for (size_t i = 0; i < p.nkeys; i++)
		named[i] = (struct prom_key){rt->auth.keys.name[i].text,
					     atomic_load(&rt->auth.keys.requests[i])};
	capture_stats(rt->capture, &p);
	sources_stats(atomic_load(&rt->sources), &p);
	return prom_text(&p, out);
}

static void look(void *ctx, struct pulse_look *out)
{
	struct router *rt = ctx;
	struct http_server *server = atomic_load(&rt->server);
	struct http_server_stats s = {0};
	const struct way_queues q = way_queues(&rt->way);

	if (server)
		http_server_stats(server, &s);
	*out = (struct pulse_look){
		.count = {[PULSE_QUEUE_FULL] = q.full,
			  [PULSE_QUEUE_TIMEOUT] = q.timed_out,
			  [PULSE_WORKERS_FULL] = metrics_failures(&rt->metrics, CAUSE_BUSY),
			  [PULSE_CONNECTIONS] = s.refused,
			  [PULSE_CONNECTIONS_ADDRESS] = s.refused_address,
			  [PULSE_DESCRIPTORS] = s.accept_errors,
			  [PULSE_LOCAL] = metrics_failures(&rt->metrics, CAUSE_LOCAL),
			  [PULSE_ACCESS_LOST] =
				  rt->cfg.access_log ? log_dropped(rt->cfg.access_log) : 0},
		.in_flight = atomic_load(&rt->way.gate.in_work),
		.queued = (unsigned)q.waiting,
		.draining = atomic_load(&rt->admin.draining)};
}

/* For the thread that sums up what is too frequent for a line each. */
static void pulse_look(void *ctx, struct pulse_look *out)
{
	struct router *rt = ctx;

	look(ctx, out);
	page_tick(rt->page, clock_now());
}

/* -- a request on the data port: our own routes here, everything else on its way -- */

static int on_head(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;
	struct auth_refusal no;

	proxy_trim_path(r);
	http_conn_set_extra(c, cors_lines(&rt->cors, &r->head));
	if (cors_is_preflight(&r->head))
		return 0;
	/* The admin's key is in the field where a client's would be. */
	if (rt->admin.keys && admin_acts(r))
		return 0;
	if (auth_admit(&rt->auth, c, r, &no))
		return admin_route(r) ? 0 : proxy_admit(&rt->way, c, r);
	if (no.status == 0)
		return -1;
	http_conn_tell(c, span_of(no.text));
	proxy_refused(&rt->way, c, r, no.status,
		      no.status == 401 ? ERROR_UNAUTHORIZED : ERROR_KEY_CHECK);
	(void)http_reply_error(c, no.status, no.type, no.extra, "%s", no.text);
	return -1;
}

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	if (cors_is_preflight(&r->head)) {
		cors_answer(c, http_conn_extra(c), &r->head);
		return;
	}
	if (admin_answer(&rt->admin, c, r, false))
		return;
	if (admin_generates(r))
		proxy_generate(&rt->way, c, r);
	else
		proxy_serve(&rt->way, c, r);
	proxy_leave(&rt->way);
}

static void on_abandon(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	if (cors_is_preflight(&r->head))
		return;
	proxy_abandon(&rt->way, c, r);
	if (!admin_route(r))
		proxy_leave(&rt->way);
}

/* So that a page reads why. */
static struct span own_lines(void *ctx, const struct http_head *h)
{
	struct router *rt = ctx;

	return cors_lines(&rt->cors, h);
}

static void on_refuse(void *ctx, struct http_conn *c, const struct http_request *r, int status)
{
	struct router *rt = ctx;

	proxy_bad_request(&rt->way, c, r, status);
}

/* -- the admin port -- */

static void generate(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	proxy_generate(&rt->way, c, r);
}

static void models(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	proxy_models(&rt->way, c, r);
}

static void admin_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	(void)admin_answer(&rt->admin, c, r, true);
}

static void scrape_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct router *rt = ctx;

	admin_scrape(&rt->admin, c, r);
}

/* A port besides the data port, of the flag. */
static int listen_beside(struct router *rt, struct http_server **out, const char *host, int port,
			 const char *flag,
			 void (*handler)(void *, struct http_conn *, struct http_request *),
			 struct pd_msg *msg)
{
	struct http_server_config sc;
	struct pd_msg inner = {0};
	int err;

	http_server_config_default(&sc);
	sc.host = host;
	sc.port = (uint16_t)port;
	sc.max_connections = ADMIN_CONNECTIONS;
	sc.max_body = ADMIN_BODY_MAX;
	sc.io = rt->cfg.io_threads ? HTTP_IO_THREADS : HTTP_IO_EVENTS;
	sc.threads = rt->cfg.io_threads ? ADMIN_CONNECTIONS : 1;
	sc.batch_threads = false;
	sc.log = rt->cfg.log;
	sc.ctx = rt;
	sc.on_request = handler;
	err = http_server_start(out, &sc, &inner);
	return err ? pd_fail(msg, err, "%.*s port: %.400s; choose another with --%s, -1 for none",
			     (int)strcspn(flag, "-"), flag, inner.text, flag)
		   : PD_OK;
}

static int start_admin(struct router *rt, struct pd_msg *msg)
{
	struct key_table table = {0};
	int err = PD_OK;

	rt->admin = (struct admin){.cfg = &rt->cfg,
				   .fleet = &rt->fleet,
				   .changes = rt->changes,
				   .asks = rt->asks,
				   .page = rt->page,
				   .keyed = rt->auth.on,
				   .models = models,
				   .generate = generate,
				   .metrics = metrics_page,
				   .ctx = rt};
	if (rt->cfg.admin_keys_file) {
		err = key_table_read(&table, rt->cfg.admin_keys_file, msg);
		if (err)
			return err;
		keys_swap(&rt->admin_keys, &table);
		rt->admin.keys = &rt->admin_keys;
	}
	if (rt->cfg.metrics_port >= 0)
		err = listen_beside(rt, &rt->admin_server, rt->cfg.metrics_host,
				    rt->cfg.metrics_port, "admin-port", admin_request, msg);
	if (!err && rt->cfg.scrape_port >= 0)
		err = listen_beside(rt, &rt->scrape_server, rt->cfg.scrape_host,
				    rt->cfg.scrape_port, "metrics-port", scrape_request, msg);
	return err;
}

static int start_server(struct router *rt, struct pd_msg *msg)
{
	const struct router_config *c = &rt->cfg;
	struct http_server_config sc;
	struct http_server *server;
	int err;

	http_server_config_default(&sc);
	sc.host = c->host;
	sc.port = c->port;
	sc.listen_fd = c->listen_fd;
	sc.max_connections = c->max_connections;
	sc.max_per_address = c->max_per_address;
	sc.max_body = c->max_body;
	sc.head_timeout_ns = c->head_timeout;
	sc.idle_timeout_ns = c->client_idle_timeout;
	sc.write_stall_ns = c->write_stall_timeout;
	sc.io = c->io_threads ? HTTP_IO_THREADS : HTTP_IO_EVENTS;
	sc.threads = c->threads;
	sc.batch_threads = c->batch_threads;
	sc.half_close_ok = c->half_close_ok;
	sc.tls = c->tls;
	sc.log = c->log;
	sc.ctx = rt;
	sc.on_head = on_head;
	sc.on_request = on_request;
	sc.on_abandon = on_abandon;
	sc.on_refuse = on_refuse;
	sc.own_lines = own_lines;
	err = http_server_start(&server, &sc, msg);
	if (err)
		return err;
	atomic_store(&rt->server, server);
	atomic_store(&rt->admin.listening, true);
	return PD_OK;
}

static void captured_fleet(void *ctx, struct fleet *f)
{
	capture_fleet(ctx, f);
}

static int init_parts(struct router *rt, struct pd_msg *msg)
{
	if (fleet_holder_init(&rt->fleet) || pthread_mutex_init(&rt->reloading, NULL) != 0)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	rt->fleet.on_change = captured_fleet;
	rt->fleet.ctx = rt->capture;
	return PD_OK;
}

static int reload(void *ctx, struct pd_msg *msg)
{
	return router_reload(ctx, msg);
}

static int start_changes(struct router *rt, struct pd_msg *msg)
{
	const struct changes_config c = {.fleet = &rt->fleet,
					 .router = &rt->cfg,
					 .health = rt->health,
					 .reload = reload,
					 .ctx = rt};

	return changes_start(&rt->changes, &c, msg);
}

static int start_sources(struct router *rt, struct pd_msg *msg)
{
	struct sources *s;
	int err = sources_start(&s, &rt->cfg, &rt->fleet, rt->changes, rt->health, msg);

	atomic_store(&rt->sources, s);
	return err;
}

static int start_auth(struct router *rt, struct pd_msg *msg)
{
	const struct router_config *c = &rt->cfg;
	const struct auth_config ac = {.keys_file = c->client_keys_file,
				       .ask = {.urls = c->key_urls,
					       .nurls = c->key_urls_n,
					       .timeout = c->key_timeout,
					       .valid_ttl = c->key_valid_ttl,
					       .invalid_ttl = c->key_invalid_ttl,
					       .cache = c->key_cache,
					       .log = c->log}};

	return auth_start(&rt->auth, &ac, msg);
}

/* Who observes requests besides the log. */
static int start_watch(struct router *rt, struct pd_msg *msg)
{
	const struct page_config pc = {
		&rt->cfg, &rt->fleet, &rt->metrics, rt->cfg.admin_keys_file != NULL, look, rt};
	const struct spans_config sc = {rt->cfg.otlp_url, rt->cfg.otlp_ratio, rt->cfg.version,
					rt->cfg.log};

	if (page_new(&rt->page, &pc))
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	if (sc.url && spans_start(&rt->spans, &sc, msg))
		return PD_ENOMEM;
	rt->way.watch = (struct watch){&rt->cfg, &rt->metrics, rt->capture, rt->page, rt->spans};
	return PD_OK;
}

/* Certificates of ours that have expired, or will within a week. */
static void warn_of_dates(const struct router *rt)
{
	struct tls_context *const both[] = {rt->cfg.tls, rt->cfg.worker_tls};
	struct pd_msg msg = {0};

	for (size_t i = 0; i < 2; i++)
		if (both[i] && tls_context_expiry(both[i], clock_wall(), EXPIRY_WARN_NS, &msg))
			log_event(rt->cfg.log, LOG_WARN, "certificate_ends",
				  LOG_FIELDS(LOG_TEXT("certificate", msg.text)), "%s", msg.text);
}

int router_start(struct router **out, const struct router_config *cfg, struct capture *capture,
		 struct pd_msg *msg)
{
	struct router *rt = aligned_alloc(64, (sizeof(*rt) + 63) / 64 * 64);
	int err;

	*out = NULL;
	if (!rt) {
		capture_free(capture);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	memset(rt, 0, sizeof(*rt));
	rt->cfg = *cfg;
	rt->started_wall = clock_wall();
	/* OpenSSL sets itself up when the first probe needs it. */
	(void)curl_global_init(CURL_GLOBAL_NOTHING);
	rt->capture = capture;
	err = init_parts(rt, msg);
	if (err)
		goto out;
	err = capture ? capture_start(capture, &rt->cfg, msg) : PD_OK;
	if (err)
		goto out;
	err = fleet_load(&rt->fleet, &rt->cfg, &rt->cfg.fleet, msg);
	if (err)
		goto out;
	err = health_start(&rt->health, &rt->fleet, &rt->cfg, msg);
	err = err ? err : scrape_start(&rt->scrape, &rt->fleet, &rt->cfg, msg);
	err = err ? err : kvfollow_start(&rt->events, &rt->fleet, &rt->cfg, msg);
	if (err)
		goto out;
	err = start_changes(rt, msg);
	if (err)
		goto out;
	err = asks_start(&rt->asks, &rt->cfg, msg);
	err = err ? err : catalog_start(&rt->catalog, &rt->fleet, rt->asks, &rt->cfg, msg);
	if (err)
		goto out;
	err = start_auth(rt, msg);
	if (err)
		goto out;
	err = cors_init(&rt->cors, cfg->cors_origins, cfg->cors_origins_n);
	if (err) {
		(void)pd_fail(msg, err, "out of memory");
		goto out;
	}
	rt->way.cfg = &rt->cfg;
	rt->way.fleet = &rt->fleet;
	rt->way.health = rt->health;
	rt->way.catalog = rt->catalog;
	rt->way.events = rt->events;
	err = start_watch(rt, msg);
	if (err)
		goto out;
	err = way_init(&rt->way, rt->auth.on);
	if (err) {
		(void)pd_fail(msg, err, "out of memory");
		goto out;
	}
	err = start_admin(rt, msg);
	if (err)
		goto out;
	err = start_server(rt, msg);
	if (err)
		goto out;
	err = pulse_start(&rt->pulse, &(struct pulse_config){cfg->log, pulse_look, rt});
	if (err) {
		(void)pd_fail(msg, err, "cannot start the pulse thread");
		goto out;
	}
	err = start_sources(rt, msg);
	if (err)
		goto out;
	warn_of_dates(rt);
	if (cfg->worker_tls_insecure)
		log_event(cfg->log, LOG_WARN, "flag_unsafe",
			  LOG_FIELDS(LOG_TEXT("flag", "--worker-tls-insecure")),
			  "--worker-tls-insecure: the certificates of workers are not verified: an "
			  "attacker on the path can read and change the traffic");
	*out = rt;
	return PD_OK;
out:
	(void)router_free(rt);
	return err;
}

uint16_t router_port(const struct router *rt)
{
	return http_server_port(rt->server);
}

uint16_t router_metrics_port(const struct router *rt)
{
	return rt->admin_server ? http_server_port(rt->admin_server) : 0;
}

uint16_t router_scrape_port(const struct router *rt)
{
	return rt->scrape_server ? http_server_port(rt->scrape_server) : 0;
}

/* What a reload has read and not put to use yet. */
struct reloaded {
	struct key_table keys, admin_keys;
	struct tls_set *tls[2];
};

static bool has_certificates(const struct router *rt)
{
	return rt->cfg.tls || tls_context_has_files(rt->cfg.worker_tls);
}

static int read_certificates(const struct router *rt, struct reloaded *r, struct pd_msg *msg)
{
	int err = PD_OK;

	if (rt->cfg.tls)
		err = tls_context_read(rt->cfg.tls, &r->tls[0], msg);
	if (!err && tls_context_has_files(rt->cfg.worker_tls))
		err = tls_context_read(rt->cfg.worker_tls, &r->tls[1], msg);
	return err;
}

static int reload_fleet(struct router *rt, struct pd_msg *msg)
{
	struct fleet_config fc;
	int err = fleet_config_read(rt->cfg.workers_file, &rt->cfg, &fc, msg);

	if (err)
		return err;
	err = fleet_load(&rt->fleet, &rt->cfg, &fc, msg);
	worker_list_release(&fc.workers);
	return err;
}

/* All files are read before anything is changed. */
static int reload_files(struct router *rt, struct pd_msg *msg)
{
	struct reloaded r = {0};
	int err = read_certificates(rt, &r, msg);

	if (!err && rt->cfg.client_keys_file)
		err = key_table_read(&r.keys, rt->cfg.client_keys_file, msg);
	if (!err && rt->cfg.admin_keys_file)
		err = key_table_read(&r.admin_keys, rt->cfg.admin_keys_file, msg);
	if (!err && rt->cfg.workers_file)
		err = reload_fleet(rt, msg);
	if (!err && rt->cfg.admin_keys_file)
		keys_swap(&rt->admin_keys, &r.admin_keys);
	if (!err && rt->cfg.client_keys_file) {
		rt->keys_before = keys_count(&rt->auth.keys);
		rt->keys_now = r.keys.n;
		keys_swap(&rt->auth.keys, &r.keys);
	}
	if (!err && r.tls[0])
		tls_context_use(rt->cfg.tls, r.tls[0]);
	else
		tls_set_free(r.tls[0]);
	if (!err && r.tls[1])
		tls_context_use(rt->cfg.worker_tls, r.tls[1]);
	else
		tls_set_free(r.tls[1]);
	key_table_release(&r.keys);
	key_table_release(&r.admin_keys);
	return err;
}

/* What it changed; the lines of workers and policies stand before. */
static void say_reloaded(const struct router *rt, bool changed)
{
	char workers[80] = "", keys[60] = "";

	if (rt->cfg.workers_file && changed)
		(void)snprintf(workers, sizeof(workers), ": %llu workers added, %llu removed",
			       (unsigned long long)atomic_load(&rt->fleet.added),
			       (unsigned long long)atomic_load(&rt->fleet.removed));
	else if (rt->cfg.workers_file)
		(void)snprintf(workers, sizeof(workers), ": the same workers");
	if (rt->cfg.client_keys_file)
		(void)snprintf(keys, sizeof(keys), "; client keys: %zu, before: %zu", rt->keys_now,
			       rt->keys_before);
	log_event(
		rt->cfg.log, LOG_INFO, "reloaded",
		LOG_FIELDS(LOG_NUMBER("workers_added", changed ? atomic_load(&rt->fleet.added) : 0),
			   LOG_NUMBER("workers_removed",
				      changed ? atomic_load(&rt->fleet.removed) : 0),
			   LOG_NUMBER("client_keys", rt->keys_now),
			   LOG_NUMBER("client_keys_before", rt->keys_before),
			   LOG_NUMBER("certificates", has_certificates(rt))),
		"reloaded%s%s%s", workers, keys, has_certificates(rt) ? "; certificates" : "");
}

int router_reload(struct router *rt, struct pd_msg *msg)
{
	uint64_t updates;
	int err;

	if (!rt->cfg.workers_file && !rt->cfg.client_keys_file && !rt->cfg.admin_keys_file &&
	    !has_certificates(rt))
		return pd_fail(
			msg, PD_EINVAL,
			"nothing to reload: found no --workers-file, no --client-api-keys, no "
			"--admin-api-key-file and no certificate");
	(void)pthread_mutex_lock(&rt->reloading);
	updates = atomic_load(&rt->fleet.updates);
	err = reload_files(rt, msg);
	(void)pthread_mutex_unlock(&rt->reloading);
	atomic_fetch_add(err ? &rt->reload_failures : &rt->reloads, 1);
	if (err)
		log_event(rt->cfg.log, LOG_ERROR, "reload_failed",
			  LOG_FIELDS(LOG_TEXT("error", msg->text)),
			  "reload failed, nothing was changed: %s", msg->text);
	else
		say_reloaded(rt, updates != atomic_load(&rt->fleet.updates));
	if (!err)
		warn_of_dates(rt);
	health_nudge(rt->health);
	return err;
}

bool router_reload_begin(struct router *rt, void (*done)(void))
{
	return changes_reload(rt->changes, done);
}

void router_drain(struct router *rt)
{
	int64_t until, now;

	if (atomic_exchange(&rt->admin.draining, true))
		return;
	until = clock_now() + rt->cfg.drain_delay;
	while (!atomic_load(&rt->hurry) && (now = clock_now()) < until)
		clock_sleep_until(now + HURRY_STEP < until ? now + HURRY_STEP : until);
	http_server_drain(rt->server);
}

unsigned router_hurry(struct router *rt)
{
	atomic_store(&rt->hurry, true);
	return router_wait(rt, clock_now());
}

unsigned router_wait(struct router *rt, int64_t deadline)
{
	return http_server_wait(rt->server, deadline);
}

bool router_free(struct router *rt)
{
	if (!rt)
		return true;
	pulse_stop(rt->pulse);
	page_stop(rt->page);
	/* The admin port answers to the end of a drain; it reads everything else, so it goes first.
	 */
	if (!http_server_stop(rt->scrape_server) || !http_server_stop(rt->admin_server) ||
	    !http_server_stop(rt->server)) {
		log_event(rt->cfg.log, LOG_ERROR, "memory_kept",
			  LOG_FIELDS(LOG_TEXT("of", "request")),
			  "a request did not end: its memory is not freed");
		capture_stop(rt->capture);
		return false;
	}
	sources_stop(rt->sources);
	if (!changes_stop(rt->changes)) {
		log_event(rt->cfg.log, LOG_WARN, "memory_kept",
			  LOG_FIELDS(LOG_TEXT("of", "change")),
			  "a name look-up or a file read did not end: its memory is not freed");
		capture_stop(rt->capture);
		return false;
	}
	catalog_stop(rt->catalog);
	asks_stop(rt->asks);
	kvfollow_stop(rt->events);
	scrape_stop(rt->scrape);
	health_stop(rt->health);
	capture_free(rt->capture);
	fleet_holder_release(&rt->fleet); /* with connections of the servers' threads */
	(void)http_server_free(rt->scrape_server);
	(void)http_server_free(rt->admin_server);
	(void)http_server_free(rt->server);
	way_release(&rt->way);
	cors_release(&rt->cors);
	auth_release(&rt->auth);
	keys_release(&rt->admin_keys);
	page_free(rt->page);
	spans_stop(rt->spans);
	(void)pthread_mutex_destroy(&rt->reloading);
	curl_global_cleanup();
	free(rt);
	return true;
}
