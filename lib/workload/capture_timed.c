/* Token counts are those of `usage`: an answer without them says nothing of its length. */
#include "lib/workload/capture_timed.h"

#include <stdlib.h>
#include <string.h>

#include "lib/workload/capture_lite.h"

/* The worker by its name, so that reloads do not matter. */
static const char busiest_sql[] =
	"SELECT w.name FROM decision d JOIN worker w ON w.run = d.run AND w.fleet = d.fleet AND"
	" w.role = d.role AND w.position = d.worker WHERE d.run = ?1 AND d.role = 'regular'"
	" GROUP BY w.name ORDER BY count(*) DESC, w.name LIMIT 1";

static const char rows_sql[] =
	"SELECT r.arrived_ns + r.dispatch_us * 1000, (r.first_us - r.dispatch_us) * 1000,"
	" (r.last_us - r.dispatch_us) * 1000, r.prompt_tokens, r.completion_tokens FROM request r"
	" JOIN decision d ON d.request = r.id JOIN worker w ON w.run = d.run AND w.fleet = d.fleet"
	" AND w.role = d.role AND w.position = d.worker WHERE r.run = ?1 AND w.name = ?2"
	" AND d.role = 'regular' AND r.outcome = 'ok' AND r.attempts = 1 AND r.streaming = 1"
	" AND r.prompt_tokens > 0 AND r.completion_tokens > 0 AND r.first_us >= r.dispatch_us"
	" AND r.last_us >= r.first_us ORDER BY 1, r.id";

static int find_busiest(sqlite3 *lite, const char *path, int64_t run, char **name,
			struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int err = capture_lite_prepare(lite, path, busiest_sql, run, &st, msg);

	if (!err && sqlite3_step(st) != SQLITE_ROW)
		err = pd_fail(
			msg, PD_EINVAL,
			"%.300s: found no request to a plain pool, expected a capture without "
			"prefill and decode workers",
			path);
	if (!err) {
		*name = strdup(capture_lite_text(st, 0));
		err = *name ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	(void)sqlite3_finalize(st);
	return err;
}

static int read_rows(sqlite3 *lite, const char *path, int64_t run, const char *name,
		     struct capture_timed **out, size_t *n, struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	size_t cap = 0;
	int code = SQLITE_DONE, err = capture_lite_prepare(lite, path, rows_sql, run, &st, msg);

	if (!err)
		(void)sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
	while (!err && (code = sqlite3_step(st)) == SQLITE_ROW) {
		if (*n == cap) {
			struct capture_timed *grown;

			cap = cap ? 2 * cap : 1024;
			grown = reallocarray(*out, cap, sizeof(*grown));
			if (!grown) {
				err = pd_fail(msg, PD_ENOMEM, "out of memory");
				break;
			}
			*out = grown;
		}
		(*out)[(*n)++] = (struct capture_timed){
			.sent_ns = sqlite3_column_int64(st, 0),
			.first_ns = sqlite3_column_int64(st, 1),
			.end_ns = sqlite3_column_int64(st, 2),
			.prompt = sqlite3_column_int64(st, 3),
			.output = sqlite3_column_int64(st, 4),
		};
	}
	if (!err && code != SQLITE_DONE)
		err = capture_lite_error(lite, path, msg);
	(void)sqlite3_finalize(st);
	return err;
}

int capture_timed_read(const char *path, int64_t run, struct capture_timed **out, size_t *n,
		       char **name, struct pd_msg *msg)
{
	sqlite3 *lite = NULL;
	int err;

	*out = NULL;
	*name = NULL;
	*n = 0;
	err = capture_lite_open(&lite, path, NULL, msg);
	err = err ? err : capture_lite_run(lite, path, &run, msg);
	err = err ? err : find_busiest(lite, path, run, name, msg);
	err = err ? err : read_rows(lite, path, run, *name, out, n, msg);
	if (!err && *n == 0)
		err = pd_fail(msg, PD_EINVAL,
			      "%.300s: found no streamed request of '%.200s' with token counts, "
			      "expected answers with usage",
			      path, *name);
	(void)sqlite3_close(lite);
	if (err) {
		free(*out);
		free(*name);
		*out = NULL;
		*name = NULL;
	}
	return err;
}
