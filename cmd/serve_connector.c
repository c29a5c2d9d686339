#include "cmd/serve_connector.h"

#include <string.h>

#include "lib/discovery/register.h"
#include "lib/net/net.h"
#include "lib/pd/connector.h"

int serve_connector(struct router_config *c, const char *name, const char *fallback,
		    struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	bool whole;

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

int serve_sources(struct router_config *c, const char *address, const char *url, double interval_s,
		  struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	struct net_url at;

	c->register_address = address;
	c->registry_url = url;
	c->registry_interval_s = interval_s;
	if (address && register_check(address, &inner))
		return pd_fail(msg, PD_EINVAL, "--vllm-discovery-address: %.450s", inner.text);
	if (url && (net_url_parse(&at, url, &inner) || strlen(url) > 500))
		return pd_fail(msg, PD_EINVAL, "--registry-url: %.450s",
			       inner.text[0] ? inner.text : "found more than 500 bytes");
	return PD_OK;
}
