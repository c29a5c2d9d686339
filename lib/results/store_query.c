/* Lists read the rows of `run` only; documents are opened one by one. */
#include "lib/results/store_query.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/nearest.h"
#include "lib/results/store_db.h"

#define NEAREST_MAX 2000
#define COLUMNS                                                                                    \
	"r.id, r.saved_ns, r.bytes, r.tool, r.label, r.model, r.backend, r.date, r.commit_id,"     \
	" r.request_rate, r.concurrency, r.requests, r.completed, r.failed, r.duration,"           \
	" r.mean_ttft_ms, r.p99_ttft_ms, r.mean_tpot_ms, r.request_throughput, r.client_ok"
#define FIRST_TEXT   3
#define FIRST_NUMBER 9
#define CLIENT_OK    19
#define VALUE	     20
/* ?1 label, ?2 model, ?3 tool: NULL is any; ?4 how many, -1 all; ?5 the metric. The newest are
 * taken first and turned round. */
#define WHERE                                                                                      \
	" WHERE (?1 IS NULL OR r.label = ?1) AND (?2 IS NULL OR r.model = ?2)"                     \
	" AND (?3 IS NULL OR r.tool = ?3)"

int store_open(const char *path, struct store **out, struct pd_msg *msg)
{
	struct store *s = calloc(1, sizeof(*s));
	int err;

	*out = NULL;
	if (!s)
		return PD_ENOMEM;
	err = store_db_read(s, path, msg);
	if (err) {
		free(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	store_db_close(s);
	free(s);
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	if (text)
		(void)sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

static double number(sqlite3_stmt *st, int column)
{
	return sqlite3_column_type(st, column) == SQLITE_NULL ? (double)NAN
							      : sqlite3_column_double(st, column);
}

static const char *text(sqlite3_stmt *st, int column)
{
	return (const char *)sqlite3_column_text(st, column);
}

static void read_run(sqlite3_stmt *st, struct store_run *run)
{
	const char **texts[] = {&run->tool,    &run->label, &run->model,
				&run->backend, &run->date,  &run->commit};
	double *numbers[] = {&run->request_rate,      &run->concurrency, &run->requests,
			     &run->completed,	      &run->failed,	 &run->duration,
			     &run->mean_ttft_ms,      &run->p99_ttft_ms, &run->mean_tpot_ms,
			     &run->request_throughput};

	run->id = sqlite3_column_int64(st, 0);
	run->saved_ns = sqlite3_column_int64(st, 1);
	run->bytes = sqlite3_column_int64(st, 2);
	for (int i = 0; i < (int)(sizeof(texts) / sizeof(texts[0])); i++)
		*texts[i] = text(st, FIRST_TEXT + i);
	for (int i = 0; i < (int)(sizeof(numbers) / sizeof(numbers[0])); i++)
		*numbers[i] = number(st, FIRST_NUMBER + i);
	run->client_ok = sqlite3_column_type(st, CLIENT_OK) == SQLITE_NULL
				 ? -1
				 : sqlite3_column_int(st, CLIENT_OK);
}

/* Prepares, binds the filter, and calls `each` for each row, with its last column or NaN. */
static int walk(struct store *s, const char *sql, const struct store_filter *f, const char *metric,
		int (*each)(void *, const struct store_run *, double), void *arg,
		struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int err = store_db_prepare(s, sql, &st, msg), code = SQLITE_DONE;

	if (!err) {
		bind_text(st, 1, f->label);
		bind_text(st, 2, f->model);
		bind_text(st, 3, f->tool);
		(void)sqlite3_bind_int64(st, 4, f->last > 0 ? f->last : -1);
		if (metric)
			bind_text(st, 5, metric);
	}
	while (!err && (code = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_run run;

		read_run(st, &run);
		err = each(arg, &run, metric ? sqlite3_column_double(st, VALUE) : (double)NAN);
	}
	if (!err)
		err = store_db_check(s, code, msg);
	(void)sqlite3_finalize(st);
	return err;
}

struct lister {
	int (*each)(void *arg, const struct store_run *run);
	void *arg;
};

static int list_one(void *arg, const struct store_run *run, double value)
{
	const struct lister *l = arg;

	(void)value;
	return l->each(l->arg, run);
}

int store_list(struct store *s, const struct store_filter *f,
	       int (*each)(void *arg, const struct store_run *run), void *arg, struct pd_msg *msg)
{
	/* all of them come in order; the newest must be turned round */
	const char *sql = f->last > 0 ? "SELECT * FROM (SELECT " COLUMNS " FROM run r" WHERE
					" ORDER BY r.id DESC LIMIT ?4) ORDER BY 1"
				      : "SELECT " COLUMNS " FROM run r" WHERE
					" ORDER BY r.id LIMIT ?4";

	struct lister l = {each, arg};

	return walk(s, sql, f, NULL, list_one, &l, msg);
}

int store_history(struct store *s, const char *metric, const struct store_filter *f,
		  int (*each)(void *arg, const struct store_run *run, double value), void *arg,
		  struct pd_msg *msg)
{
	return walk(s,
		    "SELECT * FROM (SELECT " COLUMNS ", m.value FROM metric m JOIN run r"
		    " ON r.id = m.run" WHERE " AND m.name = ?5 ORDER BY r.id DESC LIMIT ?4)"
		    " ORDER BY 1",
		    f, metric, each, arg, msg);
}

/* -- references -- */

struct reference {
	char label[256]; /* "" is any label */
	int64_t id;	 /* of one run, or 0 */
	int64_t count;	 /* the newest N of them; 0 all, -1 none */
	int64_t back;	 /* the N-th before the newest; -1 no */
};

static bool digits(const char *s, size_t n, int64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]) || i >= 15)
			return false;
		*out = *out * 10 + (s[i] - '0');
	}
	return n > 0;
}

