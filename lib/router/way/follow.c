/*
 * Sets of a few places each: an id may lie in any place of its set, and the place that was used
 * least recently makes room. So there is no chain, no rehash and no list over all of it.
 */
#include "lib/router/way/follow.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/route/hash.h"
#include "lib/router/way/exchange.h"

#define WAYS   8
#define ID_MAX 256 /* of an id that is remembered, JSON text */

struct follow_set {
	struct {
		uint64_t id, worker; /* hashes; id 0: free */
	} at[WAYS];		     /* the most recently used first */
};

int follow_init(struct follow_table *t, size_t entries)
{
	memset(t, 0, sizeof(*t));
	for (int i = 0; i < FOLLOW_LOCKS; i++)
		if (pthread_mutex_init(&t->lock[i], NULL) != 0)
			return PD_ENOMEM;
	rng_system_bytes((unsigned char *)&t->seed, sizeof(t->seed));
	if (entries == 0)
		return PD_OK;
	for (t->nsets = 1; t->nsets * WAYS < entries;)
		t->nsets *= 2;
	t->set = calloc(t->nsets, sizeof(*t->set));
	return t->set ? PD_OK : PD_ENOMEM;
}

void follow_release(struct follow_table *t)
{
	free(t->set);
	t->set = NULL;
}

static uint64_t hash_of(const struct follow_table *t, struct span id)
{
	uint64_t h = route_murmur64a(id.p, id.n, t->seed);

	return h ? h : 1;
}

static uint64_t hash_of_worker(const struct worker *w)
{
	return route_hash(ROUTE_HASH_XXH3, w->url, strlen(w->url));
}

/* The worker of the id, which is the most recently used of its set now; 0: not known. With `set`
 * the id becomes that worker's. True in *evicted: another id was forgotten. */
static uint64_t look(struct follow_table *t, struct span id, uint64_t set, bool *evicted)
{
	uint64_t h = hash_of(t, id), worker = 0;
	struct follow_set *s = &t->set[h & (t->nsets - 1)];
	pthread_mutex_t *lock = &t->lock[(h & (t->nsets - 1)) % FOLLOW_LOCKS];
	size_t i = 0;

	pthread_mutex_lock(lock);
	while (i < WAYS && s->at[i].id != h && s->at[i].id != 0)
		i++;
	if (i < WAYS && s->at[i].id == h)
		worker = s->at[i].worker;
	else if (i == WAYS)
		i--;
	worker = set ? set : worker;
	if (worker) {
		*evicted = s->at[i].id != 0 && s->at[i].id != h;
		memmove(&s->at[1], &s->at[0], i * sizeof(s->at[0]));
		s->at[0].id = h;
		s->at[0].worker = worker;
	}
	pthread_mutex_unlock(lock);
	return worker;
}

/* The first part of a path, and what follows. */
static struct span segment(struct span *rest)
{
	struct span s = *rest;
	const char *slash;

	while (s.n > 0 && *s.p == '/')
		s.p++, s.n--;
	slash = s.n ? memchr(s.p, '/', s.n) : NULL;
	*rest = SPAN("");
	if (slash) {
		*rest = (struct span){slash, s.n - (size_t)(slash - s.p)};
		s.n = (size_t)(slash - s.p);
	}
	return s;
}

/* What OpenAI's API, vLLM and vLLM-Omni keep under an id of the server's making. */
static bool is_collection(struct span s)
{
	static const char *const names[] = {"responses", "conversations", "files",
					    "batches",	 "uploads",	  "videos",
					    "threads",	 "vector_stores"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_eq(s, span_of(names[i])))
			return true;
	return false;
}

bool follow_path(struct span path)
{
	struct span rest = path;

	if (!span_starts(path, SPAN("/v1/")))
		return false;
	(void)segment(&rest);
	return is_collection(segment(&rest));
}

/* -- a request that names ids -- */

static bool text_at(const struct json_object *o, const char *path, struct span *id)
{
	enum json_type type;
	struct span value;

	if (!json_object_path(o, path, &type, &value) || type != JSON_STRING || value.n <= 2 ||
	    value.n > ID_MAX)
		return false;
	*id = (struct span){value.p + 1, value.n - 2};
	return true;
}

