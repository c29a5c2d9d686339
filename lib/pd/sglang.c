/*
 * SGLang: both workers get the client's whole request at once, with the prefill worker's bootstrap
 * server and a room that is new for each attempt; a batch of prompts gets a list of each. Source:
 * SGLang's router and llm-d's routing sidecar.
 */
#include <inttypes.h>

#include "lib/pd/parts.h"

#define BATCH_MAX 4096

/* How many prompts the body holds; 0: one, and not in a list. */
static size_t batch_of(const struct json_object *body, enum pd_path path)
{
	const struct json_member *m =
		path == PD_PATH_COMPLETIONS ? json_object_get(body, "prompt") : NULL;
	enum json_type type, first = JSON_NONE;
	struct span one;
	size_t n = 0, at = 0;

	while (m && m->type == JSON_ARRAY && json_array_next(m->value, &at, &one, &type)) {
		first = n++ == 0 ? type : first;
		if (first == JSON_NUMBER)
			return 0; /* the tokens of one prompt */
	}
	return n;
}

/* value, or [value,value...]; rooms are counted up. */
static int times(struct buf *out, size_t batch, struct span value, uint64_t room)
{
	int err = batch > 0 ? buf_putc(out, '[') : PD_OK;

	for (size_t i = 0; !err && (i < batch || i == 0); i++) {
		if (i > 0)
			err = buf_putc(out, ',');
		if (!err)
			err = value.n > 0
				      ? buf_append(out, value.p, value.n)
				      : buf_printf(out, "%" PRIu64, (room + i) & (UINT64_MAX >> 1));
	}
	return err || batch == 0 ? err : buf_putc(out, ']');
}

/* host, port and room stand one after the other in p->text; made once an attempt. */
static int bootstrap(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	static const char *const names[] = {"bootstrap_host", "bootstrap_port", "bootstrap_room"};
	size_t batch = batch_of(c->body.object, p->path), end[4] = {0};
	struct span value[3] = {0};
	struct buf host, port;
	int err = PD_OK;

	if (batch > BATCH_MAX)
		return pd_fail(msg, PD_EINVAL, "%zu prompts in one request, expected at most %d",
			       batch, BATCH_MAX);
	buf_init(&host, 1024);
	buf_init(&port, 16);
	err = json_quote(&host, p->prefill.host.p, p->prefill.host.n);
	if (!err)
		err = p->prefill.bootstrap ? buf_printf(&port, "%d", p->prefill.bootstrap)
					   : buf_puts(&port, "null");
	value[0] = buf_span(&host);
	value[1] = buf_span(&port);
	buf_clear(&p->text);
	for (size_t i = 0; i < 3 && !err; i++) {
		err = times(&p->text, batch, value[i], p->draw >> 1);
		end[i + 1] = p->text.len;
	}
	for (size_t i = 0; i < 3 && !err; i++) {
		err = pd_once(c->body.object, names[i], msg);
		err = err ? err
			  : json_edit_set(
				    &c->body, names[i],
				    (struct span){p->text.data + end[i], end[i + 1] - end[i]});
	}
	buf_release(&host);
	buf_release(&port);
	return err;
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	p->at_once = p->blocks = true;
	return bootstrap(p, c, msg);
}

static int decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	return p->blocks ? bootstrap(p, c, msg) : PD_OK;
}

/* What prefill answers is the beginning of a stream or an answer like decode's: nothing of it is
 * needed. */
static int answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	(void)p;
	(void)answer;
	(void)msg;
	return PD_OK;
}

const struct pd_connector pd_connector_sglang = {
	.name = "sglang",
	.help = "SGLang: both get the whole request at once, with the bootstrap host, port and "
		"room",
	.flags = PD_READ_ONCE | PD_WHOLE,
	.bootstrap_port = 8998,
	.prefill = prefill,
	.answered = answered,
	.decode = decode,
};
