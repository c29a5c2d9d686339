/*
 * NIXL (vLLM NixlConnector). Pull: prefill runs first and answers with coordinates of its blocks,
 * which the decode request carries verbatim. Push: an answer with "transfer_mode":"push" says where
 * the prefill engine is; from then on both requests are sent at once, and decode is told that
 * engine and the request's id. Source: vLLM's toy proxy and vllm-router 0.1.17.
 */
#include "lib/pd/parts.h"

/* As vLLM's example proxy sends them. */
#define PULL                                                                                       \
	"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
	"\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

/* What decode gets of an engine that pushes; `known` holds its four members. */
static int push_params(struct pd_pair *p)
{
	int err;

	buf_clear(&p->text);
	err = buf_printf(&p->text,
			 "{\"do_remote_prefill\":true,\"do_remote_decode\":false,%.*s,"
			 "\"remote_request_id\":",
			 (int)p->known.n, p->known.p);
	err = err ? err : json_quote(&p->text, p->id.p, p->id.n);
	err = err ? err : buf_putc(&p->text, '}');
	if (err)
		return err;
	p->params = buf_span(&p->text);
	p->at_once = p->blocks = true;
	return PD_OK;
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	err = err ? err : pd_set_params(c, SPAN(PULL), msg);
	return err || p->known.n == 0 ? err : push_params(p);
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

/* Where an engine that pushes is, out of its answer: the members that each decode request gets. */
static int learn(struct pd_pair *p, struct span params)
{
	static const char *const names[] = {"remote_engine_id", "remote_host", "remote_port",
					    "tp_size"};
	enum json_type type;
	struct json_object o;
	struct span value;
	int err = json_object_scan(&o, params.p, params.n, NULL);

	if (err)
		return PD_OK;
	buf_clear(&p->text);
	for (size_t i = 0; !err && i < 4; i++) {
		bool found = json_object_path(&o, names[i], &type, &value) && type != JSON_NULL;

		if (!found && i < 3) {
			buf_clear(&p->text);
			break;
		}
		err = buf_printf(&p->text, "%s\"%s\":%.*s", i > 0 ? "," : "", names[i],
				 found ? (int)value.n : 1, found ? value.p : "1");
	}
	json_object_release(&o);
	p->learnt = buf_span(&p->text);
	return err;
}

static bool pushes(struct span params)
{
	struct json_member m;
	bool push = false;
	size_t at = 0;

	while (params.n > 0 && json_object_next(params, &at, &m))
		if (json_member_is(&m, "transfer_mode"))
			push = span_eq(m.value, SPAN("\"push\""));
	return push;
}

static int answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	struct json_object o;
	struct span params;
	int err = json_object_scan(&o, answer.p, answer.n, msg);

	if (err)
		return err;
	params = pd_object_at(&o, PD_PARAMS);
	pd_usage_of_prefill(&p->usage, &o);
	json_object_release(&o);
	if (p->at_once)
		return PD_OK;
	p->blocks = is_offer(params);
	p->params = p->blocks ? params : (struct span){0};
	return pushes(params) ? learn(p, params) : PD_OK;
}

/* A decode of one token makes the decode worker fetch the blocks, and prefill frees them. */
static int release(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	return err ? err : pd_params_decode(p, c, msg);
}

const struct pd_connector pd_connector_nixl = {
	.name = "nixl",
	.also = "NixlConnector|nixl_push",
	.help = "vLLM NixlConnector: decode fetches the blocks that prefill names, or prefill "
		"pushes them",
	.flags = PD_READ_ONCE | PD_KNOWS,
	.returns = PD_PARAMS,
	.check = pd_check_params,
	.prefill = prefill,
	.answered = answered,
	.decode = pd_params_decode,
	.release = release,
};
