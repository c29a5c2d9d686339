/*
 * MoRI-IO (AMD): one transfer id for both workers. READ: prefill, then decode with what prefill
 * answered. WRITE: both at once, and prefill writes into the decode worker. A worker registers its
 * mode, its parallel sizes and its address, "host:H,handshake:P,notify:P"; each engine reads the
 * other one's out of the request id. Source: vLLM's moriio toy proxy and vllm-router 0.1.17.
 */
#include <string.h>

#include "lib/pd/parts.h"

#define ASK "\"remote_engine_id\":null,\"remote_block_ids\":null,\"transfer_id\":\"tx-"

static unsigned size_of(unsigned n)
{
	return n > 0 ? n : 1;
}

/* What one worker is told of the other, appended to p->text. */
static int params_for(struct pd_pair *p, bool prefills, const struct pd_end *other)
{
	char uuid[PD_UUID_TEXT];
	int err;

	pd_uuid(p->draw, false, uuid);
	err = buf_printf(&p->text,
			 "{\"do_remote_decode\":%s,\"do_remote_prefill\":%s," ASK
			 "%s\",\"remote_dp_size\":%u",
			 prefills ? "true" : "false", prefills ? "false" : "true", uuid,
			 size_of(other->dp_size));
	if (!err && p->at_once)
		err = buf_printf(&p->text, ",\"remote_tp_size\":%u", size_of(other->tp_size));
	if (!err && p->at_once && other->dp_size > 1)
		err = buf_printf(&p->text, ",\"remote_dp_rank\":%d",
				 other->rank < 0 ? 0 : other->rank);
	return err ? err : buf_putc(&p->text, '}');
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	size_t first;
	int err = pd_path_limit(&c->body, p->path, msg);

	err = err ? err : pd_address_id(p);
	if (!err)
		c->id = buf_span(&p->made_id);
	p->at_once = p->prefill.writes;
	buf_clear(&p->text);
	err = err ? err : params_for(p, true, &p->decode);
	first = p->text.len;
	if (!err && p->at_once)
		err = params_for(p, false, &p->prefill);
	if (err)
		return err;
	p->blocks = p->at_once;
	p->params = (struct span){p->text.data + first, p->text.len - first};
	return pd_set_params(c, (struct span){p->text.data, first}, msg);
}

/* READ: what prefill returned, and its size. */
static int answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	struct json_object o;
	struct span found;
	int err = json_object_scan(&o, answer.p, answer.n, msg);

	if (err)
		return err;
	pd_usage_of_prefill(&p->usage, &o);
	found = pd_object_at(&o, PD_PARAMS);
	json_object_release(&o);
	if (p->at_once)
		return PD_OK;
	p->blocks = found.n > 2;
	p->params = (struct span){0};
	if (!p->blocks)
		return PD_OK;
	buf_clear(&p->text);
	err = buf_append(&p->text, found.p, found.n - 1);
	err = err ? err
		  : buf_printf(&p->text, ",\"remote_dp_size\":%u}", size_of(p->prefill.dp_size));
	if (err)
		return err;
	p->params = buf_span(&p->text);
	return PD_OK;
}

static int decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	if (p->blocks && p->made_id.len > 0)
		c->id = buf_span(&p->made_id);
	return pd_params_decode(p, c, msg);
}

const struct pd_connector pd_connector_moriio = {
	.name = "moriio",
	.also = "MoRIIOConnector|mori",
	.help = "MoRI-IO: READ after prefill, WRITE at once, as the prefill worker registered",
	.flags = PD_READ_ONCE | PD_ENDS,
	.returns = PD_PARAMS,
	.check = pd_check_params,
	.prefill = prefill,
	.answered = answered,
	.decode = decode,
};
