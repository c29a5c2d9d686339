/*
 * The capture file. A new one gets its tables in one transaction with a rollback journal, so that
 * the header of the file says what it is before anything else happens; then it is switched to a
 * write-ahead log: readers do not disturb the writer, and after kill -9 everything up to the last
 * transaction is there.
 *
 * Whether an existing file is ours is decided from its first 100 bytes, without SQLite: looking at
 * a foreign file must not change it.
 */
#include "lib/router/capture/capture_db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/rng.h"

#define PAGE	       4096
#define CHECKPOINT     4000	  /* pages of log before they go into the file */
#define LOG_KEEP       (64 << 20) /* bytes of log that are kept for reuse */
#define BUSY_MS	       5000
#define LOOK_AGAIN     NS_PER_S
#define HEADER	       100 /* of an SQLite file */
#define HEADER_VERSION 60
#define HEADER_APP     68
#define TEN	       "?,?,?,?,?,?,?,?,?,?"
#define SECRET	       32
#define PSEUDONYM      16 /* bytes of a hashed key; twice as many digits */

enum statement {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_RUN,
	SQL_ENDED,
	SQL_FLEET,
	SQL_WORKER,
	SQL_AVAILABLE,
	SQL_REQUEST,
	SQL_DECISION,
	SQL_RELEASE,
	SQL_DROPPED,
	STATEMENTS
};

static const char *const sql[STATEMENTS] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_RUN] = "INSERT INTO run VALUES (NULL,?,?,NULL,?,?,?,?,?,?,?)",
	[SQL_ENDED] = "UPDATE run SET ended_ns = ?2 WHERE id = ?1",
	[SQL_FLEET] = "INSERT INTO fleet VALUES (?,?,?,?,?,?)",
	[SQL_WORKER] = "INSERT INTO worker VALUES (?,?,?,?,?,?,?,?)",
	[SQL_AVAILABLE] = "INSERT INTO availability VALUES (?,?,?,?,?,?)",
	[SQL_REQUEST] = "INSERT INTO request VALUES (" TEN "," TEN "," TEN ",?,?,?,?,?,?,?,?,?)",
	[SQL_DECISION] = "INSERT INTO decision VALUES (NULL," TEN "," TEN ",?,?,?,?,?,?,?,?,?)",
	[SQL_RELEASE] = "INSERT INTO release VALUES (?,?,?,?,?,?,?,?,?)",
	[SQL_DROPPED] = "INSERT INTO dropped VALUES (?,?,?,?,?,?)",
};

struct capture_db {
	const struct capture_config *cfg; /* borrowed */
	const struct router_config *rc;
	sqlite3 *lite;
	sqlite3_stmt *st[STATEMENTS];
	int64_t run;	  /* 0: not in the file yet */
	int64_t run_open; /* of the transaction that is open */
	int64_t start_ns, start_wall, wall_offset;
	dev_t device; /* of the file when it was opened */
	ino_t inode;
	int64_t looked_at;
	/* What the last decision of each role in this transaction says of its workers. */
	size_t nusable[ROLES];
	uint64_t usable[ROLES][ROUTE_WORKERS_MAX / 64];
	unsigned char secret[SECRET]; /* of hashed keys; of this run, kept nowhere */
};

/* -- opening -- */

static uint32_t big_endian(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int foreign(const char *path, const char *what, struct pd_msg *msg)
{
	return pd_fail(msg, PD_EINVAL,
		       "'%.300s' is %s, expected a new file or a capture of version %d; it was not "
		       "changed",
		       path, what, CAPTURE_VERSION);
}

/* An empty file is a new one. */
static int look(const char *path, int fd, bool *fresh, struct pd_msg *msg)
{
	unsigned char head[HEADER];
	char text[128];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return foreign(path, "not a regular file", msg);
	n = pread(fd, head, sizeof(head), 0);
	*fresh = n == 0;
	if (n == 0)
		return PD_OK;
	if (n < HEADER || memcmp(head, "SQLite format 3", 16) != 0)
		return foreign(path, "not an SQLite database", msg);
	if (big_endian(head + HEADER_APP) != CAPTURE_APPLICATION_ID)
		return foreign(path, "an SQLite database but not a capture", msg);
	if (big_endian(head + HEADER_VERSION) == CAPTURE_VERSION)
		return PD_OK;
	(void)snprintf(text, sizeof(text), "a capture of version %" PRIu32,
		       big_endian(head + HEADER_VERSION));
	return foreign(path, text, msg);
}

static int system_error(const char *path, struct pd_msg *msg)
{
	char text[128];
	int errnum = errno;

	return pd_fail(msg, PD_EINVAL, "cannot open '%.300s' for a capture: %s", path,
		       pd_errno_text(errnum, text, sizeof(text)));
}

/* A capture contains session keys: a new file is readable by its owner only. */
static int examine(const char *path, bool *fresh, struct pd_msg *msg)
{
	int fd, err;

	if (!*path)
		return pd_fail(msg, PD_EINVAL, "found an empty name, expected a file");
	/* O_NONBLOCK: a pipe would wait for its reader. */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, S_IRUSR | S_IWUSR);
	if (fd < 0)
		return system_error(path, msg);
	err = look(path, fd, fresh, msg);
	(void)close(fd);
	return err;
}

