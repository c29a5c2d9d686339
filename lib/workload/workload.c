/*
 * The file is pulled through a window of one record, and what stays of it are numbers, hash ids and
 * the texts that will be sent. Requests and hash ids grow in two arrays; pointers into the ids are
 * set when both are complete.
 */
#include "lib/workload/workload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/workload/capture_file.h"
#include "lib/workload/format.h"

#define PEEK                                                                                       \
	((size_t)64 << 10) /* in which the first record, or the header, shows what a file is       \
			    */

void workload_init(struct workload *w)
{
	*w = (struct workload){0};
	arena_init(&w->texts, WORKLOAD_FILE_MAX);
}

void workload_release(struct workload *w)
{
	for (size_t i = 0; i < w->nnotes; i++)
		free(w->note[i]);
	free(w->note);
	free(w->req);
	free(w->ids);
	arena_release(&w->texts);
	workload_init(w);
}

/* ---- records ---- */

static const struct workload_format *format_of(const struct json_object *o)
{
	for (size_t i = 0; workload_formats[i]; i++)
		if (workload_formats[i]->shape == FORMAT_JSON && workload_formats[i]->is(o))
			return workload_formats[i];
	return NULL;
}

static int unknown_record(struct format_reader *rd, const struct json_object *o)
{
	struct buf found, known;
	int err = PD_OK;

	buf_init(&found, 150);
	buf_init(&known, 1024);
	for (size_t i = 0; !err && i < o->n; i++)
		err = buf_printf(&found, "%s'%.*s'", i ? ", " : "",
				 o->member[i].key.n < 30 ? (int)o->member[i].key.n : 30,
				 o->member[i].key.p);
	err = workload_format_names(&known);
	if (!err)
		err = format_wrong(rd, rd->record.p,
				   "unknown format: found an object with %s%s, expected one of: %s",
				   found.data ? found.data : "no member", o->n ? "" : "s",
				   known.data);
	buf_release(&found);
	buf_release(&known);
	return err;
}

/* The scanner says "invalid JSON at byte 9 (line 1, column 10): found ..."; the place is told by
 * the record instead. */
static int wrong_json(struct format_reader *rd, const struct pd_msg *why)
{
	const char *at = strstr(why->text, " at byte "), *end = at ? strstr(at, "): ") : NULL;
	size_t byte = at ? (size_t)strtoull(at + strlen(" at byte "), NULL, 10) : 0;

	if (byte > rd->record.n)
		byte = rd->record.n;
	return format_wrong(rd, rd->record.p + byte, "%.*s%s",
			    at && end ? (int)(at - why->text) : (int)strlen(why->text), why->text,
			    at && end ? end + 1 : "");
}

static int add_object(struct format_reader *rd, const struct json_object *o)
{
	struct workload_request r;
	int err;

	if (rd->format->object)
		return rd->format->object(rd, o);
	format_request(rd, &r);
	err = format_fields(rd, o, &r);
	return err ? err : format_add(rd, &r);
}

static int read_json_record(struct format_reader *rd, bool array)
{
	const struct workload_format *other;
	struct pd_msg why = {""};
	struct json_object o;
	struct workload_request r;
	int err;

	/* an array of texts is a list of prompts */
	if (array && rd->record.p[0] == '"' && (!rd->format || rd->format->shape == FORMAT_TEXT)) {
		rd->format = workload_format_find("text");
		if (json_validate(rd->record.p, rd->record.n, &why))
			return wrong_json(rd, &why);
		format_request(rd, &r);
		r.prompt = (struct span){rd->record.p, rd->record.n};
		return format_add(rd, &r);
	}
	err = json_object_scan(&o, rd->record.p, rd->record.n, &why);
	if (err)
		return err == PD_ENOMEM ? err : wrong_json(rd, &why);
	if (!rd->format || !rd->format->is || !rd->format->is(&o)) {
		other = rd->opt.format ? NULL : format_of(&o);
		if (!other && !rd->format)
			err = unknown_record(rd, &o);
		else if (other && rd->format)
			err = format_note(rd, "the file has records of the formats %s and %s",
					  rd->format->name, other->name);
		else if (!other && (rd->format->object || !rd->format->is))
			err = format_wrong(rd, rd->record.p,
					   "expected a record of the format %s: %s",
					   rd->format->name, rd->format->marks);
		rd->format = other ? other : rd->format;
	}
	if (!err)
		err = add_object(rd, &o);
	json_object_release(&o);
	return err;
}

