/*
 * Rows become lines of JSON, and the reader of workloads does the rest: one form of a request for
 * all tools, and `gen --from-capture` writes exactly what `simulate` would read.
 */
#include "lib/workload/capture_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"
#include "lib/workload/capture_lite.h"
#include "lib/workload/capture_schema.h"

#define ID_SHIFT 11 /* hash ids of 53 bits: every JSON reader keeps them whole */
#define POOLS	 2

bool capture_file_is(const char *path)
{
	char head[16];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is = fd >= 0 && pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
		  memcmp(head, "SQLite format 3", sizeof(head)) == 0;

	if (fd >= 0)
		(void)close(fd);
	return is;
}

/* -- what the router was -- */

static void copy_word(char *to, size_t cap, const char *word)
{
	size_t n = strlen(word) < cap ? strlen(word) : cap - 1;

	memcpy(to, word, n);
	to[n] = '\0';
}

/* The set of workers with the most decisions, else the first. */
static const char fleet_sql[] =
	"SELECT r.mode, r.ring_hash, r.virtual_nodes, f.version, f.policy, f.prefill_policy,"
	" f.decode_policy FROM run r JOIN fleet f ON f.run = r.id WHERE r.id = ?1 ORDER BY"
	" (SELECT count(*) FROM decision d WHERE d.run = f.run AND d.fleet = f.version) DESC,"
	" f.version LIMIT 1";

static int read_fleet(sqlite3 *lite, const char *path, struct capture_info *i, int64_t *fleet,
		      struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int err = capture_lite_prepare(lite, path, fleet_sql, i->run, &st, msg);

	if (!err && sqlite3_step(st) != SQLITE_ROW)
		err = pd_fail(msg, PD_EINVAL, "the capture '%.300s' records no workers", path);
	if (!err) {
		i->pd = strcmp(capture_lite_text(st, 0), "regular") != 0;
		i->fbi = strcmp(capture_lite_text(st, 1), "fbi") == 0;
		i->vnodes = (unsigned)sqlite3_column_int(st, 2);
		*fleet = sqlite3_column_int64(st, 3);
		for (int r = 0; r < CAPTURE_ROLES; r++)
			copy_word(i->policy[r], sizeof(i->policy[r]), capture_lite_text(st, 4 + r));
	}
	(void)sqlite3_finalize(st);
	return err;
}