static int lite_error(const struct capture_db *db, struct pd_msg *msg)
{
	int code = sqlite3_extended_errcode(db->lite) & 0xff, err = PD_EIO;
	const char *hint = code == SQLITE_FULL && db->cfg->max_bytes > 0
				   ? " (or the file has reached --capture-max-bytes)"
				   : "";
	char text[128];
	int errnum = sqlite3_system_errno(db->lite);

	if (code == SQLITE_NOMEM)
		err = PD_ENOMEM;
	if (code != SQLITE_IOERR || errnum == 0)
		return pd_fail(msg, err, "%s%s", sqlite3_errmsg(db->lite), hint);
	return pd_fail(msg, err, "%s: %s", sqlite3_errmsg(db->lite),
		       pd_errno_text(errnum, text, sizeof(text)));
}

static int run_sql(struct capture_db *db, const char *text, struct pd_msg *msg)
{
	return sqlite3_exec(db->lite, text, NULL, NULL, NULL) == SQLITE_OK ? PD_OK
									   : lite_error(db, msg);
}

static int create_tables(struct capture_db *db, struct pd_msg *msg)
{
	char text[128];
	int err;

	(void)snprintf(text, sizeof(text), "PRAGMA page_size = %d", PAGE);
	err = run_sql(db, text, msg);
	err = err ? err : run_sql(db, "BEGIN IMMEDIATE", msg);
	err = err ? err : run_sql(db, CAPTURE_SCHEMA, msg);
	(void)snprintf(text, sizeof(text), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		       CAPTURE_APPLICATION_ID, CAPTURE_VERSION);
	err = err ? err : run_sql(db, text, msg);
	return err ? err : run_sql(db, "COMMIT", msg);
}

static int settings(struct capture_db *db, struct pd_msg *msg)
{
	char text[256];
	int err;

	(void)snprintf(text, sizeof(text),
		       "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
		       "PRAGMA wal_autocheckpoint = %d; PRAGMA journal_size_limit = %d",
		       CHECKPOINT, LOG_KEEP);
	err = run_sql(db, text, msg);
	/* References are checked when they are made, by the order of our own writes; the engine
	 * need not look them up for every row. */
	err = err ? err : run_sql(db, "PRAGMA foreign_keys = OFF", msg);
	if (err || db->cfg->max_bytes <= 0)
		return err;
	(void)snprintf(text, sizeof(text), "PRAGMA max_page_count = %" PRId64,
		       db->cfg->max_bytes / PAGE > 0 ? db->cfg->max_bytes / PAGE : 1);
	return run_sql(db, text, msg);
}

/* Can it be written? And does every statement fit the tables that are there? */
static int prepare(struct capture_db *db, struct pd_msg *msg)
{
	int err = run_sql(db, "BEGIN IMMEDIATE; ROLLBACK", msg);

	for (int i = 0; !err && i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(db->lite, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &db->st[i],
				       NULL) != SQLITE_OK)
			err = lite_error(db, msg);
	return err;
}

/* SQLite takes ":memory:" and the like for something else than a file. */
static int open_lite(struct capture_db *db, struct pd_msg *msg)
{
	const char *path = db->cfg->path;
	char plain[4096];
	int n = snprintf(plain, sizeof(plain), "%s%s", path[0] == '/' ? "" : "./", path);

	if (n < 0 || (size_t)n >= sizeof(plain))
		return pd_fail(msg, PD_EINVAL, "the file name is too long");
	if (sqlite3_open_v2(plain, &db->lite,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			    NULL) != SQLITE_OK)
		return db->lite ? lite_error(db, msg) : pd_fail(msg, PD_ENOMEM, "out of memory");
	(void)sqlite3_busy_timeout(db->lite, BUSY_MS);
	return PD_OK;
}

