/*
 * Three tables become one list of events. Requests whose own row is missing (the router was killed,
 * the queue was full) have decisions all the same; what they asked is not known then.
 */
#include "lib/workload/capture_log.h"

#include <stdlib.h>
#include <string.h>

#include "lib/workload/capture_lite.h"

#define VERSION_WITH_ORDER 2
#define TEXT_MAX_BYTES	   ((size_t)4 << 30)
#define WORDS_MAX	   ((size_t)1 << 30)

struct reader {
	struct capture_log *l;
	sqlite3 *lite;
	const char *path;
	int64_t run;
	struct pd_msg *msg;
	size_t usable[CAPTURE_ROLES]; /* of the decision before */
};

static int room(void **p, size_t n, size_t *cap, size_t size, size_t max)
{
	size_t want = *cap ? *cap * 2 : 1024;
	void *grown;

	if (n <= *cap)
		return PD_OK;
	if (n > max)
		return PD_ETOOBIG;
	want = want < n ? n : want;
	grown = reallocarray(*p, want, size);
	if (!grown)
		return PD_ENOMEM;
	*p = grown;
	*cap = want;
	return PD_OK;
}

/* A blob of bytes as words; *at CAPTURE_NONE for NULL. */
static int add_words(struct capture_log *l, sqlite3_stmt *st, int column, size_t *at)
{
	const void *p = sqlite3_column_blob(st, column);
	size_t bytes = p ? (size_t)sqlite3_column_bytes(st, column) : 0, n = (bytes + 7) / 8;
	int err;

	*at = CAPTURE_NONE;
	if (n == 0)
		return PD_OK;
	err = room((void **)&l->word, l->nwords + n, &l->word_cap, sizeof(*l->word), WORDS_MAX);
	if (err)
		return err;
	*at = l->nwords;
	l->word[l->nwords + n - 1] = 0;
	memcpy(l->word + l->nwords, p, bytes);
	l->nwords += n;
	return PD_OK;
}

static int add_text(struct capture_log *l, const char *text, size_t *at)
{
	*at = l->text.len;
	return buf_append(&l->text, text, strlen(text) + 1);
}

/* `add` for each row. */
static int rows(struct reader *r, const char *sql, int (*add)(struct reader *r, sqlite3_stmt *st))
{
	sqlite3_stmt *st = NULL;
	int code = SQLITE_DONE,
	    err = capture_lite_prepare(r->lite, r->path, sql, r->run, &st, r->msg);

	while (!err && (code = sqlite3_step(st)) == SQLITE_ROW) {
		err = add(r, st);
		if (err)
			(void)pd_fail(r->msg, err, "cannot load the capture '%.300s': %s", r->path,
				      pd_err_text(err));
	}
	if (!err && code != SQLITE_DONE)
		err = capture_lite_error(r->lite, r->path, r->msg);
	(void)sqlite3_finalize(st);
	return err;
}

/* -- fleets -- */

static int add_fleet(struct reader *r, sqlite3_stmt *st)
{
	struct capture_log *l = r->l;
	struct capture_fleet_row *f = reallocarray(l->fleet, l->nfleets + 1, sizeof(*l->fleet));

	if (!f)
		return PD_ENOMEM;
	l->fleet = f;
	f += l->nfleets++;
	*f = (struct capture_fleet_row){.version = sqlite3_column_int64(st, 0),
					.at_ns = sqlite3_column_int64(st, 1)};
	for (int k = 0; k < CAPTURE_ROLES; k++) {
		const char *text = capture_lite_text(st, 2 + k);
		size_t n = strlen(text);

		if (n >= sizeof(f->policy[k]))
			return PD_ETOOBIG;
		memcpy(f->policy[k], text, n + 1);
	}
	return PD_OK;
}

static int role_of(const char *name)
{
	for (int k = 0; k < CAPTURE_ROLES; k++)
		if (strcmp(name, capture_role_names[k]) == 0)
			return k;
	return -1;
}

static struct capture_fleet_row *fleet_of(struct capture_log *l, int64_t version)
{
	for (size_t i = l->nfleets; i-- > 0;)
		if (l->fleet[i].version == version)
			return &l->fleet[i];
	return NULL;
}

