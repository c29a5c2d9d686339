#include "cmd/serve_discovery.h"

#include <stdlib.h>
#include <string.h>

#include "lib/discovery/register.h"
#include "lib/net/net.h"
#include "lib/router/sources.h"

struct serve_discovery serve_discovery;
static struct sources_config sources;

#define ROLE_SELECTOR(role) ROUTE_LABEL_ROLE "=" role

void serve_discovery_defaults(void)
{
	serve_discovery =
		(struct serve_discovery){.registry_interval = 2, .dns_interval = 30, .port = 80};
	sources = (struct sources_config){.access = {.fd = {-1, -1, -1}}};
}

bool serve_discovery_is_pd(void)
{
	const struct serve_discovery *o = &serve_discovery;

	return o->register_address || o->dns_prefill.n > 0 || o->dns_decode.n > 0 ||
	       (o->kubernetes && (o->prefill_selector.n > 0 || o->decode_selector.n > 0));
}

/* -- Kubernetes -- */

static int selector(struct kube_selector *s, const struct opt_list *words, const char *flag,
		    struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	int err = PD_OK;

	for (size_t i = 0; !err && i < words->n; i++)
		if (kube_selector_add(s, words->items[i], &inner))
			err = pd_fail(msg, PD_EINVAL, "--%s: %.450s", flag, inner.text);
	return err;
}

static int selectors(struct kube_wanted *w, bool pd, struct pd_msg *msg)
{
	static const char *const words[] = {[DISCOVERY_PREFILL] = ROLE_SELECTOR("prefill"),
					    [DISCOVERY_DECODE] = ROLE_SELECTOR("decode")};
	const struct serve_discovery *o = &serve_discovery;
	int err = selector(&w->all, &o->selector, "selector", msg);

	err = err ? err
		  : selector(&w->role[DISCOVERY_PREFILL], &o->prefill_selector, "prefill-selector",
			     msg);
	err = err ? err
		  : selector(&w->role[DISCOVERY_DECODE], &o->decode_selector, "decode-selector",
			     msg);
	if (!err && !pd && w->all.n == 0)
		return pd_fail(msg, PD_EINVAL,
			       "--service-discovery: found no --selector, expected labels of the "
			       "workers' pods, NAME=VALUE");
	for (int r = DISCOVERY_PREFILL; !err && pd && r <= DISCOVERY_DECODE; r++)
		if (w->role[r].n == 0)
			err = kube_selector_add(&w->role[r], words[r], msg);
	return err;
}