static int parse(const char *ref, struct reference *r, struct pd_msg *msg)
{
	const char *name = ref + (*ref == '@'), *mark = NULL;
	size_t n;

	*r = (struct reference){.back = -1};
	if (strncmp(name, "label=", 6) == 0)
		name += 6;
	else if (digits(name + (*name == '#'), strlen(name + (*name == '#')), &r->id))
		return PD_OK;
	else
		mark = strpbrk(name, "~:");
	while (mark && !digits(mark + 1, strlen(mark + 1), mark[0] == '~' ? &r->back : &r->count))
		mark = strpbrk(mark + 1, "~:");
	if (!mark)
		r->back = -1, r->count = 0;
	n = mark ? (size_t)(mark - name) : strlen(name);
	if (n == 0 || n >= sizeof(r->label))
		return pd_fail(msg, PD_EINVAL,
			       "found '%s', expected @last, @last~N, @last:N, @NUMBER or @LABEL",
			       ref);
	if (n == 4 && memcmp(name, "last", 4) == 0 &&
	    strncmp(ref + (*ref == '@'), "label=", 6) != 0) {
		if (!mark)
			r->count = 1;
		return PD_OK;
	}
	memcpy(r->label, name, n);
	return PD_OK;
}

/* The texts of one column, for a suggestion. */
static char *nearest(struct store *s, const char *sql, const char *word)
{
	const char *names[NEAREST_MAX + 1];
	sqlite3_stmt *st = NULL;
	char *out = NULL;
	const char *near;
	size_t n = 0;

	if (store_db_prepare(s, sql, &st, NULL) == PD_OK)
		while (n < NEAREST_MAX && sqlite3_step(st) == SQLITE_ROW && text(st, 0))
			if ((names[n] = strdup(text(st, 0))) != NULL)
				n++;
	(void)sqlite3_finalize(st);
	names[n] = NULL;
	near = nearest_word(word, names);
	if (near)
		out = strdup(near);
	while (n > 0)
		free((char *)names[--n]);
	return out;
}

char *store_nearest_metric(struct store *s, const char *name)
{
	return nearest(s, "SELECT DISTINCT name FROM metric LIMIT 2000", name);
}

static int none(struct store *s, const char *ref, const struct reference *r, struct pd_msg *msg)
{
	char *near = r->label[0] ? nearest(s, "SELECT DISTINCT label FROM run LIMIT 2000", r->label)
				 : NULL;

	(void)pd_fail(msg, PD_ENOENT, "'%s' is no run of the store '%.300s'%s%s%s", ref, s->path,
		      near ? ", did you mean '@" : "", near ? near : "", near ? "'?" : "");
	free(near);
	return PD_ENOENT;
}

