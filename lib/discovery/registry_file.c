#include "lib/discovery/registry_file.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/registry.h"

#define APPLICATION_ID 0x70647267 /* "pdrg" */
#define BUSY_MS	       5000

struct registry_file {
	sqlite3 *db;
	sqlite3_stmt *write, *remove, *beat;
	char path[512];
};

static int broken(const struct registry_file *f, const char *what, struct pd_msg *msg)
{
	return pd_fail(msg, PD_EIO, "cannot %s '%.200s': %.200s", what, f->path,
		       f->db ? sqlite3_errmsg(f->db) : "out of memory");
}

static int number_of(struct registry_file *f, const char *sql, int *out)
{
	sqlite3_stmt *s = NULL;
	bool good = sqlite3_prepare_v2(f->db, sql, -1, &s, NULL) == SQLITE_OK &&
		    sqlite3_step(s) == SQLITE_ROW;

	*out = good ? sqlite3_column_int(s, 0) : 0;
	(void)sqlite3_finalize(s);
	return good ? PD_OK : PD_EIO;
}

/* A new database, or one of ours. */
static int prepare(struct registry_file *f, struct pd_msg *msg)
{
	int id = 0, tables = 0;

	(void)sqlite3_busy_timeout(f->db, BUSY_MS);
	if (number_of(f, "PRAGMA application_id", &id) ||
	    number_of(f, "SELECT count(*) FROM sqlite_master", &tables))
		return sqlite3_errcode(f->db) == SQLITE_NOTADB
			       ? pd_fail(msg, PD_EINVAL,
					 "'%.200s': found no SQLite database, expected one of a "
					 "registry",
					 f->path)
			       : broken(f, "read", msg);
	if (id != APPLICATION_ID && (id != 0 || tables > 0))
		return pd_fail(msg, PD_EINVAL,
			       "'%.200s': found a database of something else, expected one of a "
			       "registry",
			       f->path);
	if (sqlite3_exec(
		    f->db,
		    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
		    "PRAGMA application_id=1885631079;"
		    "CREATE TABLE IF NOT EXISTS service (name TEXT PRIMARY KEY, host TEXT, port "
		    "INTEGER, hostname TEXT, url TEXT, status TEXT, metadata TEXT, registered "
		    "REAL, heartbeat REAL) WITHOUT ROWID",
		    NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v3(f->db, "INSERT OR REPLACE INTO service VALUES (?,?,?,?,?,?,?,?,?)",
			       -1, SQLITE_PREPARE_PERSISTENT, &f->write, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v3(f->db, "DELETE FROM service WHERE name = ?", -1,
			       SQLITE_PREPARE_PERSISTENT, &f->remove, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v3(f->db,
			       "UPDATE service SET status = ?2, heartbeat = ?3 WHERE name = ?1", -1,
			       SQLITE_PREPARE_PERSISTENT, &f->beat, NULL) != SQLITE_OK)
		return broken(f, "write", msg);
	return PD_OK;
}

static char *column(sqlite3_stmt *s, int i)
{
	const unsigned char *text = sqlite3_column_text(s, i);

	return strdup(text ? (const char *)text : "");
}

static struct registry_service *row(sqlite3_stmt *s)
{
	struct registry_service *one = calloc(1, sizeof(*one));
	char *status;

	if (!one)
		return NULL;
	one->name = column(s, 0);
	one->host = column(s, 1);
	one->port = (uint16_t)sqlite3_column_int(s, 2);
	one->hostname = column(s, 3);
	one->url = column(s, 4);
	status = column(s, 5);
	(void)snprintf(one->status, sizeof(one->status), "%s", status ? status : "");
	free(status);
	one->metadata = column(s, 6);
	one->registered = sqlite3_column_double(s, 7);
	one->last_heartbeat = sqlite3_column_double(s, 8);
	if (one->name && one->host && one->hostname && one->url && one->metadata)
		return one;
	registry_service_free(one);
	return NULL;
}

static int load(struct registry_file *f, struct registry_table *t, struct pd_msg *msg)
{
	sqlite3_stmt *s = NULL;
	int step = sqlite3_prepare_v2(f->db, "SELECT * FROM service ORDER BY name", -1, &s, NULL);

	if (step == SQLITE_OK)
		while ((step = sqlite3_step(s)) == SQLITE_ROW && t->n < REGISTRY_SERVICES_MAX) {
			t->service[t->n] = row(s);
			if (!t->service[t->n])
				break;
			t->n++;
		}
	(void)sqlite3_finalize(s);
	return step == SQLITE_DONE || t->n == REGISTRY_SERVICES_MAX ? PD_OK
								    : broken(f, "read", msg);
}

int registry_file_open(struct registry_file **out, const char *path, struct registry_table *t,
		       struct pd_msg *msg)
{
	struct registry_file *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	(void)snprintf(f->path, sizeof(f->path), "%s", path);
	err = sqlite3_open(path, &f->db) == SQLITE_OK ? PD_OK : broken(f, "open", msg);
	err = err ? err : prepare(f, msg);
	err = err ? err : load(f, t, msg);
	if (err) {
		registry_file_close(f);
		return err;
	}
	*out = f;
	return PD_OK;
}

void registry_file_close(struct registry_file *f)
{
	if (!f)
		return;
	(void)sqlite3_finalize(f->write);
	(void)sqlite3_finalize(f->remove);
	(void)sqlite3_finalize(f->beat);
	(void)sqlite3_close(f->db);
	free(f);
}

static int run(struct registry_file *f, sqlite3_stmt *s, struct pd_msg *msg)
{
	int step = sqlite3_step(s), err = step == SQLITE_DONE ? PD_OK : broken(f, "write", msg);

	(void)sqlite3_reset(s);
	(void)sqlite3_clear_bindings(s);
	return err;
}

static void bind_text(sqlite3_stmt *s, int i, const char *text)
{
	(void)sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
}

int registry_file_write(struct registry_file *f, const struct registry_service *s,
			struct pd_msg *msg)
{
	bind_text(f->write, 1, s->name);
	bind_text(f->write, 2, s->host);
	(void)sqlite3_bind_int(f->write, 3, s->port);
	bind_text(f->write, 4, s->hostname);
	bind_text(f->write, 5, s->url);
	bind_text(f->write, 6, s->status);
	bind_text(f->write, 7, s->metadata);
	(void)sqlite3_bind_double(f->write, 8, s->registered);
	(void)sqlite3_bind_double(f->write, 9, s->last_heartbeat);
	return run(f, f->write, msg);
}

int registry_file_remove(struct registry_file *f, const char *name, struct pd_msg *msg)
{
	bind_text(f->remove, 1, name);
	return run(f, f->remove, msg);
}

int registry_file_heartbeats(struct registry_file *f, const struct registry_table *t,
			     struct pd_msg *msg)
{
	int err = PD_OK;

	if (sqlite3_exec(f->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return broken(f, "write", msg);
	for (size_t i = 0; !err && i < t->n; i++) {
		bind_text(f->beat, 1, t->service[i]->name);
		bind_text(f->beat, 2, t->service[i]->status);
		(void)sqlite3_bind_double(f->beat, 3, t->service[i]->last_heartbeat);
		err = run(f, f->beat, msg);
	}
	if (sqlite3_exec(f->db, err ? "ROLLBACK" : "COMMIT", NULL, NULL, NULL) != SQLITE_OK && !err)
		err = broken(f, "write", msg);
	return err;
}
