#include "cmd/serve_connector.h"

#include <string.h>

#include "lib/pd/connector.h"

static const char *pair_label;
static bool prefiller_header;

const struct opt serve_connector_rows[] = {
	{OPT_TEXT, "pd-pair-label", &pair_label, "NAME",
	 "P/D: the prefill worker is one with the decode worker's value of this label, if one can "
	 "take the request: a host, a rack, an NVLink domain (none)",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "prefiller-header", &prefiller_header, NULL,
	 "P/D: x-prefiller-host-port of a request names its prefill worker, as llm-d's endpoint "
	 "picker sends it; only workers of this router (off)",
	 NULL, 0, 0, NULL},
	{.type = OPT_END},
};

int serve_connector(struct router_config *c, const char *name, const char *fallback,
		    struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	bool whole;

	c->pair_label = pair_label;
	c->prefiller_header = prefiller_header;
	if (c->pd && name && pd_connector_find(&c->connector, name, &inner))
		return pd_fail(msg, PD_EINVAL, "--kv-connector: %.480s", inner.text);
	whole = c->pd && (c->connector->flags & PD_WHOLE);
	if (whole && fallback && strcmp(fallback, "fail") != 0)
		return pd_fail(msg, PD_EINVAL,
			       "--pd-fallback: found '%s', expected 'fail' with --kv-connector %s: "
			       "its decode workers cannot answer alone",
			       fallback, c->connector->name);
	c->pd_fallback = whole || (fallback && strcmp(fallback, "fail") == 0)
				 ? PD_FALLBACK_FAIL
				 : PD_FALLBACK_DECODE_ONLY;
	if (c->pd) {
		c->inquiry = c->connector->inquiry;
		c->inquiry_port = c->connector->bootstrap_port;
	}
	return PD_OK;
}

int serve_decider_check(const struct router_config *c, bool given, struct pd_msg *msg)
{
	if (!c->pd || c->decider.kind == ROUTE_DECIDER_always || !(c->connector->flags & PD_WHOLE))
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "%s: found '%s', expected 'always' with --kv-connector %s: its decode "
		       "workers cannot answer alone",
		       given ? "--pd-decider" : "--epp-config: its decider",
		       route_decider_name(c->decider.kind), c->connector->name);
}
