/* A run is three inserts in one transaction: its row for lists, the document as it was given, and
 * its numbers by name for histories. The row repeats what lists show, so that a list never touches
 * the documents. */
#include "lib/results/store.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/results/document.h"
#include "lib/results/githead.h"
#include "lib/results/metric_name.h"
#include "lib/results/store_db.h"

#define METRICS_MAX 512 /* numbers kept by name for one run */
#define DOTS_MAX    2	/* deeper figures are found in the document */

struct insert {
	sqlite3_stmt *run, *document, *metric;
};

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	if (text && text[0])
		(void)sqlite3_bind_text(st, at, text, -1, SQLITE_TRANSIENT);
	else
		(void)sqlite3_bind_null(st, at);
}

static void bind_number(sqlite3_stmt *st, int at, double v)
{
	if (isnan(v))
		(void)sqlite3_bind_null(st, at);
	else
		(void)sqlite3_bind_double(st, at, v);
}

static const char *tool_of(const struct result_doc *d)
{
	const char *tool = result_text(d, "pdctl.tool");

	return tool ? tool : result_text(d, "pdctl.kind") ? result_text(d, "pdctl.kind") : "other";
}

static int insert_run(const struct store *s, sqlite3_stmt *st, const struct result_doc *d,
		      struct span text, int64_t wall_ns, const char *commit, struct pd_msg *msg)
{
	static const char *const texts[] = {"label", "model_id", "backend", "date"};
	static const char *const numbers[] = {
		"request_rate", "max_concurrency",   "num_prompts",  "completed",
		"failed",	"duration",	     "mean_ttft_ms", "p99_ttft_ms",
		"mean_tpot_ms", "request_throughput"};
	const struct result_field *ok = result_get(d, "pdctl.client_ok");
	char digits[STORE_HASH_CAP];
	int at = 1;

	(void)sqlite3_reset(st);
	(void)sqlite3_bind_int64(st, at++, wall_ns);
	bind_text(st, at++, tool_of(d));
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		bind_text(st, at++, result_text(d, texts[i]));
	bind_text(st, at++, commit);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		bind_number(st, at++, result_number(d, numbers[i]));
	bind_number(st, at++, ok && ok->type == RESULT_BOOL ? ok->number : (double)NAN);
	store_db_hash(text, digits);
	bind_text(st, at++, digits);
	(void)sqlite3_bind_int64(st, at, (int64_t)text.n);
	return store_db_check(s, sqlite3_step(st), msg);
}

static int insert_document(const struct store *s, sqlite3_stmt *st, int64_t id, struct span text,
			   struct pd_msg *msg)
{
	int err;

	(void)sqlite3_reset(st);
	(void)sqlite3_bind_int64(st, 1, id);
	err = store_db_check(s, sqlite3_bind_blob64(st, 2, text.p, text.n, SQLITE_STATIC), msg);
	return err ? err : store_db_check(s, sqlite3_step(st), msg);
}

static bool worth_keeping(const struct result_field *f)
{
	size_t dots = 0;

	for (const char *p = f->name; *p; p++)
		dots += *p == '.';
	return f->type == RESULT_NUMBER && isfinite(f->number) && dots <= DOTS_MAX;
}

static int insert_metrics(const struct store *s, sqlite3_stmt *st, int64_t id,
			  const struct result_doc *d, struct pd_msg *msg)
{
	size_t kept = 0;
	int err = PD_OK;

	for (size_t i = 0; !err && i < d->n && kept < METRICS_MAX; i++) {
		if (!worth_keeping(&d->field[i]))
			continue;
		kept++;
		(void)sqlite3_reset(st);
		bind_text(st, 1, d->field[i].name);
		(void)sqlite3_bind_int64(st, 2, id);
		(void)sqlite3_bind_double(st, 3, d->field[i].number);
		err = store_db_check(s, sqlite3_step(st), msg);
	}
	return err;
}

static int prepare(const struct store *s, struct insert *in, struct pd_msg *msg)
{
	int err = store_db_prepare(s,
				   "INSERT INTO run VALUES "
				   "(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
				   &in->run, msg);

	if (!err)
		err = store_db_prepare(s, "INSERT INTO document VALUES (?,?)", &in->document, msg);
	if (!err)
		err = store_db_prepare(s, "INSERT OR REPLACE INTO metric VALUES (?,?,?)",
				       &in->metric, msg);
	return err;
}

static int insert_all(const struct store *s, const struct insert *in, const struct result_set *set,
		      const struct span *doc, int64_t wall_ns, int64_t *first, struct pd_msg *msg)
{
	char commit[GITHEAD_CAP];
	int err = PD_OK;

	githead(".", commit);
	for (size_t i = 0; !err && i < set->n; i++) {
		const struct result_doc *d = &set->doc[i];
		int64_t id;

		err = insert_run(s, in->run, d, doc[i], wall_ns, commit, msg);
		id = sqlite3_last_insert_rowid(s->lite);
		if (!err && i == 0)
			*first = id;
		if (!err)
			err = insert_document(s, in->document, id, doc[i], msg);
		if (!err)
			err = insert_metrics(s, in->metric, id, d, msg);
	}
	return err;
}

/* Each text must be one object with a metric in it. */
static int read_all(struct result_set *set, const struct span *doc, size_t n, struct pd_msg *msg)
{
	int err = n > STORE_DOCUMENTS_MAX ? PD_ETOOBIG : PD_OK;

	for (size_t i = 0; !err && i < n; i++) {
		if (doc[i].n > STORE_DOCUMENT_MAX)
			return pd_fail(msg, PD_ETOOBIG,
				       "the document has %zu bytes, a store takes at most %d",
				       doc[i].n, STORE_DOCUMENT_MAX);
		err = result_parse(set, "document", doc[i], msg);
		if (!err && set->n != i + 1)
			err = pd_fail(msg, PD_EINVAL,
				      "the document holds %zu results, expected one", set->n - i);
		if (!err && !result_has_metric(&set->doc[i]))
			err = pd_fail(msg, PD_EINVAL,
				      "the document holds no benchmark result: found no metric, "
				      "expected keys such as mean_ttft_ms or request_throughput");
	}
	return err;
}

int store_save(const char *path, const struct span *doc, size_t n, int64_t wall_ns, int64_t *first,
	       struct pd_msg *msg)
{
	struct insert in = {NULL, NULL, NULL};
	struct store s = {NULL, ""};
	struct result_set set;
	int64_t id = 0;
	int err;

	result_set_init(&set);
	err = read_all(&set, doc, n, msg);
	if (!err)
		err = store_db_make(&s, path ? path : STORE_DEFAULT, msg);
	if (!err)
		err = prepare(&s, &in, msg);
	if (!err)
		err = store_db_run(&s, "BEGIN IMMEDIATE", msg);
	if (!err) {
		err = insert_all(&s, &in, &set, doc, wall_ns, &id, msg);
		if (!err)
			err = store_db_run(&s, "COMMIT", msg);
		if (err)
			(void)sqlite3_exec(s.lite, "ROLLBACK", NULL, NULL, NULL);
	}
	(void)sqlite3_finalize(in.run);
	(void)sqlite3_finalize(in.document);
	(void)sqlite3_finalize(in.metric);
	store_db_close(&s);
	result_set_release(&set);
	if (!err && first)
		*first = id;
	return err;
}
