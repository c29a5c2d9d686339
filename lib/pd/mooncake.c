/*
 * vLLM MooncakeConnector: both requests are sent at once with one transfer id, and decode is told
 * where the prefill engine's bootstrap server is and which engine it means. That server knows the
 * engines by their data-parallel rank: GET /query -> {"0":{"engine_id":"..."}}. Source: vLLM's
 * mooncake_connector_proxy.py and vllm-router 0.1.17.
 */
#include <stdio.h>
#include <string.h>

#include "lib/pd/parts.h"

#define BOOTSTRAP_PORT 8998

/* The engine's id as JSON text with its quotes; n == 0: not known. The rank's, else any. */
static struct span engine_of(const struct pd_pair *p)
{
	struct span found = {0}, id;
	struct json_object o, one;
	enum json_type type;
	char rank[16];

	if (p->known.n == 0 || json_object_scan(&o, p->known.p, p->known.n, NULL))
		return found;
	(void)snprintf(rank, sizeof(rank), "%d", p->prefill.rank < 0 ? 0 : p->prefill.rank);
	for (size_t i = 0; i < o.n; i++) {
		const struct json_member *m = &o.member[i];

		if (m->type != JSON_OBJECT || (found.n > 0 && !json_member_is(m, rank)) ||
		    json_object_scan(&one, m->value.p, m->value.n, NULL))
			continue;
		if (json_object_path(&one, "engine_id", &type, &id) && type == JSON_STRING)
			found = (struct span){id.p, id.n};
		json_object_release(&one);
	}
	json_object_release(&o);
	return found;
}

static int prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	const struct pd_end *at = &p->prefill;
	struct span engine = engine_of(p);
	char uuid[PD_UUID_TEXT];
	size_t first;
	int err;

	if (engine.n == 0)
		return pd_fail(msg, PD_ENOENT,
			       "the bootstrap server of the prefill worker named no engine");
	pd_uuid(p->draw, true, uuid);
	buf_clear(&p->text);
	err = buf_printf(&p->text,
			 "{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
			 "\"transfer_id\":\"xfer-%s\"}",
			 uuid);
	first = p->text.len;
	err = err ? err
		  : buf_puts(&p->text, "{\"do_remote_decode\":false,\"do_remote_prefill\":true,"
				       "\"remote_bootstrap_addr\":\"http://");
	err = err ? err
		  : pd_host_text(at->host, at->bootstrap ? (unsigned)at->bootstrap : BOOTSTRAP_PORT,
				 &p->text);
	err = err ? err
		  : buf_printf(&p->text,
			       "\",\"remote_engine_id\":%.*s,\"transfer_id\":\"xfer-%s\"}",
			       (int)engine.n, engine.p, uuid);
	err = err ? err : pd_path_limit(&c->body, p->path, msg);
	if (err)
		return err;
	p->params = (struct span){p->text.data + first, p->text.len - first};
	p->at_once = p->blocks = true;
	return pd_set_params(c, (struct span){p->text.data, first}, msg);
}

const struct pd_connector pd_connector_mooncake = {
	.name = "mooncake",
	.also = "MooncakeConnector",
	.help = "vLLM MooncakeConnector: both at once, met by the prefill engine's bootstrap "
		"server",
	.flags = PD_READ_ONCE | PD_KNOWS,
	.inquiry = "/query",
	.bootstrap_port = BOOTSTRAP_PORT,
	.returns = "engine id at its bootstrap port",
	.check = pd_check_params,
	.prefill = prefill,
	.answered = pd_plain_answered,
	.decode = pd_params_decode,
};
