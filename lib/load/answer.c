/*
 * An answer is judged while it arrives, with the time of each event, and not from a copy
 * afterwards: a benchmark of long streams must not measure its own memory. A stream counts as
 * complete only when it said so; an end of the connection is not an end of the answer.
 */
#include "lib/load/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/load/answer_read.h"

#define ERROR_PAGE_MAX 65536 /* of a long error page only the beginning is kept */
#define MOULD_MAX      4096

static void reset_figures(struct answer *a)
{
	a->streamed = a->done = false;
	a->begun = a->finished = 0;
	a->status = 0;
	a->ngaps = 0;
	a->pieces = 0;
	a->first_token_ns = a->last_token_ns = a->first_tokens = a->said = -1;
	a->prompt_tokens = a->completion_tokens = a->cached_tokens = -1;
	a->failure = NULL;
	a->error[0] = '\0';
}

void answer_init(struct answer *a, enum answer_api api, bool keep_text)
{
	*a = (struct answer){.api = api, .keep_text = keep_text};
	sse_reader_init(&a->sse, ANSWER_EVENT_MAX);
	buf_init(&a->body, ANSWER_BODY_MAX);
	buf_init(&a->text, ANSWER_BODY_MAX);
	buf_init(&a->mould, MOULD_MAX);
	reset_figures(a);
}

void answer_release(struct answer *a)
{
	sse_reader_release(&a->sse);
	buf_release(&a->body);
	buf_release(&a->text);
	buf_release(&a->mould);
	free(a->gap);
	a->gap = NULL;
	a->ngaps = a->gaps_cap = 0;
}

void answer_clear(struct answer *a)
{
	/* the stream before may have ended inside an event, and have begun with a byte order mark
	 */
	if (a->streamed) {
		struct buf in = a->sse.in, data = a->sse.data;

		buf_clear(&in);
		buf_clear(&data);
		a->sse = (struct sse_reader){.in = in, .data = data, .max = ANSWER_EVENT_MAX};
	}
	buf_clear(&a->body);
	buf_clear(&a->text);
	buf_clear(&a->mould);
	reset_figures(a);
}

void answer_fail(struct answer *a, const char *label, const char *fmt, ...)
{
	va_list ap;

	if (a->failure)
		return;
	a->failure = label;
	va_start(ap, fmt);
	(void)vsnprintf(a->error, sizeof(a->error), fmt, ap);
	va_end(ap);
}

