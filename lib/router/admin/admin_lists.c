/* What the router says about its workers: lists and loads. */
#include "lib/router/admin/admin_lists.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/router/fleet/veil.h"

/* What the answer calls the worker at place i of its pool. */
static const char *called(const struct admin_call *a, const struct worker *w, size_t i,
			  char out[VEIL_NAME])
{
	return a->veiled ? veil_name(w, i, out) : w->url;
}

static int put_urls(const struct admin_call *a, struct fleet *f, struct buf *b)
{
	char name[VEIL_NAME];
	int err = buf_puts(b, "{\"urls\":[");
	bool first = true;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			err = buf_puts(b, first ? "" : ",");
			err = err ? err
				  : admin_put_text(b, called(a, f->pool[r].worker[i], i, name));
		}
	}
	return err ? err : buf_puts(b, "]}");
}

/* The router's own counts: requests in flight per worker. */
static int put_loads(const struct admin_call *a, struct fleet *f, struct buf *b)
{
	bool pd = a->admin->cfg->pd;
	int err = buf_puts(b, pd ? "{\"loads\":{" : "{\"workers\":[");
	char name[700], veiled[VEIL_NAME];
	bool first = true;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			struct worker *w = f->pool[r].worker[i];
			unsigned n = atomic_load(&w->slot.in_flight);
			const char *is = called(a, w, i, veiled);

			err = buf_puts(b, first ? "" : ",");
			if (pd) {
				(void)snprintf(name, sizeof(name), "%s_%s",
					       worker_role_name((enum worker_role)r), is);
				err = err ? err : admin_put_text(b, name);
				err = err ? err : buf_printf(b, ":%u", n);
			} else {
				err = err ? err : buf_puts(b, "{\"worker\":");
				err = err ? err : admin_put_text(b, is);
				err = err ? err : buf_printf(b, ",\"load\":%u}", n);
			}
		}
	}
	return err ? err : buf_puts(b, pd ? "},\"errors\":[]}" : "]}");
}

/* What vllm-router shows of a worker, with its constants outside its multi-router mode. */
static int put_compatible(struct worker *w, struct buf *b)
{
	int err = buf_printf(b,
			     ",\"model_id\":\"unknown\",\"worker_type\":\"%s\",\"is_healthy\":%s,"
			     "\"load\":%u,\"connection_mode\":\"Http\",\"priority\":50,"
			     "\"cost\":1.0",
			     worker_role_name(w->role),
			     atomic_load(&w->slot.available) ? "true" : "false",
			     (unsigned)atomic_load(&w->slot.in_flight));

	if (err || w->role != ROLE_PREFILL)
		return err;
	return w->bootstrap ? buf_printf(b, ",\"bootstrap_port\":%d", w->bootstrap)
			    : buf_puts(b, ",\"bootstrap_port\":null");
}

