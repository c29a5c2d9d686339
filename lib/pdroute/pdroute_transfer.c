/* Prefill and decode: the text side of one attempt. */
#include "lib/pdroute/pdroute_impl.h"

#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/pd/connector.h"

#define USAGE_ROOM                                                                                 \
	4096 /* more that a merged document may need than document and usage together              \
	      */

#define PAIR_TEXT_MAX 65536

struct pdroute_transfer {
	const struct json_object *body;
	const struct pd_connector *connector;
	struct pd_pair pair; /* points into `answer` */
	struct buf answer;
};

const char *pdroute_connector_at(size_t i)
{
	size_t n = 0;

	while (pd_connector_names[n])
		n++;
	return i < n ? pd_connector_names[i] : NULL;
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
	t->pair.path = pd_path_of(span_of(path));
	t->pair.usage = PD_PREFILL_UNKNOWN;
	buf_init(&t->pair.text, PAIR_TEXT_MAX);
	*out = t;
	return PD_OK;
}

void pdroute_transfer_free(struct pdroute_transfer *t)
{
	if (!t)
		return;
	buf_release(&t->answer);
	pd_pair_release(&t->pair);
	free(t);
}

/* The edited body; releases the copy. */
static int finish(struct pd_copy *c, int err, struct pdroute_text *out, struct pdroute_message *msg,
		  const struct pd_msg *why)
{
	struct buf text;
	size_t total = 0;

	if (!err)
		err = json_edit_finish(&c->body, &total);
	buf_init(&text, total);
	if (!err)
		err = json_edit_copy(&c->body, &text);
	pd_copy_release(c);
	if (err) {
		buf_release(&text);
		return pdroute_fail(msg, why, err);
	}
	out->size = text.len;
	out->data = buf_detach(&text);
	return PD_OK;
}

int pdroute_transfer_prefill(struct pdroute_transfer *t, struct pdroute_text *out,
			     struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct pd_copy c;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	err = pd_copy_init(&c, t->body, &t->pair);
	if (!err)
		err = t->connector->prefill(&t->pair, &c, &why);
	return finish(&c, err, out, msg, &why);
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
	struct pd_msg why = {0};
	struct pd_copy c;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	err = pd_copy_init(&c, t->body, &t->pair);
	if (!err)
		err = t->connector->decode(&t->pair, &c, &why);
	return finish(&c, err, out, msg, &why);
}

int pdroute_transfer_drop(struct pdroute_transfer *t, struct pdroute_text *out,
			  struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct pd_copy c;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	if (!t->pair.blocks || !t->connector->release) {
		*out = (struct pdroute_text){NULL, 0};
		return PD_OK;
	}
	err = pd_copy_init(&c, t->body, &t->pair);
	if (!err)
		err = t->connector->release(&t->pair, &c, &why);
	return finish(&c, err, out, msg, &why);
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