int store_find(struct store *s, const char *ref, int64_t **ids, size_t *n, struct pd_msg *msg)
{
	static const char sql[] = "SELECT id FROM (SELECT id FROM run WHERE (?1 = 0 OR id = ?1)"
				  " AND (?2 IS NULL OR label = ?2) ORDER BY id DESC LIMIT ?3"
				  " OFFSET ?4) ORDER BY id";
	struct reference r;
	sqlite3_stmt *st = NULL;
	size_t cap = 0;
	int code = SQLITE_DONE, err = parse(ref, &r, msg);

	*ids = NULL;
	*n = 0;
	if (!err)
		err = store_db_prepare(s, sql, &st, msg);
	if (!err) {
		(void)sqlite3_bind_int64(st, 1, r.id);
		bind_text(st, 2, r.label[0] ? r.label : NULL);
		(void)sqlite3_bind_int64(st, 3,
					 r.back >= 0   ? 1
					 : r.count > 0 ? r.count
						       : STORE_FOUND_MAX);
		(void)sqlite3_bind_int64(st, 4, r.back >= 0 ? r.back : 0);
	}
	while (!err && (code = sqlite3_step(st)) == SQLITE_ROW) {
		if (*n == cap) {
			int64_t *more = realloc(*ids, (cap ? cap * 2 : 16) * sizeof(*more));

			if (!more) {
				err = PD_ENOMEM;
				break;
			}
			*ids = more;
			cap = cap ? cap * 2 : 16;
		}
		(*ids)[(*n)++] = sqlite3_column_int64(st, 0);
	}
	if (!err)
		err = store_db_check(s, code, msg);
	(void)sqlite3_finalize(st);
	if (!err && *n == 0)
		err = none(s, ref, &r, msg);
	if (err) {
		free(*ids);
		*ids = NULL;
		*n = 0;
	}
	return err;
}

int store_document(struct store *s, int64_t id, struct buf *out, struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int code, err = store_db_prepare(s, "SELECT text FROM document WHERE run = ?", &st, msg);

	if (err)
		return err;
	(void)sqlite3_bind_int64(st, 1, id);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		err = buf_append(out, sqlite3_column_blob(st, 0),
				 (size_t)sqlite3_column_bytes(st, 0));
	else if (code == SQLITE_DONE)
		err = pd_fail(msg, PD_ENOENT, "the store '%.300s' has no run %" PRId64, s->path,
			      id);
	else
		err = store_db_check(s, code, msg);
	(void)sqlite3_finalize(st);
	return err;
}

int store_same(struct store *s, const void *bytes, size_t n, int64_t *id, struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	char hash[STORE_HASH_CAP];
	int code, err = store_db_prepare(s, "SELECT id FROM run WHERE hash = ?1 LIMIT 1", &st, msg);

	*id = 0;
	if (err)
		return err;
	store_db_hash((struct span){bytes, n}, hash);
	bind_text(st, 1, hash);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		*id = sqlite3_column_int64(st, 0);
	err = store_db_check(s, code, msg);
	(void)sqlite3_finalize(st);
	return err;
}

int store_remove(const char *path, const int64_t *ids, size_t n, struct pd_msg *msg)
{
	static const char *const sql[] = {"DELETE FROM metric WHERE run = ?",
					  "DELETE FROM document WHERE run = ?",
					  "DELETE FROM run WHERE id = ?"};
	struct store s = {NULL, ""};
	int err = store_db_make(&s, path, msg);

	if (!err)
		err = store_db_run(&s, "BEGIN IMMEDIATE", msg);
	for (size_t k = 0; !err && k < sizeof(sql) / sizeof(sql[0]); k++) {
		sqlite3_stmt *st = NULL;

		err = store_db_prepare(&s, sql[k], &st, msg);
		for (size_t i = 0; !err && i < n; i++) {
			(void)sqlite3_reset(st);
			(void)sqlite3_bind_int64(st, 1, ids[i]);
			err = store_db_check(&s, sqlite3_step(st), msg);
		}
		(void)sqlite3_finalize(st);
	}
	if (!err)
		err = store_db_run(&s, "COMMIT", msg);
	store_db_close(&s);
	return err;
}
