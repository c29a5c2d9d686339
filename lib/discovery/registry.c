/*
 * The table in memory is what answers; the database follows each change before it is answered, and
 * heartbeats once per clean-up. One lock for both, held for no longer than a write of one row.
 */
#include "lib/discovery/registry.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/discovery/registry_ask.h"
#include "lib/discovery/registry_file.h"
#include "lib/discovery/registry_table.h"
#include "lib/discovery/source_thread.h"

struct registry {
	struct registry_config cfg;
	struct registry_file *file; /* NULL: memory only */
	int64_t started;
	struct source_thread thread;
	pthread_mutex_t lock; /* of the table and the file */
	struct registry_table table;
};

void registry_config_default(struct registry_config *c)
{
	*c = (struct registry_config){.healthy_s = 120,
				      .removal_s = 300,
				      .health_interval_s = 30,
				      .health_timeout_s = 5,
				      .cleanup_s = 60};
}

static double wall(void)
{
	return (double)clock_wall() / 1e9;
}

/* -- the table, with the lock -- */

static struct registry_service *find(struct registry *r, struct span name)
{
	for (size_t i = 0; i < r->table.n; i++)
		if (span_eq(name, span_of(r->table.service[i]->name)))
			return r->table.service[i];
	return NULL;
}

static void remove_service(struct registry *r, struct registry_service *s)
{
	for (size_t i = 0; i < r->table.n; i++)
		if (r->table.service[i] == s)
			r->table.service[i] = r->table.service[--r->table.n];
	registry_service_free(s);
}

static bool is_healthy(const struct registry *r, const struct registry_service *s)
{
	return strcmp(s->status, "running") == 0 && wall() - s->last_heartbeat < r->cfg.healthy_s;
}

/* -- answers -- */

static void reply(struct http_conn *c, int status, cJSON *o)
{
	char *text = o ? cJSON_PrintUnformatted(o) : NULL;

	if (text)
		(void)http_reply(c, status, "application/json", NULL, text, strlen(text));
	else
		(void)http_reply_error(c, 500, "server_error", NULL, "out of memory");
	cJSON_free(text);
	cJSON_Delete(o);
}

/* The time, for people; RFC 3339. */
static void add_time(cJSON *o)
{
	char text[40];

	clock_rfc3339(clock_wall(), text, sizeof(text));
	(void)cJSON_AddStringToObject(o, "timestamp", text);
}

static const char *const health_names[] = {"unknown", "healthy", "unhealthy"};

static cJSON *json_of(const struct registry *r, const struct registry_service *s)
{
	cJSON *o = cJSON_CreateObject();
	cJSON *metadata = cJSON_Parse(s->metadata);

	(void)cJSON_AddStringToObject(o, "name", s->name);
	(void)cJSON_AddStringToObject(o, "host", s->host);
	(void)cJSON_AddNumberToObject(o, "port", s->port);
	(void)cJSON_AddStringToObject(o, "hostname", s->hostname);
	(void)cJSON_AddStringToObject(o, "url", s->url);
	(void)cJSON_AddStringToObject(o, "status", s->status);
	(void)cJSON_AddNumberToObject(o, "timestamp", s->registered);
	(void)cJSON_AddNumberToObject(o, "last_heartbeat", s->last_heartbeat);
	(void)cJSON_AddStringToObject(o, "health_status", health_names[s->health]);
	(void)cJSON_AddBoolToObject(o, "is_healthy", is_healthy(r, s));
	(void)cJSON_AddItemToObject(o, "metadata", metadata ? metadata : cJSON_CreateObject());
	return o;
}

static void answer_health(struct registry *r, struct http_conn *c)
{
	cJSON *o = cJSON_CreateObject();
	size_t healthy = 0, n;

	(void)pthread_mutex_lock(&r->lock);
	n = r->table.n;
	for (size_t i = 0; i < n; i++)
		healthy += is_healthy(r, r->table.service[i]);
	(void)pthread_mutex_unlock(&r->lock);
	(void)cJSON_AddStringToObject(o, "status", "healthy");
	(void)cJSON_AddStringToObject(o, "registry", "running");
	(void)cJSON_AddNumberToObject(o, "registered_services", (double)n);
	(void)cJSON_AddNumberToObject(o, "healthy_services", (double)healthy);
	add_time(o);
	reply(c, 200, o);
}