/* A wall clock time as RFC 3339 has it, or null. */
static int put_time(struct buf *b, const char *name, int64_t ns)
{
	time_t s = (time_t)(ns / NS_PER_S);
	char text[40];
	struct tm tm;

	if (ns == 0 || !gmtime_r(&s, &tm) ||
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return buf_printf(b, ",\"%s\":null", name);
	return buf_printf(b, ",\"%s\":\"%s\"", name, text);
}

static int put_seconds(struct buf *b, const char *name, int64_t ns)
{
	return ns < 0 ? buf_printf(b, ",\"%s\":null", name)
		      : buf_printf(b, ",\"%s\":%.1f", name, (double)ns / 1e9);
}

static int put_text_or_null(struct buf *b, const char *name, const char *text)
{
	int err = buf_printf(b, ",\"%s\":", name);

	return err ? err : text[0] ? admin_put_text(b, text) : buf_puts(b, "null");
}

/* Where it is, why it is out, since when, what failed last, when it is tried again. */
static int put_condition(const struct admin_call *a, const struct fleet *f, struct worker *w,
			 struct buf *b)
{
	char said[VEIL_MAX];
	struct worker_view v;
	int err;

	worker_view(w, a->admin->cfg, &v);
	err = put_text_or_null(b, "address", a->veiled ? "" : v.address);
	err = err ? err : put_seconds(b, "oldest_silent_s", v.oldest > 0 ? v.oldest : -1);
	err = err ? err : put_text_or_null(b, "out_because", veil(f, !a->veiled, v.why, said));
	err = err ? err : put_time(b, "out_since", v.out_at);
	err = err ? err : put_seconds(b, "next_try_s", v.next);
	err = err ? err : put_text_or_null(b, "last_failure", veil(f, !a->veiled, v.failure, said));
	return err ? err : put_time(b, "last_failure_at", v.failed_at);
}

static int put_labels(const struct route_labels *l, struct buf *b)
{
	int err = buf_puts(b, ",\"labels\":{");

	for (size_t i = 0; !err && l && i < l->n; i++) {
		err = i ? buf_putc(b, ',') : PD_OK;
		err = err ? err : admin_put_text(b, l->label[i].name.p);
		err = err ? err : buf_putc(b, ':');
		err = err ? err : admin_put_text(b, l->label[i].value.p);
	}
	return err ? err : buf_putc(b, '}');
}

/* Its place in its pool. */
static size_t place_of(const struct fleet *f, const struct worker *w)
{
	size_t i = 0;

	while (i < f->pool[w->role].n && f->pool[w->role].worker[i] != w)
		i++;
	return i;
}

int admin_put_worker(const struct admin_call *a, const struct fleet *f, struct worker *w,
		     struct buf *b)
{
	char name[VEIL_NAME];
	int err = buf_puts(b, "{\"name\":");

	err = err ? err
		  : admin_put_text(b, a->veiled ? veil_name(w, place_of(f, w), name) : w->name);
	err = err ? err : buf_puts(b, ",\"url\":");
	err = err ? err : a->veiled ? buf_puts(b, "null") : admin_put_text(b, w->url);
	err = err ? err : put_compatible(w, b);
	if (!err)
		err = buf_printf(
			b,
			",\"state\":\"%s\",\"source\":\"%s\",\"handovers\":%u,"
			"\"requests\":%llu,\"errors\":%llu,\"answered_503\":%llu,"
			"\"answered_429\":%llu,\"connect_failures\":%llu,\"connections\":%llu,"
			"\"idle_connections\":%zu,\"ejections\":%llu",
			worker_state_name(worker_state(w)),
			worker_source_name((enum worker_source)atomic_load(&w->source)),
			(unsigned)atomic_load(&w->handovers),
			(unsigned long long)atomic_load(&w->requests),
			(unsigned long long)atomic_load(&w->errors),
			(unsigned long long)atomic_load(&w->refusals[WORKER_REFUSED_503]),
			(unsigned long long)atomic_load(&w->refusals[WORKER_REFUSED_429]),
			(unsigned long long)atomic_load(&w->pool.connect_failures),
			(unsigned long long)atomic_load(&w->pool.connects),
			http_pool_idle(&w->pool), (unsigned long long)atomic_load(&w->ejections));
	err = err ? err : put_labels(fleet_labels(f, w), b);
	err = err ? err : put_condition(a, f, w, b);
	return err ? err : buf_putc(b, '}');
}

int admin_put_pools(struct fleet_holder *h, bool pd, struct buf *b)
{
	int err =
		pd ? buf_printf(b, ",\"degraded\":%s",
				atomic_load(&h->rotation[ROLE_PREFILL].degraded) ? "true" : "false")
		   : PD_OK;
	bool first = true;

	err = err ? err : buf_puts(b, ",\"panic\":[");
	for (int r = 0; !err && r < ROLES; r++) {
		if (!atomic_load(&h->rotation[r].panic))
			continue;
		err = buf_printf(b, "%s\"%s\"", first ? "" : ",",
				 worker_role_name((enum worker_role)r));
		first = false;
	}
	return err ? err : buf_putc(b, ']');
}

static int put_workers(const struct admin_call *a, struct fleet *f, struct buf *b)
{
	struct admin *ad = a->admin;
	int err = buf_puts(b, "{\"workers\":[");
	size_t total = 0;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			err = buf_puts(b, total++ ? "," : "");
			err = err ? err : admin_put_worker(a, f, f->pool[r].worker[i], b);
		}
	}
	err = err ? err : buf_putc(b, ']');
	err = err ? err : admin_put_pools(ad->fleet, ad->cfg->pd, b);
	return err ? err
		   : buf_printf(b,
				",\"total\":%zu,\"version\":%llu,\"stats\":{\"prefill_count\":%zu,"
				"\"decode_count\":%zu,"
				"\"regular_count\":%zu}}",
				total, (unsigned long long)f->version, f->pool[ROLE_PREFILL].n,
				f->pool[ROLE_DECODE].n, f->pool[ROLE_REGULAR].n);
}

void admin_list_workers(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf b;

	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_urls(a, f, &b));
	buf_release(&b);
	fleet_put(f);
}

void admin_get_loads(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf b;

	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_loads(a, f, &b));
	buf_release(&b);
	fleet_put(f);
}

void admin_workers_list(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf b;

	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_workers(a, f, &b));
	buf_release(&b);
	fleet_put(f);
}
