/*
 * NIXL, pull (vLLM NixlConnector): prefill runs first and answers with coordinates of its blocks,
 * which the decode request carries verbatim. Source: vLLM's toy proxy and vllm-router 0.1.17.
 */
#include "lib/pd/connector.h"
#include "lib/pd/legs.h"

#define PARAMS "kv_transfer_params"

/* As vLLM's example proxy sends them. */
#define PULL                                                                                       \
	"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
	"\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

/* -- what a client must not send -- */

/*
 * Engines take the parameters from extra_args and vllm_xargs, there or in sampling_params, besides
 * the top level. They name the host that an engine connects to, so they are the router's alone. At
 * the top level they are replaced or removed.
 */
static int check(const struct json_object *body, struct pd_msg *msg)
{
	if (!pd_hidden(body, PARAMS))
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       PARAMS " in extra_args or vllm_xargs: they name the host that an engine "
			      "connects to, which is the router's to choose");
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	if (!err)
		err = pd_once(c->body.object, PARAMS, msg);
	return err ? err : json_edit_set(&c->body, PARAMS, SPAN(PULL));
}

/* Coordinates of blocks say so; anything else (an echo of ours, an older offer) is no result. */
static bool is_offer(struct span params)
{
	struct json_member m;
	bool offer = false;
	size_t at = 0;

	while (params.n > 0 && json_object_next(params, &at, &m))
		if (json_member_is(&m, "do_remote_prefill"))
			offer = m.type == JSON_TRUE;
	return offer;
}

static int answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	struct json_object o;
	int err = json_object_scan(&o, answer.p, answer.n, msg);

	if (err)
		return err;
	p->params = pd_object_at(&o, PARAMS);
	p->blocks = is_offer(p->params);
	if (!p->blocks)
		p->params = (struct span){0};
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