static int add_name(struct capture_info *i, const char *role, const char *name)
{
	for (int r = 0; r < CAPTURE_ROLES; r++) {
		char **grown;

		if (strcmp(role, capture_role_names[r]) != 0)
			continue;
		grown = reallocarray(i->names[r], i->n[r] + 1, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		i->names[r] = grown;
		grown[i->n[r]] = strdup(name);
		if (!grown[i->n[r]])
			return PD_ENOMEM;
		i->n[r]++;
	}
	return PD_OK;
}

static int read_names(sqlite3 *lite, const char *path, struct capture_info *i, int64_t fleet,
		      struct pd_msg *msg)
{
	sqlite3_stmt *st = NULL;
	int code = SQLITE_DONE, err;

	err = capture_lite_prepare(
		lite, path,
		"SELECT role, name FROM worker WHERE run = ?1 AND fleet = ?2 ORDER BY role, "
		"position",
		i->run, &st, msg);
	if (!err)
		(void)sqlite3_bind_int64(st, 2, fleet);
	while (!err && (code = sqlite3_step(st)) == SQLITE_ROW)
		err = add_name(i, capture_lite_text(st, 0), capture_lite_text(st, 1));
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory");
	if (!err && code != SQLITE_DONE)
		err = capture_lite_error(lite, path, msg);
	(void)sqlite3_finalize(st);
	return err;
}

int capture_info_read(struct capture_info *out, const char *path, int64_t run, struct pd_msg *msg)
{
	sqlite3 *lite = NULL;
	int64_t fleet = 0;
	int err;

	*out = (struct capture_info){.run = run};
	err = capture_lite_open(&lite, path, NULL, msg);
	if (err)
		goto out;
	err = capture_lite_run(lite, path, &out->run, msg);
	if (err)
		goto out;
	err = read_fleet(lite, path, out, &fleet, msg);
	if (err)
		goto out;
	err = read_names(lite, path, out, fleet, msg);
out:
	(void)sqlite3_close(lite);
	if (err)
		capture_info_release(out);
	return err;
}

void capture_info_release(struct capture_info *i)
{
	for (int r = 0; r < CAPTURE_ROLES; r++) {
		for (size_t k = 0; k < i->n[r]; k++)
			free(i->names[r][k]);
		free(i->names[r]);
	}
	*i = (struct capture_info){0};
}

/* -- requests -- */

enum column {
	COL_ID,
	COL_DECIDED,
	COL_KEY,
	COL_KEY_FORM,
	COL_PROMPT_BYTES,
	COL_PROMPT_TOKENS,
	COL_COMPLETION,
	COL_EVENTS,
	COL_BLOCKS,
	COL_BODY,
	COL_BLOCK_TOKENS,
	COL_ROLE,
	COL_WORKER,
	COL_DRAW
};

/* The first attempt's decisions of a request follow each other. */
static const char requests_sql[] =
	"SELECT r.id, r.decided_ns, r.key, r.key_form, r.prompt_bytes, r.prompt_tokens,"
	" r.completion_tokens, r.events, r.blocks, r.body, u.block_tokens, d.role, w.name, d.draw"
	" FROM request r JOIN run u ON u.id = r.run"
	" LEFT JOIN decision d ON d.request = r.id AND d.attempt = 0"
	" LEFT JOIN worker w ON w.run = d.run AND w.fleet = d.fleet AND w.role = d.role"
	" AND w.position = d.worker"
	" WHERE r.run = ?1 AND r.decided_ns IS NOT NULL ORDER BY r.decided_ns, r.id";

/* The line that is being put together from one or two rows. */
struct line {
	int64_t id; /* 0: none */
	struct buf text, worker[POOLS], draw[POOLS];
};

static bool known(sqlite3_stmt *st, enum column c)
{
	return sqlite3_column_type(st, (int)c) != SQLITE_NULL;
}

static int64_t number(sqlite3_stmt *st, enum column c)
{
	return sqlite3_column_int64(st, (int)c);
}

static int64_t input_length(sqlite3_stmt *st)
{
	int64_t n = number(st, COL_PROMPT_TOKENS);

	if (n <= 0)
		n = (number(st, COL_PROMPT_BYTES) + CAPTURE_CHARS_PER_TOKEN - 1) /
		    CAPTURE_CHARS_PER_TOKEN;
	return n > 0 ? n : 1;
}

/* The last event of a stream says that it is the last. */
static int64_t output_length(sqlite3_stmt *st)
{
	return known(st, COL_COMPLETION) ? number(st, COL_COMPLETION) : number(st, COL_EVENTS) - 1;
}

static int put_blocks(struct buf *out, sqlite3_stmt *st, int64_t tokens)
{
	const unsigned char *p = sqlite3_column_blob(st, COL_BLOCKS);
	int64_t block = number(st, COL_BLOCK_TOKENS), most;
	size_t n = (size_t)sqlite3_column_bytes(st, COL_BLOCKS) / sizeof(uint64_t);
	int err;

	if (block <= 0)
		return PD_OK;
	/* Four bytes per token is a guess; when the engine counted fewer tokens, fewer blocks are
	 * full. */
	most = (tokens + block - 1) / block;
	n = n < (size_t)most ? n : (size_t)most;
	err = buf_printf(out, ",\"block_tokens\":%" PRId64, block);
	for (size_t i = 0; !err && i < n; i++) {
		uint64_t id;

		memcpy(&id, p + i * sizeof(id), sizeof(id));
		err = buf_printf(out, "%s%" PRIu64, i ? "," : ",\"hash_ids\":[", id >> ID_SHIFT);
	}
	return err || n == 0 ? err : buf_putc(out, ']');
}

/* A value of the body in one line: a line end inside valid JSON is white space. */
static int put_member(struct buf *out, const char *name, const struct json_member *m)
{
	int err = buf_printf(out, ",\"%s\":", name);

	for (size_t i = 0; !err && i < m->value.n; i++)
		err = buf_putc(out, m->value.p[i] == '\n' || m->value.p[i] == '\r' ? ' '
										   : m->value.p[i]);
	return err;
}

/* A body that was cut off is no JSON and says nothing. */
static int put_prompt(struct buf *out, sqlite3_stmt *st)
{
	const char *body = sqlite3_column_blob(st, COL_BODY);
	const struct json_member *m;
	struct json_object o;
	int err = PD_OK;

	if (!body || json_object_scan(&o, body, (size_t)sqlite3_column_bytes(st, COL_BODY), NULL))
		return PD_OK;
	m = json_object_get(&o, "messages");
	if (m && m->type == JSON_ARRAY)
		err = put_member(out, "messages", m);
	m = json_object_get(&o, "prompt");
	if (!err && m && (m->type == JSON_ARRAY || m->type == JSON_STRING))
		err = put_member(out, "prompt", m);
	json_object_release(&o);
	return err;
}

static int begin_line(struct line *l, sqlite3_stmt *st, int64_t start)
{
	int64_t at = number(st, COL_DECIDED) - start, tokens = input_length(st),
		made = output_length(st);
	int err;

	l->id = number(st, COL_ID);
	buf_clear(&l->text);
	for (int p = 0; p < POOLS; p++) {
		buf_clear(&l->worker[p]);
		buf_clear(&l->draw[p]);
	}
	err = buf_printf(&l->text,
			 "{\"timestamp\":%" PRId64 ".%06" PRId64 ",\"input_length\":%" PRId64,
			 at / NS_PER_MS, at % NS_PER_MS, tokens);
	if (!err && made > 0)
		err = buf_printf(&l->text, ",\"output_length\":%" PRId64, made);
	if (!err && known(st, COL_KEY)) {
		err = buf_puts(&l->text, ",\"prompt_cache_key\":");
		err = err ? err
			  : json_quote(&l->text, capture_lite_text(st, COL_KEY),
				       (size_t)sqlite3_column_bytes(st, COL_KEY));
		if (!err && strcmp(capture_lite_text(st, COL_KEY_FORM), "hash") == 0)
			err = buf_puts(&l->text, ",\"key_hashed\":true");
	}
	err = err ? err : put_blocks(&l->text, st, tokens);
	return err ? err : put_prompt(&l->text, st);
}

static int add_decision(struct line *l, sqlite3_stmt *st)
{
	int p = strcmp(capture_lite_text(st, COL_ROLE), "decode") == 0;
	const unsigned char *draw = sqlite3_column_blob(st, COL_DRAW);
	size_t n = draw ? (size_t)sqlite3_column_bytes(st, COL_DRAW) : 0;
	int err;

	if (!known(st, COL_WORKER) || l->worker[p].len > 0)
		return PD_OK;
	err = json_quote(&l->worker[p], capture_lite_text(st, COL_WORKER),
			 (size_t)sqlite3_column_bytes(st, COL_WORKER));
	for (size_t i = 0; !err && i < n; i++)
		err = buf_printf(&l->draw[p], "%02x", draw[i]);
	return err;
}

/* [ "first", "second" ]; `quote` around what is not null. */
static int put_pair(struct buf *out, const char *name, const struct buf pair[POOLS],
		    const char *quote)
{
	int err = buf_printf(out, ",\"%s\":[", name);

	for (int p = 0; !err && p < (pair[1].len > 0 ? 2 : 1); p++)
		err = pair[p].len > 0 ? buf_printf(out, "%s%s%s%s", p ? "," : "", quote,
						   pair[p].data, quote)
				      : buf_puts(out, p ? ",null" : "null");
	return err ? err : buf_putc(out, ']');
}

static int end_line(struct line *l, struct buf *out)
{
	int err = PD_OK;

	if (l->id == 0)
		return PD_OK;
	if (l->worker[0].len + l->worker[1].len > 0)
		err = put_pair(&l->text, "picked", l->worker, "");
	if (!err && l->draw[0].len + l->draw[1].len > 0)
		err = put_pair(&l->text, "draws", l->draw, "\"");
	err = err ? err : buf_puts(&l->text, "}\n");
	return err ? err : buf_append(out, l->text.data, l->text.len);
}

static int write_lines(sqlite3 *lite, const char *path, sqlite3_stmt *st, struct line *l,
		       struct buf *out, struct pd_msg *msg)
{
	int64_t start = 0;
	int code, err = PD_OK;

	while ((code = sqlite3_step(st)) == SQLITE_ROW) {
		if (number(st, COL_ID) != l->id) {
			start = l->id ? start : number(st, COL_DECIDED);
			err = end_line(l, out);
			if (err)
				goto too_big;
			err = begin_line(l, st, start);
			if (err)
				goto too_big;
		}
		err = add_decision(l, st);
		if (err)
			goto too_big;
	}
	if (code != SQLITE_DONE)
		return capture_lite_error(lite, path, msg);
	if (l->id == 0)
		return pd_fail(msg, PD_EINVAL,
			       "this run of the capture '%.300s' has no routed request", path);
	err = end_line(l, out);
	if (err)
		goto too_big;
	return PD_OK;
too_big:
	return pd_fail(msg, err, "cannot load the capture '%.300s': %s", path, pd_err_text(err));
}

int capture_to_records(const char *path, int64_t run, struct buf *out, struct pd_msg *msg)
{
	struct line l = {0};
	sqlite3_stmt *st = NULL;
	sqlite3 *lite = NULL;
	int err;

	buf_init(&l.text, out->max);
	for (int p = 0; p < POOLS; p++) {
		buf_init(&l.worker[p], 65536);
		buf_init(&l.draw[p], 1024);
	}
	err = capture_lite_open(&lite, path, NULL, msg);
	if (err)
		goto out;
	err = capture_lite_run(lite, path, &run, msg);
	if (err)
		goto out;
	err = capture_lite_prepare(lite, path, requests_sql, run, &st, msg);
	if (err)
		goto out;
	err = write_lines(lite, path, st, &l, out, msg);
out:
	(void)sqlite3_finalize(st);
	(void)sqlite3_close(lite);
	buf_release(&l.text);
	for (int p = 0; p < POOLS; p++) {
		buf_release(&l.worker[p]);
		buf_release(&l.draw[p]);
	}
	return err;
}