static int add_peer(struct reader *r, sqlite3_stmt *st)
{
	struct capture_fleet_row *f = fleet_of(r->l, sqlite3_column_int64(st, 0));
	int role = role_of(capture_lite_text(st, 1));
	struct capture_peer *grown;

	if (!f || role < 0)
		return PD_EPROTO;
	grown = reallocarray(f->peer[role], f->n[role] + 1, sizeof(*grown));
	if (!grown)
		return PD_ENOMEM;
	f->peer[role] = grown;
	grown += f->n[role];
	*grown = (struct capture_peer){.name = strdup(capture_lite_text(st, 2)),
				       .weight = (uint32_t)sqlite3_column_int64(st, 3),
				       .cap = (uint32_t)sqlite3_column_int64(st, 4)};
	if (!grown->name)
		return PD_ENOMEM;
	f->n[role]++;
	return PD_OK;
}

/* -- requests -- */

static unsigned level_of(const char *name)
{
	static const char *const levels[] = {"none", "prefix", "user", "session"};

	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(name, levels[i]) == 0)
			return i;
	return 0;
}

static int add_call(struct reader *r, sqlite3_stmt *st)
{
	struct capture_log *l = r->l;
	struct capture_call *c;
	int err = room((void **)&l->call, l->ncalls + 1, &l->call_cap, sizeof(*l->call),
		       UINT32_MAX - 1);

	if (err)
		return err;
	c = &l->call[l->ncalls++];
	*c = (struct capture_call){.id = sqlite3_column_int64(st, 0),
				   .key_hashed = strcmp(capture_lite_text(st, 2), "hash") == 0,
				   .level = level_of(capture_lite_text(st, 3)),
				   .tokens = (uint32_t)sqlite3_column_int64(st, 5),
				   .output_tokens = (uint32_t)sqlite3_column_int64(st, 6)};
	err = add_text(l, capture_lite_text(st, 1), &c->key);
	err = err ? err : add_text(l, capture_lite_text(st, 4), &c->source);
	err = err ? err : add_text(l, capture_lite_text(st, 8), &c->model);
	if (sqlite3_column_type(st, 1) == SQLITE_NULL)
		c->level = 0;
	err = err ? err : add_words(l, st, 7, &c->block);
	c->nblocks = c->block == CAPTURE_NONE ? 0 : l->nwords - c->block;
	return err;
}

static int by_id(const void *key, const void *element)
{
	int64_t id = *(const int64_t *)key;
	const struct capture_call *c = element;

	return id < c->id ? -1 : id > c->id;
}

/* -- events -- */

static int new_event(struct reader *r, sqlite3_stmt *st, struct capture_event **out)
{
	struct capture_log *l = r->l;
	int64_t id = sqlite3_column_int64(st, 0);
	const struct capture_call *c = bsearch(&id, l->call, l->ncalls, sizeof(*l->call), by_id);
	const struct capture_fleet_row *f = fleet_of(l, sqlite3_column_int64(st, 3));
	int role = role_of(capture_lite_text(st, 2));
	struct capture_event e = {.at_ns = sqlite3_column_int64(st, 1),
				  .worker = (uint32_t)sqlite3_column_int64(st, 4),
				  .began = (uint64_t)sqlite3_column_int64(st, 5),
				  .seq = (uint64_t)sqlite3_column_int64(st, 6),
				  .usable = CAPTURE_NONE,
				  .tried = CAPTURE_NONE,
				  .in_flight = CAPTURE_NONE};
	int err = room((void **)&l->event, l->nevents + 1, &l->event_cap, sizeof(*l->event),
		       CAPTURE_EVENTS_MAX);

	*out = NULL;
	if (err)
		return err;
	if (!f || role < 0 || e.worker >= f->n[role] || e.began >= e.seq)
		return PD_EPROTO;
	if (!c) {
		l->dropped++;
		return PD_OK;
	}
	e.role = (enum capture_role)role;
	e.call = (uint32_t)(c - l->call);
	e.fleet = (uint32_t)(f - l->fleet);
	*out = &l->event[l->nevents];
	**out = e;
	return PD_OK;
}

/* The bits are those of the decision before where there are none. */
static int add_pick(struct reader *r, sqlite3_stmt *st)
{
	struct capture_log *l = r->l;
	struct capture_event *e;
	int role = role_of(capture_lite_text(st, 2)), err = new_event(r, st, &e);
	const void *draw = sqlite3_column_blob(st, 11);
	size_t usable;

	if (err)
		return err;
	err = add_words(l, st, 8, &usable);
	if (usable != CAPTURE_NONE)
		r->usable[role] = usable;
	if (err || !e)
		return err;
	e->usable = r->usable[role];
	err = add_words(l, st, 9, &e->tried);
	err = err ? err : add_words(l, st, 10, &e->in_flight);
	if (draw && sqlite3_column_bytes(st, 11) == (int)sizeof(e->draw))
		memcpy(&e->draw, draw, sizeof(e->draw));
	e->attempt = (uint32_t)sqlite3_column_int64(st, 7);
	e->turn = (uint64_t)sqlite3_column_int64(st, 12);
	e->turns = (uint32_t)sqlite3_column_int64(st, 13);
	e->ties = (uint32_t)sqlite3_column_int64(st, 14);
	e->score = sqlite3_column_double(st, 15);
	if (!err)
		l->nevents++;
	return err;
}

