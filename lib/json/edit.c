/*
 * Splices on a scanned text. Replacements and insertions become splices at once; removals only when
 * the edit is finished, because which comma goes with a member depends on which of its neighbours
 * stay.
 */
#include "lib/json/edit.h"

#include <string.h>

int json_edit_init(struct json_edit *e, const struct json_object *object)
{
	e->text = object->doc;
	e->object = object;
	e->n = 0;
	e->nremoved = 0;
	e->appended = false;
	buf_init(&e->scratch, JSON_EDIT_SCRATCH);
	return PD_OK;
}

void json_edit_release(struct json_edit *e)
{
	buf_release(&e->scratch);
}

static size_t offset_of(const struct json_edit *e, const char *p)
{
	return (size_t)(p - e->text.p);
}

static int add_splice(struct json_edit *e, size_t off, size_t del, struct span ins)
{
	if (e->n == JSON_EDITS_MAX)
		return PD_ETOOBIG;
	e->splice[e->n++] = (struct json_splice){off, del, ins};
	return PD_OK;
}

int json_edit_replace(struct json_edit *e, struct span value, struct span with)
{
	const char *end = e->text.p + e->text.n;
	size_t off;

	if (value.n == 0 || value.p < e->text.p || value.p > end ||
	    value.n > (size_t)(end - value.p))
		return PD_EINVAL;
	off = offset_of(e, value.p);
	for (size_t i = 0; i < e->n; i++) {
		if (e->splice[i].off == off && e->splice[i].del == value.n) {
			e->splice[i].ins = with;
			return PD_OK;
		}
	}
	return add_splice(e, off, value.n, with);
}

/* ,"name": in the scratch buffer. */
static int build_name(struct json_edit *e, const char *name, struct span *piece)
{
	size_t before = e->scratch.len;
	int err = e->scratch.data ? PD_OK : buf_reserve(&e->scratch, JSON_EDIT_SCRATCH);

	if (!err)
		err = buf_putc(&e->scratch, ',');
	if (!err)
		err = json_quote(&e->scratch, name, strlen(name));
	if (!err)
		err = buf_putc(&e->scratch, ':');
	if (err)
		return err;
	*piece = (struct span){e->scratch.data + before, e->scratch.len - before};
	return PD_OK;
}

static int append_member(struct json_edit *e, const char *name, struct span value)
{
	size_t brace = offset_of(e, e->object->text.p) + e->object->text.n - 1;
	struct span piece;
	int err = build_name(e, name, &piece);

	if (err)
		return err;
	for (size_t i = 0; i + 1 < e->n; i++) {
		if (e->splice[i].off == brace && span_eq(e->splice[i].ins, piece)) {
			e->splice[i + 1].ins = value;
			e->scratch.len -= piece.n;
			return PD_OK;
		}
	}
	if (e->n + 2 > JSON_EDITS_MAX)
		return PD_ETOOBIG;
	e->appended = true;
	err = add_splice(e, brace, 0, piece);
	return err ? err : add_splice(e, brace, 0, value);
}

int json_edit_set(struct json_edit *e, const char *name, struct span value)
{
	const struct json_object *o = e->object;
	bool found = false;

	for (size_t i = 0; i < o->n; i++) {
		int err;

		if (!json_member_is(&o->member[i], name))
			continue;
		found = true;
		err = json_edit_replace(e, o->member[i].value, value);
		if (err)
			return err;
	}
	return found ? PD_OK : append_member(e, name, value);
}

int json_edit_remove(struct json_edit *e, const char *name)
{
	const struct json_object *o = e->object;

	for (size_t i = 0; i < o->n; i++) {
		bool known = false;

		if (!json_member_is(&o->member[i], name))
			continue;
		for (size_t k = 0; k < e->nremoved; k++)
			known |= e->removed[k] == i;
		if (known)
			continue;
		if (e->nremoved == JSON_EDITS_MAX)
			return PD_ETOOBIG;
		e->removed[e->nremoved++] = i;
	}
	return PD_OK;
}

