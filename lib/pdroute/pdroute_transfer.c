/* Prefill and decode: the text side of one attempt. */
#include "lib/pdroute/pdroute_impl.h"

#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/pd/connector.h"

#define USAGE_ROOM                                                                                 \
	4096 /* more that a merged document may need than document and usage together              \
	      */

struct pdroute_transfer {
	const struct json_object *body;
	const struct pd_connector *connector;
	struct pd_pair pair; /* points into the texts below */
	struct buf answer;
	char *id, *known, *place[4];		/* hosts and KV addresses of both */
	struct field field[1 + PD_COPY_FIELDS]; /* of the body made last */
	size_t nfields;
};

const char *pdroute_connector_at(size_t i)
{
	for (size_t n = 0; pd_connectors[n]; n++)
		if (n == i)
			return pd_connectors[n]->name;
	return NULL;
}

static const struct pd_connector *connector_of(const char *name)
{
	const struct pd_connector *c = NULL;

	return name && pd_connector_find(&c, name, NULL) == PD_OK ? c : NULL;
}

const char *pdroute_connector_help(const char *name)
{
	const struct pd_connector *c = connector_of(name);

	return c ? c->help : NULL;
}

bool pdroute_connector_reads_once(const char *name)
{
	const struct pd_connector *c = connector_of(name);

	return c && (c->flags & PD_READ_ONCE);
}

const char *pdroute_connector_inquiry(const char *name, uint16_t *port)
{
	const struct pd_connector *c = connector_of(name);

	if (port)
		*port = c ? c->bootstrap_port : 0;
	return c ? c->inquiry : NULL;
}

int pdroute_transfer_new(struct pdroute_transfer **out, const char *connector, const char *path,
			 const struct pdroute_body *body, struct pdroute_message *msg)
{
	const struct pd_connector *found;
	struct pdroute_transfer *t;
	struct pd_msg why = {0};

	if (!out || !connector || !path || !body)
		return pdroute_fail(msg, &why, PD_EINVAL);
	if (pd_connector_find(&found, connector, &why))
		return pdroute_fail(msg, &why, PD_EINVAL);
	if (pd_path_of(span_of(path)) == PD_PATH_OTHER)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "path '%.200s' is not served by prefill and decode",
					    path));
	if (found->check && found->check(&body->object, &why))
		return pdroute_fail(msg, &why, PD_EINVAL);
	t = calloc(1, sizeof(*t));
	if (!t)
		return pdroute_fail(msg, &why, PD_ENOMEM);
	t->body = &body->object;
	t->connector = found;
	pd_pair_init(&t->pair, pd_path_of(span_of(path)), (struct span){0}, 0);
	*out = t;
	return PD_OK;
}

void pdroute_transfer_free(struct pdroute_transfer *t)
{
	if (!t)
		return;
	buf_release(&t->answer);
	pd_pair_release(&t->pair);
	free(t->id);
	for (int i = 0; i < 4; i++)
		free(t->place[i]);
	free(t->known);
	free(t);
}

int pdroute_transfer_set_id(struct pdroute_transfer *t, const char *id, size_t size, uint64_t draw)
{
	char *copy;

	if (!t || !id || size == 0)
		return PD_EINVAL;
	copy = malloc(size);
	if (!copy)
		return PD_ENOMEM;
	memcpy(copy, id, size);
	free(t->id);
	t->id = copy;
	t->pair.id = (struct span){copy, size};
	t->pair.draw = draw;
	return PD_OK;
}

int pdroute_transfer_set_ends(struct pdroute_transfer *t, const struct pdroute_end *prefill,
			      const struct pdroute_end *decode)
{
	const struct pdroute_end *from[] = {prefill, decode};
	struct pd_end *to[2];
	char *text[4] = {NULL};
	bool failed = false;

	if (!t || !prefill || !decode || !prefill->host || !decode->host)
		return PD_EINVAL;
	to[0] = &t->pair.prefill;
	to[1] = &t->pair.decode;
	for (int i = 0; i < 2; i++) {
		text[i] = strdup(from[i]->host);
		text[2 + i] = strdup(from[i]->kv_address ? from[i]->kv_address : "");
		failed |= !text[i] || !text[2 + i];
	}
	for (int i = 0; i < 4; i++) {
		free(failed ? text[i] : t->place[i]);
		t->place[i] = failed ? t->place[i] : text[i];
	}
	for (int i = 0; i < 2 && !failed; i++)
		*to[i] = (struct pd_end){.host = span_of(text[i]),
					 .port = from[i]->port,
					 .bootstrap = from[i]->bootstrap_port,
					 .rank = from[i]->rank,
					 .kv = span_of(text[2 + i]),
					 .tp_size = from[i]->tp_size,
					 .dp_size = from[i]->dp_size,
					 .writes = from[i]->writes};
	return failed ? PD_ENOMEM : PD_OK;
}