static int read_text_record(struct format_reader *rd)
{
	struct workload_request r;
	int err;

	format_request(rd, &r);
	buf_clear(&rd->text);
	err = json_quote(&rd->text, rd->record.p, rd->record.n);
	r.prompt = buf_span(&rd->text);
	return err ? err : format_add(rd, &r);
}

static int read_row(struct format_reader *rd)
{
	const char *wrong;

	if (records_cells(&rd->record, rd->cell, &rd->ncells, &wrong))
		return format_wrong(rd, wrong,
				    "a quoted cell has to end with '\"' before a comma or the "
				    "end of the row; expected at most %d cells",
				    RECORDS_CELLS_MAX);
	if (rd->ncells != rd->ncolumns)
		return format_wrong(rd, rd->record.p,
				    "row of %zu cells, expected %zu as in the header", rd->ncells,
				    rd->ncolumns);
	for (size_t i = 0; i < rd->ncells; i++)
		rd->column_filled[i] |= rd->cell[i].n > 0 && !span_eq(rd->cell[i], SPAN("0"));
	return rd->format->row(rd);
}

/* ---- the header of a CSV file ---- */

static bool has_columns(const struct format_reader *rd, const struct workload_format *f)
{
	for (size_t k = 0; f->columns[k]; k++) {
		bool found = false;

		for (size_t i = 0; i < rd->ncolumns; i++)
			found |= span_eq_case(rd->column[i], span_of(f->columns[k]));
		if (!found)
			return false;
	}
	return true;
}

static int read_header(struct format_reader *rd, struct records *rs)
{
	struct record_text place;
	const char *wrong;
	struct buf known;
	int err = records_next(rs, &rd->record, &place, rd->msg);

	if (err)
		return err;
	if (records_cells(&rd->record, rd->cell, &rd->ncolumns, &wrong))
		return format_wrong(rd, wrong, "a header of a CSV file with a misplaced quote");
	for (size_t i = 0; !err && i < rd->ncolumns; i++)
		err = format_keep(rd, span_trim(rd->cell[i]), &rd->column[i]);
	for (size_t i = 0; !err && !rd->format && workload_formats[i]; i++)
		if (workload_formats[i]->shape == FORMAT_CSV &&
		    has_columns(rd, workload_formats[i]))
			rd->format = workload_formats[i];
	if (err || rd->format) {
		if (!err && !has_columns(rd, rd->format))
			return format_wrong(rd, rd->record.p,
					    "the header lacks a column of the format %s (%s)",
					    rd->format->name, rd->format->marks);
		return err;
	}
	buf_init(&known, 1024);
	err = workload_format_names(&known);
	if (!err)
		err = format_wrong(rd, rd->record.p,
				   "unknown format: found the line '%.*s', expected one of: %s",
				   rd->record.n < 80 ? (int)rd->record.n : 80, rd->record.p,
				   known.data);
	buf_release(&known);
	return err;
}

/* ---- what a file is ---- */

