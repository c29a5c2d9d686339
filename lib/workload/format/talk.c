#include "lib/workload/format/talk.h"

int talk_begin(struct talk *t, struct format_reader *rd)
{
	*t = (struct talk){.rd = rd, .fresh = 1};
	buf_clear(&rd->text);
	return buf_putc(&rd->text, '[');
}

int talk_say(struct talk *t, const char *role, struct span content)
{
	return format_message(&t->rd->text, role, content);
}

int talk_ask(struct talk *t, struct workload_request *r)
{
	struct buf *text = &t->rd->text;
	size_t n = text->len, from = t->fresh;
	struct buf fresh;
	int err;

	buf_init(&fresh, text->max);
	while (from < n && text->data[from] == ',')
		from++;
	err = buf_putc(&fresh, '[');
	if (!err)
		err = buf_append(&fresh, text->data + from, n - from);
	if (!err)
		err = buf_putc(&fresh, ']');
	if (!err)
		err = buf_putc(text, ']');
	r->messages = buf_span(text);
	r->fresh = buf_span(&fresh);
	r->turn = (int64_t)t->requests++;
	if (!err)
		err = format_add(t->rd, r);
	buf_release(&fresh);
	if (text->len > n)
		text->data[text->len = n] = '\0';
	t->fresh = n;
	return err;
}