int capture_db_open(struct capture_db **out, const struct capture_config *c, struct pd_msg *msg)
{
	struct capture_db *db = calloc(1, sizeof(*db));
	struct pd_msg inner = {0};
	struct stat st = {0};
	bool fresh = false;
	int err;

	*out = NULL;
	if (!db)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	db->cfg = c;
	err = examine(c->path, &fresh, msg);
	if (err) {
		free(db);
		return err;
	}
	db->start_ns = clock_now();
	db->start_wall = clock_wall();
	rng_system_bytes(db->secret, sizeof(db->secret));
	err = open_lite(db, &inner);
	err = err || !fresh ? err : create_tables(db, &inner);
	err = err ? err : settings(db, &inner);
	err = err ? err : prepare(db, &inner);
	if (!err && stat(c->path, &st))
		err = pd_fail(&inner, PD_EIO, "the file was deleted");
	if (err) {
		capture_db_close(db);
		if (fresh)
			(void)unlink(c->path);
		return pd_fail(msg, err, "cannot use '%.200s' for a capture: %.250s", c->path,
			       inner.text);
	}
	db->device = st.st_dev;
	db->inode = st.st_ino;
	*out = db;
	return PD_OK;
}

void capture_db_close(struct capture_db *db)
{
	if (!db)
		return;
	for (int i = 0; i < STATEMENTS; i++)
		(void)sqlite3_finalize(db->st[i]);
	(void)sqlite3_close(db->lite);
	free(db);
}

void capture_db_describe(struct capture_db *db, const struct router_config *rc)
{
	db->rc = rc;
}

/* -- rows -- */

/* Parameters are bound one after the other. */
struct row {
	sqlite3_stmt *st;
	int at;
};

static struct row row_of(struct capture_db *db, enum statement s)
{
	return (struct row){db->st[s], 0};
}

static void put_int(struct row *r, int64_t v)
{
	(void)sqlite3_bind_int64(r->st, ++r->at, v);
}

static void put_null(struct row *r)
{
	(void)sqlite3_bind_null(r->st, ++r->at);
}

static void put_known(struct row *r, bool known, int64_t v)
{
	if (known)
		put_int(r, v);
	else
		put_null(r);
}

static void put_real(struct row *r, double v)
{
	(void)sqlite3_bind_double(r->st, ++r->at, v);
}

/* The text must stay until the step. */
static void put_text(struct row *r, const char *p, size_t n)
{
	if (n > 0)
		(void)sqlite3_bind_text(r->st, ++r->at, p, (int)n, SQLITE_STATIC);
	else
		put_null(r);
}

static void put_word(struct row *r, const char *word)
{
	put_text(r, word, strlen(word));
}

/* With the parameters that the run's row does not tell. */
static void put_policy(struct row *r, const struct route_spec *s, const struct route_settings *all)
{
	static const char *const told[] = {"ring-hash", "virtual-nodes"};
	struct route_settings known = {{NULL}};
	struct buf b;

	buf_init(&b, 2 * ROUTE_SPEC_MAX);
	for (size_t i = 0; i < 2; i++)
		if (route_settings_put(&known, told[i], route_setting(all, told[i])))
			break;
	if (route_spec_print(s, &known, &b))
		put_null(r);
	else
		(void)sqlite3_bind_text(r->st, ++r->at, b.data, (int)b.len, SQLITE_TRANSIENT);
	buf_release(&b);
}

static void put_blob(struct row *r, const void *p, size_t n)
{
	if (n > 0)
		(void)sqlite3_bind_blob(r->st, ++r->at, p, (int)n, SQLITE_STATIC);
	else
		put_null(r);
}

static int step(struct capture_db *db, const struct row *r, struct pd_msg *msg)
{
	int err = sqlite3_step(r->st) == SQLITE_DONE ? PD_OK : lite_error(db, msg);

	(void)sqlite3_reset(r->st);
	return err;
}

static int simply(struct capture_db *db, enum statement s, struct pd_msg *msg)
{
	struct row r = row_of(db, s);

	return step(db, &r, msg);
}

static int64_t since_start(const struct capture_db *db, int64_t at)
{
	return at > db->start_ns ? at - db->start_ns : 0;
}

/* -- the run -- */