/* A name of RFC 1123, so that it is what it seems in a path. */
static int check_space(const char *space, struct pd_msg *msg)
{
	if (space && (!*space || strlen(space) > 63 ||
		      strspn(space, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(space)))
		return pd_fail(
			msg, PD_EINVAL,
			"--service-discovery-namespace: found '%.100s', expected the name of "
			"a namespace",
			space);
	return PD_OK;
}

/* Where the API server is: flags, then the pod's account, then the environment's file. */
static int find_access(struct kube_access *a, struct pd_msg *msg)
{
	const struct serve_discovery *o = &serve_discovery;
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *file = getenv("KUBECONFIG");
	const char *from = o->server ? "--kube-api-server" : "--kubeconfig";
	struct pd_msg inner = {0};
	int err;

	if (o->server && o->kubeconfig)
		return pd_fail(msg, PD_EINVAL, "--kube-api-server replaces --kubeconfig");
	if (!o->server && (o->token_file || o->ca_file))
		return pd_fail(msg, PD_EINVAL, "--%s: found no --kube-api-server, expected it",
			       o->token_file ? "kube-token-file" : "kube-ca-file");
	if (o->server) {
		err = kube_access_direct(a, o->server, o->token_file, o->ca_file, &inner);
	} else if (o->kubeconfig) {
		err = kube_access_kubeconfig(a, o->kubeconfig, &inner);
	} else if (host && *host) {
		from = "--service-discovery: KUBERNETES_SERVICE_HOST";
		err = kube_access_in_cluster(a, host, getenv("KUBERNETES_SERVICE_PORT"), &inner);
	} else if (file && *file) {
		from = "--service-discovery: KUBECONFIG";
		err = kube_access_kubeconfig(a, file, &inner);
	} else {
		return pd_fail(
			msg, PD_EINVAL,
			"--service-discovery: found neither KUBERNETES_SERVICE_HOST (not in a "
			"pod?) nor KUBECONFIG, expected one, --kubeconfig or "
			"--kube-api-server");
	}
	return err ? pd_fail(msg, PD_EINVAL, "%s: %.430s", from, inner.text) : PD_OK;
}

static int read_kubernetes(struct router_config *c, struct pd_msg *msg)
{
	const struct serve_discovery *o = &serve_discovery;
	struct kube_wanted *w = &sources.pods.wanted;
	int err = check_space(o->space, msg);

	w->pd = c->pd;
	w->plain_names = o->space != NULL;
	w->url_names = c->compat;
	for (int r = DISCOVERY_REGULAR; r <= DISCOVERY_DECODE; r++)
		w->port[r] = (uint16_t)o->port;
	if (o->prefill_port)
		w->port[DISCOVERY_PREFILL] = (uint16_t)o->prefill_port;
	if (o->decode_port)
		w->port[DISCOVERY_DECODE] = (uint16_t)o->decode_port;
	err = err ? err : selectors(w, c->pd, msg);
	err = err ? err : find_access(&sources.access, msg);
	sources.kubernetes = true;
	sources.pods.access = &sources.access;
	sources.pods.space = o->space;
	return err;
}

/* -- DNS -- */

static int names(const struct opt_list *words, const char *flag, enum discovery_role role,
		 struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	for (size_t i = 0; i < words->n; i++) {
		if (dns_wanted_check(words->items[i], &inner))
			return pd_fail(msg, PD_EINVAL, "--%s: %.450s", flag, inner.text);
		if (sources.ndns == DNS_NAMES_MAX)
			return pd_fail(msg, PD_EINVAL, "--%s: found more than %d names", flag,
				       DNS_NAMES_MAX);
		sources.dns[sources.ndns++] = (struct dns_wanted){role, words->items[i]};
	}
	return PD_OK;
}

static int read_dns(const struct router_config *c, struct pd_msg *msg)
{
	const struct serve_discovery *o = &serve_discovery;
	struct pd_msg inner = {0};
	int err = names(&o->dns, "dns-workers", DISCOVERY_REGULAR, msg);

	if (!err && c->pd && o->dns.n > 0)
		return pd_fail(msg, PD_EINVAL,
			       "--dns-workers: found prefill/decode, expected --dns-prefill and "
			       "--dns-decode with it");
	err = err ? err : names(&o->dns_prefill, "dns-prefill", DISCOVERY_PREFILL, msg);
	err = err ? err : names(&o->dns_decode, "dns-decode", DISCOVERY_DECODE, msg);
	if (!err && o->dns_server && dns_server_check(o->dns_server, &inner))
		err = pd_fail(msg, PD_EINVAL, "--dns-server: %.450s", inner.text);
	sources.dns_server = o->dns_server;
	sources.dns_interval_s = o->dns_interval;
	return err;
}

/* -- all of them -- */

int serve_discovery_read(struct router_config *c, struct pd_msg *msg)
{
	const struct serve_discovery *o = &serve_discovery;
	struct pd_msg inner = {0};
	struct net_url at;
	int err = PD_OK;

	sources.register_address = o->register_address;
	sources.registry_url = o->registry_url;
	sources.registry_interval_s = o->registry_interval;
	if (o->register_address && register_check(o->register_address, &inner))
		return pd_fail(msg, PD_EINVAL, "--vllm-discovery-address: %.450s", inner.text);
	if (o->registry_url &&
	    (net_url_parse(&at, o->registry_url, &inner) || strlen(o->registry_url) > 500))
		return pd_fail(msg, PD_EINVAL, "--registry-url: %.450s",
			       inner.text[0] ? inner.text : "found more than 500 bytes");
	if (o->kubernetes)
		err = read_kubernetes(c, msg);
	err = err ? err : read_dns(c, msg);
	if (!err && (o->register_address || o->registry_url || o->kubernetes || sources.ndns > 0))
		c->sources = &sources;
	return err;
}

void serve_discovery_announce(const struct router_config *c)
{
	const struct serve_discovery *o = &serve_discovery;
	const struct {
		const char *flag;
		bool given;
	} pods[] = {{"selector", o->selector.n > 0},
		    {"prefill-selector", o->prefill_selector.n > 0},
		    {"decode-selector", o->decode_selector.n > 0},
		    {"service-discovery-namespace", o->space},
		    {"prefill-discovery-port", o->prefill_port},
		    {"decode-discovery-port", o->decode_port},
		    {"kubeconfig", o->kubeconfig},
		    {"kube-api-server", o->server}};

	for (size_t i = 0; !o->kubernetes && i < sizeof(pods) / sizeof(pods[0]); i++)
		if (pods[i].given)
			log_event(c->log, LOG_WARN, "flag_without_effect",
				  LOG_FIELDS(LOG_TEXT("flag", pods[i].flag),
					     LOG_TEXT("reason", "no --service-discovery")),
				  "--%s has no effect without --service-discovery", pods[i].flag);
	if (o->dns_server && sources.ndns == 0)
		log_event(c->log, LOG_WARN, "flag_without_effect",
			  LOG_FIELDS(LOG_TEXT("flag", "dns-server"),
				     LOG_TEXT("reason", "no name is asked")),
			  "--dns-server has no effect without --dns-workers, --dns-prefill or "
			  "--dns-decode");
}

void serve_discovery_release(struct router_config *c)
{
	struct serve_discovery *o = &serve_discovery;

	c->sources = NULL;
	kube_access_release(&sources.access);
	opt_list_release(&o->selector);
	opt_list_release(&o->prefill_selector);
	opt_list_release(&o->decode_selector);
	opt_list_release(&o->dns);
	opt_list_release(&o->dns_prefill);
	opt_list_release(&o->dns_decode);
}
