#include "lib/router/fleet/served.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/json/scan.h"
#include "lib/route/hash.h"

#define ID_MAX 4096 /* bytes of an id, decoded */

/* -- lists -- */

uint64_t served_hash(struct span id)
{
	struct buf text;
	uint64_t hash = 0;

	if (id.n == 0 || !memchr(id.p, '\\', id.n))
		return route_hash(ROUTE_HASH_XXH3, id.p, id.n);
	buf_init(&text, ID_MAX);
	/* The quotes stand around it. */
	if (json_string_decode((struct span){id.p - 1, id.n + 2}, &text) == PD_OK)
		hash = route_hash(ROUTE_HASH_XXH3, text.data, text.len);
	buf_release(&text);
	return hash;
}

static int by_hash(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* False: no id, or one that stands in the list already. */
static bool read_model(struct served_list *l, struct span value)
{
	struct served_model *m = &l->model[l->n];
	struct json_object o;
	enum json_type type;
	struct span id, parent;
	bool fresh = true;

	if (json_object_scan(&o, value.p, value.n, NULL))
		return false;
	if (!json_object_path(&o, "id", &type, &id) || type != JSON_STRING || id.n <= 2) {
		json_object_release(&o);
		return false;
	}
	*m = (struct served_model){.id = {id.p + 1, id.n - 2}, .object = value};
	m->hash = served_hash(m->id);
	m->adapter = json_object_path(&o, "parent", &type, &parent) && type == JSON_STRING;
	json_object_release(&o);
	for (size_t i = 0; i < l->n; i++)
		fresh &= l->model[i].hash != m->hash;
	return fresh && m->hash != 0;
}

static int read_models(struct served_list *l, struct span data)
{
	uint64_t id[SERVED_LIST_MAX];
	enum json_type type;
	struct span value;
	size_t at = 0;

	while (json_array_next(data, &at, &value, &type)) {
		if (type != JSON_OBJECT)
			continue;
		if (l->n == SERVED_LIST_MAX)
			return PD_EPROTO;
		l->n += read_model(l, value);
	}
	for (size_t i = 0; i < l->n; i++)
		id[i] = l->model[i].hash;
	qsort(id, l->n, sizeof(id[0]), by_hash);
	l->set = route_hash(ROUTE_HASH_XXH3, id, l->n * sizeof(id[0]));
	return PD_OK;
}

int served_list_read(struct served_list **out, const char *page, size_t n)
{
	struct served_list *l = calloc(1, sizeof(*l));
	struct json_object o;
	enum json_type type;
	struct span data;
	int err = PD_EPROTO;

	*out = NULL;
	if (!l)
		return PD_ENOMEM;
	atomic_store(&l->refs, 1);
	l->text = malloc(n + 1);
	l->model = calloc(SERVED_LIST_MAX + 1, sizeof(*l->model));
	if (!l->text || !l->model) {
		served_list_put(l);
		return PD_ENOMEM;
	}
	if (n > 0)
		memcpy(l->text, page, n);
	if (json_object_scan(&o, l->text, n, NULL) == PD_OK) {
		if (json_object_path(&o, "data", &type, &data) && type == JSON_ARRAY)
			err = read_models(l, data);
		json_object_release(&o);
	}
	if (err) {
		served_list_put(l);
		return err;
	}
	*out = l;
	return PD_OK;
}

void served_list_put(struct served_list *l)
{
	unsigned before = l ? atomic_fetch_sub(&l->refs, 1) : 2;

	PD_CHECK(before > 0);
	if (before != 1)
		return;
	free(l->model);
	free(l->text);
	free(l);
}

struct served_list *served_of(struct worker *w)
{
	struct served_list *l;

	(void)pthread_mutex_lock(&w->lock);
	l = w->served;
	if (l)
		atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	(void)pthread_mutex_unlock(&w->lock);
	return l;
}

bool served_set(struct worker *w, struct served_list *l)
{
	struct served_list *old;

	(void)pthread_mutex_lock(&w->lock);
	old = w->served;
	w->served = l;
	(void)pthread_mutex_unlock(&w->lock);
	if (!old || !l) {
		served_list_put(old);
		return old != l;
	}
	if (old->set == l->set) {
		served_list_put(old);
		return false;
	}
	served_list_put(old);
	return true;
}

/* -- tables -- */

/* The lists of all workers while a table is made. */
struct making {
	struct fleet *fleet;
	struct served_list **list[ROLES]; /* owned; NULL: not known */
	uint64_t *id;			  /* owned; all ids of all lists */
	size_t n;
};

static void making_release(struct making *m)
{
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; m->list[r] && i < m->fleet->pool[r].n; i++)
			served_list_put(m->list[r][i]);
		free(m->list[r]);
	}
	free(m->id);
}

/* "a,b" as a list. NULL: none, or no memory. */
static struct served_list *list_of_label(struct span ids)
{
	struct served_list *l = NULL;
	struct buf page;
	int err;