static int put_run(struct capture_db *db, struct pd_msg *msg)
{
	const char *hash = route_setting(&db->rc->settings, "ring-hash"),
		   *vnodes = route_setting(&db->rc->settings, "virtual-nodes");
	struct row r = row_of(db, SQL_RUN);
	int err;

	put_word(&r, db->rc->version ? db->rc->version : "unknown");
	put_int(&r, db->start_wall);
	put_word(&r, db->rc->pd ? "prefill/decode" : "regular");
	put_word(&r, hash ? hash : "xxh3");
	put_int(&r, vnodes ? strtol(vnodes, NULL, 10) : 160);
	put_int(&r, (int64_t)db->rc->seed);
	put_word(&r, db->cfg->keys == CAPTURE_KEYS_HASH ? "hash" : "plain");
	put_int(&r, db->cfg->block_tokens);
	put_int(&r, db->cfg->prompts);
	err = step(db, &r, msg);
	if (!err)
		db->run_open = sqlite3_last_insert_rowid(db->lite);
	return err;
}

/* SQLite goes on writing into a file that was unlinked. Checked once a second. */
static int check_place(struct capture_db *db, struct pd_msg *msg)
{
	int64_t now = clock_now();
	struct stat st;

	if (now < db->looked_at + LOOK_AGAIN)
		return PD_OK;
	if (stat(db->cfg->path, &st) || st.st_dev != db->device || st.st_ino != db->inode)
		return pd_fail(msg, PD_ENOENT,
			       "the file was moved, replaced or deleted; restart the router to "
			       "begin a new "
			       "capture");
	db->looked_at = now;
	return PD_OK;
}

int capture_db_begin(struct capture_db *db, struct pd_msg *msg)
{
	int err = check_place(db, msg);

	err = err ? err : simply(db, SQL_BEGIN, msg);

	db->wall_offset = clock_wall() - clock_now();
	memset(db->nusable, 0, sizeof(db->nusable));
	db->run_open = db->run;
	return err || db->run_open ? err : put_run(db, msg);
}

int capture_db_commit(struct capture_db *db, struct pd_msg *msg)
{
	int err = simply(db, SQL_COMMIT, msg);

	if (!err)
		db->run = db->run_open;
	return err;
}

void capture_db_cancel(struct capture_db *db)
{
	if (!sqlite3_get_autocommit(db->lite))
		(void)simply(db, SQL_ROLLBACK, NULL);
}

int capture_db_ended(struct capture_db *db, struct pd_msg *msg)
{
	struct row r = row_of(db, SQL_ENDED);

	put_int(&r, db->run_open);
	put_int(&r, since_start(db, clock_now()));
	return step(db, &r, msg);
}

static int put_worker(struct capture_db *db, const struct fleet *f, int role, size_t i,
		      struct pd_msg *msg)
{
	const struct worker *w = f->pool[role].worker[i];
	struct row r = row_of(db, SQL_WORKER);

	put_int(&r, db->run_open);
	put_int(&r, (int64_t)f->version);
	put_word(&r, worker_role_name((enum worker_role)role));
	put_int(&r, (int64_t)i);
	put_word(&r, w->name);
	put_word(&r, w->url);
	put_int(&r, f->pool[role].ring->worker[i].weight);
	put_int(&r, atomic_load(&f->pool[role].worker[i]->slot.cap));
	return step(db, &r, msg);
}

int capture_db_fleet(struct capture_db *db, const struct fleet *f, int64_t at, struct pd_msg *msg)
{
	struct row r = row_of(db, SQL_FLEET);
	int err;

	put_int(&r, db->run_open);
	put_int(&r, (int64_t)f->version);
	put_int(&r, since_start(db, at));
	for (int role = 0; role < ROLES; role++)
		put_policy(&r, &f->pool[role].ring->state->spec, &db->rc->settings);
	err = step(db, &r, msg);
	for (int role = 0; role < ROLES; role++)
		for (size_t i = 0; !err && i < f->pool[role].n; i++)
			err = put_worker(db, f, role, i, msg);
	return err;
}

int capture_db_available(struct capture_db *db, const struct fleet *f, int64_t at, int role,
			 size_t position, bool available, struct pd_msg *msg)
{
	struct row r = row_of(db, SQL_AVAILABLE);

	put_int(&r, db->run_open);
	put_int(&r, since_start(db, at));
	put_int(&r, (int64_t)f->version);
	put_word(&r, worker_role_name((enum worker_role)role));
	put_int(&r, (int64_t)position);
	put_int(&r, available);
	return step(db, &r, msg);
}

