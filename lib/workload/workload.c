/*
 * Reads the whole file at once: prompts and messages stay where they are and cost nothing, and one
 * pass over memory is the fastest reader. Requests and hash ids grow in two arrays; pointers into
 * the ids are set when both are complete.
 */
#include "lib/workload/workload.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/workload/capture_file.h"
#include "lib/workload/names.h"
#include "lib/workload/record.h"

struct reader {
	struct workload *w;
	const char *name;
	struct workload_options opt;
	size_t cap;
	struct record_ids ids;
	struct names sessions;
	int64_t *turns; /* turns seen per session */
	size_t turns_cap;
	struct pd_msg *msg;
};

void workload_init(struct workload *w)
{
	*w = (struct workload){0};
	buf_init(&w->text, WORKLOAD_FILE_MAX);
}

void workload_release(struct workload *w)
{
	free(w->req);
	free(w->ids);
	buf_release(&w->text);
	workload_init(w);
}

static int request_slot(struct reader *rd, struct workload_request **out)
{
	struct workload *w = rd->w;
	size_t cap = rd->cap ? rd->cap * 2 : 1024;
	struct workload_request *p;

	if (w->n >= WORKLOAD_REQUESTS_MAX)
		return pd_fail(rd->msg, PD_ETOOBIG, "%s: more than %u records", rd->name,
			       WORKLOAD_REQUESTS_MAX);
	if (w->n == rd->cap) {
		p = realloc(w->req, cap * sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		w->req = p;
		rd->cap = cap;
	}
	*out = &w->req[w->n];
	return PD_OK;
}

static int turn_counter(struct reader *rd, uint32_t session, int64_t **out)
{
	size_t cap = rd->turns_cap ? rd->turns_cap * 2 : 1024;
	int64_t *p;

	while (session >= cap)
		cap *= 2;
	if (session >= rd->turns_cap) {
		p = realloc(rd->turns, cap * sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		memset(p + rd->turns_cap, 0, (cap - rd->turns_cap) * sizeof(*p));
		rd->turns = p;
		rd->turns_cap = cap;
	}
	*out = &rd->turns[session];
	return PD_OK;
}

static int number_session(struct reader *rd, struct workload_request *r)
{
	int64_t *turns = NULL;
	int err;

	if (r->session.n == 0) {
		r->turn = r->turn < 0 ? 0 : r->turn;
		return PD_OK;
	}
	err = names_number(&rd->sessions, r->session, &r->session_no);
	if (!err)
		err = turn_counter(rd, r->session_no, &turns);
	if (err)
		return err;
	if (r->turn < 0)
		r->turn = *turns;
	(*turns)++;
	return PD_OK;
}

static int read_line(struct reader *rd, char *line, size_t n, uint32_t number)
{
	struct workload_request *r = NULL;
	struct record_error e;
	int err = request_slot(rd, &r);

	if (err)
		return err;
	err = record_parse(line, n, &rd->opt, r, &rd->ids, &e);
	if (err && e.column > 0)
		return pd_fail(rd->msg, err, "%s:%u:%zu: %s", rd->name, number, e.column,
			       e.text.text);
	if (err)
		return pd_fail(rd->msg, err, "%s:%u: %s", rd->name, number,
			       e.text.text[0] ? e.text.text : pd_err_text(err));
	r->line = number;
	err = number_session(rd, r);
	if (!err)
		rd->w->n++;
	return err;
}

/* Without white space at either end (this includes the CR of a CRLF). */
static void trim_line(char **line, size_t *n)
{
	while (*n > 0 &&
	       ((*line)[*n - 1] == '\r' || (*line)[*n - 1] == ' ' || (*line)[*n - 1] == '\t'))
		(*n)--;
}

static int read_lines(struct reader *rd)
{
	char *p = rd->w->text.data, *end = p + rd->w->text.len;
	uint32_t number = 0;

	if (rd->w->text.len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;
	while (p < end && (rd->opt.max_requests == 0 || rd->w->n < rd->opt.max_requests)) {
		char *nl = memchr(p, '\n', (size_t)(end - p)), *line = p;
		size_t n = (size_t)((nl ? nl : end) - p);
		int err;

		p = nl ? nl + 1 : end;
		number++;
		if (n > WORKLOAD_LINE_MAX)
			return pd_fail(rd->msg, PD_ETOOBIG,
				       "%s:%u:1: line of %zu bytes, expected at most %zu", rd->name,
				       number, n, WORKLOAD_LINE_MAX);
		trim_line(&line, &n);
		if (n == 0)
			continue;
		err = read_line(rd, line, n, number);
		if (err)
			return err;
	}
	return PD_OK;
}

static void finish(struct reader *rd)
{
	struct workload *w = rd->w;
	uint64_t *at;

	w->ids = rd->ids.id;
	w->nids = rd->ids.n;
	rd->ids.id = NULL;
	w->nsessions = rd->sessions.n;
	w->has_arrivals = w->has_hash_ids = w->has_text = w->n > 0;
	at = w->ids;
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
}

static int read_text(struct workload *w, const char *name, const struct workload_options *opt,
		     struct pd_msg *msg)
{
	struct reader rd = {.w = w, .name = name, .msg = msg};
	int err;

	if (opt)
		rd.opt = *opt;
	names_init(&rd.sessions);
	err = read_lines(&rd);
	if (!err && w->n == 0)
		err = pd_fail(msg, PD_EINVAL,
			      "%s:1:1: no records, expected one JSON object per line", name);
	if (!err)
		finish(&rd);
	free(rd.ids.id);
	free(rd.turns);
	names_release(&rd.sessions);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "%s: out of memory after %zu records", name, w->n);
	if (err)
		workload_release(w);
	return err;
}

int workload_read(struct workload *w, const char *path, const struct workload_options *opt,
		  struct pd_msg *msg)
{
	int err;

	workload_release(w);
	if (capture_file_is(path))
		err = capture_to_records(path, opt ? opt->run : 0, &w->text, msg);
	else if (opt && opt->run > 0)
		err = pd_fail(msg, PD_EINVAL,
			      "run %lld of '%.300s': expected a capture of pdctl serve",
			      (long long)opt->run, path);
	else
		err = file_read(path, &w->text, msg);
	if (err) {
		workload_release(w);
		return err;
	}
	return read_text(w, strcmp(path, "-") == 0 ? "standard input" : path, opt, msg);
}

int workload_parse_take(struct workload *w, struct buf *text, const char *name,
			const struct workload_options *opt, struct pd_msg *msg)
{
	workload_release(w);
	w->text = *text;
	buf_init(text, text->max);
	return read_text(w, name, opt, msg);
}