static void count_word(cJSON *o, const char *word)
{
	cJSON *was = cJSON_GetObjectItemCaseSensitive(o, word);

	if (was)
		cJSON_SetNumberValue(was, was->valuedouble + 1);
	else
		(void)cJSON_AddNumberToObject(o, word, 1);
}

static void answer_stats(struct registry *r, struct http_conn *c)
{
	cJSON *o = cJSON_CreateObject(), *status, *host;
	size_t healthy = 0;

	(void)pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->table.n; i++)
		healthy += is_healthy(r, r->table.service[i]);
	(void)cJSON_AddNumberToObject(o, "total_services", (double)r->table.n);
	(void)cJSON_AddNumberToObject(o, "healthy_services", (double)healthy);
	(void)cJSON_AddNumberToObject(o, "unhealthy_services", (double)(r->table.n - healthy));
	status = cJSON_AddObjectToObject(o, "status_distribution");
	host = cJSON_AddObjectToObject(o, "host_distribution");
	for (size_t i = 0; i < r->table.n; i++) {
		count_word(status, r->table.service[i]->status);
		count_word(host, r->table.service[i]->host);
	}
	(void)pthread_mutex_unlock(&r->lock);
	(void)cJSON_AddNumberToObject(o, "uptime", (double)(clock_now() - r->started) / 1e9);
	add_time(o);
	reply(c, 200, o);
}

/* The value of "name=value" in the query; an empty span: it is not there. */
static struct span query(const struct http_request *rq, struct span name)
{
	const char *p = rq->head.path.p + rq->head.path.n;
	const char *end = rq->head.target.p + rq->head.target.n;

	while (p < end) {
		const char *next = memchr(p + 1, '&', (size_t)(end - p - 1));
		const char *stop = next ? next : end;
		size_t n = (size_t)(stop - p) - 1;

		if (n > name.n && memcmp(p + 1, name.p, name.n) == 0 && p[1 + name.n] == '=')
			return (struct span){p + name.n + 2, n - name.n - 1};
		p = stop;
	}
	return (struct span){0};
}

static void answer_list(struct registry *r, struct http_conn *c, const struct http_request *rq)
{
	struct span status = query(rq, SPAN("status")), healthy = query(rq, SPAN("healthy"));
	cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "services");

	(void)pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->table.n; i++) {
		const struct registry_service *s = r->table.service[i];

		if ((status.n > 0 && !span_eq(status, span_of(s->status))) ||
		    (healthy.n > 0 && is_healthy(r, s) != span_eq(healthy, SPAN("true"))))
			continue;
		(void)cJSON_AddItemToArray(list, json_of(r, s));
	}
	(void)pthread_mutex_unlock(&r->lock);
	(void)cJSON_AddNumberToObject(o, "total", cJSON_GetArraySize(list));
	add_time(o);
	reply(c, 200, o);
}

/* -- changes -- */

static int keep(struct registry *r, const struct registry_service *s, struct pd_msg *msg)
{
	return r->file ? registry_file_write(r->file, s, msg) : PD_OK;
}

static void refuse(struct http_conn *c, int err, const struct pd_msg *msg)
{
	(void)http_reply_error(c,
			       err == PD_EINVAL	 ? 400
			       : err == PD_EBUSY ? 503
						 : 500,
			       err == PD_EINVAL ? "invalid_request_error" : "server_error", NULL,
			       "%s", msg->text);
}

/* An entry as the body says, over what the old one (may be NULL) had. The table takes it. */
static int put(struct registry *r, struct registry_service *s, struct pd_msg *msg)
{
	struct registry_service *old = find(r, span_of(s->name));
	int err;

	if (!old && r->table.n == REGISTRY_SERVICES_MAX)
		return pd_fail(msg, PD_EBUSY, "%d services are registered, no more are taken",
			       REGISTRY_SERVICES_MAX);
	err = keep(r, s, msg);
	if (err)
		return err;
	if (old)
		remove_service(r, old);
	r->table.service[r->table.n++] = s;
	return PD_OK;
}