int capture_db_losses(struct capture_db *db, const struct capture_losses *l, struct pd_msg *msg)
{
	static const char *const reasons[CAPTURE_LOSSES] = {"queue_full", "write_error"};
	int err = PD_OK;

	for (int i = 0; !err && i < CAPTURE_LOSSES; i++) {
		struct row r = row_of(db, SQL_DROPPED);

		if (l->n[i][CAPTURE_REQUEST] + l->n[i][CAPTURE_DECISION] +
			    l->n[i][CAPTURE_RELEASE] ==
		    0)
			continue;
		put_int(&r, db->run_open);
		put_int(&r, since_start(db, clock_now()));
		put_word(&r, reasons[i]);
		put_int(&r, (int64_t)l->n[i][CAPTURE_REQUEST]);
		put_int(&r, (int64_t)l->n[i][CAPTURE_DECISION]);
		put_int(&r, (int64_t)l->n[i][CAPTURE_RELEASE]);
		err = step(db, &r, msg);
	}
	return err;
}

/* -- records -- */

static int64_t id_of(const struct capture_db *db, uint64_t request)
{
	return db->run_open * CAPTURE_RUN_IDS + (int64_t)request;
}

/* The workers that could be picked, unless the decision before saw the same ones; and how many
 * requests each had, when something else happened meanwhile. */
static void put_seen(struct capture_db *db, struct row *r, const struct capture_decision *d)
{
	size_t words = ((size_t)d->nworkers + 63) / 64;
	const uint64_t *usable = (const uint64_t *)(d + 1), *tried = usable + words;
	bool any = false;

	for (size_t i = 0; i < 2 * words; i++)
		any |= tried[i] != 0;
	if (db->nusable[d->role] == d->nworkers &&
	    memcmp(db->usable[d->role], usable, words * sizeof(*usable)) == 0) {
		put_null(r);
	} else {
		put_blob(r, usable, words * sizeof(*usable));
		memcpy(db->usable[d->role], usable, words * sizeof(*usable));
		db->nusable[d->role] = d->nworkers;
	}
	put_blob(r, tried, any ? 2 * words * sizeof(*tried) : 0);
	put_blob(r, tried + 2 * words, d->overlapped ? d->nworkers * sizeof(uint32_t) : 0);
}

int capture_db_decision(struct capture_db *db, const struct capture_decision *d, struct pd_msg *msg)
{
	struct row r = row_of(db, SQL_DECISION);

	put_int(&r, db->run_open);
	put_int(&r, id_of(db, d->request));
	put_int(&r, since_start(db, d->at));
	put_int(&r, d->attempt);
	put_word(&r, worker_role_name((enum worker_role)d->role));
	put_int(&r, (int64_t)d->fleet);
	put_int(&r, d->worker);
	put_int(&r, d->home);
	put_word(&r, route_reason_name((enum route_reason)d->reason));
	put_int(&r, d->trial);
	put_int(&r, d->ties);
	put_real(&r, d->score);
	put_real(&r, d->margin);
	for (uint32_t i = 0; i < CAPTURE_CANDIDATES; i++) {
		put_known(&r, i < d->ncandidates, d->candidate[i].worker);
		if (i < d->ncandidates)
			put_real(&r, d->candidate[i].score);
		else
			put_null(&r);
	}
	put_blob(&r, &d->draw, d->has_draw ? sizeof(d->draw) : 0);
	put_int(&r, (int64_t)d->began);
	put_int(&r, (int64_t)d->tick);
	put_int(&r, (int64_t)d->turn);
	put_int(&r, d->turns);
	put_seen(db, &r, d);
	return step(db, &r, msg);
}

int capture_db_release(struct capture_db *db, const struct capture_release *d, struct pd_msg *msg)
{
	struct row r = row_of(db, SQL_RELEASE);

	put_int(&r, db->run_open);
	put_int(&r, id_of(db, d->request));
	put_int(&r, since_start(db, d->at));
	put_word(&r, worker_role_name((enum worker_role)d->role));
	put_int(&r, (int64_t)d->fleet);
	put_int(&r, d->worker);
	put_word(&r, d->computed ? "computed" : "ended");
	put_int(&r, (int64_t)d->began);
	put_int(&r, (int64_t)d->tick);
	return step(db, &r, msg);
}

