#include "lib/route/pool.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/hash.h"
#include "lib/route/policy.h"

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const struct route_member *member, size_t n, struct pd_msg *msg)
{
	const char **sorted = calloc(n ? n : 1, sizeof(*sorted));
	int err = PD_OK;

	if (!sorted)
		return PD_ENOMEM;
	for (size_t i = 0; i < n; i++)
		sorted[i] = member[i].name;
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n && !err; i++) {
		size_t len = strlen(sorted[i]);

		if (len == 0 || len > ROUTE_NAME_MAX)
			err = pd_fail(msg, PD_EINVAL,
				      "worker name of %zu bytes, expected 1 to %d: '%.40s'", len,
				      ROUTE_NAME_MAX, sorted[i]);
		else if (i > 0 && strcmp(sorted[i], sorted[i - 1]) == 0)
			err = pd_fail(msg, PD_EINVAL, "two workers have the name '%s'", sorted[i]);
	}
	free(sorted);
	return err;
}

#define NOBODY UINT16_MAX

/* Open addressing, at most half full. */
static int index_ids(struct route_pool *p)
{
	size_t cap = 2;

	while (cap < 2 * p->n)
		cap *= 2;
	p->by_id = malloc(cap * sizeof(*p->by_id));
	if (!p->by_id)
		return PD_ENOMEM;
	p->by_id_mask = cap - 1;
	memset(p->by_id, 0xff, cap * sizeof(*p->by_id));
	for (size_t i = 0; i < p->n; i++) {
		size_t at = p->worker[i].id & p->by_id_mask;

		while (p->by_id[at] != NOBODY)
			at = (at + 1) & p->by_id_mask;
		p->by_id[at] = (uint16_t)i;
	}
	return PD_OK;
}

uint32_t route_pool_find(const struct route_pool *p, uint64_t id)
{
	for (size_t at = id & p->by_id_mask; p->by_id[at] != NOBODY; at = (at + 1) & p->by_id_mask)
		if (p->worker[p->by_id[at]].id == id)
			return p->by_id[at];
	return ROUTE_NO_WORKER;
}

static int read_weight(struct route_worker *w, struct pd_msg *msg)
{
	struct span text = route_label(&w->labels, SPAN(ROUTE_LABEL_WEIGHT));

	w->weight = text.p ? 0 : 1;
	for (size_t i = 0; i < text.n && w->weight <= ROUTE_WEIGHT_MAX; i++) {
		if (text.p[i] < '0' || text.p[i] > '9') {
			w->weight = 0;
			break;
		}
		w->weight = w->weight * 10 + (uint32_t)(text.p[i] - '0');
	}
	if (w->weight >= 1 && w->weight <= ROUTE_WEIGHT_MAX)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "worker '%.200s': label weight: found '%.*s', expected a whole number from "
		       "1 to %d",
		       w->name, text.n > 40 ? 40 : (int)text.n, text.p, ROUTE_WEIGHT_MAX);
}

/* "http://a:1/v1@2": "a:1". */
static char *address_of(const struct route_member *m)
{
	const char *scheme = strstr(m->name, "://");

	if (m->address)
		return strdup(m->address);
	return scheme ? strndup(scheme + 3, strcspn(scheme + 3, "/@")) : strdup("");
}

static int fill(struct route_pool *p, const struct route_member *member, size_t n,
		struct pd_msg *msg)
{
	const struct route_spec *spec = &p->state->spec;

	p->worker = calloc(n ? n : 1, sizeof(*p->worker));
	if (!p->worker)
		return PD_ENOMEM;
	for (; p->n < n; p->n++) {
		struct route_worker *w = &p->worker[p->n];

		w->name = strdup(member[p->n].name);
		if (!w->name)
			return PD_ENOMEM;
		w->name_len = strlen(w->name);
		w->id = route_hash(ROUTE_HASH_XXH3, w->name, w->name_len);
		w->slot = member[p->n].slot;
		w->address = address_of(&member[p->n]);
		if (!w->address || route_labels_copy(&w->labels, &member[p->n].labels)) {
			free(w->address);
			free(w->name);
			return PD_ENOMEM;
		}
		if (read_weight(w, msg)) {
			p->n++;
			return PD_EINVAL;
		}
		p->weight += w->weight;
		p->weighted |= w->weight != p->worker[0].weight;
	}
	if (index_ids(p))
		return PD_ENOMEM;
	return spec->type->table_new ? spec->type->table_new(p, spec->params, &p->table, msg)
				     : PD_OK;
}

int route_pool_new(struct route_pool **out, const struct route_member *member, size_t n,
		   struct route_state *state, struct pd_msg *msg)
{
	struct route_pool *p;
	int err;

	*out = NULL;
	if (n > ROUTE_WORKERS_MAX)
		return pd_fail(msg, PD_EINVAL, "found %zu workers in one pool, expected at most %d",
			       n, ROUTE_WORKERS_MAX);
	err = check_names(member, n, msg);
	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return PD_ENOMEM;
	p->state = route_state_ref(state);
	err = fill(p, member, n, msg);
	if (err) {
		route_pool_free(p);
		return err;
	}
	*out = p;
	return PD_OK;
}

void route_pool_free(struct route_pool *p)
{
	if (!p)
		return;
	if (p->state->spec.type->table_free)
		p->state->spec.type->table_free(p->table);
	for (size_t i = 0; i < p->n; i++) {
		free(p->worker[i].name);
		free(p->worker[i].address);
		route_labels_release(&p->worker[i].labels);
	}
	free(p->worker);
	free(p->by_id);
	route_state_unref(p->state);
	free(p);
}

static bool has_id(const struct route_pool *p, uint64_t id)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->worker[i].id == id)
			return true;
	return false;
}

static void tell_missing(struct route_state *s, enum route_event_kind kind,
			 const struct route_pool *of, const struct route_pool *missing_in,
			 int64_t at_ns)
{
	for (size_t i = 0; i < of->n; i++)
		if (!missing_in || !has_id(missing_in, of->worker[i].id))
			route_tell(s, &(struct route_event){.kind = kind,
							    .worker = of->worker[i].id,
							    .at_ns = at_ns});
}

void route_pool_announce(const struct route_pool *before, const struct route_pool *now,
			 int64_t at_ns)
{
	if (!now->state->spec.type->learn)
		return;
	if (before && before->state != now->state)
		before = NULL;
	tell_missing(now->state, ROUTE_JOINED, now, before, at_ns);
	if (before)
		tell_missing(now->state, ROUTE_LEFT, before, now, at_ns);
}