	if (ids.n == 0)
		return NULL;
	buf_init(&page, 64 * ROUTE_LABEL_TEXT_MAX);
	err = buf_puts(&page, "{\"data\":[");
	for (bool first = true; !err && ids.n > 0; first = false) {
		const char *comma = memchr(ids.p, ',', ids.n);
		size_t n = comma ? (size_t)(comma - ids.p) : ids.n;
		struct span id = span_trim((struct span){ids.p, n});

		err = buf_puts(&page, first ? "{\"id\":" : ",{\"id\":");
		err = err ? err : json_quote(&page, id.p, id.n);
		err = err ? err : buf_putc(&page, '}');
		n += comma != NULL;
		ids = (struct span){ids.p + n, ids.n - n};
	}
	err = err ? err : buf_puts(&page, "]}");
	if (!err && served_list_read(&l, page.data, page.len))
		l = NULL;
	buf_release(&page);
	return l;
}

/* Takes the lists of now, and collects their ids, each once. */
static int collect(struct making *m)
{
	size_t all = 0, kept = 0;

	for (int r = 0; r < ROLES; r++) {
		const struct fleet_pool *p = &m->fleet->pool[r];

		m->list[r] = calloc(p->n + 1, sizeof(struct served_list *));
		if (!m->list[r])
			return PD_ENOMEM;
		for (size_t i = 0; i < p->n; i++) {
			m->list[r][i] = served_of(p->worker[i]);
			if (!m->list[r][i])
				m->list[r][i] = list_of_label(route_label(
					&p->ring->worker[i].labels, SPAN(SERVED_LABEL)));
			all += m->list[r][i] ? m->list[r][i]->n : 0;
		}
	}
	m->id = calloc(all + 1, sizeof(*m->id));
	if (!m->id)
		return PD_ENOMEM;
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < m->fleet->pool[r].n; i++)
			for (size_t k = 0; m->list[r][i] && k < m->list[r][i]->n; k++)
				m->id[m->n++] = m->list[r][i]->model[k].hash;
	qsort(m->id, m->n, sizeof(*m->id), by_hash);
	for (size_t i = 0; i < m->n; i++)
		if (i == 0 || m->id[i] != m->id[i - 1])
			m->id[kept++] = m->id[i];
	m->n = kept;
	return PD_OK;
}

static const struct served_model *find_model(const struct served_list *l, uint64_t hash)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->model[i].hash == hash)
			return &l->model[i];
	return NULL;
}

/* Whom of a pool the model rules out. `hash` 0: an id that is in no list. */
static int bar_pool(const struct making *m, int r, uint64_t hash, struct served *s)
{
	const struct fleet_pool *p = &m->fleet->pool[r];
	bool *barred = calloc(p->n + 1, sizeof(bool));
	size_t unknown = 0, listed = 0, out = 0;

	if (!barred)
		return PD_ENOMEM;
	for (size_t i = 0; i < p->n; i++) {
		const struct served_list *l = m->list[r][i];
		const struct served_model *found = l && hash ? find_model(l, hash) : NULL;

		unknown += !l && atomic_load(&p->worker[i]->models.refused);
		listed += found != NULL;
		s->adapter |= found && found->adapter;
		barred[i] = l && !found;
		out += barred[i];
	}
	for (size_t i = 0; listed > 0 && unknown > 0 && i < p->n; i++)
		if (!m->list[r][i] && atomic_load(&p->worker[i]->models.refused)) {
			barred[i] = true;
			out++;
		}
	s->somewhere |= out < p->n;
	if (out > 0) {
		s->barred[r] = barred;
		return PD_OK;
	}
	free(barred);
	return PD_OK;
}

static int make_entry(const struct making *m, uint64_t hash, struct served *s)
{
	size_t workers = 0;
	int err = PD_OK;

	s->hash = hash;
	for (int r = 0; !err && r < ROLES; r++) {
		workers += m->fleet->pool[r].n;
		err = bar_pool(m, r, hash, s);
	}
	s->somewhere |= workers == 0;
	return err;
}

int served_table_new(struct served_table **out, struct fleet *f)
{
	struct served_table *t = calloc(1, sizeof(*t));
	struct making m = {.fleet = f};
	int err = t ? PD_OK : PD_ENOMEM;

	*out = NULL;
	if (err)
		return err;
	atomic_store(&t->refs, 1);
	t->version = f->version;
	err = collect(&m);
	t->full = !err && m.n > SERVED_IDS_MAX;
	t->n = err ? 0 : t->full ? SERVED_IDS_MAX : m.n;
	t->entry = calloc(t->n + 1, sizeof(*t->entry));
	err = err || !t->entry ? PD_ENOMEM : PD_OK;
	for (size_t i = 0; !err && i < t->n; i++)
		err = make_entry(&m, m.id[i], &t->entry[i]);
	if (!err && t->full)
		t->other.somewhere = true;
	else if (!err)
		err = make_entry(&m, 0, &t->other);
	making_release(&m);
	if (err) {
		served_table_put(t);
		return PD_ENOMEM;
	}
	*out = t;
	return PD_OK;
}

void served_table_put(struct served_table *t)
{
	unsigned before = t ? atomic_fetch_sub(&t->refs, 1) : 2;

	PD_CHECK(before > 0);
	if (before != 1)
		return;
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; t->entry && i < t->n; i++)
			free(t->entry[i].barred[r]);
		free(t->other.barred[r]);
	}
	free(t->entry);
	free(t);
}

const struct served *served_find(const struct served_table *t, uint64_t hash)
{
	size_t from = 0, to = t->n;

	while (from < to) {
		size_t at = from + (to - from) / 2;

		if (t->entry[at].hash == hash)
			return &t->entry[at];
		if (t->entry[at].hash < hash)
			from = at + 1;
		else
			to = at;
	}
	return &t->other;
}