static bool known_header(struct span line)
{
	struct format_reader *rd = calloc(1, sizeof(*rd));
	struct record_text row = {.p = malloc(line.n + 1), .n = line.n};
	const char *wrong;
	bool known = false;
	char *copy = row.p;

	if (copy)
		memcpy(copy, line.p, line.n);
	while (row.n > 0 && row.p && (row.p[row.n - 1] == '\r' || row.p[row.n - 1] == ' '))
		row.n--;
	if (rd && row.p && records_cells(&row, rd->column, &rd->ncolumns, &wrong) == PD_OK) {
		for (size_t i = 0; i < rd->ncolumns; i++)
			rd->column[i] = span_trim(rd->column[i]);
		for (size_t i = 0; workload_formats[i]; i++)
			known |= workload_formats[i]->shape == FORMAT_CSV &&
				 has_columns(rd, workload_formats[i]);
	}
	free(copy);
	free(rd);
	return known;
}

static bool ends_like_text(const char *name)
{
	static const char *const ends[] = {".txt", ".txt.gz", ".txt.zst"};
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (n >= strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

static int not_text(struct format_reader *rd, struct span s)
{
	static const struct {
		const char *magic, *what;
	} kinds[] = {{"PAR1", "a Parquet file: expected it as JSON Lines or CSV"},
		     {"PK\003\004", "a ZIP file: expected one file, plain, gzip or zstd"},
		     {"\xfd"
		      "7zXZ",
		      "an xz file: expected plain, gzip or zstd"},
		     {"BZh", "a bzip2 file: expected plain, gzip or zstd"}};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (s.n >= strlen(kinds[i].magic) &&
		    memcmp(s.p, kinds[i].magic, strlen(kinds[i].magic)) == 0)
			return pd_fail(rd->msg, PD_EINVAL, "%s:1:1: found %s", rd->name,
				       kinds[i].what);
	return PD_OK;
}

/* The first line alone is JSON, or meant to be: a file of lines. Else a value goes over several. */
static enum records_shape json_shape(struct span s)
{
	const char *nl = memchr(s.p, '\n', s.n), *end = nl ? nl : s.p + s.n;

	while (end > s.p && (end[-1] == ' ' || end[-1] == '\r' || end[-1] == '\t'))
		end--;
	if (json_validate(s.p, (size_t)(end - s.p), NULL) == PD_OK || end[-1] == '}')
		return RECORDS_LINES;
	return nl ? RECORDS_VALUES : RECORDS_LINES;
}

/* Sets the shape of the records, and for CSV and text the format. */
static int recognise(struct format_reader *rd, struct records *rs)
{
	struct span s;
	const char *nl;
	struct buf known;
	int err = records_peek(rs, PEEK, &s, rd->msg);

	if (!err)
		err = not_text(rd, s);
	if (err)
		return err;
	while (s.n > 0 && (*s.p == ' ' || *s.p == '\t' || *s.p == '\r' || *s.p == '\n'))
		s.p++, s.n--;
	if (s.n == 0)
		return pd_fail(rd->msg, PD_EINVAL,
			       "%s:1:1: no records, expected one of the known "
			       "formats (pdctl gen --list-formats)",
			       rd->name);
	nl = memchr(s.p, '\n', s.n);
	if (rd->format && rd->format->shape == FORMAT_TEXT && *s.p != '[')
		records_set_shape(rs, RECORDS_LINES);
	else if (*s.p == '[')
		records_set_shape(rs, RECORDS_ARRAY);
	else if (*s.p == '{')
		records_set_shape(rs, json_shape(s));
	else if ((rd->format && rd->format->shape == FORMAT_CSV) ||
		 known_header((struct span){s.p, nl ? (size_t)(nl - s.p) : s.n})) {
		records_set_shape(rs, RECORDS_ROWS);
		return read_header(rd, rs);
	} else if (!rd->format && ends_like_text(rd->name)) {
		rd->format = workload_format_find("text");
		records_set_shape(rs, RECORDS_LINES);
	} else if (rd->format) {
		return pd_fail(rd->msg, PD_EINVAL, "%s:1:1: found '%.*s', expected format %s: %s",
			       rd->name, s.n < 30 ? (int)s.n : 30, s.p, rd->format->name,
			       rd->format->marks);
	} else {
		buf_init(&known, 1024);
		err = workload_format_names(&known);
		if (!err)
			err = pd_fail(rd->msg, PD_EINVAL,
				      "%s:1:1: unknown format: found '%.*s', expected one of: %s",
				      rd->name,
				      nl && nl - s.p < 60 ? (int)(nl - s.p)
				      : s.n < 60	  ? (int)s.n
							  : 60,
				      s.p, known.data);
		buf_release(&known);
	}
	return err;
}

static int read_records(struct format_reader *rd, struct records *rs)
{
	struct record_text place;
	struct pd_msg why = {""};
	int err = recognise(rd, rs);

	while (!err && (rd->opt.max_requests == 0 || rd->w->n < rd->opt.max_requests)) {
		err = records_next(rs, &rd->record, &place, &why);
		if (err == PD_ENOENT)
			return PD_OK;
		if (err && place.line > 0)
			return pd_fail(rd->msg, err, "%s:%u:%u: %s", rd->name, place.line,
				       place.column, why.text);
		if (err)
			return pd_fail(rd->msg, err, "%s: %s", rd->name, why.text);
		if (rs->shape == RECORDS_ROWS)
			err = read_row(rd);
		else if (rd->format && rd->format->shape == FORMAT_TEXT &&
			 rs->shape != RECORDS_ARRAY)
			err = read_text_record(rd);
		else
			err = read_json_record(rd, rs->shape == RECORDS_ARRAY);
	}
	return err;
}

/* ---- the end ---- */

static int by_turn(const void *a, const void *b, void *arg)
{
	const struct workload_request *req = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	if (req[x].session_no != req[y].session_no)
		return req[x].session_no < req[y].session_no ? -1 : 1;
	if (req[x].turn != req[y].turn)
		return req[x].turn < req[y].turn ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* A file whose turns stand in another order than their numbers say: the numbers count. */
static int order_turns(struct format_reader *rd)
{
	struct workload *w = rd->w;
	uint32_t *order = reallocarray(NULL, w->n + 1, sizeof(*order));
	size_t n = 0;

	if (!order)
		return PD_ENOMEM;
	for (size_t i = 0; i < w->n; i++)
		if (w->req[i].ordered)
			order[n++] = (uint32_t)i;
	qsort_r(order, n, sizeof(*order), by_turn, w->req);
	for (size_t i = 0; i < n; i++)
		w->req[order[i]].before =
			i > 0 && w->req[order[i]].session_no == w->req[order[i - 1]].session_no
				? order[i - 1]
				: WORKLOAD_NO_REQUEST;
	free(order);
	return format_note(rd,
			   "turns stand in another order than their numbers: sent in the order of "
			   "the numbers");
}

/* Times since 1970 become times since the first. */
static void begin_at_zero(struct workload *w)
{
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < w->n; i++)
		if (w->req[i].arrival_ns >= 0 && w->req[i].arrival_ns < first)
			first = w->req[i].arrival_ns;
	for (size_t i = 0; i < w->n; i++)
		if (w->req[i].arrival_ns >= 0)
			w->req[i].arrival_ns -= first;
}

/*
 * Fractions in a field of milliseconds: seconds or milliseconds? Read as milliseconds they are said
 * to be such; when that makes an arrival rate that no trace has, and seconds make a usual one,
 * nobody can tell, and it is an error.
 */
static int doubtful_unit(struct format_reader *rd)
{
	int64_t first = INT64_MAX, last = 0;
	size_t n = 0;
	double ms;

	if (!rd->fractions || rd->since_1970 || rd->opt.unit)
		return PD_OK;
	for (size_t i = 0; i < rd->w->n; i++) {
		int64_t at = rd->w->req[i].arrival_ns;

		if (at < 0)
			continue;
		n++;
		first = at < first ? at : first;
		last = at > last ? at : last;
	}
	ms = (double)(last - first) / (double)NS_PER_MS;
	if (n > 1 && (double)(n - 1) > ms / 10)
		return pd_fail(rd->msg, PD_EINVAL,
			       "%s: the time stamps have fractions and span %g: seconds or "
			       "milliseconds? expected --timestamp-unit s or --timestamp-unit ms",
			       rd->name, ms);
	return format_note(rd, "time stamps with fractions are read as milliseconds; "
			       "--timestamp-unit s says otherwise");
}

static int note_unused(struct format_reader *rd)
{
	struct buf text;
	int err = PD_OK;

	for (size_t i = 0; i < rd->ncolumns && rd->format->shape == FORMAT_CSV; i++)
		if (!rd->column_used[i] && rd->column_filled[i])
			format_unused_member(rd, rd->column[i]);
	if (rd->nunused == 0)
		return PD_OK;
	buf_init(&text, 300);
	for (size_t i = 0; !err && i < rd->nunused; i++)
		err = buf_printf(&text, "%s%s", i ? ", " : "", rd->unused[i].name);
	if (err == PD_ETOOBIG || rd->unused_more > 0)
		err = buf_puts(&text, " ...") == PD_ENOMEM ? PD_ENOMEM : PD_OK;
	if (!err)
		err = format_note(rd, "not used: %s", text.data);
	buf_release(&text);
	return err;
}

static int finish(struct format_reader *rd)
{
	struct workload *w = rd->w;
	uint64_t *at = w->ids;
	int err = doubtful_unit(rd);

	if (!err && rd->turns_back && !rd->tree)
		err = order_turns(rd);
	if (!err)
		err = note_unused(rd);
	if (err)
		return err;
	if (rd->since_1970)
		begin_at_zero(w);
	w->format = rd->format->name;
	w->nsessions = rd->sessions.numbers.n;
	w->has_arrivals = w->has_hash_ids = w->has_text = w->n > 0;
	for (size_t i = 0; i < w->n; i++) {
		struct workload_request *r = &w->req[i];

		if (r->nhash > 0) {
			r->hash_ids = at;
			at += r->nhash;
		}
		w->has_arrivals = w->has_arrivals && r->arrival_ns >= 0;
		w->has_hash_ids = w->has_hash_ids && r->nhash > 0;
		w->has_text = w->has_text && (r->prompt.n > 0 || r->messages.n > 0);
		w->has_picks = w->has_picks || r->picked.n > 0;
	}
	return PD_OK;
}

static void reader_release(struct format_reader *rd)
{
	for (size_t i = 0; i < rd->nunused; i++)
		free(rd->unused[i].name);
	names_release(&rd->sessions.numbers);
	names_release(&rd->keys.numbers);
	names_release(&rd->chats);
	free(rd->sessions.text);
	free(rd->keys.text);
	free(rd->session);
	free(rd->chat_at);
	buf_release(&rd->scratch);
	buf_release(&rd->text);
	free(rd);
}

static int reader_new(struct format_reader **out, struct workload *w, const char *name,
		      const struct workload_options *opt, struct pd_msg *msg)
{
	struct format_reader *rd = calloc(1, sizeof(*rd));

	*out = rd;
	if (!rd)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	rd->w = w;
	rd->name = name;
	rd->msg = msg;
	if (opt)
		rd->opt = *opt;
	buf_init(&rd->scratch, WORKLOAD_LINE_MAX * 2);
	buf_init(&rd->text, WORKLOAD_LINE_MAX * 8);
	if (!rd->opt.format)
		return PD_OK;
	rd->format = workload_format_find(rd->opt.format);
	if (rd->format)
		return PD_OK;
	buf_clear(&rd->text);
	if (workload_format_names(&rd->text))
		return PD_ENOMEM;
	return pd_fail(msg, PD_EINVAL, "unknown format '%.60s', expected one of: %s",
		       rd->opt.format, rd->text.data);
}

/* Reads the source, which is closed. */
static int read_source(struct format_reader *rd, struct source *src)
{
	struct records rs;
	int err;

	source_limit(src, WORKLOAD_FILE_MAX);
	err = records_init(&rs, src, WORKLOAD_LINE_MAX, rd->msg);
	if (!err)
		err = read_records(rd, &rs);
	if (!err && rd->w->n == 0)
		err = pd_fail(rd->msg, PD_EINVAL, "%s:1:1: no records, expected at least one",
			      rd->name);
	rd->w->hash = source_hash(src);
	records_release(&rs);
	source_close(src);
	return err;
}

static int end_reading(struct format_reader *rd, int err)
{
	struct workload *w = rd->w;

	if (!err && !rd->taken)
		err = finish(rd);
	if (err == PD_ENOMEM)
		(void)pd_fail(rd->msg, err, "%s: out of memory after %zu records", rd->name, w->n);
	else if (err == PD_ETOOBIG && rd->msg && !rd->msg->text[0])
		(void)pd_fail(rd->msg, err, "%s:%u: %s", rd->name, rd->record.line,
			      pd_err_text(err));
	if (err)
		workload_release(w);
	return err;
}

static int read_capture(struct format_reader *rd, const char *path)
{
	struct source *src = NULL;
	struct buf text;
	int err;

	buf_init(&text, WORKLOAD_FILE_MAX);
	err = capture_to_records(path, rd->opt.run, &text, rd->msg);
	if (!err)
		err = source_memory(&src, buf_span(&text), path, rd->msg);
	if (!err)
		err = read_source(rd, src);
	rd->format = workload_format_find("capture");
	buf_release(&text);
	return err;
}

static int read_file(struct format_reader *rd, const char *path)
{
	const struct workload_format *f;
	struct source *src = NULL;
	int err;

	if (capture_file_is(path))
		return read_capture(rd, path);
	if (rd->opt.run > 0)
		return pd_fail(rd->msg, PD_EINVAL,
			       "run %lld of '%.300s': expected a capture of pdctl serve",
			       (long long)rd->opt.run, path);
	for (size_t i = 0; workload_formats[i]; i++) {
		f = workload_formats[i];
		if (f->open && (!rd->format || rd->format == f) && f->starts(span_of(path))) {
			rd->format = f;
			return f->open(rd, path);
		}
	}
	err = source_open(&src, path, rd->msg);
	return err ? err : read_source(rd, src);
}

int workload_read(struct workload *w, const char *path, const struct workload_options *opt,
		  struct pd_msg *msg)
{
	struct format_reader *rd;
	int err;

	workload_release(w);
	if (msg)
		msg->text[0] = '\0';
	err = reader_new(&rd, w, strcmp(path, "-") == 0 ? "standard input" : path, opt, msg);
	if (!err)
		err = read_file(rd, path);
	if (rd) {
		err = end_reading(rd, err);
		reader_release(rd);
	}
	return err;
}

int workload_parse_take(struct workload *w, struct buf *text, const char *name,
			const struct workload_options *opt, struct pd_msg *msg)
{
	struct format_reader *rd;
	struct source *src = NULL;
	int err;

	workload_release(w);
	if (msg)
		msg->text[0] = '\0';
	err = reader_new(&rd, w, name, opt, msg);
	if (!err)
		err = source_memory(&src, buf_span(text), name, msg);
	if (!err)
		err = read_source(rd, src);
	if (rd) {
		err = end_reading(rd, err);
		reader_release(rd);
	}
	buf_release(text);
	return err;
}

int workload_describe(const struct workload *w, struct buf *out)
{
	int err = buf_printf(out, ", \"workload\": {\"format\": \"%s\", \"notes\": [",
			     w->format ? w->format : "");

	for (size_t i = 0; !err && i < w->nnotes; i++) {
		err = i ? buf_puts(out, ", ") : PD_OK;
		if (!err)
			err = json_quote(out, w->note[i], strlen(w->note[i]));
	}
	return err ? err : buf_puts(out, "]}");
}
