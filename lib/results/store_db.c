/*
 * Whether an existing file is ours is decided from its first 100 bytes, without SQLite: looking at
 * a foreign file must not change it. Tables are made inside a transaction that looks again, because
 * two first runs may start at once. The write-ahead log is asked for at every opening and is no
 * condition: where the file system cannot do it the rollback journal does the same, slower.
 */
#include "lib/results/store_db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/base/file.h"
#include "lib/results/store.h"

#define HEADER	       100 /* of an SQLite file */
#define HEADER_VERSION 60
#define HEADER_APP     68
#define HEADER_BYTES   4

static const char schema[] =
	"CREATE TABLE run ("
	" id INTEGER PRIMARY KEY AUTOINCREMENT, saved_ns INTEGER NOT NULL, tool TEXT, label TEXT,"
	" model TEXT, backend TEXT, date TEXT, commit_id TEXT, request_rate REAL, concurrency REAL,"
	" requests REAL, completed REAL, failed REAL, duration REAL, mean_ttft_ms REAL,"
	" p99_ttft_ms REAL, mean_tpot_ms REAL, request_throughput REAL, client_ok INTEGER,"
	" hash TEXT NOT NULL, bytes INTEGER NOT NULL);"
	"CREATE INDEX run_label ON run(label);"
	"CREATE INDEX run_hash ON run(hash);"
	"CREATE TABLE document (run INTEGER PRIMARY KEY REFERENCES run(id), text BLOB NOT NULL);"
	"CREATE TABLE metric (name TEXT NOT NULL, run INTEGER NOT NULL REFERENCES run(id),"
	" value REAL NOT NULL, PRIMARY KEY (name, run)) WITHOUT ROWID;";

static int system_error(const char *path, const char *verb, struct pd_msg *msg)
{
	char text[128];
	int errnum = errno;

	return pd_fail(msg, errnum == ENOENT ? PD_ENOENT : PD_EIO, "cannot %s '%.300s': %s", verb,
		       path, pd_errno_text(errnum, text, sizeof(text)));
}

static uint32_t big_endian(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
	       p[HEADER_BYTES - 1];
}

/* An empty file is a new one. */
static int look(const char *path, int fd, struct pd_msg *msg)
{
	unsigned char head[HEADER];
	const char *what = NULL;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return system_error(path, "examine", msg);
	n = S_ISREG(st.st_mode) ? pread(fd, head, sizeof(head), 0) : HEADER;
	if (n == 0)
		return PD_OK;
	if (!S_ISREG(st.st_mode))
		what = "not a regular file";
	else if (n < HEADER || memcmp(head, "SQLite format 3", sizeof("SQLite format 3")) != 0)
		what = "not an SQLite database";
	else if (big_endian(head + HEADER_APP) != STORE_APPLICATION_ID)
		what = "an SQLite database but not a store of results";
	else if (big_endian(head + HEADER_VERSION) != STORE_VERSION)
		what = "a store of another version of pdctl";
	if (what)
		return pd_fail(
			msg, PD_EINVAL,
			"'%.300s' is %s, expected a new file or a store of results of version "
			"%d; it was not changed",
			path, what, STORE_VERSION);
	return PD_OK;
}

static int examine(const char *path, int flags, struct pd_msg *msg)
{
	/* O_NONBLOCK: a pipe would wait for its reader. */
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666), err;

	if (fd < 0)
		return system_error(path, "open the store", msg);
	err = look(path, fd, msg);
	(void)close(fd);
	return err;
}

void store_db_hash(struct span text, char out[STORE_HASH_CAP])
{
	XXH128_hash_t hash;

	while (text.n > 0 && strchr(" \t\r\n", text.p[text.n - 1]))
		text.n--;
	hash = XXH3_128bits(text.p, text.n);
	(void)snprintf(out, STORE_HASH_CAP, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
}

int store_db_check(const struct store *s, int code, struct pd_msg *msg)
{
	int err = PD_EIO, errnum;
	char text[128];

	if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE)
		return PD_OK;
	if (code == SQLITE_NOMEM || !s->lite)
		return pd_fail(msg, PD_ENOMEM, "store '%.300s': out of memory", s->path);
	if ((code & 0xff) == SQLITE_BUSY)
		err = PD_EBUSY;
	if ((code & 0xff) == SQLITE_TOOBIG)
		err = PD_ETOOBIG;
	errnum = sqlite3_system_errno(s->lite);
	return pd_fail(msg, err, "store '%.300s': %s%s%s", s->path, sqlite3_errmsg(s->lite),
		       errnum ? ": " : "", errnum ? pd_errno_text(errnum, text, sizeof(text)) : "");
}

int store_db_run(const struct store *s, const char *sql, struct pd_msg *msg)
{
	return store_db_check(s, sqlite3_exec(s->lite, sql, NULL, NULL, NULL), msg);
}

