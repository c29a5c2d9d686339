/* What the code of all formats shares: requests are numbered, their texts copied out of the window
 * of the file, and everything a user ought to know is noted. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/workload/format.h"

void format_request(const struct format_reader *rd, struct workload_request *r)
{
	*r = (struct workload_request){.arrival_ns = -1,
				       .delay_ns = -1,
				       .input_tokens = -1,
				       .output_tokens = -1,
				       .turn = -1,
				       .group = -1,
				       .session_no = WORKLOAD_NO_SESSION,
				       .before = WORKLOAD_NO_REQUEST,
				       .block_tokens = rd->opt.block_tokens ? rd->opt.block_tokens
						       : rd->format->block_tokens
							       ? rd->format->block_tokens
							       : WORKLOAD_BLOCK_TOKENS};
}

int(format_wrong)(struct format_reader *rd, const char *at, const char *fmt, ...)
{
	char text[400];
	uint32_t line, column;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	records_place(&rd->record, at, &line, &column);
	return pd_fail(rd->msg, PD_EINVAL, "%s:%u:%u: %s", rd->name, line, column, text);
}

int format_note(struct format_reader *rd, const char *fmt, ...)
{
	struct workload *w = rd->w;
	char text[400], **grown;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < w->nnotes; i++)
		if (strcmp(w->note[i], text) == 0)
			return PD_OK;
	if (w->nnotes == WORKLOAD_NOTES_MAX)
		return PD_OK;
	grown = reallocarray(w->note, w->nnotes + 1, sizeof(char *));
	if (!grown)
		return PD_ENOMEM;
	w->note = grown;
	grown[w->nnotes] = strdup(text);
	if (!grown[w->nnotes])
		return PD_ENOMEM;
	w->nnotes++;
	return PD_OK;
}

void format_unused_member(struct format_reader *rd, struct span name)
{
	struct format_unused *u;

	for (size_t i = 0; i < rd->nunused; i++)
		if (strlen(rd->unused[i].name) == name.n &&
		    memcmp(rd->unused[i].name, name.p, name.n) == 0) {
			rd->unused[i].records++;
			return;
		}
	u = &rd->unused[rd->nunused];
	if (rd->nunused < sizeof(rd->unused) / sizeof(rd->unused[0]))
		u->name = strndup(name.p, name.n < 60 ? name.n : 60);
	if (rd->nunused == sizeof(rd->unused) / sizeof(rd->unused[0]) || !u->name) {
		rd->unused_more++;
		return;
	}
	u->records = 1;
	rd->nunused++;
}

int format_keep(struct format_reader *rd, struct span text, struct span *out)
{
	return arena_copy(&rd->w->texts, text, out);
}

/* The text's number; *text becomes its only copy. */
static int number_text(struct format_reader *rd, struct format_texts *t, struct span *text,
		       uint32_t *no)
{
	size_t cap = t->cap ? t->cap * 2 : 256;
	struct span *grown, copy;
	int err;

	if (names_find(&t->numbers, *text, no)) {
		*text = t->text[*no];
		return PD_OK;
	}
	if (t->numbers.n == t->cap) {
		grown = reallocarray(t->text, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		t->text = grown;
		t->cap = cap;
	}
	err = format_keep(rd, *text, &copy);
	if (!err)
		err = names_number(&t->numbers, copy, no);
	if (!err)
		*text = t->text[*no] = copy;
	return err;
}

static int session_at(struct format_reader *rd, uint32_t no, struct session_state **out)
{
	size_t cap = rd->session_cap ? rd->session_cap * 2 : 256;
	struct session_state *grown;

	while (no >= cap)
		cap *= 2;
	if (no >= rd->session_cap) {
		grown = reallocarray(rd->session, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		for (size_t i = rd->session_cap; i < cap; i++)
			grown[i] = (struct session_state){.last = WORKLOAD_NO_REQUEST};
		rd->session = grown;
		rd->session_cap = cap;
	}
	*out = &rd->session[no];
	return PD_OK;
}

static int number_session(struct format_reader *rd, struct workload_request *r)
{
	struct session_state *s = NULL;
	int err = PD_OK;

	r->ordered = r->session.n > 0;
	if (!r->ordered)
		r->session = r->key;
	if (r->key.n == 0)
		r->key = r->session;
	if (r->session.n == 0) {
		r->turn = r->turn < 0 ? 0 : r->turn;
		return PD_OK;
	}
	if (!span_eq(r->key, r->session)) {
		uint32_t no;

		err = number_text(rd, &rd->keys, &r->key, &no);
	}
	if (!err && span_eq(r->key, r->session)) {
		err = number_text(rd, &rd->sessions, &r->session, &r->session_no);
		r->key = r->session;
	} else if (!err) {
		err = number_text(rd, &rd->sessions, &r->session, &r->session_no);
	}
	if (!err)
		err = session_at(rd, r->session_no, &s);
	if (err)
		return err;
	if (r->turn < 0)
		r->turn = s->turns;
	if (r->ordered && !rd->tree) {
		rd->turns_back |= s->turns > 0 && r->turn < s->last_turn;
		r->before = s->last;
	}
	s->last = (uint32_t)rd->w->n;
	s->last_turn = r->turn;
	s->turns++;
	return PD_OK;
}

/* Copies what still lies in the window. */
static int keep_texts(struct format_reader *rd, struct workload_request *r)
{
	struct span *const list[] = {&r->prompt, &r->messages, &r->fresh, &r->picked, &r->draws};
	int err = PD_OK;

	for (size_t i = 0; !err && i < sizeof(list) / sizeof(list[0]); i++)
		if (list[i]->n > 0)
			err = format_keep(rd, *list[i], list[i]);
	return err;
}

int format_check(struct format_reader *rd, const struct workload_request *r)
{
	uint64_t most;

	if (r->prompt.n == 0 && r->messages.n == 0 && r->input_tokens < 0)
		return format_wrong(rd, rd->record.p,
				    "record without a request: expected \"prompt\", \"messages\", "
				    "or \"input_length\" with \"hash_ids\"");
	if (r->nhash == 0 || r->input_tokens < 0)
		return PD_OK;
	most = ((uint64_t)r->input_tokens + r->block_tokens - 1) / r->block_tokens;
	if (r->nhash > most)
		return format_wrong(rd, rd->record.p,
				    "%u hash_ids for an input_length of %lld: expected at most "
				    "%llu blocks of %u tokens (another block size?)",
				    r->nhash, (long long)r->input_tokens, (unsigned long long)most,
				    r->block_tokens);
	return PD_OK;
}

int format_add(struct format_reader *rd, struct workload_request *r)
{
	struct workload *w = rd->w;
	size_t cap = rd->cap ? rd->cap * 2 : 1024;
	struct workload_request *grown;
	int err = format_check(rd, r);

	if (err)
		return err;
	if (w->n >= WORKLOAD_REQUESTS_MAX)
		return pd_fail(rd->msg, PD_ETOOBIG, "%s: more than %u records", rd->name,
			       WORKLOAD_REQUESTS_MAX);
	if (w->n == rd->cap) {
		grown = reallocarray(w->req, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		w->req = grown;
		rd->cap = cap;
	}
	r->line = rd->record.line;
	err = number_session(rd, r);
	if (!err)
		err = keep_texts(rd, r);
	if (err)
		return err;
	w->req[w->n++] = *r;
	return PD_OK;
}

/* ---- CSV ---- */

struct span format_cell(struct format_reader *rd, const char *column)
{
	for (size_t i = 0; i < rd->ncolumns; i++)
		if (span_eq_case(rd->column[i], span_of(column))) {
			rd->column_used[i] = true;
			return span_trim(rd->cell[i]);
		}
	return (struct span){rd->record.p, 0};
}

int format_cell_count(struct format_reader *rd, const char *column, int64_t *out)
{
	struct span c = format_cell(rd, column);

	*out = -1;
	if (c.n == 0)
		return PD_OK;
	return format_count(c, out) ? format_wrong(rd, c.p,
						   "column \"%s\": found '%.*s', expected a whole "
						   "number, 0 or more",
						   column, c.n < 40 ? (int)c.n : 40, c.p)
				    : PD_OK;
}

int format_cell_time(struct format_reader *rd, const char *column, enum workload_unit unit,
		     int64_t *out)
{
	struct span c = format_cell(rd, column);
	int err;

	*out = -1;
	if (c.n == 0)
		return PD_OK;
	err = format_time(rd, c, unit, out);
	return err == PD_EINVAL ? format_wrong(rd, c.p,
					       "column \"%s\": found '%.*s', expected a time, 0 or "
					       "more",
					       column, c.n < 40 ? (int)c.n : 40, c.p)
				: err;
}

int64_t format_estimate(struct span text)
{
	return (int64_t)(text.n / 4 + (text.n % 4 != 0 || text.n == 0));
}

int format_line_session(struct format_reader *rd, struct span *out)
{
	int err;

	buf_clear(&rd->scratch);
	err = buf_printf(&rd->scratch, "line-%u", rd->record.line);
	return err ? err : format_keep(rd, buf_span(&rd->scratch), out);
}

int format_message(struct buf *out, const char *role, struct span content)
{
	int err = buf_printf(out, "%s{\"role\":\"%s\",\"content\":",
			     out->len > 0 && out->data[out->len - 1] != '[' ? "," : "", role);

	if (!err)
		err = buf_append(out, content.p, content.n);
	return err ? err : buf_putc(out, '}');
}
