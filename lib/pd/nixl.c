/*
 * NIXL, pull (vLLM NixlConnector): prefill runs first and answers with coordinates of its blocks,
 * which the decode request carries verbatim. Source: vLLM's toy proxy and vllm-router 0.1.17.
 */
#include "lib/pd/connector.h"

#include <string.h>

#define PARAMS "kv_transfer_params"

/* As vLLM's example proxy sends them. */
#define PULL                                                                                       \
	"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
	"\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

/* -- what a client must not send -- */

#define HIDING_DEPTH 2 /* sampling_params.extra_args.kv_transfer_params */

static bool hides_params(struct span object, int depth)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(object, &at, &m)) {
		if (json_member_is(&m, "kv_transfer_params"))
			return true;
		if (depth < HIDING_DEPTH && m.type == JSON_OBJECT &&
		    (json_member_is(&m, "extra_args") || json_member_is(&m, "vllm_xargs")) &&
		    hides_params(m.value, depth + 1))
			return true;
	}
	return false;
}

/*
 * Engines take the parameters from extra_args and vllm_xargs, there or in sampling_params, besides
 * the top level. They name the host that an engine connects to, so they are the router's alone. At
 * the top level they are replaced or removed.
 */
static int check(const struct json_object *body, struct pd_msg *msg)
{
	static const char *const places[] = {"sampling_params", "extra_args", "vllm_xargs"};

	for (size_t i = 0; i < body->n; i++) {
		const struct json_member *m = &body->member[i];

		for (size_t k = 0; m->type == JSON_OBJECT && k < 3; k++)
			if (json_member_is(m, places[k]) && hides_params(m->value, 1))
				return pd_fail(msg, PD_EINVAL,
					       "kv_transfer_params in extra_args or vllm_xargs: "
					       "they name the host that an engine connects to, "
					       "which is the router's to choose");
	}
	return PD_OK;
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	if (!err)
		err = pd_once(c->body.object, PARAMS, msg);
	return err ? err : json_edit_set(&c->body, PARAMS, SPAN(PULL));
}

static int answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	struct json_object o;
	int err = json_object_scan(&o, answer.p, answer.n, msg);

	if (err)
		return err;
	p->params = pd_object_at(&o, PARAMS);
	p->blocks = p->params.n > 0;
	pd_usage_of_prefill(&p->usage, &o);
	json_object_release(&o);
	return PD_OK;
}

/* Without blocks there are no parameters either, not even ones that the client made up. */
static int decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	(void)msg;
	return p->blocks ? json_edit_set(&c->body, PARAMS, p->params)
			 : json_edit_remove(&c->body, PARAMS);
}

/* A decode of one token makes the decode worker fetch the blocks, and prefill frees them. */
static int release(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	return err ? err : decode(p, c, msg);
}

const struct pd_connector pd_connector_nixl = {
	.name = "nixl",
	.help = "vLLM NixlConnector, pull: decode fetches the blocks that the prefill answer names",
	.flags = PD_READ_ONCE,
	.returns = PARAMS,
	.check = check,
	.prefill = prefill,
	.answered = answered,
	.decode = decode,
	.release = release,
};