/* A name for the key that cannot be turned back without this run's secret. */
static size_t pseudonym(const struct capture_db *db, const char *key, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!HMAC(EVP_sha256(), db->secret, sizeof(db->secret), (const unsigned char *)key, n, mac,
		  &len) ||
	    len < PSEUDONYM)
		return 0;
	for (size_t i = 0; i < PSEUDONYM; i++) {
		out[2 * i] = digits[mac[i] >> 4];
		out[2 * i + 1] = digits[mac[i] & 15];
	}
	return (size_t)2 * PSEUDONYM;
}

/* `hidden` keeps the text of a hashed key until the step. */
static void put_key(struct capture_db *db, struct row *r, const struct capture_request *q,
		    const char *key, const char *source, char *hidden)
{
	static const char *const levels[] = {NULL, "prefix", "user", "session"};
	bool hash = q->secret || db->cfg->keys == CAPTURE_KEYS_HASH;
	size_t n = q->len[TEXT_KEY];

	if (n == 0) {
		for (int i = 0; i < 4; i++)
			put_null(r);
		return;
	}
	if (hash)
		put_text(r, hidden, pseudonym(db, key, n, hidden));
	else
		put_text(r, key, n);
	put_word(r, hash ? "hash" : "plain");
	put_word(r, levels[q->level & 3] ? levels[q->level & 3] : "none");
	put_text(r, source, q->len[TEXT_SOURCE]);
}

/* Microseconds after the request's first byte. */
static void put_us(struct row *r, const struct capture_request *q, int64_t at)
{
	put_known(r, at > 0, at > q->accepted ? (at - q->accepted) / NS_PER_US : 0);
}

static void put_times(struct row *r, const struct capture_request *q)
{
	const int64_t at[] = {q->head,	q->body, q->dispatched, q->prefill,
			      q->first, q->last, q->ended};

	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		put_us(r, q, at[i]);
}

static void put_usage(struct row *r, const struct pd_tokens *u)
{
	put_known(r, u->prompt >= 0, u->prompt);
	put_known(r, u->completion >= 0, u->completion);
	put_known(r, u->cached >= 0, u->cached);
}

int capture_db_request(struct capture_db *db, const struct capture_request *q, struct pd_msg *msg)
{
	static const char *const outcomes[] = {"ok", "error", "cut", "client_left", "refused"};
	const uint64_t *blocks = (const uint64_t *)(q + 1);
	const char *at = (const char *)(blocks + q->nblocks + q->nseen), *text[CAPTURE_TEXTS];
	struct row r = row_of(db, SQL_REQUEST);
	char hidden[2 * PSEUDONYM];

	for (int i = 0; i < CAPTURE_TEXTS; i++) {
		text[i] = at;
		at += q->len[i];
	}
	put_int(&r, id_of(db, q->id));
	put_int(&r, db->run_open);
	put_int(&r, since_start(db, q->accepted));
	put_int(&r, q->accepted + db->wall_offset);
	put_known(&r, q->decided > 0, since_start(db, q->decided));
	put_text(&r, text[TEXT_ID], q->len[TEXT_ID]);
	put_word(&r, q->route);
	put_text(&r, text[TEXT_METHOD], q->len[TEXT_METHOD]);
	put_text(&r, text[TEXT_MODEL], q->len[TEXT_MODEL]);
	put_key(db, &r, q, text[TEXT_KEY], text[TEXT_SOURCE], hidden);
	put_int(&r, (int64_t)q->body_bytes);
	put_known(&r, q->prompt_bytes >= 0, q->prompt_bytes);
	put_known(&r, q->max_tokens >= 0, q->max_tokens);
	put_int(&r, q->streaming);
	put_int(&r, q->status);
	put_word(&r, outcomes[q->outcome]);
	put_text(&r, text[TEXT_ERROR], q->len[TEXT_ERROR]);
	put_int(&r, q->attempts);
	put_int(&r, q->decisions);
	put_times(&r, q);
	put_int(&r, (int64_t)q->events);
	put_int(&r, (int64_t)q->bytes);
	put_usage(&r, &q->usage);
	put_blob(&r, blocks, q->nblocks * sizeof(uint64_t));
	put_blob(&r, text[TEXT_BODY], q->len[TEXT_BODY]);
	put_known(&r, q->tokens > 0, q->tokens);
	put_known(&r, q->output > 0, q->output);
	put_blob(&r, blocks + q->nblocks, q->nseen * sizeof(uint64_t));
	return step(db, &r, msg);
}
