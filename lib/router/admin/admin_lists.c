/* What the router says about its workers: lists and loads. */
#include "lib/router/admin/admin_lists.h"

#include <stdio.h>

#include "lib/json/scan.h"

static int put_urls(struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, "{\"urls\":[");
	bool first = true;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			err = buf_puts(b, first ? "" : ",");
			err = err ? err : admin_put_text(b, f->pool[r].worker[i]->url);
		}
	}
	return err ? err : buf_puts(b, "]}");
}

/* The router's own counts: requests in flight per worker. */
static int put_loads(struct admin *ad, struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, ad->cfg->pd ? "{\"loads\":{" : "{\"workers\":[");
	bool first = true;
	char name[700];

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++, first = false) {
			struct worker *w = f->pool[r].worker[i];
			unsigned n = atomic_load(&w->slot.in_flight);

			err = buf_puts(b, first ? "" : ",");
			if (ad->cfg->pd) {
				(void)snprintf(name, sizeof(name), "%s_%s",
					       worker_role_name((enum worker_role)r), w->url);
				err = err ? err : admin_put_text(b, name);
				err = err ? err : buf_printf(b, ":%u", n);
			} else {
				err = err ? err : buf_puts(b, "{\"worker\":");
				err = err ? err : admin_put_text(b, w->url);
				err = err ? err : buf_printf(b, ",\"load\":%u}", n);
			}
		}
	}
	return err ? err : buf_puts(b, ad->cfg->pd ? "},\"errors\":[]}" : "]}");
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

int admin_put_worker(struct worker *w, struct buf *b)
{
	int err = buf_puts(b, "{\"name\":");
	char note[160];

	err = err ? err : admin_put_text(b, w->name);
	err = err ? err : buf_puts(b, ",\"url\":");
	err = err ? err : admin_put_text(b, w->url);
	err = err ? err : put_compatible(w, b);
	if (!err)
		err = buf_printf(b,
				 ",\"state\":\"%s\",\"source\":\"%s\",\"handovers\":%u,"
				 "\"requests\":%llu,\"errors\":%llu,\"connections\":%llu,"
				 "\"idle_connections\":%zu,\"ejections\":%llu,\"last_failure\":",
				 worker_state_name(worker_state(w)),
				 atomic_load(&w->by_hand) ? "added" : "configured",
				 (unsigned)atomic_load(&w->handovers),
				 (unsigned long long)atomic_load(&w->requests),
				 (unsigned long long)atomic_load(&w->errors),
				 (unsigned long long)atomic_load(&w->pool.connects),
				 http_pool_idle(&w->pool),
				 (unsigned long long)atomic_load(&w->ejections));
	worker_note_get(w, note, sizeof(note));
	err = err ? err : note[0] ? admin_put_text(b, note) : buf_puts(b, "null");
	return err ? err : buf_putc(b, '}');
}

static int put_workers(struct fleet *f, struct buf *b)
{
	int err = buf_puts(b, "{\"workers\":[");
	size_t total = 0;

	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; !err && i < f->pool[r].n; i++) {
			err = buf_puts(b, total++ ? "," : "");
			err = err ? err : admin_put_worker(f->pool[r].worker[i], b);
		}
	}
	return err ? err
		   : buf_printf(b,
				"],\"total\":%zu,\"version\":%llu,\"stats\":{\"prefill_count\":%zu,"
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
	admin_answer_json(a, 200, NULL, &b, put_urls(f, &b));
	buf_release(&b);
	fleet_put(f);
}

void admin_get_loads(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf b;

	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_loads(a->admin, f, &b));
	buf_release(&b);
	fleet_put(f);
}

void admin_workers_list(struct admin_call *a)
{
	struct fleet *f = fleet_get(a->admin->fleet);
	struct buf b;

	buf_init(&b, ADMIN_MAX);
	admin_answer_json(a, 200, NULL, &b, put_workers(f, &b));
	buf_release(&b);
	fleet_put(f);
}