int store_db_prepare(const struct store *s, const char *sql, sqlite3_stmt **out, struct pd_msg *msg)
{
	return store_db_check(s, sqlite3_prepare_v2(s->lite, sql, -1, out, NULL), msg);
}

static int version_of(const struct store *s, int *version, struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int err = store_db_prepare(s, "PRAGMA user_version", &st, msg);

	if (!err)
		err = store_db_check(s, sqlite3_step(st), msg);
	if (!err)
		*version = sqlite3_column_int(st, 0);
	(void)sqlite3_finalize(st);
	return err;
}

static int make_tables(const struct store *s, struct pd_msg *msg)
{
	char marks[128];
	int version = 0, err = version_of(s, &version, msg);

	if (err || version == STORE_VERSION)
		return err;
	err = store_db_run(s, "BEGIN IMMEDIATE", msg);
	if (err)
		return err;
	err = version_of(s, &version, msg);
	(void)snprintf(marks, sizeof(marks), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		       STORE_APPLICATION_ID, STORE_VERSION);
	if (!err && version != STORE_VERSION) {
		err = store_db_run(s, schema, msg);
		if (!err)
			err = store_db_run(s, marks, msg);
	}
	if (!err)
		return store_db_run(s, "COMMIT", msg);
	(void)sqlite3_exec(s->lite, "ROLLBACK", NULL, NULL, NULL);
	return err;
}

/* The last folder of the path; results/ also says to git that a store is no source. */
static int make_folder(const char *path, struct pd_msg *msg)
{
	static const char ignore[] = "pdctl.db*\n.gitignore\n";
	const char *slash = strrchr(path, '/');
	char folder[512];
	int fd;

	if (!slash || slash == path)
		return PD_OK;
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	if (mkdir(folder, 0777) < 0 && errno != EEXIST)
		return system_error(folder, "make the folder", msg);
	if (strcmp(path, STORE_DEFAULT) != 0 || access(path, F_OK) == 0)
		return PD_OK;
	(void)snprintf(folder, sizeof(folder), "%.*s/.gitignore", (int)(slash - path), path);
	fd = open(folder, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return PD_OK; /* the user has one, or git is nobody's concern here */
	if (file_write_fd(fd, ignore, sizeof(ignore) - 1))
		(void)unlink(folder);
	(void)close(fd);
	return PD_OK;
}

static int connect_file(struct store *s, const char *path, int flags, struct pd_msg *msg)
{
	if (strlen(path) >= sizeof(s->path))
		return pd_fail(msg, PD_ETOOBIG, "the name of the store is longer than %zu bytes",
			       sizeof(s->path) - 1);
	memcpy(s->path, path, strlen(path) + 1);
	return store_db_check(s, sqlite3_open_v2(path, &s->lite, flags, NULL), msg);
}

int store_db_make(struct store *s, const char *path, struct pd_msg *msg)
{
	int err;

	memset(s, 0, sizeof(*s));
	err = make_folder(path, msg);
	if (!err)
		err = examine(path, O_RDWR | O_CREAT, msg);
	if (!err)
		err = connect_file(s, path, SQLITE_OPEN_READWRITE, msg);
	if (!err)
		err = store_db_check(s, sqlite3_busy_timeout(s->lite, STORE_BUSY_MS), msg);
	if (!err)
		err = make_tables(s, msg);
	if (!err)
		(void)sqlite3_exec(s->lite,
				   "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", NULL,
				   NULL, NULL);
	if (err)
		store_db_close(s);
	return err;
}

/* A log that nobody can write (a folder that is read-only) is left alone: then the file alone
 * counts. */
static int readable(struct store *s, struct pd_msg *msg)
{
	char uri[sizeof(s->path) + 64];
	size_t n;

	if (sqlite3_exec(s->lite, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL) ==
	    SQLITE_OK)
		return PD_OK;
	if (strpbrk(s->path, "?#%"))
		return store_db_check(s, sqlite3_errcode(s->lite), msg);
	n = (size_t)snprintf(uri, sizeof(uri), "file:%s?immutable=1", s->path);
	(void)sqlite3_close(s->lite);
	s->lite = NULL;
	return n >= sizeof(uri)
		       ? PD_ETOOBIG
		       : store_db_check(s,
					sqlite3_open_v2(uri, &s->lite,
							SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
							NULL),
					msg);
}

int store_db_read(struct store *s, const char *path, struct pd_msg *msg)
{
	int err;

	memset(s, 0, sizeof(*s));
	err = examine(path, O_RDONLY, msg);
	if (!err)
		err = connect_file(s, path, SQLITE_OPEN_READONLY, msg);
	if (!err)
		err = store_db_check(s, sqlite3_busy_timeout(s->lite, STORE_BUSY_MS), msg);
	if (!err)
		err = readable(s, msg);
	if (err)
		store_db_close(s);
	return err;
}

void store_db_close(struct store *s)
{
	(void)sqlite3_close(s->lite);
	s->lite = NULL;
}