static void count(struct exchange *x, enum metrics_follow what)
{
	metrics_add(x->way->watch.metrics, x->rec.stripe, METRIC_FOLLOW, what, 0, 1);
}

/* Every other worker of the role counts as tried without anything sent: the policy has one to
 * choose from, and the others when that one may not be picked or was tried. */
static bool pin(struct exchange *x, enum worker_role role, uint64_t worker)
{
	const struct fleet_pool *pool = &x->fleet->pool[role];
	bool *others = NULL, found = false;

	for (size_t i = 0; i < pool->n && !found; i++)
		if (hash_of_worker(pool->worker[i]) == worker) {
			x->pick[role].known = pool->worker[i];
			found = true;
		}
	if (found && pool->n > 1)
		others = calloc(2 * pool->n + 1, sizeof(*others));
	for (size_t i = 0; others && i < pool->n; i++)
		others[i] = others[pool->n + i] = hash_of_worker(pool->worker[i]) != worker;
	free(x->pick[role].tried);
	x->pick[role].tried = others;
	return found;
}

void follow_pin_to(struct exchange *x, enum worker_role role, const struct worker *w)
{
	(void)pin(x, role, hash_of_worker(w));
}

bool follow_pin(struct exchange *x)
{
	static const char *const fields[] = {"previous_response_id", "conversation",
					     "conversation.id", "input_file_id", "file_id"};
	struct follow_table *t = &x->way->follow;
	struct span rest = x->req->head.path, id;
	bool named = false, found = false, evicted;
	uint64_t worker = 0;

	x->learns = t->set != NULL;
	if (!t->set)
		return false;
	(void)segment(&rest);
	(void)segment(&rest);
	id = segment(&rest);
	if (id.n > 0 && id.n <= ID_MAX) {
		named = true;
		worker = look(t, id, 0, &evicted);
	}
	for (size_t i = 0; x->rec.json && !worker && i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (!text_at(x->rec.json, fields[i], &id))
			continue;
		named = true;
		worker = look(t, id, 0, &evicted);
	}
	if (!named)
		return false;
	x->seeks = !worker && !x->way->cfg->retries_off;
	x->sought = id;
	for (int r = 0; worker && r < ROLES; r++)
		found |= pin(x, (enum worker_role)r, worker);
	count(x, !worker ? FOLLOW_UNKNOWN : found ? FOLLOW_FOUND : FOLLOW_GONE);
	return true;
}

/* -- answers that make ids -- */

static bool remember(struct exchange *x, const struct json_object *o, const char *path)
{
	bool evicted = false;
	struct span id;

	if (!text_at(o, path, &id))
		return false;
	(void)look(&x->way->follow, id, hash_of_worker(x->leg->worker), &evicted);
	count(x, FOLLOW_LEARNT);
	if (evicted)
		count(x, FOLLOW_EVICTED);
	return true;
}

bool follow_seek_on(struct exchange *x, int status, int role)
{
	return status == 404 && ++x->sought_at < FOLLOW_SEEK_MAX &&
	       pick_seek_other(x, (enum worker_role)role);
}

void follow_found(struct exchange *x, int status)
{
	bool evicted = false;

	x->seeks = false;
	if (status / 100 != 2)
		return;
	(void)look(&x->way->follow, x->sought, hash_of_worker(x->leg->worker), &evicted);
	count(x, FOLLOW_SOUGHT);
	if (evicted)
		count(x, FOLLOW_EVICTED);
}

void follow_learn(struct exchange *x, struct span doc)
{
	struct json_object o;

	if (x->leg->call.head.status / 100 != 2 || json_object_scan(&o, doc.p, doc.n, NULL))
		return;
	/* A document of its own, or an event that holds one. */
	if (remember(x, &o, "response.id") || remember(x, &o, "id"))
		x->learns = false;
	(void)(remember(x, &o, "response.conversation.id") || remember(x, &o, "conversation.id") ||
	       remember(x, &o, "conversation"));
	json_object_release(&o);
}

void follow_learn_events(struct exchange *x, struct span events)
{
	const char *p = events.p, *end = p + events.n;

	while (x->learns && p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		struct span line = {p, (size_t)((eol ? eol : end) - p)};

		p += line.n + 1;
		if (span_starts(line, SPAN("data:")))
			follow_learn(x, (struct span){line.p + 5, line.n - 5});
	}
}