static int add_release(struct reader *r, sqlite3_stmt *st)
{
	struct capture_event *e;
	int err = new_event(r, st, &e);

	if (err || !e)
		return err;
	e->what = strcmp(capture_lite_text(st, 7), "computed") == 0 ? CAPTURE_COMPUTED
								    : CAPTURE_ENDED;
	r->l->nevents++;
	return PD_OK;
}

static int add_dropped(struct reader *r, sqlite3_stmt *st)
{
	r->l->dropped += (uint64_t)sqlite3_column_int64(st, 0);
	return PD_OK;
}

static int by_seq(const void *a, const void *b)
{
	const struct capture_event *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int read_all(struct reader *r)
{
	static const struct {
		const char *sql;
		int (*add)(struct reader *r, sqlite3_stmt *st);
	} part[] = {
		{"SELECT version, at_ns, policy, prefill_policy, decode_policy FROM fleet"
		 " WHERE run = ?1 ORDER BY version",
		 add_fleet},
		{"SELECT fleet, role, name, weight, cap FROM worker WHERE run = ?1"
		 " ORDER BY fleet, role, position",
		 add_peer},
		{"SELECT id, key, key_form, key_level, key_source, route_tokens, route_output,"
		 " route_blocks, model FROM request WHERE run = ?1 ORDER BY id",
		 add_call},
		{"SELECT request, at_ns, role, fleet, worker, began, seq, attempt, usable, tried,"
		 " in_flight, draw, turn, turns, ties, score FROM decision WHERE run = ?1 ORDER BY "
		 "id",
		 add_pick},
		{"SELECT request, at_ns, role, fleet, worker, began, seq, what FROM release"
		 " WHERE run = ?1",
		 add_release},
		{"SELECT requests + decisions + releases FROM dropped WHERE run = ?1", add_dropped},
	};
	int err = PD_OK;

	for (size_t i = 0; !err && i < sizeof(part) / sizeof(part[0]); i++)
		err = rows(r, part[i].sql, part[i].add);
	if (!err && r->l->nevents > 0)
		qsort(r->l->event, r->l->nevents, sizeof(*r->l->event), by_seq);
	return err;
}

int capture_log_read(struct capture_log *out, const char *path, int64_t run, struct pd_msg *msg)
{
	struct reader r = {.l = out,
			   .path = path,
			   .run = run,
			   .msg = msg,
			   .usable = {CAPTURE_NONE, CAPTURE_NONE, CAPTURE_NONE}};
	int64_t version = 0;
	int err;

	memset(out, 0, sizeof(*out));
	buf_init(&out->text, TEXT_MAX_BYTES);
	err = capture_lite_open(&r.lite, path, &version, msg);
	if (!err && version < VERSION_WITH_ORDER)
		err = pd_fail(
			msg, PD_EINVAL,
			"'%.300s' is a capture of version %lld, which has no order of events: "
			"expected version %d for --replay exact",
			path, (long long)version, VERSION_WITH_ORDER);
	err = err ? err : capture_lite_run(r.lite, path, &r.run, msg);
	err = err ? err : read_all(&r);
	if (!err && out->nevents == 0)
		err = pd_fail(msg, PD_EINVAL, "this run of the capture '%.300s' has no decision",
			      path);
	(void)sqlite3_close(r.lite);
	if (err)
		capture_log_release(out);
	return err;
}

void capture_log_release(struct capture_log *l)
{
	for (size_t i = 0; i < l->nfleets; i++)
		for (int k = 0; k < CAPTURE_ROLES; k++) {
			for (size_t w = 0; w < l->fleet[i].n[k]; w++)
				free(l->fleet[i].peer[k][w].name);
			free(l->fleet[i].peer[k]);
		}
	free(l->fleet);
	free(l->event);
	free(l->call);
	free(l->word);
	buf_release(&l->text);
	memset(l, 0, sizeof(*l));
}