static void answer_register(struct registry *r, struct http_conn *c, const struct http_request *rq)
{
	struct registry_service *s = NULL;
	struct pd_msg msg = {0};
	char text[REGISTRY_NAME_MAX + 60];
	cJSON *o;
	int err = registry_service_read(&s, rq->body, NULL, &msg);

	if (!err) {
		s->registered = s->last_heartbeat = wall();
		(void)pthread_mutex_lock(&r->lock);
		err = put(r, s, &msg);
		o = err ? NULL : cJSON_CreateObject();
		if (o)
			(void)cJSON_AddItemToObject(o, "service", json_of(r, s));
		(void)snprintf(text, sizeof(text), "Service '%s' registered successfully", s->name);
		(void)pthread_mutex_unlock(&r->lock);
		if (err)
			registry_service_free(s);
	}
	if (err) {
		refuse(c, err, &msg);
		return;
	}
	(void)cJSON_AddStringToObject(o, "message", text);
	reply(c, 201, o);
}

static void not_found(struct http_conn *c)
{
	(void)http_reply(c, 404, NULL, NULL, NULL, 0);
}

static void answer_update(struct registry *r, struct http_conn *c, const struct http_request *rq,
			  struct span name)
{
	struct registry_service *s = NULL, *old;
	struct pd_msg msg = {0};
	cJSON *o = NULL;
	int err = PD_OK;

	(void)pthread_mutex_lock(&r->lock);
	old = find(r, name);
	if (old)
		err = registry_service_read(&s, rq->body, old, &msg);
	if (s) {
		s->last_heartbeat = wall();
		err = put(r, s, &msg);
		o = err ? NULL : json_of(r, s);
		if (err)
			registry_service_free(s);
	}
	(void)pthread_mutex_unlock(&r->lock);
	if (!old)
		not_found(c);
	else if (err)
		refuse(c, err, &msg);
	else
		reply(c, 200, o);
}

static void answer_remove(struct registry *r, struct http_conn *c, struct span name)
{
	struct registry_service *s;
	struct pd_msg msg = {0};
	char text[REGISTRY_NAME_MAX + 60];
	cJSON *o;
	int err = PD_OK;

	(void)pthread_mutex_lock(&r->lock);
	s = find(r, name);
	if (s) {
		err = r->file ? registry_file_remove(r->file, s->name, &msg) : PD_OK;
		(void)snprintf(text, sizeof(text), "Service '%s' unregistered successfully",
			       s->name);
		if (!err)
			remove_service(r, s);
	}
	(void)pthread_mutex_unlock(&r->lock);
	if (!s) {
		not_found(c);
		return;
	}
	if (err) {
		refuse(c, err, &msg);
		return;
	}
	o = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(o, "message", text);
	add_time(o);
	reply(c, 200, o);
}

static void answer_heartbeat(struct registry *r, struct http_conn *c, const struct http_request *rq,
			     struct span name)
{
	cJSON *body = rq->body.n > 0 ? cJSON_ParseWithLength(rq->body.p, rq->body.n) : NULL;
	const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "status"));
	struct registry_service *s;
	cJSON *o;

	(void)pthread_mutex_lock(&r->lock);
	s = find(r, name);
	if (s) {
		s->last_heartbeat = wall();
		if (status && *status)
			(void)snprintf(s->status, sizeof(s->status), "%s", status);
	}
	(void)pthread_mutex_unlock(&r->lock);
	cJSON_Delete(body);
	if (!s) {
		not_found(c);
		return;
	}
	o = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(o, "message", "Heartbeat received");
	add_time(o);
	reply(c, 200, o);
}

static void answer_one(struct registry *r, struct http_conn *c, struct span name)
{
	struct registry_service *s;
	cJSON *o;

	(void)pthread_mutex_lock(&r->lock);
	s = find(r, name);
	o = s ? json_of(r, s) : NULL;
	(void)pthread_mutex_unlock(&r->lock);
	if (s)
		reply(c, 200, o);
	else
		not_found(c);
}