int pdroute_transfer_set_known(struct pdroute_transfer *t, const char *text, size_t size)
{
	char *copy;

	if (!t || !text || size == 0)
		return PD_EINVAL;
	copy = malloc(size);
	if (!copy)
		return PD_ENOMEM;
	memcpy(copy, text, size);
	free(t->known);
	t->known = copy;
	t->pair.known = (struct span){copy, size};
	return PD_OK;
}

bool pdroute_transfer_is_concurrent(const struct pdroute_transfer *t)
{
	return t->pair.at_once;
}

bool pdroute_transfer_learnt(const struct pdroute_transfer *t, const char **text, size_t *size)
{
	*text = t->pair.learnt.p;
	*size = t->pair.learnt.n;
	return t->pair.learnt.n > 0;
}

/* The body that a step of the connector makes, and the fields that go with it. */
static int make(struct pdroute_transfer *t,
		int (*step)(struct pd_pair *, struct pd_copy *, struct pd_msg *),
		struct pdroute_text *out, struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct buf text;
	struct pd_copy c;
	size_t total = 0;
	int err = pd_copy_init(&c, t->body, &t->pair);

	if (!err)
		err = step(&t->pair, &c, &why);
	if (!err)
		err = json_edit_finish(&c.body, &total);
	buf_init(&text, total);
	if (!err)
		err = json_edit_copy(&c.body, &text);
	if (!err) {
		t->nfields = 0;
		if (c.id.n > 0)
			t->field[t->nfields++] =
				(struct field){.name = SPAN("X-Request-Id"), .value = c.id};
		for (size_t i = 0; i < c.nadd; i++)
			t->field[t->nfields++] = c.add[i];
		out->size = text.len;
		out->data = buf_detach(&text);
	}
	pd_copy_release(&c);
	buf_release(&text);
	return err ? pdroute_fail(msg, &why, err) : PD_OK;
}

static int wrong(struct pdroute_message *msg)
{
	return pdroute_fail(msg, &(struct pd_msg){0}, PD_EINVAL);
}

int pdroute_transfer_prefill(struct pdroute_transfer *t, struct pdroute_text *out,
			     struct pdroute_message *msg)
{
	return t && out ? make(t, t->connector->prefill, out, msg) : wrong(msg);
}

bool pdroute_transfer_field(const struct pdroute_transfer *t, size_t i, struct pdroute_field *out)
{
	if (i >= t->nfields)
		return false;
	*out = (struct pdroute_field){t->field[i].name.p, t->field[i].name.n, t->field[i].value.p,
				      t->field[i].value.n};
	return true;
}

int pdroute_transfer_answered(struct pdroute_transfer *t, const char *answer, size_t size,
			      struct pdroute_message *msg)
{
	struct pd_pair found;
	struct pd_msg why = {0};
	struct buf copy;
	int err;

	if (!t || !answer)
		return pdroute_fail(msg, &why, PD_EINVAL);
	/* The spans that are kept point into a copy of the answer. */
	buf_init(&copy, size);
	if (buf_append(&copy, answer, size))
		return pdroute_fail(msg, &why, PD_ENOMEM);
	found = t->pair;
	err = t->connector->answered(&found, buf_span(&copy), &why);
	if (err) {
		t->pair.text = found.text;
		t->pair.made_id = found.made_id;
		buf_release(&copy);
		return pdroute_fail(msg, &why, err);
	}
	buf_release(&t->answer);
	t->answer = copy;
	t->pair = found;
	return PD_OK;
}

bool pdroute_transfer_has_blocks(const struct pdroute_transfer *t)
{
	return t->pair.blocks;
}

int64_t pdroute_transfer_prompt_tokens(const struct pdroute_transfer *t)
{
	return t->pair.usage.prompt_tokens;
}

int64_t pdroute_transfer_cached_tokens(const struct pdroute_transfer *t)
{
	return t->pair.usage.cached_tokens;
}

int pdroute_transfer_decode(struct pdroute_transfer *t, struct pdroute_text *out,
			    struct pdroute_message *msg)
{
	return t && out ? make(t, t->connector->decode, out, msg) : wrong(msg);
}

int pdroute_transfer_drop(struct pdroute_transfer *t, struct pdroute_text *out,
			  struct pdroute_message *msg)
{
	if (!t || !out)
		return wrong(msg);
	if (t->pair.blocks && t->connector->release)
		return make(t, t->connector->release, out, msg);
	*out = (struct pdroute_text){NULL, 0};
	return PD_OK;
}

int pdroute_transfer_usage(const struct pdroute_transfer *t, const char *doc, size_t size,
			   struct pdroute_text *out)
{
	struct buf text;
	bool changed;
	int err;

	if (!t || !doc || !out)
		return PD_EINVAL;
	buf_init(&text, size + t->pair.usage.usage.n + USAGE_ROOM);
	err = pd_usage_merge(doc, size, &t->pair.usage, &text, &changed);
	if (!err)
		*out = (struct pdroute_text){NULL, 0};
	if (!err && changed) {
		out->size = text.len;
		out->data = buf_detach(&text);
	}
	buf_release(&text);
	return err;
}
