#include "lib/workload/capture_lite.h"

#include <inttypes.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/workload/capture_schema.h"

const char *const capture_role_names[] = {"regular", "prefill", "decode"};

int capture_lite_error(sqlite3 *lite, const char *path, struct pd_msg *msg)
{
	return pd_fail(msg, PD_EIO, "cannot read the capture '%.300s': %s", path,
		       lite ? sqlite3_errmsg(lite) : "out of memory");
}

/* "file:...?immutable=1": for a folder in which SQLite can put no file of its own. */
static int immutable_name(const char *path, struct buf *out)
{
	int err = buf_puts(out, path[0] == '/' ? "file:" : "file:./");

	for (; !err && *path; path++)
		err = strchr("%?#", *path) ? buf_printf(out, "%%%02x", (unsigned char)*path)
					   : buf_putc(out, *path);
	return err ? err : buf_puts(out, "?immutable=1");
}

static int open_immutable(sqlite3 **lite, const char *path)
{
	struct buf name;
	int code = SQLITE_NOMEM;

	buf_init(&name, 16384);
	(void)sqlite3_close(*lite);
	*lite = NULL;
	if (!immutable_name(path, &name))
		code = sqlite3_open_v2(name.data, lite, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
				       NULL);
	buf_release(&name);
	return code;
}

static int one_number(sqlite3 *lite, const char *sql, int64_t *out)
{
	sqlite3_stmt *st = NULL;
	int code = sqlite3_prepare_v2(lite, sql, -1, &st, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		*out = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return code == SQLITE_ROW ? SQLITE_OK : code;
}

/* Read and write when that is possible: only then SQLite checkpoints the log of a router that was
 * killed. Nothing is changed. */
int capture_lite_open(sqlite3 **lite, const char *path, int64_t *told, struct pd_msg *msg)
{
	int64_t app = 0, version = 0;
	int code = sqlite3_open_v2(path, lite, SQLITE_OPEN_READWRITE, NULL);

	if (code == SQLITE_OK)
		code = one_number(*lite, "PRAGMA application_id", &app);
	if (code == SQLITE_CANTOPEN || code == SQLITE_READONLY) {
		code = open_immutable(lite, path);
		if (code == SQLITE_OK)
			code = one_number(*lite, "PRAGMA application_id", &app);
	}
	if (code == SQLITE_OK)
		code = one_number(*lite, "PRAGMA user_version", &version);
	if (code != SQLITE_OK)
		return capture_lite_error(*lite, path, msg);
	if (app != CAPTURE_APPLICATION_ID)
		return pd_fail(msg, PD_EINVAL,
			       "'%.300s' is an SQLite database but not a capture, expected JSON "
			       "Lines or a capture of pdctl serve",
			       path);
	if (version < CAPTURE_VERSION_MIN || version > CAPTURE_VERSION)
		return pd_fail(msg, PD_EINVAL,
			       "'%.300s' is a capture of version %" PRId64
			       ", expected version %d to %d",
			       path, version, CAPTURE_VERSION_MIN, CAPTURE_VERSION);
	if (told)
		*told = version;
	(void)sqlite3_busy_timeout(*lite, 5000);
	return PD_OK;
}

int capture_lite_prepare(sqlite3 *lite, const char *path, const char *sql, int64_t run,
			 sqlite3_stmt **st, struct pd_msg *msg)
{
	if (sqlite3_prepare_v2(lite, sql, -1, st, NULL) != SQLITE_OK)
		return capture_lite_error(lite, path, msg);
	(void)sqlite3_bind_int64(*st, 1, run);
	return PD_OK;
}

/* The last run, or the one that was asked for. */
int capture_lite_run(sqlite3 *lite, const char *path, int64_t *run, struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int64_t asked = *run, last = 0;
	int err = capture_lite_prepare(
		lite, path, "SELECT id FROM run WHERE ?1 = 0 OR id = ?1 ORDER BY id DESC", asked,
		&st, msg);

	if (!err && sqlite3_step(st) == SQLITE_ROW)
		*run = sqlite3_column_int64(st, 0);
	else if (!err && asked == 0)
		err = pd_fail(msg, PD_EINVAL, "the capture '%.300s' has no run yet", path);
	else if (!err && one_number(lite, "SELECT coalesce(max(id), 0) FROM run", &last))
		err = capture_lite_error(lite, path, msg);
	else if (!err)
		err = pd_fail(msg, PD_EINVAL,
			      "the capture '%.300s' has no run %" PRId64
			      ", expected at most %" PRId64,
			      path, asked, last);
	(void)sqlite3_finalize(st);
	return err;
}

const char *capture_lite_text(sqlite3_stmt *st, int column)
{
	const unsigned char *text = sqlite3_column_text(st, column);

	return text ? (const char *)text : "";
}
