/* Prefill and decode: the text side of one attempt. */
#include "lib/pdroute/pdroute_impl.h"

#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/pd/usage.h"

#define USAGE_ROOM                                                                                 \
	4096 /* more that a merged document may need than document and usage together              \
	      */

struct pdroute_transfer {
	const struct json_object *body;
	enum pd_path path;
	struct pd_prefill_result prefill; /* points into `answer` */
	struct buf answer;
};

static const char *const connector_names[] = {"nixl"};

const char *pdroute_connector_at(size_t i)
{
	return i == 0 ? connector_names[0] : NULL;
}

int pdroute_transfer_new(struct pdroute_transfer **out, const char *connector, const char *path,
			 const struct pdroute_body *body, struct pdroute_message *msg)
{
	struct pdroute_transfer *t;
	struct pd_msg why = {0};

	if (!out || !connector || !path || !body)
		return pdroute_fail(msg, &why, PD_EINVAL);
	if (strcmp(connector, connector_names[0]) != 0)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "unknown connector '%.60s', expected nixl", connector));
	if (pd_path_of(span_of(path)) == PD_PATH_OTHER)
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "path '%.200s' is not served by prefill and decode",
					    path));
	if (pd_nixl_hidden_params(&body->object))
		return pdroute_fail(
			msg, &why,
			pd_fail(&why, PD_EINVAL, "kv_transfer_params in extra_args or vllm_xargs"));
	t = calloc(1, sizeof(*t));
	if (!t)
		return pdroute_fail(msg, &why, PD_ENOMEM);
	t->body = &body->object;
	t->path = pd_path_of(span_of(path));
	t->prefill = (struct pd_prefill_result){.prompt_tokens = -1, .cached_tokens = -1};
	*out = t;
	return PD_OK;
}

void pdroute_transfer_free(struct pdroute_transfer *t)
{
	if (!t)
		return;
	buf_release(&t->answer);
	free(t);
}

/* The edited body; releases the edit. */
static int finish(struct json_edit *e, int err, struct pdroute_text *out,
		  struct pdroute_message *msg, const struct pd_msg *why)
{
	struct buf text;
	size_t total = 0;

	if (!err)
		err = json_edit_finish(e, &total);
	buf_init(&text, total);
	if (!err)
		err = json_edit_copy(e, &text);
	json_edit_release(e);
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
	struct json_edit e;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	err = json_edit_init(&e, t->body);
	if (!err)
		err = pd_nixl_prefill(&e, t->path, &why);
	return finish(&e, err, out, msg, &why);
}

int pdroute_transfer_answered(struct pdroute_transfer *t, const char *answer, size_t size,
			      struct pdroute_message *msg)
{
	struct pd_prefill_result r;
	struct pd_msg why = {0};
	struct buf copy;
	int err = t && answer ? pd_nixl_prefill_result(&r, answer, size, &why) : PD_EINVAL;

	if (err)
		return pdroute_fail(msg, &why, err);
	buf_init(&copy, r.params.n + r.usage.n);
	if (buf_append(&copy, r.params.p, r.params.n) || buf_append(&copy, r.usage.p, r.usage.n)) {
		buf_release(&copy);
		return pdroute_fail(msg, &why, PD_ENOMEM);
	}
	r.params.p = copy.data;
	r.usage.p = r.usage.n > 0 ? copy.data + r.params.n : NULL;
	buf_release(&t->answer);
	t->answer = copy;
	t->prefill = r;
	return PD_OK;
}

bool pdroute_transfer_has_blocks(const struct pdroute_transfer *t)
{
	return t->prefill.params.n > 0;
}

int64_t pdroute_transfer_prompt_tokens(const struct pdroute_transfer *t)
{
	return t->prefill.prompt_tokens;
}

int64_t pdroute_transfer_cached_tokens(const struct pdroute_transfer *t)
{
	return t->prefill.cached_tokens;
}

int pdroute_transfer_decode(struct pdroute_transfer *t, struct pdroute_text *out,
			    struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct json_edit e;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	err = json_edit_init(&e, t->body);
	if (!err)
		err = t->prefill.params.n > 0 ? pd_nixl_decode(&e, t->prefill.params)
					      : json_edit_remove(&e, "kv_transfer_params");
	return finish(&e, err, out, msg, &why);
}

int pdroute_transfer_drop(struct pdroute_transfer *t, struct pdroute_text *out,
			  struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct json_edit e;
	int err;

	if (!t || !out)
		return pdroute_fail(msg, &why, PD_EINVAL);
	if (t->prefill.params.n == 0) {
		*out = (struct pdroute_text){NULL, 0};
		return PD_OK;
	}
	err = json_edit_init(&e, t->body);
	if (!err)
		err = pd_nixl_prefill(&e, t->path, &why);
	if (!err)
		err = pd_nixl_decode(&e, t->prefill.params);
	return finish(&e, err, out, msg, &why);
}

int pdroute_transfer_usage(const struct pdroute_transfer *t, const char *doc, size_t size,
			   struct pdroute_text *out)
{
	struct buf text;
	bool changed;
	int err;

	if (!t || !doc || !out)
		return PD_EINVAL;
	buf_init(&text, size + t->prefill.usage.n + USAGE_ROOM);
	err = pd_usage_merge(doc, size, &t->prefill, &text, &changed);
	if (!err)
		*out = (struct pdroute_text){NULL, 0};
	if (!err && changed) {
		out->size = text.len;
		out->data = buf_detach(&text);
	}
	buf_release(&text);
	return err;
}