static int add_gap(struct answer *a, int64_t ns, int64_t tokens)
{
	size_t cap = a->gaps_cap ? a->gaps_cap * 2 : 64;
	struct result_gap *p;

	if (a->ngaps == ANSWER_GAPS_MAX)
		return PD_ETOOBIG;
	if (a->ngaps == a->gaps_cap) {
		p = realloc(a->gap, cap * sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		a->gap = p;
		a->gaps_cap = cap;
	}
	a->gap[a->ngaps++] = (struct result_gap){ns, tokens};
	return PD_OK;
}

/* A piece of text came. Its tokens are what the stated total grew by since the last piece, when
 * this event stated it. */
static void note_piece(struct answer *a, int64_t now_ns, bool usage_here)
{
	int64_t tokens = -1;

	if (usage_here && a->completion_tokens >= 0) {
		tokens = a->completion_tokens - (a->said > 0 ? a->said : 0);
		tokens = tokens < 0 ? 0 : tokens;
		a->said = a->completion_tokens;
	}
	if (a->pieces++ == 0) {
		a->first_token_ns = now_ns;
		a->first_tokens = tokens;
	} else if (add_gap(a, now_ns - a->last_token_ns, tokens)) {
		answer_fail(a, "too_big", "stream of more than %zu pieces", ANSWER_GAPS_MAX);
	}
	a->last_token_ns = now_ns;
}

/* An event that said nothing but its text is the mould of those that follow. */
static void keep_mould(struct answer *a, const struct sse_event *e, bool plain)
{
	buf_clear(&a->mould);
	if (!plain || a->texts != 1 || a->failure || e->event.n > 0 || e->data.n > MOULD_MAX ||
	    buf_append(&a->mould, e->data.p, e->data.n))
		return;
	a->mould_at = (size_t)(a->brought.p - e->data.p);
	a->mould_n = a->brought.n;
}

static void read_event(struct answer *a, const struct sse_event *e, int64_t now_ns)
{
	uint64_t finished = a->finished;
	struct answer_news news;
	struct json_object o;
	struct pd_msg msg = {""};

	if (e->event.n == 0 && answer_read_same(a, e->data)) {
		note_piece(a, now_ns, false);
		return;
	}
	if (span_eq(e->data, SPAN("[DONE]"))) {
		a->done = true;
		return;
	}
	if (json_object_scan(&o, e->data.p, e->data.n, &msg) != PD_OK) {
		answer_fail(a, "bad_event", "event %lld is not a JSON object: %s",
			    (long long)a->pieces, msg.text);
		return;
	}
	a->texts = 0;
	news = answer_read_event(a, &o, e->event);
	if (news.text)
		note_piece(a, now_ns, news.usage);
	keep_mould(a, e, news.text && !news.usage && a->finished == finished);
	json_object_release(&o);
}

/* The usual piece: one whole event of one data line, and nothing before it is left. It need not be
 * copied. Not the first one, which may have a byte order mark. */
static bool single_event(const struct answer *a, const char *p, size_t n, struct sse_event *e)
{
	if (!a->sse.begun || a->sse.at != a->sse.in.len || n < 8 || memcmp(p, "data: ", 6) != 0 ||
	    p[n - 1] != '\n' || p[n - 2] != '\n' || memchr(p, '\n', n) != p + n - 2 ||
	    memchr(p, '\r', n))
		return false;
	*e = (struct sse_event){.data = {p + 6, n - 8}};
	return n <= ANSWER_EVENT_MAX;
}

void answer_feed(struct answer *a, const char *p, size_t n, int64_t now_ns)
{
	struct sse_event e;

	if (!a->streamed || a->status != 200) {
		if (a->status != 200 && a->body.len + n > ERROR_PAGE_MAX)
			return;
		if (buf_append(&a->body, p, n))
			answer_fail(a, "too_big", "answer of more than %zu bytes", a->body.max);
		return;
	}
	if (a->failure && strcmp(a->failure, "too_big") == 0)
		return;
	if (single_event(a, p, n, &e)) {
		read_event(a, &e, now_ns);
		return;
	}
	if (sse_reader_feed(&a->sse, p, n)) {
		answer_fail(a, "too_big", "event of more than %zu bytes", ANSWER_EVENT_MAX);
		return;
	}
	while (sse_reader_next(&a->sse, &e))
		read_event(a, &e, now_ns);
}

static void end_error(struct answer *a)
{
	const struct json_member *e = NULL;
	struct json_object o;
	size_t shown = a->body.len < 250 ? a->body.len : 250;

	if (json_object_scan(&o, a->body.data ? a->body.data : "", a->body.len, NULL) == PD_OK) {
		e = json_object_get(&o, "error");
		e = e ? e : json_object_get(&o, "detail");
		e = e ? e : json_object_get(&o, "message");
		if (e)
			answer_note_error(a, "http", e->value, e->type);
		json_object_release(&o);
	}
	answer_fail(a, "http", "%.*s", (int)shown, a->body.data ? a->body.data : "");
}

static void end_plain(struct answer *a, int64_t now_ns)
{
	struct answer_news news;
	struct json_object o;
	struct pd_msg msg = {""};

	if (json_object_scan(&o, a->body.data ? a->body.data : "", a->body.len, &msg) != PD_OK) {
		answer_fail(a, "bad_answer", "%s", msg.text);
		return;
	}
	news = answer_read_whole(a, &o);
	if (!news.text && a->completion_tokens <= 0)
		answer_fail(a, "no_token", "the answer has no text");
	a->last_token_ns = now_ns;
	json_object_release(&o);
}

/* The server stated its count once, at the end: the pieces share it evenly. */
static void share_tokens(struct answer *a)
{
	int64_t total = a->completion_tokens, before;

	if (total <= 0 || a->said >= 0 || a->pieces == 0)
		return;
	before = a->first_tokens = total / a->pieces;
	for (size_t i = 0; i < a->ngaps; i++) {
		int64_t upto = (int64_t)((double)total * (double)(i + 2) / (double)a->pieces);

		a->gap[i].tokens = upto - before;
		before = upto;
	}
}

static void end_stream(struct answer *a)
{
	if (!a->done && a->finished == 0)
		answer_fail(a, "truncated",
			    "the stream ended after %lld pieces without finish_reason and [DONE]",
			    (long long)a->pieces);
	else if (!a->done && sse_reader_pending(&a->sse) > 0)
		answer_fail(a, "truncated", "the stream ended inside an event");
	else if (a->pieces == 0)
		answer_fail(a, "no_token", "the stream ended without any text");
	else if (a->finished != a->begun)
		answer_fail(a, "no_finish",
			    "the stream ended after %lld pieces without finish_reason",
			    (long long)a->pieces);
	share_tokens(a);
}

void answer_end(struct answer *a, int64_t now_ns, bool whole)
{
	if (a->status != 200)
		end_error(a);
	else if (!whole)
		answer_fail(a, "truncated", "the connection was lost after %lld pieces",
			    (long long)a->pieces);
	else if (a->streamed)
		end_stream(a);
	else
		end_plain(a, now_ns);
}

enum result_basis answer_basis(const struct answer *a)
{
	if (a->last_token_ns < 0)
		return RESULT_BASIS_NONE;
	if (a->completion_tokens < 0)
		return a->pieces > 0 ? RESULT_BASIS_CHUNKS : RESULT_BASIS_NONE;
	return a->said >= 0 || a->pieces == 0 ? RESULT_BASIS_USAGE : RESULT_BASIS_USAGE_LAST;
}

struct result_gap *answer_take_gaps(struct answer *a, size_t *n)
{
	struct result_gap *p = NULL;

	*n = 0;
	if (a->ngaps > 0)
		p = malloc(a->ngaps * sizeof(*p));
	if (p) {
		memcpy(p, a->gap, a->ngaps * sizeof(*p));
		*n = a->ngaps;
	}
	a->ngaps = 0;
	return p;
}
