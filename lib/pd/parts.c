#include "lib/pd/parts.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/pd/legs.h"

void pd_uuid(uint64_t draw, bool dashes, char out[PD_UUID_TEXT])
{
	uint64_t state = draw, a = rng_splitmix(&state), b = rng_splitmix(&state);

	a = (a & ~UINT64_C(0xf000)) | UINT64_C(0x4000);
	b = (b & ~(UINT64_C(3) << 62)) | (UINT64_C(2) << 62);
	(void)snprintf(out, PD_UUID_TEXT,
		       dashes ? "%08x-%04x-%04x-%04x-%012llx" : "%08x%04x%04x%04x%012llx",
		       (unsigned)(a >> 32), (unsigned)(a >> 16) & 0xffff, (unsigned)a & 0xffff,
		       (unsigned)(b >> 48), (unsigned long long)(b & UINT64_C(0xffffffffffff)));
}

int pd_host_text(struct span host, unsigned port, struct buf *out)
{
	bool bare = memchr(host.p, ':', host.n) != NULL && host.p[0] != '[';

	return buf_printf(out, bare ? "[%.*s]:%u" : "%.*s:%u", (int)host.n, host.p, port);
}

int pd_end_text(const struct pd_end *e, struct buf *out)
{
	return e->kv.n > 0 ? buf_append(out, e->kv.p, e->kv.n)
			   : pd_host_text(e->host, e->port, out);
}

int pd_address_id(struct pd_pair *p)
{
	char uuid[PD_UUID_TEXT];
	int err;

	buf_clear(&p->made_id);
	pd_uuid(p->draw, false, uuid);
	err = buf_puts(&p->made_id, "___prefill_addr_");
	err = err ? err : pd_end_text(&p->prefill, &p->made_id);
	err = err ? err : buf_puts(&p->made_id, "___decode_addr_");
	err = err ? err : pd_end_text(&p->decode, &p->made_id);
	return err ? err : buf_printf(&p->made_id, "_%s", uuid);
}

int pd_check_params(const struct json_object *body, struct pd_msg *msg)
{
	if (!pd_hidden(body, PD_PARAMS))
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       PD_PARAMS " in extra_args or vllm_xargs: they name the host that an engine "
				 "connects to, which is the router's to choose");
}

int pd_set_params(struct pd_copy *c, struct span params, struct pd_msg *msg)
{
	int err = PD_OK;

	if (params.n == 0)
		return json_edit_remove(&c->body, PD_PARAMS);
	err = pd_once(c->body.object, PD_PARAMS, msg);
	return err ? err : json_edit_set(&c->body, PD_PARAMS, params);
}

int pd_params_decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	return pd_set_params(c, p->blocks ? p->params : (struct span){0}, msg);
}

int pd_plain_prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	int err = pd_path_limit(&c->body, p->path, msg);

	return err ? err : pd_set_params(c, (struct span){0}, msg);
}

int pd_plain_answered(struct pd_pair *p, struct span answer, struct pd_msg *msg)
{
	struct json_object o;
	int err = json_object_scan(&o, answer.p, answer.n, msg);

	if (err)
		return err;
	p->blocks = true;
	pd_usage_of_prefill(&p->usage, &o);
	json_object_release(&o);
	return PD_OK;
}

int pd_plain_decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg)
{
	(void)msg;
	if (p->blocks && p->made_id.len > 0)
		c->id = buf_span(&p->made_id);
	return json_edit_remove(&c->body, PD_PARAMS);
}