/* Asks the service now, without the lock. */
static void answer_probe(struct registry *r, struct http_conn *c, struct span name)
{
	struct registry_probe p = {0};
	struct registry_service *s;
	double heartbeat = 0;
	bool healthy = false;
	cJSON *o;

	(void)pthread_mutex_lock(&r->lock);
	s = find(r, name);
	if (s)
		registry_probe_of(&p, s);
	(void)pthread_mutex_unlock(&r->lock);
	if (!s) {
		not_found(c);
		return;
	}
	registry_ask(&p, 1, r->cfg.health_timeout_s);
	(void)pthread_mutex_lock(&r->lock);
	s = find(r, span_of(p.name)); /* it may have gone meanwhile */
	if (s) {
		s->health = p.good ? REGISTRY_HEALTHY : REGISTRY_UNHEALTHY;
		heartbeat = s->last_heartbeat;
		healthy = is_healthy(r, s);
	}
	(void)pthread_mutex_unlock(&r->lock);
	o = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(o, "service", p.name);
	(void)cJSON_AddStringToObject(o, "health_status",
				      health_names[p.good ? REGISTRY_HEALTHY : REGISTRY_UNHEALTHY]);
	(void)cJSON_AddBoolToObject(o, "is_healthy", healthy);
	(void)cJSON_AddNumberToObject(o, "last_heartbeat", heartbeat);
	add_time(o);
	reply(c, 200, o);
}

/* -- routes -- */

static struct span span_from(struct span s, size_t n)
{
	return (struct span){s.p + n, s.n - n};
}

/* "/services/NAME[/tail]" with percent escapes undone. False: it is none. */
static bool split_path(struct span path, char *name, size_t cap, struct span *out,
		       struct span *tail)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = 0;

	if (path.n <= 10 || memcmp(path.p, "/services/", 10) != 0)
		return false;
	for (path = span_from(path, 10); path.n > 0 && *path.p != '/' && n + 1 < cap;
	     path = span_from(path, 1)) {
		const char *a, *b;

		name[n] = *path.p;
		if (*path.p == '%' && path.n > 2 && (a = strchr(digits, path.p[1] | 0x20)) &&
		    (b = strchr(digits, path.p[2] | 0x20)) && path.p[1] && path.p[2]) {
			name[n] = (char)((a - digits) << 4 | (b - digits));
			path = span_from(path, 2);
		}
		n++;
	}
	*out = (struct span){name, n};
	*tail = path;
	return n > 0 && (path.n == 0 || *path.p == '/');
}

void registry_request(struct registry *r, struct http_conn *c, struct http_request *rq)
{
	struct span path = rq->head.path, method = rq->head.method, name = {0}, tail = {0};
	bool get = span_eq(method, SPAN("GET")), post = span_eq(method, SPAN("POST"));
	char text[3 * REGISTRY_NAME_MAX];
	bool top = span_eq(path, SPAN("/health")) || span_eq(path, SPAN("/stats")) ||
		   span_eq(path, SPAN("/services"));
	bool one = split_path(path, text, sizeof(text), &name, &tail);

	if (span_eq(path, SPAN("/health")) && get)
		answer_health(r, c);
	else if (span_eq(path, SPAN("/stats")) && get)
		answer_stats(r, c);
	else if (span_eq(path, SPAN("/services")) && get)
		answer_list(r, c, rq);
	else if (span_eq(path, SPAN("/services")) && post)
		answer_register(r, c, rq);
	else if (one && span_eq(tail, SPAN("/heartbeat")) && post)
		answer_heartbeat(r, c, rq, name);
	else if (one && span_eq(tail, SPAN("/health")) && get)
		answer_probe(r, c, name);
	else if (one && tail.n == 0 && get)
		answer_one(r, c, name);
	else if (one && tail.n == 0 && span_eq(method, SPAN("PUT")))
		answer_update(r, c, rq, name);
	else if (one && tail.n == 0 && span_eq(method, SPAN("DELETE")))
		answer_remove(r, c, name);
	else if (top || (one && (tail.n == 0 || span_eq(tail, SPAN("/heartbeat")) ||
				 span_eq(tail, SPAN("/health")))))
		(void)http_reply(c, 405, NULL, NULL, NULL, 0);
	else
		not_found(c);
}

