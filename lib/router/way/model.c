/*
 * Routing by model. What workers list is learnt beside the requests (lib/router/fleet/catalog.h);
 * a request looks at a table and, when all workers serve its model, keeps nothing of it.
 */
#include "lib/router/way/model.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/route/hash.h"
#include "lib/router/way/exchange.h"
#include "lib/router/way/heads.h"

#define REFUSAL_MAX 16384
#define IDS_SHOWN   8192 /* bytes of the known ids in a refusal */
#define NAME_SHOWN  1024 /* of the model: a longer name is left out */

/* -- aliases -- */

void model_alias_at(const struct router_config *c, size_t at, struct span *name, struct span *model)
{
	const char *text = c->model_aliases[at], *eq = strchr(text, '=');

	PD_CHECK(eq);
	*name = (struct span){text, (size_t)(eq - text)};
	*model = span_of(eq + 1);
}

/* The body with `model` in place of what it says. */
static int rewrite(struct exchange *x, const struct json_member *m, struct span model)
{
	struct span doc = x->body.doc;
	const char *end = doc.p + doc.n, *after = m->value.p + m->value.n;
	int err;

	buf_init(&x->aliased, doc.n + 6 * model.n + 16);
	err = buf_append(&x->aliased, doc.p, (size_t)(m->value.p - doc.p));
	err = err ? err : json_quote(&x->aliased, model.p, model.n);
	return err ? err : buf_append(&x->aliased, after, (size_t)(end - after));
}

void model_alias(struct exchange *x)
{
	const struct router_config *c = x->way->cfg;
	const struct json_member *m;
	struct span name, model;
	uint64_t hash;

	if (c->model_aliases_n == 0 || x->model.n == 0)
		return;
	hash = served_hash(x->model);
	for (size_t i = 0; i < c->model_aliases_n; i++) {
		model_alias_at(c, i, &name, &model);
		if (route_hash(ROUTE_HASH_XXH3, name.p, name.n) != hash)
			continue;
		m = json_object_get(&x->body, "model");
		if (rewrite(x, m, model))
			return; /* no memory: the worker will say that it does not know the alias */
		json_object_release(&x->body);
		x->rec.json = NULL;
		if (json_object_scan(&x->body, x->aliased.data, x->aliased.len, NULL))
			return;
		x->rec.json = &x->body;
		m = json_object_get(&x->body, "model");
		x->model = (struct span){m->value.p + 1, m->value.n - 2};
		x->req->body = buf_span(&x->aliased);
		return;
	}
}

/* -- who serves it -- */

void model_renew(struct exchange *x)
{
	bool all = true;

	if (x->model_hash == 0)
		return;
	served_table_put(x->table);
	x->served = NULL;
	x->table = catalog_table(x->way->catalog, x->fleet);
	if (!x->table)
		return; /* no memory: as if nothing was known */
	x->served = served_find(x->table, x->model_hash);
	x->block_seed = x->served->adapter ? x->model_hash : 0;
	for (int r = 0; r < ROLES; r++)
		all &= !x->served->barred[r];
	if (!all)
		return;
	served_table_put(x->table);
	x->table = NULL;
	x->served = NULL;
}

const bool *model_barred(const struct exchange *x, enum worker_role role)
{
	return x->served ? x->served->barred[role] : NULL;
}

void model_release(struct exchange *x)
{
	served_table_put(x->table);
	buf_release(&x->aliased);
}

/* -- nobody does -- */

/* The ids that there are, each once, as JSON text inside the quotes. */
static int put_ids(const struct exchange *x, struct buf *b)
{
	const struct served_table *t = x->table;
	bool *shown = calloc(t->n + 1, sizeof(bool)), first = true, omitted = false;
	size_t limit = b->len + IDS_SHOWN;
	int err = shown ? PD_OK : PD_ENOMEM;

	for (int r = 0; !err && r < ROLES; r++)
		for (size_t i = 0; i < x->fleet->pool[r].n; i++) {
			struct served_list *l = served_of(x->fleet->pool[r].worker[i]);

			for (size_t k = 0; !err && l && k < l->n; k++) {
				const struct served_model *m = &l->model[k];
				const struct served *found = served_find(t, m->hash);

				/* A list may be newer than the table. */
				if (found == &t->other || shown[found - t->entry])
					continue;
				shown[found - t->entry] = true;
				if (b->len + m->id.n > limit) {
					omitted = true;
					continue;
				}
				err = buf_puts(b, first ? "" : ", ");
				err = err ? err : buf_append(b, m->id.p, m->id.n);
				first = false;
			}
			served_list_put(l);
		}
	free(shown);
	return err || !omitted ? err : buf_puts(b, ", ...");
}

static void refuse(struct exchange *x)
{
	struct buf b, extra;
	int err;

	x->rec.status = 404;
	x->rec.error = ERROR_NO_MODEL;
	x->started = true;
	metrics_count(x->way->watch.metrics, x->rec.stripe, METRIC_NO_MODEL, x->rec.route, 1);
	http_conn_tell(x->conn, SPAN("no worker serves the model"));
	buf_init(&b, REFUSAL_MAX);
	buf_init(&extra, 16384);
	err = head_names(&extra, x);
	err = err ? err : buf_puts(&b, "{\"error\":{\"message\":\"The model");
	if (x->model.n <= NAME_SHOWN) {
		err = err ? err : buf_puts(&b, " `");
		err = err ? err : buf_append(&b, x->model.p, x->model.n);
		err = err ? err : buf_putc(&b, '`');
	}
	err = err ? err : buf_puts(&b, " does not exist. Models of this router: ");
	err = err ? err : put_ids(x, &b);
	err = err ? err
		  : buf_puts(&b, "\",\"type\":\"invalid_request_error\",\"param\":\"model\","
				 "\"code\":\"model_not_found\"}}");
	if (err)
		(void)http_reply_error(x->conn, 404, "invalid_request_error", NULL,
				       "The model does not exist.");
	else
		(void)http_reply(x->conn, 404, "application/json", extra.data ? extra.data : "",
				 b.data, b.len);
	buf_release(&extra);
	buf_release(&b);
}

bool model_admit(struct exchange *x)
{
	int err;

	if (!x->way->catalog || x->model.n == 0)
		return true;
	x->model_hash = served_hash(x->model);
	model_renew(x);
	if (!x->served || x->served->somewhere)
		return true;
	err = catalog_look(x->way->catalog, x->conn);
	if (err == PD_ECANCELED) {
		x->rec.client_left = true;
		return false;
	}
	/* What the look found belongs to the fleet of now. */
	fleet_put(x->fleet);
	x->fleet = fleet_get(x->way->fleet);
	x->rec.fleet = x->fleet;
	model_renew(x);
	if (!x->served || x->served->somewhere)
		return true;
	refuse(x);
	return false;
}