static size_t member_start(const struct json_edit *e, size_t i)
{
	return offset_of(e, e->object->member[i].key.p) - 1;
}

static size_t member_end(const struct json_edit *e, size_t i)
{
	struct span v = e->object->member[i].value;

	return offset_of(e, v.p) + v.n;
}

static void sort_removed(struct json_edit *e)
{
	for (size_t i = 1; i < e->nremoved; i++) {
		size_t v = e->removed[i], k = i;

		for (; k > 0 && e->removed[k - 1] > v; k--)
			e->removed[k] = e->removed[k - 1];
		e->removed[k] = v;
	}
}

/*
 * Members at the beginning go together with the commas behind them, all others with the comma
 * before them. When nothing stays, the first appended member loses its comma.
 */
static int splice_removed(struct json_edit *e)
{
	size_t lead = 0, n = e->object->n;
	int err = PD_OK;

	sort_removed(e);
	while (lead < e->nremoved && e->removed[lead] == lead)
		lead++;
	if (lead > 0) {
		size_t from = member_start(e, 0);
		size_t to = lead < n ? member_start(e, lead) : member_end(e, n - 1);

		err = add_splice(e, from, to - from, SPAN(""));
	}
	for (size_t i = lead; i < e->nremoved && !err; i++) {
		size_t from = member_end(e, e->removed[i] - 1), to = member_end(e, e->removed[i]);

		err = add_splice(e, from, to - from, SPAN(""));
	}
	return err;
}

/* Stable, because the pieces of one place belong in the order of their insertion. */
static void sort_splices(struct json_edit *e)
{
	for (size_t i = 1; i < e->n; i++) {
		struct json_splice v = e->splice[i];
		size_t k = i;

		for (; k > 0 && e->splice[k - 1].off > v.off; k--)
			e->splice[k] = e->splice[k - 1];
		e->splice[k] = v;
	}
}

static void drop_first_comma(struct json_edit *e)
{
	size_t brace = offset_of(e, e->object->text.p) + e->object->text.n - 1;

	for (size_t i = 0; i < e->n; i++) {
		if (e->splice[i].off == brace) {
			e->splice[i].ins.p++;
			e->splice[i].ins.n--;
			return;
		}
	}
}

int json_edit_finish(struct json_edit *e, size_t *total)
{
	bool empty = e->nremoved == e->object->n;
	size_t at = 0, sum = e->text.n;
	int err = splice_removed(e);

	if (err)
		return err;
	sort_splices(e);
	if (e->appended && empty)
		drop_first_comma(e);
	for (size_t i = 0; i < e->n; i++) {
		const struct json_splice *s = &e->splice[i];

		if (s->off < at)
			return PD_EINVAL;
		at = s->off + s->del;
		if (__builtin_add_overflow(sum - s->del, s->ins.n, &sum))
			return PD_ETOOBIG;
	}
	*total = sum;
	return PD_OK;
}

size_t json_edit_spans(const struct json_edit *e, struct span *out, size_t cap)
{
	size_t at = 0, n = 0;

	for (size_t i = 0; i <= e->n; i++) {
		bool last = i == e->n;
		size_t to = last ? e->text.n : e->splice[i].off;

		if (to > at && n < cap)
			out[n++] = (struct span){e->text.p + at, to - at};
		if (last)
			break;
		if (e->splice[i].ins.n > 0 && n < cap)
			out[n++] = e->splice[i].ins;
		at = to + e->splice[i].del;
	}
	return n;
}

int json_edit_copy(const struct json_edit *e, struct buf *out)
{
	struct span piece[2 * JSON_EDITS_MAX + 1];
	size_t n = json_edit_spans(e, piece, 2 * JSON_EDITS_MAX + 1), total = 0, before = out->len;
	int err;

	for (size_t i = 0; i < n; i++)
		total += piece[i].n;
	err = buf_reserve(out, total);
	for (size_t i = 0; i < n && !err; i++)
		err = buf_append(out, piece[i].p, piece[i].n);
	if (err && out->data && out->len > before) {
		out->len = before;
		out->data[before] = '\0';
	}
	return err;
}