/* -- the thread -- */

/* Old entries go, heartbeats are kept. With the lock. */
static void clean_up(struct registry *r)
{
	struct pd_msg msg = {0};
	int err = PD_OK;

	for (size_t i = r->table.n; i-- > 0;) {
		struct registry_service *s = r->table.service[i];

		if (wall() - s->last_heartbeat < r->cfg.removal_s)
			continue;
		log_event(r->cfg.log, LOG_WARN, "service_removed",
			  LOG_FIELDS(LOG_TEXT("service", s->name),
				     LOG_REAL("silent_s", wall() - s->last_heartbeat)),
			  "service %s: no heartbeat for %.0f s: removed", s->name,
			  wall() - s->last_heartbeat);
		if (r->file)
			err = registry_file_remove(r->file, s->name, &msg);
		remove_service(r, s);
	}
	if (!err && r->file)
		err = registry_file_heartbeats(r->file, &r->table, &msg);
	if (err)
		log_event(r->cfg.log, LOG_ERROR, "registry_file",
			  LOG_FIELDS(LOG_TEXT("error", msg.text)), "%s", msg.text);
}

/* Asks all services; the lock is not held meanwhile. */
static void ask_all(struct registry *r)
{
	struct registry_probe *p;
	size_t n;

	(void)pthread_mutex_lock(&r->lock);
	n = r->table.n;
	p = calloc(n + 1, sizeof(*p));
	for (size_t i = 0; p && i < n; i++)
		registry_probe_of(&p[i], r->table.service[i]);
	(void)pthread_mutex_unlock(&r->lock);
	if (!p)
		return;
	registry_ask(p, n, r->cfg.health_timeout_s);
	(void)pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++) {
		struct registry_service *s = find(r, span_of(p[i].name));

		if (s)
			s->health = p[i].good ? REGISTRY_HEALTHY : REGISTRY_UNHEALTHY;
	}
	(void)pthread_mutex_unlock(&r->lock);
	free(p);
}

static void run(void *arg)
{
	struct registry *r = arg;
	int64_t next_clean = clock_now(), next_ask = next_clean;
	int64_t clean = (int64_t)(r->cfg.cleanup_s * 1e9),
		ask = (int64_t)(r->cfg.health_interval_s * 1e9);

	do {
		int64_t now = clock_now();

		if (now >= next_clean) {
			(void)pthread_mutex_lock(&r->lock);
			clean_up(r);
			(void)pthread_mutex_unlock(&r->lock);
			next_clean = now + clean;
		}
		if (ask > 0 && now >= next_ask) {
			ask_all(r);
			next_ask = now + ask;
		}
	} while (source_thread_rest(&r->thread,
				    ask > 0 && next_ask < next_clean ? next_ask : next_clean));
}

static void release(struct registry *r)
{
	while (r->table.n > 0)
		registry_service_free(r->table.service[--r->table.n]);
	free(r->table.service);
	registry_file_close(r->file);
	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

int registry_start(struct registry **out, const struct registry_config *c, struct pd_msg *msg)
{
	struct registry *r = calloc(1, sizeof(*r));
	int err = PD_OK;

	if (!r)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	r->cfg = *c;
	r->started = clock_now();
	(void)pthread_mutex_init(&r->lock, NULL);
	r->table.service = calloc(REGISTRY_SERVICES_MAX, sizeof(struct registry_service *));
	if (!r->table.service)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err && c->file)
		err = registry_file_open(&r->file, c->file, &r->table, msg);
	if (!err && source_thread_start(&r->thread, "pdctl-registry", run, r))
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread of the registry");
	if (err) {
		release(r);
		return err;
	}
	*out = r;
	return PD_OK;
}

void registry_stop(struct registry *r)
{
	if (!r)
		return;
	source_thread_stop(&r->thread, NULL, NULL);
	clean_up(r);
	release(r);
}
