#include "cmd/serve_warn.h"

#include <string.h>
#include <sys/resource.h>

static bool is_loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
	       strcmp(host, "localhost") == 0;
}

/* Who reaches a port that changes the fleet may send prompts where he likes. */
static void warn_of_admin(const struct router_config *c)
{
	if (c->admin_keys_file)
		return;
	if (c->metrics_port >= 0 && !is_loopback(c->metrics_host))
		log_event(c->log, LOG_WARN, "fleet_unprotected",
			  LOG_FIELDS(LOG_TEXT("flag", "admin-host"),
				     LOG_TEXT("host", c->metrics_host)),
			  "--admin-host %s: anyone who can connect may change the fleet; "
			  "ask for a key with --admin-api-key-file, and let Prometheus use "
			  "--metrics-port",
			  c->metrics_host);
	if (c->admin_on_data_port && !is_loopback(c->host) && !c->client_keys_file &&
	    c->key_urls_n == 0)
		log_event(c->log, LOG_WARN, "fleet_unprotected",
			  LOG_FIELDS(LOG_TEXT("flag", "admin-on-data-port"),
				     LOG_TEXT("host", c->host), LOG_NUMBER("port", c->port)),
			  "--admin-on-data-port: anyone who can connect to %s:%u may change the "
			  "fleet; "
			  "ask for a key with --admin-api-key-file",
			  c->host, c->port);
}

/* What the flags ask for, when they do; a request has one connection on each side. The server has
 * raised the soft limit already. */
static void warn_of_descriptors(const struct router_config *c, bool concurrent)
{
	uint64_t clients = c->max_connections ? c->max_connections : c->max_concurrent,
		 wanted = clients + c->max_concurrent + 100;
	struct rlimit r;

	if (!c->max_connections && !concurrent)
		return;
	wanted = concurrent ? wanted : 2 * clients + 100;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < wanted)
		log_event(c->log, LOG_WARN, "few_descriptors",
			  LOG_FIELDS(LOG_NUMBER("limit", r.rlim_cur), LOG_NUMBER("wanted", wanted)),
			  "the limit of open files is %llu, and %s asks for %llu: raise it (ulimit "
			  "-n, "
			  "LimitNOFILE=), or connections are refused",
			  (unsigned long long)r.rlim_cur,
			  concurrent ? c->max_connections ? "--max-connections with "
							    "--max-concurrent-requests"
							  : "--max-concurrent-requests"
				     : "--max-connections",
			  (unsigned long long)wanted);
}

void serve_warn(const struct router_config *c, bool concurrent)
{
	warn_of_admin(c);
	warn_of_descriptors(c, concurrent);
}

void serve_tell(const struct router_config *c, const struct router *rt)
{
	if (c->fleet.workers.n == 0 && !c->sources)
		log_event(
			c->log, LOG_WARN, "no_workers", LOG_NO_FIELDS,
			"no workers: requests get 503 until one is added, with `pdctl workers add` "
			"or by a reload of --workers-file");
	if (router_metrics_port(rt))
		log_event(c->log, LOG_INFO, "admin_listening",
			  LOG_FIELDS(LOG_TEXT("host", c->metrics_host),
				     LOG_NUMBER("port", router_metrics_port(rt))),
			  "admin and metrics on http://%s:%u", c->metrics_host,
			  router_metrics_port(rt));
	if (router_scrape_port(rt))
		log_event(c->log, LOG_INFO, "metrics_listening",
			  LOG_FIELDS(LOG_TEXT("host", c->scrape_host),
				     LOG_NUMBER("port", router_scrape_port(rt))),
			  "metrics and probes on http://%s:%u", c->scrape_host,
			  router_scrape_port(rt));
	log_event(
		c->log, LOG_INFO, "started",
		LOG_FIELDS(LOG_TEXT("host", c->host), LOG_NUMBER("port", router_port(rt)),
			   LOG_TEXT("mode", c->pd ? "prefill/decode" : "regular"),
			   LOG_TEXT("policy",
				    c->fleet.policy[c->pd ? ROLE_DECODE : ROLE_REGULAR].type->name),
			   LOG_NUMBER("workers", c->fleet.workers.n),
			   LOG_NUMBER("max_payload", c->max_body)),
		"Starting router on %s:%u | mode: %s | policy: %s | workers: %zu | max_payload: "
		"%zuMB",
		c->host, router_port(rt), c->pd ? "prefill/decode" : "regular",
		c->fleet.policy[c->pd ? ROLE_DECODE : ROLE_REGULAR].type->name, c->fleet.workers.n,
		c->max_body >> 20);
}
